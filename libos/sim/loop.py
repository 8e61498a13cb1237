"""The event loop of a simulated machine: a MachineLoop that never waits.

``run_forever`` runs an iteration and hands over to the world, which comes back when something is due. What a loop has
of the host is not there: no self-pipe, no descriptors, no signals of the process (handlers are kept, for
:meth:`SimMachine.signal <libos.sim.machine.SimMachine.signal>`).

Tasks and futures hash by their number and not by their address: the order of a set of them (``asyncio.all_tasks``,
``asyncio.wait``) is then the same in every run.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from libos.errors import WorldError
from libos.machine import MachineLoop

if TYPE_CHECKING:
    from libos.sim.program import Program

__all__ = ["SimFuture", "SimLoop", "SimTask"]

LAST_ITERATIONS = 8  # a transport that is closed needs two


class SimTask(asyncio.Task[Any]):
    """A task with a number of its own."""

    __slots__ = ("number",)

    def __init__(self, coro: Any, *, number: int, **options: Any) -> None:
        self.number = number  # before it is put into asyncio's set of all tasks
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.number


class SimFuture(asyncio.Future[Any]):
    """A future with a number of its own."""

    __slots__ = ("number",)

    def __init__(self, *, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class SimLoop(MachineLoop):
    """Of ``program``, and of no other: whoever else runs it would stop the world."""

    abandoned = False  # its program was killed: nobody is to blame for what it has open

    def __init__(self, program: Program) -> None:
        self.program = program
        self._names = itertools.count(1)
        self._handlers: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
        super().__init__(program.machine.machine)
        program.loops.append(self)

    def run_forever(self) -> None:
        self._check_closed()  # type: ignore[attr-defined]
        self._check_running()  # type: ignore[attr-defined]
        program = self.program
        if not program.running:
            raise WorldError(f"a loop of {program} runs in {program} only")
        self._set_coroutine_origin_tracking(self._debug)  # type: ignore[attr-defined]
        self._thread_id: int | None = threading.get_ident()
        program.loop = self
        program.process.attach(self)
        self.resume()
        try:
            while True:
                self._run_ready()
                if self._stopping:
                    break
                program.pause()
        finally:
            program.loop = None
            self._stopping = False
            self._thread_id = None
            asyncio._set_running_loop(None)
            self._set_coroutine_origin_tracking(False)  # type: ignore[attr-defined]
            sys.set_asyncgen_hooks(None, None)  # shared.py puts back the host's

    def resume(self) -> None:
        """What belongs to the thread is ours: others have run in between."""
        asyncio._set_running_loop(self)
        sys.set_asyncgen_hooks(self._asyncgen_firstiter_hook, self._asyncgen_finalizer_hook)  # type: ignore[attr-defined]

    def close(self) -> None:
        if self.program.killed and not self.is_closed() and not self.is_running():
            self._finish()
        super().close()

    def _finish(self) -> None:
        """Of a program that was killed: what its tasks closed as they were cancelled gets to its end."""
        self.resume()
        try:
            for _ in range(LAST_ITERATIONS):
                if self._ready:
                    with contextlib.suppress(BaseException):
                        self._run_ready()
        finally:
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(None, None)

    def create_future(self) -> asyncio.Future[Any]:
        return SimFuture(number=next(self.program.world.numbers), loop=self)

    def create_task(
        self, coro: Generator[Any, None, Any] | Coroutine[Any, Any, Any], *, name: Any = None, **options: Any
    ) -> asyncio.Task[Any]:
        if self.get_task_factory() is not None:
            return super().create_task(coro, name=name, **options)
        self._check_closed()  # type: ignore[attr-defined]
        number = next(self.program.world.numbers)
        # asyncio's own names count all tasks of the process.
        name = f"Task-{next(self._names)}" if name is None else name
        return SimTask(coro, number=number, loop=self, name=name, **options)

    # --- what is the host's ----------------------------------------------------------------------------------------

    def _make_self_pipe(self) -> None:
        self._ssock = self._csock = None

    def _close_self_pipe(self) -> None:
        pass

    def _write_to_self(self) -> None:
        pass  # call_soon tells the world

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:  # type: ignore[override]
        self._handlers[sig] = callback, args

    def remove_signal_handler(self, sig: int) -> bool:
        return self._handlers.pop(sig, None) is not None

    def handle_signal(self, sig: int) -> bool:
        """Call the handler, soon. False: there is none."""
        callback, args = self._handlers.get(sig, (None, ()))
        if callback is None:
            return False
        self.call_soon_threadsafe(callback, *args)
        return True
