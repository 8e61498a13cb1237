"""Child processes of a loop: each is watched through a pidfd, in whatever thread the loop runs.

A pidfd (Linux 5.3; waitid(2) takes it from 5.4) is readable when its process has ended, also when that was before
anybody looked. So there is no signal, no thread and no main thread in this. Where the host refuses one (a
container's seccomp filter, no descriptor left) a thread waits for that child instead.

The status is read through the pidfd and not by number, so that a number which the kernel has given to another child
since is never mistaken. A child whose status somebody else has taken (waitpid(-1) in the program, SIGCHLD ignored) is
reported as asyncio does: 255, and a warning. If it was the transport's own Popen, which polls, its status is known.

asyncio's child watchers (deprecated in 3.12, gone in 3.14) are asked only if the program has set one that works in
another way than its defaults do; a default one is not missed.

Ownership: a watch owns its pidfd until the child was reported or :meth:`Children.close`. Children that are left then
run on; a Popen that is dropped leaves them to the subprocess module, which reaps them when it starts the next.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from asyncio import unix_events
from typing import Any

__all__ = ["Children", "chosen_watcher"]

UNKNOWN_STATUS = 255  # what asyncio reports when somebody else has taken it

logger = logging.getLogger("asyncio")


class Children:
    """The children of ``loop``. Its own transports' methods are asyncio's."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._watched: dict[int, Any] = {}  # by pidfd

    async def start(self, protocol: Any, *args: Any, **options: Any) -> Any:
        """asyncio's ``_make_subprocess_transport``: start a process, watch it, wait until its pipes are connected."""
        waiter = self._loop.create_future()
        transport = unix_events._UnixSubprocessTransport(  # type: ignore[attr-defined]
            self._loop, protocol, *args, waiter=waiter, **options
        )
        self._watch(transport)
        try:
            await waiter
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            transport.close()
            await transport._wait()
            raise
        return transport

    def close(self) -> None:
        """Look away. The loop is closed: its reactor has forgotten the descriptors."""
        while self._watched:
            os.close(self._watched.popitem()[0])

    def _watch(self, transport: Any) -> None:
        try:
            pidfd = os.pidfd_open(transport.get_pid())
        except ProcessLookupError:  # it has ended, and left no status
            self._loop.call_soon(self._lost, transport)
            return
        except OSError:
            self._watch_by_thread(transport)
            return
        try:
            self._loop._add_reader(pidfd, self._ended, pidfd)
        except OSError:
            os.close(pidfd)
            self._watch_by_thread(transport)
        else:
            self._watched[pidfd] = transport

    def _ended(self, pidfd: int) -> None:
        lost = False
        try:
            result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            result, lost = None, True
        if result is None and not lost:  # whoever traces it takes the status first
            return
        transport = self._watched.pop(pidfd)
        self._loop._remove_reader(pidfd)
        os.close(pidfd)
        # In the next iteration: after what its pipes have to say in this one.
        if result is None:
            self._loop.call_soon(self._lost, transport)
        else:
            status = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
            self._loop.call_soon(transport._process_exited, status)

    def _watch_by_thread(self, transport: Any) -> None:
        loop, pid = self._loop, transport.get_pid()

        def wait() -> None:
            try:
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            except ChildProcessError:
                report, args = self._lost, (transport,)
            else:
                report, args = transport._process_exited, (status,)
            try:
                loop.call_soon_threadsafe(report, *args)
            except RuntimeError:
                logger.warning("Loop %r that handles pid %r is closed", loop, pid)

        threading.Thread(target=wait, name=f"waitpid-{pid}", daemon=True).start()

    def _lost(self, transport: Any) -> None:
        """Somebody has taken the status. When that was close() or send_signal(), which poll, Popen has it."""
        status = transport._proc.returncode
        if status is None:
            status = UNKNOWN_STATUS
            logger.warning("Unknown child process pid %d, will report returncode %d", transport.get_pid(), status)
        transport._process_exited(status)


def chosen_watcher() -> bool:
    """Whether the program has set a child watcher other than asyncio's defaults."""
    if sys.version_info >= (3, 14):
        return False
    watcher = getattr(asyncio.get_event_loop_policy(), "_watcher", None)
    return watcher is not None and type(watcher) not in (asyncio.ThreadedChildWatcher, asyncio.PidfdChildWatcher)
