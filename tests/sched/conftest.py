"""Reactors of every kind, and a probe: a poller with a channel, in C, built on demand against sched/'s own headers."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cffi
import pytest

from libos._native import ffi as native
from libos.clock import MonotonicClock
from libos.errors import HostError
from libos.sched.reactor import Reactor

if TYPE_CHECKING:  # it imports from here
    from .host_sockets import HostSockets, Pair

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("io_uring", "io_uring-before_6.12", "io_uring-before_6.1", "epoll")  # that host sockets know


@pytest.fixture(scope="session")
def probe_module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The extension module of probe.c. It works on reactors of libos._native, whose state is all in their structs."""
    folder = tmp_path_factory.mktemp("probe")
    ffi = cffi.FFI()
    ffi.cdef((ROOT / "tests/sched/probe.h").read_text())
    ffi.set_source(
        "libos_test_probe",
        '#include <stdint.h>\n#include "tests/sched/probe.h"\n',
        sources=[str(ROOT / "tests/sched/probe.c"), *map(str, sorted((ROOT / "sched").glob("*.c")))],
        include_dirs=[str(ROOT)],
        libraries=["dl"],
        extra_compile_args=["-std=gnu11", "-O1", "-g", "-fvisibility=hidden"],
    )
    library = ffi.compile(tmpdir=str(folder))
    spec = importlib.util.spec_from_file_location("libos_test_probe", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("libos_test_probe", None)


@pytest.fixture(params=["io_uring", "epoll", "io_uring-spinning", "io_uring-before_6.7"])
def reactor(request: pytest.FixtureRequest) -> Iterator[Reactor]:
    kind, _, special = request.param.partition("-")
    try:
        reactor = Reactor(kind, clock=MonotonicClock(10**15), spin_us=200 if special == "spinning" else 0)
    except HostError as error:
        pytest.skip(str(error))
    if special == "before_6.7":
        module = request.getfixturevalue("probe_module")
        module.lib.probe_without_multishot(cast(module.ffi, reactor))
    yield reactor
    reactor.close()


class Probe:
    """A poller on ``reactor``, with a channel on ``fd`` unless that is -1."""

    def __init__(
        self, module: Any, reactor: Reactor, fd: int = -1, *, depth: int = 16, buffers: int = 512, size: int = 2048
    ) -> None:
        self.ffi, self.lib = module.ffi, module.lib
        out = self.ffi.new("struct probe **")
        number = self.lib.probe_new(out, cast(self.ffi, reactor), fd, depth, buffers, size)
        assert number > 0, number
        self.base = number << 40
        self._handle = out[0]
        self._frame = self.ffi.new("uint8_t[]", 65536)

    def send(self, data: bytes, pieces: int = 1) -> int:
        return int(self.lib.probe_send(self._handle, data, len(data), pieces))

    def send_in_run(self, frames: int) -> None:
        self.lib.probe_send_in_run(self._handle, frames)

    def take(self) -> list[bytes]:
        frames = []
        while (n := self.lib.probe_take(self._handle, self._frame, 65536)) >= 0:
            frames.append(bytes(self.ffi.buffer(self._frame, n)))
        return frames

    def grant(self, buffers: int) -> None:
        self.lib.probe_grant(self._handle, buffers)

    def deadline(self, at: int) -> None:
        self.lib.probe_deadline(self._handle, at)

    def raise_events(self, events: int) -> None:
        self.lib.probe_raise(self._handle, events)

    def event_on_frame(self) -> None:
        self.lib.probe_event_on_frame(self._handle, 1)

    @property
    def counts(self) -> Any:
        out = self.ffi.new("struct probe_counts *")
        self.lib.probe_counts(self._handle, out)
        return out

    def close(self) -> None:
        self.lib.probe_close(self._handle)

    def free(self) -> None:
        self.lib.probe_close(self._handle)
        counts = self.counts
        self.lib.probe_free(self._handle)
        assert counts.out == 0
        assert counts.unanswered == 0


def cast(ffi: Any, reactor: Reactor) -> Any:
    return ffi.cast("struct reactor *", int(native.cast("uintptr_t", reactor.handle)))


@pytest.fixture
def new_probe(reactor: Reactor, probe_module: Any) -> Iterator[Callable[..., Probe]]:
    probes: list[Probe] = []

    def new(*args: Any, **options: Any) -> Probe:
        probes.append(Probe(probe_module, reactor, *args, **options))
        return probes[-1]

    yield new
    for probe in probes:
        probe.free()


# --- sockets of the host (host_sockets.py) ---------------------------------------------------------------------------


@pytest.fixture(params=KINDS)
def sockets(request: pytest.FixtureRequest, probe_module: Any) -> Iterator[HostSockets]:
    """On every kind of reactor."""
    from .host_sockets import sockets_of

    with sockets_of(request.param, probe_module) as sockets:
        yield sockets


@pytest.fixture(params=["io_uring", "io_uring-before_6.12"])
def ring(request: pytest.FixtureRequest, probe_module: Any) -> Iterator[HostSockets]:
    """Where sockets are read and written by requests."""
    from .host_sockets import sockets_of

    with sockets_of(request.param, probe_module) as sockets:
        yield sockets


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    from .host_sockets import tcp_pair

    ours, far = tcp_pair() if request.param == "tcp" else socket.socketpair()
    ours.setblocking(False)
    far.setblocking(False)
    with contextlib.closing(ours), contextlib.closing(far):
        yield ours, far
