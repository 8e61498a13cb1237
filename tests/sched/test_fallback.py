"""Where io_uring_setup is refused, as containers do by default, `auto` becomes epoll and says why."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

from libos.clock import MonotonicClock
from libos.sched.reactor import Reactor

# Denies io_uring_setup(2) with errno argv[1] to itself, then runs a TCP echo on a loop over an `auto` reactor.
PROGRAM = r"""
import asyncio, ctypes, json, struct, sys
from libos.clock import MonotonicClock
from libos.errors import HostError
from libos.sched.loop import Loop
from libos.sched.reactor import Reactor

NR_IO_URING_SETUP = 425  # the same on every architecture
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x00050000, 0x7FFF0000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K

program = b"".join(struct.pack("HBBI", *line) for line in [
    (LOAD, 0, 0, 0),  # seccomp_data.nr
    (JUMP_IF_EQUAL, 0, 1, NR_IO_URING_SETUP),
    (RETURN, 0, 0, SECCOMP_RET_ERRNO | int(sys.argv[1])),
    (RETURN, 0, 0, SECCOMP_RET_ALLOW),
])
buffer = ctypes.create_string_buffer(program)
filter = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter) == 0, ctypes.get_errno()

try:
    Reactor("io_uring", clock=MonotonicClock())
    raise AssertionError("io_uring was not refused")
except HostError as error:
    refusal = str(error)

async def echo(reader, writer):
    while data := await reader.read(1000):
        writer.write(data)
    writer.close()
    await writer.wait_closed()
    ended.set()

async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello")
    answer = await reader.readexactly(5)
    writer.close()
    await writer.wait_closed()
    await ended.wait()
    server.close()
    return answer.decode()

ended = asyncio.Event()
reactor = Reactor("auto", clock=MonotonicClock())
loop = Loop(reactor, own_reactor=True)
answer = loop.run_until_complete(main())
loop.close()
print(json.dumps({"kind": reactor.kind, "fell_back": reactor.fell_back, "refusal": refusal, "answer": answer}))
"""


@pytest.mark.skipif(sys.byteorder != "little" or platform.machine() not in ("x86_64", "aarch64"), reason="its ABI")
@pytest.mark.parametrize(("errno", "says"), [(1, "not permitted"), (38, "too old"), (12, "Cannot allocate memory")])
def test_a_refused_ring_becomes_epoll(errno: int, says: str) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(errno)], capture_output=True, text=True, check=False
    )
    assert result.stderr == ""
    told = json.loads(result.stdout)
    assert told["kind"] == "epoll"
    assert says in told["fell_back"]
    assert says in told["refusal"]
    assert told["answer"] == "hello"


def test_without_the_liburing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "liburing", None)
    reactor = Reactor("auto", clock=MonotonicClock())
    assert reactor.kind == "epoll"
    assert reactor.fell_back is not None
    assert "liburing" in reactor.fell_back
    reactor.close()
