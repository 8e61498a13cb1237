"""An ordinary aiohttp program: nothing in it knows about libos.

    libos run --publish 8080:80 examples/hello_http.py
    curl http://127.0.0.1:8080/

It also runs as ``python examples/hello_http.py`` (port 80 then wants root). ``POST /digest`` answers with the length
and SHA-256 of what it was sent; ``GET /bytes/N`` sends N bytes.
"""

import hashlib

from aiohttp import web

routes = web.RouteTableDef()


@routes.get("/")
async def hello(request: web.Request) -> web.Response:
    return web.Response(text=f"Hello, {request.remote}. This page came over libos's own TCP/IP.\n")


@routes.post("/digest")
async def digest(request: web.Request) -> web.Response:
    total, sha = 0, hashlib.sha256()
    async for chunk in request.content.iter_any():
        total += len(chunk)
        sha.update(chunk)
    return web.json_response({"bytes": total, "sha256": sha.hexdigest()})


@routes.get(r"/bytes/{count:\d+}")
async def send_bytes(request: web.Request) -> web.StreamResponse:
    left = int(request.match_info["count"])
    response = web.StreamResponse(headers={"Content-Length": str(left)})
    await response.prepare(request)
    block = bytes(range(256)) * 256
    while left:
        await response.write(block[:left])
        left -= min(left, len(block))
    return response


app = web.Application()
app.add_routes(routes)

if __name__ == "__main__":
    web.run_app(app, port=80)
