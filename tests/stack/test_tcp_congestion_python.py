"""Congestion control in Python (libos.net.congestion), and choosing it by name (tcp(7), TCP_CONGESTION)."""

from __future__ import annotations

import logging
import runpy
import socket
from pathlib import Path

import pytest

from libos._native import ffi, lib
from libos.errors import check
from libos.net.congestion import Answer
from libos.net.stack import Link

from .flow import Flow
from .harness import START, fails

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
MSS = 1000


class Recorder:
    """Notes what it is told, and answers what the test wants."""

    def __init__(self, answer=lambda r: None):
        self.rounds, self.answer = [], answer

    def __call__(self):
        return self

    def on_round(self, r):
        self.rounds.append(r)
        return self.answer(r)


def registered(harness, controller, *, beta=0.7, **options):
    h = harness(queue=65536, **options)
    h.stack.register_congestion_control("test", controller, beta=beta)
    h.stack.set_congestion_control("test")
    return h


def get(h, id, cap=16):
    raw = ffi.new("char[]", cap)
    n = check(lib.sock_getsockopt(h.handle, id, socket.IPPROTO_TCP, socket.TCP_CONGESTION, raw, cap))
    return bytes(ffi.buffer(raw, n))


def set_(h, id, name):
    check(lib.sock_setsockopt(h.handle, id, socket.IPPROTO_TCP, socket.TCP_CONGESTION, name, len(name)))


# --- by name ---


def test_the_default_is_cubic(h):
    c = h.open()
    assert get(h, c) == b"cubic".ljust(16, b"\0")
    assert get(h, c, 3) == b"cub"
    assert h.stack.congestion_controls() == ["cubic", "reno"]


def test_another_default(harness):
    """RFC 9293 MAY-18"""
    h = harness(congestion="reno")
    assert get(h, h.open()).rstrip(b"\0") == b"reno"
    h.stack.set_congestion_control("cubic")
    assert get(h, h.open()).rstrip(b"\0") == b"cubic"


def test_an_unknown_one(harness):
    """tcp(7): ENOENT; what was chosen stays"""
    with fails("ENOENT"):
        harness(congestion="bbr")
    h = harness()
    c = h.open()
    for name in (b"bbr", b"", b"cubicc", b"x" * 40):
        with fails("ENOENT"):
            set_(h, c, name)
    assert get(h, c).rstrip(b"\0") == b"cubic"
    with fails("EINVAL"):
        check(lib.sock_getopt(h.handle, c, socket.IPPROTO_TCP, socket.TCP_CONGESTION))


def test_children_have_their_listeners(h):
    listener = h.listen(80)
    set_(h, listener, b"reno\0")
    _, c = h.established(listener)
    assert get(h, c).rstrip(b"\0") == b"reno"


def test_in_the_middle_of_a_connection(harness):
    """The window stays, for the path is the same; what the old one knew is forgotten"""
    h = harness(queue=65536)
    f = Flow(h, lose={100})
    f.run("1s")
    before = f.windows()
    for name in (b"reno", b"cubic", b"reno"):
        set_(h, f.id, name)
        assert f.windows() == before
    f.run("1s")
    assert 8 * MSS <= f.windows()[0] - before[0] <= 12 * MSS  # New Reno: a segment for each of ten round trips
    f.finish()


# --- in Python ---


def test_names_that_are_none(h):
    for name in ("", "has space", "x" * 16):
        with fails("EINVAL"):
            h.stack.register_congestion_control(name, Recorder())
    with fails("EINVAL"):
        h.stack.register_congestion_control("fine", Recorder(), beta=1.1)
    with fails("EEXIST"):
        h.stack.register_congestion_control("cubic", Recorder())
    for i in range(16):
        h.stack.register_congestion_control(f"c{i}", Recorder())
    with fails("ENOSPC"):
        h.stack.register_congestion_control("c16", Recorder())
    assert h.stack.congestion_controls() == ["cubic", "reno", *(f"c{i}" for i in range(16))]


def test_asked_once_for_each_round_trip(harness):
    controller = Recorder()
    f = Flow(registered(harness, controller), rtt="100ms")
    f.run("1s")
    rounds = controller.rounds
    assert 8 <= len(rounds) <= 11
    first = rounds[0]
    assert (first.mss, first.slow_start, first.limited, first.lost) == (MSS, True, True, False)
    assert first.rtt_min == 100_000_000
    acked = sum(p.acked for p in f.log[1:] if p.time <= rounds[-1].now - START)
    assert sum(r.acked for r in rounds) == acked
    for r in rounds[1:]:
        assert 100_000_000 <= r.duration <= 110_000_000
        assert r.delivery_rate == r.acked * 10**9 // r.duration
    assert rounds[3].cwnd == pytest.approx(2 * rounds[2].cwnd, rel=0.1)  # slow start is C's
    f.finish()


def test_a_window_for_an_answer(harness):
    """The first ends slow start, and what is under way follows"""
    f = Flow(registered(harness, Recorder(lambda r: Answer(cwnd=30_000))), rtt="100ms")
    f.run("2s")
    assert f.windows() == (30_000, 30_000)
    last = [s for s in f.sent if s.time > f.now - 100_000_000]
    assert len(last) == 30
    f.finish()


@pytest.mark.parametrize(("asked", "given"), [(0, 2000), (1, 2000), (2**40, 2**30), (-5, 2000)])
def test_windows_within_reason(harness, asked, given):
    f = Flow(registered(harness, Recorder(lambda r: Answer(cwnd=asked) if r.slow_start else None)), rtt="50ms")
    f.run("150ms")
    assert f.windows()[0] == given
    f.finish()


def test_a_pace_for_an_answer(harness):
    """And no window: it grows as it does. The pace holds even where the link takes bursts"""
    for caps in (0, Link.TSO | Link.CSUM):
        f = Flow(registered(harness, Recorder(lambda r: Answer(pacing_rate=100_000)), caps=caps), rtt="50ms")
        f.run("2s")
        begin = f.now
        f.run("5s")
        got = sum(s.len for s in f.sent if s.time >= begin)
        assert got == pytest.approx(500_000, rel=0.02)
        f.finish()


def test_c_answers_a_loss_by_itself(harness):
    """By beta, and at once; the controller hears of it, and what it says meanwhile of the window counts for nothing"""
    controller = Recorder(lambda r: Answer(cwnd=40_000) if r.slow_start else None)
    f = Flow(registered(harness, controller, beta=0.5), rtt="100ms", lose={200})
    f.run("2s")
    assert f.windows()[1] == pytest.approx(20_000, abs=2 * MSS)
    assert f.windows()[0] == pytest.approx(20_000, abs=2 * MSS)
    (told,) = [r for r in controller.rounds if r.lost]
    assert told.retransmits == 1
    f.finish()


def test_no_window_while_losses_are_mended(harness):
    """An answer to what was before a loss must not undo the decrease"""
    h = registered(harness, Recorder(lambda r: Answer(cwnd=40_000) if r.slow_start else None))
    f = Flow(h, rtt="100ms", lose={200})
    while not h.info(f.id).retransmits:
        f.run("5ms")
    before = f.windows()
    check(lib.stack_cong_answer(h.handle, f.id, 80_000, 0))
    assert f.windows() == before
    f.run("300ms")
    check(lib.stack_cong_answer(h.handle, f.id, 80_000, 0))
    assert f.windows() == (80_000, 80_000)
    f.finish()


def test_an_answer_for_nobody(h):
    c = h.open()
    for id, error in ((c, "EINVAL"), (c + 1, "EBADF"), (-1, "EBADF"), (0, "EBADF"), (2**62, "EBADF")):
        with fails(error):
            check(lib.stack_cong_answer(h.handle, id, 1000, 0))


def test_c_answers_a_mark_by_itself(harness):
    controller = Recorder(lambda r: Answer(cwnd=40_000) if r.slow_start else None)
    f = Flow(registered(harness, controller, ecn=1), rtt="100ms", ecn=True, mark={200})
    f.run("2s")
    assert f.windows()[0] == pytest.approx(28_000, abs=2 * MSS)
    assert [r.marked for r in controller.rounds].count(True) == 1
    assert not any(r.lost or r.retransmits for r in controller.rounds)
    f.finish()


def test_c_answers_a_timeout_by_itself(harness):
    controller = Recorder(lambda r: Answer(cwnd=40_000) if r.slow_start else None)
    f = Flow(registered(harness, controller), rtt="100ms", outage=("1s", "1500ms"))
    f.run("4s")
    assert any(r.timeout for r in controller.rounds)
    f.finish()


def test_one_that_raises_is_replaced(harness, caplog):
    """CUBIC goes on, for that connection; it is said once"""

    def fail(r):
        raise ZeroDivisionError("of no account")

    h = registered(harness, Recorder(fail))
    f = Flow(h, rtt="100ms")
    with caplog.at_level(logging.ERROR):
        f.run("1s")
    assert [r.exc_info[0] for r in caplog.records] == [ZeroDivisionError]
    assert get(h, f.id).rstrip(b"\0") == b"cubic"
    assert len(h.stack.controllers) == 0
    assert f.windows()[0] > 100_000
    f.finish()


def test_each_connection_has_its_own_until_it_ends(harness):
    made = []

    def factory():
        made.append(Recorder())
        return made[-1]

    h = registered(harness, factory)
    f = Flow(h, rtt="100ms")
    f.run("500ms")
    p, c = h.established(mss=MSS)
    h.send(c, b"x" * 5000)
    h.frames()
    h.after("10ms")
    p.rx("A", ack=5001)
    h.events()
    h.send(c, b"x" * 5000)
    h.frames()
    h.after("10ms")
    p.rx("A", ack=10_001)
    h.events()
    assert len(made) == len(h.stack.controllers) == 2
    h.abort(c)
    h.frames()
    h.events()
    assert len(h.stack.controllers) == 1
    f.finish()
    h.events()
    assert len(h.stack.controllers) == 0


def test_an_orphan_is_asked_about_still(harness):
    """What was closed has yet to be sent, at a rate that someone must say"""
    controller = Recorder(lambda r: Answer(cwnd=20_000))
    h = registered(harness, controller)
    f = Flow(h, rtt="100ms")
    f.run("500ms")
    check(lib.sock_free(h.handle, f.id))
    before = len(controller.rounds)
    f.run("2s", writing=False)
    assert len(controller.rounds) >= before + 15
    h.owned.remove(f.id)
    f.run("5s", writing=False)
    h.frames()


def test_nobody_asks(harness):
    """Events that nobody takes: the connection goes on in slow start, and a report waits. Then it is closed: no leak"""
    h = registered(harness, Recorder())
    f = Flow(h, rtt="100ms", events=False)
    f.run("1s")
    assert f.windows()[0] > 100_000
    f.finish()


def test_the_same_each_time(harness):
    """Driven by hand it is a function of what arrives when"""

    def once():
        controller = Recorder(lambda r: Answer(cwnd=r.cwnd + (MSS if r.rtt_last < 60_000_000 else -2 * MSS)))
        f = Flow(registered(harness, controller), rtt="50ms", rate=1_000_000, queue=100_000, lose={300, 700})
        f.run("5s")
        rounds, log, sent = controller.rounds, f.log, f.sent
        f.finish()
        return rounds, log, sent

    assert once() == once()


def test_the_example(harness):
    """A controller that watches the delay: the path is full, and its queue nearly empty"""
    example = runpy.run_path(str(EXAMPLES / "congestion.py"))
    f = Flow(registered(harness, example["Delay"], sndbuf=4 << 20), rtt="50ms", rate=2_500_000)
    f.run("4s")
    last = [s for s in f.sent if s.time > f.now - 500_000_000]
    assert sum(s.len for s in last) == pytest.approx(2_500_000 / 2, rel=0.1)
    assert 50_000_000 < f.h.info(f.id).srtt < 60_000_000
    f.finish()
