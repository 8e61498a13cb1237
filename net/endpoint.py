"""What transports of a machine's network have in common beside :class:`libos.sched.endpoint.Endpoint`: their names.

The names of both ends are taken from the socket at once, for it may be gone when somebody asks; text is made of them
when somebody does.
"""

from __future__ import annotations

from asyncio import trsock
from typing import TYPE_CHECKING, Any

from libos._native import ffi
from libos.net.sockets import StackSocket

if TYPE_CHECKING:
    from libos.net.network import StackNetwork

__all__ = ["NetworkEndpoint"]


class NetworkEndpoint:
    """A mix-in for transports over StackSockets."""

    if not TYPE_CHECKING:
        __slots__ = ()
    else:
        _closing: bool
        _end: Any
        _ends: Any  # struct sock_name[2]: ours and the peer's
        _extra: dict[str, Any]
        _network: StackNetwork

    def _know(self, network: StackNetwork, sock: StackSocket) -> None:
        self._network = network
        self._ends = sock.names()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        extra = self._extra
        if name not in extra:
            if name == "sockname":
                extra[name] = self._network.names.address(ffi.addressof(self._ends, 0))
            elif name == "socket" and self._end is not None:
                extra[name] = trsock.TransportSocket(self._end)
            elif name == "peername":
                extra[name] = self._network.names.address(ffi.addressof(self._ends, 1)) if self._ends[1].port else None
        return extra.get(name, default)

    def __repr__(self) -> str:
        state = "closed" if self._end is None else "closing" if self._closing else "open"
        names = f"{self.get_extra_info('sockname')} -> {self.get_extra_info('peername')}"
        return f"<{type(self).__name__} {state} {names}>"
