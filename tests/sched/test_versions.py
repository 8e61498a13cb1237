"""What later Pythons have asyncio's loops do, on those that have it."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from pathlib import Path
from typing import Any

import pytest

AnyLoop = asyncio.AbstractEventLoop

since = {
    version: pytest.mark.skipif(sys.version_info < version, reason=f"new in {version}")
    for version in ((3, 12), (3, 13), (3, 14))
}


@pytest.fixture(autouse=True)
def not_uvloop(loop: AnyLoop) -> None:
    if type(loop).__module__ == "uvloop":
        pytest.skip("uvloop has its own ways")


@since[3, 12]
def test_eager_tasks_run_at_once_up_to_their_first_wait(loop: AnyLoop) -> None:
    async def main() -> list[str]:
        seen: list[str] = []

        async def work(name: str, *, wait: bool) -> str:
            seen.append(f"{name} began")
            if wait:
                await asyncio.sleep(0)
            seen.append(f"{name} ended")
            return name

        loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009
        quick = loop.create_task(work("quick", wait=False))
        assert quick.done()
        slow = loop.create_task(work("slow", wait=True))
        assert not slow.done()
        seen.append("main")
        assert await asyncio.gather(quick, slow) == ["quick", "slow"]
        loop.set_task_factory(None)
        return seen

    assert loop.run_until_complete(main()) == ["quick began", "quick ended", "slow began", "main", "slow ended"]


@since[3, 12]
def test_an_exception_handler_runs_in_the_context_of_what_failed(loop: AnyLoop) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")
    seen: list[str] = []

    def handler(loop: AnyLoop, context: dict[str, Any]) -> None:
        seen.append(variable.get())

    async def main() -> None:
        loop.set_exception_handler(handler)
        context = contextvars.copy_context()
        context.run(variable.set, "inside")
        loop.call_soon(lambda: 1 / 0, context=context)
        loop.call_later(0, lambda: 1 / 0, context=context)
        await asyncio.sleep(0.001)

    loop.run_until_complete(main())
    assert seen == ["inside"] * 2


@since[3, 13]
@pytest.mark.parametrize("cleanup", [True, False])
def test_a_servers_unix_socket_is_removed(loop: AnyLoop, tmp_path: Path, cleanup: bool) -> None:
    path = tmp_path / "socket"

    async def main() -> None:
        options: dict[str, Any] = {} if cleanup else {"cleanup_socket": False}
        server = await loop.create_unix_server(asyncio.Protocol, str(path), **options)
        assert path.exists()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    assert path.exists() != cleanup


@since[3, 13]
@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
def test_a_server_ends_its_clients(loop: AnyLoop, how: str) -> None:
    async def main() -> None:
        accepted, lost = loop.create_future(), loop.create_future()

        class Client(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                accepted.set_result(transport)

            def connection_lost(self, exc: Exception | None) -> None:
                lost.set_result(exc)

        server = await loop.create_server(Client, "127.0.0.1", 0, **{"keep_alive": True})  # type: ignore[arg-type]
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await accepted
        server.close()
        getattr(server, how)()
        assert await lost is None
        await asyncio.wait_for(server.wait_closed(), 10)
        assert await reader.read() == b"" or how == "abort_clients"
        writer.close()
        await writer.wait_closed()

    loop.run_until_complete(main())


@since[3, 12]
def test_a_server_waits_for_its_clients(loop: AnyLoop) -> None:
    async def main() -> None:
        accepted = asyncio.Event()

        class Client(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                accepted.set()

        server = await loop.create_server(Client, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await accepted.wait()
        server.close()
        closed = asyncio.ensure_future(server.wait_closed())
        await asyncio.sleep(0.001)
        assert not closed.done()
        writer.close()
        await asyncio.wait_for(closed, 10)

    loop.run_until_complete(main())
