"""Who the process is: the machine that runs. Its name, its process number, its environment, its signal handlers.

One processor, whatever the host has, or a program that asks how many would run otherwise on another host. Handlers of
signals are kept for each machine and touch nothing of the process.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import socket
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from libos.errors import os_error
from libos.sim.owner import Owner, Ownership
from libos.sim.patches import Function, Original, Patches

__all__ = ["Handlers", "own"]

_UNCHANGED: tuple[tuple[Any, str, Callable[[Owner], Any]], ...] = (
    (os, "getpid", lambda owner: owner.pid),
    (os, "getppid", lambda owner: 1),
    (os, "cpu_count", lambda owner: 1),
    (os, "process_cpu_count", lambda owner: 1),
    (os, "sched_getaffinity", lambda owner: {0}),
    (os, "getloadavg", lambda owner: (0.0, 0.0, 0.0)),
    (os, "times", lambda owner: os.times_result((owner.now_ns() / 1e9, 0.0, 0.0, 0.0, owner.now_ns() / 1e9))),
    (socket, "gethostname", lambda owner: owner.name),
    (platform, "node", lambda owner: owner.name),
)


class Handlers:
    """A machine's signal handlers, as ``signal.signal`` set them."""

    def __init__(self, owner: Owner) -> None:
        self._handlers: dict[int, Any] = {signal.SIGINT: signal.default_int_handler}

    def get(self, signum: int) -> Any:
        if not 1 <= signum < signal.NSIG:
            raise ValueError("signal number out of range")
        return self._handlers.get(signum, signal.SIG_DFL)

    def set(self, signum: int, handler: Any) -> Any:
        before = self.get(signum)
        if not callable(handler) and handler not in (signal.SIG_DFL, signal.SIG_IGN):
            raise TypeError("signal handler must be signal.SIG_IGN, signal.SIG_DFL, or a callable object")
        if signum in (signal.SIGKILL, signal.SIGSTOP):
            raise os_error(22)
        self._handlers[signum] = handler
        return before


def own(patches: Patches, ownership: Ownership) -> None:
    for module, name, answer in _UNCHANGED:
        patches.function(module, name, _answering(ownership, answer))
    patches.function(os, "uname", _make_uname(ownership))
    _own_signals(patches, ownership)
    _own_environment(patches, ownership)
    patches.value(logging, "_startTime", type(vars(logging)["_startTime"])())  # when this process imported it


def _answering(ownership: Ownership, answer: Callable[[Owner], Any]) -> Callable[[Original], Function]:
    def make(original: Original) -> Function:
        def ask(*args: Any) -> Any:
            owner = ownership.running()
            return original(*args) if owner is None else answer(owner)

        return ask

    return make


def _make_uname(ownership: Ownership) -> Callable[[Original], Function]:
    def make(original: Original) -> Function:
        def uname() -> Any:
            host = original()
            owner = ownership.running()
            return host if owner is None else os.uname_result((host[0], owner.name, *host[2:]))

        return uname

    return make


def _own_signals(patches: Patches, ownership: Ownership) -> None:
    def of_machine(how: Callable[[Handlers], Function]) -> Callable[[Original], Function]:
        def make(original: Original) -> Function:
            def call(*args: Any, **kwargs: Any) -> Any:
                if (owner := ownership.running()) is None:
                    return original(*args, **kwargs)
                return how(ownership.of(owner, Handlers))(*args)

            return call

        return make

    patches.function(signal, "signal", of_machine(lambda handlers: handlers.set))
    patches.function(signal, "getsignal", of_machine(lambda handlers: handlers.get))
    patches.function(signal, "siginterrupt", of_machine(lambda handlers: lambda signum, flag: None))
    patches.function(signal, "set_wakeup_fd", of_machine(lambda handlers: lambda fd: -1))


def _own_environment(patches: Patches, ownership: Ownership) -> None:
    """``os.environ`` stays the object that it is, since everybody has it already; where it looks is replaced."""

    class Data(MutableMapping[bytes, bytes]):
        def __init__(self, host: MutableMapping[bytes, bytes]) -> None:
            self._host = host

        def __getitem__(self, key: bytes) -> bytes:
            owner = ownership.running()
            return self._host[key] if owner is None else os.fsencode(owner.environ[os.fsdecode(key)])

        def __setitem__(self, key: bytes, value: bytes) -> None:
            if (owner := ownership.running()) is None:
                self._host[key] = value
            else:
                owner.environ[os.fsdecode(key)] = os.fsdecode(value)

        def __delitem__(self, key: bytes) -> None:
            if (owner := ownership.running()) is None:
                del self._host[key]
            else:
                del owner.environ[os.fsdecode(key)]

        def __iter__(self) -> Iterator[bytes]:
            owner = ownership.running()
            return iter(self._host) if owner is None else map(os.fsencode, owner.environ)

        def __len__(self) -> int:
            owner = ownership.running()
            return len(self._host if owner is None else owner.environ)

    def ignored(original: Original) -> Function:
        def put(*args: Any) -> None:  # os.environ calls it before it notes the change
            if ownership.running() is None:
                original(*args)

        return put

    data = Data(vars(os.environ)["_data"])
    patches.value(os.environ, "_data", data)
    patches.value(os.environb, "_data", data)
    patches.function(os, "putenv", ignored)
    patches.function(os, "unsetenv", ignored)
