"""Which of several addresses to try first: destination address selection (RFC 6724, section 6).

Each rule but one compares properties that an address has by itself, so the rules become a key to sort by. Left out:
home addresses (rule 4) and encapsulating transports (rule 7), of which there are none here. Rule 9, the longest
matching prefix, is applied to IPv6 alone: for IPv4 it would undo the round-robin of name servers, as everybody found.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

__all__ = ["Source", "sorted_addresses"]

Source = Callable[[str], "tuple[str, int, bool] | None"]
"""Of a destination: the source address that would be used, the length of its prefix (of 32 or 128) and whether it is
deprecated; None: it cannot be reached."""

_POLICY = tuple(  # RFC 6724 2.1: prefix, precedence, label; longest prefix first
    (ipaddress.IPv6Network(prefix), precedence, label)
    for prefix, precedence, label in (
        ("::1/128", 50, 0),
        ("::ffff:0:0/96", 35, 4),
        ("::/96", 1, 3),
        ("2001::/32", 5, 5),
        ("2002::/16", 30, 2),
        ("3ffe::/16", 1, 12),
        ("fec0::/10", 1, 11),
        ("fc00::/7", 3, 13),
        ("::/0", 40, 1),
    )
)
_LINK, _SITE, _GLOBAL = 2, 5, 14  # scopes (RFC 4291 2.7)


def sorted_addresses(addresses: Sequence[str], source: Source) -> list[str]:
    """The best first. Equals keep their order (rule 10)."""
    return sorted(addresses, key=lambda address: _key(address, source))


def _key(address: str, source: Source) -> tuple[int | bool, ...]:
    to = _six(address)
    precedence, label = _policy(to)
    found = source(address)
    if found is None:
        return True, False, False, False, -precedence, _scope(to), 0  # rule 1
    chosen, prefix, deprecated = found
    own = _six(chosen)
    return (
        False,
        _scope(to) != _scope(own),  # rule 2
        deprecated,  # rule 3
        label != _policy(own)[1],  # rule 5
        -precedence,  # rule 6
        _scope(to),  # rule 8
        0 if to.ipv4_mapped else -min(_common(to, own), prefix),  # rule 9
    )


def _six(address: str) -> ipaddress.IPv6Address:
    plain = address.partition("%")[0]
    return ipaddress.IPv6Address(plain if ":" in plain else f"::ffff:{plain}")


def _policy(address: ipaddress.IPv6Address) -> tuple[int, int]:
    return next((precedence, label) for network, precedence, label in _POLICY if address in network)


def _scope(address: ipaddress.IPv6Address) -> int:
    """RFC 6724 3.1 and 3.2."""
    four = address.ipv4_mapped
    if four is not None:
        return _LINK if four.is_loopback or four.is_link_local else _GLOBAL
    if address.is_multicast:
        return address.packed[1] & 15
    if address.is_link_local or address.is_loopback:
        return _LINK
    return _SITE if address.is_site_local else _GLOBAL


def _common(a: ipaddress.IPv6Address, b: ipaddress.IPv6Address) -> int:
    """Bits that both begin with."""
    return 128 - (int(a) ^ int(b)).bit_length()
