"""Channels: frames through a packet socket pair, whose one end the test holds, and through a TAP."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from libos.sched.reactor import EV_READ, Reactor

MS = 1_000_000


@pytest.fixture(params=["SOCK_SEQPACKET", "SOCK_DGRAM"])
def wire(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, far = socket.socketpair(socket.AF_UNIX, getattr(socket, request.param))
    ours.setblocking(False)
    far.setblocking(False)
    with contextlib.closing(ours), contextlib.closing(far):
        yield ours, far


Wire = tuple[socket.socket, socket.socket]
NewProbe = Callable[..., Any]


def drain(sock: socket.socket) -> list[bytes]:
    frames = []
    with contextlib.suppress(BlockingIOError):
        while True:
            frames.append(sock.recv(65536))
    return frames


def test_a_frame_has_left_when_the_turn_is_over(reactor: Reactor, new_probe: NewProbe, wire: Wire) -> None:
    probe = new_probe(wire[0].fileno())
    probe.send_in_run(3)
    reactor.turn(0)
    assert drain(wire[1]) == [b"x"] * 3
    reactor.turn(0)
    assert (probe.counts.sent, probe.counts.unanswered) == (3, 0)


def test_output_and_waiting_are_one(reactor: Reactor, new_probe: NewProbe, wire: Wire) -> None:
    probe = new_probe(wire[0].fileno())
    reactor.turn(MS)
    before = reactor.statistics()["blocked"]
    for _ in range(10):
        probe.send_in_run(3)
        reactor.turn(MS)
        assert drain(wire[1]) == [b"x"] * 3
    assert reactor.statistics()["blocked"] - before <= 10
    assert probe.counts.sent >= 27


@pytest.mark.parametrize("pieces", [1, 2, 36])
def test_the_pieces_of_a_frame_are_one(reactor: Reactor, new_probe: NewProbe, wire: Wire, pieces: int) -> None:
    probe = new_probe(wire[0].fileno())
    frame = bytes(range(250)) * 6
    assert probe.send(frame, pieces) == 0
    assert probe.send(frame, 37) == -errno.EINVAL
    reactor.turn(0)
    assert drain(wire[1]) == [frame]


def test_frames_come_whole_and_in_order(reactor: Reactor, new_probe: NewProbe, wire: Wire) -> None:
    probe = new_probe(wire[0].fileno(), depth=8)
    sent = 0
    got: list[int] = []
    for burst in (1, 5, 8, 9, 100, 1, 30):
        for _ in range(burst):
            wire[1].send(str(sent).encode())
            sent += 1
        while len(got) < sent:
            reactor.turn(MS)
            got += [int(frame) for frame in probe.take()]
    assert got == list(range(sent))


def test_a_frame_reaches_python_before_any_output(reactor: Reactor, new_probe: NewProbe, wire: Wire) -> None:
    probe = new_probe(wire[0].fileno())
    probe.event_on_frame()
    seen: list[int] = []
    reactor.sinks[probe.base | 7] = seen.append
    reactor.turn(0)
    wire[1].send(b"question")
    runs = probe.counts.runs
    while not seen:
        reactor.turn(100 * MS)
    assert seen == [EV_READ]
    # However often it went round before: after the frame came, run() was not called.
    probe.send(b"answer")
    assert drain(wire[1]) in ([], [b"answer"])
    assert probe.counts.runs >= runs
    reactor.turn(0)


def test_too_many_frames_are_refused_and_asked_for_again(reactor: Reactor, new_probe: NewProbe, wire: Wire) -> None:
    probe = new_probe(wire[0].fileno())
    taken = 0
    while (rc := probe.send(b"x")) == 0:
        taken += 1
        assert taken < 10_000
    assert rc == -errno.ENOBUFS
    probe.send_in_run(100)
    for _ in range(5):
        drain(wire[1])
        reactor.turn(0)
    counts = probe.counts
    assert counts.unanswered == 0
    assert counts.sent + counts.lost == taken + 100
    assert counts.sent > 0


def test_without_buffers_frames_wait(reactor: Reactor, new_probe: NewProbe, wire: Wire) -> None:
    probe = new_probe(wire[0].fileno(), depth=4, buffers=4)
    for i in range(10):
        wire[1].send(bytes([i]))
    got: list[bytes] = []
    for _ in range(20):
        reactor.turn(MS)
    assert probe.counts.pending_frames == 4
    probe.grant(0)
    got += probe.take()
    before = reactor.statistics()["blocked"]
    reactor.turn(20 * MS)
    assert reactor.statistics()["blocked"] - before < 40  # now and then it asks the owner again
    assert probe.take() == []
    probe.grant(4)
    while len(got) < 10:
        reactor.turn(MS)
        got += probe.take()
    assert got == [bytes([i]) for i in range(10)]


def test_a_peer_that_is_gone_does_not_keep_the_turn_busy(reactor: Reactor, new_probe: NewProbe) -> None:
    ours, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    probe = new_probe(ours.fileno())
    reactor.turn(0)
    far.close()
    before = reactor.statistics()["blocked"]
    reactor.turn(50 * MS)
    assert reactor.statistics()["blocked"] - before < 15
    assert probe.send(b"x") == 0
    reactor.turn(0)
    reactor.turn(0)
    assert probe.counts.lost == 1
    probe.close()
    ours.close()


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_closing_takes_everything_back(reactor: Reactor, new_probe: NewProbe, wire: Wire, turns: int) -> None:
    probe = new_probe(wire[0].fileno(), depth=16)
    for _ in range(turns):
        reactor.turn(0)
    for _ in range(5):
        wire[1].send(b"late")
        probe.send(b"unsent")
    probe.close()
    counts = probe.counts
    assert counts.out == 0
    assert counts.unanswered == 0
    assert counts.sent + counts.lost == 5
    # A ring keeps no file open: the far end sees ours close.
    wire[0].close()
    with pytest.raises((BrokenPipeError, ConnectionRefusedError, ConnectionResetError)):
        wire[1].send(b"x")


def test_two_channels_are_apart(reactor: Reactor, new_probe: NewProbe) -> None:
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(5)]
    for ours, _ in pairs:
        ours.setblocking(False)
    probes = [new_probe(ours.fileno()) for ours, _ in pairs]
    for closing in range(5):
        for i, (_, far) in enumerate(pairs[closing:], closing):
            far.send(b"to %d" % i)
            probes[i].send(b"from %d" % i)
        got: dict[int, list[bytes]] = {}
        while len(got) < 5 - closing:
            reactor.turn(MS)
            got |= {i: frames for i in range(closing, 5) if (frames := probes[i].take())}
        assert got == {i: [b"to %d" % i] for i in range(closing, 5)}
        for i, (_, far) in enumerate(pairs[closing:], closing):
            assert far.recv(100) == b"from %d" % i
        probes[closing].close()
    for ours, far in pairs:
        ours.close()
        far.close()


def test_another_thread_takes_over_with_the_channel(reactor: Reactor, new_probe: NewProbe, wire: Wire) -> None:
    probe = new_probe(wire[0].fileno())
    for i in range(4):
        probe.send(b"hello")
        thread = threading.Thread(target=reactor.turn, args=(0,))
        thread.start() if i % 2 else reactor.turn(0)
        if i % 2:
            thread.join()
        wire[1].send(b"x")
        frames: list[bytes] = []
        while not frames:
            reactor.turn(MS)
            frames = probe.take()
        assert frames == [b"x"]
    assert b"hello" in drain(wire[1])
    thread = threading.Thread(target=probe.close)
    thread.start()
    thread.join()
    assert probe.counts.out == 0


def test_descriptors_and_frames_wake_it_alike(reactor: Reactor, new_probe: NewProbe, wire: Wire) -> None:
    probe = new_probe(wire[0].fileno())
    probe.event_on_frame()
    seen: list[str] = []
    reactor.sinks[probe.base | 7] = lambda mask: seen.append("frame")
    ours, far = socket.socketpair()
    reactor.watch(ours.fileno(), EV_READ, lambda mask: seen.append("descriptor"))
    reactor.turn(0)
    for _ in range(3):
        far.send(b"x")
        reactor.turn(100 * MS)
        assert seen == ["descriptor"]
        ours.recv(10)
        seen.clear()
        wire[1].send(b"x")
        while not seen:
            reactor.turn(100 * MS)
        assert seen == ["frame"]
        seen.clear()
    ours.close()
    far.close()


TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 2, 0x1000


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="a TAP needs root")
@pytest.mark.skipif(shutil.which("ip") is None, reason="needs iproute2")
def test_a_tap(reactor: Reactor, new_probe: NewProbe) -> None:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    answer = fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"libos-t%d", IFF_TAP | IFF_NO_PI))
    name = answer[:16].rstrip(b"\0").decode()
    device = Path("/sys/class/net", name)
    subprocess.run(["ip", "addr", "add", "198.18.251.1/30", "dev", name], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    mac = bytes.fromhex(device.joinpath("address").read_text().strip().replace(":", ""))
    us, us_ip, host_ip = bytes.fromhex("020000000002"), bytes([198, 18, 251, 2]), bytes([198, 18, 251, 1])
    arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + us + us_ip + bytes(6) + host_ip
    probe = new_probe(fd)
    frames: list[bytes] = []
    while not any(frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2" for frame in frames):
        probe.send(b"\xff" * 6 + us + b"\x08\x06" + arp, pieces=2)
        reactor.turn(100 * MS)
        frames += probe.take()
    assert any(frame[22:28] == mac for frame in frames)
    probe.close()
    os.close(fd)
    assert not device.exists()
