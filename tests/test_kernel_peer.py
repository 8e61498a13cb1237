"""The kernel as the peer: `libos run --net tap` in a network namespace, and the host's own tools beside it.

Each test has a namespace of its own, so that addresses never meet those of the host or of another test, and nothing can
leave: without the TAP there is no route.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
GUEST4, GUEST6 = "10.0.3.15", "fd00:6c69:626f:74::15"
BAD_WIRE = "loss=2%,delay=5ms,reorder=5%,duplicate=1%,seed=1"
MIB = 1 << 20

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not (shutil.which("unshare") and shutil.which("nsenter")), reason="needs unshare and nsenter of util-linux"
    ),
]


class Guest:
    """A program under ``libos run --net tap`` in a new network namespace."""

    def __init__(self, program: str, *options: str) -> None:
        self.process = subprocess.Popen(
            ["unshare", "--net", sys.executable, "-m", "libos", "run", "--net", "tap", *options, EXAMPLES / program],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        self.said: list[str] = []
        impatience = threading.Timer(30, self.process.kill)
        impatience.start()
        try:
            ready = any(self._heard(line) for line in self.process.stdout)
        finally:
            impatience.cancel()
            impatience.join()
        if not ready:
            self.process.wait()
            raise AssertionError("".join(self.said))

    def _heard(self, line: str) -> bool:
        """Note it. Does it say that the program serves now?"""
        self.said.append(line)
        return "Running on" in line or "listening on" in line

    def outside(self, *command: str, input: bytes | None = None, timeout: float = 60) -> bytes:
        """What ``command`` prints when it runs in the namespace, on the kernel's side of the TAP."""
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", *command],
            input=input,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def resident(self) -> int:
        """Bytes of memory that the process has now."""
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGESIZE")

    def stop(self) -> str:
        """Ctrl-C; everything it has said. It must end well."""
        self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, rest
        return "".join(self.said) + rest


@pytest.fixture
def guest() -> Iterator[Callable[..., Guest]]:
    guests: list[Guest] = []

    def start(program: str = "hello_http.py", *options: str) -> Guest:
        guests.append(Guest(program, *options))
        return guests[-1]

    yield start
    for each in guests:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


def body_of(size: int) -> bytes:
    return (bytes(range(256)) * (size // 256 + 1))[:size]


def both_ways(guest: Guest, size: int, timeout: float) -> None:
    """``size`` bytes up and down, by curl; each side's SHA-256 must be the other's."""
    body = body_of(size)
    digest = hashlib.sha256(body).hexdigest()
    url = f"http://{GUEST4}"
    upload = ("curl", "-sS", "-H", "Expect:", "-X", "POST", "-T", "-", f"{url}/digest")
    assert json.loads(guest.outside(*upload, input=body, timeout=timeout)) == {"bytes": size, "sha256": digest}
    down = guest.outside("sh", "-c", f"curl -sS {url}/bytes/{size} | sha256sum", timeout=timeout)
    assert down.split()[0].decode() == digest


@pytest.mark.skipif(not shutil.which("ping"), reason="needs ping")
def test_ping(guest: Callable[..., Guest]) -> None:
    machine = guest()
    for command in (["ping"], ["ping", "-s", "1400"], ["ping", "-6"], ["ping", "-6", "-s", "1400"]):
        target = GUEST6 if "-6" in command else GUEST4
        assert b" 0% packet loss" in machine.outside(*command, "-c", "3", "-i", "0.05", "-W", "2", target)


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_a_page_over_both_families(guest: Callable[..., Guest]) -> None:
    machine = guest()
    assert b"Hello, 10.0.3.2." in machine.outside("curl", "-sS", f"http://{GUEST4}/")
    assert b"Hello, fd00:6c69:626f:74::2." in machine.outside("curl", "-sS", f"http://[{GUEST6}]/")
    assert "retransmissions" in machine.stop()


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_sixteen_mib_each_way(guest: Callable[..., Guest]) -> None:
    both_ways(guest(), 16 * MIB, 60)


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_one_mib_each_way_over_a_bad_wire(guest: Callable[..., Guest]) -> None:
    machine = guest("hello_http.py", "--impair", BAD_WIRE)
    both_ways(machine, MIB, 60)
    retransmissions = re.search(r"retransmissions\W+(\d+)", machine.stop())
    assert retransmissions
    assert int(retransmissions[1]) > 0


ECHO_CLIENT = """
import socket, sys
for host in sys.argv[2:]:
    infos = socket.getaddrinfo(host, int(sys.argv[1]), type=socket.SOCK_DGRAM)
    with socket.socket(infos[0][0], socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        for size in (0, 1, 512, 1400):
            sock.sendto(b"x" * size, infos[0][4])
            assert sock.recv(2000) == b"x" * size, size
print("echoed")
"""


def test_udp_echo_over_both_families(guest: Callable[..., Guest]) -> None:
    machine = guest("echo.py")
    assert machine.outside(sys.executable, "-c", ECHO_CLIENT, "7", GUEST4, GUEST6) == b"echoed\n"


@pytest.mark.skipif(not shutil.which("wrk"), reason="needs wrk")
def test_wrk_without_errors(guest: Callable[..., Guest]) -> None:
    said = guest().outside("wrk", "-t2", "-c64", "-d1s", f"http://{GUEST4}/").decode()
    assert "requests in" in said
    assert "Socket errors" not in said
    assert "Non-2xx" not in said


# --- long ones: make soak --------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_a_gib_each_way_in_flat_memory(guest: Callable[..., Guest]) -> None:
    machine = guest()
    both_ways(machine, 16 * MIB, 60)
    before = machine.resident()
    both_ways(machine, 1024 * MIB, 300)
    assert machine.resident() < before + 16 * MIB


@pytest.mark.soak
def test_twenty_mib_each_way_over_a_bad_wire(guest: Callable[..., Guest]) -> None:
    both_ways(guest("hello_http.py", "--impair", BAD_WIRE), 20 * MIB, 300)


@pytest.mark.soak
def test_wrk_for_ten_seconds(guest: Callable[..., Guest]) -> None:
    said = guest().outside("wrk", "-t2", "-c64", "-d10s", f"http://{GUEST4}/").decode()
    assert "Socket errors" not in said
    assert "Non-2xx" not in said
