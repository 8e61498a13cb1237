"""Machines: boot, use, end; what a failed boot leaves (nothing); several of them; whose loop it is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libos.config import configure
from libos.errors import ConfigError, HostError, WorldError
from libos.machine import Machine
from libos.plan import Plan

NewMachine = Callable[..., Machine]


async def echo_once(machine: Machine, payload: bytes = b"hello") -> bytes:
    """A server and a client on one machine, over its own addresses."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(len(payload)))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, None, 7)
    async with server:
        reader, writer = await asyncio.open_connection(machine.plan.ip[0].partition("/")[0], 7)
        writer.write(payload)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"net": "host", "ip": "10.0.0.2/24"}, Plan((), (), (), ())),
        (
            {"net": "user", "ip": "192.168.7.5/24"},
            Plan(("192.168.7.5/24",), ("192.168.7.2",), ("192.168.7.2/24",), ("192.168.7.3",)),
        ),
        (
            {"net": "user", "ip": "10.0.0.2/24", "gateway": "10.0.0.3"},
            Plan(("10.0.0.2/24",), ("10.0.0.3",), ("10.0.0.3/24",), ("10.0.0.4",)),
        ),
        (
            {"net": "tap", "ip": ["fd01::9/64", "10.0.0.9/16"]},
            Plan(("fd01::9/64", "10.0.0.9/16"), ("10.0.0.2", "fd01::2"), ("10.0.0.2/16", "fd01::2/64"), ()),
        ),
    ],
)
def test_plan(settings: dict[str, Any], wanted: Plan) -> None:
    assert Plan.of(configure(**settings)) == wanted


def test_plan_defaults_are_of_both_families() -> None:
    plan = Plan.of(configure())
    assert plan.ip == ("10.0.2.15/24", "fd00:6c69:626f:73::15/64")
    assert sorted(plan.gateway) == ["10.0.2.2", "fd00:6c69:626f:73::2"]
    assert sorted(plan.dns) == ["10.0.2.3", "fd00:6c69:626f:73::3"]


@pytest.mark.parametrize(
    "settings",
    [
        {"ip": "10.0.0.2/31"},
        {"ip": "10.0.0.2/32"},
        {"ip": "fd00::2/128"},
        {"ip": "10.0.0.2/24", "gateway": "10.0.1.1"},
        {"ip": "10.0.0.2/24", "gateway": "10.0.0.2"},
    ],
)
def test_plan_refuses_what_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="allowed"):
        Machine(configure(**settings))


def test_runs_a_program(new_machine: NewMachine) -> None:
    machine = new_machine()
    assert machine.run(echo_once(machine)) == b"hello"


def test_congestion_control_is_the_configurations(new_machine: NewMachine) -> None:
    machine = new_machine(congestion="reno", ecn=1)
    assert machine.run(echo_once(machine)) == b"hello"
    assert machine.network is not None
    with machine.network.socket() as sock:
        name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    assert isinstance(name, bytes)
    assert name.rstrip(b"\0") == b"reno"


def test_loops_come_one_after_another(new_machine: NewMachine) -> None:
    machine = new_machine()
    for round in range(3):
        assert machine.run(echo_once(machine, b"%d" % round)) == b"%d" % round


def test_machines_share_nothing(new_machine: NewMachine) -> None:
    """The same addresses, the same ports, one process."""
    machines = [new_machine() for _ in range(3)]
    for machine in machines:
        assert machine.run(echo_once(machine)) == b"hello"
    assert len({machine.clock.offset for machine in machines}) == 3, "clocks start apart"


@pytest.mark.slow  # not under sanitizers, of whose cost it would tell
def test_a_second_machine_boots_in_five_milliseconds(new_machine: NewMachine) -> None:
    new_machine()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        new_machine()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.005


def test_statistics_outlive_the_machine(new_machine: NewMachine) -> None:
    machine = new_machine()
    machine.run(echo_once(machine))
    machine.close()
    counts = machine.statistics()
    assert counts["connections_in"] == counts["connections_out"] == 1
    assert counts["retransmissions"] == 0
    assert counts["reactor_turns"] > 0


def test_close_is_idempotent_and_final(new_machine: NewMachine) -> None:
    machine = new_machine()
    machine.close()
    machine.close()
    with pytest.raises(WorldError, match="closed"):
        machine.new_event_loop()


def test_world_host_has_the_kernels_sockets(new_machine: NewMachine) -> None:
    machine = new_machine(net="host")

    async def main() -> str:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close()
            return type(server.sockets[0]).__name__

    assert machine.run(main()) == "TransportSocket"
    assert "packets_in" not in machine.statistics()


# --- threads -----------------------------------------------------------------------------------------------------


def in_thread(call: Callable[[], object]) -> object:
    """Its result, or the exception that it raised."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    return results[0]


def test_a_second_threads_loop_has_no_network(new_machine: NewMachine) -> None:
    machine = new_machine()

    async def connect() -> None:
        await asyncio.open_connection("10.0.2.2", 7)

    async def main() -> object:
        return await asyncio.to_thread(in_thread, lambda: machine.run(connect()))

    answer = machine.run(main())
    assert isinstance(answer, WorldError)
    assert "another thread" in str(answer)


def test_a_second_threads_loop_runs_all_the_same(new_machine: NewMachine) -> None:
    machine = new_machine()

    async def main() -> object:
        return await asyncio.to_thread(in_thread, lambda: machine.run(asyncio.sleep(0, "slept")))

    assert machine.run(main()) == "slept"


def test_a_machine_moves_to_another_thread_between_loops(new_machine: NewMachine) -> None:
    machine = new_machine()
    machine.run(asyncio.sleep(0))
    assert in_thread(lambda: machine.run(echo_once(machine))) == b"hello"


# --- failures leave nothing (the leak check sees to it) -----------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_port_that_is_taken(address: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as taken:
        taken.bind((address, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(HostError, match=f"{port}.*in use"):
            Machine(configure(publish=f"{port}:80"))


def test_a_capture_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot write"):
        Machine(configure(pcap=str(tmp_path / "no" / "wire.pcap"), impair="loss=1%"))


def test_a_machine_that_is_forgotten_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever step of the boot fails, the steps before are taken back."""
    from libos.net.stack import Stack

    for step in ("add_link", "add_address", "add_route"):
        with monkeypatch.context() as patch:

            def fail(self: Stack, *args: object, step: str = step) -> int:
                raise OSError(step)

            patch.setattr(Stack, step, fail)
            with pytest.raises(OSError, match=step):
                Machine(configure(impair="loss=1%"))


def interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


@pytest.mark.root
@pytest.mark.parametrize("fails", [False, True])
def test_a_tap_goes_with_its_machine(fails: bool, tmp_path: Path) -> None:
    name = f"t{os.getpid()}x"
    settings: dict[str, Any] = {"net": "tap", "tap": name, "ip": ["10.231.7.2/24", "fd00:e7::2/64"]}
    if fails:
        with pytest.raises(HostError):
            Machine(configure(pcap=str(tmp_path / "no" / "wire"), **settings))
    else:
        with Machine(configure(**settings)) as machine:
            assert machine.tap == name
            assert name in interfaces()
    assert name not in interfaces()


# --- wrappers ----------------------------------------------------------------------------------------------------


def frames_of(file: Path) -> list[tuple[float, bytes]]:
    """Time and bytes of each packet of a capture (nanosecond format)."""
    raw = file.read_bytes()
    assert struct.unpack_from("=I", raw)[0] == 0xA1B23C4D
    frames, at = [], 24
    while at < len(raw):
        seconds, ns, kept, _ = struct.unpack_from("=4I", raw, at)
        frames.append((seconds + ns / 1e9, raw[at + 16 : at + 16 + kept]))
        at += 16 + kept
    return frames


def test_a_capture_has_both_directions_at_the_time_of_day(new_machine: NewMachine, tmp_path: Path) -> None:
    file = tmp_path / "wire.pcap"
    before = time.time()
    machine = new_machine(pcap=str(file), publish="0:7")

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read())
            writer.close()

        async with await asyncio.start_server(serve, None, 7):
            await asyncio.to_thread(ask)

    def ask() -> None:
        assert machine.gateway is not None
        with socket.create_connection(machine.gateway.published[0][:2]) as client:
            client.sendall(b"over the wire")
            client.shutdown(socket.SHUT_WR)
            assert client.makefile("rb").read() == b"over the wire"

    machine.run(main())
    machine.close()
    frames = frames_of(file)
    assert sum(b"over the wire" in frame for _, frame in frames) == 2
    assert all(before - 1 < when < time.time() + 1 for when, _ in frames)


@pytest.mark.parametrize("listen", [None, "10.0.2.15", "127.0.0.1", "::1"])
def test_a_published_port_leads_wherever_the_program_listens(listen: str | None, new_machine: NewMachine) -> None:
    """To its loopback too; and a connection that is still open does not outlive the machine."""
    machine = new_machine(publish="0:80")
    assert machine.gateway is not None
    port = machine.gateway.published[0][1]
    with socket.socket() as client:

        def greet() -> bytes:
            client.settimeout(10)
            client.connect(("127.0.0.1", port))
            client.sendall(b"hello")
            return client.recv(9)

        async def main() -> bytes:
            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(await reader.read(9))
                await reader.read()

            await asyncio.start_server(serve, listen, 80)
            return await asyncio.to_thread(greet)

        assert machine.run(main()) == b"hello"
        machine.close()
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(9) == b""


def test_what_was_written_arrives_though_the_program_has_ended(new_machine: NewMachine) -> None:
    """The last bytes are in the gateway, or in the host's socket, when the machine goes down."""
    machine = new_machine()
    size = 8 << 20
    received: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)

        def receive() -> None:
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(16384):
                    received.append(len(data))

        async def main() -> None:
            _, writer = await asyncio.open_connection("10.0.2.2", listener.getsockname()[1])
            writer.write(bytes(size))
            writer.close()
            await writer.wait_closed()

        thread = threading.Thread(target=receive)
        thread.start()
        machine.run(main())
        machine.close()
        thread.join(10)
    assert sum(received) == size


def test_the_same_seed_makes_the_same_machine() -> None:
    machines = [Machine(configure(seed=7)) for _ in range(2)]
    draws = [machine.rng.bits(64) for machine in machines]
    for machine in machines:
        machine.close()
    assert draws[0] == draws[1]
