"""Who owns what a program sees of the process: the machine that runs.

:class:`Owner` is what a machine must offer for that, one per boot: after a crash the next boot is another Owner, with
another memory. :class:`Ownership` answers which one runs, and keeps for each what stands for the process's own.
Code between two machines' steps, and other threads, run in no machine: what they see is the host's.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, MutableMapping
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from libos.errors import EscapeError

if TYPE_CHECKING:
    from libos.net.network import StackNetwork
    from libos.rand import Rng

__all__ = ["Owner", "Ownership"]

T = TypeVar("T")


class Owner(Protocol):
    """One boot of a machine. Compared by identity; weak references to it must be possible."""

    @property
    def name(self) -> str:
        """Its host name."""
        ...

    @property
    def pid(self) -> int:
        """The process number of the program that runs."""
        ...

    @property
    def rng(self) -> Rng:
        """Forked a few times, when something random is first asked for, and not drawn from otherwise."""
        ...

    @property
    def environ(self) -> MutableMapping[str, str]: ...

    @property
    def network(self) -> StackNetwork | None:
        """Where its sockets are made."""
        ...

    def now_ns(self) -> int:
        """Its monotonic clock."""
        ...

    def epoch_ns(self) -> int:
        """Its wall clock: ns since 1970."""
        ...

    @property
    def sleep(self) -> Callable[[int], None] | None:
        """Blocks the program, its loop too, for so many ns by its clock. None: it cannot, and ``time.sleep`` raises."""
        ...

    def call_later(self, delay_ns: int, callback: Callable[[], None]) -> object:
        """Have the machine call back, later and not from here, in none of its tasks."""
        ...


class Ownership:
    """Which machine runs, and what belongs to it for as long as it lives.

    ``current()`` says who runs, at any moment. It is asked with every call of a program's, so it should be quick.
    """

    def __init__(self, current: Callable[[], Owner | None]) -> None:
        thread: int | None = None  # where the machines run, while it is in force

        def running() -> Owner | None:
            return current() if get_ident() == thread else None

        def enforce(where: int | None) -> None:
            nonlocal thread
            thread = where

        #: The machine that runs, or None. A closure, for it is on the way of every look at a clock.
        self.running = running
        self._enforce = enforce
        self.draws = 0  # how often programs have drawn something: who keeps a record of a run notes when it grows
        self._belongings: weakref.WeakKeyDictionary[Owner, dict[Any, Any]] = weakref.WeakKeyDictionary()
        self._last: Owner | None = None  # who was asked for last, mostly the one who is asked for next, and what is its
        self._mine: dict[Any, Any] = {}

    def begin(self) -> None:
        """Machines run in this thread from now on."""
        self._enforce(get_ident())

    def end(self) -> None:
        self._enforce(None)
        self._last, self._mine = None, {}

    @contextlib.contextmanager
    def outside(self) -> Iterator[None]:
        """What the simulation itself does on behalf of a machine that runs: it sees the host."""
        self._enforce(None)
        try:
            yield
        finally:
            self._enforce(get_ident())

    def of(self, owner: Owner, kind: Callable[[Owner], T]) -> T:
        """The one ``kind(owner)``, made when it is first asked for."""
        if owner is not self._last:
            self._mine = self._belongings.setdefault(owner, {})
            self._last = owner
        found: T | None = self._mine.get(kind)
        if found is None:
            found = self._mine[kind] = kind(owner)
        return found

    def refusal(self, call: str, instead: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Makes a function that a machine may not call."""

        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            def refused(*args: Any, **kwargs: Any) -> Any:
                if self.running() is None:
                    return original(*args, **kwargs)
                raise EscapeError(call, instead)

            return refused

        return make
