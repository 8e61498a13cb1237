"""bind(2) and listen(2): who may have a port together with whom, and who of them hears what comes.

The rules are Linux's. Every case runs on sockets of the kernel and on ours, and the answers must be the same.
"""

from __future__ import annotations

import errno
import itertools
import socket
from collections import Counter

import pytest
from scapy.layers.inet import UDP

from libos._native import ffi, lib
from libos.errors import check, os_error
from libos.net.stack import pack_address

from .harness import fails
from .packets import AF, ANY

STREAM, DGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
PLACES = {
    "0.0.0.0": (4, "0.0.0.0", False),
    "127.0.0.1": (4, "127.0.0.1", False),
    "127.0.0.2": (4, "127.0.0.2", False),
    "::": (6, "::", False),
    "::, v6only": (6, "::", True),
    "::1": (6, "::1", False),
    "::ffff:127.0.0.1": (6, "::ffff:127.0.0.1", False),
}
SHARES = {"alone": (0, 0), "reuseaddr": (1, 0), "reuseport": (0, 1), "both": (1, 1)}


class Kernel:
    """The kernel's sockets, as a test sees either."""

    def __init__(self):
        self.all = []

    def open(self, kind, place, share):
        family, _, v6only = PLACES[place]
        sock = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, kind)
        self.all.append(sock)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, SHARES[share][0])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, SHARES[share][1])
        if family == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        return sock

    def bind(self, sock, place, port):
        sock.bind((PLACES[place][1], port))
        return sock.getsockname()[1]

    def listen(self, sock):
        sock.listen(4)

    def connect(self, port, address):
        client = socket.create_connection((address, port))
        self.all.append(client)
        return client

    def accept(self, listener):
        connection, _ = listener.accept()
        self.all.append(connection)
        return connection

    def close(self, sock):
        sock.close()

    def clear(self):
        while self.all:
            self.all.pop().close()


class Ours:
    def __init__(self, h):
        self.h = h

    def open(self, kind, place, share):
        h = self.h
        family, _, v6only = PLACES[place]
        id = h.open(kind, family)
        h.set(id, SO_REUSEADDR=SHARES[share][0], SO_REUSEPORT=SHARES[share][1])
        if family == 6:
            check(lib.sock_setopt(h.handle, id, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only))
        return id

    def bind(self, id, place, port):
        family, address, _ = PLACES[place]
        raw = ANY[family] if address in ("0.0.0.0", "::") else pack_address(address)
        check(lib.sock_bind(self.h.handle, id, raw, port))
        return self.h.info(id).local[1]

    def listen(self, id):
        check(lib.sock_listen(self.h.handle, id, 4, 0))

    def connect(self, port, address):
        id = self.h.open(STREAM, 6 if ":" in address else 4)
        check(lib.sock_connect(self.h.handle, id, pack_address(address), port))
        self.h.after("1ms")
        return id

    def accept(self, listener):
        return self.h.accept(listener)

    def close(self, id):
        self.h.free(id)
        self.h.after("1ms")

    def clear(self):
        for id in list(self.h.owned):
            self.h.abort(id)
        self.h._run()


def outcome(call, *args):
    try:
        call(*args)
    except OSError as exc:
        return errno.errorcode[exc.errno]
    return "ok"


def second(world, kind, place, share, port):
    """What a second socket on the port is told, by bind and by listen."""
    sock = world.open(kind, place, share)
    bound = outcome(world.bind, sock, place, port)
    if bound != "ok" or kind == DGRAM:
        return bound
    return bound, outcome(world.listen, sock)


CASES = list(itertools.product(PLACES, SHARES, PLACES, SHARES))


def differences(h, cases, ask):
    """Where the kernel says otherwise, and not only because the port was another process's, too, on another address."""
    told = {case: ask(Ours(h), *case) for case in cases}
    assert len(set(map(str, told.values()))) > 1
    return {case: ours for case, ours in told.items() if not any(ask(Kernel(), *case) == ours for _ in range(20))}


def bound(world, first, place, port):
    pass


def listening(world, first, place, port):
    world.listen(first)


@pytest.mark.parametrize(
    ("kind", "prepare"), [(STREAM, bound), (STREAM, listening), (DGRAM, bound)], ids=["tcp", "tcp-listening", "udp"]
)
def test_two_on_a_port(harness, kind, prepare):
    def ask(world, place, share, other, other_share):
        first = world.open(kind, place, share)
        port = world.bind(first, place, 0)
        prepare(world, first, place, port)
        told = second(world, kind, other, other_share, port)
        world.clear()
        return told

    assert differences(harness(4), CASES, ask) == {}


CONNECTED = [
    ("0.0.0.0", "127.0.0.1"),
    ("127.0.0.1", "127.0.0.1"),
    ("::", "127.0.0.1"),
    ("::", "::1"),
    ("::1", "::1"),
]


def over_a_connection(world, left, place, share, to, other, other_share):
    """The listener is gone; a connection that it had accepted is established, or in TIME-WAIT."""
    listener = world.open(STREAM, place, share)
    port = world.bind(listener, place, 0)
    world.listen(listener)
    client = world.connect(port, to)
    server = world.accept(listener)
    world.close(listener)
    if left == "time-wait":
        world.close(server)
        world.close(client)
    told = second(world, STREAM, other, other_share, port)
    world.clear()
    return told


@pytest.mark.parametrize("left", ["established", "time-wait"])
@pytest.mark.parametrize(("place", "to"), CONNECTED)
def test_the_port_of_a_connection(harness, left, place, to):
    """socket(7), SO_REUSEADDR: what it is for"""
    others = ["0.0.0.0", "127.0.0.2", "::", "::, v6only", to]
    if (place, to) == ("::", "::1"):
        others.remove("0.0.0.0")  # the kernel takes that connection for one of IPv4, too: a loss of memory, not a rule
    cases = [
        (left, place, share, to, other, other_share)
        for share, other, other_share in itertools.product(SHARES, others, SHARES)
    ]
    assert differences(harness(4), cases, over_a_connection) == {}


# --- SO_REUSEPORT: who hears ---


def test_reuseport_spreads_connections(h):
    """Each listener has its share of the flows, and each flow its listener."""
    listeners = [h.listen(80, backlog=100, SO_REUSEPORT=1) for _ in range(4)]
    took = {}
    for port in range(1000, 1100):
        p = h.peer(port=port)
        p.rx("S", seq=0)
        p.expect("SA")
        p.rx("R", seq=1)
        p.rx("S", seq=0)
        p.expect("SA")
        p.rx("A", seq=1)
        took[port] = next(iter(h.events()))
        h.abort(h.accept(took[port]))
        h.frames()
    shares = Counter(took.values())
    assert set(shares) == set(listeners)
    assert min(shares.values()) > 10
    gone = listeners.pop()
    h.free(gone)
    for port, listener in took.items():  # those of the others stay where they were
        p = h.peer(port=port)
        p.rx("S", seq=0)
        p.expect("SA")
        p.rx("A", seq=1)
        now = next(iter(h.events()))
        assert now == listener or listener == gone
        h.abort(h.accept(now))
        h.frames()


def test_reuseport_spreads_datagrams(h):
    ids = []
    for _ in range(3):
        u = h.open(DGRAM)
        h.set(u, SO_REUSEPORT=1)
        h.bind(u, 53)
        ids.append(u)
    for port in range(1000, 1100):
        h.inject(h.ip() / UDP(sport=port, dport=53) / b"x")
    heard = []
    for u in ids:
        count = 0
        try:
            while h.recvfrom(u):
                count += 1
        except BlockingIOError:
            heard.append(count)
    assert sum(heard) == 100
    assert min(heard) > 15


def test_reuseaddr_of_datagrams_the_last_one_hears(h):
    """socket(7): they may share the port; what comes for one host goes to one of them."""
    ids = []
    for _ in range(2):
        u = h.open(DGRAM)
        h.set(u, SO_REUSEADDR=1)
        h.bind(u, 53)
        ids.append(u)
    h.inject(h.ip() / UDP(sport=1, dport=53) / b"x")
    assert h.recvfrom(ids[1])[0] == b"x"
    with fails("EAGAIN"):
        h.recvfrom(ids[0])


def test_a_socket_that_is_only_bound_does_not_take_the_listeners_flows(h):
    listener = h.listen(80)
    other = h.open()
    h.set(listener, SO_REUSEPORT=1)
    h.set(other, SO_REUSEADDR=1, SO_REUSEPORT=1)
    h.bind(other, 80, h.ours)
    h.established(listener)


# --- where nothing was said ---


def test_bind_address_no_port(h):
    """ip(7), IP_BIND_ADDRESS_NO_PORT: the port is chosen when the far end is known, and may be another's, too."""
    ids = []
    for port in (80, 81):
        c = h.open()
        check(lib.sock_setopt(h.handle, c, socket.IPPROTO_IP, 24, 1))
        h.bind(c, 0, h.ours)
        assert h.info(c).local[1] == 0
        h.connect_again(c, port)
        assert h.info(c).local[1] >= 32768
        assert h.info(c).local[0] == h.ours
        ids.append(c)
    h.frames()
    listener = h.open()
    check(lib.sock_setopt(h.handle, listener, socket.IPPROTO_IP, 24, 1))
    h.bind(listener, 0, h.ours)
    check(lib.sock_listen(h.handle, listener, 1, 0))
    assert h.info(listener).local[1] >= 32768


@pytest.mark.parametrize("place", [None, "127.0.0.5"])
def test_sendto_any_is_this_host(harness, place):
    h = harness(4)
    u = h.open(DGRAM)
    h.bind(u, 53, place)
    h.sendto(u, b"to me", "0.0.0.0", 53)
    h.after("1ms")
    assert h.recvfrom(u) == (b"to me", place or "127.0.0.1", 53)


@pytest.mark.parametrize(
    ("family", "place", "peer"), [(4, None, "127.0.0.1"), (4, "127.0.0.5", "127.0.0.5"), (6, None, "::1")]
)
def test_connect_to_any_is_this_host(harness, family, place, peer):
    """As Linux has it: 0.0.0.0 and :: are the loopback address, or what an IPv4 socket is bound to."""
    h = harness(family)
    listener = h.listen(80)
    c = h.open()
    if place:
        h.bind(c, 0, place)
    rc = lib.sock_connect(h.handle, c, ANY[family], 80)
    assert rc == 0, os_error(-rc)
    h.after("1ms")
    assert h.info(h.accept(listener)).local[0] == peer
    name = ffi.new("struct sock_name *")
    check(lib.sock_getname(h.handle, c, lib.SOCK_REMOTE, name))
    assert bytes(ffi.buffer(name.addr)) == pack_address(peer)
    assert name.family == AF[family]
