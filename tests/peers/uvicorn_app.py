"""An application as one finds them: FastAPI, its models and dependencies, streams and a WebSocket."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel

app = FastAPI()
served = {"hello": 0}


class Item(BaseModel):
    name: str
    price: float
    tags: list[str] = []


def page(skip: int = 0, limit: int = 10) -> slice:
    return slice(skip, skip + limit)


@app.get("/hello", response_class=PlainTextResponse)
async def hello() -> str:
    served["hello"] += 1
    return "Hello.\n"


@app.get("/served")
async def count() -> int:
    return served["hello"]


@app.get("/loop")
async def loop(request: Request) -> dict[str, object]:
    """Whose loop this is, and who asks."""
    kind = type(asyncio.get_running_loop())
    assert request.client is not None
    return {"loops": [base.__module__ for base in kind.__mro__], "client": request.client.host}


@app.post("/items", status_code=201)
async def create(item: Item) -> Item:
    if item.price < 0:
        raise HTTPException(409, "nobody pays you for it")
    return item


@app.get("/threads")
def in_a_thread(part: Annotated[slice, Depends(page)]) -> list[int]:
    return list(range(100))[part]


@app.post("/digest")
async def digest(request: Request) -> dict[str, object]:
    seen, size = hashlib.sha256(), 0
    async for portion in request.stream():
        seen.update(portion)
        size += len(portion)
    return {"bytes": size, "sha256": seen.hexdigest()}


@app.get("/bytes/{size}")
async def stream(size: int) -> StreamingResponse:
    async def portions() -> AsyncIterator[bytes]:
        for start in range(0, size, 65536):
            yield (bytes(range(256)) * 256)[: size - start]

    return StreamingResponse(portions())


@app.websocket("/shout")
async def shout(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text.upper())
