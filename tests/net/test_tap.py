"""TAP devices: made, addressed, gone; and errors that say what to do."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libos.errors import HostError
from libos.net.link import tap as tap_module
from libos.net.link.tap import open_tap
from libos.net.names.resolver import Resolver
from libos.net.network import StackNetwork
from libos.net.stack import Link, Stack
from libos.rand import Rng
from libos.sched.loop import Loop

root = pytest.mark.root
if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
    root = pytest.mark.skip(reason="TAP devices need root and /dev/net/tun")  # type: ignore[assignment]


def devices() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


@root
def test_made_addressed_and_gone():
    before = devices()
    tap = open_tap(addresses=["10.42.199.1/24", "fd00:42:199::1/64"], mtu=9000)
    try:
        assert devices() - before == {tap.name}
        shown = subprocess.run(["ip", "addr", "show", "dev", tap.name], capture_output=True, text=True).stdout
        assert "mtu 9000" in shown
        assert "inet 10.42.199.1/24" in shown
        assert "inet6 fd00:42:199::1/64 scope global nodad" in shown
        assert tap.caps == Link.ALL
    finally:
        os.close(tap.fd)
    assert devices() == before


@root
def test_refusals_leave_nothing_behind():
    before = devices()
    with pytest.raises(HostError, match=r"'lo'.*is no TAP"):
        open_tap("lo")
    with pytest.raises(HostError, match="too long"):
        open_tap("a-name-that-is-too-long")
    tap = open_tap("libos-test")
    with pytest.raises(HostError, match="another process has it open"):
        open_tap("libos-test")
    os.close(tap.fd)
    with pytest.raises(HostError, match="cannot set up a TAP device"):
        open_tap(addresses=["10.42.199.1/24"], mtu=1)
    with pytest.raises(ValueError, match="nonsense"):
        open_tap(addresses=["nonsense"])
    assert devices() == before


@root
def test_a_prepared_device_needs_no_privileges(monkeypatch):
    def refuse(*args: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(tap_module, "set_up", refuse)
    subprocess.run(["ip", "tuntap", "add", "libos-test", "mode", "tap", "vnet_hdr"], check=True)
    try:
        with pytest.raises(HostError, match="root or CAP_NET_ADMIN"):
            open_tap("libos-test", mtu=1400)
        subprocess.run(["ip", "link", "set", "libos-test", "mtu", "1400", "up"], check=True)
        os.close(open_tap("libos-test", mtu=1400).fd)
    finally:
        subprocess.run(["ip", "tuntap", "del", "libos-test", "mode", "tap"], check=True)
    assert "libos-test" not in devices()


@pytest.mark.parametrize(
    ("code", "advice"),
    [(errno.ENOENT, "modprobe tun"), (errno.EACCES, "--net user"), (errno.EPERM, "CAP_NET_ADMIN")],
)
def test_no_permission(monkeypatch, code, advice):
    def refuse(*args: Any) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tap_module.os, "open", refuse)
    with pytest.raises(HostError, match=advice):
        open_tap("tap9")


@pytest.fixture
def machine(reactor: Any) -> Iterator[Any]:
    """A stack on a TAP, a loop whose network is the host's, and the device's name."""
    rng = Rng(1)
    tap = open_tap(addresses=["10.42.199.1/24", "fd00:42:199::1/64"])
    link = Link.tap(reactor.handle, tap.fd, rng, mtu=tap.mtu, caps=tap.caps)
    stack = Stack(rng, reactor.now())
    ifindex = stack.add_link(link)
    stack.add_address(ifindex, "10.42.199.2/24")
    stack.add_address(ifindex, "fd00:42:199::2/64")
    network = StackNetwork(stack, reactor, resolver=Resolver(rng))
    loop = Loop(reactor)
    yield loop, network, tap.name
    network.close()
    loop.close()
    stack.close()
    assert tap.name not in devices()


@root
@pytest.mark.parametrize("host", ["10.42.199.2", "fd00:42:199::2"])
def test_the_kernel_talks_to_the_stack(machine, host):
    loop, network, _ = machine

    async def echo(reader, writer):
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        def factory():
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(), echo)

        async with asyncio.timeout(20):
            server = await network.create_server(loop, factory, host, 8000)
            reader, writer = await asyncio.open_connection(host, 8000)  # the kernel's
            blob = bytes(range(256)) * 20_000

            async def send():
                writer.write(blob)
                await writer.drain()
                writer.write_eof()

            sending = asyncio.ensure_future(send())
            assert await reader.read() == blob
            await sending
            writer.close()
            await writer.wait_closed()
            server.close()

    loop.run_until_complete(main())


@root
def test_small_segments_do_not_wait_for_the_timer(machine):
    """The kernel counts its window in segments, which is two here: whatever they bring, their ACK may not wait for an
    answer that does not come. That one came before (then no ACK is sent at once as a favour) makes no difference."""
    loop, network, device = machine
    route = ("10.42.199.0/24", "dev", device, "proto", "kernel", "scope", "link", "src", "10.42.199.1")
    subprocess.run(["ip", "route", "change", *route, "initcwnd", "2"], check=True)
    # So many that they fill more than the one segment that a tail loss probe takes along.
    pieces, conversations = [b"piece %3d" % n for n in range(400)], 10

    async def serve(reader, writer):
        writer.write(await reader.readexactly(5))
        writer.write(await reader.readexactly(len(b"".join(pieces))))
        writer.close()
        await writer.wait_closed()

    async def talk():
        with socket.socket() as kernel:
            kernel.setblocking(False)
            kernel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(kernel, ("10.42.199.2", 8000))
            kernel.send(b"hello")
            assert await loop.sock_recv(kernel, 100) == b"hello"
            for piece in pieces:
                kernel.send(piece)
            answer = b""
            while data := await loop.sock_recv(kernel, 10_000):
                answer += data
            assert answer == b"".join(pieces)

    async def main():
        def factory():
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(), serve)

        async with asyncio.timeout(20):
            server = await network.create_server(loop, factory, "10.42.199.2", 8000)
            for _ in range(conversations):
                await talk()
            server.close()

    loop.run_until_complete(main())
    # Some may fire where this process is kept from running; each conversation's would if it had to.
    assert network.stack.counters()["TcpExtDelayedACKs"] < conversations / 2
