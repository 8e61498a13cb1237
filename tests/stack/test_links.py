"""Links: the pair, and the wrappers that write down what passes and that make a wire bad."""

from __future__ import annotations

import os
import socket

import pytest
from scapy.layers.inet import TCP
from scapy.utils import rdpcap

from libos._native import ffi, lib
from libos.net.link.impairment import Impairment
from libos.net.stack import Link, Stack, pack_address
from libos.rand import Rng

from .harness import START
from .packets import payload_of
from .wire import Wire

MS = 10**6
WIRES = {
    "good": None,
    "slow": Impairment(delay=20 * MS, jitter=5 * MS, seed=1),
    "narrow": Impairment(rate=20_000_000, delay=5 * MS, queue=30, seed=1),
    "lossy": Impairment(loss=0.02, seed=1),
    "very-lossy": Impairment(loss=0.1, delay=2 * MS, seed=1),
    "twice": Impairment(duplicate=0.2, delay=MS, seed=1),
    "mixed-up": Impairment(reorder=0.1, delay=5 * MS, jitter=3 * MS, seed=1),
    "damaged": Impairment(corrupt=0.02, delay=MS, seed=1),
    "all": Impairment(loss=0.02, delay=5 * MS, reorder=0.05, duplicate=0.01, corrupt=0.005, seed=1),
}


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
@pytest.mark.parametrize("name", WIRES)
@pytest.mark.parametrize("caps", [0, Link.ALL], ids=["plain", "offload"])
def test_transfer(name, caps, family):
    """Both ways at once over wires of all kinds: what comes is what was sent, and nothing is kept."""
    wire = Wire(how=WIRES[name], caps=caps, mtu=1500)
    sent, got = wire.transfer(200_000, family)
    assert sent == got
    wire.finish()


def test_a_bad_wire_is_the_same_each_time():
    def run():
        wire = Wire(how=WIRES["all"], mtu=1500)
        wire.transfer(100_000, 4)
        found = (wire.now, wire.a.counters(), wire.b.counters())
        wire.close()
        return found

    assert run() == run()


def count_through(how, n=300):
    """Which of n datagrams come through and when (ns after they were sent), and the wrapper's counters."""
    wire = Wire(how=how, mtu=1500)
    out = lib.sock_open(wire.a.handle, socket.SOCK_DGRAM, socket.AF_INET)
    into = lib.sock_open(wire.b.handle, socket.SOCK_DGRAM, socket.AF_INET)
    lib.sock_bind(wire.b.handle, into, pack_address("0.0.0.0"), 7)
    name = ffi.new("struct sock_name *", {"addr": pack_address("10.0.0.2"), "port": 7})
    buf = ffi.new("uint8_t[]", 64)
    while not (wire.a.counters()["UdpOutDatagrams"] and wire.b.counters()["UdpInDatagrams"]):
        lib.sock_sendto(wire.a.handle, out, b"hello", 5, name, ffi.NULL)  # until the neighbours know each other
        wire.jump(wire.run(), 10 * MS)
    for _ in range(10):
        wire.jump(wire.run(), 10 * MS)
    wire.run()  # a stack's time is that of its last run
    while lib.sock_recv(wire.b.handle, into, buf, 64) > 0:
        pass
    dropped, begin, got = wire.link.stats()["tx_dropped"], wire.now, []
    for i in range(n):
        lib.sock_sendto(wire.a.handle, out, b"%04d" % i, 4, name, ffi.NULL)
    while wire.now < begin + 10**9:
        due = wire.run()
        while lib.sock_recv(wire.b.handle, into, buf, 64) > 0:
            got.append((int(bytes(ffi.buffer(buf, 4))), wire.now - begin))
        wire.jump(due)
    dropped = wire.link.stats()["tx_dropped"] - dropped
    wire.close()
    return got, dropped


def test_loss():
    got, _ = count_through(Impairment(loss=0.3, seed=3))
    assert 170 < len(got) < 250


def test_duplication():
    got, _ = count_through(Impairment(duplicate=0.5, seed=3, queue=1000))
    assert 410 < len(got) < 490
    assert len(set(got)) == 300


def test_damage_is_found_out():
    got, _ = count_through(Impairment(corrupt=1.0, seed=3))
    assert len(got) < 60  # the sums find it, but where it is in Ethernet's source address


def test_delay_keeps_order():
    got, _ = count_through(Impairment(delay=10 * MS, seed=3))
    assert [i for i, _ in got] == list(range(300))
    assert {t for _, t in got} == {10 * MS}


def test_jitter_and_reordering_do_not():
    for how in (Impairment(delay=10 * MS, jitter=MS, seed=3), Impairment(delay=10 * MS, reorder=0.1, seed=3)):
        got, _ = count_through(how)
        assert sorted(i for i, _ in got) == list(range(300))
        assert [i for i, _ in got] != list(range(300))
        assert all(t < 11 * MS for _, t in got)


def test_rate():
    """46 bytes of frame each: 300 of them take 110.4 ms at 1 Mbit/s."""
    got, _ = count_through(Impairment(rate=1_000_000, seed=3))
    assert len(got) == 300
    assert got[-1][1] == 300 * 46 * 8 * 1000


def test_a_full_queue_drops_and_counts():
    got, dropped = count_through(Impairment(delay=10 * MS, queue=100, seed=3))
    assert len(got) == 100
    assert dropped == 200


def test_pcap(tmp_path):
    """Both ways, with their times, as scapy reads them"""
    path = tmp_path / "out.pcap"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    epoch = 1_700_000_000 * 10**9
    wire = Wire(wrap=lambda link: link.with_pcap(fd, epoch), mtu=1500, caps=0)
    sent, got = wire.transfer(20_000, 4)
    assert sent == got
    end = wire.now
    wire.close()
    packets = rdpcap(str(path))
    tcp = [p for p in packets if TCP in p]
    syn = next(p for p in tcp if str(p[TCP].flags) == "S")
    to_b = [p for p in tcp if p[TCP].dport == 80]
    assert sum(len(payload_of(p[TCP])) for p in to_b) == 20_000
    assert sum(len(payload_of(p[TCP])) for p in tcp if p[TCP].sport == 80) == 20_000
    assert float(syn.time) * 10**9 == pytest.approx(epoch + START, abs=1000)
    times = [float(p.time) for p in packets]
    assert times == sorted(times)
    assert times[-1] * 10**9 <= epoch + end + 1000
    assert all(p.wirelen == len(p) for p in packets)


def test_pcap_cuts_at_snaplen(tmp_path):
    path = tmp_path / "out.pcap"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    wire = Wire(wrap=lambda link: link.with_pcap(fd, 0, snaplen=60), mtu=1500, caps=0)
    wire.transfer(20_000, 4)
    wire.close()
    packets = rdpcap(str(path))
    assert max(len(p) for p in packets) == 60
    assert max(p.wirelen for p in packets) == 1514


def test_pcap_into_a_pipe_that_nobody_reads():
    """Dropped and counted, never waited for; the traffic goes on."""
    r, w = os.pipe()
    os.set_blocking(w, False)
    wire = Wire(wrap=lambda link: link.with_pcap(w, 0), mtu=1500, caps=0)
    sent, got = wire.transfer(3_000_000, 4)
    assert sent == got
    assert wire.link.stats()["rx_dropped"] > 0
    wire.close()
    os.close(r)


def test_both_wrappers(tmp_path):
    fd = os.open(tmp_path / "out.pcap", os.O_WRONLY | os.O_CREAT)
    wire = Wire(how=WIRES["all"], wrap=lambda link: link.with_pcap(fd, 0), mtu=1500)
    sent, got = wire.transfer(50_000, 6)
    assert sent == got
    wire.finish()


def test_one_end_goes_first():
    """A pulled cable: the other stays, and what it sends is dropped."""
    wire = Wire()
    wire.transfer(1000, 4)
    wire.b.close()
    for _ in range(50):
        wire.jump(wire.a.run(wire.now))
    wire.a.close()


def test_an_unused_link_frees_itself():
    a, b = Link.pair(Rng(1))
    a.with_impairment(Impairment(), Rng(1)).close()
    b.close()
    Link.manual(Rng(1)).close()


def test_more_links_than_fit():
    stack = Stack(Rng(1), START)
    links = [Link.manual(Rng(i)) for i in range(8)]
    for link in links[:7]:
        stack.add_link(link)
    with pytest.raises(OSError, match="No buffer space"):
        stack.add_link(links[7])
    links[7].close()
    stack.close()


def test_more_addresses_than_fit():
    stack = Stack(Rng(1), START)
    index = stack.add_link(Link.manual(Rng(1)))
    for i in range(15):
        stack.add_address(index, f"10.0.{i}.1/24")
    with pytest.raises(OSError, match="No buffer space"):
        stack.add_address(index, "10.0.99.1/24")
    with pytest.raises(FileExistsError):
        stack.add_address(index, "10.0.0.1/16")
    with pytest.raises(OSError, match="No such device"):
        stack.add_address(9, "10.0.0.1/16")
    with pytest.raises(OSError, match="Invalid argument"):
        stack.add_address(index, "224.0.0.1/4")
    stack.close()
