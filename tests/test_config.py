"""Configuration: what is accepted and what it becomes; what is refused, and whether the message helps."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libos.config import MachineConfig, Publish, Size, Source, configure, read_toml
from libos.errors import ConfigError
from libos.net.link.impairment import Impairment


def test_defaults_are_an_unprivileged_machine() -> None:
    assert configure() == MachineConfig()
    assert MachineConfig().net == "user"


@pytest.mark.parametrize(
    ("key", "given", "wanted"),
    [
        ("net", "tap", "tap"),
        ("mtu", "1400", 1400),
        ("mtu", 65520, 65520),
        ("spin_us", "50", 50),
        ("spin-us", 50, 50),
        ("memory", "64M", 64 << 20),
        ("memory", "1 GiB", 1 << 30),
        ("rcvbuf", 4096, 4096),
        ("rcvbuf_max", "8M", 8 << 20),
        ("sndbuf_max", "64K", 64 << 10),
        ("notsent_lowat", "16K", 16 << 10),
        ("mtu_probing", 2, 2),
        ("ip", "10.0.0.2/24", ("10.0.0.2/24",)),
        ("ip", ["10.0.0.2/24", "FD00:0::2/64"], ("10.0.0.2/24", "fd00::2/64")),
        ("gateway", ["10.0.0.1", "fd00::1"], ("10.0.0.1", "fd00::1")),
        ("publish", "8080:80", (Publish(None, 8080, 80),)),
        ("publish", ["0.0.0.0:8080:80/tcp", "[::1]:53:53/udp"], None),
        ("publish", "0:80", (Publish(None, 0, 80),)),
        ("search", ["Example.ORG.", "corp"], ("example.org", "corp")),
        ("ndots", "5", 5),
        ("hosts", {"DB.test": "10.0.0.5", "web": ["10.0.0.6", "FD00::6"]}, None),
        ("hosts", ["db.test=10.0.0.5", "web=10.0.0.6, fd00::6"], None),
        ("reactor", "epoll", "epoll"),
        ("congestion", "reno", "reno"),
        ("ecn", "1", 1),
        ("seed", "7", 7),
        ("seed", None, None),
        ("impair", "loss=2%, delay=5ms", Impairment(loss=0.02, delay=5_000_000)),
        ("impair", {"loss": "2%", "seed": 7}, Impairment(loss=0.02, seed=7)),
        (
            "impair",
            "reorder=5%,duplicate=1%,corrupt=0.1%,jitter=100us,rate=100mbit,queue=7,seed=1",
            Impairment(reorder=0.05, duplicate=0.01, corrupt=0.001, jitter=100_000, rate=100_000_000, queue=7, seed=1),
        ),
        (
            "impair",
            "loss=1%,burst=3,jitter=1ms,order=keep,buffer=125K,rate=1mbit,bucket=2ms",
            Impairment(
                loss=0.01,
                burst=3,
                jitter=10**6,
                keep_order=True,
                buffer=125 * 1024 * 8 * 1000,
                rate=10**6,
                bucket=2 * 10**6,
            ),
        ),
    ],
)
def test_accepts(key: str, given: Any, wanted: Any) -> None:
    if wanted is None and key == "publish":
        wanted = (Publish("0.0.0.0", 8080, 80), Publish("::1", 53, 53, "udp"))
    if wanted is None and key == "hosts":
        wanted = (("db.test", "10.0.0.5"), ("web", "10.0.0.6"), ("web", "fd00::6"))
    assert getattr(configure(**{key: given}), key.replace("-", "_")) == wanted


@pytest.mark.parametrize(
    ("key", "given", "says"),
    [
        ("net", "vfio", "net='vfio': allowed: host, user or tap"),
        ("net", ["tap"], "allowed: host, user or tap"),
        ("mtu", 9, "mtu=9: allowed: 1280 to 65520"),
        ("mtu", "many", "allowed: 1280 to 65520"),
        ("ip", "10.0.0.2", "ip='10.0.0.2': allowed: ADDR/PREFIX"),
        ("ip", ["10.0.0.2/24", "10.0.0.3/33"], "ip='10.0.0.3/33'"),
        ("ip", "10.0.0.256/24", "allowed: ADDR/PREFIX"),
        ("ip", 7, "ip=7"),
        ("gateway", ["10.0.0.1", "10.0.0.9"], "at most one of each"),
        ("gateway", "fe80::1%eth0", "allowed"),
        ("dns", "one.one", "dns='one.one'"),
        ("publish", "80", "publish='80': allowed: [ADDR:]HOST:GUEST"),
        ("publish", "8080:0", "publish='8080:0'"),
        ("publish", "65536:80", "ports up to 65535"),
        ("publish", "8080:80/sctp", "/tcp|/udp"),
        ("publish", "999.0.0.1:80:80", "allowed"),
        ("publish", 8080, "publish=8080"),
        ("tap", "a/b", "1 to 15 letters"),
        ("tap", "x" * 16, "1 to 15 letters"),
        ("reactor", "kqueue", "auto, io_uring or epoll"),
        ("memory", "1M", "at least 16M"),
        ("memory", "much", "K, M or G"),
        ("pcap", "", "name of a file"),
        ("pcap", "a\0b", "name of a file"),
        ("congestion", "bbr", "congestion='bbr': allowed: cubic or reno"),
        ("ecn", 3, "ecn=3: allowed: 0 (off), 1"),
        ("seed", -1, "seed=-1"),
        ("impair", "loss=2", "'2' is not a number with one of the units %"),
        ("impair", "loss=101%", "too much"),
        ("impair", "los=2%", "los=2% is no impairment"),
        ("impair", "seed=x", "seed=x is no impairment"),
        ("impair", "delay=5", "units ns, us, ms, s"),
        ("impair", 5, "impair=5"),
        ("mtuu", 5, "unknown key 'mtuu', did you mean 'mtu'?"),
        ("spinus", 5, "did you mean 'spin_us'?"),
        ("zzz", 5, "the keys are net, publish"),
        ("search", "not a domain", "domains, as example.org"),
        ("ndots", 16, "0 to 15"),
        ("hosts", {"db.test": "10.0.0"}, "a table of names"),
        ("hosts", {"-": "10.0.0.1"}, "a table of names"),
        ("hosts", ["db.test"], "a table of names"),
        ("hosts", 7, "a table of names"),
        ("hosts-file", "", "the name of a file"),
    ],
)
def test_refuses_with_key_value_and_what_is_allowed(key: str, given: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configure(**{key: given})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_text('net = "tap"\nip = ["10.0.0.2/24"]\nspin-us = 5\n[impair]\nloss = "2%"\n')
    config = configure(read_toml(file), Source.command_line({"net": "user", "ip": (), "mtu": None, "spin_us": "9"}))
    assert (config.net, config.ip, config.mtu, config.spin_us) == ("user", ("10.0.0.2/24",), None, 9)
    assert config.impair == Impairment(loss=0.02)


def test_a_mistake_names_its_source(tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_text("mtu = 9\n")
    with pytest.raises(ConfigError, match=r"machine\.toml: mtu = 9: allowed"):
        configure(read_toml(file))
    with pytest.raises(ConfigError, match="--spin-us -1: allowed"):
        configure(Source.command_line({"spin_us": "-1"}))


@pytest.mark.parametrize(("text", "says"), [("mtu = ", "not TOML"), ("\xff", "not TOML"), (None, "No such file")])
def test_a_file_that_cannot_be_read(tmp_path: Path, text: str | None, says: str) -> None:
    file = tmp_path / "machine.toml"
    if text is not None:
        file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=says):
        read_toml(file)


@given(st.text())
def test_no_text_is_more_than_refused(text: str) -> None:
    for key in ("net", "publish", "ip", "gateway", "dns", "mtu", "tap", "memory", "pcap", "impair", "seed"):
        with contextlib.suppress(ConfigError):
            configure(**{key: text})


@given(
    st.builds(
        Publish,
        st.one_of(st.none(), st.ip_addresses().map(str)),
        st.integers(0, 65535),
        st.integers(1, 65535),
        st.sampled_from(["tcp", "udp"]),
    )
)
def test_publish_reads_what_it_writes(publish: Publish) -> None:
    assert Publish.parse(str(publish)) == publish


def test_sizes_are_powers_of_1024() -> None:
    assert [Size.parse(text) for text in ("1", "1K", "1m", "1G", "2 KiB")] == [1, 1 << 10, 1 << 20, 1 << 30, 2 << 10]
