"""No descriptors left: connecting says so; a server goes on when there are some again. In processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = '''
import asyncio, contextlib, os, resource, socket, sys
from tests.loop.worlds import new_world

asyncio.constants.ACCEPT_RETRY_DELAY = 0.05
world = new_world(sys.argv[1])
loop = world.loop
told = world.errors

async def accept():
    """Clients connect while there is no descriptor for the server's ends; then there are some again."""
    async def echo(reader, writer):
        writer.write(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    clients = [socket.socket() for _ in range(5)]
    taken = take_all()
    for client in clients:
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, b"hello")
    await asyncio.sleep(0.06)
    assert told, "nobody was told"
    assert all("accept" in context["message"] for context in told), told
    assert {type(context["exception"]) for context in told} == {OSError}
    assert len(told) < 50 or sys.version_info < (3, 12), "it spins"  # as Python 3.11 does, by its backlog
    give_back(taken)
    for client in clients:
        assert await loop.sock_recv(client, 100) == b"hello"
        client.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"still here")
    assert await reader.read() == b"still here"
    writer.close()
    await writer.wait_closed()
    server.close()

async def connect():
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    taken = take_all()
    for _ in range(3):
        try:
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
        except OSError as error:
            assert error.errno == 24, error
        else:
            raise AssertionError("connected")
    give_back(taken)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    server.close()

def take_all():
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    return taken

def give_back(taken):
    for fd in taken:
        os.close(fd)

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
world.run(globals()[sys.argv[2]]())
world.close()
print("well")
'''


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["asyncio", "io_uring", "epoll"])
@pytest.mark.parametrize("what", ["accept", "connect"])
def test_no_descriptors_left(kind: str, what: str) -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({str(root)!r})\n" + PROGRAM, kind, what],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "well\n", done.stderr
