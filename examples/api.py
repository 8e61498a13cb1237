"""An ordinary ASGI application; uvicorn serves it on libos's own TCP/IP:

libos run --publish 8080:80 -m uvicorn examples.api:app --host 0.0.0.0 --port 80
curl http://127.0.0.1:8080/items/7
"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route


async def home(request: Request) -> Response:
    return PlainTextResponse("Hello from starlette on libos.\n")


async def item(request: Request) -> Response:
    return JSONResponse({"item": request.path_params["number"], "client": request.client and request.client.host})


async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type="application/octet-stream")


app = Starlette(routes=[Route("/", home), Route("/items/{number:int}", item), Route("/echo", echo, methods=["POST"])])
