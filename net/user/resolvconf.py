"""How the host resolves names: what a gateway tells its guest about it. resolv.conf(5)."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import NamedTuple

__all__ = ["HostNames", "host_names"]

NDOTS_MAX = 15  # glibc's


class HostNames(NamedTuple):
    """``nameserver``: the first that can be reached by its address alone."""

    nameserver: str | None = None
    search: tuple[str, ...] = ()
    ndots: int = 1


def host_names(path: str = "/etc/resolv.conf") -> HostNames:
    """What the file says; of what it does not say, and of what nobody understands, the defaults."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return HostNames()
    names = HostNames()
    for key, *words in filter(None, map(str.split, text.splitlines())):
        if key == "nameserver" and words and names.nameserver is None and _is_global(words[0]):
            names = names._replace(nameserver=words[0])
        elif key in ("search", "domain"):  # the last of them counts
            names = names._replace(search=tuple(word.strip(".") for word in words if word.strip(".")))
        elif key == "options":
            for word in words:
                name, _, value = word.partition(":")
                if name == "ndots" and value.isdecimal():
                    names = names._replace(ndots=min(int(value), NDOTS_MAX))
    return names


def _is_global(address: str) -> bool:
    """Whether it needs no scope."""
    try:
        return not ipaddress.ip_address(address).is_link_local
    except ValueError:
        return False
