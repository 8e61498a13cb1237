"""``socket`` by the network of the machine that runs: see :mod:`libos.shim.socket`, which this makes follow it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from libos.errors import EscapeError
from libos.shim.socket import BLOCKING, INTERNET, make_class, make_getaddrinfo
from libos.sim.owner import Ownership
from libos.sim.patches import Function, Original, Patches

if TYPE_CHECKING:
    from libos.net.network import StackNetwork

__all__ = ["own"]


def own(patches: Patches, ownership: Ownership) -> None:
    def choose(family: int, fileno: int | None) -> StackNetwork | None:
        owner = ownership.running()
        if owner is None:
            return None
        if fileno is not None:
            raise EscapeError("socket.socket(fileno=…)", "a machine has no descriptors of the host")
        if family not in INTERNET:
            raise EscapeError(f"socket.socket({getattr(family, 'name', family)})", "a machine has AF_INET and AF_INET6")
        if owner.network is None:
            raise EscapeError("socket.socket()", f"{owner.name} has no network")
        return owner.network

    def getaddrinfo(original: Original) -> Function:
        def ask(*args: Any, **kwargs: Any) -> Any:
            if (owner := ownership.running()) is None:
                return original(*args, **kwargs)
            if owner.network is None:
                raise EscapeError("socket.getaddrinfo()", f"{owner.name} has no network")
            return make_getaddrinfo(owner.network)(*args, **kwargs)

        return ask

    def gethostbyname(original: Original) -> Function:
        def ask(host: str, /) -> Any:
            if ownership.running() is None:
                return original(host)
            return socket.getaddrinfo(host, 0, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]

        return ask

    patches.swap(socket, "socket", make_class(choose))
    patches.function(socket, "getaddrinfo", getaddrinfo)
    patches.function(socket, "gethostbyname", gethostbyname)
    for name, instead in BLOCKING.items():
        patches.function(socket, name, ownership.refusal(f"socket.{name}()", f"use {instead}"))
