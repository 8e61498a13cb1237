"""CUBIC (RFC 9438), against the formulas of the RFC in floating point."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

import pytest

from .flow import Flow
from .packets import relative

MSS = 1000
C, BETA = 0.4, 0.7


class Model:
    """RFC 9438 4.2 to 4.5, in segments and seconds, as it stands there."""

    def __init__(self, *, start: float, cwnd: float, w_max: float, prior: float) -> None:
        self.start, self.cwnd, self.prior = start, cwnd, prior
        self.w_max, self.k = (w_max, ((w_max - cwnd) / C) ** (1 / 3)) if w_max > cwnd else (cwnd, 0.0)
        self.w_est = cwnd

    def w_cubic(self, t: float) -> float:
        return C * (t - self.k) ** 3 + self.w_max

    def acked(self, now: float, segments: float, rtt: float) -> float:
        t = now - self.start
        alpha = 1.0 if self.w_est >= self.prior else 3 * (1 - BETA) / (1 + BETA)
        self.w_est += alpha * segments / self.cwnd
        if self.w_cubic(t) < self.w_est:
            self.cwnd = max(self.cwnd, self.w_est)
        else:
            target = min(max(self.w_cubic(t + rtt), self.cwnd), 1.5 * self.cwnd)
            self.cwnd += (target - self.cwnd) / self.cwnd * segments
        return self.cwnd


def recovered(flow, loss):
    """Where in the log congestion avoidance begins after the loss of this segment: all that was sent before the window
    was cut is acknowledged, and the window is at ssthresh."""
    log = flow.log
    hole = flow.sent[loss].seq
    ends = [1 + n for n in accumulate(p.acked for p in log)]
    again = next(n for n, s in enumerate(flow.sent) if s.seq == hole and n > loss)
    highest = max(s.seq + s.len for s in flow.sent[:again])
    at = bisect_left(ends, highest)
    while log[at].cwnd < log[at].ssthresh:
        at += 1
    return at + 1


def cut(flow, loss):
    """What cwnd was when this segment was missed."""
    hole = flow.sent[loss].seq
    ends = [1 + n for n in accumulate(p.acked for p in flow.log)]
    return flow.log[bisect_left(ends, hole) if hole > 1 else 0].cwnd


def compare(flow, at, model, rtt, tolerance=1.0):
    """From that point of the log on, the stack's window is the model's. How many acknowledgements were compared."""
    for point in flow.log[at:]:
        wanted = model.acked(point.time / 1e9, point.acked / MSS, rtt)
        assert abs(point.cwnd / MSS - wanted) <= tolerance, f"at {point.time / 1e9}: {point.cwnd}, not {wanted}"
    return len(flow.log) - at


def after_loss(flow, loss, w_max=None):
    """The model of what follows that loss."""
    at, before = recovered(flow, loss), cut(flow, loss) / MSS
    start = flow.log[at]
    return at, Model(
        start=start.time / 1e9,
        cwnd=flow.log[at - 1].cwnd / MSS,
        w_max=before if w_max is None else w_max(before),
        prior=before,
    )


def test_the_curve(harness):
    """RFC 9438 4.2, 4.4, 4.5: concave up to W_max in K seconds, flat there, then convex"""
    f = Flow(harness(queue=65536), rtt="100ms", lose={100})
    f.run("8s")
    at, model = after_loss(f, 100)
    assert 3 < model.k < 6
    assert compare(f, at, model, 0.1) > 2000
    grown = {t: next(p.cwnd for p in f.log[at:] if p.time / 1e9 >= model.start + t) / MSS for t in (0.0, model.k)}
    assert grown[0.0] == pytest.approx(BETA * model.w_max, abs=3)
    assert grown[model.k] == pytest.approx(model.w_max, abs=1.5)
    assert f.log[-1].cwnd / MSS > model.w_max + 1
    f.finish()


def test_never_slower_than_new_reno(harness):
    """RFC 9438 4.3: on short paths W_est leads, with alpha 9/17 up to cwnd_prior and 1 from there"""
    f = Flow(harness(queue=65536), rtt="10ms", lose={100})
    f.run("900ms")
    at, model = after_loss(f, 100)
    compare(f, at, model, 0.01)
    assert model.w_cubic(0.6) < model.w_est
    assert model.w_est > model.prior  # both values of alpha were used
    f.finish()


def test_the_decrease(harness):
    """RFC 9438 4.6: beta is 0.7, of what is in flight"""
    h = harness()
    p, c = h.established()
    h.send(c, b"x" * 50_000)
    assert len(h.frames()) == 10
    for _ in range(3):
        p.rx("A", ack=1)
    h.frames()
    assert h.info(c).ssthresh == 12_000 * 7 // 10  # limited transmit had let two more go
    p.rx("A", ack=12_001)
    h.frames()


def test_the_decrease_has_a_floor(h):
    """RFC 9438 4.6: ssthresh is two segments at least"""
    p, c = h.established(TCP_NODELAY=1)
    h.send(c, b"x" * 1500)
    assert len(h.frames()) == 2
    h.after("300ms")
    assert h.info(c).ssthresh == 2000
    h.frames()
    p.rx("A", ack=1501)


def test_fast_convergence(harness):
    """RFC 9438 4.7: a loss below the last W_max leaves room to who is new: W_max is (1 + beta)/2 of the window"""
    f = Flow(harness(queue=65536), rtt="50ms", lose={200, 900})
    f.run("3s")
    first, second = cut(f, 200), cut(f, 900)
    assert second < first
    at, model = after_loss(f, 900, lambda cwnd: cwnd * (1 + BETA) / 2)
    assert compare(f, at, model, 0.05) > 300
    f.finish()


def test_no_fast_convergence_above(harness):
    """RFC 9438 4.7: a loss above the last W_max is the new one"""
    f = Flow(harness(queue=65536), rtt="20ms", lose={60, 6000})
    f.run("3500ms")
    assert cut(f, 6000) > cut(f, 60)
    at, model = after_loss(f, 6000)
    assert compare(f, at, model, 0.02) > 200
    f.finish()


def test_after_a_timeout(harness):
    """RFC 9438 4.8: slow start to ssthresh, then K is 0 and W_max the window at which that ended"""
    f = Flow(harness(queue=65536), rtt="100ms", outage=("500ms", "900ms"))
    f.run("6s")
    lowest = min(range(len(f.log)), key=lambda i: f.log[i].cwnd)
    at = next(i for i in range(lowest, len(f.log)) if f.log[i].cwnd >= f.log[i].ssthresh) + 1
    cwnd = f.log[at - 1].cwnd / MSS
    assert f.h.counted("TcpExtTCPTimeouts") > 0
    assert cwnd == f.log[at].ssthresh / MSS
    model = Model(start=f.log[at].time / 1e9, cwnd=cwnd, w_max=cwnd, prior=2 * cwnd)
    assert compare(f, at, model, 0.1) > 500
    f.finish()


def test_a_spurious_timeout(harness):
    """RFC 9438 4.9.1: what looked lost was late: the curve goes on where it was, with its W_max and K"""

    def late(now):
        return 10**9 if 2_400_000_000 <= now < 2_500_000_000 else 10**8

    f = Flow(harness(queue=65536), rtt=late, lose={100})
    f.run("6s")
    _, model = after_loss(f, 100)
    assert f.h.counted("TcpExtTCPSpuriousRTOs") == 1
    assert f.h.counted("TcpExtTCPTimeouts") > 0
    assert f.log[-1].ssthresh == next(p.ssthresh for p in f.log if p.time > 1_500_000_000)
    assert f.log[-1].cwnd / MSS == pytest.approx(model.w_cubic(f.now / 1e9 - model.start), abs=1.5)
    f.finish()


def test_what_is_not_used_does_not_grow(harness):
    """RFC 9438 5.8: the curve stands still while the application does not fill the window"""
    f = Flow(harness(queue=65536), rtt="100ms", lose={100})
    f.run("3s")
    f.run("300ms", writing=False)
    for wave in range(70):
        f.write(5000)
        f.run("100ms", writing=False)
        if wave == 20:  # what was queued is out
            before = f.windows()[0]
    assert f.windows()[0] == before
    at = len(f.log)
    f.run("1s")
    rates = [b.cwnd - a.cwnd for a, b in zip(f.log[at:], f.log[at + 1 :], strict=False)]
    assert min(rates) >= 0
    assert max(rates) < MSS / 2  # in five seconds the curve would have gone far up
    assert f.windows()[0] < before * 1.1
    f.finish()


def test_after_idling(harness):
    """RFC 5681 4.1, RFC 7661 4.4.2: from the initial window, in slow start to three quarters of what it was"""
    f = Flow(harness(queue=65536), rtt="50ms", lose={100})
    f.run("3s")
    f.run("1s", writing=False)  # what is queued
    before = f.windows()[0]
    f.run("3s", writing=False)
    f.run("1ms")
    assert f.windows() == (10 * MSS, max(before // 4 * 3, f.log[-1].ssthresh))
    f.run("300ms")
    assert f.windows()[0] > before // 2
    f.finish()


def test_one_ack_opens_no_burst(harness):
    """RFC 3465 2.2, RFC 9406 4.2: without pacing an ACK opens the window by eight segments at most; CUBIC paces"""
    for name, wanted in (("reno", 18 * MSS), ("cubic", 20 * MSS)):
        with_name = harness(congestion=name)
        p, c = with_name.established()
        with_name.send(c, b"x" * 50_000)
        assert len(with_name.frames()) == 10
        p.rx("A", ack=10_001)
        assert with_name.info(c).cwnd == wanted
        sent = with_name.frames()
        assert relative(sent[-1].packet.payload.payload.seq, p.iss) + MSS == 10_001 + wanted
