"""TIME-WAIT: who may cut it short (RFC 6191, RFC 9293 3.6.1), who may not (RFC 1337), and how many there may be."""

from __future__ import annotations

import pytest

from .harness import fails


def time_wait(h, *, ts=None, listener=None, **options):
    """We closed first; the peer's last timestamp was ``ts``."""
    p, c = h.established(listener, ts=ts, **options)
    h.free(c)
    p.expect("FA", seq=1)
    p.rx("FA", seq=1, ack=2)
    p.expect("A", ack=2)
    assert "TIME-WAIT" in h.states()
    return p


def ours(h, *, ts=None, local_port=5000):
    """As :func:`time_wait`, but it was us who had opened it."""
    p, c = h.connected(ts=ts, local_port=local_port)
    h.free(c)
    p.expect("FA")
    p.rx("FA")
    p.expect("A")
    return p


# --- a peer's SYN ---


@pytest.mark.parametrize(
    ("before", "now", "seq", "taken"),
    [
        (100, 101, -5000, True),  # a newer timestamp: whatever the number
        (100, 101, 100_000, True),
        (100, 100, 100_000, True),  # the same timestamp: the number decides
        (100, 100, -5000, False),
        (100, 99, -5000, False),  # an older one
        (100, 99, 100_000, False),
        (100, None, 100_000, True),  # none any more: the number decides
        (100, None, -5000, False),
        (None, 7, -5000, True),  # none before: an old SYN would have none
        (None, None, 100_000, True),
        (None, None, -5000, False),
        (None, None, 2, False),  # the FIN took that number
    ],
)
def test_rfc6191_section_2(h, before, now, seq, taken):
    """RFC 6191 2, RFC 9293 SHLD-4: which SYN ends a TIME-WAIT. What is not taken is asked back (RFC 5961 4.2)."""
    listener = h.listen(80)
    p = time_wait(h, listener=listener, ts=before)
    old = p.iss
    p.ts = None
    p.rx("S", seq=seq, ts=None if now is None else (now, 0))
    if taken:
        tcp = p.expect("SA")
        assert 0 < (tcp.seq - old) % 2**32 < 2**31
        assert h.states() == ["LISTEN", "SYN-RECEIVED"]
    else:
        if before is None or now is not None:  # without the timestamps agreed on it is dropped (RFC 7323 3.2)
            p.expect("A", seq=2, ack=2)
        assert h.states() == ["LISTEN", "TIME-WAIT"]


@pytest.mark.parametrize("flags", ["SF", "SR", "SA"])
def test_only_a_bare_syn_reopens(h, flags):
    listener = h.listen(80)
    p = time_wait(h, listener=listener)
    p.rx(flags, seq=100_000, ack=2)
    assert "TIME-WAIT" in h.states()
    h.frames()


@pytest.mark.parametrize("flags", ["R", "RA"])
def test_rfc1337_section_3_f1(h, flags):
    """RFC 1337 3, F1: a RST does not end it, not even with the exact number"""
    p = time_wait(h)
    p.rx(flags, seq=2, ack=2)
    assert h.states() == ["TIME-WAIT"]
    h.at("59s")
    assert h.states() == ["TIME-WAIT"]
    h.at("60s")
    assert h.states() == []


def test_rfc1337_section_2_1(h):
    """RFC 1337 2.1, H1: old data is acknowledged; the peer's RST to that is what must not hurt."""
    p = time_wait(h)
    p.rx("PA", seq=-500, data=b"old")
    tcp = p.expect("A", seq=2, ack=2)
    p.rx("R", seq=tcp.ack - p.isn)
    assert h.states() == ["TIME-WAIT"]


# --- our own ---


def test_rfc6191_for_our_own_open(h):
    """RFC 6191 4: with timestamps, and a second later, we may open it again; our numbers and timestamps go on."""
    p = ours(h, ts=100)
    old, last = p.iss, p.ts_echo
    again = h.open()
    h.set(again, SO_REUSEADDR=1)
    h.bind(again, 5000)
    h.at("999ms")
    with fails("EADDRINUSE"):
        h.connect_again(again, 80)
    h.at("1s")
    h.connect_again(again, 80)
    new = h.peer(port=80, to=5000)
    tcp = new.expect("S")
    assert 0 < (tcp.seq - old) % 2**32 < 2**31
    assert 0 < (new.ts_echo - last) % 2**32 < 2**31
    assert h.states() == ["SYN-SENT"]
    assert h.counted("TcpExtTWRecycled") == 1


def test_not_without_timestamps(h):
    ours(h)
    h.at("30s")
    again = h.open()
    h.set(again, SO_REUSEADDR=1)
    h.bind(again, 5000)
    with fails("EADDRINUSE"):
        h.connect_again(again, 80)


def test_the_last_resort_when_no_port_is_free(harness, family):
    """Ephemeral ports: free ones first; when all are in TIME-WAIT, one of those that may be."""
    h = harness(family, mtu=1280)
    h.meet()
    ports = range(32768, 61000)
    for port in ports[:-1]:  # all but one are in use, by sockets of nobody's
        c = h.open()
        h.bind(c, port, h.ours)
    p = ours(h, ts=100, local_port=ports[-1])
    with fails("EADDRNOTAVAIL"):
        h.connect(80)
    h.at("1s")
    c = h.connect(80)
    assert h.info(c).local[1] == ports[-1]
    p.expect("S")
    assert h.counted("TcpExtTWRecycled") == 1
