"""``socket`` for a program whose TCP and UDP are the machine's.

While installed, ``socket.socket(AF_INET or AF_INET6, …)`` gives a :class:`~libos.net.sockets.StackSocket`. Programs
do that to hand it to ``loop.sock_connect`` or ``create_server(sock=…)`` (aiohttp's client, anyio). What stays the
host's: every other family, sockets made from a descriptor (``socketpair``, ``accept``, ``fromfd``), and whatever took
the class before (libos itself does). ``isinstance(x, socket.socket)`` holds for both kinds.

What would block cannot work, for the machine would wait for itself, and must not leak to the host's network either:
``create_connection`` and its like raise WorldError and say what to use. ``getaddrinfo`` answers what needs no
asking: addresses and the hosts table. Only the machine's thread may make sockets, for a stack belongs to one.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any, NoReturn

from libos.errors import WorldError
from libos.net.names.addrinfo import AddrInfo
from libos.net.network import StackNetwork
from libos.net.sockets import StackSocket

__all__ = ["BLOCKING", "INTERNET", "installed", "make_class", "make_getaddrinfo"]

_HostSocket = socket.socket
INTERNET = (socket.AF_INET, socket.AF_INET6, -1)

#: What would wait for an answer from the machine that it stops, and what to use instead.
BLOCKING = MappingProxyType(
    {
        "create_connection": "asyncio.open_connection()",
        "create_server": "asyncio.start_server()",
        "gethostbyaddr": "loop.getnameinfo()",
        "gethostbyname_ex": "loop.getaddrinfo()",
        "getnameinfo": "loop.getnameinfo()",
    }
)


@contextlib.contextmanager
def installed(network: StackNetwork) -> Iterator[None]:
    """The module ``socket`` is the machine's meanwhile. Enter it in the thread that runs the machine."""
    owner = threading.get_ident()

    def choose(family: int, fileno: int | None) -> StackNetwork | None:
        if fileno is not None or family not in INTERNET:
            return None
        if threading.get_ident() != owner:
            raise WorldError(
                "only the machine's own thread can make its sockets: use asyncio, not blocking sockets in a thread"
            )
        return network

    patches = {
        "socket": make_class(choose),
        "getaddrinfo": make_getaddrinfo(network),
        "gethostbyname": make_gethostbyname(),
        **{name: _refusal(name, instead) for name, instead in BLOCKING.items()},
    }
    before = {name: getattr(socket, name) for name in patches}
    vars(socket).update(patches)
    try:
        yield
    finally:
        vars(socket).update(before)


def make_class(choose: Callable[[int, int | None], StackNetwork | None]) -> type[socket.socket]:
    """``choose`` is given family and descriptor, and answers whose the socket will be: None, the host's."""

    class Dispatch(type(_HostSocket)):  # type: ignore[misc]
        """Calling the class chooses the kind of socket; isinstance and issubclass accept both."""

        def __call__(cls, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> Any:
            network = choose(family, fileno)
            if network is None:
                return _HostSocket(family, type, proto, fileno) if cls is shim else super().__call__(
                    family, type, proto, fileno
                )  # fmt: skip
            if cls is not shim:
                raise WorldError(f"{cls.__qualname__} is a subclass of socket.socket: the machine has no such sockets")
            return network.socket(
                socket.AF_INET if family == -1 else family,
                socket.SOCK_STREAM if type == -1 else type,
                0 if proto == -1 else proto,
            )

        def __instancecheck__(cls, instance: object) -> bool:
            if cls is shim:
                return isinstance(instance, (_HostSocket, StackSocket))
            return bool(super().__instancecheck__(instance))

        def __subclasscheck__(cls, subclass: type) -> bool:
            if cls is shim:
                return issubclass(subclass, (_HostSocket, StackSocket))
            return bool(super().__subclasscheck__(subclass))

    shim: Any = None
    shim = Dispatch("socket", (_HostSocket,), {"__doc__": _HostSocket.__doc__, "__module__": "socket", "__slots__": ()})
    return shim  # type: ignore[no-any-return]


def make_getaddrinfo(network: StackNetwork) -> Callable[..., list[AddrInfo]]:
    def getaddrinfo(
        host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[AddrInfo]:
        infos = network.resolver.getaddrinfo_nowait(network, host, port, family, type, proto, flags)
        if infos is None:
            raise WorldError(f"to look up {host!r} the machine must run: await loop.getaddrinfo() instead")
        return infos

    return getaddrinfo


def make_gethostbyname() -> Callable[[str], str]:
    def gethostbyname(host: str) -> str:
        info = socket.getaddrinfo(host, 0, socket.AF_INET, socket.SOCK_STREAM)
        return str(info[0][4][0])

    return gethostbyname


def _refusal(name: str, instead: str) -> Callable[..., NoReturn]:
    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise WorldError(f"socket.{name}() would block the machine that it needs: use {instead}")

    refuse.__name__ = name
    return refuse
