"""A machine on which nothing happens does nothing: it sleeps in one wait, without a wake-up and without CPU time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from libos.machine import Machine
from libos.net.link.netns import Namespace

pytestmark = pytest.mark.slow

NewMachine = Callable[..., Machine]
PAUSE = 0.3  # seconds that a wait lasts
SETTLE = 15  # waits until neighbours have introduced themselves and addresses were checked


class Idle(NamedTuple):
    """What a wait for an event took."""

    turns: int
    blocked: int  # times that the thread went to sleep, so wake-ups
    cpu_ms: float  # of the loop's thread

    @property
    def nothing(self) -> bool:
        """The turn that waited, slept once and was woken; perhaps one before, and one that ran what was called."""
        return self.turns <= 3 and self.blocked == 1 and self.cpu_ms < 1


async def wait_for_another_thread(machine: Machine) -> Idle:
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    thread = threading.Timer(PAUSE, loop.call_soon_threadsafe, (event.set,))
    thread.start()
    await asyncio.sleep(0)  # what the start has left to do
    before, cpu = machine.reactor.statistics(), time.thread_time_ns()
    await event.wait()
    cpu, after = time.thread_time_ns() - cpu, machine.reactor.statistics()
    thread.join()
    return Idle(after["turns"] - before["turns"], after["blocked"] - before["blocked"], cpu / 1e6)


async def come_to_rest(machine: Machine) -> None:
    seen = []
    while len(seen) < SETTLE:
        seen.append(await wait_for_another_thread(machine))
        if seen[-1].nothing:
            return
    pytest.fail(f"never at rest: {seen}")


@pytest.mark.parametrize("reactor", ["io_uring", "epoll"])
@pytest.mark.parametrize("net", ["host", "user"])
def test_an_idle_machine_sleeps(new_machine: NewMachine, net: str, reactor: str) -> None:
    machine = new_machine(net=net, reactor=reactor)
    machine.run(come_to_rest(machine))


@pytest.mark.parametrize("reactor", ["io_uring", "epoll"])
@pytest.mark.parametrize("net", ["host", "user"])
def test_a_listener_and_a_connection_at_rest_wake_nobody(new_machine: NewMachine, net: str, reactor: str) -> None:
    machine = new_machine(net=net, reactor=reactor)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await come_to_rest(machine)
            writer.close()
            await writer.wait_closed()

    machine.run(main())


@pytest.mark.root
@pytest.mark.parametrize("reactor", ["io_uring", "epoll"])
def test_an_idle_machine_on_a_tap_sleeps(new_machine: NewMachine, reactor: str) -> None:
    with closing(Namespace.new()) as place, place.entered():
        # Else the kernel looks for IPv6 routers there.
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        machine = new_machine(net="tap", ip="10.0.3.15/24", reactor=reactor)
        machine.run(come_to_rest(machine))
