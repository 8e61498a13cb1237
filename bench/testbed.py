"""Where the peers of a benchmark stand, and the wires between them.

As root: two network namespaces of the benchmark's own, joined by a veth pair. The client runs in one, kernel-stack
servers in the other; a server with a TAP device makes it in the client's namespace, where it is the client's only way
to it. Namespaces are anonymous, held by a descriptor each and by the processes inside, so there are no names to
collide, no address of the host's to touch, and when the last holder is gone (even by SIGKILL) the kernel takes links
and all away. Without root: this namespace, and its loopback.

Addresses are from 198.18.0.0/15, which RFC 2544 sets aside for benchmarks.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Protocol

from libos.errors import HostError
from libos.net.link.netns import Namespace

__all__ = ["TAP", "TAP_CLIENT", "TAP_PREFIX", "TAP_SERVER", "Here", "Place", "Testbed"]

TAP = "bench0"
TAP_CLIENT, TAP_SERVER, TAP_PREFIX = "198.18.1.1", "198.18.1.2", 24

_VETH_CLIENT, _VETH_SERVER, _VETH_PREFIX = "198.18.0.1", "198.18.0.2", 24
_TAP_GONE_LIMIT = 10.0  # seconds


class Place(Protocol):
    """A network namespace: whatever starts in ``entered()`` lives there."""

    def entered(self) -> contextlib.AbstractContextManager[None]: ...


class Here:
    """The network namespace we are in."""

    def entered(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class Testbed:
    """``client``: where the client and TAP devices are. ``kernel``: where kernel-stack servers are, and at which
    address; ``cpus``: one for the client, one for the server (the same, when there is only one)."""

    __test__ = False  # pytest: a class, though its name begins with Test

    def __init__(self, *, namespaces: bool) -> None:
        usable = sorted(os.sched_getaffinity(0))
        self.cpus = (usable[0], usable[1 % len(usable)])
        self.client: Place
        self.kernel: Place
        self.namespaces = namespaces
        self._stack = contextlib.ExitStack()
        if not namespaces:
            self.client = self.kernel = Here()
            self.address = "127.0.0.1"
            return
        with contextlib.ExitStack() as stack:
            self.client = client = Namespace.new()
            stack.callback(client.close)
            self.kernel = kernel = Namespace.new()
            stack.callback(kernel.close)
            self.address = _VETH_SERVER
            with client.entered():  # enough ports for many short connections to one server (ip-sysctl)
                Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("1024 65535")
                Path("/proc/sys/net/ipv4/tcp_tw_reuse").write_text("1")
            _join(client, kernel)
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Testbed:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def wait_until_tap_is_gone(self) -> None:
        """The device of the server before: where io_uring held its descriptor, it outlives the process a little."""
        give_up = time.monotonic() + _TAP_GONE_LIMIT
        with self.client.entered():
            while TAP in (name for _, name in socket.if_nameindex()):
                if time.monotonic() > give_up:
                    raise HostError(f"{TAP} is still there {_TAP_GONE_LIMIT:.0f} s after its server ended")
                time.sleep(0.01)

    def give_address_to_tap(self) -> None:
        """The client's side of a TAP device that a server has just made."""
        with self.client.entered():
            _set_up(TAP, TAP_CLIENT, TAP_PREFIX)


def _join(client: Namespace, kernel: Namespace) -> None:
    """A veth pair between the two, up and with addresses."""
    from pyroute2 import IPRoute  # type: ignore[import-untyped]  # slow to import, and only root needs it

    with client.entered(), IPRoute() as ip:
        ip.link("add", ifname="veth0", kind="veth", peer={"ifname": "veth0", "net_ns_fd": kernel.fd})
    for place, address in ((client, _VETH_CLIENT), (kernel, _VETH_SERVER)):
        with place.entered():
            _set_up("veth0", address, _VETH_PREFIX)


def _set_up(interface: str, address: str, prefix: int) -> None:
    from pyroute2 import IPRoute

    index = socket.if_nametoindex(interface)
    with IPRoute() as ip:
        ip.addr("add", index=index, address=address, prefixlen=prefix)
        ip.link("set", index=index, state="up")
