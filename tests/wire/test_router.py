"""The kernel on both sides of a router of ours: two namespaces, two TAP devices, one stack between them (root)."""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from libos.clock import MonotonicClock
from libos.net.link.netns import Namespace
from libos.net.link.tap import open_tap
from libos.net.stack import Link, Stack
from libos.rand import Rng
from libos.sched.reactor import Reactor

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not (shutil.which("ping") and shutil.which("ip")), reason="needs ping and ip"),
]
MIB, MS = 1 << 20, 10**6
LEFT, RIGHT = {4: "198.18.6.2", 6: "fd06::2"}, {4: "198.18.7.2", 6: "fd07::2"}
ROUTER = {4: "198.18.6.1", 6: "fd06::1"}
NARROW = 1400


class Router:
    """``left`` - the stack - ``right``, whose link is narrower. Everything is driven by this thread."""

    def __init__(self, undo: contextlib.ExitStack, segments: tuple[bool, bool]) -> None:
        self.reactor = Reactor("auto", clock=MonotonicClock(0))
        undo.callback(self.reactor.close)
        rng = Rng(1)
        self.stack = Stack(rng, self.reactor.now(), forwarding=True)
        undo.callback(self.stack.close)
        self.left, self.right = (undo.enter_context(Namespace.new()) for _ in range(2))
        for side, namespace in enumerate((self.left, self.right)):
            mtu, net4, net6 = (1500, NARROW)[side], f"198.18.{6 + side}", f"fd0{6 + side}:"
            with namespace.entered():
                Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
                addresses = [f"{net4}.2/24", f"{net6}:2/64"]
                tap = open_tap("r0", addresses=addresses, mtu=mtu, segments=segments[side])
                # That it takes large segments is not true: so the path has to be found out.
                self.call("ip", "route", "add", "default", "via", f"{net4}.1", "advmss", "1460")
                self.call("ip", "-6", "route", "add", "default", "via", f"{net6}:1", "advmss", "1440")
            link = Link.tap(self.reactor.handle, tap.fd, rng, mtu=tap.mtu, caps=tap.caps)
            index = self.stack.add_link(link)
            self.stack.add_address(index, f"{net4}.1/24")
            self.stack.add_address(index, f"{net6}:1/64")
        self.reactor.attach(self.stack.poller)
        undo.callback(self.reactor.detach, self.stack.poller)

    @staticmethod
    def call(*command: str) -> None:
        subprocess.run(command, check=True)

    def until(self, done: Callable[[], bool], limit: float = 30) -> None:
        give_up = time.monotonic() + limit
        while not done():
            assert time.monotonic() < give_up, self.stack.counters()
            self.reactor.turn(MS)

    def on_left(self, *command: str) -> str:
        """What a program in the left namespace says."""
        with self.left.entered():
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        with process:
            try:
                self.until(lambda: process.poll() is not None)
                assert process.stdout is not None
                return process.stdout.read()
            finally:
                process.kill()


@contextlib.contextmanager
def joined(*segments: bool) -> Iterator[Router]:
    with contextlib.ExitStack() as undo:
        yield Router(undo, (segments[0], segments[-1]))


def ping(net: Router, family: int, *options: str) -> str:
    return net.on_left("ping", "-n", "-c", "1", "-W", "5", *options, RIGHT[family])


def test_ping_and_hops_and_the_path_mtu():
    with joined(True) as net:
        said = net.on_left("ping", "-n", "-c", "1", "-M", "dont", "-s", "3000", RIGHT[4])  # fragments, to be cut again
        assert "1 received" in said
        for family in (4, 6):
            said = ping(net, family)
            assert "1 received" in said
            assert "ttl=63" in said
            said = ping(net, family, "-t", "1")
            assert re.search(rf"From {ROUTER[family]}:? icmp_seq=1 Time (to live )?exceeded", said), said
            headers = 28 if family == 4 else 48
            said = ping(net, family, "-M", "do", "-s", str(NARROW - headers))
            assert "1 received" in said
            said = ping(net, family, "-M", "do", "-s", str(NARROW - headers + 1))
            assert re.search(rf"From {ROUTER[family]}:? .*mtu ?= ?{NARROW}", said), said
        counters = net.stack.counters()
        assert counters["IpForwDatagrams"] > 8
        assert counters["IpFragOKs"] > 0
        assert counters["IpReasmReqds"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
@pytest.mark.parametrize("segments", [(True, True), (True, False), (False, True)], ids=["whole", "cut", "small"])
def test_ten_mebibytes_each_way(family, segments):
    """Large segments from one kernel to the other, or cut between them; over a path whose MTU has to be found out."""
    data = random.Random(1).randbytes(10 * MIB)
    with joined(*segments) as net, contextlib.ExitStack() as undo:
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        with net.right.entered():
            listener = undo.enter_context(socket.create_server((RIGHT[family], 0), family=kind))
        with net.left.entered():
            a = undo.enter_context(socket.socket(kind))
        for each in (listener, a):
            each.setblocking(False)
        a.connect_ex(listener.getsockname())
        found: list[socket.socket] = []

        def accepted() -> bool:
            with contextlib.suppress(BlockingIOError):
                found.append(undo.enter_context(listener.accept()[0]))
            return bool(found)

        net.until(accepted)
        b = found[0]
        b.setblocking(False)
        sent, got, ended = {a: 0, b: 0}, {a: hashlib.sha256(), b: hashlib.sha256()}, set()

        def moved() -> bool:
            for sock in (a, b):
                with contextlib.suppress(BlockingIOError):
                    while sent[sock] < len(data):
                        sent[sock] += sock.send(memoryview(data)[sent[sock] : sent[sock] + MIB])
                        if sent[sock] == len(data):
                            sock.shutdown(socket.SHUT_WR)
                with contextlib.suppress(BlockingIOError):
                    while sock not in ended:
                        chunk = sock.recv(MIB)
                        got[sock].update(chunk)
                        if not chunk:
                            ended.add(sock)
            return len(ended) == 2

        net.until(moved)
        assert {each.hexdigest() for each in got.values()} == {hashlib.sha256(data).hexdigest()}
        counters = net.stack.counters()
        assert counters["IpFragFails" if family == 4 else "Ip6InTooBigErrors"] > 0
