"""The host's side of a TAP device: opening it, its offloads, its addresses.

The descriptor is what link_new_tap() takes over: IFF_VNET_HDR with the 10-byte header, checksum and TCP segmentation
offload both ways (linux/if_tun.h, Documentation/networking/tuntap.rst). The device is not persistent: it disappears
when the descriptor is closed, however the process ends. One that an administrator has made and brought up for this user
(``ip tuntap add NAME mode tap user USER``) needs no privileges, and stays. Addresses are set through rtnetlink.

Everything that the host refuses is a HostError that says what to do.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

# The class itself, now: under `libos run` the application sees another one at socket.socket.
from socket import socket as HostSocket

from libos._native import lib
from libos.errors import HostError
from libos.net.link.rtnetlink import add_address, set_up

__all__ = ["Tap", "open_tap"]

DEVICE = "/dev/net/tun"

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUNSETVNETHDRSZ = 0x400454D8
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6, _TUN_F_TSO_ECN = 1, 2, 4, 8
_ALL_OFFLOADS = (
    _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6 | _TUN_F_TSO_ECN,
    lib.LINK_CSUM | lib.LINK_TSO | lib.LINK_LRO,
)
_VNET_HEADER_SIZE = 10
_IFNAMSIZ = 16
_IFF_UP = 1
_IFREQ = struct.Struct("16sH22x")
_IFREQ_INT = struct.Struct("16si20x")
_SIOCGIFFLAGS, _SIOCGIFMTU = 0x8913, 0x8921  # linux/sockios.h


@dataclass(frozen=True, slots=True)
class Tap:
    """An open TAP. ``caps``: the LINK_* that its offloads amount to. Whoever has it closes ``fd``, once."""

    fd: int
    name: str
    mtu: int
    caps: int


_QUEUE = 16384  # frames


def open_tap(
    name: str = "",
    *,
    addresses: Sequence[str] = (),
    mtu: int = 1500,
    segments: bool = True,
    queue: int | None = None,
) -> Tap:
    """Create (or open, where it exists and may be used) the TAP ``name``; empty: the kernel picks ``tap0`` and so on.

    ``addresses`` are the host's, with prefix (``10.42.0.1/24``); the device is up when this returns. Without
    ``segments`` no frame is larger than the MTU, either way. ``queue``: frames that the kernel keeps for us at most,
    before it drops; without it, of a device that is not up yet, enough for ten thousand connections that all speak at
    once (the kernel's own default, 1000, makes of that a storm of retransmissions).
    """
    interfaces = [ipaddress.ip_interface(address) for address in addresses]
    if len(name.encode()) >= _IFNAMSIZ:
        raise HostError(f"TAP name {name!r} is too long: at most {_IFNAMSIZ - 1} bytes")
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise _refused(exc, name) from None
    try:
        request = fcntl.ioctl(
            fd, _TUNSETIFF, _IFREQ.pack((name or "tap%d").encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
        )
        actual = request[:_IFNAMSIZ].rstrip(b"\0").decode()
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", _VNET_HEADER_SIZE))
        caps = _set_offloads(fd, segments)
        index = socket.if_nametoindex(actual)
        if queue is not None or not _is_up(actual, mtu):
            set_up(index, mtu, queue or _QUEUE)
        for interface in interfaces:
            add_address(index, interface)
    except OSError as exc:
        os.close(fd)
        raise _refused(exc, name) from None
    except BaseException:
        os.close(fd)
        raise
    return Tap(fd, actual, mtu, caps)


def _is_up(name: str, mtu: int) -> bool:
    """Whether somebody with privileges has prepared it (``ip tuntap add … user``), so that we need none.

    Asked of a socket (netdevice(7)), not of /sys, which shows the namespace that it was mounted in.
    """
    request = _IFREQ_INT.pack(name.encode(), 0)
    with HostSocket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        flags = _IFREQ.unpack(fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        return bool(flags & _IFF_UP) and _IFREQ_INT.unpack(fcntl.ioctl(sock, _SIOCGIFMTU, request))[1] == mtu


def _set_offloads(fd: int, segments: bool) -> int:
    for flags, caps in (
        *(() if not segments else (_ALL_OFFLOADS,)),
        (_TUN_F_CSUM, lib.LINK_CSUM),
    ):
        try:
            fcntl.ioctl(fd, _TUNSETOFFLOAD, flags)
        except OSError as exc:
            if exc.errno != errno.EINVAL:
                raise
        else:
            return int(caps)
    return 0


def _refused(exc: OSError, name: str) -> HostError:
    what = f"cannot set up TAP device {name!r}" if name else "cannot set up a TAP device"
    reason = exc.strerror or str(exc)
    advice = {
        errno.ENOENT: f"{DEVICE} is missing: `modprobe tun`, or give the container `--device {DEVICE}`",
        errno.EPERM: "this needs root or CAP_NET_ADMIN; `--net user` needs neither",
        errno.EACCES: f"this needs root, or read and write access to {DEVICE}; `--net user` needs neither",
        errno.EBUSY: "another process has it open; choose another name",
        errno.EINVAL: "there is an interface of that name that is no TAP, or the name is not allowed; choose another",
        errno.EEXIST: "an address is in use on this host already",
    }.get(exc.errno or 0)
    return HostError(f"{what}: {reason}" + (f": {advice}" if advice else ""))
