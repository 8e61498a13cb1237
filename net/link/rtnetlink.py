"""The two requests that libos makes of the host's rtnetlink(7): bring an interface up, give it an address.

By hand, because pyroute2 takes a third of a machine's whole boot to import and runs an event loop of its own, which
cannot be done where one runs already. A request is answered by the kernel before send() returns, so nothing waits.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct

# The class itself, now: under `libos run` the application sees another one at socket.socket.
from socket import socket as HostSocket

__all__ = ["add_address", "set_up"]

# linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
_NLMSG_ERROR = 2
_RTM_NEWLINK, _RTM_NEWADDR = 16, 20
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE, _NLM_F_REPLACE = 0x1, 0x4, 0x400, 0x100
_IFLA_MTU, _IFLA_TXQLEN = 4, 13
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NODAD = 0x02
_IFF_UP = 1
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_LINK = struct.Struct("=BxHiII")  # ifinfomsg
_ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg


def set_up(index: int, mtu: int, queue: int | None = None) -> None:
    """Set the MTU (and how many frames may wait to be sent), bring the interface up. OSError: what the kernel says."""
    body = _LINK.pack(socket.AF_UNSPEC, 0, index, _IFF_UP, _IFF_UP) + _attribute(_IFLA_MTU, mtu)
    _request(_RTM_NEWLINK, 0, body if queue is None else body + _attribute(_IFLA_TXQLEN, queue))


def add_address(index: int, interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> None:
    """Give it an address, usable at once: no other host is on this wire that duplicate detection could find."""
    six = interface.version == 6
    body = _ADDRESS.pack(socket.AF_INET6 if six else socket.AF_INET, interface.network.prefixlen, 0, 0, index)
    body += _attribute(_IFA_LOCAL, interface.packed) + _attribute(_IFA_ADDRESS, interface.packed)
    if six:
        body += _attribute(_IFA_FLAGS, _IFA_F_NODAD)
    _request(_RTM_NEWADDR, _NLM_F_CREATE | _NLM_F_REPLACE, body)


def _attribute(kind: int, value: int | bytes) -> bytes:
    data = struct.pack("=I", value) if isinstance(value, int) else value
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _request(kind: int, flags: int, body: bytes) -> None:
    with HostSocket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | _NLM_F_ACK | flags, 1, 0) + body)
        answer = sock.recv(65536)
    code = -int.from_bytes(answer[16:20], "little", signed=True)
    if _HEADER.unpack_from(answer)[1] != _NLMSG_ERROR:
        raise OSError(f"rtnetlink answered with message type {_HEADER.unpack_from(answer)[1]}")
    if code:
        raise OSError(code, os.strerror(code))
