"""The switch: who gets a frame, what it knows of whom, its bounds; and stacks that talk over it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from libos.net.link.impairment import Impairment
from libos.net.link.switch import Switch
from libos.net.link.wire import Wire
from libos.net.stack import Link, Stack
from libos.rand import Rng

from .harness import START
from .net import Between

S = 10**9
ALL = b"\xff" * 6
GROUP = bytes.fromhex("01005e000001")
BRIDGES = bytes.fromhex("0180c2000000")


def mac(n: int) -> bytes:
    return bytes([2, 0, 0, 0, n >> 8, n & 255])


class ByHand:
    """A switch with a wire on each port, at whose other end frames are moved by hand."""

    def __init__(self, ports: int, *, used: int | None = None, **switch: int) -> None:
        self.rng, self.now = Rng(1), START
        self.switch = Switch(self.rng, ports, **switch)
        self.ends: list[Link] = []
        self.wires: list[Wire] = []
        for _ in range(ports if used is None else used):
            self.plug()

    def plug(self, **port: int) -> int:
        end, (number, link) = Link.manual(self.rng), self.switch.plug(**port)
        self.ends.append(end)
        self.wires.append(Wire(end, link, Impairment(), Impairment(), rng=self.rng, memory=1 << 20))
        return number

    def send(self, port: int, dst: bytes, src: bytes, size: int = 60) -> list[int]:
        """A frame goes in; the ports that it comes out of, whole."""
        frame = dst + src + b"\x88\xb5" + bytes(n % 251 for n in range(size - 14))
        self.ends[port].inject(frame, self.now)
        for _ in range(2):
            for wire in self.wires:
                wire.run(self.now)
        got = [[data for data, _ in end.drain()] for end in self.ends]
        assert all(each in ([], [frame]) for each in got)
        return [n for n, each in enumerate(got) if each]

    def close(self) -> None:
        self.switch.close()
        for wire in self.wires:
            wire.close()


@pytest.fixture
def by_hand() -> Iterator[type[ByHand]]:
    made: list[ByHand] = []

    class Made(ByHand):
        def __init__(self, *args: int, **more: int) -> None:
            super().__init__(*args, **more)
            made.append(self)

    yield Made
    for each in made:
        each.close()


def test_it_learns(by_hand):
    net = by_hand(4)
    assert net.send(0, mac(2), mac(1)) == [1, 2, 3]
    assert net.send(1, mac(1), mac(2)) == [0]
    assert net.send(0, mac(2), mac(1)) == [1]
    assert net.send(2, mac(1), mac(3)) == [0]
    assert [net.switch.port_of(mac(n), net.now) for n in range(1, 5)] == [0, 1, 2, None]
    assert net.switch.stats(0)["flooded"] == 1


@pytest.mark.parametrize("to", [ALL, GROUP], ids=["broadcast", "multicast"])
def test_groups_go_to_all_others(by_hand, to):
    net = by_hand(5)
    net.send(1, mac(9), mac(1))
    assert net.send(3, to, mac(3)) == [0, 1, 2, 4]


def test_never_back_to_where_it_came_from(by_hand):
    """Two stations on one port have heard each other."""
    net = by_hand(3)
    net.send(0, ALL, mac(1))
    assert net.send(0, mac(1), mac(2)) == []
    assert net.send(0, mac(1), mac(1)) == []
    assert net.switch.stats(0)["filtered"] == 2


def test_a_station_that_moves(by_hand):
    net = by_hand(3)
    net.send(0, ALL, mac(1))
    net.send(2, ALL, mac(1))
    assert net.send(1, mac(1), mac(2)) == [2]


def test_what_was_not_heard_for_long_is_forgotten(by_hand):
    net = by_hand(3, ageing=10 * S)
    net.send(0, ALL, mac(1))
    net.now += 10 * S - 1
    assert net.send(1, mac(1), mac(2)) == [0]
    net.now += 1
    assert net.send(1, mac(1), mac(2)) == [0, 2]
    net.send(0, ALL, mac(1))
    assert net.send(1, mac(1), mac(2)) == [0]
    assert net.switch.evicted == 0


def test_what_is_for_bridges_goes_nowhere(by_hand):
    net = by_hand(2)
    assert net.send(0, BRIDGES, mac(1)) == []
    assert net.send(0, BRIDGES[:5] + b"\x0f", mac(1)) == []
    assert net.send(0, BRIDGES[:5] + b"\x10", mac(1)) == [1]


def test_a_group_is_nobodys_place(by_hand):
    """A source that cannot be one teaches nothing."""
    net = by_hand(3)
    net.send(0, ALL, GROUP)
    assert net.send(1, GROUP, mac(2)) == [0, 2]
    net.send(0, ALL, ALL)
    assert net.switch.port_of(ALL, net.now) is None


def test_frames_that_are_no_frames(by_hand):
    net = by_hand(2)
    for size in range(1, 14):
        net.ends[0].inject(bytes(size), net.now)
    net.wires[0].run(net.now)
    net.wires[1].run(net.now)
    assert net.ends[1].drain() == []
    assert net.switch.stats(0)["filtered"] == 13


def test_the_table_is_bounded(by_hand):
    """A flood of sources evicts, and is counted; what is not known goes everywhere, as before."""
    net = by_hand(3, stations=16)
    for n in range(200):
        assert net.send(0, ALL, mac(n)) == [1, 2]
        net.now += 1
    known = [n for n in range(200) if net.switch.port_of(mac(n), net.now) is not None]
    assert len(known) == 16
    assert min(known) > 100
    assert net.switch.evicted == 184
    assert net.send(1, mac(0), mac(500)) == [0, 2]


def test_the_table_is_the_seeds(by_hand):
    def known(seed):
        net = by_hand(2, used=0, stations=16)
        net.switch.close()
        net.switch = Switch(Rng(seed), 2, stations=16)
        net.plug()
        net.plug()
        for n in range(100):
            net.send(0, ALL, mac(n))
        return [n for n in range(100) if net.switch.port_of(mac(n), net.now) is not None]

    assert known(1) == known(1)
    assert known(1) != known(2)


def test_a_frame_too_large_for_a_port(by_hand):
    net = by_hand(3, used=2)
    net.plug(mtu=576)
    assert net.send(0, ALL, mac(1), size=1514) == [1]
    assert net.send(0, ALL, mac(1), size=576 + 18) == [1, 2]
    assert net.switch.stats(2)["dropped"] == 1


def test_a_full_queue(by_hand):
    net = by_hand(2, used=1)
    port = net.plug(queue=5)
    for _ in range(8):
        net.ends[0].inject(ALL + mac(1) + bytes(50), net.now)
    net.wires[0].run(net.now)
    assert net.switch.stats(port)["dropped"] == 3
    assert net.switch.stats(port)["out_packets"] == 5


def test_counters(by_hand):
    net = by_hand(3)
    net.send(0, ALL, mac(1), size=100)
    net.send(1, mac(1), mac(2), size=60)
    stats = [net.switch.stats(n) for n in range(3)]
    assert [(s["in_packets"], s["in_bytes"], s["out_packets"], s["out_bytes"]) for s in stats] == [
        (1, 100, 1, 60),
        (1, 60, 1, 100),
        (0, 0, 1, 100),
    ]


def test_ports_come_and_go(by_hand):
    """A vacant port gets nothing, its stations are forgotten; the next one to plug gets it."""
    net = by_hand(3)
    net.send(1, ALL, mac(2))
    with pytest.raises(OSError, match="No space left"):
        net.switch.plug()
    net.wires[1].close()
    assert net.switch.port_of(mac(2), net.now) is None
    net.ends[1] = Link.manual(Rng(1))
    number, link = net.switch.plug()
    assert number == 1
    net.wires[1] = Wire(net.ends[1], link, Impairment(), Impairment(), rng=net.rng)
    assert net.send(0, mac(2), mac(1)) == [1, 2]


def test_a_partition_is_one_way_and_ends(by_hand):
    net = by_hand(3)
    assert net.send(1, ALL, mac(1)) == [0, 2]
    net.switch.block(0, 1)
    assert net.send(0, ALL, mac(0)) == [2]
    assert net.send(0, mac(1), mac(0)) == []
    assert net.send(1, mac(0), mac(1)) == [0]
    assert net.switch.stats(1)["blocked"] == 2
    net.switch.block(0, 1, False)
    assert net.send(0, mac(1), mac(0)) == [1]


def test_who_is_plugged_in_later_is_not_cut_off(by_hand):
    net = by_hand(3)
    net.switch.block(0, 1)
    net.switch.block(1, 2)
    net.wires.pop(1).close()
    net.ends.pop(1)
    assert net.plug() == 1  # the last in our lists
    assert net.send(0, ALL, mac(0)) == [1, 2]
    assert net.send(2, ALL, mac(1)) == [0, 1]
    for ports in ((0, 3), (3, 0)):
        with pytest.raises(OSError, match="ports"):
            net.switch.block(*ports)


def test_it_stays_for_its_ports():
    rng = Rng(1)
    switch = Switch(rng, 2)
    (_, a), (_, b) = switch.plug(), switch.plug()
    switch.close()
    switch.close()
    a.close()
    b.close()


def test_what_makes_no_switch():
    for ports, stations in ((0, 16), (65537, 16), (4, 0)):
        with pytest.raises(OSError, match="Invalid argument"):
            Switch(Rng(1), ports, stations=stations)


# --- with stacks -----------------------------------------------------------------------------------------------------


class Switched(Between):
    """``a`` and ``b`` and others on one switch."""

    def __init__(self, caps_a: int, caps_b: int, others: int = 3) -> None:
        super().__init__()
        self.switch = Switch(self.rng, 2 + others)
        self.between = [Stack(self.rng, self.now) for _ in range(others)]
        self.server = {4: "10.0.0.2", 6: "fd00::2"}
        for n, stack in enumerate((self.a, self.b, *self.between), 1):
            _, link = self.switch.plug(caps=(caps_a, caps_b)[n - 1] if n < 3 else 0)
            index = stack.add_link(link)
            stack.add_address(index, f"10.0.0.{n}/24")
            stack.add_address(index, f"fd00::{n}/64")


@pytest.mark.parametrize("caps_b", [0, Link.ALL], ids=["plain", "segments"])
@pytest.mark.parametrize("caps_a", [0, Link.ALL], ids=["plain", "segments"])
def test_stacks_of_all_abilities(caps_a, caps_b, family):
    net = Switched(caps_a, caps_b)
    sent, got = net.transfer(300_000, family)
    assert sent == got
    assert all(net.switch.stats(n)["dropped"] == 0 for n in range(5))
    assert net.switch.stats(4)["out_packets"] < 30  # groups, and no more
    net.switch.close()
    net.finish()
