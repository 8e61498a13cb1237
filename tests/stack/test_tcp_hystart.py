"""HyStart++ (RFC 9406): the first slow start ends when the round trips grow longer, before something is lost."""

from __future__ import annotations

from itertools import pairwise

import pytest

from .flow import Flow
from .harness import ns

MSS = 1000
INFINITE = 1 << 30


def stepped(base, *steps):
    """A round-trip time that is ``base``, and from each (time, value) on that value."""

    def rtt(now):
        value = base
        for at, then in steps:
            if now >= ns(at):
                value = then
        return ns(value)

    return rtt


def cwnd_at(f, time):
    """What the last ACK up to then made of it."""
    return [p.cwnd for p in f.log if p.time <= ns(time)][-1]


def growth(f, start, end):
    return cwnd_at(f, end) / cwnd_at(f, start)


def test_it_doubles_while_the_round_trips_stay(harness):
    """RFC 5681 3.1: nothing has happened"""
    f = Flow(harness(queue=65536), rtt="100ms")
    f.run("750ms")
    assert growth(f, "400ms", "500ms") == pytest.approx(2, rel=0.1)
    assert f.windows()[1] > INFINITE
    f.finish()


def test_it_ends_before_anything_is_lost(harness):
    """RFC 9406 1: where New Reno overruns the queue"""
    path = {"rtt": "50ms", "rate": 2_500_000, "queue": 1_000_000}  # the path itself holds 125 kB
    h = harness(queue=65536, sndbuf=8 << 20)
    f = Flow(h, **path)
    f.run("3s")
    assert (f.dropped, h.info(f.id).retransmits) == (0, 0)
    assert 125_000 < f.windows()[1] < 1_125_000
    sent = sum(s.len for s in f.sent if s.time > f.now - 500_000_000)
    assert sent == pytest.approx(2_500_000 / 2, rel=0.1)  # and the path is full
    f.finish()
    h = harness(queue=65536, sndbuf=8 << 20, congestion="reno")
    f = Flow(h, **path)
    f.run("3s")
    assert f.dropped > 50
    f.finish()


@pytest.mark.parametrize(
    ("base", "later", "ends"),
    [
        ("20ms", "23900us", False),  # MIN_RTT_THRESH is 4 ms
        ("20ms", "24100us", True),
        ("40ms", "44900us", False),  # an eighth
        ("40ms", "45100us", True),
        ("80ms", "89900us", False),
        ("80ms", "90100us", True),
        ("200ms", "215900us", False),  # MAX_RTT_THRESH is 16 ms
        ("200ms", "216100us", True),
    ],
)
def test_how_much_longer(harness, base, later, ends):
    """RFC 9406 4.2: RttThresh is an eighth of the last round's least RTT, between 4 and 16 ms"""
    rtt = ns(base)
    f = Flow(harness(queue=65536), rtt=stepped(base, (f"{3.5 * rtt}ns", later)), delayed=False)
    f.run(int(6.9 * rtt))
    slow = f.log[-1].cwnd / [p.cwnd for p in f.log if p.time <= f.now - ns(later)][-1]
    assert slow == pytest.approx(1.25 if ends else 2, rel=0.12)
    f.finish()


def test_conservative_slow_start(harness):
    """RFC 9406 4.2: five rounds at a quarter of the pace, then ssthresh is cwnd"""
    f = Flow(harness(queue=65536), rtt=stepped("100ms", ("350ms", "130ms")), delayed=False)
    f.run("3s")
    end = next(n for n, p in enumerate(f.log) if p.ssthresh < INFINITE)
    assert f.log[end].ssthresh == f.log[end].cwnd
    gains = [b.cwnd - a.cwnd for a, b in pairwise(f.log[: end + 1])]
    begin = gains.index(MSS // 4)
    assert set(gains[:begin]) == {MSS}
    assert set(gains[begin:]) == {MSS // 4}
    assert 4 < (f.log[end].time - f.log[begin].time) / ns("130ms") < 5.1  # that in which it began counts
    assert f.windows()[0] < f.log[end].cwnd * 1.3  # congestion avoidance
    f.finish()


def test_it_was_jitter(harness):
    """RFC 9406 4.2: the RTT falls back below that at which it began, and slow start goes on, watching"""
    rtt = stepped("100ms", ("350ms", "130ms"), ("480ms", "100ms"), ("1200ms", "130ms"))
    f = Flow(harness(queue=65536, memory=1 << 30, sndbuf=64 << 20), rtt=rtt, mss=1000, delayed=False)
    f.run("900ms")
    assert f.windows()[1] > INFINITE
    assert growth(f, "690ms", "790ms") == pytest.approx(2, rel=0.15)
    f.finish()


def test_eight_samples_make_a_round(harness):
    """RFC 9406 4.3: N_RTT_SAMPLE: a round of fewer decides nothing"""
    rtt = stepped("100ms", ("150ms", "100ms"), ("205ms", "150ms"))
    f = Flow(harness(queue=65536), rtt=rtt)  # an ACK for every second segment: five in the first round, ten in the next
    f.run("560ms")
    first, second = ([p.cwnd for p in f.log if a <= p.time / 1e6 < b] for a, b in ((200, 300), (355, 500)))
    assert (len(first), first[-1]) == (5, 20 * MSS)
    assert second[6] - second[5] == 2 * MSS
    assert second[-1] - second[-2] == MSS // 2
    f.finish()


def test_a_loss_ends_it(harness):
    """RFC 9406 4.2: congestion avoidance, wherever it was"""
    f = Flow(harness(queue=65536), rtt=stepped("100ms", ("350ms", "130ms")), lose={150}, delayed=False)
    f.run("2s")
    windows = {p.ssthresh for p in f.log}
    assert len(windows) == 2
    assert f.windows()[1] == min(windows)
    f.finish()


def test_only_the_first_slow_start(harness):
    """RFC 9406 4.3: later ones know where to stop"""
    rtt = stepped("100ms", ("1600ms", "140ms"))  # while the window doubles again, after a time-out
    f = Flow(harness(queue=65536), rtt=rtt, outage=("350ms", "700ms"), delayed=False)
    f.run("2s")
    again = [p for p in f.log if p.time > ns("1300ms")]
    slow = [(b.cwnd - a.cwnd, b.acked) for a, b in pairwise(again) if b.cwnd < b.ssthresh]
    assert len(slow) > 30
    assert all(gain == acked for gain, acked in slow)
    assert f.windows()[0] >= f.windows()[1]
    f.finish()
