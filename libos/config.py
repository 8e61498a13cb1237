"""What a machine is to be: one frozen record, from ``machine.toml``, the command line or keyword arguments.

:func:`configure` lays sources over one another (the later wins) and is the only door: it knows every key, converts
each value on its own, and raises :class:`~libos.errors.ConfigError` with the source, the key, the value and what is
allowed. What it returns needs no further checks. Keys are the same everywhere; ``spin-us`` and ``spin_us`` are one.

Value types parse themselves (``parse(text)``, raising ValueError) and stay plain ``str``, ``int`` or small frozen
records, so that the rest of libos need not know this module. Every program that says ``libos.run()`` waits for this
module to be imported: what not all of them need is imported where it is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from libos.errors import ConfigError
from libos.net.link.impairment import Impairment

if TYPE_CHECKING:
    from pathlib import Path

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
        import ipaddress

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
        import ipaddress

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


class Publish(NamedTuple):
    """A host port that leads to a port of the machine. ``address`` None: the loopback, 127.0.0.1 and ::1."""

    address: str | None
    host: int  # 0: one that the host chooses
    guest: int
    protocol: Literal["tcp", "udp"] = "tcp"

    @classmethod
    def parse(cls, text: str) -> Publish:
        """``[ADDR:]HOST:GUEST[/tcp|/udp]``; an IPv6 ADDR stands in brackets."""
        import ipaddress

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
    "loss=2%,burst=3,delay=5ms,jitter=1ms,distribution=normal,order=keep,reorder=5%,duplicate=1%,corrupt=0.1%,rate=100mbit,buffer=20ms,"
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
        elif key == "distribution" and text in ("uniform", "normal", "pareto"):
            settings[key] = text
        elif key == "queue" and not text.isdecimal():
            settings["queue_bytes"] = Size.parse(text)
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


class MachineConfig(NamedTuple):
    """The keys of ``machine.toml``; ``_KEYS`` says of each what is allowed."""

    net: Literal["host", "user", "tap", "pair"] = "user"
    publish: tuple[Publish, ...] = ()
    ip: tuple[Interface, ...] = ()
    gateway: tuple[Address, ...] = ()
    dns: tuple[Address, ...] = ()
    search: tuple[Domain, ...] = ()
    ndots: int = 1
    hosts: HostTable = HostTable()
    hosts_file: str = ""
    mtu: int | None = None  # the world's
    tap: str = ""
    spin_us: int = 0
    reactor: Literal["auto", "io_uring", "epoll"] = "auto"
    pcap: str = ""
    impair: Impairment | None = None
    memory: Size = Size(256 << 20)
    sockets: int = 65536
    rcvbuf: Size = Size(128 << 10)
    sndbuf: Size = Size(256 << 10)
    rcvbuf_max: Size = Size(16 << 20)
    sndbuf_max: Size = Size(16 << 20)
    notsent_lowat: Size = Size(0)
    mtu_probing: Literal[0, 1, 2] = 1
    congestion: Literal["cubic", "reno"] = "cubic"
    ecn: int = 2
    seed: int | None = None


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
    from pathlib import Path

    try:
        settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: not TOML: {error}") from None
    return Source(settings, lambda key, value: f"{path}: {key} = {value!r}")


def configure(*sources: Source, **settings: object) -> MachineConfig:
    """Lay ``sources``, then ``settings``, over the defaults. Raises ConfigError."""
    values: dict[str, Any] = {}
    for source in (*sources, Source(settings)):
        for key, value in source.settings.items():
            name = key.replace("-", "_")
            if name not in _KEYS:
                raise ConfigError(_unknown(source, key, value, list(_KEYS)))
            values[name] = _KEYS[name].convert(source, name, value)
    return MachineConfig(**values)


class _Key(NamedTuple):
    """What one key takes: ``allowed`` is what the error message says of it, ``parse`` makes the value (and raises
    ValueError or TypeError), ``fits`` says what its type cannot. ``several``: it may be given more than once."""

    allowed: str
    parse: Callable[[Any], object]
    fits: Callable[[Any], object] = lambda value: True
    several: bool = False
    optional: bool = False  # None is a value

    def convert(self, source: Source, key: str, value: Any) -> object:
        given, many = value, type(value) in (list, tuple)  # not what is a tuple of a kind of its own
        try:
            if self.several:
                converted: Any = []
                for given in value if many else (value,):
                    converted.append(self._parsed(given))
                converted, given = tuple(converted), value
            elif value is None and self.optional:
                return None
            else:
                converted = self._parsed(value)
            if not self.fits(converted):
                raise ValueError
        except (ValueError, TypeError, AttributeError) as error:
            why = f"{error}; " if key == "impair" and isinstance(error, ValueError) else ""
            given = ", ".join(map(str, value)) if many and given is value else given
            raise ConfigError(f"{source.show(key, given)}: {why}allowed: {self.allowed}") from None
        return converted

    def _parsed(self, value: object) -> object:
        """What it makes may be given as it is."""
        made = Impairment if self.parse is parse_impairment else getattr(self.parse, "__self__", ())
        return value if isinstance(value, made) else self.parse(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError
    return int(value)


def _one_of(*words: str) -> _Key:
    return _Key(f"{', '.join(words[:-1])} or {words[-1]}", _text, lambda value: value in words)


def _size(limits: str, least: int, most: int) -> _Key:
    return _Key(f"bytes, or a number with K, M or G; {limits}", Size.parse, lambda size: least <= size <= most)


def _file(what: str) -> _Key:
    return _Key(what, _text, lambda name: name and "\0" not in name)


_KEYS: Mapping[str, _Key] = MappingProxyType(
    {
        "net": _one_of("host", "user", "tap", "pair")._replace(allowed="host, user or tap (or pair: see Machine.pair)"),
        "publish": _Key("[ADDR:]HOST:GUEST[/tcp|/udp] with ports up to 65535", Publish.parse, several=True),
        "ip": _Key(
            "ADDR/PREFIX, as 10.0.0.2/24 or fd00::2/64; in world tap also dhcp, auto", Interface.parse, several=True
        ),
        "gateway": _Key(
            "an IPv4 or IPv6 address, at most one of each",
            Address.parse,
            lambda addresses: len({":" in address for address in addresses}) == len(addresses),
            several=True,
        ),
        "dns": _Key("IPv4 or IPv6 addresses of name servers", Address.parse, several=True),
        "search": _Key("domains, as example.org", Domain.parse, several=True),
        "ndots": _Key(
            "0 to 15 (dots from which on a name is tried as it is first)", _whole, lambda dots: 0 <= dots <= 15
        ),
        "hosts": _Key("a table of names, each with an address or a list of them, or NAME=ADDR[,ADDR]", HostTable.parse),
        "hosts_file": _file("the name of a file as /etc/hosts"),
        "mtu": _Key("1280 to 65520 (bytes)", _whole, lambda mtu: 1280 <= mtu <= 65520, optional=True),
        "tap": _Key(
            "a name of 1 to 15 letters, digits, '-', '_' or '.'",
            _text,
            lambda name: re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", name),
        ),
        "spin_us": _Key("0 to 1000000 (microseconds)", _whole, lambda us: 0 <= us <= 1_000_000),
        "reactor": _one_of("auto", "io_uring", "epoll"),
        "pcap": _file("the name of a file to write"),
        "impair": _Key(IMPAIRMENT, parse_impairment, optional=True),
        "memory": _size("at least 16M", 16 << 20, (1 << 48) - 1),  # a TAP alone keeps 4 MiB ready to receive into
        "sockets": _Key("16 to 1048576", _whole, lambda sockets: 16 <= sockets <= 1 << 20),
        "rcvbuf": _size("4K to 64M", 4 << 10, 64 << 20),
        "sndbuf": _size("4K to 64M", 4 << 10, 64 << 20),
        "rcvbuf_max": _size("4K to 64M", 4 << 10, 64 << 20),
        "sndbuf_max": _size("4K to 64M", 4 << 10, 64 << 20),
        "notsent_lowat": _size("0: no limit; up to 64M", 0, 64 << 20),
        "mtu_probing": _Key("0 off, 1 where a path is smaller, 2 always", _whole, lambda mode: 0 <= mode <= 2),
        "congestion": _one_of("cubic", "reno"),
        "ecn": _Key(
            "0 (off), 1 (asked for) or 2 (only where the peer asks), as net.ipv4.tcp_ecn",
            _whole,
            lambda mode: 0 <= mode <= 2,
        ),
        "seed": _Key("a number; the same one makes the same choices", _whole, lambda seed: seed >= 0, optional=True),
    }
)


def _unknown(source: Source, key: str, value: object, known: list[str]) -> str:
    import difflib  # only on the way to an error

    near = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(known)}"
    return f"{source.show(key, value)}: unknown key {key!r}, {hint}"
