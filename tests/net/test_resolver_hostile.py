"""Whatever a name server sends: no exception, no wrong belief, no unbounded work."""

from __future__ import annotations

import time
from collections import Counter

import dns.flags
import dns.message
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libos.net.names.message import Answer, Asked, Question, Status, Verdict, ask, is_hostname, read
from libos.net.names.query import Query
from libos.net.names.servers import Server
from libos.rand import Rng


def question(type: str = "A", name: str = "www.example.test") -> Asked:
    return ask(Question(name, type), Rng(1), edns=True, mixed_case=True)


def response(asked: Asked) -> dns.message.Message:
    return dns.message.make_response(dns.message.from_wire(asked.wire), recursion_available=True)


def check(asked: Asked, wire: bytes) -> None:
    found = read(asked, wire)
    if isinstance(found, Answer):
        assert len(found.records) <= 1000
        assert 0 <= found.ttl <= 86400
        assert (found.status is Status.FOUND) == bool(found.records)
    else:
        assert isinstance(found, Verdict)


names = st.lists(st.sampled_from(["a", "b", "www", "test", "x" * 63]), min_size=1, max_size=3).map(".".join)
records = st.lists(
    st.tuples(
        names,
        st.integers(0, 2**32 - 1),
        st.one_of(
            st.builds(lambda n: ("A", f"192.0.2.{n}"), st.integers(0, 255)),
            st.builds(lambda n: ("CNAME", f"{n}."), names),
            st.builds(lambda n: ("SRV", f"1 2 3 {n}."), names),
            st.builds(lambda n: ("SOA", f"{n}. {n}. 1 2 3 4 {2**32 - 1}"), names),
            st.just(("TXT", '"x"')),
        ),
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), records=records)
def test_answers_that_are_damaged(data: st.DataObject, records: list[tuple[str, int, tuple[str, str]]]) -> None:
    """Real answers with some bytes changed, cut or added."""
    asked = question(data.draw(st.sampled_from(["A", "SRV", "TXT"])), data.draw(names))
    message = response(asked)
    for owner, ttl, (type, text) in records:
        section = data.draw(st.sampled_from([message.answer, message.authority, message.additional]))
        section.append(dns.rrset.from_text(owner + ".", min(ttl, 2**31 - 1), "IN", type, text))
    wire = bytearray(message.to_wire(max_size=65535))
    check(asked, bytes(wire))
    for at, value in data.draw(st.lists(st.tuples(st.integers(2, len(wire) - 1), st.integers(0, 255)), max_size=4)):
        wire[at] = value
    check(asked, bytes(wire[: data.draw(st.integers(0, len(wire)))]))
    check(asked, bytes(wire) + data.draw(st.binary(max_size=20)))


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=300), edns=st.booleans())
def test_bytes_behind_the_right_id(body: bytes, edns: bool) -> None:
    asked = ask(Question("a.test", "A"), Rng(1), edns=edns, mixed_case=False)
    head = asked.wire[:2]
    check(asked, head + body)
    check(asked, head + b"\x81\x80\0\1\0\1\0\0\0\0" + asked.wire[12:24] + body)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_query_ends_whatever_is_said(data: st.DataObject) -> None:
    """Each server's message is arbitrary: within servers, rounds and bounded extra steps there is an end."""
    servers = [Server(f"10.0.0.{n}") for n in range(3)]
    query = Query(Question("a.test", "A"), servers, Rng(1), timeout=1.0, attempts=2, counts=Counter())
    steps = 0
    while (step := query.step()) is not None:
        steps += 1
        assert steps <= 3 * 2 * 4
        kind = data.draw(st.sampled_from(["silent", "tc", "formerr", "servfail", "folded", "junk"]))
        if kind == "silent":
            query.failed(steps)
            continue
        message = dns.message.make_response(dns.message.from_wire(step.wire))
        if kind == "tc":
            message.flags |= dns.flags.TC
        elif kind == "folded":
            message.question[0].name = dns.name.from_text("A.TEST.")
        elif kind != "junk":
            message.set_rcode(1 if kind == "formerr" else 2)
        wire = message.to_wire() if kind != "junk" else b"?"
        for _ in range(64):
            if query.received(wire, steps):
                break
        else:
            raise AssertionError("listens to junk for ever")
    assert query.answer is not None
    assert query.answer.status in (Status.FAILURE, Status.NODATA)  # chance may mix no letter, and nothing is folded


def test_pointers_that_point_at_each_other() -> None:
    asked = question()
    head = asked.wire[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
    at = len(asked.wire) - 11  # behind the question, where EDNS was
    body = head + asked.wire[12:at]
    for name in (
        b"\xc0" + bytes([at]),  # at itself
        b"\xc0" + bytes([at + 2]) + b"\xc0" + bytes([at]),  # at each other
        b"\1a\xc0" + bytes([at]),  # a name that begins with itself
        b"\xff\xff",  # beyond the end
        b"\xc0\x0c" * 30,
        b"\x3fx",
        b"\x80",
    ):
        assert read(asked, body + name + b"\0\1\0\1\0\0\0\1\0\4\1\2\3\4") is Verdict.STRAY


def test_names_longer_than_names_can_be() -> None:
    asked = question()
    at = len(asked.wire) - 11
    body = asked.wire[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + asked.wire[12:at]
    assert read(asked, body + (b"\x3f" + b"x" * 63) * 5 + b"\0" + b"\0\1\0\1\0\0\0\1\0\4\1\2\3\4") is Verdict.STRAY


def test_thousands_of_records_are_bounded_work() -> None:
    """Eight times the records cost some eight times the work, and not sixty-four."""
    asked = question()

    def work(count: int) -> float:
        wire = bytearray(asked.wire[: len(asked.wire) - 11])
        wire[2:12] = b"\x81\x80\0\1" + count.to_bytes(2, "big") + bytes(4)
        wire += b"".join(b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\n" + n.to_bytes(3, "big") for n in range(count))
        start = time.process_time()
        found = read(asked, bytes(wire))
        spent = time.process_time() - start
        assert isinstance(found, Answer)
        assert len(found.records) == min(count, 1000)
        return spent

    assert work(4000) < 30 * max(work(500), work(500))


def test_records_that_were_not_asked_for_are_not_believed() -> None:
    """RFC 5452 6, RFC 2181 5.4.1: the additional section, other names, other classes."""
    asked = question(name="www.test")
    message = response(asked)
    message.additional.append(dns.rrset.from_text("www.test.", 60, "IN", "A", "203.0.113.66"))
    message.authority.append(dns.rrset.from_text("www.test.", 60, "IN", "A", "203.0.113.66"))
    message.answer.append(dns.rrset.from_text("bank.test.", 60, "IN", "A", "203.0.113.66"))
    message.answer.append(dns.rrset.from_text("www.test.", 60, "CH", "TXT", "x"))
    found = read(asked, message.to_wire())
    assert isinstance(found, Verdict) or not found.records


@pytest.mark.parametrize(
    ("name", "fits"),
    [("a-b.c_d.E9", True), ("-a.test", False), ("a b", False), ("a\\000", False), ("", False), ("a..b", False),
     ("é.test", False), ("a.", False), ("$(reboot).test", False), ("\n", False), ("a\n", False)],
)  # fmt: skip
def test_which_names_may_be_shown(name: str, fits: bool) -> None:
    assert is_hostname(name) is fits
