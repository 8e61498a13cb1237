"""Socket options: what may be set, what is read, what a child has from its listener (socket(7), tcp(7), ipv6(7))."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from libos._native import ffi, lib
from libos.errors import check

from .harness import fails

SOL, TCP = socket.SOL_SOCKET, socket.IPPROTO_TCP
DGRAM = socket.SOCK_DGRAM


def get(h, id, level, name, size=4):
    buf = ffi.new("uint8_t[]", size)
    return bytes(ffi.buffer(buf, check(lib.sock_getsockopt(h.handle, id, level, name, buf, size))))


def put(h, id, level, name, raw):
    check(lib.sock_setsockopt(h.handle, id, level, name, raw, len(raw)))


def test_an_int_as_bytes(h):
    """getsockopt(2): the value is cut to the buffer; setsockopt(2): less than an int is EINVAL."""
    c = h.open()
    put(h, c, TCP, socket.TCP_KEEPIDLE, struct.pack("i", 77))
    assert get(h, c, TCP, socket.TCP_KEEPIDLE) == struct.pack("i", 77)
    assert get(h, c, TCP, socket.TCP_KEEPIDLE, 100) == struct.pack("i", 77)
    assert get(h, c, TCP, socket.TCP_KEEPIDLE, 1) == b"M"
    with fails("EINVAL"):
        put(h, c, TCP, socket.TCP_KEEPIDLE, b"M")
    for call in (lib.sock_getsockopt, lib.sock_setsockopt):
        assert call(h.handle, c, TCP, 250, ffi.new("char[4]"), 4) == -errno.ENOPROTOOPT
        assert call(h.handle, 1, TCP, 1, ffi.new("char[4]"), 4) == -errno.EBADF


@pytest.mark.parametrize(("value", "read"), [((1, 5), (1, 5)), ((0, 5), (0, 0)), ((7, 0), (1, 0))])
def test_linger_is_a_struct(h, value, read):
    c = h.open()
    assert get(h, c, SOL, socket.SO_LINGER, 8) == struct.pack("ii", 0, 0)
    put(h, c, SOL, socket.SO_LINGER, struct.pack("ii", *value))
    assert get(h, c, SOL, socket.SO_LINGER, 8) == struct.pack("ii", *read)
    with fails("EINVAL"):
        put(h, c, SOL, socket.SO_LINGER, b"\1\0\0\0")
    with fails("EINVAL"):
        h.set(c, SO_LINGER=1)


@pytest.mark.parametrize("name", ["SO_TYPE", "SO_DOMAIN", "SO_PROTOCOL", "SO_ACCEPTCONN", "SO_ERROR"])
def test_what_can_only_be_read(h, name):
    with fails("ENOPROTOOPT"):
        h.set(h.open(), **{name: 1})


def test_what_a_socket_is(h):
    c, u, listener = h.open(), h.open(DGRAM), h.listen(80)
    for id, name, value in (
        (c, "SO_TYPE", socket.SOCK_STREAM),
        (u, "SO_TYPE", DGRAM),
        (c, "SO_PROTOCOL", TCP),
        (u, "SO_PROTOCOL", socket.IPPROTO_UDP),
        (c, "SO_ACCEPTCONN", 0),
        (listener, "SO_ACCEPTCONN", 1),
    ):
        assert lib.sock_getopt(h.handle, id, SOL, getattr(socket, name)) == value


def test_a_child_has_what_its_listener_had(h):
    options = {"TCP_NODELAY": 1, "TCP_KEEPIDLE": 9, "TCP_KEEPCNT": 3, "SO_KEEPALIVE": 1, "SO_RCVBUF": 77_000}
    p, c = h.established(**options)
    for name, value in options.items():
        level = TCP if name.startswith("TCP_") else SOL
        assert lib.sock_getopt(h.handle, c, level, getattr(socket, name)) == value
    p.expect_nothing()
    h.set(c, SO_KEEPALIVE=0)
