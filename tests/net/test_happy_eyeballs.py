"""Happy eyeballs (RFC 8305) side by side with asyncio's, on a virtual clock: what begins when, who wins, what is told.

Both run the same script. asyncio's loop gets the answers of getaddrinfo and sock_connect from it, and so does our
network; everything between is each one's own code.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libos.net import connect as connect_module
from libos.net.connect import create_connection
from libos.net.names.resolver import Resolver
from libos.net.network import StackNetwork
from libos.net.race import race
from libos.rand import Rng

from .virtual import VirtualLoop, VirtualReactor, pair_of_stacks

ERRORS = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ETIMEDOUT)


class Target(NamedTuple):
    """An address, when it decides after its attempt has begun (in ms), and how: 0 or an errno."""

    six: bool
    after: float
    error: int


class Script:
    """Plays one case; ``log`` is what happened."""

    def __init__(self, loop: VirtualLoop, targets: list[Target], local: list[str]) -> None:
        self.loop = loop
        self.log: list[tuple[float, str]] = []
        self.targets = {(f"2001:db8::{n}" if t.six else f"192.0.2.{n}"): t for n, t in enumerate(targets)}
        self.local = local

    async def getaddrinfo(self, host: str, port: Any, **options: Any) -> list[Any]:
        if host == "local":
            return [(socket.AF_INET, 1, 6, "", (address, 0)) for address in self.local]
        return [
            (socket.AF_INET6, 1, 6, "", (address, 80, 0, 0))
            if target.six
            else (socket.AF_INET, 1, 6, "", (address, 80))
            for address, target in self.targets.items()
        ]

    async def sock_connect(self, sock: Any, address: Any) -> None:
        target = self.targets[address[0]]
        self.log.append((self.loop.elapsed(), f"begin {address[0]}"))
        try:
            await asyncio.sleep(target.after / 1000)
        except asyncio.CancelledError:
            self.log.append((self.loop.elapsed(), f"cancel {address[0]}"))
            raise
        if target.error:
            raise OSError(target.error, f"Connect call failed {address}")
        self.log.append((self.loop.elapsed(), f"connect {address[0]}"))


class AsyncioSide(VirtualLoop):
    """asyncio's own create_connection, between the script's two ends."""

    script: Script

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        return await self.script.getaddrinfo(host, port, **options)

    async def sock_connect(self, sock: Any, address: Any) -> None:
        await self.script.sock_connect(sock, address)

    async def _create_connection_transport(self, sock: Any, *args: Any, **options: Any) -> Any:
        sock.close()
        return sock, None


class OurSide(StackNetwork):
    script: Script

    async def getaddrinfo(self, loop: Any, host: Any, port: Any, **options: Any) -> Any:
        return await self.script.getaddrinfo(host, port, **options)

    async def sock_connect(self, loop: Any, sock: Any, address: Any) -> None:
        await self.script.sock_connect(sock, address)


def outcome(run: Callable[[], Any]) -> Any:
    try:
        run()
    except ExceptionGroup as group:
        return [type(group).__name__, *map(str, group.exceptions)]
    except OSError as error:
        return [type(error).__name__, str(error)]
    return []


def play_asyncio(targets: list[Target], local: list[str], **options: Any) -> Any:
    loop = AsyncioSide(VirtualReactor())
    loop.script = Script(loop, targets, local)
    try:
        result = outcome(lambda: loop.run(loop.create_connection(asyncio.Protocol, "host", 80, **options)))
        loop.run(asyncio.sleep(0))
        return loop.script.log, result
    finally:
        loop.close()


def play_ours(targets: list[Target], local: list[str], **options: Any) -> Any:
    reactor = VirtualReactor()
    loop = VirtualLoop(reactor)
    stack = reactor.new_stack()
    network = OurSide(stack, reactor, resolver=Resolver(Rng(1)))  # type: ignore[arg-type]
    network.script = Script(loop, targets, local)

    async def start(network: Any, loop: Any, factory: Any, sock: Any, **tls: Any) -> Any:
        sock.close()
        return sock, None

    before, connect_module._start = connect_module._start, start
    try:
        result = outcome(lambda: loop.run(create_connection(network, loop, asyncio.Protocol, "host", 80, **options)))
        loop.run(asyncio.sleep(0))
        assert not [row for row in stack.sockets() if row.state != "CLOSED"], "sockets left behind"
        return network.script.log, result
    finally:
        connect_module._start = before
        network.close()
        loop.close()
        stack.close()


def same(log: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """What is cancelled at one time has no order."""
    return sorted(
        log, key=lambda entry: (entry[0], entry[1].startswith("cancel"), entry[1] if "cancel" in entry[1] else "")
    )


# No two things at one time: of those asyncio takes either, or (until Python 3.13) fails an assertion.
targets_of_any_kind = st.lists(
    st.builds(Target, st.booleans(), st.integers(0, 60), st.sampled_from([0, *ERRORS, *ERRORS])), min_size=1, max_size=5
).map(lambda found: [t._replace(after=t.after * 10 + n * 0.137 + 0.011) for n, t in enumerate(found)])


@settings(max_examples=150, deadline=None)
@given(
    targets=targets_of_any_kind,
    delay=st.sampled_from([None, 0.25, 0.05, 0]),
    interleave=st.sampled_from([None, 0, 1, 2, 3]),
    local=st.sampled_from(
        [None, ["127.0.0.1"], ["192.0.2.99"], ["192.0.2.98", "192.0.2.99"], ["192.0.2.99", "127.0.0.1"]]
    ),
)
def test_the_same_script_ends_the_same(
    targets: list[Target], delay: float | None, interleave: int | None, local: list[str] | None
) -> None:
    options: dict[str, Any] = {"happy_eyeballs_delay": delay, "interleave": interleave}
    if local is not None:
        options["local_addr"] = ("local", 0)
    theirs = play_asyncio(targets, local or [], **options)
    ours = play_ours(targets, local or [], **options)
    assert same(ours[0]) == same(theirs[0])
    assert ours[1] == theirs[1]


R, S = Target(False, 1000, errno.ECONNREFUSED), Target(True, 1000, errno.EHOSTUNREACH)


@pytest.mark.parametrize(
    ("targets", "log"),
    [
        # The first is silent: 250 ms later the next, of the other family.
        ([S, S, R._replace(after=20, error=0)], [(0.0, "0"), (0.25, "2")]),
        # A failure starts the next at once; one of an older attempt does not.
        ([S._replace(after=10), S, S._replace(after=20)], [(0.0, "0"), (0.01, "1"), (0.26, "2")]),
        ([S._replace(after=100), S, S], [(0.0, "0"), (0.1, "1"), (0.35, "2")]),
        ([S._replace(after=260), S, S, S], [(0.0, "0"), (0.25, "1"), (0.5, "2"), (0.75, "3")]),
    ],
)
def test_rfc8305_5_attempts_begin_staggered(targets: list[Target], log: list[tuple[float, str]]) -> None:
    seen, _ = play_ours(targets, [], happy_eyeballs_delay=0.25)
    assert [(time, what[-1]) for time, what in seen if what.startswith("begin")] == log


def test_rfc8305_4_families_alternate() -> None:
    targets = [S, S, S, R, R]
    for interleave, order in ((None, "03142"), (1, "03142"), (2, "01324"), (0, "01234")):
        seen, _ = play_ours(targets, [], happy_eyeballs_delay=0.05, interleave=interleave)
        assert "".join(what[-1] for _, what in seen if what.startswith("begin")) == order


def test_every_error_is_told_in_the_order_of_the_attempts() -> None:
    """Not in the order in which they failed."""
    targets = [S._replace(after=400), S._replace(after=10, error=errno.ECONNREFUSED), S._replace(after=300)]
    _, (kind, *errors) = play_ours(targets, [], happy_eyeballs_delay=0.05, all_errors=True)
    assert kind == "ExceptionGroup"
    assert [error[:9] for error in errors] == ["[Errno 11"] * 3
    assert ["::0" in errors[0], "::1" in errors[1], "::2" in errors[2]] == [True] * 3
    _, (kind, text) = play_ours(targets, [], happy_eyeballs_delay=0.05)
    assert (kind, text) == ("OSError", "Multiple exceptions: " + ", ".join(errors))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has all_errors since Python 3.12")
@settings(max_examples=50, deadline=None)
@given(targets=targets_of_any_kind, delay=st.sampled_from([None, 0.25]))
def test_all_errors_as_asyncio_groups_them(targets: list[Target], delay: float | None) -> None:
    options = {"happy_eyeballs_delay": delay, "all_errors": True}
    assert play_ours(targets, [], **options)[1] == play_asyncio(targets, [], **options)[1]


# --- the race itself -------------------------------------------------------------------------------------------------


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop(VirtualReactor())
    yield loop
    loop.close()


def attempt(after: float, result: Any) -> Callable[[], Any]:
    async def run() -> Any:
        try:
            await asyncio.sleep(after)
        except asyncio.CancelledError:
            if result != "stubborn":
                raise
        if isinstance(result, BaseException):
            raise result
        return result

    return run


def test_of_two_at_once_the_earlier_wins_and_the_other_is_thrown_away(loop: VirtualLoop) -> None:
    discarded: list[Any] = []
    attempts = [attempt(1.0, "a"), attempt(0.75, "b")]
    assert loop.run(race(loop, attempts, 0.25, discarded.append)) == "a"
    loop.run(asyncio.sleep(0))
    assert discarded == ["b"]


def test_who_succeeds_all_the_same_is_thrown_away(loop: VirtualLoop) -> None:
    discarded: list[Any] = []
    attempts = [attempt(9, "stubborn"), attempt(0.1, "b")]
    assert loop.run(race(loop, attempts, 0.25, discarded.append)) == "b"
    loop.run(asyncio.sleep(0))
    assert discarded == ["stubborn"]


def test_another_error_ends_the_race(loop: VirtualLoop) -> None:
    with pytest.raises(ZeroDivisionError):
        loop.run(race(loop, [attempt(9, "a"), attempt(0, ZeroDivisionError())], 0.25, print))
    assert loop.elapsed() == 0.25


def test_who_gives_up_takes_every_attempt_along(loop: VirtualLoop) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await race(loop, [attempt(9, "a"), attempt(9, "b")], 0.25, print)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    loop.run(main())
    assert loop.elapsed() == 1


# --- and with packets ------------------------------------------------------------------------------------------------


def test_a_silent_family_costs_the_delay_and_no_more() -> None:
    reactor = VirtualReactor()
    loop = VirtualLoop(reactor)
    stacks = pair_of_stacks(reactor, (("10.0.0.1/24", "2001:db8::1/64"), ("10.0.0.2/24",)))
    hosts = {"server.test": ["2001:db8::9", "10.0.0.2"]}  # nobody is 2001:db8::9
    client, server = (StackNetwork(s, reactor, resolver=Resolver(Rng(2), hosts=hosts)) for s in stacks)  # type: ignore[arg-type]

    async def main() -> Any:
        serving = await server.create_server(loop, asyncio.Protocol, "10.0.0.2", 80)
        transport, _ = await client.create_connection(
            loop, asyncio.Protocol, "server.test", 80, happy_eyeballs_delay=0.25
        )
        took, peer = loop.elapsed(), transport.get_extra_info("peername")
        await asyncio.sleep(0)
        states = [row.state for row in stacks[0].sockets()]
        transport.abort()
        serving.close()
        await asyncio.sleep(0.01)
        return took, peer, states

    took, peer, states = loop.run(main())
    assert (took, peer, states) == (0.25, ("10.0.0.2", 80), ["ESTABLISHED"])
    client.close()
    server.close()
    loop.close()
    for stack in stacks:
        stack.close()
