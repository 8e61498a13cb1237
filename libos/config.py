"""What a machine is to be: one frozen struct, from ``machine.toml``, the command line or keyword arguments.

:func:`configure` lays sources over one another (the later wins) and is the only door: it knows every key, converts
each value on its own, and raises :class:`~libos.errors.ConfigError` with the source, the key, the value and what is
allowed. What it returns needs no further checks. Keys are the same everywhere; ``spin-us`` and ``spin_us`` are one.

Value types parse themselves (``parse(text)``, raising ValueError) and stay plain ``str``, ``int`` or small frozen
records, so that the rest of libos need not know this module.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta

from libos.errors import ConfigError
from libos.net.link.impairment import Impairment

__all__ = [
    "Address",
    "Domain",
    "HostTable",
    "Interface",
    "MachineConfig",
    "Publish",
    "Size",
    "Source",
    "configure",
    "read_toml",
]


class Address(str):
    """An IPv4 or IPv6 address in its canonical text."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Address:
        if "%" in text:  # a machine has one link
            raise ValueError("no scope is needed")
        return cls(ipaddress.ip_address(text))


class Interface(str):
    """An address with its prefix length, ``10.0.0.2/24``. There is no default prefix: guessing has bitten everybody.

    Or who is to be asked for one: ``dhcp`` (IPv4), ``auto`` (IPv6: routers, and DHCPv6 where they say so).
    """

    __slots__ = ()

    @property
    def static(self) -> bool:
        return "/" in self

    @classmethod
    def parse(cls, text: str) -> Interface:
        if text in ("dhcp", "auto"):
            return cls(text)
        address, slash, prefix = text.partition("/")
        if not slash or not prefix.isdecimal():
            raise ValueError("no prefix length")
        return cls(ipaddress.ip_interface(f"{address}/{int(prefix)}"))


class Domain(str):
    """A domain name, without a dot at its end."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Domain:
        if len(text) > 253 or not re.fullmatch(r"(?!-)[\w-]{1,63}(\.(?!-)[\w-]{1,63})*\.?", text):
            raise ValueError("not a domain name")
        return cls(text.rstrip(".").lower())


class HostTable(tuple[tuple[str, str], ...]):
    """Names with their addresses: ``{"db.test": ["10.0.0.5", "fd00::5"]}``, or ``db.test=10.0.0.5`` several times."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: Mapping[str, str | list[str]] | list[str] | tuple[str, ...] | str) -> HostTable:
        if isinstance(value, str):
            value = [value]
        items = value.items() if isinstance(value, Mapping) else [part.partition("=")[::2] for part in value]
        return cls(
            (Domain.parse(name), Address.parse(address.strip()))
            for name, addresses in items
            for address in (addresses.split(",") if isinstance(addresses, str) else addresses)
        )

    def addresses(self) -> dict[str, list[str]]:
        """By name."""
        table: dict[str, list[str]] = {}
        for name, address in self:
            table.setdefault(name, []).append(address)
        return table


class Size(int):
    """Bytes; ``K``, ``M`` and ``G`` are powers of 1024."""

    @classmethod
    def parse(cls, value: str | int) -> Size:
        if isinstance(value, int):
            return cls(value)
        match = re.fullmatch(r"(\d+)\s*([KMG]?)(i?B)?", value.strip(), re.IGNORECASE)
        if match is None:
            raise ValueError("not a size")
        return cls(int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()])


@dataclass(frozen=True, slots=True)
class Publish:
    """A host port that leads to a port of the machine. ``address`` None: the loopback, 127.0.0.1 and ::1."""

    address: str | None
    host: int  # 0: one that the host chooses
    guest: int
    protocol: Literal["tcp", "udp"] = "tcp"

    @classmethod
    def parse(cls, text: str) -> Publish:
        """``[ADDR:]HOST:GUEST[/tcp|/udp]``; an IPv6 ADDR stands in brackets."""
        match = re.fullmatch(r"(?:(\[[0-9a-fA-F:.]+\]|[\d.]+):)?(\d{1,5}):(\d{1,5})(?:/(tcp|udp))?", text)
        if match is None:
            raise ValueError("not [ADDR:]HOST:GUEST")
        address = match[1] and str(ipaddress.ip_address(match[1].strip("[]")))
        host, guest = int(match[2]), int(match[3])
        if host > 65535 or not 0 < guest <= 65535:
            raise ValueError("no such port")
        return cls(address, host, guest, "udp" if match[4] == "udp" else "tcp")

    def __str__(self) -> str:
        address = "" if self.address is None else f"[{self.address}]:" if ":" in self.address else f"{self.address}:"
        return f"{address}{self.host}:{self.guest}" + ("/udp" if self.protocol == "udp" else "")


_TIME = MappingProxyType({"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9})
_RATE = MappingProxyType({"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9})


IMPAIRMENT = (
    "loss=2%,burst=3,delay=5ms,jitter=1ms,order=keep,reorder=5%,duplicate=1%,corrupt=0.1%,rate=100mbit,buffer=20ms,"
    "bucket=64K,queue=1000,seed=7"
)


def parse_impairment(value: str | Mapping[str, object]) -> Impairment:
    """What ``IMPAIRMENT`` shows, or the same as a TOML table. ``buffer`` and ``bucket`` are times, or sizes that the
    rate turns into times."""
    if isinstance(value, str):
        items = [(key.strip(), text.strip()) for key, _, text in (part.partition("=") for part in value.split(","))]
    else:
        items = [(key, str(text)) for key, text in value.items()]
    settings: dict[str, Any] = {}
    for key, text in sorted(items, key=lambda item: item[0] != "rate"):  # the rate first, for what counts by it
        if key in ("loss", "reorder", "duplicate", "corrupt"):
            settings[key] = _number(text, {"%": 10_000}, limit=1_000_000) / 1e6
        elif key in ("delay", "jitter"):
            settings[key] = _number(text, _TIME)
        elif key == "rate":
            settings[key] = _number(text, _RATE)
        elif key in ("buffer", "bucket"):
            settings[key] = _time_at(text, settings.get("rate", 0))
        elif key == "order" and text == "keep":
            settings["keep_order"] = True
        elif key in ("burst", "queue", "seed") and text.isdecimal():
            settings[key] = int(text)
        else:
            raise ValueError(f"{key}={text} is no impairment")
    return Impairment(**settings)


def _time_at(text: str, rate: int) -> int:
    """A time, or the time that so many bytes take at ``rate``: ns."""
    if re.fullmatch(r"[\d.]+\s*(ns|us|ms|s)", text):
        return _number(text, _TIME)
    if not rate:
        raise ValueError(f"{text!r} is no time, and for a size there must be a rate")
    return Size.parse(text) * 8 * 10**9 // rate


def _number(text: str, units: Mapping[str, int], limit: int = 2**63) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z%]+)", text)
    if match is None or match[2] not in units:
        raise ValueError(f"{text!r} is not a number with one of the units {', '.join(units)}")
    number = round(float(match[1]) * units[match[2]])
    if number > limit:
        raise ValueError(f"{text!r} is too much")
    return number


class MachineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of ``machine.toml``. Each description is what the error message says is allowed."""

    net: Annotated[
        Literal["host", "user", "tap", "pair"], Meta(description="host, user or tap (or pair: see Machine.pair)")
    ] = "user"
    publish: Annotated[
        tuple[Publish, ...], Meta(description="[ADDR:]HOST:GUEST[/tcp|/udp] with ports up to 65535")
    ] = ()
    ip: Annotated[
        tuple[Interface, ...],
        Meta(description="ADDR/PREFIX, as 10.0.0.2/24 or fd00::2/64; in world tap also dhcp, auto"),
    ] = ()
    gateway: Annotated[tuple[Address, ...], Meta(description="an IPv4 or IPv6 address, at most one of each")] = ()
    dns: Annotated[tuple[Address, ...], Meta(description="IPv4 or IPv6 addresses of name servers")] = ()
    search: Annotated[tuple[Domain, ...], Meta(description="domains, as example.org")] = ()
    ndots: Annotated[
        int, Meta(ge=0, le=15, description="0 to 15 (dots from which on a name is tried as it is first)")
    ] = 1
    hosts: Annotated[
        HostTable, Meta(description="a table of names, each with an address or a list of them, or NAME=ADDR[,ADDR]")
    ] = HostTable()
    hosts_file: Annotated[str, Meta(description="the name of a file as /etc/hosts")] = ""
    mtu: Annotated[Annotated[int, Meta(ge=1280, le=65520)] | None, Meta(description="1280 to 65520 (bytes)")] = (
        None  # the world's
    )
    tap: Annotated[str, Meta(description="a name of 1 to 15 letters, digits, '-', '_' or '.'")] = ""
    spin_us: Annotated[int, Meta(ge=0, le=1_000_000, description="0 to 1000000 (microseconds)")] = 0
    reactor: Annotated[Literal["auto", "io_uring", "epoll"], Meta(description="auto, io_uring or epoll")] = "auto"
    pcap: Annotated[str, Meta(description="the name of a file to write")] = ""
    impair: Annotated[
        Impairment | None,
        Meta(description=IMPAIRMENT),
    ] = None
    memory: Annotated[Size, Meta(description="bytes, or a number with K, M or G; at least 16M")] = Size(256 << 20)
    sockets: Annotated[int, Meta(ge=16, le=1 << 20, description="16 to 1048576")] = 65536
    rcvbuf: Annotated[Size, Meta(description="bytes, or a number with K, M or G; 4K to 64M")] = Size(128 << 10)
    sndbuf: Annotated[Size, Meta(description="bytes, or a number with K, M or G; 4K to 64M")] = Size(256 << 10)
    rcvbuf_max: Annotated[Size, Meta(description="bytes, or a number with K, M or G; 4K to 64M")] = Size(16 << 20)
    sndbuf_max: Annotated[Size, Meta(description="bytes, or a number with K, M or G; 4K to 64M")] = Size(16 << 20)
    notsent_lowat: Annotated[Size, Meta(description="bytes, or a number with K, M or G; 0: no limit; up to 64M")] = (
        Size(0)
    )
    mtu_probing: Annotated[Literal[0, 1, 2], Meta(description="0 off, 1 where a path is smaller, 2 always")] = 1
    congestion: Annotated[Literal["cubic", "reno"], Meta(description="cubic or reno")] = "cubic"
    ecn: Annotated[
        int, Meta(ge=0, le=2, description="0 (off), 1 (asked for) or 2 (only where the peer asks), as net.ipv4.tcp_ecn")
    ] = 2
    seed: Annotated[int | None, Meta(description="a number; the same one makes the same choices")] = None


class Source(NamedTuple):
    """Settings, and how to show a reader one of them."""

    settings: Mapping[str, object]
    show: Callable[[str, object], str] = lambda key, value: f"{key}={value!r}"

    @classmethod
    def command_line(cls, settings: Mapping[str, object]) -> Source:
        """Options by their Python names; those that were not given (None, empty) are left out."""
        given = {key: value for key, value in settings.items() if value is not None and value != ()}
        return cls(given, lambda key, value: f"--{key.replace('_', '-')} {value}")


def read_toml(path: str | Path) -> Source:
    """The settings in a TOML file."""
    import tomllib  # most runs have none

    try:
        settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: not TOML: {error}") from None
    return Source(settings, lambda key, value: f"{path}: {key} = {value!r}")


def configure(*sources: Source, **settings: object) -> MachineConfig:
    """Lay ``sources``, then ``settings``, over the defaults. Raises ConfigError."""
    hints = get_type_hints(MachineConfig, include_extras=True)
    values: dict[str, Any] = {}
    for source in (*sources, Source(settings)):
        for key, value in source.settings.items():
            name = key.replace("-", "_")
            if name not in hints:
                raise ConfigError(_unknown(source, key, value, list(hints)))
            values[name] = _convert(source, name, value, hints[name])
    return MachineConfig(**values)


# Keys whose values parse themselves; msgspec converts the others. Those in _SEVERAL may be given more than once.
_PARSERS: Mapping[str, Callable[[Any], object]] = MappingProxyType(
    {
        "publish": Publish.parse,
        "ip": Interface.parse,
        "gateway": Address.parse,
        "dns": Address.parse,
        "search": Domain.parse,
        "hosts": HostTable.parse,
        "impair": parse_impairment,
        "memory": Size.parse,
        "rcvbuf": Size.parse,
        "sndbuf": Size.parse,
        "rcvbuf_max": Size.parse,
        "sndbuf_max": Size.parse,
        "notsent_lowat": Size.parse,
    }
)
_SEVERAL = frozenset({"publish", "ip", "gateway", "dns", "search"})

# What a type cannot say.
_LIMITS: Mapping[str, Callable[[Any], object]] = MappingProxyType(
    {
        "gateway": lambda addresses: len({":" in address for address in addresses}) == len(addresses),
        "tap": lambda name: re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", name),
        "pcap": lambda name: name and "\0" not in name,
        "hosts_file": lambda name: name and "\0" not in name,
        "memory": lambda size: 16 << 20 <= size < 1 << 48,  # a TAP alone keeps 4 MiB ready to receive into
        "rcvbuf": lambda size: 4 << 10 <= size <= 64 << 20,
        "sndbuf": lambda size: 4 << 10 <= size <= 64 << 20,
        "rcvbuf_max": lambda size: 4 << 10 <= size <= 64 << 20,
        "sndbuf_max": lambda size: 4 << 10 <= size <= 64 << 20,
        "notsent_lowat": lambda size: size <= 64 << 20,
        "seed": lambda seed: seed is None or seed >= 0,
    }
)


def _convert(source: Source, key: str, value: Any, hint: Any) -> object:
    parse = _PARSERS.get(key)
    given = value
    try:
        if key in _SEVERAL:
            converted: Any = []
            for given in value if isinstance(value, list | tuple) else (value,):
                converted.append(_parse(parse, given))
            converted, given = tuple(converted), value
        elif parse is not None:
            converted = value if value is None else _parse(parse, value)
        else:
            converted = msgspec.convert(value, hint, strict=False)
        if not _LIMITS.get(key, lambda _: True)(converted):
            raise ValueError
    except (ValueError, TypeError, AttributeError) as error:  # msgspec.ValidationError is a ValueError
        why = f"{error}; " if key == "impair" and isinstance(error, ValueError) else ""
        given = ", ".join(map(str, given)) if isinstance(given, list | tuple) else given
        raise ConfigError(f"{source.show(key, given)}: {why}allowed: {hint.__metadata__[0].description}") from None
    return converted


def _parse(parse: Any, value: object) -> object:
    done = Impairment if parse is parse_impairment else parse.__self__  # what it makes, which may be given as it is
    return value if isinstance(value, done) else parse(value)


def _unknown(source: Source, key: str, value: object, known: list[str]) -> str:
    import difflib  # only on the way to an error

    near = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(known)}"
    return f"{source.show(key, value)}: unknown key {key!r}, {hint}"
