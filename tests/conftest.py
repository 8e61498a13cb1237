"""What every test lives by: nothing leaks, and what needs root is skipped aloud where there is none."""

from __future__ import annotations

import gc
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libos.config import configure
from libos.machine import Machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: TAP devices and network namespaces")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)


def open_descriptors() -> dict[int, str]:
    """What this process holds open. A TAP device that it made is among them: it goes with its descriptor."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the directory itself
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Each test leaves the descriptors and threads that it found."""
    descriptors, threads = open_descriptors(), set(threading.enumerate())

    def leaked() -> list[object]:
        now = open_descriptors()
        return [
            *(f"descriptor {fd}: {what}" for fd, what in now.items() if descriptors.get(fd) != what),
            *(thread for thread in threading.enumerate() if thread not in threads),
        ]

    yield
    if leaked():
        gc.collect()  # what only waits for the collector is not lost, though late
        assert not leaked()


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A port of the host's loopback that nobody has at the moment, of either family."""

    def free() -> int:
        with socket.socket(socket.AF_INET6) as both:
            both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            both.bind(("::", 0))
            port: int = both.getsockname()[1]
            return port

    return free


@pytest.fixture
def new_machine() -> Iterator[Callable[..., Machine]]:
    """Machines by their settings, taken down after the test."""
    machines: list[Machine] = []

    def new(**settings: Any) -> Machine:
        machines.append(Machine(configure(**settings)))
        return machines[-1]

    yield new
    for machine in machines:
        machine.close()
