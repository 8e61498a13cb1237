"""The benchmark harness: its report's shape, its honesty about peers that break, and one short run of each kind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from libos.bench.cli import bench
from libos.bench.compile import build
from libos.bench.echo import Case, bench_echo, measure
from libos.bench.load import bench_load
from libos.bench.loop import LoopReport, LoopRow, bench_loop, loop_table
from libos.bench.loop_cases import CASES as LOOP_CASES
from libos.bench.loop_cases import LoopCase
from libos.bench.report import LeftOut, Report, Row, Sample
from libos.bench.segment import bench_segment
from libos.bench.servers import Peer, PeerError
from libos.bench.start import PHASES, bench_start
from libos.bench.testbed import Testbed
from libos.bench.web import bench_http
from libos.bench.web import measure as measure_http
from libos.errors import ConfigError, HostError

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is what asks (apt install wrk)")
needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="the peers are built with gcc")

SAMPLE = Sample(requests=1000, seconds=0.5, p50_ns=40_000, p99_ns=90_000, client_ns=5_000_000, server_ns=4_000_000)


def row(peer: str, *, slower: int = 1, case: str = "1x64") -> Row:
    sample = Sample(1000, 0.5, 40_000 * slower, 90_000, 5_000_000 * slower, 4_000_000 * slower)
    return Row.of(case, peer, 1, 64, [sample])


def test_a_row_is_the_median_of_each_figure() -> None:
    lucky = Sample(2000, 0.5, 20_000, 300_000, 8_000_000, 8_000_000)
    unlucky = Sample(100, 0.5, 900_000, 100_000, 10_000_000, 10_000_000)
    made = Row.of("1x64", "uvloop", 1, 64, [unlucky, SAMPLE, lucky])
    assert (made.rate, made.p50_us, made.p99_us) == (2000.0, 40.0, 100.0)
    assert (made.cpu_us, made.total_cpu_us) == (4.0, 9.0)


def test_json_has_the_shape_that_all_benchmarks_share() -> None:
    rows = [row("uvloop"), row("libos-tap", slower=2), row("uvloop", case="64x64")]
    report = json.loads(Report({"kernel": "6"}, rows, [LeftOut("tap-floor", "needs root")]).to_json())
    assert list(report) == ["host", "rows", "ratios", "left_out"]
    assert list(report["rows"][0]) == [
        *("case", "peer", "conns", "size", "rate", "p50_us", "p99_us", "cpu_us", "total_cpu_us", "samples")
    ]
    assert report["ratios"]["1x64"]["libos-tap"] == {
        figure: {"uvloop": 2.0} for figure in ("server_cpu", "total_cpu", "p50")
    }
    assert report["ratios"]["64x64"] == {"uvloop": {"server_cpu": {}, "total_cpu": {}, "p50": {}}}
    assert report["left_out"] == [{"what": "tap-floor", "why": "needs root"}]


def test_a_ratio_is_the_median_of_what_each_repetition_says() -> None:
    def measured(peer: str, *slower: int) -> Row:
        return Row.of("1x64", peer, 1, 64, [row(peer, slower=factor).samples[0] for factor in slower])

    # a machine that slows down, and one repetition that went wrong for one of them
    report = Report({}, [measured("uvloop", 1, 5, 9), measured("libos-tap", 2, 50, 18)])
    assert report.ratios()["1x64"]["libos-tap"]["total_cpu"] == {"uvloop": 2.0}  # of the medians it is 3.6


def test_streams_are_compared_with_streams_and_who_spins_with_who_spins() -> None:
    peers = ("uvloop", "uvloop-streams", "libos-tap", "libos-tap-streams", "tap-floor", "tap-floor-spin")
    rows = [row(peer, slower=slower) for slower, peer in enumerate([*peers, "libos-tap-spin"], 1)]
    ratios = {peer: found["total_cpu"] for peer, found in Report({}, rows).ratios()["1x64"].items()}
    assert ratios["libos-tap-streams"] == {"uvloop-streams": 2.0, "tap-floor": 0.8}
    assert ratios["libos-tap"] == {"uvloop": 3.0, "tap-floor": 0.6}
    assert ratios["libos-tap-spin"] == {"uvloop": 7.0, "tap-floor-spin": 1.167}
    assert ratios["uvloop-streams"] == {"tap-floor": 0.4}
    # without uvloop's streams there is nothing to compare streams with, though there is uvloop
    ratios = {p: found["p50"] for p, found in Report({}, [rows[0], rows[3]]).ratios()["1x64"].items()}
    assert ratios == {"uvloop": {}, "libos-tap-streams": {}}


@pytest.mark.parametrize("text", ["64", "0x64", "1x7", "1x65537", "16385x64", "-1x64", "1x64x1", "1 x 64"])
def test_a_bad_case_is_named_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--cases {text}: allowed: CONNSxBYTES"):
        Case.parse(text)


def test_no_compiler_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="install gcc"):
        build("echo_client")


@needs_compiler
def test_programs_are_built_once_and_outside_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = build("echo_client")
    assert tmp_path in program.parents
    stamp = program.stat().st_mtime_ns
    assert build("echo_client") == program
    assert program.stat().st_mtime_ns == stamp
    assert list(program.parent.iterdir()) == [program]


@needs_compiler
@pytest.mark.slow
def test_echo_over_the_loopback_needs_no_root() -> None:
    told: list[str] = []
    report = bench_echo(
        [Case(2, 4096)], ["c-epoll", "asyncio", "tap-floor"], seconds=0.1, repeat=2, root=False, progress=told.append
    )
    assert [(r.case, r.peer) for r in report.rows] == [("2x4096", "c-epoll"), ("2x4096", "asyncio")]
    assert all(0 < r.p50_us <= r.p99_us and 0 < r.cpu_us < r.total_cpu_us and r.rate > 100 for r in report.rows)
    assert LeftOut("tap-floor", "a TAP device needs root") in report.left_out
    assert report.host["kernel_wire"] == "loopback"
    assert not report.failures
    assert told == [f"2x4096 {peer} ({turn} of 2)" for turn in (1, 2) for peer in ("c-epoll", "asyncio")]


@needs_compiler
@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    file = tmp_path / "echo.json"
    command = ["echo", "--seconds", "0.1", "--repeat", "1", "--cases", "1x64", "--peers", "c-epoll,asyncio"]
    result = CliRunner().invoke(bench, [*command, "--json", str(file)])
    assert result.exit_code == 0, result.output
    assert "c-epoll" in result.output
    assert [r["peer"] for r in json.loads(file.read_text())["rows"]] == ["c-epoll", "asyncio"]


def test_the_command_refuses_an_unknown_peer() -> None:
    result = CliRunner().invoke(bench, ["echo", "--peers", "nginx"])
    assert isinstance(result.exception, ConfigError)
    assert "--peers nginx: allowed: c-epoll" in str(result.exception)


@needs_compiler
@pytest.mark.root
@pytest.mark.slow
def test_echo_over_veth_and_tap_leaves_no_link_behind() -> None:
    before = os.listdir("/sys/class/net")
    report = bench_echo(
        [Case(1, 64), Case(8, 16384)], ["c-epoll", "tap-floor", "tap-floor-spin"], seconds=0.1, repeat=1
    )
    assert [(r.case, r.peer) for r in report.rows] == [
        (case, peer) for case in ("1x64", "8x16384") for peer in ("c-epoll", "tap-floor", "tap-floor-spin")
    ]
    assert report.left_out == []
    assert "tap-floor" in report.ratios()["1x64"]["c-epoll"]["total_cpu"]
    assert os.listdir("/sys/class/net") == before


# What the harness must not report a figure for: servers that are wrong in one way each.
BAD_SERVER = """
import json, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
peer, _ = listener.accept()
for turn in range(10**9):
    data = bytearray(peer.recv(65536))
    if turn == 100:
        {BAD}
    peer.sendall(data)
"""


class BadPeer(Peer):
    def command(self, bed: Testbed, congestion: str) -> list[str]:
        return [sys.executable, "-c", BAD_SERVER.replace("{BAD}", self.what)]


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("deed", "verdict"),
    [
        ("data[0] ^= 1", "an answer differs from its message"),
        ("data += b'more'", "more bytes came back than were sent"),
        ("peer.shutdown(2)", r"the server closed a connection"),
        ("raise SystemExit('had enough')", r"the server closed a connection \(server: had enough\)"),
    ],
)
def test_a_broken_server_gives_no_figure(deed: str, verdict: str) -> None:
    with Testbed(namespaces=False) as bed, pytest.raises(PeerError, match=verdict):
        measure(build("echo_client"), BadPeer("bad", "python", "kernel", deed), bed, Case(1, 64), 0.5, "reno")


@needs_compiler
@pytest.mark.slow
def test_a_server_that_does_not_start_is_quoted() -> None:
    class Absent(Peer):
        def command(self, bed: Testbed, congestion: str) -> list[str]:
            return [sys.executable, "-c", "raise SystemExit('no such loop')"]

    with (
        Testbed(namespaces=False) as bed,
        pytest.raises(PeerError, match=r"the server did not start \(server: no such loop\)"),
    ):
        measure(build("echo_client"), Absent("bad", "python", "kernel", ""), bed, Case(1, 64), 0.1, "reno")


@needs_compiler
@pytest.mark.root
@pytest.mark.slow
def test_loads_over_veth_and_tap() -> None:
    peers = ["c-epoll", "asyncio", "libos-tap", "tap-floor"]
    report = bench_load(["up", "down", "connect"], peers, seconds=0.1, repeat=1)
    assert report.left_out == []
    assert [(row.case, row.peer) for row in report.rows] == [
        *((case, peer) for case in ("up", "down") for peer in peers),
        *(("connect", peer) for peer in peers[:-1]),
    ]
    assert all(row.rate > 10 and 0 < row.cpu_us < row.total_cpu_us for row in report.rows)
    assert set(report.ratios()["up"]["libos-tap"]) == {"c-epoll", "tap-floor"}


@needs_compiler
@pytest.mark.slow
def test_segments_cost_something() -> None:
    report = bench_segment(["64"], repeat=1)
    libos = next(row for row in report.rows if row.stack == "libos")
    assert 20 < libos.ns < 100_000
    assert not report.failures
    assert [item.what for item in report.left_out] in ([], ["lwip"])


def test_a_speed_is_the_median_of_what_was_measured_side_by_side() -> None:
    slow_machine_later = LoopRow("gather", "uvloop", 100.0, (10.0, 100.0, 1000.0))
    ours = LoopRow("gather", "libos-host", 100.0, (5.0, 100.0, 500.0))
    report = LoopReport({}, [slow_machine_later, ours])
    assert report.ratios() == {"gather": {"uvloop": {}, "libos-host": {"uvloop": 2.0}}}
    table = Console(width=80)
    with table.capture() as printed:
        table.print(loop_table(report))
    assert "100    2.00" in printed.get()


@pytest.mark.parametrize("case", LOOP_CASES.values(), ids=list(LOOP_CASES))
def test_a_round_calls_all_of_it_and_leaves_an_idle_loop(case: LoopCase) -> None:
    loop = asyncio.new_event_loop()
    try:
        run = LoopCase(case.name, case.what, 20, case.make).prepare(loop)
        for _ in range(2):
            run()
            assert not [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
            loop.call_soon(loop.stop)
            ready = len(loop._ready)  # type: ignore[attr-defined]
            loop.run_forever()
            assert ready == 1
    finally:
        loop.close()


@pytest.mark.slow
def test_loops_take_turns_and_the_cpu_is_given_back() -> None:
    before = os.sched_getaffinity(0)
    told: list[str] = []
    report = bench_loop(["soon-chain", "cancel"], ["asyncio", "libos-host-epoll"], repeat=2, progress=told.append)
    assert [(row.case, row.loop) for row in report.rows] == [
        (case, loop) for case in ("soon-chain", "cancel") for loop in ("asyncio", "libos-host-epoll")
    ]
    assert all(len(row.runs) == 2 and 20 < row.ns < 100_000 for row in report.rows)
    assert list(report.ratios()["cancel"]["libos-host-epoll"]) == ["asyncio"]
    assert len(told) == 2
    assert os.sched_getaffinity(0) == before


def test_the_help_names_every_case_of_the_loop() -> None:
    said = CliRunner().invoke(bench, ["loop", "--help"]).output
    for case in LOOP_CASES.values():
        assert f"{case.name:<14}{case.what}" in said


def test_no_wrk_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(bench, ["http"])
    assert isinstance(result.exception, HostError)
    assert str(result.exception) == "no wrk: install it (Debian: apt install wrk)"


@needs_wrk
@pytest.mark.slow
def test_http_over_the_loopback_needs_no_root() -> None:
    report = bench_http(["uvicorn"], ["asyncio", "libos-tap"], seconds=1, repeat=1, root=False)
    assert [(r.case, r.peer, r.conns, r.size) for r in report.rows] == [("uvicorn", "asyncio", 64, 6)]
    assert all(0 < r.p50_us <= r.p99_us and 0 < r.cpu_us < r.total_cpu_us and r.rate > 100 for r in report.rows)
    assert LeftOut("libos-tap", "a TAP device needs root") in report.left_out
    assert not report.failures


@needs_wrk
@pytest.mark.root
@pytest.mark.slow
def test_http_over_veth_and_tap() -> None:
    report = bench_http(["aiohttp"], ["uvloop", "libos-tap"], seconds=1, repeat=1)
    assert [row.peer for row in report.rows] == ["uvloop", "libos-tap"]
    assert report.left_out == []
    assert report.ratios()["aiohttp"]["libos-tap"]["total_cpu"]["uvloop"] < 3


# Answers each request with the status that it is started with, or with nothing.
BAD_HTTP_SERVER = """
import json, socket, sys, threading
listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
def serve(peer):
    while peer.recv(65536):
        if sys.argv[1] == "close":
            return peer.close()
        peer.sendall(f"HTTP/1.1 {sys.argv[1]}\\r\\nContent-Length: 0\\r\\n\\r\\n".encode())
while True:
    threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()
"""


@needs_wrk
@pytest.mark.slow
@pytest.mark.parametrize(
    ("deed", "verdict"), [("503 Busy", r"\d+ of \d+ requests failed"), ("close", r"requests failed")]
)
def test_a_broken_http_server_gives_no_figure(deed: str, verdict: str) -> None:
    class Bad(Peer):
        def command(self, bed: Testbed, congestion: str) -> list[str]:
            return [sys.executable, "-c", BAD_HTTP_SERVER, deed]

    with Testbed(namespaces=False) as bed, pytest.raises(PeerError, match=r"\d+ of \d+ requests failed"):
        measure_http("wrk", Bad("bad", "python", "kernel", ""), bed, 1, "reno")


@pytest.mark.slow
def test_starts_are_told_in_phases() -> None:
    told: list[str] = []
    report = bench_start(["asyncio", "libos-host-epoll"], repeat=1, progress=told.append)
    assert not report.failures
    assert [row.program for row in report.rows] == ["asyncio", "libos-host-epoll"]
    assert [row.cpu_over_ms == 0 for row in report.rows] == [True, False]
    assert all(0 < row.cpu_ms < 5000 and tuple(row.phases_ms) == PHASES for row in report.rows)
    assert all(min(row.phases_ms.values()) > 0 for row in report.rows)
    assert len(told) == 2


def test_a_program_that_fails_has_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {
        "good": ("asyncio", "asyncio.run(main())", "asyncio.new_event_loop"),
        "bad": ("asyncio", "1 / 0", "None"),
    }
    monkeypatch.setattr("libos.bench.start.PROGRAMS", programs)
    report = bench_start(["good", "bad"], repeat=1)
    assert [row.program for row in report.rows] == ["good"]
    assert report.left_out == [LeftOut("bad", "failed: ZeroDivisionError: division by zero")]
    assert report.failures == 1
    assert report.rows[0].wall_over_ms is report.rows[0].cpu_over_ms is None
