"""``socket.gaierror`` with the codes of getaddrinfo(3) and the words that glibc has for them."""

from __future__ import annotations

import socket
from types import MappingProxyType

__all__ = ["gai_error"]

_TEXTS = MappingProxyType(
    {
        socket.EAI_ADDRFAMILY: "Address family for hostname not supported",
        socket.EAI_AGAIN: "Temporary failure in name resolution",
        socket.EAI_BADFLAGS: "Bad value for ai_flags",
        socket.EAI_FAIL: "Non-recoverable failure in name resolution",
        socket.EAI_FAMILY: "ai_family not supported",
        socket.EAI_NODATA: "No address associated with hostname",
        socket.EAI_NONAME: "Name or service not known",
        socket.EAI_SERVICE: "Servname not supported for ai_socktype",
        socket.EAI_SOCKTYPE: "ai_socktype not supported",
    }
)


def gai_error(code: int, about: object = None) -> socket.gaierror:
    """The exception for one of ``socket.EAI_*``; ``about`` (a name, a service) is appended to its message."""
    text = _TEXTS[code]
    return socket.gaierror(code, text if about is None else f"{text}: {about}")
