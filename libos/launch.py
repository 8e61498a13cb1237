"""Running somebody's program inside a machine, as ``python APP.py`` or ``python -m MODULE`` would.

The program finds a world in which every way that asyncio has to make a loop makes the machine's, ``import uvloop``
finds that loop too, and ``socket.socket`` gives the machine's sockets. All of it is put back afterwards. How the
program ends decides the exit status:

    it returns; Ctrl-C; SIGTERM         0
    it exits                            what it says
    it raises                           1, its traceback without our frames, and one line
    it is not there                     ConfigError
    the machine cannot be booted        LibosError
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import io
import os
import pkgutil
import runpy
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, ModuleType
from typing import TYPE_CHECKING

from libos.errors import AddressError, ConfigError
from libos.machine import Machine, MachineLoop
from libos.policy import EventLoopPolicy

if TYPE_CHECKING:
    from libos.config import MachineConfig

__all__ = ["Program", "attributes_replaced", "launch", "policy_installed"]


class NotFound(ConfigError):
    """There is no such program."""


class Program:
    """What to run: a file or a module, and its arguments."""

    def __init__(self, target: str, args: Sequence[str] = (), *, module: bool = False) -> None:
        self.target = target
        self.args = list(args)
        self.module = module

    def __str__(self) -> str:
        return f"-m {self.target}" if self.module else self.target

    def check(self) -> None:
        """Is the file there, and readable? A module is only looked for in the machine: that may run its package."""
        if not self.module and not os.path.isfile(os.path.join(self.target, "__main__.py")):
            try:
                with open(self.target, "rb"):
                    pass
            except OSError as error:
                raise NotFound(f"cannot open {self.target}: {error.strerror}") from None

    def run(self) -> None:
        """Make ``sys.argv``, ``sys.path[0]`` and ``__main__`` the program's, and run it."""
        sys.argv[:] = [self.target, *self.args]
        if not sys.flags.safe_path:  # then python leaves it alone, and so do we
            sys.path[0] = os.getcwd() if self.module else os.path.dirname(os.path.realpath(self.target))
        if self.module:
            self._find()
            runpy.run_module(self.target, run_name="__main__", alter_sys=True)
        elif pkgutil.get_importer(self.target) is not None:  # a folder or an archive with a __main__
            runpy.run_path(self.target, run_name="__main__")
        else:
            self._run_script(os.path.abspath(self.target))

    @staticmethod
    def _run_script(path: str) -> None:
        main = ModuleType("__main__")
        main.__file__ = path
        sys.modules["__main__"] = main
        with io.open_code(path) as file:
            code = compile(file.read(), path, "exec")
        exec(code, main.__dict__)

    def _find(self) -> None:
        try:
            found = importlib.util.find_spec(self.target)
            if found is not None and found.submodule_search_locations is not None:
                found = importlib.util.find_spec(f"{self.target}.__main__")  # a package runs as its __main__
        except ModuleNotFoundError as error:
            if not f"{self.target}.".startswith(f"{error.name}."):
                raise  # it is there, and lacks something
            found = None
        if found is None:
            raise NotFound(f"no module {self.target} to run (looked in {os.getcwd()} and where python looks)")


def launch(
    program: Program,
    config: MachineConfig,
    *,
    booted: Callable[[Machine], None],
    ended: Callable[[Machine, dict[str, int]], None],
) -> int:
    """Boot a machine, run ``program`` in it, take it down. Returns the exit status.

    ``booted`` is told before the program starts; ``ended``, with the statistics, unless the program failed.
    """
    program.check()
    machine = Machine(config, say=lambda line: print(f"libos: {line}", file=sys.stderr, flush=True))
    failure: BaseException | None = None
    status = 0
    with _signals(), _control(machine, program):
        try:
            machine.wait_for_addresses()
            booted(machine)
            with _world(machine):
                program.run()
        except KeyboardInterrupt:
            pass
        except SystemExit as exit:
            status = _status(exit)
        except (NotFound, AddressError):
            raise
        except BaseException as error:
            failure, status = error, 1
        finally:
            with contextlib.suppress(KeyboardInterrupt):  # impatience cuts the lingering short, not the clean-up
                machine.close()
    sys.stdout.flush()
    if failure is None:
        ended(machine, machine.statistics())
    else:
        _print_failure(program, failure)
    return status


@contextlib.contextmanager
def _control(machine: Machine, program: Program) -> Iterator[None]:
    """Meanwhile `libos ss` finds the machine. A host without a place for the socket is no reason not to run."""
    from libos.control import Control

    control = None
    with contextlib.suppress(OSError):
        control = Control(machine, " ".join([str(program), *program.args]))
    try:
        yield
    finally:
        if control is not None:
            control.close()


def _status(exit: SystemExit) -> int:
    if exit.code is None or isinstance(exit.code, int):
        return exit.code or 0
    print(exit.code, file=sys.stderr)
    return 1


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt even where a shell has made us ignore it; SIGTERM does whatever SIGINT does,
    which may be the program's own way of stopping."""

    def terminate(signum: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, terminate),
    }
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def _world(machine: Machine) -> Iterator[None]:
    """Meanwhile the process looks to a program as the machine does."""
    from libos.shim import socket as socket_shim
    from libos.shim import uvloop as uvloop_shim

    class SelectorEventLoop(MachineLoop):
        """What ``asyncio.SelectorEventLoop`` is meanwhile: servers that name it get the machine too."""

        def __init__(self, selector: object = None) -> None:
            super().__init__(machine)

    class Policy(EventLoopPolicy):
        def new_event_loop(self) -> MachineLoop:
            return SelectorEventLoop()

    names = {"SelectorEventLoop": SelectorEventLoop, "DefaultEventLoopPolicy": Policy}
    if sys.version_info >= (3, 13):
        names["EventLoop"] = SelectorEventLoop
    argv, path, main = sys.argv[:], sys.path[:], sys.modules["__main__"]
    with contextlib.ExitStack() as stack:
        stack.callback(sys.modules.__setitem__, "__main__", main)
        stack.callback(sys.path.__setitem__, slice(None), path)
        stack.callback(sys.argv.__setitem__, slice(None), argv)
        stack.enter_context(policy_installed(Policy(machine)))
        stack.enter_context(attributes_replaced(asyncio, names))
        stack.enter_context(uvloop_shim.installed(SelectorEventLoop, SelectorEventLoop))
        if machine.network is not None:
            stack.enter_context(socket_shim.installed(machine.network))
        yield


@contextlib.contextmanager
def policy_installed(policy: EventLoopPolicy) -> Iterator[None]:
    def install(which: asyncio.AbstractEventLoopPolicy | None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.set_event_loop_policy(which)

    install(policy)
    try:
        yield
    finally:
        install(None)


@contextlib.contextmanager
def attributes_replaced(module: object, names: dict[str, type]) -> Iterator[None]:
    before = {name: vars(module)[name] for name in names if name in vars(module)}
    vars(module).update(names)
    try:
        yield
    finally:
        for name in names:
            del vars(module)[name]
        vars(module).update(before)


def _print_failure(program: Program, error: BaseException) -> None:
    whole = traceback.TracebackException.from_exception(error)
    _trim(whole)
    print(*whole.format(), sep="", end="", file=sys.stderr)
    first_line = f"{error}".partition("\n")[0]
    print(f"libos: {program} failed: {type(error).__name__}{first_line and ': '}{first_line}", file=sys.stderr)


def _trim(error: traceback.TracebackException) -> None:
    """Leave the application's frames (and its libraries'): neither ours, nor asyncio's, nor those of runpy."""
    ours = (
        os.path.join(os.path.dirname(__file__), ""),
        os.path.join(os.path.dirname(asyncio.__file__), ""),
        "<frozen ",
        runpy.__file__ or "<frozen ",
    )
    theirs = [frame for frame in error.stack if not frame.filename.startswith(ours)]
    if theirs or hasattr(error, "offset"):  # all ours, and no SyntaxError: then they are what somebody must see
        error.stack[:] = theirs
    for other in (error.__cause__, error.__context__, *(error.exceptions or ())):
        if other is not None:
            _trim(other)
