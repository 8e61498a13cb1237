"""The resolver against scripted name servers, on a virtual clock: who is asked when, what is believed, what is kept."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest

from libos.net.names.cache import Cache
from libos.net.names.message import Answer, Question, Service, Status

from .nameservers import Asked, Lab

V4 = {"family": socket.AF_INET}


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


def one(asked: Asked) -> object:
    return asked.answer("A 192.0.2.1")


def silent(asked: Asked) -> object:
    return None


def failing(asked: Asked) -> object:
    return asked.answer(rcode="SERVFAIL")


def fails(lab: Lab, host: str, code: int, **options: object) -> None:
    with pytest.raises(socket.gaierror) as caught:
        lab.addresses(host, **{**V4, **options})
    assert caught.value.errno == code


# --- several servers (RFC 1035 7.2) ------------------------------------------------------------------------------


def test_a_silent_server_costs_its_time_once_and_is_then_asked_last(lab: Lab) -> None:
    lab.setup(silent, one)
    assert lab.addresses("a.test", **V4) == ["192.0.2.1"]
    assert lab.addresses("b.test", **V4) == ["192.0.2.1"]
    assert lab.asked == [
        (0.0, 0, "udp", "a.test. A"),
        (2.0, 1, "udp", "a.test. A"),
        (2.0, 1, "udp", "b.test. A"),  # the first is in disgrace for a second
    ]


def test_after_its_penalty_a_server_is_first_again_and_each_failure_doubles_it(lab: Lab) -> None:
    lab.setup(silent, one)
    lab.addresses("a.test", **V4)
    lab.run(asyncio.sleep(1.0))  # 3.0: over
    lab.addresses("b.test", **V4)  # until 5.0, then in disgrace until 7.0
    lab.run(asyncio.sleep(1.5))
    lab.addresses("c.test", **V4)
    lab.run(asyncio.sleep(0.5))
    lab.addresses("d.test", **V4)
    assert [(time, server) for time, server, _, _ in lab.asked] == [
        (0.0, 0), (2.0, 1),
        (3.0, 0), (5.0, 1),
        (6.5, 1),
        (7.0, 0), (9.0, 1),
    ]  # fmt: skip


def test_every_round_waits_twice_as_long(lab: Lab) -> None:
    lab.setup(silent, silent)
    fails(lab, "a.test", socket.EAI_AGAIN)
    assert [(time, server) for time, server, _, _ in lab.asked] == [(0.0, 0), (2.0, 1), (4.0, 0), (8.0, 1)]
    assert lab.loop.elapsed() == 12.0


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "NOTAUTH"])
def test_who_cannot_tell_is_passed_over_at_once(lab: Lab, rcode: str) -> None:
    lab.setup(lambda asked: asked.answer(rcode=rcode), one)
    assert lab.addresses("a.test", **V4) == ["192.0.2.1"]
    assert [(time, server) for time, server, _, _ in lab.asked] == [(0.0, 0), (0.0, 1)]


def test_a_referral_is_no_answer(lab: Lab) -> None:
    """RFC 2308 2.2: neither authoritative nor offering to ask others, and it names the servers of another zone."""

    def referral(asked: Asked) -> object:
        response = asked.answer(authority="test. 60 60")
        response.authority[0] = dns.rrset.from_text("test.", 60, "IN", "NS", "ns.test.")
        response.flags &= ~dns.flags.RA
        return response

    lab.setup(referral, one)
    assert lab.addresses("a.test", **V4) == ["192.0.2.1"]


def test_nobody_listens_there(lab: Lab) -> None:
    """ICMP's port unreachable is an answer too: no waiting."""
    lab.setup(one, servers=("10.0.0.3", "10.0.0.2"))
    assert lab.addresses("a.test", **V4) == ["192.0.2.1"]
    assert lab.loop.elapsed() == 0.0


def test_rotation_spreads_questions(lab: Lab) -> None:
    lab.setup(one, one, one, rotate=True)
    for letter in "abcd":
        lab.addresses(f"{letter}.test", **V4)
    assert [server for _, server, _, _ in lab.asked] == [0, 1, 2, 0]


def test_set_servers_forgets_what_the_old_ones_said(lab: Lab) -> None:
    resolver = lab.setup(one, lambda asked: asked.answer("A 192.0.2.2"), servers=("10.0.0.2",))
    assert lab.addresses("a", **V4) == ["192.0.2.1"]
    resolver.set_servers(["10.0.0.3"], ["Corp.Test."])
    assert (resolver.servers, resolver.search) == (("10.0.0.3",), ("corp.test",))
    assert lab.addresses("a", **V4) == ["192.0.2.2"]
    assert lab.asked[-1][1:] == (1, "udp", "a.corp.test. A")


def test_without_a_way_there_nothing_is_remembered(lab: Lab) -> None:
    resolver = lab.setup(servers=("192.0.2.53",))
    fails(lab, "a.test", socket.EAI_AGAIN)
    assert resolver.statistics()["cached"] == 0
    lab.stacks[0].add_route(2, "192.0.2.0/24", "10.0.0.2")
    resolver.set_servers(["10.0.0.2"])


# --- what is believed (RFC 5452) ---------------------------------------------------------------------------------


def test_ids_ports_and_letters_are_drawn_at_random(lab: Lab) -> None:
    """RFC 5452 9.2, and the 0x20 bit of each letter."""
    lab.setup(one)
    for number in range(20):
        lab.addresses(f"abcdefghijklmnop{number}.test", **V4)
    assert len({query.id for query in lab.queries}) == 20
    assert len(set(lab.ports)) > 15
    assert len({query.question[0].name.to_text()[:16] for query in lab.queries}) == 20


def forged(asked: Asked, how: str) -> bytes:
    response = asked.answer("A 203.0.113.66")
    if how == "id":
        response.id ^= 1
    elif how == "name":
        response.question[0].name = dns.name.from_text("other.test.")
    elif how == "type":
        response.question[0].rdtype = dns.rdatatype.AAAA
    elif how == "class":
        response.question[0].rdclass = dns.rdataclass.CH
    elif how == "two questions":
        response.question.append(dns.rrset.from_text("b.test.", 0, "IN", "A"))
    elif how == "no question":
        response.question.clear()
    elif how == "a query":
        response.flags &= ~dns.flags.QR
    elif how == "opcode":
        response.set_opcode(dns.opcode.NOTIFY)
    wire = response.to_wire()
    if how == "pointer loop":
        at = len(asked.query.to_wire()) - 11 if asked.query.edns >= 0 else len(asked.query.to_wire())
        return wire[:at] + b"\xc0" + bytes([at]) + wire[at + 2 :]
    return wire[: {"empty": 0, "short": 11, "cut": len(wire) - 3}.get(how, len(wire))]


FORGERIES = ["id", "name", "type", "class", "two questions", "no question", "a query", "opcode", "pointer loop",
             "empty", "short", "cut"]  # fmt: skip


@pytest.mark.parametrize("how", FORGERIES)
def test_rfc5452_9_1_what_does_not_answer_the_question_is_waited_past(lab: Lab, how: str) -> None:
    lab.setup(lambda asked: [forged(asked, how), (0.5, asked.answer("A 192.0.2.1"))])
    assert lab.addresses("a.test", **V4) == ["192.0.2.1"]
    assert lab.loop.elapsed() == 0.5
    assert lab.resolver.statistics()["strays"] == 1


def test_another_hosts_answer_does_not_even_arrive(lab: Lab) -> None:
    """The socket is connected: what another address says goes elsewhere."""

    async def spoof(port: int, wire: bytes) -> None:
        sock = lab.far.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.bind(("10.0.0.4", 53))
        sock.sendto(wire, ("10.0.0.1", port))
        sock.close()

    def script(asked: Asked) -> object:
        task = lab.loop.create_task(spoof(lab.ports[-1], asked.answer("A 203.0.113.66").to_wire()))
        task.add_done_callback(lambda task: task.result())
        return (0.5, asked.answer("A 192.0.2.1"))

    lab.setup(script)
    assert lab.addresses("a.test", **V4) == ["192.0.2.1"]
    assert lab.resolver.statistics()["strays"] == 0


def test_a_flood_of_guesses_moves_the_question_to_tcp(lab: Lab) -> None:
    """RFC 5452 9.3."""

    def script(asked: Asked) -> object:
        return asked.answer("A 192.0.2.1") if asked.tcp else [forged(asked, "id")] * 100

    lab.setup(script)
    assert lab.addresses("a.test", **V4) == ["192.0.2.1"]
    assert [by for _, _, by, _ in lab.asked] == ["udp", "tcp"]


def lower(asked: Asked) -> dns.message.Message:
    response = asked.answer("A 192.0.2.1")
    response.question[0].name = dns.name.from_text(asked.name)
    return response


def test_a_server_that_folds_case_is_found_out_by_tcp_and_spared_it(lab: Lab) -> None:
    lab.setup(lower)
    assert lab.addresses("abcdefgh.test", **V4) == ["192.0.2.1"]
    assert [by for _, _, by, _ in lab.asked] == ["udp", "tcp", "tcp"]
    assert lab.addresses("stuvwxyz.test", **V4) == ["192.0.2.1"]
    assert [by for _, _, by, _ in lab.asked] == ["udp", "tcp", "tcp", "udp"]
    assert lab.queries[-1].question[0].name.to_text() == "stuvwxyz.test."


def test_the_wrong_case_once_is_a_forgery(lab: Lab) -> None:
    """By TCP the case comes back as it was sent: the server is not the one that folded it."""

    def script(asked: Asked) -> object:
        if asked.tcp:
            return asked.answer("A 192.0.2.1")
        response = lower(asked)
        response.answer[0] = dns.rrset.from_text(asked.name, 60, "IN", "A", "203.0.113.66")
        return response

    lab.setup(script)
    assert lab.addresses("abcdefgh.test", **V4) == ["192.0.2.1"]
    lab.addresses("stuvwxyz.test", **V4)
    assert lab.queries[-2].question[0].name.to_text() != "stuvwxyz.test."  # the next is mixed still


# --- EDNS and TCP ------------------------------------------------------------------------------------------------


def test_rfc6891_edns_offers_1232_bytes(lab: Lab) -> None:
    lab.setup(one)
    lab.addresses("a.test", **V4)
    assert (lab.queries[0].edns, lab.queries[0].payload) == (0, 1232)


@pytest.mark.parametrize("rcode", ["FORMERR", "NOTIMP", "BADVERS"])
def test_rfc6891_7_a_server_without_edns_is_asked_without(lab: Lab, rcode: str) -> None:
    def script(asked: Asked) -> object:
        return asked.answer("A 192.0.2.1") if asked.query.edns < 0 else asked.answer(rcode=rcode)

    lab.setup(script)
    assert lab.addresses("a.test", **V4) == lab.addresses("b.test", **V4) == ["192.0.2.1"]
    assert [query.edns for query in lab.queries] == [0, -1, -1]


def test_rfc6891_7_formerr_may_leave_the_question_out(lab: Lab) -> None:
    def script(asked: Asked) -> object:
        if asked.query.edns < 0:
            return asked.answer("A 192.0.2.1")
        return asked.query.id.to_bytes(2, "big") + b"\x80\x01" + bytes(8)

    lab.setup(script)
    assert lab.addresses("a.test", **V4) == ["192.0.2.1"]


def truncated(asked: Asked) -> dns.message.Message:
    response = asked.answer()
    response.flags |= dns.flags.TC
    return response


def test_rfc7766_5_truncation_leads_to_tcp(lab: Lab) -> None:
    many = [f"A 192.0.{n // 250}.{n % 250}" for n in range(1500)]
    lab.setup(lambda asked: asked.answer(*many) if asked.tcp else truncated(asked))
    assert len(lab.addresses("many.test", **V4)) == 1000  # bounded
    assert [by for _, _, by, _ in lab.asked] == ["udp", "tcp"]


def test_truncated_by_tcp_too_or_cut_short_there_is_a_failure(lab: Lab) -> None:
    lab.setup(truncated, lambda asked: [b"x" * 5] if asked.tcp else truncated(asked), one, attempts=1)
    assert lab.addresses("a.test", **V4) == ["192.0.2.1"]
    assert [(server, by) for _, server, by, _ in lab.asked] == [
        (0, "udp"),
        (0, "tcp"),
        (1, "udp"),
        (1, "tcp"),
        (2, "udp"),
    ]


# --- aliases -----------------------------------------------------------------------------------------------------


def test_a_chain_of_aliases_gives_the_canonical_name_and_the_shortest_ttl(lab: Lab) -> None:
    def script(asked: Asked) -> object:
        response = asked.answer("CNAME b.test.", "b.test. CNAME C.test.", "c.test. A 192.0.2.3")
        response.answer[1].ttl = 7
        return response

    lab.setup(script)
    infos = lab.run(lab.network.getaddrinfo(lab.loop, "a.test", 80, flags=socket.AI_CANONNAME, **V4))
    assert [info[3] for info in infos] == ["c.test", ""]  # the first has it
    assert lab.query("a.test", "A").ttl == 7


@pytest.mark.parametrize("length", [15, 16, 40])
def test_chains_are_bounded(lab: Lab, length: int) -> None:
    names = [f"n{n}.test." for n in range(length)]
    records = [f"{a} CNAME {b}" for a, b in zip(["a.test.", *names[:-1]], names, strict=True)]
    lab.setup(lambda asked: asked.answer(*records, f"{names[-1]} A 192.0.2.1"), attempts=1)
    if length < 16:
        assert lab.addresses("a.test", **V4) == ["192.0.2.1"]
    else:
        fails(lab, "a.test", socket.EAI_AGAIN)


def test_a_circle_of_aliases_ends(lab: Lab) -> None:
    lab.setup(lambda asked: asked.answer("CNAME b.test.", "b.test. CNAME a.test."), attempts=1)
    fails(lab, "a.test", socket.EAI_AGAIN)


def test_what_the_server_did_not_follow_is_followed_and_that_too_ends(lab: Lab) -> None:
    chain = {"a.test.": "CNAME b.test.", "b.test.": "A 192.0.2.1", "x0.test.": ""}

    def script(asked: Asked) -> object:
        record = chain.get(asked.name) or f"CNAME x{int(asked.name[1:-6] or 0) + 1}.test."
        return asked.answer(record, ttl=20 if asked.name == "a.test." else 60)

    lab.setup(script)
    assert lab.addresses("a.test", **V4) == ["192.0.2.1"]
    assert [what for _, _, _, what in lab.asked] == ["a.test. A", "b.test. A"]
    assert lab.query("a.test", "A").ttl == 20
    fails(lab, "x0.test", socket.EAI_AGAIN)
    assert len(lab.asked) == 2 + 16


# --- the cache ---------------------------------------------------------------------------------------------------


def test_an_answer_holds_for_its_ttl(lab: Lab) -> None:
    lab.setup(lambda asked: asked.answer("A 192.0.2.1", ttl=30))
    for _ in range(3):
        lab.addresses("A.test", **V4)
        lab.run(asyncio.sleep(14.9))
    assert lab.query("a.test", "A").ttl == 30
    assert [time for time, *_ in lab.asked] == [0.0, 44.7]
    assert lab.resolver.statistics()["hits"] == 2


@pytest.mark.parametrize(("ttl", "kept"), [(0, 0), (1 << 31, 0), ((1 << 31) - 1, 86400)])
def test_rfc2181_8_ttls_are_clamped(lab: Lab, ttl: int, kept: int) -> None:
    def script(asked: Asked) -> object:
        wire = asked.answer("A 192.0.2.1", ttl=5).to_wire()
        return wire.replace((5).to_bytes(4, "big") + b"\0\4\xc0\0", ttl.to_bytes(4, "big") + b"\0\4\xc0\0")

    lab.setup(script)
    assert lab.query("a.test", "A").ttl == kept
    assert lab.resolver.statistics()["cached"] == (kept > 0)


@pytest.mark.parametrize(
    ("authority", "kept"), [("test. 100 7", 7), ("test. 7 100", 7), ("test. 999999 999999", 10800), ("", 0)]
)
@pytest.mark.parametrize(("rcode", "code"), [("NXDOMAIN", socket.EAI_NONAME), ("NOERROR", socket.EAI_NODATA)])
def test_rfc2308_5_negative_answers_hold_as_the_soa_says(
    lab: Lab, rcode: str, code: int, authority: str, kept: int
) -> None:
    lab.setup(lambda asked: asked.answer(rcode=rcode, authority=authority))
    fails(lab, "a.test", code)
    if kept:
        lab.run(asyncio.sleep(kept - 0.1))
        fails(lab, "a.test", code)
        assert len(lab.asked) == 1
        lab.run(asyncio.sleep(0.2))
    fails(lab, "a.test", code)
    assert len(lab.asked) == 2


def test_another_zones_soa_says_nothing(lab: Lab) -> None:
    lab.setup(lambda asked: asked.answer(rcode="NXDOMAIN", authority="else.where. 60 60"))
    fails(lab, "a.test", socket.EAI_NONAME)
    assert lab.resolver.statistics()["cached"] == 0


def test_rfc9520_3_2_failures_are_remembered_briefly_and_longer_in_a_row(lab: Lab) -> None:
    lab.setup(failing, attempts=1)
    times = []
    while len(times) < 8:
        fails(lab, "a.test", socket.EAI_AGAIN)
        times = [time for time, *_ in lab.asked]
        lab.run(asyncio.sleep(0.5))
    assert [later - time for time, later in itertools.pairwise(times)] == [1, 2, 4, 8, 16, 30, 30]


def test_the_cache_is_bounded() -> None:
    """In entries and in records; the longest unused goes first."""
    cache = Cache(entries=4, records=10)
    questions = [Question(f"n{number}.test", "A") for number in range(7)]
    for question in questions[:4]:
        cache.put(question, Answer(Status.FOUND, question.name, ("192.0.2.1",), 60), 0)
    assert cache.get(questions[0], 1) is not None
    cache.put(questions[4], Answer(Status.NODATA, "n4.test", (), 60), 0)
    assert [number for number in range(5) if cache.get(questions[number], 1)] == [0, 2, 3, 4]
    cache.put(questions[5], Answer(Status.FOUND, "n5.test", ("192.0.2.1",) * 8, 60), 0)
    assert [number for number in range(6) if cache.get(questions[number], 1)] == [3, 4, 5]
    cache.put(questions[6], Answer(Status.FOUND, "n6.test", ("192.0.2.1",) * 11, 60), 0)
    assert (len(cache), cache.evicted) == (0, 7)
    cache.put(questions[6], Answer(Status.FOUND, "n6.test", ("192.0.2.1",) * 10, 60), 0)
    assert len(cache) == 1


# --- the same question, several times ------------------------------------------------------------------------------


def test_one_question_at_a_time_is_enough(lab: Lab) -> None:
    lab.setup(lambda asked: (0.3, asked.answer("A 192.0.2.1")))

    async def main() -> None:
        async def ask() -> list[object]:
            return await lab.network.getaddrinfo(lab.loop, "a.test", 80, type=1, **V4)

        tasks = [asyncio.ensure_future(ask()) for _ in range(50)]
        await asyncio.sleep(0.1)
        tasks[0].cancel()  # who asked first may leave: the others' answer still comes
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert all(result == results[1] for result in results[1:])

    lab.run(main())
    assert len(lab.asked) == 1
    assert lab.resolver.statistics()["shared"] == 49


def test_when_nobody_waits_any_more_the_question_is_dropped(lab: Lab) -> None:
    lab.setup(silent)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await lab.network.getaddrinfo(lab.loop, "a.test", 80)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert lab.stacks[0].sockets() == []
        assert asyncio.all_tasks() == {asyncio.current_task()}

    lab.run(main())


def test_questions_under_way_are_bounded(lab: Lab) -> None:
    lab.setup(silent, timeout=1.0, attempts=1)

    async def main() -> list[object]:
        asks = (lab.network.getaddrinfo(lab.loop, f"n{n}.test", 80, **V4) for n in range(600))
        return await asyncio.gather(*asks, return_exceptions=True)

    results = lab.run(main())
    assert {result.errno for result in results if isinstance(result, socket.gaierror)} == {socket.EAI_AGAIN}
    assert lab.resolver.statistics()["refused"] == 600 - 512


# --- the search list -----------------------------------------------------------------------------------------------


def exists(*names: str):
    def script(asked: Asked) -> object:
        return asked.answer("A 192.0.2.1") if asked.name in names else asked.answer(rcode="NXDOMAIN")

    return script


@pytest.mark.parametrize(
    ("host", "ndots", "tried"),
    [
        ("db", 1, ["db.a.test.", "db.b.test.", "db."]),
        ("db.", 1, ["db."]),
        ("db.x", 1, ["db.x.", "db.x.a.test.", "db.x.b.test."]),
        ("db.x", 2, ["db.x.a.test.", "db.x.b.test.", "db.x."]),
        ("db", 0, ["db.", "db.a.test.", "db.b.test."]),
    ],
)
def test_search_domains_and_ndots(lab: Lab, host: str, ndots: int, tried: list[str]) -> None:
    lab.setup(exists(), search=["a.test", "b.test"], ndots=ndots)
    fails(lab, host, socket.EAI_NONAME)
    assert [what for _, _, _, what in lab.asked] == [f"{name} A" for name in tried]


def test_the_search_ends_with_the_first_that_exists(lab: Lab) -> None:
    lab.setup(exists("db.b.test."), search=["a.test", "b.test", "c.test"])
    assert lab.addresses("db", **V4) == ["192.0.2.1"]
    assert len(lab.asked) == 2


def test_of_a_search_without_success_the_most_hopeful_error_is_told(lab: Lab) -> None:
    def script(asked: Asked) -> object:
        rcode = {"n.a.test.": "NOERROR", "f.a.test.": "SERVFAIL"}.get(asked.name, "NXDOMAIN")
        return asked.answer(rcode=rcode)

    lab.setup(script, search=["a.test"], attempts=1)
    fails(lab, "n", socket.EAI_NODATA)
    fails(lab, "f", socket.EAI_AGAIN)
    fails(lab, "x" * 60 + "." + "y" * 60, socket.EAI_NONAME)
    fails(lab, ("x" * 60 + ".") * 4 + "z" * 8, socket.EAI_NONAME)  # with the domain too long, by itself not


# --- getaddrinfo's families ------------------------------------------------------------------------------------------


def both(asked: Asked) -> object:
    return asked.answer("AAAA 2001:db8::1" if asked.type == "AAAA" else "A 192.0.2.1")


def four_only(asked: Asked) -> object:
    return asked.answer("A 192.0.2.1") if asked.type == "A" else asked.answer()


@pytest.mark.parametrize(
    ("script", "flags", "expected"),
    [
        (both, 0, ["2001:db8::1"]),
        (both, socket.AI_V4MAPPED, ["2001:db8::1"]),
        (both, socket.AI_V4MAPPED | socket.AI_ALL, ["2001:db8::1", "::ffff:192.0.2.1"]),
        (four_only, socket.AI_V4MAPPED, ["::ffff:192.0.2.1"]),
    ],
)
def test_v4mapped(lab: Lab, script: object, flags: int, expected: list[str]) -> None:
    lab.setup(script)
    assert lab.addresses("a.test", family=socket.AF_INET6, flags=flags) == expected


def test_addrconfig_asks_only_for_what_the_machine_has(lab: Lab) -> None:
    lab.setup(both)
    lab.network.configured_families = lambda: {socket.AF_INET}
    assert lab.addresses("a.test", flags=socket.AI_ADDRCONFIG) == ["192.0.2.1"]
    assert [what for _, _, _, what in lab.asked] == ["a.test. A"]
    fails(lab, "a.test", socket.EAI_NONAME, family=socket.AF_INET6, flags=socket.AI_ADDRCONFIG)


def test_half_an_answer_is_one(lab: Lab) -> None:
    """One of the two record types cannot be had: what is there serves."""
    lab.setup(lambda asked: asked.answer("A 192.0.2.1") if asked.type == "A" else asked.answer(rcode="SERVFAIL"))
    assert lab.addresses("a.test") == ["192.0.2.1"]


def test_special_names_are_never_asked_for(lab: Lab) -> None:
    """RFC 6761 6.3 and 6.4, RFC 7686 2."""
    lab.setup(one)
    assert lab.addresses("x.localhost.") == ["::1", "127.0.0.1"]
    for name in ("a.invalid", "invalid.", "b.ONION"):
        fails(lab, name, socket.EAI_NONAME)
    assert lab.asked == []


def test_names_beyond_ascii_are_asked_for_by_idna(lab: Lab) -> None:
    lab.setup(one)
    assert lab.addresses("bücher.test", **V4) == ["192.0.2.1"]
    assert lab.asked[0][3] == "xn--bcher-kva.test. A"
    fails(lab, "ü" * 70 + ".test", socket.EAI_NONAME)


# --- other records, and back -----------------------------------------------------------------------------------------


def test_srv_in_the_order_to_try_them(lab: Lab) -> None:
    """RFC 2782: by priority; among equals at random, by weight, and those without weight rarely first."""
    records = ["SRV 20 0 53 last.test.", "SRV 10 1 1 light.test.", "SRV 10 9 1 heavy.test.", "SRV 10 0 1 zero.test."]
    lab.setup(lambda asked: asked.answer(*records))
    firsts = []
    for _ in range(400):
        services = lab.query("_dns._udp.test", "srv").records
        assert {service.priority for service in services[:3]} == {10}
        assert services[3] == Service(20, 0, 53, "last.test")
        firsts.append(services[0].target)
    assert 250 < firsts.count("heavy.test") < 380
    assert 0 < firsts.count("light.test") < firsts.count("heavy.test")
    assert len(lab.asked) == 1


@pytest.mark.parametrize(
    ("type", "text", "record"),
    [
        ("MX", "10 mail.test.", (10, "mail.test")),
        ("TXT", '"a b" "c"', b"a bc"),
        ("PTR", "x.test.", "x.test"),
        ("NS", "ns.test.", "ns.test"),
        ("CAA", '0 issue "ca.test"', '0 issue "ca.test"'),
    ],
)
def test_records_of_other_types(lab: Lab, type: str, text: str, record: object) -> None:
    lab.setup(lambda asked: asked.answer(f"{type} {text}"))
    answer = lab.query("a.test", type)
    assert (answer.records, answer.ttl) == ((record,), 60)


@pytest.mark.parametrize("type", ["AXFR", "ANY", "NONSENSE", "TYPE99999"])
def test_no_such_type(lab: Lab, type: str) -> None:
    lab.setup(one)
    with pytest.raises(ValueError, match="type"):
        lab.query("a.test", type)


def nameinfo(lab: Lab, host: str, port: int = 80, flags: int = 0) -> tuple[str, str]:
    return lab.run(lab.network.getnameinfo(lab.loop, (host, port), flags))


def test_getnameinfo_asks_for_the_pointer(lab: Lab) -> None:
    def script(asked: Asked) -> object:
        if asked.name.startswith("9."):
            return asked.answer(rcode="NXDOMAIN")
        return asked.answer("PTR bad\\010name.test.", "PTR www.corp.test.")

    lab.setup(script, search=["corp.test"])
    assert nameinfo(lab, "192.0.2.1") == ("www.corp.test", "http")  # the other would be no name of a host
    assert nameinfo(lab, "2001:db8::1", 53, socket.NI_DGRAM) == ("www.corp.test", "domain")
    assert [what for _, _, _, what in lab.asked] == [
        "1.2.0.192.in-addr.arpa. PTR",
        "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR",
    ]
    assert nameinfo(lab, "192.0.2.1", 80, socket.NI_NOFQDN) == ("www", "http")
    assert nameinfo(lab, "192.0.2.1", 80, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV) == ("192.0.2.1", "80")
    assert nameinfo(lab, "192.0.2.9", 4) == ("192.0.2.9", "4")
    assert nameinfo(lab, "127.0.0.1", 514) == ("localhost", "shell")
    assert nameinfo(lab, "127.0.0.1", 514, socket.NI_DGRAM) == ("localhost", "syslog")
    for host, flags, code in (
        ("192.0.2.9", socket.NI_NAMEREQD, socket.EAI_NONAME),
        ("name", 0, socket.EAI_NONAME),
        ("192.0.2.1", 1 << 20, socket.EAI_BADFLAGS),
    ):
        with pytest.raises(socket.gaierror) as caught:
            nameinfo(lab, host, 80, flags)
        assert caught.value.errno == code


def test_getnameinfo_keeps_the_scope_of_a_link_local_address(lab: Lab) -> None:
    lab.setup(failing, attempts=1)
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    assert lab.run(lab.network.getnameinfo(lab.loop, ("fe80::1", 80, 0, 2), flags)) == ("fe80::1%2", "80")
    assert lab.run(lab.network.getnameinfo(lab.loop, ("fe80::1%3", 80), 0)) == ("fe80::1%3", "http")
