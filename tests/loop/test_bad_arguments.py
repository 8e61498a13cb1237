"""Wrong types and states: what stock asyncio says of each is asked of it in the same test, and must be said here too.

A case is a coroutine over a world. Its outcome is the exception's type and words, or that there was none; reprs of
objects are left out of the comparison.
"""

from __future__ import annotations

import asyncio
import io
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from types import MappingProxyType
from typing import Any

import pytest

from .peers import Recorder, connected
from .worlds import World, new_world

Case = Callable[[World], Awaitable[Any]]


async def value(call: Callable[[], Any]) -> Any:
    """A plain call as a coroutine."""
    return call()


def of_loop(method: str, *args: Any, **options: Any) -> Case:
    def case(world: World) -> Awaitable[Any]:
        result = getattr(world.loop, method)(*args, **options)
        return result if asyncio.iscoroutine(result) else value(lambda: result)

    return case


def of_transport(*calls: tuple[Any, ...]) -> Case:
    """A connection's transport, on which one method after the other is called; the last is the one in question."""

    async def case(world: World) -> Any:
        connection = await connected(world)
        try:
            for name, *args in calls:
                if name == "end":
                    await connection.end()
                else:
                    result = getattr(connection.transport, name)(*args)
            return result
        finally:
            connection.transport.abort()
            await connection.end()

    return case


def of_server(*calls: str) -> Case:
    async def case(world: World) -> Any:
        server = await world.loop.create_server(Recorder, world.host, 0)
        try:
            for name in calls:
                result = getattr(server, name)()
                if asyncio.iscoroutine(result):
                    await result
        finally:
            server.close()

    return case


def of_datagrams(*calls: tuple[Any, ...]) -> Case:
    async def case(world: World) -> Any:
        transport, _ = await world.loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(world.host, 0))
        try:
            for name, *args in calls:
                getattr(transport, name)(*args)
        finally:
            transport.close()
            await asyncio.sleep(0)

    return case


def of_socket(method: str, *args: Any, type: int = socket.SOCK_STREAM) -> Case:
    async def case(world: World) -> Any:
        sock = world.new_socket(type=type)
        try:
            return await getattr(world.loop, method)(sock, *args)
        finally:
            sock.close()

    return case


def with_socket(method: str, *args: Any, type: int = socket.SOCK_DGRAM, **options: Any) -> Case:
    """A method that takes `sock=`."""

    async def case(world: World) -> Any:
        sock = world.new_socket(type=type)
        try:
            return await getattr(world.loop, method)(Recorder, *args, sock=sock, **options)
        finally:
            sock.close()

    return case


async def accepted_of_wrong_type(world: World) -> Any:
    sock = world.new_socket(type=socket.SOCK_DGRAM)
    try:
        await world.loop.connect_accepted_socket(Recorder, sock)
    finally:
        sock.close()


async def sendfile(world: World, *args: Any, close: bool = False) -> Any:
    connection = await connected(world)
    try:
        if close:
            connection.transport.close()
        return await world.loop.sendfile(connection.transport, *args)
    finally:
        await connection.end()


async def start_tls(world: World, *args: Any, **options: Any) -> Any:
    connection = await connected(world)
    try:
        return await world.loop.start_tls(connection.transport, connection.client, *args, **options)
    finally:
        await connection.end()


async def forgotten() -> None:
    """Never awaited: what is closed may not be scheduled."""


def in_debug(method: str, *before: Any) -> Case:
    """Hand a coroutine to a method that takes a callable."""

    async def case(world: World) -> Any:
        world.loop.set_debug(True)
        world.loop.slow_callback_duration = 100
        coroutine = forgotten()
        try:
            return getattr(world.loop, method)(*before, coroutine)
        finally:
            coroutine.close()
            world.loop.set_debug(False)

    return case


CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
R = Recorder

CASES = MappingProxyType(
    {
        # callbacks
        "call_later None": of_loop("call_later", None, print),
        "call_later text": of_loop("call_later", "soon", print),
        "call_at None": of_loop("call_at", None, print),
        "call_soon nothing": of_loop("call_soon"),
        "call_soon_threadsafe nothing": of_loop("call_soon_threadsafe"),
        "call_soon coroutine": in_debug("call_soon"),
        "call_later coroutine": in_debug("call_later", 0),
        "call_soon_threadsafe coroutine": in_debug("call_soon_threadsafe"),
        "run_in_executor coroutine": in_debug("run_in_executor", None),
        "create_task number": of_loop("create_task", 7),
        "set_task_factory": of_loop("set_task_factory", 7),
        "set_exception_handler": of_loop("set_exception_handler", 7),
        "set_default_executor": of_loop("set_default_executor", 7),
        "run_until_complete number": of_loop("run_until_complete", 7),
        # descriptors and signals
        "add_reader negative": of_loop("add_reader", -1, print),
        "add_reader text": of_loop("add_reader", "text", print),
        "add_reader None": of_loop("add_reader", None, print),
        "add_writer closed": of_loop("add_writer", 9999, print),
        "remove_reader negative": of_loop("remove_reader", -1),
        "remove_writer text": of_loop("remove_writer", "text"),
        "remove_reader unknown": of_loop("remove_reader", 9999),
        "add_signal_handler text": of_loop("add_signal_handler", "INT", print),
        "add_signal_handler 999": of_loop("add_signal_handler", 999, print),
        "add_signal_handler 0": of_loop("add_signal_handler", 0, print),
        "add_signal_handler coroutine": of_loop("add_signal_handler", 10, forgotten),
        "remove_signal_handler 999": of_loop("remove_signal_handler", 999),
        # connections
        "connection nowhere": of_loop("create_connection", R),
        "connection host only": of_loop("create_connection", R, "127.0.0.1"),
        "connection port of text": of_loop("create_connection", R, "127.0.0.1", "no such service"),
        "connection port too large": of_loop("create_connection", R, "127.0.0.1", 70000),
        "connection port negative": of_loop("create_connection", R, "127.0.0.1", -1),
        "connection host a number": of_loop("create_connection", R, 7, 80),
        "connection local_addr a number": of_loop("create_connection", R, "127.0.0.1", 80, local_addr=7),
        "connection local_addr too short": of_loop("create_connection", R, "127.0.0.1", 80, local_addr=("127.0.0.1",)),
        "connection family": of_loop("create_connection", R, "127.0.0.1", 80, family=socket.AF_INET6),
        "connection name without tls": of_loop("create_connection", R, "127.0.0.1", 80, server_hostname="x"),
        "connection tls without name": with_socket("create_connection", ssl=CONTEXT, type=socket.SOCK_STREAM),
        "connection handshake": of_loop("create_connection", R, "127.0.0.1", 80, ssl_handshake_timeout=1),
        "connection shutdown": of_loop("create_connection", R, "127.0.0.1", 80, ssl_shutdown_timeout=1),
        "connection sock and host": with_socket("create_connection", "127.0.0.1", 80),
        "connection sock of datagrams": with_socket("create_connection"),
        "connection unknown": of_loop("create_connection", R, "127.0.0.1", 80, unknown=1),
        # servers
        "server nowhere": of_loop("create_server", R),
        "server tls True": of_loop("create_server", R, "127.0.0.1", 0, ssl=True),
        "server handshake": of_loop("create_server", R, "127.0.0.1", 0, ssl_handshake_timeout=1),
        "server shutdown": of_loop("create_server", R, "127.0.0.1", 0, ssl_shutdown_timeout=1),
        "server sock and host": with_socket("create_server", "127.0.0.1", 80),
        "server sock of datagrams": with_socket("create_server"),
        "server port too large": of_loop("create_server", R, "127.0.0.1", 70000),
        "server host a number": of_loop("create_server", R, 7, 80),
        "server closed, serve_forever": of_server("close", "serve_forever"),
        "server closed, start_serving": of_server("close", "start_serving"),
        "server closed, wait_closed": of_server("close", "wait_closed"),
        "accepted of datagrams": accepted_of_wrong_type,
        # transports
        "write text": of_transport(("write", "text")),
        "write None": of_transport(("write", None)),
        "write number": of_transport(("write", 7)),
        "write list": of_transport(("write", [b"x"])),
        "writelines text": of_transport(("writelines", ["text"])),
        "writelines None": of_transport(("writelines", None)),
        "write after write_eof": of_transport(("write_eof",), ("write", b"x")),
        "writelines after write_eof": of_transport(("write_eof",), ("writelines", [b"x"])),
        "write_eof twice": of_transport(("write_eof",), ("write_eof",)),
        "write_eof after close": of_transport(("close",), ("write_eof",)),
        "write text after close": of_transport(("close",), ("write", "text")),
        "pause twice": of_transport(("pause_reading",), ("pause_reading",)),
        "resume at once": of_transport(("resume_reading",)),
        "pause after close": of_transport(("close",), ("pause_reading",)),
        "resume after close": of_transport(("pause_reading",), ("close",), ("resume_reading",)),
        "pause after the end": of_transport(("end",), ("pause_reading",)),
        "limits negative": of_transport(("set_write_buffer_limits", -1)),
        "limits reversed": of_transport(("set_write_buffer_limits", 1, 2)),
        "limits of text": of_transport(("set_write_buffer_limits", "many")),
        # files and TLS
        "sendfile of text": lambda world: sendfile(world, io.StringIO("text")),
        "sendfile offset": lambda world: sendfile(world, io.BytesIO(b"x"), -1),
        "sendfile count": lambda world: sendfile(world, io.BytesIO(b"x"), 0, 0),
        "sendfile count of text": lambda world: sendfile(world, io.BytesIO(b"x"), 0, "all"),
        "sendfile when closing": lambda world: sendfile(world, io.BytesIO(b"x"), close=True),
        "start_tls without a context": lambda world: start_tls(world, None),
        "start_tls with a flag": lambda world: start_tls(world, True),
        # datagrams
        "endpoint nowhere": of_loop("create_datagram_endpoint", R),
        "endpoint local a number": of_loop("create_datagram_endpoint", R, local_addr=7),
        "endpoint local too short": of_loop("create_datagram_endpoint", R, local_addr=("127.0.0.1",)),
        "endpoint two families": of_loop(
            "create_datagram_endpoint", R, local_addr=("127.0.0.1", 0), remote_addr=("::1", 9)
        ),
        "endpoint sock and address": with_socket("create_datagram_endpoint", ("127.0.0.1", 0)),
        "endpoint sock of a stream": with_socket("create_datagram_endpoint", type=socket.SOCK_STREAM),
        "sendto text": of_datagrams(("sendto", "text", ("127.0.0.1", 9))),
        "sendto None": of_datagrams(("sendto", None)),
        # sock_*
        "sock_recv text": of_socket("sock_recv", "many"),
        "sock_recv unconnected": of_socket("sock_recv", 10),
        "sock_recv negative": of_socket("sock_recv", -1),
        "sock_recv_into bytes": of_socket("sock_recv_into", b"fixed"),
        "sock_recvfrom_into bytes": of_socket("sock_recvfrom_into", b"fixed", type=socket.SOCK_DGRAM),
        "sock_recvfrom_into too much": of_socket("sock_recvfrom_into", bytearray(3), 7, type=socket.SOCK_DGRAM),
        "sock_sendall text": of_socket("sock_sendall", "text"),
        "sock_sendall unconnected": of_socket("sock_sendall", b"data"),
        "sock_sendto text": of_socket("sock_sendto", "text", ("127.0.0.1", 9), type=socket.SOCK_DGRAM),
        "sock_sendto port": of_socket("sock_sendto", b"x", ("127.0.0.1", 70000), type=socket.SOCK_DGRAM),
        "sock_sendto address": of_socket("sock_sendto", b"x", "127.0.0.1", type=socket.SOCK_DGRAM),
        "sock_accept not listening": of_socket("sock_accept"),
        "sock_connect text": of_socket("sock_connect", "127.0.0.1"),
        "sock_connect port": of_socket("sock_connect", ("127.0.0.1", 70000)),
        "sock_connect too short": of_socket("sock_connect", ("127.0.0.1",)),
        # names
        "getaddrinfo a number": of_loop("getaddrinfo", 7, 80),
        "getaddrinfo nothing": of_loop("getaddrinfo", None, None),
        "getaddrinfo family": of_loop("getaddrinfo", "127.0.0.1", 80, family=99),
        "getnameinfo text": of_loop("getnameinfo", "127.0.0.1"),
        "getnameinfo name": of_loop("getnameinfo", ("no address", 80)),
        # UNIX sockets, pipes, subprocesses
        "unix connection nowhere": of_loop("create_unix_connection", R),
        "unix connection tls": of_loop("create_unix_connection", R, "/nowhere", ssl=CONTEXT),
        "unix connection name": of_loop("create_unix_connection", R, "/nowhere", server_hostname="x"),
        "unix server nowhere": of_loop("create_unix_server", R),
        "unix server tls": of_loop("create_unix_server", R, "/nowhere", ssl=True),
        "unix sock of another family": with_socket("create_unix_connection", type=socket.SOCK_STREAM),
        "shell a list": of_loop("subprocess_shell", asyncio.SubprocessProtocol, ["true"]),
        "shell text mode": of_loop("subprocess_shell", asyncio.SubprocessProtocol, "true", text=True),
        "shell universal_newlines": of_loop(
            "subprocess_shell", asyncio.SubprocessProtocol, "true", universal_newlines=True
        ),
        "exec bufsize": of_loop("subprocess_exec", asyncio.SubprocessProtocol, "true", bufsize=1),
        "exec encoding": of_loop("subprocess_exec", asyncio.SubprocessProtocol, "true", encoding="utf-8"),
        "exec errors": of_loop("subprocess_exec", asyncio.SubprocessProtocol, "true", errors="strict"),
        "exec a number": of_loop("subprocess_exec", asyncio.SubprocessProtocol, 7),
        "read pipe of nothing": of_loop("connect_read_pipe", R, None),
        "write pipe of nothing": of_loop("connect_write_pipe", R, None),
    }
)


PAIR = ("pair",)

# Expected failures: where libos says something else. Those that pass must go.
OTHERWISE = MappingProxyType(
    {
        "connection host only": (PAIR, "port 0 is refused before anything is sent"),
        "connection port of text": (PAIR, "the resolver's own words"),
        "connection port too large": (PAIR, "names another function"),
        "connection port negative": (PAIR, "names another function"),
        "connection host a number": (PAIR, "the resolver's own words"),
        "connection local_addr a number": (PAIR, "words only"),
        "connection local_addr too short": (PAIR, "words only"),
        "connection family": (PAIR, "the resolver's own words"),
        "connection unknown": (PAIR, "names the function, not the class"),
        "server port too large": (PAIR, "names another function"),
        "server host a number": (PAIR, "words only"),
        "server closed, start_serving": (PAIR, "nothing to start; asyncio falls over a None"),
        "sendfile offset": (PAIR, "the fallback checks nothing"),
        "sendfile count": (PAIR, "the fallback checks nothing"),
        "sendfile count of text": (PAIR, "the fallback checks nothing"),
        "endpoint sock and address": (PAIR, "does not list the arguments"),
        "sock_recv text": (PAIR, "words only"),
        "sock_recv_into bytes": (PAIR, "BufferError"),
        "sock_recvfrom_into bytes": (PAIR, "BufferError"),
        "sock_sendall text": (PAIR, "words only"),
        "sock_sendall unconnected": (PAIR, "ENOTCONN, not EPIPE"),
        "sock_sendto text": (PAIR, "words only"),
        "sock_sendto port": (PAIR, "names another function"),
        "sock_sendto address": (PAIR, "names another function"),
        "sock_connect text": (PAIR, "takes its first two letters for host and port"),
        "sock_connect port": (PAIR, "names another function"),
        "sock_connect too short": (PAIR, "words only"),
        "getaddrinfo a number": (PAIR, "the resolver's own words"),
        "getnameinfo text": (PAIR, "words only"),
        "getnameinfo name": (PAIR, "the resolver's own words"),
    }
)


def outcome(world: World, case: Case) -> str:
    async def main() -> str:
        try:
            await case(world)
        except Exception as error:
            words = re.sub(r"<.*>|0x[0-9a-f]+|\('[0-9a-f.:]+', \d+.*?\)", "...", str(error))
            return f"{type(error).__name__}: {words}"
        return "no error"

    result: str = world.run(main())
    return result


@pytest.mark.parametrize("name", CASES)
def test_what_asyncio_says_is_said(world: World, name: str, request: pytest.FixtureRequest) -> None:
    kinds, reason = OTHERWISE.get(name, ((), ""))
    if world.kind in kinds:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    reference = new_world("asyncio")
    try:
        expected = outcome(reference, CASES[name])
    finally:
        reference.close()
    assert outcome(world, CASES[name]) == expected
    world.errors.clear()
