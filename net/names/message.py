"""DNS messages: the questions that are sent, and what is believed of the answers. The only module that knows dnspython.

An answer is hostile until it has shown that it belongs to the question (RFC 5452 9.1): same id, same question, to the
letter of its randomly mixed case (draft-vixie-dnsext-dns0x20); its sender and port were checked by the socket it came
through. dnspython parses it; whatever that raises makes it no answer. Chains of aliases, records and lifetimes are
bounded here, so that nobody else has to.

dnspython is imported with the first question: that takes longer than a machine's boot.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from libos.rand import Rng

if TYPE_CHECKING:
    import dns.message
    import dns.name
    import dns.rrset

__all__ = ["Answer", "Asked", "Question", "Service", "Status", "Verdict", "ask", "is_hostname", "read"]

UDP_PAYLOAD = 1232  # what passes everywhere without fragments (DNS flag day 2020; RFC 6891 6.2.5)
CHAIN_MAX = 16
RECORDS_MAX = 1000
TTL_MAX = 86400
NEGATIVE_MAX = 10800  # RFC 2308 5


class Question(NamedTuple):
    """``name`` without a dot at its end, in lower case; ``type`` as ``"AAAA"``."""

    name: str
    type: str


class Status(enum.Enum):
    FOUND = "found"
    NODATA = "nodata"  # the name exists, and has no records of this type (RFC 2308 2.2)
    NXDOMAIN = "nxdomain"
    FAILURE = "failure"  # nobody could tell


class Service(NamedTuple):
    """An SRV record (RFC 2782)."""

    priority: int
    weight: int
    port: int
    target: str


class Answer(NamedTuple):
    """``name``: the canonical one, at the end of the aliases. ``records``: ``str``; :class:`Service` for SRV,
    ``(preference, name)`` for MX, ``bytes`` for TXT. ``ttl``: seconds that it holds, 0: for this time only.
    ``unfinished``: the aliases led to ``name``, of which the server told nothing."""

    status: Status
    name: str
    records: tuple[Any, ...] = ()
    ttl: int = 0
    unfinished: bool = False


class Asked(NamedTuple):
    """A question as it was sent."""

    question: Question
    id: int
    name: dns.name.Name  # in the case that was sent
    exact: bool  # which the answer is to repeat
    edns: bool
    wire: bytes


class Verdict(enum.Enum):
    """What a message turned out to be, if it is no answer."""

    STRAY = "not for this question"
    FOLDED = "the question in other letters' case: a forgery, or a server that folds it"
    TRUNCATED = "asks to be asked by TCP"
    NO_EDNS = "does not know EDNS"
    FAILED = "SERVFAIL, REFUSED, or of no use"


def ask(question: Question, rng: Rng, *, edns: bool, mixed_case: bool) -> Asked:
    """ValueError: there can be no such name, or no such type."""
    import dns.exception
    import dns.message
    import dns.name
    import dns.rdatatype

    text = question.name + "."
    if mixed_case:
        coins = rng.bits(len(text))
        text = "".join(c.upper() if coins >> at & 1 else c for at, c in enumerate(text))
    try:
        if dns.rdatatype.is_metatype(dns.rdatatype.from_text(question.type)):
            raise ValueError(f"{question.type} is no type of records")
        name = dns.name.from_text(text)
        options: dict[str, Any] = {"use_edns": 0, "payload": UDP_PAYLOAD} if edns else {}
        query = dns.message.make_query(name, question.type, id=rng.bits(16), **options)
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ValueError(str(error) or question.name) from None
    return Asked(question, query.id, name, mixed_case, edns, query.to_wire())


def read(asked: Asked, wire: bytes) -> Answer | Verdict:
    """What ``wire`` says to what was asked."""
    import dns.message

    if len(wire) < 12 or int.from_bytes(wire[:2], "big") != asked.id or wire[2] & 0xF8 != 0x80:  # QR, QUERY
        return Verdict.STRAY
    truncated, rcode, questions = wire[2] & 2, wire[3] & 15, int.from_bytes(wire[4:6], "big")
    if questions == 0 and rcode in (1, 4):  # FORMERR, NOTIMP: it did not even read the question (RFC 6891 7)
        return Verdict.NO_EDNS if asked.edns else Verdict.FAILED
    try:
        head = dns.message.from_wire(wire, question_only=True)
        same = _same_question(asked, head)
        if same is not None:
            return same
        if truncated:
            return Verdict.TRUNCATED
        message = dns.message.from_wire(wire, ignore_trailing=True)
    except Exception:  # the parser has the last word on what it cannot read, in whatever words
        return Verdict.STRAY
    rcode = int(message.rcode())  # with EDNS's upper bits
    if asked.edns and (rcode in (1, 4) or rcode == 16):  # BADVERS
        return Verdict.NO_EDNS
    if rcode not in (0, 3):
        return Verdict.FAILED
    return _answer(asked, message, rcode == 3)


def _same_question(asked: Asked, head: dns.message.Message) -> Verdict | None:
    import dns.rdataclass
    import dns.rdatatype

    if len(head.question) != 1:
        return Verdict.STRAY
    question = head.question[0]
    if question.rdclass != dns.rdataclass.IN or dns.rdatatype.to_text(question.rdtype) != asked.question.type:
        return Verdict.STRAY
    if question.name != asked.name:
        return Verdict.STRAY
    return Verdict.FOLDED if asked.exact and question.name.labels != asked.name.labels else None


def _answer(asked: Asked, message: dns.message.Message, nxdomain: bool) -> Answer | Verdict:
    import dns.flags
    import dns.rdataclass
    import dns.rdatatype

    kind = dns.rdatatype.from_text(asked.question.type)
    at = {(rrset.name, rrset.rdtype): rrset for rrset in message.answer if rrset.rdclass == dns.rdataclass.IN}
    name, ttl = asked.name, TTL_MAX  # dnspython has made 0 of those with the highest bit set (RFC 2181 8)

    def official() -> str:
        return asked.question.name if name is asked.name else _text(name)

    for _ in range(CHAIN_MAX):
        rrset = at.get((name, kind))
        if rrset is not None:
            records = tuple(_records(rrset, asked.question.type))
            return Answer(Status.FOUND, official(), records, min(ttl, rrset.ttl))
        alias = at.get((name, dns.rdatatype.CNAME))
        if alias is None:
            break
        name, ttl = alias[0].target, min(ttl, alias.ttl)
    else:
        return Verdict.FAILED  # in a circle, or too long
    status = Status.NXDOMAIN if nxdomain else Status.NODATA
    for rrset in message.authority:
        if rrset.rdtype == dns.rdatatype.SOA and name.is_subdomain(rrset.name):
            return Answer(status, official(), (), min(ttl, rrset.ttl, rrset[0].minimum, NEGATIVE_MAX))  # RFC 2308 5
    if name != asked.name and not nxdomain:
        return Answer(status, official(), (), ttl, unfinished=True)
    if message.authority and not message.flags & (dns.flags.RA | dns.flags.AA):
        return Verdict.FAILED  # a referral (RFC 2308 2.2): this server does not ask others for us
    return Answer(status, official())


_READERS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "A": lambda rdata: rdata.address,
        "AAAA": lambda rdata: rdata.address,
        "CNAME": lambda rdata: _text(rdata.target),
        "MX": lambda rdata: (rdata.preference, _text(rdata.exchange)),
        "NS": lambda rdata: _text(rdata.target),
        "PTR": lambda rdata: _text(rdata.target),
        "SRV": lambda rdata: Service(rdata.priority, rdata.weight, rdata.port, _text(rdata.target)),
        "TXT": lambda rdata: b"".join(rdata.strings),
    }
)


def _records(rrset: dns.rrset.RRset, kind: str) -> Iterable[Any]:
    reader = _READERS.get(kind, str)
    for rdata, _ in zip(rrset, range(RECORDS_MAX), strict=False):
        yield reader(rdata)


def _text(name: dns.name.Name) -> str:
    """In lower case: what an answer borrowed from the question has the random case of that."""
    return name.to_text(omit_final_dot=True).lower()


def is_hostname(name: str) -> bool:
    """Whether a name that came from the wire may be shown as a host's: letters, digits, ``-``, ``_`` and dots
    (RFC 1123 2.1, and the underscore that half the world uses). Others have been used to attack what reads logs."""
    return all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", label) for label in name.split("."))
