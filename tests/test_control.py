"""The control socket from both ends: what it tells and to whom; hostile, slow and many callers; what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from libos.control import CALLERS_MAX, REQUEST_MAX, VIEWS, Control, directory
from libos.errors import WorldError
from libos.look.client import LookError, find, look
from libos.machine import Machine


class Caller:
    """A caller in the same thread: it turns the machine while it waits."""

    def __init__(self, machine: Machine, control: Control) -> None:
        self._machine = machine
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(control.path))
        self.sock.setblocking(False)
        self._received = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def turn(self) -> None:
        for _ in range(5):
            self._machine.reactor.turn(0)

    def line(self) -> Any:
        """The next answer; None: the machine has hung up."""
        for _ in range(10_000):
            self._machine.reactor.turn(0)
            if b"\n" in self._received:
                line, _, self._received = self._received.partition(b"\n")
                return json.loads(line)
            try:
                data = self.sock.recv(1 << 16)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._received += data
        raise AssertionError("no answer")

    def ask(self, *views: str) -> Any:
        self.send(json.dumps({"show": views}).encode() + b"\n")
        return self.line()


@pytest.fixture
def machine(new_machine: Callable[..., Machine]) -> Machine:
    return new_machine(reactor="epoll")


@pytest.fixture
def control(machine: Machine, tmp_path: Path) -> Iterator[Control]:
    control = Control(machine, "app.py --x", folder=tmp_path / "libos")
    yield control
    control.close()


@pytest.fixture
def call(machine: Machine, control: Control) -> Iterator[Callable[[], Caller]]:
    callers: list[Caller] = []

    def call() -> Caller:
        callers.append(Caller(machine, control))
        return callers[-1]

    yield call
    for caller in callers:
        caller.sock.close()


def test_it_tells_which_machine_it_is(call: Callable[[], Caller]) -> None:
    said = call().ask("machine")["machine"]
    assert said.pop("uptime_ns") > 0
    assert said == {
        "pid": os.getpid(),
        "program": "app.py --x",
        "world": "user",
        "reactor": "epoll",
        "addresses": ["10.0.2.15", "fd00:6c69:626f:73::15"],
    }


def test_every_view_without_a_running_loop(call: Callable[[], Caller]) -> None:
    said = call().ask(*VIEWS)
    assert list(said) == list(VIEWS)
    assert said["sockets"] == []
    assert said["counters"]["TcpActiveOpens"] == 0
    assert {"network": "0.0.0.0/0", "gateway": "10.0.2.2", "interface": 2} in said["routes"]
    assert "10.0.2.15" in [row["address"] for row in said["addresses"]["2"]]
    assert said["neighbours"] == {}
    assert sorted(said["resolver"]["servers"]) == ["10.0.2.3", "fd00:6c69:626f:73::3"]


def test_a_machine_in_world_host_has_no_network_to_show(new_machine: Callable[..., Machine], tmp_path: Path) -> None:
    machine = new_machine(net="host")
    control = Control(machine, "x", folder=tmp_path / "libos")
    caller = Caller(machine, control)
    said = caller.ask(*VIEWS)
    assert said["machine"]["world"] == "host"
    assert all(said[view] is None for view in VIEWS[1:])
    with pytest.raises(WorldError, match="ask the kernel"):
        _ = machine.net
    caller.sock.close()
    control.close()


def test_requests_in_pieces_and_several_at_once(call: Callable[[], Caller]) -> None:
    caller = call()
    request = b'{"show": ["machine"]}\n'
    for byte in request[:-1]:
        caller.send(bytes([byte]))
        caller.turn()
    caller.send(b"\n" + request * 3)
    assert [caller.line()["machine"]["pid"] for _ in range(4)] == [os.getpid()] * 4


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (b"hello\n", "JSON is malformed"),
        (b"\n", "Input data was truncated"),
        (b"[]\n", "Expected `object`"),
        (b'{"show": "sockets"}\n', "Expected `array`"),
        (b'{"show": ["passwords"]}\n', "no view 'passwords'"),
        (b'{"show": [], "do": "reboot"}\n', "unknown field"),
        (b"\xff\xfe\n", ""),
    ],
)
def test_nonsense_is_answered_and_the_caller_may_go_on(call: Callable[[], Caller], request_: bytes, error: str) -> None:
    caller = call()
    caller.send(request_)
    assert error in caller.line()["error"]
    assert caller.ask("machine")["machine"]["world"] == "user"


def test_a_request_without_an_end_is_cut_off(call: Callable[[], Caller]) -> None:
    caller = call()
    caller.send(b"x" * (REQUEST_MAX + 1))
    assert caller.line() is None


def test_callers_are_bounded(call: Callable[[], Caller]) -> None:
    callers = [call() for _ in range(CALLERS_MAX)]
    assert all(caller.ask("machine") for caller in callers)
    assert call().line() is None
    callers[0].sock.close()
    callers[1].turn()
    assert call().ask("machine")


def test_a_slow_reader_gets_all_of_a_large_answer(machine: Machine, call: Callable[[], Caller]) -> None:
    network = machine.network
    assert network is not None
    sockets = [network.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3000)]
    caller = call()
    caller.send(b'{"show": ["sockets"]}\n{"show": ["machine"]}\n')
    caller.turn()  # more than the kernel takes: it waits, and the second request with it
    assert len(caller.line()["sockets"]) == 3000
    assert caller.line()["machine"]
    for sock in sockets:
        sock.close()


def test_a_large_answer_is_made_a_piece_a_turn(machine: Machine, call: Callable[[], Caller]) -> None:
    """So that the program runs in between."""
    network = machine.network
    assert network is not None
    sockets = [network.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(640)]
    caller = call()
    caller.send(b'{"show": ["sockets"]}\n')
    seen, most, turns = b"", 0, 0
    while not seen.endswith(b"\n"):
        machine.reactor.turn(0)
        turns += 1
        with contextlib.suppress(BlockingIOError):
            piece = caller.sock.recv(1 << 20)
            most = max(most, piece.count(b'"id"'))
            seen += piece
    assert len(json.loads(seen)["sockets"]) == 640
    assert most <= 64
    assert turns >= 10
    for sock in sockets:
        sock.close()


def test_only_its_owner_can_reach_it(control: Control, tmp_path: Path) -> None:
    assert control.path.stat().st_mode & 0o777 == 0o600
    assert control.path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.root
def test_another_user_is_refused_by_his_credentials(machine: Machine, control: Control, tmp_path: Path) -> None:
    """Even where the file system would let him in."""
    for folder in (control.path.parent, *control.path.parent.parents[:3]):
        folder.chmod(0o755)
    control.path.chmod(0o666)
    child = os.fork()  # and no exec: the interpreter may be where another user cannot reach it
    if child == 0:
        status = 2
        try:
            os.setgid(65534)
            os.setuid(65534)
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(str(control.path))
                status = 0 if other.recv(9) == b"" else 1
        finally:
            os._exit(status)
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        machine.reactor.turn(10_000_000)
    assert os.waitstatus_to_exitcode(ended[1]) == 0


@pytest.mark.parametrize("make", ["open", "link", "file"])
def test_a_folder_that_is_not_ours_alone_is_not_used(machine: Machine, tmp_path: Path, make: str) -> None:
    folder = tmp_path / "libos"
    if make == "open":
        folder.mkdir()
        folder.chmod(0o755)
    elif make == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.touch()
    with pytest.raises(PermissionError, match="not a folder for this user alone"):
        Control(machine, "x", folder=folder)


def test_it_goes_with_the_machine_but_not_with_a_forked_child(
    machine: Machine, control: Control, call: Callable[[], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = call()
    caller.turn()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        control.close()
    assert control.path.exists()
    assert caller.line() is None
    control.path.unlink()


def test_what_a_dead_process_of_our_number_left_is_replaced(machine: Machine, tmp_path: Path) -> None:
    folder = tmp_path / "libos"
    folder.mkdir(mode=0o700)
    (folder / f"{os.getpid()}.sock").touch()
    Control(machine, "x", folder=folder).close()
    assert list(folder.iterdir()) == []


def test_stale_sockets_are_removed_and_others_left_alone(control: Control) -> None:
    folder = control.path.parent
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(folder / "1.sock"))
    stale.close()
    (folder / "notes.sock").touch()
    found = find([folder, folder / "missing"])
    assert [each.pid for each in found] == [os.getpid()]
    found[0].sock.close()
    assert sorted(path.name for path in folder.iterdir()) == sorted([control.path.name, "notes.sock"])


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert directory({"XDG_RUNTIME_DIR": "/run/user/5"}) == Path("/run/user/5/libos")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert directory({}) == Path("/tmp/libos-12345")


# --- who asks --------------------------------------------------------------------------------------------------------


class Fake:
    """A machine's end of a control socket that says what it is told to, in a folder of its own."""

    def __init__(self, folder: Path, pid: int) -> None:
        folder.mkdir(exist_ok=True)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(str(folder / f"{pid}.sock"))
        self.sock.listen()


@pytest.mark.parametrize(
    ("says", "error"),
    [
        (b"", "ended before it answered"),
        (b"what?\n", "speaks another language"),
        (b'{"error": "no view"}\n', "machine 7: no view"),
    ],
)
def test_answers_that_are_none(tmp_path: Path, says: bytes, error: str) -> None:
    fake = Fake(tmp_path, 7)
    process = subprocess.Popen(  # connects, asks, and says on one line what came of it
        [
            sys.executable,
            "-c",
            f"""
from pathlib import Path
from libos.look.client import LookError, look
try:
    look("", ("sockets",), print, [Path({str(tmp_path)!r})])
except LookError as error:
    print(error)
""",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    peer, _ = fake.sock.accept()
    peer.recv(1000)
    peer.sendall(says)
    peer.close()
    assert error in process.communicate(timeout=10)[0]
    fake.sock.close()


def test_nobody_runs(tmp_path: Path) -> None:
    for which, error in (("", "no machine runs here"), ("7", "no machine 7 runs here: none does")):
        with pytest.raises(LookError, match=error):
            look(which, (), print, [tmp_path])


# --- Machine.net -----------------------------------------------------------------------------------------------------


def test_machine_net_shows_whose_sockets_they_are(machine: Machine) -> None:
    class Echo(asyncio.Protocol):
        pass

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 80)
        streams = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 81)
        transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", 80)
        datagrams, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 53))
        await asyncio.sleep(0.01)
        rows = {(row.type, row.state, row.local[1]): row for row in machine.net.sockets()}
        port = transport.get_extra_info("sockname")[1]
        assert (
            rows["tcp", "LISTEN", 80].owner.endswith("main.<locals>.Echo") or "Echo" in rows["tcp", "LISTEN", 80].owner
        )
        assert "Echo" in rows["tcp", "ESTABLISHED", 80].owner
        assert rows["tcp", "LISTEN", 81].owner.startswith("asyncio.streams.")
        assert rows["tcp", "ESTABLISHED", port].owner == "asyncio.protocols.Protocol"
        assert rows["udp", "CLOSED", 53].owner == "asyncio.protocols.DatagramProtocol"
        assert rows["tcp", "ESTABLISHED", port].congestion
        assert set(rows["tcp", "ESTABLISHED", port].options) == {"ts", "sack", "wscale"}
        assert rows["tcp", "LISTEN", 80].tx_queue == 100
        assert await machine.net.resolve("localhost") == ["::1", "127.0.0.1"]
        for each in (server, streams, transport, datagrams):
            each.close()

    machine.run(main())


def test_machine_net_shows_the_next_timer(machine: Machine) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        connecting = loop.create_task(loop.create_connection(asyncio.Protocol, "10.0.2.77", 80))
        await asyncio.sleep(0)
        await asyncio.sleep(0.005)
        row = next(row for row in machine.net.sockets() if row.type == "tcp")
        assert (row.state, row.timer) == ("SYN-SENT", "on")
        assert 0 < row.timer_left <= 1_000_000_000
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)

    machine.run(main())
