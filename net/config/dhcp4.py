"""A DHCPv4 client (RFC 2131, 4.4), sans-I/O: bytes and time in, bytes and actions out.

    INIT -> SELECTING -> REQUESTING -> CHECKING -> BOUND -> RENEWING -> REBINDING
      ^          offer         ack    | nobody has it   T1          T2         |
      +---- NAK, lease over, somebody has it (DECLINE, and 10 s of patience) <-+

Each call returns the actions that follow from it; :attr:`Client.deadline` is when :meth:`Client.timeout` is to be
called. CHECKING is where RFC 2131, 2.2 wants the address probed: whoever carries out :class:`Bind` looks whether
somebody has it and tells by :meth:`Client.confirmed` or :meth:`Client.declined`.

The first offer is taken: a network that has several servers means them to be as good as each other. INIT-REBOOT is not
done, for nothing is kept between runs.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from libos.net.config.fields import BadMessage, decode_names
from libos.net.config.message4 import Kind, Message, Option, addresses, routes, usable
from libos.rand import Rng

__all__ = ["NEVER", "Action", "Bind", "Client", "Lease", "Send", "State", "Unbind"]

NEVER = 2**64 - 1
SECOND = 1_000_000_000
FIRST_WAIT, MOST_WAIT = 4, 64  # seconds, RFC 2131, 4.1; each a second more or less
REQUESTS_MAX = 4
RENEW_WAIT_MIN = 60 * SECOND  # RFC 2131, 4.4.5
DECLINE_WAIT = 10 * SECOND  # RFC 2131, 3.1 (5)
NAK_WAIT = 2 * SECOND  # so that a server that refuses each time is not asked a thousand times a second
LEASE_MIN = 2  # seconds; a shorter lease is a mistake, or an attack
FOREVER = 0xFFFFFFFF
MESSAGE_SIZE = 1500  # with its headers

WANTED = (
    Option.MASK,
    Option.ROUTES,  # before the routers: RFC 3442
    Option.ROUTER,
    Option.DNS,
    Option.DOMAIN,
    Option.SEARCH,
    Option.HOSTNAME,
    Option.MTU,
    Option.BROADCAST,
    Option.T1,
    Option.T2,
)


@dataclass(frozen=True, slots=True)
class Lease:
    """What a server gave. Times are ns of the client's clock; :data:`NEVER`: for ever."""

    address: str
    prefix: int
    server: str
    routers: tuple[str, ...]
    routes: tuple[tuple[str, str | None], ...]  # with these, the routers do not count (RFC 3442)
    dns: tuple[str, ...]
    domain: str
    search: tuple[str, ...]
    hostname: str
    mtu: int | None
    seconds: int
    renew_at: int
    rebind_at: int
    until: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send ``data`` to port 67 of ``to`` (None: to everybody), from the address that we have, if we have one."""

    data: bytes
    to: str | None = None


@dataclass(frozen=True, slots=True)
class Bind:
    """The lease is new, or longer, or otherwise not as it was."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Unbind:
    """The lease is over."""

    lease: Lease
    why: str


Action = Send | Bind | Unbind


class State(Enum):
    """RFC 2131, figure 5, and CHECKING."""

    STOPPED = "stopped"
    INIT = "init"
    SELECTING = "selecting"
    REQUESTING = "requesting"
    CHECKING = "checking"
    BOUND = "bound"
    RENEWING = "renewing"
    REBINDING = "rebinding"


_ASKING = (State.REQUESTING, State.RENEWING, State.REBINDING)


class Client:
    """One interface's lease. ``mac`` and ``identifier`` (RFC 4361) say who we are, ``hostname`` what we are called."""

    def __init__(self, rng: Rng, mac: bytes, *, identifier: bytes, hostname: str = "") -> None:
        self._rng = rng
        self._mac = mac
        self._identifier = identifier
        self._hostname = hostname.encode("ascii", "ignore")[:63]
        self.state = State.STOPPED
        self.lease: Lease | None = None
        self.deadline = NEVER
        self.dropped = 0  # messages that were none for us
        self._xid = 0
        self._since = 0  # when this exchange began
        self._asked = 0  # times
        self._asked_at = 0
        self._offer: Message | None = None

    # --- what happens ----------------------------------------------------------------------------------------------

    def start(self, now: int) -> list[Action]:
        """Look for a server. No random delay before the first message (RFC 2131, 4.4.1): machines that are started one
        by one do not need it, and somebody waits."""
        self._enter(State.SELECTING, now)
        return self._ask(now)

    def timeout(self, now: int) -> list[Action]:
        """It is :attr:`deadline`, or later. Earlier calls do nothing."""
        if now < self.deadline:
            return []
        lease = self.lease
        if lease is not None and now >= lease.until:
            return [self._unbind("the lease is over"), *self.start(now)]
        match self.state:
            case State.INIT:
                return self.start(now)
            case State.REQUESTING if self._asked >= REQUESTS_MAX:
                return self.start(now)
            case State.BOUND:
                self._enter(State.RENEWING, now)
            case State.RENEWING if lease is not None and now >= lease.rebind_at:
                self._enter(State.REBINDING, now)
            case State.STOPPED | State.CHECKING:
                return []
        return self._ask(now)

    def received(self, data: bytes, now: int) -> list[Action]:
        """A datagram came to port 68. What is not for us, or makes no sense, is counted and dropped."""
        try:
            return self._take(Message.parse(data), now)
        except BadMessage:
            self.dropped += 1
            return []

    def confirmed(self, now: int) -> list[Action]:
        """Nobody else has the address of the lease."""
        if self.state is State.CHECKING and self.lease is not None:
            self.state = State.BOUND
            self.deadline = self.lease.renew_at
        return []

    def declined(self, now: int) -> list[Action]:
        """Somebody has it: RFC 2131, 3.1 (5)."""
        lease = self.lease
        if lease is None:
            return []
        options: dict[int, bytes] = {Option.ADDRESS: _packed(lease.address), Option.SERVER: _packed(lease.server)}
        self._xid = self._rng.bits(32)
        farewell = Send(self._message(Kind.DECLINE, now, options, ciaddr=None).emit())
        return [farewell, self._unbind("somebody else has it"), *self._pause(now, DECLINE_WAIT)]

    def release(self, now: int) -> list[Action]:
        """We are done with it (RFC 2131, 4.4.6). The client stops."""
        lease, self.state, self.deadline = self.lease, State.STOPPED, NEVER
        if lease is None:
            return []
        self._xid = self._rng.bits(32)
        message = self._message(Kind.RELEASE, now, {Option.SERVER: _packed(lease.server)}, ciaddr=lease.address)
        return [Send(message.emit(), lease.server), self._unbind("released")]

    # --- asking ----------------------------------------------------------------------------------------------------

    def _enter(self, state: State, now: int) -> None:
        self.state = state
        self._asked = 0
        if state is not State.REQUESTING:  # that goes on with the offer's (RFC 2131, 4.4.1)
            self._xid = self._rng.bits(32)
            self._since = now

    def _pause(self, now: int, wait: int) -> list[Action]:
        self.state = State.INIT
        self.deadline = now + wait
        return []

    def _ask(self, now: int) -> list[Action]:
        """Send what the state asks for, and set when to do so again."""
        lease, to = self.lease, None
        self._asked += 1
        self._asked_at = now
        if self.state is State.SELECTING:
            message = self._message(Kind.DISCOVER, now, self._wishes(), ciaddr=None)
            self.deadline = now + self._backoff()
        elif self.state is State.REQUESTING:
            assert self._offer is not None
            chosen: dict[int, bytes] = {
                Option.ADDRESS: self._offer.yiaddr,
                Option.SERVER: self._offer.options[Option.SERVER],
            }
            message = self._message(Kind.REQUEST, now, {**chosen, **self._wishes()}, ciaddr=None)
            self.deadline = now + self._backoff()
        else:
            assert lease is not None
            renewing = self.state is State.RENEWING
            to = lease.server if renewing else None
            message = self._message(Kind.REQUEST, now, self._wishes(), ciaddr=lease.address)
            end = lease.rebind_at if renewing else lease.until  # again after half of what is left, but not too often
            self.deadline = min(end, now + max((end - now) // 2, RENEW_WAIT_MIN))
        return [Send(message.emit(), to)]

    def _backoff(self) -> int:
        wait = min(FIRST_WAIT << min(self._asked - 1, 8), MOST_WAIT) * SECOND
        return wait - SECOND + self._rng.below(2 * SECOND)

    def _wishes(self) -> dict[int, bytes]:
        wishes: dict[int, bytes] = {Option.PARAMETERS: bytes(WANTED), Option.SIZE: MESSAGE_SIZE.to_bytes(2, "big")}
        return {**wishes, Option.HOSTNAME: self._hostname} if self._hostname else wishes

    def _message(self, kind: Kind, now: int, options: dict[int, bytes], *, ciaddr: str | None) -> Message:
        return Message(
            kind,
            self._xid,
            self._mac,
            {Option.CLIENT: self._identifier, **options},
            secs=(now - self._since) // SECOND if kind in (Kind.DISCOVER, Kind.REQUEST) else 0,
            # Without an address we hear only what everybody hears (RFC 2131, 4.1).
            broadcast=ciaddr is None and kind in (Kind.DISCOVER, Kind.REQUEST),
            ciaddr=bytes(4) if ciaddr is None else _packed(ciaddr),
        )

    # --- being answered --------------------------------------------------------------------------------------------

    def _take(self, m: Message, now: int) -> list[Action]:
        if not m.reply or m.xid != self._xid or m.mac != self._mac:
            raise BadMessage("for somebody else")
        if m.options.get(Option.CLIENT, self._identifier) != self._identifier:  # RFC 6842, 3
            raise BadMessage("for another client")
        if self.state is State.SELECTING and m.kind is Kind.OFFER:
            self._lease(m, now)  # an offer that could not be taken is none
            self._offer = m
            self._enter(State.REQUESTING, now)
            return self._ask(now)
        if self.state not in _ASKING or m.kind not in (Kind.ACK, Kind.NAK):
            raise BadMessage(f"{m.kind.name} in {self.state.name}")
        chosen = self._offer if self.state is State.REQUESTING else None
        if chosen is not None and m.options.get(Option.SERVER) != chosen.options[Option.SERVER]:
            raise BadMessage("from a server that was not chosen")
        if m.kind is Kind.NAK:
            return [*([self._unbind("the server took it back")] if self.lease else []), *self._pause(now, NAK_WAIT)]
        return self._bind(self._lease(m, now), now)

    def _bind(self, lease: Lease, now: int) -> list[Action]:
        old, actions = self.lease, list[Action]()
        if old is not None and (old.address, old.prefix) != (lease.address, lease.prefix):
            actions.append(self._unbind("the server gave another"))
            old = None
        self.lease = lease
        self.state = State.CHECKING if old is None else State.BOUND
        self.deadline = lease.until if old is None else lease.renew_at
        return [*actions, Bind(lease)]

    def _unbind(self, why: str) -> Unbind:
        lease, self.lease = self.lease, None
        assert lease is not None
        return Unbind(lease, why)

    def _lease(self, m: Message, now: int) -> Lease:
        """Raises BadMessage: it lacks something, or nobody could live with it."""
        o = m.options
        address = ipaddress.IPv4Address(m.yiaddr)
        server = addresses(_sized(o, Option.SERVER, 4))
        seconds = int.from_bytes(_sized(o, Option.LEASE, 4), "big")
        if not usable(address) or not server or seconds < LEASE_MIN:
            raise BadMessage("an address that nobody can have, or no server, or no time")
        prefix = _prefix(address, o.get(Option.MASK))
        # RFC 2131, 4.4.5, with a little chance, so that clients that were started together do not renew together.
        t1 = _time(o, Option.T1, seconds // 2)
        t2 = _time(o, Option.T2, seconds * 7 // 8)
        if not 0 < t1 <= t2 <= seconds:
            t1, t2 = seconds // 2, seconds * 7 // 8
        t1_ns = t1 * SECOND - self._rng.below(max(t1 * SECOND // 20, 1))
        began = self._asked_at if self.state is not State.SELECTING else now  # RFC 2131, 4.4.5: when it was asked for
        forever = seconds == FOREVER
        mtu = int.from_bytes(_sized(o, Option.MTU, 2), "big") if Option.MTU in o else None
        return Lease(
            address=str(address),
            prefix=prefix,
            server=server[0],
            routers=addresses(o.get(Option.ROUTER, b"")),
            routes=routes(o.get(Option.ROUTES, b"")),
            dns=addresses(o.get(Option.DNS, b"")),
            domain=_text(o.get(Option.DOMAIN, b"")),
            search=decode_names(o.get(Option.SEARCH, b"")),
            hostname=_text(o.get(Option.HOSTNAME, b"")),
            mtu=mtu if mtu is not None and mtu >= 576 else None,
            seconds=seconds,
            renew_at=NEVER if forever else began + t1_ns,
            rebind_at=NEVER if forever else began + t2 * SECOND,
            until=NEVER if forever else began + seconds * SECOND,
        )


def _packed(address: str) -> bytes:
    return ipaddress.IPv4Address(address).packed


def _sized(options: Mapping[int, bytes], code: Option, size: int) -> bytes:
    value = options.get(code, b"")
    if len(value) != size:
        raise BadMessage(f"option {code.name} is missing, or has not {size} bytes")
    return value


def _time(options: Mapping[int, bytes], code: Option, default: int) -> int:
    value = options.get(code, b"")
    return int.from_bytes(value, "big") if len(value) == 4 else default


def _prefix(address: ipaddress.IPv4Address, mask: bytes | None) -> int:
    """Without a mask, the class's (RFC 950, 2)."""
    if mask is None:
        first = address.packed[0]
        return 8 if first < 128 else 16 if first < 192 else 24
    if len(mask) != 4:
        raise BadMessage("a mask of another size")
    bits = int.from_bytes(mask, "big")
    prefix = bits.bit_count()
    if bits != (0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF or not 1 <= prefix <= 32:
        raise BadMessage("not a mask")
    return prefix


def _text(data: bytes) -> str:
    """A name, if it is one: servers put a zero behind it (RFC 2132, 2)."""
    text = data.rstrip(b"\0").decode("ascii", "replace")
    return text if all(c.isascii() and (c.isalnum() or c in "-._") for c in text) else ""
