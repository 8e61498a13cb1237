"""Where a program on libos meets real peers: a network namespace, with servers in it and one machine.

A Site is the far end of the machine's TAP. Servers are the distribution's, on the kernel's sockets, bound to all
addresses; the program is an asyncio program that knows nothing of libos, started by `libos run` as users do, in one of
the WORLDS. Nothing can leave the namespace and nothing outlives the site: each process is reaped by close(), and dies
with us if we are killed. Ports are fixed, for there is nobody else in the namespace.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from libos.net.link.netns import Namespace

HERE = Path(__file__).parent
NAME = "server.test"
PATIENCE = 30.0  # seconds for what takes one when nobody disturbs
TAP4, TAP6 = "10.0.3.15", "fd00:6c69:626f:74::15"  # a machine's own addresses


class World(NamedTuple):
    """How a program is run, by which name it finds the servers of its site, and where it is found itself."""

    options: tuple[str, ...]
    server: str
    guest: str


WORLDS: Mapping[str, World] = {
    "tap": World(("--net", "tap", "--hosts", f"{NAME}=10.0.3.2,fd00:6c69:626f:74::2"), NAME, TAP4),
    "tap-epoll": World(("--net", "tap", "--reactor", "epoll"), "10.0.3.2", TAP4),
    "user": World(("--net", "user", "--hosts", f"{NAME}=10.0.2.2"), NAME, "127.0.0.1"),
    "host": World(("--net", "host"), "127.0.0.1", "127.0.0.1"),
    "host-epoll": World(("--net", "host", "--reactor", "epoll"), "127.0.0.1", "127.0.0.1"),
}
# With TLS only in two of them, for what differs in the others is below it.
WAYS = [*((world, "plain") for world in WORLDS), ("tap", "tls"), ("host", "tls")]
PACKAGES: Mapping[str, str] = {  # of Debian, by the program that is looked for
    "h2load": "nghttp2-client",
    "ip": "iproute2",
    "nginx": "nginx",
    "postgres": "postgresql",
    "redis-server": "redis-server",
    "setpriv": "util-linux",
    "wrk": "wrk",
}
CERTIFIED = (NAME, "10.0.3.2", TAP4, TAP6, "127.0.0.1")  # what the certificate of this run is for


class Site:
    """The namespace, and the servers that were started in it. ``folder``: for their logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.namespace = Namespace.new()
        self._servers: list[Process] = []
        self._started = 0
        self.outside("ip", "link", "set", "lo", "up")

    def log(self) -> Path:
        self._started += 1
        return self.folder / f"{self._started}.log"

    def serve(self, *command: str | Path, port: int, **options: Any) -> Process:
        """A server that accepts connections on ``port`` of the loopback when this returns. ``options``: of Popen."""
        server = Process(self, command, **options)
        self._servers.append(server)
        self.wait_for(server, "127.0.0.1", port)
        return server

    def wait_for(self, server: Process, address: str, port: int) -> None:
        """Until ``server`` accepts connections there."""
        give_up = time.monotonic() + PATIENCE
        with self.namespace.entered():
            while True:
                with contextlib.suppress(OSError):
                    socket.create_connection((address, port), timeout=1).close()
                    return
                assert server.poll() is None, server.said()
                assert time.monotonic() < give_up, f"nobody listens on {address}:{port}: {server.said()}"
                time.sleep(0.01)

    def outside(self, *command: str | Path) -> str:
        """What ``command`` says on the kernel's side. It must succeed."""
        words = [str(word) for word in command]
        with self.namespace.entered():
            done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def guest(self, world: str, *program: str | Path, options: tuple[str, ...] = ()) -> Iterator[Guest]:
        """``program`` (a file with its arguments, or -m and a module) under `libos run` in ``world``, meanwhile."""
        words = [*WORLDS[world].options, *options, *program]
        guest = Guest(self, [sys.executable, "-m", "libos", "run", *words])
        try:
            yield guest
        finally:
            guest.close()

    def run_cases(
        self, world: str, *program: str | Path, wishes: Mapping[str, Callable[[], object]] = MappingProxyType({})
    ) -> list[str]:
        """Run ``program``, which is made of cases (cases.py): the names of those that passed. All must.

        ``wishes``: what it may ask for meanwhile.
        """
        with self.guest(world, *program) as guest:
            passed = list(guest.cases(wishes))
            assert guest.wait() == 0, f"after {passed}: {guest.said()}"
            for complaint in ("never awaited", "never retrieved", "ResourceWarning"):
                assert complaint not in guest.said(), guest.said()
            return passed

    def close(self) -> None:
        for server in reversed(self._servers):
            server.close()
        self.namespace.close()


class Process:
    """One in the namespace of ``site``. What it says goes to a log."""

    def __init__(self, site: Site, command: Sequence[str | Path], **options: Any) -> None:
        self._log = site.log()
        words = ["setpriv", "--pdeathsig", "KILL", *map(str, command)]
        with self._log.open("wb") as log, site.namespace.entered():
            usual = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "cwd": HERE}
            self._process = subprocess.Popen(words, text=True, **{**usual, **options})
        self.poll = self._process.poll

    def said(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace")

    def wait(self) -> int:
        """Its exit status."""
        return self._process.wait(PATIENCE)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Its exit status, after ``signum``."""
        self._process.send_signal(signum)
        return self.wait()

    def close(self) -> None:
        """Kill and reap it, unless it has ended: it and the processes that it has started, without a chance to say
        goodbye to anybody."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGSTOP)  # it starts no more
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            self._process.kill()
            for pid in map(int, children):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


class Guest(Process):
    """A program on a machine. Its standard input and output are ours; errors go to the log."""

    def __init__(self, site: Site, command: Sequence[str | Path]) -> None:
        super().__init__(site, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def cases(self, wishes: Mapping[str, Callable[[], object]]) -> Iterator[str]:
        """The names of those that passed, until it closes its standard output; killed if that takes too long."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        impatience = threading.Timer(PATIENCE, self._process.kill)
        impatience.start()
        try:
            for said in map(json.loads, stdout):
                if "wish" in said:
                    wishes[said["wish"]]()
                    print(file=stdin, flush=True)
                else:
                    yield said["passed"]
        finally:
            impatience.cancel()
            impatience.join()


def needs(*programs: str, modules: Sequence[str] = ()) -> list[pytest.MarkDecorator]:
    """The marks of a file whose tests need them: skipped, with what is missing and how to get it."""
    places = os.pathsep.join(
        [os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *glob.glob("/usr/lib/postgresql/*/bin")]
    )
    programs = ("ip", "setpriv", *programs)
    packages = [PACKAGES[name] for name in programs if not shutil.which(name, path=places)]
    unknown = [name for name in ("trustme", *modules) if importlib.util.find_spec(name) is None]
    wanted = [f"{tool} install {' '.join(names)}" for tool, names in (("apt-get", packages), ("pip", unknown)) if names]
    return [
        pytest.mark.root,
        pytest.mark.peer,
        pytest.mark.slow,
        pytest.mark.skipif(bool(wanted), reason=f"needs {' and '.join(wanted)}"),
    ]
