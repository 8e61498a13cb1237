"""The neighbour cache: its states in turn (RFC 4861 7.3), what confirms an entry, and who is not pushed out of it."""

from __future__ import annotations

from scapy.layers.inet import UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import Ether

from .packets import OUR_MAC, PEER_MAC
from .test_neighbours import NEW_MAC, SOLICITED, answer, ask_us, expect_question


def states(h):
    return {n.address: n.state for n in h.interface.neighbours()}


def test_the_states_in_turn(bare):
    """RFC 4861 7.3.2, appendix C"""
    h = bare
    u = h.open(2)
    h.sendto(u, b"1", h.their, 7)
    expect_question(h)
    assert states(h) == {h.their: "INCOMPLETE"}
    answer(h)
    h.expect_packet()
    assert states(h) == {h.their: "REACHABLE"}
    h.at("46s")
    assert states(h) == {h.their: "STALE"}
    h.sendto(u, b"2", h.their, 7)
    h.expect_packet()
    assert states(h) == {h.their: "DELAY"}
    h.at("51s")
    expect_question(h, unicast=True)
    assert states(h) == {h.their: "PROBE"}
    h.at("54s")
    assert len(h.frames()) == 2
    assert states(h) == {h.their: "FAILED"}


def test_progress_of_tcp_confirms(h):
    """RFC 4861 7.3.1: an acknowledgement of something new shows that both directions work; nobody is asked."""
    p, c = h.connected()
    h.at("46s")
    assert states(h)[h.their] == "STALE"
    h.send(c, b"x")
    p.expect("PA", seq=1, ack=1, data=b"x")
    assert states(h)[h.their] == "DELAY"
    p.rx("A", seq=1, ack=2)
    h.send(c, b"y")
    p.expect("PA", seq=2, ack=1, data=b"y")
    assert states(h)[h.their] == "REACHABLE"
    p.rx("A", seq=1, ack=3)
    h.at("60s").expect_nothing()
    h.abort(c)
    p.expect("R", seq=3)


def test_a_conversation_asks_nobody(h):
    """RFC 4861 7.3.1: as long as it goes on, its neighbour stays REACHABLE."""
    p, c = h.connected()
    for i in range(1, 20):
        h.at(f"{10 * i}s")
        assert states(h)[h.their] == "REACHABLE"
        h.send(c, b"x")
        p.expect("PA", seq=i, ack=1, data=b"x")
        p.rx("A", seq=1, ack=i + 1)
        h.expect_nothing()
    h.abort(c)
    p.expect("R", seq=20)


def test_a_duplicate_acknowledgement_confirms_nothing(h):
    """RFC 4861 7.3.1: only what is new shows that what we send arrives."""
    p, c = h.connected()
    h.send(c, b"x")
    p.expect("PA", seq=1, ack=1, data=b"x")
    p.rx("A", seq=1, ack=2)
    h.at("46s")
    h.send(c, b"y")
    p.expect("PA", seq=2, ack=1, data=b"y")
    p.rx("A", seq=1, ack=2)
    assert states(h)[h.their] == "DELAY"
    h.abort(c)
    p.expect("R", seq=3)


def test_an_advertisement_without_a_link_address_confirms_what_is_known(harness):
    """RFC 4861 7.2.5, 4.4: it may be left out in an answer to a unicast question."""
    h = harness(6, neighbours=False)
    u = h.open(2)
    ask_us(h)
    h.expect_packet()
    h.sendto(u, b"1", h.their, 7)
    h.expect_packet()
    h.at("5s")
    expect_question(h, unicast=True)
    h.inject(Ether(src=PEER_MAC, dst=OUR_MAC) / IPv6(src=h.their, dst=h.ours, hlim=255) / ICMPv6ND_NA(tgt=h.their, S=1))
    assert states(h) == {h.their: "REACHABLE"}


def test_an_advertisement_without_a_link_address_answers_no_first_question(harness):
    """RFC 4861 7.2.5: INCOMPLETE, and no target link-layer address: discard."""
    h = harness(6, neighbours=False)
    u = h.open(2)
    h.sendto(u, b"1", h.their, 7)
    expect_question(h)
    h.inject(Ether(src=PEER_MAC, dst=OUR_MAC) / IPv6(src=h.their, dst=h.ours, hlim=255) / ICMPv6ND_NA(tgt=h.their, S=1))
    h.expect_nothing()
    assert states(h) == {h.their: "INCOMPLETE"}


def test_unsolicited_and_the_same_leaves_the_state(harness):
    """RFC 4861 7.2.5: STALE only if the link address changed."""
    h = harness(6, neighbours=False)
    u = h.open(2)
    h.sendto(u, b"1", h.their, 7)
    expect_question(h)
    answer(h)
    h.expect_packet()
    answer(h, solicited=False)
    assert states(h) == {h.their: "REACHABLE"}
    answer(h, NEW_MAC, solicited=False)
    assert states(h) == {h.their: "STALE"}


def test_the_random_factor(harness, family):
    """RFC 4861 6.3.2: 0.5 to 1.5 of 30 s, another for each."""
    lasted = set()
    for seed in range(6):
        h = harness(family, neighbours=False, seed=seed)
        u = h.open(2)
        h.sendto(u, b"1", h.their, 7)
        expect_question(h)
        answer(h)
        h.expect_packet()
        second = 0
        while states(h)[h.their] == "REACHABLE":
            second += 1
            h.at(f"{second}s")
        lasted.add(second)
    assert all(15 <= second <= 45 for second in lasted)
    assert len(lasted) >= 3


def test_junk_does_not_push_out_who_we_talk_with(bare):
    """RFC 6583 4, 7.1: a scan of empty addresses, and a flood of claims, cost the neighbour in use nothing."""
    h = bare
    u = h.open(2)
    h.sendto(u, b"1", h.their, 7)
    expect_question(h)
    answer(h)
    h.expect_packet()
    for i in range(1000):
        h.sendto(u, b"scan", f"10.0.0.{i % 200 + 20}" if h.family == 4 else f"fd00::1:{i:x}", 7)
        if h.family == 4:
            ask_us(h, psrc=f"10.0.{i // 250}.{i % 250 + 1}" if i // 250 else f"10.0.9.{i + 1}", hwsrc=NEW_MAC)
        else:
            ns = ICMPv6ND_NS(tgt=h.ours) / ICMPv6NDOptSrcLLAddr(lladdr=NEW_MAC)
            h.inject(IPv6(src=f"fd00::2:{i:x}", dst=SOLICITED, hlim=255) / ns)
        if i % 100 == 0:
            h.frames()
    h.frames()
    assert states(h)[h.their] == "REACHABLE"
    rows = h.interface.neighbours()
    assert len(rows) <= 512
    assert sum(n.state == "INCOMPLETE" for n in rows) <= 128
    h.sendto(u, b"2", h.their, 7)
    assert h.expect_packet().dst == PEER_MAC
    h.at("4s").frames()


def test_unanswered_questions_get_a_quarter_of_the_table(bare):
    """RFC 6583 7.1: even while there is room; the oldest goes."""
    h = bare
    u = h.open(2)
    for i in range(200):
        h.sendto(u, b"scan", f"10.0.0.{i + 20}" if h.family == 4 else f"fd00::1:{i:x}", 7)
    h.frames()
    rows = h.interface.neighbours()
    assert [n.state for n in rows] == ["INCOMPLETE"] * 128
    newest = "10.0.0.219" if h.family == 4 else "fd00::1:c7"
    assert newest in {n.address for n in rows}
    h.at("4s").frames()


def test_what_waits_is_bounded_over_all(harness):
    """RFC 6583 7.1: packets too."""
    h = harness(6, neighbours=False)
    u = h.open(2)
    for i in range(100):
        for _ in range(20):
            h.sendto(u, b"x" * 1000, f"fd00::1:{i:x}", 7)
    h.frames()
    assert sum(n.held for n in h.interface.neighbours()) == 1024
    h.at("3s").frames()
    assert h.stack.memory()["buffers"] == 0
    assert h.counted("NeighFailed") == 2000


def test_a_full_table_of_neighbours_in_use_refuses(harness):
    """Nobody in use is given up for a newcomer; what is sent to it is dropped and counted."""
    h = harness(6, neighbours=True)
    u = h.open(2)
    for i in range(512):
        h.sendto(u, b"x", f"fd00::1:{i:x}", 7)
        h.frames()
    assert len(h.interface.neighbours()) == 512
    h.sendto(u, b"x", "fd00::2:1", 7)
    h.expect_nothing()
    assert h.counted("NeighTableFull") == 1
    h.at("31s")
    h.sendto(u, b"x", "fd00::2:1", 7)
    assert UDP in h.expect_packet()
