"""What a program in a World cannot have: calls that would stop the simulated time, or leave the simulation."""

from __future__ import annotations

import importlib
from types import MappingProxyType

from libos.sim.owner import Ownership
from libos.sim.patches import Patches

__all__ = ["own"]

_LOOP = "the loop of the machine waits for its sockets: use asyncio"
_PROCESS = "run it as a program of another machine of the World"
_SIGNAL = "signals come from the World"
_DESCRIPTOR = "a machine has no descriptors of the host; use asyncio streams"
_INPUT = "a machine has no terminal; give it arguments or its environment"

_FUNCTIONS = MappingProxyType(
    {
        ("time", "clock_settime"): "set the skew of the machine's clock in the World",
        ("time", "clock_settime_ns"): "set the skew of the machine's clock in the World",
        ("time", "pthread_getcpuclockid"): "time.thread_time()",
        **{("select", name): _LOOP for name in ("select", "poll", "epoll", "devpoll", "kqueue")},
        **{
            ("os", name): _PROCESS
            for name in (
                "fork", "forkpty", "posix_spawn", "posix_spawnp", "execv", "execve", "system", "popen", "abort",
                "wait", "wait3", "wait4", "waitid", "waitpid", "pidfd_open", "spawnv", "spawnve", "spawnvp", "spawnvpe",
            )
        },
        **{("os", name): _DESCRIPTOR for name in ("pipe", "pipe2", "openpty", "eventfd", "timerfd_create")},
        **{("os", name): _SIGNAL for name in ("kill", "killpg")},
        ("_posixsubprocess", "fork_exec"): _PROCESS,
        **{
            ("signal", name): _SIGNAL
            for name in (
                "alarm", "setitimer", "pause", "raise_signal", "sigwait", "sigwaitinfo", "sigtimedwait",
                "pthread_kill", "pidfd_send_signal", "pthread_sigmask",
            )
        },
        **{
            ("socket", name): _DESCRIPTOR
            for name in ("socketpair", "fromfd", "fromshare", "send_fds", "recv_fds", "sethostname", "dup")
        },
        ("builtins", "input"): _INPUT,
    }
)  # fmt: skip

# Called on objects, through classes that were taken by name long before.
_METHODS = (
    ("subprocess", "Popen", "__init__", "subprocess.Popen()", _PROCESS),
    ("multiprocessing.process", "BaseProcess", "start", "multiprocessing.Process.start()", _PROCESS),
    ("concurrent.futures.process", "ProcessPoolExecutor", "__init__", "ProcessPoolExecutor()", "ThreadPoolExecutor()"),
    ("selectors", "_BaseSelectorImpl", "__init__", "a selector of the module selectors", _LOOP),
)


def own(patches: Patches, ownership: Ownership) -> None:
    for (module, name), instead in _FUNCTIONS.items():
        call = f"{module}.{name}()"
        patches.function(importlib.import_module(module), name, ownership.refusal(call, instead))
    for module, cls, name, call, instead in _METHODS:
        patches.method(vars(importlib.import_module(module))[cls], name, ownership.refusal(call, instead))
