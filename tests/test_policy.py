"""libos under uvloop's names."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import subprocess
import sys
import warnings
from collections.abc import Callable, Generator
from typing import Any

import pytest

import libos
from libos.errors import ConfigError, WorldError
from libos.machine import Machine, MachineLoop


async def world() -> str:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, MachineLoop)
    return loop.machine.config.net


@pytest.mark.parametrize("net", ["host", "user"])
def test_run(net: str) -> None:
    assert libos.run(world(), net=net) == net


def test_run_is_on_the_host_unless_told() -> None:
    assert libos.run(world()) == "host"


def test_run_takes_settings_and_names_mistakes() -> None:
    assert libos.run(world(), net="user", mtu=1400, reactor="epoll") == "user"
    with pytest.raises(ConfigError, match="did you mean 'mtu'"):
        libos.run(world(), mtuu=1400)


def test_a_loop_takes_its_machine_with_it() -> None:
    loop = libos.new_event_loop("user")
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    with pytest.raises(WorldError):
        loop.machine.new_event_loop()


def test_a_machine_that_was_given_stays(new_machine: Callable[..., Machine]) -> None:
    machine = new_machine()
    loop = libos.new_event_loop(machine)
    loop.close()
    machine.new_event_loop().close()
    with pytest.raises(TypeError):
        libos.new_event_loop(machine, mtu=1400)


def test_runner() -> None:
    with asyncio.Runner(loop_factory=libos.new_event_loop) as runner:
        assert runner.run(world()) == "host"


def test_policy() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            libos.install("user")
            assert asyncio.run(world()) == "user"
            asyncio.set_event_loop_policy(libos.EventLoopPolicy())
            assert asyncio.run(world()) == "host"
        finally:
            asyncio.set_event_loop_policy(None)


def test_what_uvloop_takes_as_main_this_takes() -> None:
    class Soon:
        def __await__(self) -> Generator[Any, Any, str]:
            return world().__await__()

    assert libos.run(Soon()) == "host"
    with pytest.raises((TypeError, ValueError)):
        libos.run(5)  # type: ignore[arg-type]


def test_run_takes_a_loop_factory_that_makes_loops_of_libos() -> None:
    made: list[asyncio.AbstractEventLoop] = []

    def factory() -> asyncio.AbstractEventLoop:
        made.append(libos.new_event_loop("user"))
        return made[-1]

    assert libos.run(world(), loop_factory=factory) == "user"
    assert len(made) == 1
    assert made[0].is_closed()
    assert libos.run(world(), loop_factory=libos.Loop) == "host"
    with pytest.raises(TypeError, match="no loop of libos"):
        libos.run(world(), loop_factory=asyncio.SelectorEventLoop)
    with pytest.raises(TypeError, match="neither net nor settings"):
        libos.run(world(), loop_factory=libos.new_event_loop, net="user")


def test_run_is_refused_within_a_loop() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
            libos.run(world())

    libos.run(main())
    asyncio.run(main())


def test_run_takes_debug() -> None:
    async def main() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert libos.run(main(), debug=True)
    assert not libos.run(main(), debug=False)


def test_the_class_of_loops() -> None:
    """As uvloop.Loop: what all of them are, and one of them when it is called."""
    with contextlib.closing(libos.Loop()) as loop:
        assert loop.run_until_complete(world()) == "host"
    for net in ("host", "user"):
        with contextlib.closing(libos.new_event_loop(net)) as loop:
            assert isinstance(loop, libos.Loop)


def test_a_loop_that_cannot_be_made_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("socket.socketpair", full)
    for net in ("host", "user"):
        with pytest.raises(OSError, match="Too many"):
            libos.new_event_loop(net)
    with pytest.raises(OSError, match="Too many"):
        libos.Loop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_policy_makes_loops_in_every_thread() -> None:
    try:
        asyncio.set_event_loop_policy(libos.EventLoopPolicy())
        assert asyncio.run(asyncio.to_thread(asyncio.run, world())) == "host"
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            assert isinstance(loop, libos.Loop)
            asyncio.set_event_loop(loop)
            assert asyncio.get_event_loop() is loop
            asyncio.set_event_loop(None)
    finally:
        asyncio.set_event_loop_policy(None)


def test_every_name_is_there() -> None:
    for name in libos.__all__:
        assert getattr(libos, name) is not None
    assert libos.__version__
    assert set(libos.__all__) <= set(dir(libos))
    with pytest.raises(AttributeError, match="no attribute 'Mashine'"):
        libos.Mashine  # noqa: B018


def test_import_is_cheap() -> None:
    code = "import libos, sys; print('asyncio' in sys.modules, 'msgspec' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_loop_on_the_kernels_sockets_imports_little_beyond_asyncio() -> None:
    """What start-up costs is imports; ``libos bench start`` has the figures."""
    code = """
import asyncio, sys
there = set(sys.modules)
import libos
async def main(): pass
libos.run(main(), net="host", reactor="epoll", spin_us="0")
print(*{name.partition(".")[0] for name in set(sys.modules) - there})
print(*(name for name in set(sys.modules) - there if name.startswith("libos.net.")))
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    packages, net = (set(line.split()) for line in done.stdout.splitlines())
    assert packages <= {"libos", "_cffi_backend", "random", "_random", "bisect", "_bisect", "math", "_sha512", "_sha2"}
    assert net == {"libos.net.link", "libos.net.link.impairment"}
