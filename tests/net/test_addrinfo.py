"""getaddrinfo(3) beside glibc's, wherever nobody needs to be asked; the hosts table; RFC 6724."""

from __future__ import annotations

import ipaddress
import itertools
import socket
from typing import Any

import pytest

from libos.net.names import addrinfo
from libos.net.names.addrinfo import Wanted
from libos.net.names.hosts import Host, Hosts, read_hosts
from libos.net.names.order import sorted_addresses

HOSTS = [
    "127.0.0.1", "127.1", "0x7f.1", "0177.0.0.1", "1", "1.2.3.4.5", "1.2.3.256", "10.0.0.1 ", "::1", "::ffff:1.2.3.4",
    "fe80::1%2", "fe80::1%0", "FE80::0:1", "fe80::1%", "fe80::1%zz", "2001:db8::1", "not-numeric", b"10.0.0.1",
    "1.2.3.4%2", "08.1.1.1", "0x.1", "4294967296", "", "255.255.255.255",
]  # fmt: skip
FAMILIES = [socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6, socket.AF_UNIX]
FLAGS = [
    socket.AI_NUMERICHOST,
    socket.AI_NUMERICHOST | socket.AI_CANONNAME,
    socket.AI_NUMERICHOST | socket.AI_V4MAPPED,
    socket.AI_NUMERICHOST | socket.AI_V4MAPPED | socket.AI_ALL,
    socket.AI_NUMERICHOST | socket.AI_PASSIVE | socket.AI_NUMERICSERV,
    socket.AI_NUMERICHOST | 1 << 20,
]
SERVICES = [80, None, "", "80", "http", b"http", "domain", "ssh", "no-such-service", "syslog", "65535"]
KINDS = [
    (0, 0), (socket.SOCK_STREAM, 0), (socket.SOCK_DGRAM, 0), (0, socket.IPPROTO_UDP), (0, socket.IPPROTO_TCP),
    (socket.SOCK_STREAM, socket.IPPROTO_UDP), (77, 0),
]  # fmt: skip


def ours(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
    try:
        wanted = Wanted.of(host, port, family, type, proto, flags, lambda: {socket.AF_INET, socket.AF_INET6})
        found = addrinfo.known(wanted, Hosts())
        assert found is not None
        return addrinfo.infos(wanted, found, lambda address: None)
    except socket.gaierror as error:
        return error.errno


def glibc(*args: Any) -> Any:
    try:
        return [info for info in socket.getaddrinfo(*args) if info[1] != socket.SOCK_RAW]
    except socket.gaierror as error:
        return error.errno


@pytest.mark.parametrize("host", HOSTS, ids=repr)
def test_addresses_as_glibc_reads_them(host: Any) -> None:
    for family, flags in itertools.product(FAMILIES, FLAGS):
        case = (host, 80, family, socket.SOCK_STREAM, 0, flags)
        assert ours(*case) == glibc(*case), case


@pytest.mark.parametrize("port", SERVICES, ids=repr)
def test_services_as_glibc_knows_them(port: Any) -> None:
    for (type, proto), flags in itertools.product(KINDS, (0, socket.AI_NUMERICSERV)):
        case = ("10.0.0.1", port, socket.AF_INET, type, proto, flags)
        assert ours(*case) == glibc(*case), case


def test_no_host_as_glibc_has_it() -> None:
    for family, flags in itertools.product(FAMILIES, (0, socket.AI_PASSIVE, socket.AI_CANONNAME)):
        for port in (80, None, "http"):
            case = (None, port, family, socket.SOCK_STREAM, 0, flags)
            theirs = glibc(*case)
            if not isinstance(theirs, int):  # glibc sorts as this host's addresses are, which is another's
                theirs.sort()
                assert sorted(ours(*case)) == theirs, case
            else:
                assert ours(*case) == theirs, case


def test_addresses_come_once_and_only_the_first_has_the_canonical_name() -> None:
    wanted = Wanted.of("n", 80, 0, 0, 0, socket.AI_CANONNAME, set)
    found = addrinfo.Found(["192.0.2.1", "192.0.2.2", "192.0.2.1"], "canon.test")
    infos = addrinfo.infos(wanted, found, lambda address: None)
    assert [(info[1], info[3], info[4][0]) for info in infos] == [
        (socket.SOCK_STREAM, "canon.test", "192.0.2.1"),
        (socket.SOCK_DGRAM, "", "192.0.2.1"),
        (socket.SOCK_STREAM, "", "192.0.2.2"),
        (socket.SOCK_DGRAM, "", "192.0.2.2"),
    ]


@pytest.mark.parametrize("port", [-1, 65536, 1 << 70])
def test_a_port_that_is_none(port: int) -> None:
    with pytest.raises(OverflowError):
        ours("10.0.0.1", port)


# --- the hosts table -----------------------------------------------------------------------------------------------

FILE = """
# a comment
127.0.0.1   localhost box   # another
10.0.0.5    db.test db
fd00::5     DB.test.
fe80::7%eth0 near
not-an-address x
10.0.0.6
10.0.0.5    db
"""


def test_a_hosts_file() -> None:
    hosts = Hosts({"db": ["10.9.9.9"]}, read_hosts(FILE))
    assert hosts.find("DB.test.") == Host("db.test", ("10.0.0.5", "fd00::5"))
    assert hosts.find("db") == Host("db", ("10.9.9.9", "10.0.0.5"))  # the configuration's first
    assert hosts.find("box") == Host("localhost", ("127.0.0.1",))
    assert hosts.find("near") == Host("near", ("fe80::7",))
    assert hosts.find("localhost") == Host("localhost", ("127.0.0.1", "::1"))
    assert hosts.find("a.localhost") == Host("a.localhost", ("127.0.0.1", "::1"))
    assert hosts.find("not-an-address") is hosts.find("x") is hosts.find("localhost.test") is None
    assert (hosts.name_of("10.0.0.5"), hosts.name_of("127.9.9.9"), hosts.name_of("10.0.0.6")) == (
        "db.test",
        "localhost",
        None,
    )


def test_localhost_can_be_told_otherwise() -> None:
    assert Hosts({"localhost": ["10.0.0.1"]}).find("localhost") == Host("localhost", ("10.0.0.1",))


# --- RFC 6724, section 10.2: its examples, and the rules one by one --------------------------------------------------


def order(destinations: list[str], sources: list[str], deprecated: str = "") -> list[str]:
    """With a machine that has these sources; each destination gets the one of its family and scope, or the first."""

    def source(destination: str) -> tuple[str, int, bool] | None:
        to = ipaddress.ip_address(destination)
        same = [s for s in map(ipaddress.ip_interface, sources) if s.version == to.version]
        same.sort(key=lambda s: (s.is_link_local != to.is_link_local, s.network.prefixlen == 0 or to not in s.network))
        if not same:
            return None
        prefix = same[0].network.prefixlen
        return str(same[0].ip), prefix, str(same[0].ip) == deprecated

    return sorted_addresses(destinations, source)


@pytest.mark.parametrize(
    ("destinations", "sources", "first"),
    [
        (["2001:db8:1::1", "198.51.100.121"], ["2001:db8:1::2/64", "fe80::1/64", "169.254.13.78/16"], "2001:db8:1::1"),
        (["2001:db8:1::1", "198.51.100.121"], ["fe80::1/64", "198.51.100.117/24"], "198.51.100.121"),
        (["2001:db8:1::1", "10.1.2.3"], ["2001:db8:1::2/64", "fe80::1/64", "10.1.2.4/24"], "2001:db8:1::1"),
        (["2001:db8:1::1", "fe80::1"], ["2001:db8:1::2/64", "fe80::2/64"], "fe80::1"),
    ],
)
def test_rfc6724_10_2_examples(destinations: list[str], sources: list[str], first: str) -> None:
    assert order(destinations, sources)[0] == order(destinations[::-1], sources)[0] == first


@pytest.mark.parametrize(
    ("rule", "destinations", "sources", "first"),
    [
        ("1", ["2001:db8::1", "192.0.2.1"], ["192.0.2.2/24"], "192.0.2.1"),
        ("5", ["2001:db8::1", "192.0.2.1"], ["fd00::1/64", "192.0.2.2/24"], "192.0.2.1"),
        ("5", ["2001:db8::1", "2002:c633:6401::1"], ["2002:c633:6401::2/48"], "2002:c633:6401::1"),
        ("6", ["192.0.2.1", "2001:db8::1"], ["2001:db8::2/64", "192.0.2.2/24"], "2001:db8::1"),
        ("6", ["fd00::1", "2001:db8::1"], ["2001:db8::2/64"], "2001:db8::1"),
        ("9", ["2001:db8:ffff::1", "2001:db8:1::1"], ["2001:db8:1::2/64"], "2001:db8:1::1"),
    ],
)
def test_rfc6724_6_rules(rule: str, destinations: list[str], sources: list[str], first: str) -> None:
    assert order(destinations, sources)[0] == order(destinations[::-1], sources)[0] == first


def test_rfc6724_6_rule_3_avoids_deprecated_sources() -> None:
    destinations, sources = ["2001:db8::1", "192.0.2.1"], ["2001:db8::2/64", "192.0.2.2/24"]
    assert order(destinations, sources, "2001:db8::2")[0] == "192.0.2.1"


def test_rfc6724_6_rule_9_goes_no_further_than_the_prefix_and_rule_10_keeps_the_rest() -> None:
    """Beyond it bits mean nothing; IPv4 keeps its round-robin."""
    destinations = ["2001:db8::ff", "2001:db8::3", "192.0.2.200", "192.0.2.3"]
    assert order(destinations, ["2001:db8::2/64", "192.0.2.2/24"]) == destinations
