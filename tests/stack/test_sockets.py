"""The socket table: binding and its clashes, ephemeral ports, names, options, events."""

from __future__ import annotations

import errno
import itertools
import socket

import pytest

from libos._native import ffi, lib
from libos.errors import check
from libos.net.stack import pack_address, unpack_name

from .harness import READ, WRITE, fails
from .packets import AF, ANY, FAR

STREAM, DGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM


def bound(h, family, address, port, *, kind=STREAM, v6only=False):
    id = check(lib.sock_open(h.handle, kind, AF[family]))
    h.owned.append(id)
    if v6only:
        check(lib.sock_setopt(h.handle, id, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1))
    check(lib.sock_bind(h.handle, id, ANY[family] if address is None else pack_address(address), port))
    if kind == STREAM:
        check(lib.sock_listen(h.handle, id, 1, 0))
    return id


FOUR, SIX = (4, None), (6, None)
ONE4, ONE6 = (4, "10.0.0.2"), (6, "fd00::2")
LO4, LO6 = (4, "127.0.0.1"), (6, "::1")


@pytest.mark.parametrize("kind", [STREAM, DGRAM])
@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        (FOUR, FOUR, True),
        (SIX, SIX, True),
        (FOUR, SIX, True),  # :: hears IPv4, too
        (SIX, FOUR, True),
        (FOUR, ONE4, True),
        (ONE4, FOUR, True),
        (ONE4, ONE4, True),
        (ONE4, LO4, False),
        (ONE6, LO6, False),
        (ONE4, ONE6, False),
        (SIX, ONE4, True),
        (ONE4, SIX, True),
        (FOUR, ONE6, False),
        (ONE6, FOUR, False),
        (SIX, ONE6, True),
        (ONE6, SIX, True),
        (LO4, LO6, False),
    ],
)
def test_bind_clashes(harness, kind, first, second, clash):
    h = harness(4)
    bound(h, *first, 80, kind=kind)
    bound(h, *second, 81, kind=kind)
    if clash:
        with fails("EADDRINUSE"):
            bound(h, *second, 80, kind=kind)
    else:
        bound(h, *second, 80, kind=kind)


@pytest.mark.parametrize(("first", "second"), [(FOUR, SIX), (SIX, FOUR), (SIX, ONE4), (ONE4, SIX)])
def test_v6only(harness, first, second):
    """ipv6(7), IPV6_V6ONLY: then the families have ports of their own"""
    h = harness(4)
    bound(h, *first, 80, v6only=first[0] == 6)
    bound(h, *second, 80, v6only=second[0] == 6)


def test_tcp_and_udp_ports_are_different(harness):
    h = harness(4)
    bound(h, *FOUR, 53)
    bound(h, *FOUR, 53, kind=DGRAM)


def test_a_port_is_free_again(h):
    listener = h.listen(80)
    h.free(listener)
    h.states()
    h.listen(80)


def test_bind_errors(h):
    a = h.open()
    with fails("EADDRNOTAVAIL"):
        h.bind(a, 80, FAR[h.family])
    with fails("EAFNOSUPPORT" if h.family == 4 else "EADDRNOTAVAIL"):
        h.bind(a, 80, FAR[10 - h.family])
    with fails("EINVAL"):
        h.bind(a, 65536)
    h.bind(a, 80)
    with fails("EINVAL"):
        h.bind(a, 81)


def test_sockets_that_do_not_exist(h):
    assert lib.sock_open(h.handle, STREAM, socket.AF_UNIX) == -errno.EAFNOSUPPORT
    assert lib.sock_open(h.handle, socket.SOCK_RAW, socket.AF_INET) == -errno.ESOCKTNOSUPPORT


def test_ephemeral_ports(h):
    """RFC 6056 3.3.1: of the range that Linux has, each once, and not one after the other"""
    ports = [h.info(h.connect(80)).local[1] for _ in range(200)]
    h.frames()
    assert len(set(ports)) == 200
    assert all(32768 <= port < 61000 for port in ports)
    assert sum(b - a == 1 for a, b in itertools.pairwise(ports)) < 20


def test_ephemeral_ports_are_shared_between_peers(harness):
    """What must be unique is the pair of ends."""
    h = harness(4)
    u = h.open(DGRAM)
    h.bind(u, 0)
    assert 32768 <= h.info(u).local[1] < 61000
    listener = h.open()
    check(lib.sock_listen(h.handle, listener, 1, 0))
    assert 32768 <= h.info(listener).local[1] < 61000


def test_the_listener_for_the_address_hears(h):
    """The most specific one: bound to the address, then to any."""
    other = h.listen(80)
    h.free(other)
    h.states()
    exact = h.open()
    h.bind(exact, 80, h.ours)
    check(lib.sock_listen(h.handle, exact, 4, 0))
    h.established(exact)


def test_a_dual_listener_serves_v4(harness):
    """ipv6(7): and the names are of its family"""
    six, four = harness(6), harness(4)
    listener = six.listen(80)
    p = four.peer()
    six.inject(p.segment("S", seq=0))
    assert six.frames()[0].packet.payload.dst == "10.0.0.1"
    assert six.info(listener).local[0] == "::"


def test_names(h):
    p, c = h.established(port=1234)
    name = ffi.new("struct sock_name *")
    check(lib.sock_getname(h.handle, c, lib.SOCK_REMOTE, name))
    assert unpack_name(name)[:2] == (h.their, 1234)
    check(lib.sock_getname(h.handle, c, lib.SOCK_LOCAL, name))
    assert unpack_name(name)[:2] == (h.ours, 80)
    assert lib.sock_getname(h.handle, h.open(), lib.SOCK_REMOTE, name) == -errno.ENOTCONN
    p.expect_nothing()


@pytest.mark.parametrize(
    ("level", "name", "value", "got"),
    [
        ("SOL_SOCKET", "SO_RCVBUF", 100_000, 100_000),
        ("SOL_SOCKET", "SO_RCVBUF", 1, 4096),
        ("SOL_SOCKET", "SO_RCVBUF", 2**62, 64 << 20),
        ("SOL_SOCKET", "SO_SNDBUF", -5, 4096),
        ("SOL_SOCKET", "SO_KEEPALIVE", 1, 1),
        ("SOL_SOCKET", "SO_REUSEADDR", 1, 1),
        ("IPPROTO_TCP", "TCP_NODELAY", 7, 1),
        ("IPPROTO_TCP", "TCP_KEEPIDLE", 5, 5),
        ("IPPROTO_TCP", "TCP_KEEPINTVL", 5, 5),
        ("IPPROTO_TCP", "TCP_KEEPCNT", 5, 5),
    ],
)
def test_options(h, level, name, value, got):
    c = h.open()
    number = getattr(socket, level), getattr(socket, name)
    check(lib.sock_setopt(h.handle, c, *number, value))
    assert lib.sock_getopt(h.handle, c, *number) == got


@pytest.mark.parametrize("value", [0, -1, 40_000, 2**40])
@pytest.mark.parametrize("name", ["TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"])
def test_options_out_of_range(h, name, value):
    with fails("EINVAL"):
        h.set(h.open(), **{name: value})


def test_unknown_options(h):
    c = h.open()
    for level in (0, 1, 6, 17, 41, 99):
        assert lib.sock_setopt(h.handle, c, level, 250, 1) == -errno.ENOPROTOOPT
        assert lib.sock_getopt(h.handle, c, level, 250) == -errno.ENOPROTOOPT


@pytest.mark.parametrize("call", ["send", "recv"])
def test_not_connected(h, call):
    with fails("ENOTCONN"):
        h.send(h.open(), b"x") if call == "send" else h.recv(h.open())
    with fails("ENOTCONN"):
        h.send(h.listen(80), b"x") if call == "send" else h.recv(h.listen(80))


def test_listen_errors(h):
    p, c = h.established()
    assert lib.sock_listen(h.handle, c, 1, 0) == -errno.EISCONN
    assert lib.sock_accept(h.handle, c) == -errno.EINVAL
    assert lib.sock_listen(h.handle, h.open(DGRAM), 1, 0) == -errno.EOPNOTSUPP
    p.expect_nothing()


def test_listen_again_changes_the_backlog(h):
    listener = h.listen(80, backlog=1)
    h.peer(port=1).rx("S", seq=0)
    h.peer(port=2).rx("S", seq=0)
    assert len(h.frames()) == 2
    assert h.counted("TcpExtSyncookiesSent") == 1
    check(lib.sock_listen(h.handle, listener, 2, 0))
    h.peer(port=2).rx("S", seq=0)
    assert len(h.frames()) == 1
    assert h.counted("TcpExtSyncookiesSent") == 0


def test_events_of_many_are_taken_in_turns(h):
    """More than fit are not lost, and none is reported twice before all were."""
    h.meet()
    ids = []
    for _ in range(10):
        u = h.open(DGRAM)
        check(lib.sock_want(h.handle, u, READ | WRITE))
        ids.append(u)
    seen = [id for _ in range(4) for id, mask in h.stack.events(3) if mask == WRITE]
    assert sorted(seen[:10]) == sorted(ids)


def test_no_event_for_a_freed_socket(h):
    p, c = h.established()
    p.rx("PA", data=b"x")
    h.recv(c)
    p.rx("FA")
    h.free(c)
    assert h.events() == {}
    h.frames()


def test_queues(h):
    p, c = h.established(win=1000)
    h.send(c, b"x" * 3000)
    p.expect("A", length=1000)
    p.rx("PA", data=b"hello")
    out = [ffi.new("uint64_t *") for _ in range(3)]
    check(lib.sock_queues(h.handle, c, *out))
    assert [o[0] for o in out] == [5, 1000, 1000]  # one was acknowledged, and another sent
    h.frames()


def test_many_sockets(harness):
    """The table grows, and what was in it is still found."""
    h = harness(4)
    listener = h.listen(80, backlog=2000)
    h.meet()
    peers = [h.peer(port=1000 + i) for i in range(300)]
    for p in peers:
        h.inject(p.segment("S", seq=0))
    for p in peers:
        p.expect("SA")
        p.rx("A", seq=1)
    ids = [h.accept(listener) for _ in peers]
    for p, c in zip(peers, ids, strict=True):
        h.send(c, b"%d" % p.port)
    for p in peers:
        p.expect("PA", data=b"%d" % p.port)
