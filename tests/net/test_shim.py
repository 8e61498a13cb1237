"""The shims: uvloop's module and the socket module of a program under ``libos run``."""

from __future__ import annotations

import asyncio
import importlib
import socket
import sys
import threading
from typing import Any

import pytest

from libos.errors import WorldError
from libos.net.sockets import StackSocket
from libos.shim import socket as socket_shim
from libos.shim import uvloop as uvloop_shim


@pytest.fixture
def machine(wire):
    with socket_shim.installed(wire.client):
        yield wire


def test_internet_sockets_are_the_machines(machine):
    for arguments in ((), (socket.AF_INET,), (socket.AF_INET6, socket.SOCK_DGRAM)):
        with socket.socket(*arguments) as sock:
            assert isinstance(sock, StackSocket)
            assert isinstance(sock, socket.socket)
            assert sock.getblocking()
    assert issubclass(StackSocket, socket.socket)


def test_other_sockets_are_the_hosts(machine):
    a, b = socket.socketpair()
    with a, b, socket.socket(socket.AF_UNIX) as unix, socket.socket(fileno=a.dup().detach()) as duplicate:
        for sock in (a, b, unix, duplicate):
            assert isinstance(sock, socket.socket)
            assert not isinstance(sock, StackSocket)
            assert sock.fileno() >= 0
        a.send(b"x")
        assert b.recv(1) == b"x"
    assert not isinstance(object(), socket.socket)


def test_everything_is_put_back(wire):
    before = {name: getattr(socket, name) for name in dir(socket)}
    with socket_shim.installed(wire.client):
        assert socket.socket is not before["socket"]
    assert {name: getattr(socket, name) for name in dir(socket)} == before


def test_blocking_calls_say_what_to_use(machine):
    with pytest.raises(WorldError, match=r"asyncio\.open_connection"):
        socket.create_connection(("10.0.0.2", 80))
    with pytest.raises(WorldError, match=r"asyncio\.start_server"):
        socket.create_server(("10.0.0.2", 80))
    with pytest.raises(WorldError, match=r"loop\.getaddrinfo"):
        socket.getaddrinfo("www.test", 80)
    assert socket.getaddrinfo("10.0.0.2", 80, type=socket.SOCK_STREAM)[0][4] == ("10.0.0.2", 80)
    assert socket.gethostbyname("localhost") == "127.0.0.1"
    with socket.socket() as sock, pytest.raises(WorldError, match="would stop the machine"):
        sock.connect(("10.0.0.2", 80))


def test_subclasses_are_of_the_host_or_not_at_all(machine):
    class Mine(socket.socket):
        pass

    with Mine(socket.AF_UNIX) as sock:
        assert isinstance(sock, Mine)
    with pytest.raises(WorldError, match="Mine"):
        Mine(socket.AF_INET)
    assert not isinstance(StackSocket, Mine)


def test_other_threads_get_no_sockets(machine):
    outcome: list[Any] = []

    def work() -> None:
        try:
            socket.socket()
        except WorldError as exc:
            outcome.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "own thread" in str(outcome[0])


def test_a_loop_can_be_made_and_closed_meanwhile(machine):
    """asyncio's own sockets (its self-pipe) are the host's."""
    asyncio.new_event_loop().close()


class Loop(asyncio.SelectorEventLoop):
    """Stands for the machine's."""


def test_uvloop():
    before = sys.modules.get("uvloop")
    with uvloop_shim.installed(Loop, Loop):
        uvloop = importlib.import_module("uvloop")

        async def main() -> asyncio.AbstractEventLoop:
            return asyncio.get_running_loop()

        assert isinstance(uvloop.run(main()), uvloop.Loop)
        loop = uvloop.new_event_loop()
        assert isinstance(loop, Loop)
        loop.close()
        policy = uvloop.EventLoopPolicy()
        loop = policy.new_event_loop()
        assert isinstance(loop, Loop)
        loop.close()
        kept = asyncio.get_event_loop_policy()
        uvloop.install()
        try:
            assert isinstance(asyncio.run(main()), Loop)
        finally:
            asyncio.set_event_loop_policy(kept)
        assert uvloop.__version__
    assert sys.modules.get("uvloop") is before
