"""What `libos ss`, `nstat` and `ip` make of a machine's answers: options, filters, columns."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from libos.cli import cli
from libos.look import client
from libos.look.client import LookError

HOST = {"pid": 7, "program": "app.py", "world": "user", "reactor": "epoll", "addresses": ["10.0.2.15"], "uptime_ns": 5}


def row(**fields: Any) -> dict[str, Any]:
    return {
        "id": 0x100001, "type": "tcp", "state": "ESTABLISHED", "local": ["10.0.2.15", 80], "remote": ["10.0.2.2", 999],
        "rx_queue": 0, "tx_queue": 0, "srtt": 1_500_000, "rttvar": 750_000, "rto": 201_500_000, "cwnd": 14480,
        "ssthresh": 0x7FFFFFFF, "mss": 1448, "retransmits": 0, "congestion": "cubic",
        "options": ["ts", "sack", "wscale"],
        "wscale": [7, 5], "in_flight": 0, "sacked": 0, "lost": 0, "backoff": 0, "timer": "", "timer_left": 0,
        "orphan": False, "owner": "", **fields,
    }  # fmt: skip


SOCKETS = [
    row(state="LISTEN", local=["0.0.0.0", 80], remote=["0.0.0.0", 0], rx_queue=3, tx_queue=128, owner="a.Server"),
    row(),
    row(
        state="ESTABLISHED", local=["fd00::15", 443, 0, 0], remote=["fd00::2", 80, 0, 0], rx_queue=5, tx_queue=2896,
        timer="on", timer_left=1_600_000_000, backoff=2, in_flight=2896, sacked=1448, lost=1448, retransmits=3,
        ssthresh=28960, owner="b.Protocol", id=0x200002,
    ),
    row(state="TIME-WAIT", remote=["10.0.2.2", 998], timer="timewait", timer_left=59_000_000, orphan=True),
    row(type="udp", state="CLOSED", local=["::", 53, 0, 0], remote=["::", 0, 0, 0], congestion="", options=[]),
    row(type="udp", state="ESTABLISHED", local=["10.0.2.15", 5000], remote=["8.8.8.8", 53]),
]  # fmt: skip
ANSWER = {
    "machine": HOST,
    "sockets": SOCKETS,
    "counters": {"TcpInSegs": 5, "TcpRetransSegs": 0, "UdpNoPorts": 1},
    "addresses": {
        "1": [{"address": "127.0.0.1", "prefix": 8, "state": "preferred", "origin": "static", "rival": ""}],
        "2": [{"address": "10.0.2.15", "prefix": 24, "state": "duplicate", "origin": "static", "rival": "02:0:1"}],
    },
    "routes": [
        {"network": "10.0.2.0/24", "gateway": "", "interface": 2},
        {"network": "0.0.0.0/0", "gateway": "10.0.2.2", "interface": 2},
    ],
    "neighbours": {
        "2": [
            {"address": "10.0.2.2", "mac": "02:00:00:00:00:02", "state": "REACHABLE", "router": True, "held": 0},
            {"address": "10.0.2.9", "mac": "", "state": "INCOMPLETE", "router": False, "held": 1},
        ]
    },
}  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A command, with one machine that answers ANSWER."""

    def run(*args: str, answers: Any = None) -> Result:
        def look(which: str, show: tuple[str, ...], slow: Any) -> Any:
            found = json.loads(json.dumps([ANSWER] if answers is None else answers))
            return [{view: said[view] for view in ("machine", *show)} for said in found]

        monkeypatch.setattr(client, "look", look)
        return CliRunner().invoke(cli, args)

    return run


def shown(run: Callable[..., Result], *args: str) -> list[int]:
    """Which of SOCKETS."""
    result = run("ss", "--json", *args)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.output)[0]["sockets"]
    return [SOCKETS.index(each) for each in rows]


@pytest.mark.parametrize(
    ("args", "which"),
    [
        ("", [1, 2, 5]),
        ("-t", [1, 2]),
        ("-u", [5]),
        ("-l", [0, 4]),
        ("-tl", [0]),
        ("-a", [0, 1, 2, 3, 4, 5]),
        ("-4", [1, 5]),
        ("-6", [2]),
        ("-64", [1, 2, 5]),
        ("-tuan", [0, 1, 2, 3, 4, 5]),
        ("state time-wait", [3]),
        ("state listening", [0]),
        ("state connected -t", [1, 2, 3]),
        ("state big", [1, 2, 5]),
        ("state all sport :80", [0, 1, 3]),
        ("sport = :80", [1]),
        ("dport :80 and sport 443", [2]),
        ("src 10.0.0.0/8", [1, 5]),
        ("dst [fd00::2]", [2]),
        ("dst 8.8.8.8", [5]),
        ("-t dst 8.8.8.8", []),
    ],
)
def test_which_sockets(run: Callable[..., Result], args: str, which: list[int]) -> None:
    assert shown(run, *args.split()) == which


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("state", "a filter is state NAME"),
        ("colour red", "no filter 'colour'"),
        ("state open", "no state 'open': the states are established"),
        ("sport :http", "no port ':http': it is a number, as :80"),
        ("dst nowhere", "no address 'nowhere'"),
    ],
)
def test_filters_that_are_none(run: Callable[..., Result], args: str, says: str) -> None:
    result = run("ss", *args.split())
    assert result.exit_code == 2
    assert says in result.output


def test_columns_are_those_of_ss(run: Callable[..., Result]) -> None:
    assert run("ss", "-a").output == (
        "machine 7: app.py (world user, 10.0.2.15)\n"
        "Netid  State      Recv-Q  Send-Q  Local Address:Port  Peer Address:Port\n"
        "tcp    LISTEN          3     128  0.0.0.0:80          0.0.0.0:*\n"
        "tcp    ESTAB           0       0  10.0.2.15:80        10.0.2.2:999\n"
        "tcp    ESTAB           5    2896  [fd00::15]:443      [fd00::2]:80\n"
        "tcp    TIME-WAIT       0       0  10.0.2.15:80        10.0.2.2:998\n"
        "udp    UNCONN          0       0  [::]:53             [::]:*\n"
        "udp    ESTAB           0       0  10.0.2.15:5000      8.8.8.8:53\n"
    )


def test_below_the_columns_stands_what_i_e_and_o_ask_for(run: Callable[..., Result]) -> None:
    assert run("ss", "-tieoH", "sport", ":443").output == (
        "tcp  ESTAB  5  2896  [fd00::15]:443  [fd00::2]:80\n"
        "\t timer:(on,1.6sec,2) sk:200002 owner:b.Protocol\n"
        "\t ts sack cubic wscale:7,5 rto:201.5 backoff:2 rtt:1.5/0.75 mss:1448 cwnd:10 ssthresh:20 inflight:2896 "
        "sacked:1448 lost:1448 retrans:3\n"
    )
    assert "timer:(timewait,59ms,0) sk:100001 orphan" in run("ss", "-aoe").output


def test_several_machines_and_one_in_world_host(run: Callable[..., Result]) -> None:
    other = {"machine": {**HOST, "pid": 8, "world": "host", "addresses": []}, "sockets": None, "counters": None}
    output = run("ss", "-tl", answers=[ANSWER, other]).output
    assert "\n\nmachine 8: app.py (world host)\n\tits sockets are the kernel's: ss -p shows them\n" in output
    assert "its counters are the kernel's" in run("nstat", answers=[other]).output


def test_nstat(run: Callable[..., Result]) -> None:
    head = "#machine 7: app.py (world user, 10.0.2.15)\n"
    assert run("nstat").output == f"{head}{'TcpInSegs':<32}5\n{'UdpNoPorts':<32}1\n"
    assert run("nstat", "-z", "Tcp*").output == f"{head}{'TcpInSegs':<32}5\n{'TcpRetransSegs':<32}0\n"
    assert json.loads(run("nstat", "--json", "Udp*").output)[0]["counters"] == {"UdpNoPorts": 1}


def test_ip(run: Callable[..., Result]) -> None:
    assert run("ip").output == (
        "machine 7: app.py (world user, 10.0.2.15)\n"
        "addr 127.0.0.1/8 dev lo static preferred\n"
        "addr 10.0.2.15/24 dev if2 static duplicate taken by 02:0:1\n"
        "route 10.0.2.0/24 dev if2\n"
        "route default via 10.0.2.2 dev if2\n"
        "neigh 10.0.2.2 dev if2 lladdr 02:00:00:00:00:02 router REACHABLE\n"
        "neigh 10.0.2.9 dev if2 INCOMPLETE\n"
    )
    assert run("ip", "route").output.count("\n") == 3
    assert list(json.loads(run("ip", "neigh", "--json").output)[0]) == ["machine", "neighbours"]


def test_help_teaches(run: Callable[..., Result]) -> None:
    for command, words in (
        ("ss", ["libos ss -tuiean", "--json | jq", "FILTER: state NAME", "Recv-Q: bytes not read yet"]),
        ("nstat", ["libos nstat 'Tcp*Retrans*'"]),
        ("ip", ["libos ip neigh --json"]),
    ):
        text = run(command, "--help").output
        for word in [*words, "-p, --process PID|NAME"]:
            assert word in text


def test_a_table_on_a_terminal(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    """rich's, which folds what is too long for the window."""
    from libos.look import table

    class Terminal:
        @staticmethod
        def isatty() -> bool:
            return True

    monkeypatch.setattr(table, "sys", type("sys", (), {"stdout": Terminal}))
    monkeypatch.setenv("COLUMNS", "100")
    lines = run("ss", "-t").output.splitlines()
    assert lines[1].split("  ")[0] == "Netid"
    assert lines[3].startswith("tcp    ESTAB       5    2896  [fd00::15]:443")


def test_errors_are_libos_errors() -> None:
    from libos.errors import LibosError

    assert issubclass(LookError, LibosError)
