"""``libos ss``: the sockets of running machines, with those options, columns and filters of ss(8) that make sense."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import click

from libos.look.command import Show, look_command, title
from libos.look.table import print_table

__all__ = ["ss"]

Row = Mapping[str, Any]
Test = Callable[[Row], bool]

# ss's words for states, and its groups of them.
_STATES: Mapping[str, str] = MappingProxyType(
    {
        "established": "ESTABLISHED",
        "syn-sent": "SYN-SENT",
        "syn-recv": "SYN-RECEIVED",
        "fin-wait-1": "FIN-WAIT-1",
        "fin-wait-2": "FIN-WAIT-2",
        "time-wait": "TIME-WAIT",
        "closed": "CLOSED",
        "close-wait": "CLOSE-WAIT",
        "last-ack": "LAST-ACK",
        "listening": "LISTEN",
        "closing": "CLOSING",
    }
)
_SHORT: Mapping[str, str] = MappingProxyType(
    {
        "ESTABLISHED": "ESTAB",
        "SYN-RECEIVED": "SYN-RECV",
        "CLOSED": "UNCONN",
    }
)
_BIG = frozenset(_STATES) - {"listening", "closed", "time-wait", "syn-recv"}
_GROUPS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "all": frozenset(_STATES),
        "connected": frozenset(_STATES) - {"listening", "closed"},
        "synchronized": frozenset(_STATES) - {"listening", "closed", "syn-sent"},
        "bucket": frozenset({"time-wait", "syn-recv"}),
        "big": _BIG,
    }
)
_INFINITE_SSTHRESH = 0x7FFFFFFF
FILTERS = "state NAME, sport :PORT, dport :PORT, src ADDR[/BITS], dst ADDR[/BITS]"


def read_filters(words: Sequence[str]) -> tuple[list[Test], bool]:
    """All of them must hold. And whether states are among them. Raises click.UsageError."""
    tests: list[Test] = []
    states: set[str] = set()
    rest = [word for word in words if word not in ("and", "=", "eq", "==")]
    if len(rest) % 2:
        raise click.UsageError(f"a filter is {FILTERS}; not {' '.join(words)}")
    for word, value in zip(rest[::2], rest[1::2], strict=True):
        if word == "state":
            states |= _read_states(value)
        elif word in ("sport", "dport"):
            tests.append(_port_test("local" if word == "sport" else "remote", value))
        elif word in ("src", "dst"):
            tests.append(_address_test("local" if word == "src" else "remote", value))
        else:
            raise click.UsageError(f"no filter {word!r}: a filter is {FILTERS}")
    if states:
        tests.append(lambda row: row["state"] in states)
    return tests, bool(states)


def _read_states(name: str) -> set[str]:
    names = _GROUPS.get(name, frozenset({name}))
    unknown = names - _STATES.keys()
    if unknown:
        known = ", ".join([*_STATES, *_GROUPS])
        raise click.UsageError(f"no state {name!r}: the states are {known}")
    return {_STATES[each] for each in names}


def _port_test(end: str, text: str) -> Test:
    port = text.removeprefix(":")
    if not port.isdecimal():
        raise click.UsageError(f"no port {text!r}: it is a number, as :80")
    return lambda row: bool(row[end][1] == int(port))


def _address_test(end: str, text: str) -> Test:
    try:
        network = ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        raise click.UsageError(f"no address {text!r}: as 10.0.0.1 or 10.0.0.0/8") from None

    def test(row: Row) -> bool:
        address = ipaddress.ip_address(row[end][0])
        return (getattr(address, "ipv4_mapped", None) or address) in network

    return test


def select(row: Row, *, tcp: bool, udp: bool, v4: bool, v6: bool, listening: bool, everything: bool) -> bool:
    """By ss's rules: of each type those with a peer, unless -l or -a say otherwise."""
    if (tcp or udp) and not (tcp if row["type"] == "tcp" else udp):
        return False
    if (v4 or v6) and not (v6 if ":" in row["local"][0] else v4):
        return False
    if everything:
        return True
    waits = row["state"] in ("LISTEN", "CLOSED")
    return waits if listening else not waits and row["state"] != "TIME-WAIT"


# --- one row -------------------------------------------------------------------------------------------------------


def endpoint(name: Sequence[Any]) -> str:
    host, port = name[:2]
    return f"[{host}]:{port or '*'}" if ":" in host else f"{host}:{port or '*'}"


def ms(ns: int) -> str:
    return f"{ns / 1e6:.3f}".rstrip("0").rstrip(".")


def timer(row: Row) -> str:
    left = row["timer_left"]
    when = f"{left / 1e9:.1f}sec" if left >= 1e9 else f"{ms(left)}ms"
    return f"timer:({row['timer']},{when},{row['backoff']})"


def information(row: Row) -> str:
    """As `ss -i` words it: times in ms, windows in segments, the rest in bytes."""
    mss = row["mss"] or 1
    words = [name for name in row["options"] if name != "wscale"]
    if row["congestion"]:
        words.append(row["congestion"])
    if "wscale" in row["options"]:
        words.append("wscale:{},{}".format(*row["wscale"]))
    words.append(f"rto:{ms(row['rto'])}")
    if row["backoff"]:
        words.append(f"backoff:{row['backoff']}")
    if row["srtt"]:
        words.append(f"rtt:{ms(row['srtt'])}/{ms(row['rttvar'])}")
    words += [f"mss:{row['mss']}", f"cwnd:{row['cwnd'] // mss}"]
    if row["ssthresh"] < _INFINITE_SSTHRESH:
        words.append(f"ssthresh:{row['ssthresh'] // mss}")
    for key, word in (("in_flight", "inflight"), ("sacked", "sacked"), ("lost", "lost"), ("retransmits", "retrans")):
        if row[key]:
            words.append(f"{word}:{row[key]}")
    return " ".join(words)


def cells(row: Row, *, info: bool, extended: bool, timers: bool) -> list[str]:
    """Its columns, and below them what -i shows."""
    found = [
        row["type"],
        _SHORT.get(row["state"], row["state"]),
        str(row["rx_queue"]),
        str(row["tx_queue"]),
        endpoint(row["local"]),
        endpoint(row["remote"]),
    ]
    more = []
    if timers and row["timer"]:
        more.append(timer(row))
    if extended:
        more += [f"sk:{row['id']:x}", *(["orphan"] if row["orphan"] else [])]
        more += [f"owner:{row['owner']}"] if row["owner"] else []
    if more:
        found.append(" ".join(more))
    if info and row["type"] == "tcp" and row["state"] != "LISTEN":
        found.append(information(row))
    return found


COLUMNS = ("Netid", "State", "Recv-Q", "Send-Q", "Local Address:Port", "Peer Address:Port")


@look_command("ss", "sockets")
@click.option("-t", "--tcp", is_flag=True, help="TCP sockets.")
@click.option("-u", "--udp", is_flag=True, help="UDP sockets.")
@click.option("-4", "--ipv4", "v4", is_flag=True, help="Of IPv4.")
@click.option("-6", "--ipv6", "v6", is_flag=True, help="Of IPv6.")
@click.option("-l", "--listening", is_flag=True, help="Those that wait for somebody, instead of connections.")
@click.option("-a", "--all", "everything", is_flag=True, help="Both.")
@click.option("-n", "--numeric", is_flag=True, help="Ports by their numbers: so they always are.")
@click.option("-i", "--info", is_flag=True, help="Round-trip time, windows, retransmissions: what TCP is doing.")
@click.option("-e", "--extended", is_flag=True, help="The socket's id, and the class that it serves.")
@click.option("-o", "--options", "timers", is_flag=True, help="The timer that goes off next.")
@click.option("-H", "--no-header", is_flag=True, help="No titles.")
@click.argument("filters", nargs=-1, metavar="[FILTER]...")
def ss(
    answers: list[dict[str, Any]],
    filters: tuple[str, ...],
    info: bool,
    extended: bool,
    timers: bool,
    no_header: bool,
    everything: bool,
    numeric: bool,
    **kinds: bool,
) -> Show:
    """Show the sockets of machines that run, as ss(8) shows the kernel's.

    \b
    libos ss                                  connections
    libos ss -tuiean                          everything that there is to know
    libos ss -tl                              who listens
    libos ss -ti state established dport :443
    libos ss -p hello_http src 10.0.0.0/8
    libos ss --json | jq '.[].sockets[].srtt'

    FILTER: state NAME, sport :PORT, dport :PORT, src ADDR[/BITS], dst ADDR[/BITS]; all that are given must hold. States
    are named as in ss(8): established, syn-sent … and the groups connected, synchronized, bucket, big, all.

    Recv-Q: bytes not read yet (LISTEN: connections not accepted yet). Send-Q: bytes not acknowledged yet (LISTEN: how
    many connections may wait). In what -i shows, times are ms, cwnd and ssthresh segments, the rest bytes.
    """
    tests, states = read_filters(filters)
    for said in answers:
        said["sockets"] = [
            row
            for row in said["sockets"] or ()
            if select(row, everything=everything or states, **kinds) and all(test(row) for test in tests)
        ]

    def show() -> None:
        for at, said in enumerate(answers):
            if not no_header:
                print("\n" * bool(at) + title(said["machine"]))
            if said["machine"]["world"] == "host":
                print("\tits sockets are the kernel's: ss -p shows them")
                continue
            rows = [cells(row, info=info, extended=extended, timers=timers) for row in said["sockets"]]
            print_table(COLUMNS, rows, right=("Recv-Q", "Send-Q"), header=not no_header)

    return show
