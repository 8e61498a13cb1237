"""Listeners among the host sockets: connections, and what hinders them."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from libos._native import lib
from libos.sched.reactor import EV_READ

from .host_sockets import (
    AGAIN,
    MS,
    HostSockets,
    sockets_of,
)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        server.setblocking(False)
        yield server


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_are_accepted(sockets: HostSockets, server: socket.socket) -> None:
    id = sockets.listen(server)
    assert sockets.accept(id) == AGAIN
    assert sockets.turn() == {}
    clients = [socket.create_connection(server.getsockname()) for _ in range(5)]
    names = set()
    while len(names) < 5:
        sockets.wait_for(id, EV_READ)
        while (fd := sockets.accept(id)) >= 0:
            assert not os.get_inheritable(fd)
            assert not os.get_blocking(fd)
            with socket.socket(fileno=fd) as accepted:
                names.add(accepted.getpeername())
        assert fd == AGAIN
    assert names == {client.getsockname() for client in clients}
    for client in clients:
        client.close()
    assert sockets.turn() == {}


def test_a_listener_that_pauses_leaves_connections_with_the_kernel(sockets: HostSockets, server: socket.socket) -> None:
    id = sockets.listen(server)
    sockets.turn()
    sockets.want(id, 0)
    sockets.turn()
    sockets.turn()
    with socket.create_connection(server.getsockname()):
        assert sockets.turn() == {}
        server.accept()[0].close()  # it is there for whoever asks
    sockets.want(id, EV_READ)
    with socket.create_connection(server.getsockname()):
        sockets.wait_for(id, EV_READ)
        os.close(sockets.accept(id))


def test_without_descriptors_a_listener_rests(sockets: HostSockets, server: socket.socket) -> None:
    sockets.turn()
    clients = [socket.create_connection(server.getsockname()) for _ in range(3)]
    with no_descriptors():
        id = sockets.listen(server)
        sockets.wait_for(id, EV_READ)
        assert sockets.accept(id) == -errno.EMFILE
        assert sockets.accept(id) == AGAIN
        for _ in range(20):
            assert sockets.turn() == {}  # once
        assert sockets.counters()["refused"] == 1
    sockets.want(id, 0)
    sockets.want(id, EV_READ)  # asked anew, it does not wait for the end of its rest
    fds: list[int] = []
    while len(fds) < 3:
        sockets.wait_for(id, EV_READ)
        while (fd := sockets.accept(id)) >= 0:
            fds.append(fd)
    for fd in fds:
        os.close(fd)
    for client in clients:
        client.close()


@pytest.mark.slow
def test_a_listener_goes_on_after_its_rest(probe_module: Any, server: socket.socket) -> None:
    for kind in ("io_uring", "epoll"):
        with sockets_of(kind, probe_module) as sockets:
            sockets.turn()
            with socket.create_connection(server.getsockname()):
                with no_descriptors():
                    id = sockets.listen(server)
                    sockets.wait_for(id, EV_READ)
                    assert sockets.accept(id) == -errno.EMFILE
                before = lib.reactor_now(sockets.reactor)
                sockets.wait_for(id, EV_READ)
                assert lib.reactor_now(sockets.reactor) - before > 900 * MS
                os.close(sockets.accept(id))


def test_an_address_is_free_when_its_listener_is_closed(sockets: HostSockets) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)
    name = server.getsockname()
    id = sockets.listen(server)
    sockets.turn()
    client = socket.create_connection(name)
    sockets.wait_for(id, EV_READ)  # a connection that nobody takes
    assert sockets.close(id) == 0
    server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(name)
    client.close()
    assert sockets.turn() == {}


def test_a_listener_that_is_shut_down_says_so(sockets: HostSockets, server: socket.socket) -> None:
    id = sockets.listen(server)
    sockets.turn()
    server.shutdown(socket.SHUT_RDWR)
    sockets.wait_for(id, EV_READ)
    assert sockets.accept(id) == -errno.EINVAL
    sockets.want(id, 0)
    assert sockets.error(id) == errno.EINVAL
    assert sockets.turn() == {}


def test_bad_ids_and_descriptors(sockets: HostSockets, server: socket.socket) -> None:
    assert lib.host_open(sockets.handle, -1) == -errno.EBADF
    for id in (-1, 0, 1, 1 << 20, 1 << 39, 1 << 62, -(1 << 63)):
        assert sockets.recv(id) == -errno.EBADF
        assert sockets.close(id) == -errno.EBADF
    listener = sockets.listen(server)
    assert sockets.recv(listener) == -errno.ENOTCONN
    assert sockets.readable(listener) == -errno.ENOTCONN
    assert sockets.send(listener, b"x") == -errno.ENOTCONN
    assert sockets.shutdown(listener) == -errno.ENOTCONN
    ours, far = socket.socketpair()
    with ours, far:
        connected = sockets.open(ours)
        assert sockets.accept(connected) == -errno.EINVAL
        sockets.close(connected)
