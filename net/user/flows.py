"""UDP through the gateway: one host socket for each conversation of the guest, and published ports.

A *flow* is a pair of names on the gateway's stack: the guest's, and the one it speaks with (``far``). One any-port
socket of the stack carries them all; a flow adds how its datagrams leave through the host. Flows are bounded, and the
one longest unused makes room for a new one. Errors cost datagrams and are counted, as on any wire.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from libos._native import ffi, lib
from libos.errors import check
from libos.net.sockaddr import Names
from libos.net.sockets import EV_READ
from libos.net.stack import pack_address
from libos.net.user.relay import Chunk, HostSocket

if TYPE_CHECKING:
    from libos.net.user.gateway import Gateway

__all__ = ["UdpFlows"]

_BATCH = 64  # datagrams per event


class _Flow:
    """A conversation. `names`: the guest's and the far one's. `send` takes what the guest said; `close` gives back what
    the host lent."""

    __slots__ = ("close", "names", "send")

    def __init__(self, names: Any, send: Callable[[memoryview], object], close: Callable[[], object]) -> None:
        self.names = names
        self.send = send
        self.close = close


class UdpFlows:
    """All UDP of one gateway."""

    def __init__(self, gateway: Gateway, chunk: Chunk, limit: int = 512) -> None:
        self._gateway = gateway
        self._reactor = gateway.reactor
        self._handle = gateway.stack.handle
        self._chunk = chunk
        self._limit = limit
        self._flows: OrderedDict[bytes, _Flow] = OrderedDict()  # by guest and far, the longest unused first
        self._clients: dict[tuple[int, Any], bytes] = {}  # of published ports: (descriptor, client) -> key of its flow
        self._published: list[HostSocket] = []
        self._names = Names()
        self._pair = ffi.new("struct sock_name[2]")
        self._pair_bytes = ffi.buffer(self._pair)
        self.datagrams_out = self.datagrams_in = self.lost = 0
        self._id = check(lib.sock_open(self._handle, socket.SOCK_DGRAM, socket.AF_INET6))
        check(lib.sock_listen(self._handle, self._id, 0, lib.LISTEN_ANY_PORT))
        self._token = gateway.base | self._id
        self._reactor.sinks[self._token] = self._from_guest
        check(lib.sock_want(self._handle, self._id, EV_READ))

    @property
    def count(self) -> int:
        return len(self._flows)

    def publish(self, sock: HostSocket, guest: Iterable[tuple[str, int]]) -> None:
        """What comes to the bound host socket goes to the guest: to its address of the same family. Takes it over."""
        family = sock.family
        names = {_family(name[0]): name for name in guest}
        name = names.get(family) or next(iter(names.values()))
        target = self._names.name(name, _family(name[0]))[0]
        self._published.append(sock)
        self._reactor.watch(sock.fileno(), EV_READ, partial(self._from_client, sock, target))

    def close(self) -> None:
        while self._flows:
            self._evict()
        for sock in self._published:
            self._reactor.unwatch(sock.fileno())
            sock.close()
        self._published.clear()
        self._reactor.sinks.pop(self._token, None)
        lib.sock_free(self._handle, self._id)

    # --- from the guest ------------------------------------------------------------------------------------------

    def _from_guest(self, mask: int) -> None:
        chunk, pair = self._chunk, self._pair
        for _ in range(_BATCH):
            count = lib.sock_recvfrom(self._handle, self._id, chunk.cdata, chunk.size, pair, pair + 1)
            if count < 0:
                return
            key = self._pair_bytes[:]
            flow = self._flows.get(key) or self._open(key)
            if flow is None:
                self.lost += 1
                continue
            self._flows.move_to_end(key)
            try:
                flow.send(chunk.view[:count])
                self.datagrams_out += 1
            except OSError:  # full, too long, refused before
                self.lost += 1

    def _open(self, key: bytes) -> _Flow | None:
        target = self._gateway.target(bytes(self._pair[1].addr), self._pair[1].port)
        if target is None:
            return None
        family, address = target
        try:
            sock = HostSocket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError:
            return None
        try:
            sock.connect(address)
        except OSError:
            sock.close()
            return None
        names = ffi.new("struct sock_name[2]")
        ffi.memmove(names, key, len(key))
        flow = _Flow(names, sock.send, partial(self._close_host, sock))
        self._insert(key, flow)
        self._reactor.watch(sock.fileno(), EV_READ, partial(self._from_host, sock, flow))
        return flow

    def _close_host(self, sock: HostSocket) -> None:
        self._reactor.unwatch(sock.fileno())
        sock.close()

    def _insert(self, key: bytes, flow: _Flow) -> None:
        if len(self._flows) >= self._limit:
            self._evict()
        self._flows[key] = flow

    def _evict(self) -> None:
        self._flows.popitem(last=False)[1].close()

    # --- from the host -------------------------------------------------------------------------------------------

    def _from_host(self, sock: HostSocket, flow: _Flow, mask: int) -> None:
        """An answer to one of the guest's."""
        for _ in range(_BATCH):
            try:
                count = sock.recv_into(self._chunk.view)
            except BlockingIOError:
                return
            except OSError:  # refused: the guest hears nothing, and asks again or gives up
                self.lost += 1
                return
            self._to_guest(flow, count)

    def _from_client(self, sock: HostSocket, guest: Any, mask: int) -> None:
        """Something for a published port. Each client appears to the guest as a port of the gateway."""
        for _ in range(_BATCH):
            try:
                count, client = sock.recvfrom_into(self._chunk.view)
            except BlockingIOError:
                return
            except OSError:
                self.lost += 1
                return
            key = self._clients.get((sock.fileno(), client)) or self._open_client(sock, guest, client)
            self._flows.move_to_end(key)
            self._to_guest(self._flows[key], count)

    def _open_client(self, sock: HostSocket, guest: Any, client: Any) -> bytes:
        names = ffi.new("struct sock_name[2]")
        names[0] = guest
        far = names[1]
        far.family = guest.family
        far.addr = pack_address(self._gateway.address(guest.family))
        far.port = client[1]
        key: bytes
        while (key := ffi.buffer(names)[:]) in self._flows or far.port == 0:
            far.port = (far.port + 1) & 0xFFFF
        known = (sock.fileno(), client)
        flow = _Flow(names, lambda data: sock.sendto(data, client), lambda: self._clients.pop(known, None))
        self._insert(key, flow)
        self._clients[known] = key
        return key

    def _to_guest(self, flow: _Flow, count: int) -> None:
        rc = lib.sock_sendto(self._handle, self._id, self._chunk.cdata, count, flow.names, flow.names + 1)
        if rc < 0:
            self.lost += 1
        else:
            self.datagrams_in += 1


def _family(host: str) -> int:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
