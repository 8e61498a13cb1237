"""A DHCPv6 client (RFC 8415, 18.2), sans-I/O: bytes and time in, bytes and actions out.

    stateful    SOLICITING -> REQUESTING -> CHECKING -> BOUND -> RENEWING -> REBINDING -> SOLICITING
                     \\------ rapid commit ---^                  T1           T2
    stateless   INFORMING -> INFORMED -> (refresh time) INFORMING

As with :mod:`~libos.net.config.dhcp4`, each call returns the actions that follow, :attr:`Client.deadline` is when
:meth:`Client.timeout` is to be called, and whoever carries out :class:`Bind` tells by :meth:`Client.confirmed` or
:meth:`Client.declined` what duplicate address detection found (18.2.8).

All messages go to ff02::1:2, port 547. One association of non-temporary addresses; no prefixes, no relays, no
authentication, no Confirm (nothing is kept between runs).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from libos.net.config.fields import BadMessage, decode_names
from libos.net.config.message6 import FOREVER, Address, IaNa, Kind, Message, Option, Status, addresses, status
from libos.rand import Rng

__all__ = ["NEVER", "Action", "Bind", "BoundAddress", "Client", "Inform", "Lease", "Send", "State", "Unbind"]

NEVER = 2**64 - 1
SECOND = 1_000_000_000
REFRESH_DEFAULT, REFRESH_MIN = 86400, 600  # seconds, RFC 8415, 7.6
MAX_RT_LEAST, MAX_RT_MOST = 60, 86400  # 21.24
PREFERENCE_MOST = 255


@dataclass(frozen=True, slots=True)
class BoundAddress:
    """Times are ns of the client's clock."""

    address: str
    preferred_until: int
    valid_until: int


@dataclass(frozen=True, slots=True)
class Lease:
    """What a server gave. :data:`NEVER`: for ever."""

    addresses: tuple[BoundAddress, ...]
    server: bytes
    dns: tuple[str, ...]
    search: tuple[str, ...]
    renew_at: int
    rebind_at: int
    until: int


@dataclass(frozen=True, slots=True)
class Send:
    """To all servers and relays."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Bind:
    """The lease is new, or longer, or otherwise not as it was."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Unbind:
    """The lease is over."""

    lease: Lease
    why: str


@dataclass(frozen=True, slots=True)
class Inform:
    """Stateless: what a server knows besides addresses."""

    dns: tuple[str, ...]
    search: tuple[str, ...]


Action = Send | Bind | Unbind | Inform


@dataclass(frozen=True, slots=True)
class Pace:
    """RFC 8415, 15: seconds; 0: without a bound."""

    initial: int
    most: int
    times: int = 0


class State(Enum):
    """What it is doing; the value is the message that it sends meanwhile."""

    STOPPED = 0
    SOLICITING = Kind.SOLICIT
    REQUESTING = Kind.REQUEST
    CHECKING = -1
    BOUND = -2
    RENEWING = Kind.RENEW
    REBINDING = Kind.REBIND
    DECLINING = Kind.DECLINE
    INFORMING = Kind.INFORMATION
    INFORMED = -3


class Client:
    """One interface's lease, by ``duid`` and ``iaid`` (RFC 8415, 11, 12)."""

    def __init__(self, rng: Rng, *, duid: bytes, iaid: int = 1) -> None:
        self._rng = rng
        self._duid = duid
        self._iaid = iaid
        self.state = State.STOPPED
        self.lease: Lease | None = None
        self.deadline = NEVER
        self.dropped = 0  # messages that were none for us
        self._max_rt = {State.SOLICITING: 3600, State.INFORMING: 3600}  # 7.6, or what servers say (21.24, 21.25)
        self._xid = 0
        self._since = 0  # when this exchange began
        self._sent = 0  # times
        self._wait = 0  # ns, the last
        self._best: Message | None = None  # the advertisement to take
        self._server = b""  # whom we ask by name
        self._wanted: tuple[str, ...] = ()  # what it advertised
        self._declined: tuple[BoundAddress, ...] = ()

    # --- what happens ----------------------------------------------------------------------------------------------

    def start(self, now: int, *, stateful: bool, delay: int = SECOND) -> list[Action]:
        """Begin after at most ``delay`` ns, by chance (SOL_MAX_DELAY, INF_MAX_DELAY)."""
        self._enter(State.SOLICITING if stateful else State.INFORMING, now)
        self.deadline = now + (self._rng.below(delay) if delay else 0)
        return []

    def timeout(self, now: int) -> list[Action]:
        """It is :attr:`deadline`, or later. Earlier calls do nothing."""
        if now < self.deadline:
            return []
        lease = self.lease
        if lease is not None and now >= lease.until:
            actions: list[Action] = [self._unbind("the lease is over")]
            self._enter(State.SOLICITING, now)
            return [*actions, *self._send(now)]
        match self.state:
            case State.SOLICITING if self._best is not None:
                return self._request(now)
            case State.REQUESTING | State.DECLINING if self._sent >= self._pace().times:
                self._enter(State.SOLICITING, now)
            case State.BOUND:
                self._enter(State.RENEWING, now)
            case State.RENEWING if lease is not None and now >= lease.rebind_at:
                self._enter(State.REBINDING, now)
            case State.INFORMED:
                self._enter(State.INFORMING, now)
            case State.STOPPED | State.CHECKING:
                return []
        return self._send(now)

    def received(self, data: bytes, now: int) -> list[Action]:
        """A datagram came to port 546. What is not for us, or makes no sense, is counted and dropped."""
        try:
            return self._take(Message.parse(data), now)
        except BadMessage:
            self.dropped += 1
            return []

    def confirmed(self, now: int) -> list[Action]:
        """Nobody else has the addresses of the lease."""
        if self.state is State.CHECKING and self.lease is not None:
            self.state = State.BOUND
            self.deadline = self.lease.renew_at
        return []

    def declined(self, now: int) -> list[Action]:
        """Somebody has one of them (18.2.8): all are given back, and others asked for."""
        if self.lease is None:
            return []
        self._declined, self._server = self.lease.addresses, self.lease.server
        unbind = self._unbind("somebody else has it")
        self._enter(State.DECLINING, now)
        return [*self._send(now), unbind]

    def release(self, now: int) -> list[Action]:
        """We are done with it (18.2.7). Said once: nobody will be there to hear the answer. The client stops."""
        lease, self.state, self.deadline = self.lease, State.STOPPED, NEVER
        if lease is None:
            return []
        self._xid, self._since = self._rng.bits(24), now
        message = self._message(Kind.RELEASE, now, lease.server, lease.addresses)
        return [Send(message.emit()), self._unbind("released")]

    # --- asking ----------------------------------------------------------------------------------------------------

    def _pace(self) -> Pace:
        """RFC 8415, 7.6."""
        match self.state:
            case State.REQUESTING:
                return Pace(1, 30, 10)
            case State.RENEWING | State.REBINDING:
                return Pace(10, 600)
            case State.DECLINING:
                return Pace(1, 0, 4)
            case _:
                return Pace(1, self._max_rt[self.state])

    def _enter(self, state: State, now: int) -> None:
        self.state = state
        self._xid = self._rng.bits(24)
        self._since = now
        self._sent = self._wait = 0
        self._best = None

    def _request(self, now: int) -> list[Action]:
        assert self._best is not None
        self._server = self._best.first(Option.SERVER) or b""
        wanted = self._best.ia(self._iaid)
        self._enter(State.REQUESTING, now)
        self._wanted = tuple(a.address for a in wanted.addresses) if wanted else ()
        return self._send(now)

    def _send(self, now: int) -> list[Action]:
        """The message of this state, and when to send it again (section 15)."""
        pace = self._pace()
        self._sent += 1
        if self._wait:
            wait = 2 * self._wait + self._chance(self._wait)
        else:
            chance = self._chance(pace.initial * SECOND)
            # 18.2.1: not less than a whole second, in which all servers can advertise
            wait = pace.initial * SECOND + (abs(chance) if self.state is State.SOLICITING else chance)
        if pace.most and wait > pace.most * SECOND:
            wait = pace.most * SECOND + self._chance(pace.most * SECOND)
        self._wait = wait
        self.deadline = now + wait
        lease = self.lease
        if lease is not None:
            self.deadline = min(self.deadline, lease.rebind_at if self.state is State.RENEWING else lease.until)
        named = self.state in (State.REQUESTING, State.RENEWING, State.DECLINING)
        held = self._declined if self.state is State.DECLINING else lease.addresses if lease else ()
        return [Send(self._message(Kind(self.state.value), now, self._server if named else None, held).emit())]

    def _chance(self, of: int) -> int:
        """RAND of section 15: up to a tenth more or less."""
        return self._rng.below(of // 5 + 1) - of // 10

    def _message(self, kind: Kind, now: int, server: bytes | None, held: tuple[BoundAddress, ...]) -> Message:
        elapsed = min((now - self._since) * 100 // SECOND, 0xFFFF)
        options: list[tuple[int, bytes]] = [(Option.CLIENT, self._duid)]
        if server is not None:
            options.append((Option.SERVER, server))
        options.append((Option.ELAPSED, elapsed.to_bytes(2, "big")))
        if kind is Kind.INFORMATION:
            asked = [Option.DNS, Option.SEARCH, Option.REFRESH, Option.INF_MAX_RT]
        else:
            asked = [Option.DNS, Option.SEARCH, Option.SOL_MAX_RT]
            hints = tuple(a.address for a in held) or (self._wanted if kind is Kind.REQUEST else ())
            options.append((Option.IA_NA, _association(self._iaid, hints)))
        if kind is Kind.SOLICIT:
            options.append((Option.RAPID_COMMIT, b""))
        if kind not in (Kind.RELEASE, Kind.DECLINE):
            options.append((Option.REQUESTED, b"".join(code.to_bytes(2, "big") for code in asked)))
        return Message(kind, self._xid, tuple(options))

    # --- being answered --------------------------------------------------------------------------------------------

    def _take(self, m: Message, now: int) -> list[Action]:
        if m.xid != self._xid or m.first(Option.CLIENT) != self._duid or not m.first(Option.SERVER):
            raise BadMessage("for somebody else")  # 16.3, 16.10
        self._note_max_rt(m)
        if m.kind is Kind.ADVERTISE and self.state is State.SOLICITING:
            return self._advertised(m, now)
        if m.kind is not Kind.REPLY:
            raise BadMessage(f"{m.kind.name} in {self.state.name}")
        match self.state:
            case State.SOLICITING if m.first(Option.RAPID_COMMIT) is not None:
                return self._replied(m, now)
            case State.REQUESTING | State.RENEWING if m.first(Option.SERVER) == self._server:
                return self._replied(m, now)
            case State.REBINDING:
                return self._replied(m, now)
            case State.DECLINING:
                self._enter(State.SOLICITING, now)
                return self._send(now)
            case State.INFORMING:
                return self._informed(m, now)
        raise BadMessage(f"a reply in {self.state.name}")

    def _note_max_rt(self, m: Message) -> None:
        """21.24, 21.25: even of messages that are of no other use."""
        for code, state in ((Option.SOL_MAX_RT, State.SOLICITING), (Option.INF_MAX_RT, State.INFORMING)):
            seconds = m.number(code, 4)
            if seconds is not None and MAX_RT_LEAST <= seconds <= MAX_RT_MOST:
                self._max_rt[state] = seconds

    def _advertised(self, m: Message, now: int) -> list[Action]:
        """18.2.9: the highest preference; the highest of all at once, and after the first wait whoever comes."""
        ia = m.ia(self._iaid)
        if status(m.options) or ia is None or ia.status or not any(a.valid for a in ia.addresses):
            raise BadMessage("an advertisement of nothing")
        if self._best is None or _preference(m) > _preference(self._best):
            self._best = m
        return self._request(now) if self._sent > 1 or _preference(m) == PREFERENCE_MOST else []

    def _replied(self, m: Message, now: int) -> list[Action]:
        """18.2.10.1"""
        ia = m.ia(self._iaid)
        outcome = status(m.options) or (ia.status if ia else Status.SUCCESS)
        if outcome in (Status.NOT_ON_LINK, Status.NO_ADDRESSES) and self.state is State.REQUESTING:
            self._enter(State.SOLICITING, now)
            self.deadline = now + SECOND
            return []
        if outcome == Status.NO_BINDING and self.state in (State.RENEWING, State.REBINDING):
            self._server = m.first(Option.SERVER) or b""
            self._wanted = ()
            self._enter(State.REQUESTING, now)
            return self._send(now)
        if outcome or ia is None or (ia.t2 and ia.t1 > ia.t2):
            raise BadMessage("a reply of nothing")  # the exchange goes on
        live = [a for a in ia.addresses if a.valid]
        if not live:
            if self.lease is None:
                raise BadMessage("a reply of nothing")
            gone = self._unbind("the server took it back")
            self._enter(State.SOLICITING, now)
            return [gone, *self._send(now)]
        old, lease = self.lease, self._lease(m, ia, now)
        self.lease, self._server = lease, lease.server
        new = old is None or {a.address for a in lease.addresses} - {a.address for a in old.addresses}
        self.state = State.CHECKING if new else State.BOUND
        self.deadline = lease.until if new else lease.renew_at
        return [Bind(lease)]

    def _lease(self, m: Message, ia: IaNa, now: int) -> Lease:
        live = [a for a in ia.addresses if a.valid]
        shortest = min(a.preferred for a in live)
        t1 = ia.t1 or (FOREVER if shortest == FOREVER else shortest // 2)  # 14.2, 21.4
        t2 = ia.t2 or (FOREVER if shortest == FOREVER else shortest * 4 // 5)
        t1, t2 = max(t1, 1), max(t2, t1, 1)
        dns, search = _names(m)
        until = max(_end(now, a.valid) for a in live)
        return Lease(
            addresses=tuple(BoundAddress(a.address, _end(now, a.preferred), _end(now, a.valid)) for a in live),
            server=m.first(Option.SERVER) or b"",
            dns=dns,
            search=search,
            renew_at=min(_end(now, t1), until),
            rebind_at=min(_end(now, t2), until),
            until=until,
        )

    def _informed(self, m: Message, now: int) -> list[Action]:
        """18.2.10.4, 21.23"""
        if status(m.options):
            raise BadMessage("a reply of nothing")
        refresh = m.number(Option.REFRESH, 4)
        seconds = REFRESH_DEFAULT if refresh is None else max(refresh, REFRESH_MIN)
        self.state = State.INFORMED
        self.deadline = _end(now, seconds)
        return [Inform(*_names(m))]

    def _unbind(self, why: str) -> Unbind:
        lease, self.lease = self.lease, None
        assert lease is not None
        return Unbind(lease, why)


def _end(now: int, seconds: int) -> int:
    return NEVER if seconds == FOREVER else now + seconds * SECOND


def _association(iaid: int, hints: tuple[str, ...]) -> bytes:
    return IaNa(iaid, addresses=tuple(Address(hint, 0, 0) for hint in hints)).emit()


def _preference(m: Message) -> int:
    return m.number(Option.PREFERENCE, 1) or 0


def _names(m: Message) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return addresses(m.first(Option.DNS)), decode_names(m.first(Option.SEARCH) or b"")
