"""A program of a simulated machine: ordinary blocking code, in a greenlet of its own.

Whatever runs an asyncio loop there (``asyncio.run``, ``Runner``, ``run_until_complete``, in a script or in a library)
gets the machine's, whose ``run_forever`` hands over to the world's greenlet between iterations. A program that blocks
for a time, without a loop, hands over the same way (:meth:`Program.sleep`). One runs at a time; between two hand-overs
nothing else does.

    a callable            called with `args`; a coroutine that it gives is run by asyncio.Runner
    a path                a script, as `python SCRIPT ARGS` runs it; `args` are sys.argv[1:]
    Module("name")        as `python -m name`

All programs share one interpreter, and so its modules.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import greenlet

from libos import launch
from libos.sim.errors import ProgramFailed
from libos.sim.jobs import Jobs
from libos.sim.loop import SimLoop, SimTask
from libos.sim.process import Process
from libos.sim.record import DRAWN

if TYPE_CHECKING:
    from libos.sim.machine import SimMachine

__all__ = ["Killed", "Module", "Program", "Target"]


class Module(NamedTuple):
    """A module to run, as ``python -m`` does."""

    name: str


Target = Callable[..., Any] | str | Path | Module


class Killed(BaseException):
    """Raised in a program whose machine is no more. It cannot do anything about it."""


class Face:
    """What a process shows to a program: ``sys.argv``, ``sys.path``, ``__main__``. Put in place while it runs."""

    def __init__(self, argv: list[str], path: list[str], main: Any) -> None:
        self.argv, self.path, self.main = argv, path, main

    @classmethod
    def current(cls) -> Face:
        return cls(sys.argv, sys.path, sys.modules["__main__"])

    def show(self) -> None:
        sys.argv, sys.path, sys.modules["__main__"] = self.argv, self.path, self.main

    def keep(self) -> None:
        """What the program itself has put there."""
        self.argv, self.path, self.main = sys.argv, sys.path, sys.modules["__main__"]


class Program:
    """Started by :meth:`SimMachine.start <libos.sim.machine.SimMachine.start>`."""

    def __init__(
        self,
        machine: SimMachine,
        target: Target,
        args: Sequence[Any],
        *,
        name: str | None,
        daemon: bool,
        env: Mapping[str, str],
    ) -> None:
        self.machine = machine
        self.world = machine.world
        self.target = target
        self.args = args
        self.env = env
        self.daemon = daemon
        self.name = name or self._default_name()
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended = False
        self.running = False
        self.killed = False
        self.loop: SimLoop | None = None  # while it runs one
        self.loops: list[SimLoop] = []
        self.until: int | None = None  # while it sleeps: the machine's time
        self.pending: dict[str, str] = {}  # by stream: output that is not a whole line yet
        script = not callable(target)
        self.process = Process(self, env)
        first = [] if sys.flags.safe_path else [""]  # the place of the script's own folder
        self.face: Face | None = Face([], [*first, *sys.path], sys.modules["__main__"]) if script else None
        self._greenlet = greenlet.greenlet(self._body)

    def _default_name(self) -> str:
        target = self.target
        if isinstance(target, Module):
            return target.name
        if callable(target):
            return getattr(target, "__name__", type(target).__name__)
        return Path(target).name

    def __str__(self) -> str:
        return f"{self.machine.name}/{self.name}"

    # --- run by the world --------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Let it go on until it hands over."""
        if self.until is not None:
            if self.machine.reactor.now() < self.until:
                self.machine.reactor.want(self.until)
                return
            self.until = None
        self._switch()

    def _switch(self) -> None:
        world = self.world
        self._greenlet.parent = greenlet.getcurrent()
        self.running, world.running, world.process = True, self, self.process
        if self.face is not None:
            self.face.show()
        if self.loop is not None:
            self.loop.resume()
        draws = world.ownership.draws
        try:
            self._greenlet.switch()
        finally:
            if world.ownership.draws != draws:
                world.sim.note(DRAWN, self.machine.id, world.ownership.draws)
            self.running, world.running, world.process = False, None, None
            asyncio._set_running_loop(None)
            if self.face is not None:
                self.face.keep()
                world.face.show()

    def _body(self) -> None:
        try:
            try:
                self.result = self._run()
            except SystemExit:
                self._join_threads()
                raise
            self._join_threads()
        except SystemExit as exit:
            if exit.code not in (None, 0):
                self.error = ProgramFailed(f"{self} exited: {exit.code}")
        except Killed:
            pass
        except BaseException as error:
            error.add_note(f"in {self} of a simulated world, at {self.world.time:.6f} s, seed {self.world.seed}")
            self.error = error
        self.ended = True
        self.world.program_ended(self)

    def _join_threads(self) -> None:
        """As python does before it exits."""
        self.world.ownership.of(self.process, Jobs).finish()

    def _run(self) -> Any:
        target = self.target
        if callable(target):
            result = target(*self.args)
            if inspect.iscoroutine(result):
                with asyncio.Runner(loop_factory=self.new_event_loop) as runner:
                    return runner.run(result)
            return result
        module = isinstance(target, Module)
        name = target.name if isinstance(target, Module) else os.fspath(target)
        script = launch.Program(name, [str(arg) for arg in self.args], module=module)
        script.check()
        script.run()
        return None

    def new_event_loop(self) -> SimLoop:
        return SimLoop(self)

    # --- called by what runs in it -----------------------------------------------------------------------------------

    def pause(self) -> None:
        """Let the others go on. Returns when the world comes back."""
        if self.killed:
            raise Killed
        parent = self._greenlet.parent
        assert parent is not None
        parent.switch()
        if self.killed:
            raise Killed

    def sleep(self, ns: int) -> None:
        """Block the whole program, its loop included, for so long by its machine's clock."""
        reactor = self.machine.reactor
        self.until = reactor.now() + ns
        reactor.want(self.until)
        self.pause()

    # --- its end -----------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """At once. Its ``finally`` blocks do run, for Python leaves no choice: whoever must not hear of them is cut off
        before."""
        if self.ended:
            return
        self.killed, self.until = True, None
        for loop in self.loops:
            loop.abandoned = True
        if not self._greenlet:  # it has not begun
            self.ended = True
            self.world.program_ended(self)
        while not self.ended:
            self._switch()
        for loop in self.loops:
            _bury(loop)

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Of the loop that it runs, in the order of their making."""
        if self.loop is None:
            return []
        return sorted(asyncio.all_tasks(self.loop), key=lambda task: getattr(task, "number", 0))


def _bury(loop: SimLoop) -> None:
    """Nobody hears of tasks that a dead program has left behind, nor of connections."""
    for task in sorted(asyncio.all_tasks(loop), key=lambda task: getattr(task, "number", 0)):
        if isinstance(task, SimTask):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        coroutine: Any = task.get_coro()
        with contextlib.suppress(BaseException):
            coroutine.close()
