"""The kernel at the other end of a TAP: fragments, groups and VLANs, each way."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libos.net.link.tap import open_tap
from libos.net.names.resolver import Resolver
from libos.net.network import StackNetwork
from libos.net.stack import Link, Stack
from libos.rand import Rng
from libos.sched.loop import Loop

KERNEL = {4: "10.42.198.1", 6: "fd00:42:198::1"}
OURS = {4: "10.42.198.2", 6: "fd00:42:198::2"}
GROUP = {4: "239.42.198.1", 6: "ff15:42::198"}
AF = {4: socket.AF_INET, 6: socket.AF_INET6}
PATTERN = bytes(i * 7 % 251 for i in range(65536))

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="TAP devices need root and /dev/net/tun"
    ),
]


class Host:
    """A stack on a TAP, a loop whose own network is the kernel's, and the kernel's name and index of the TAP."""

    def __init__(self, reactor: Any) -> None:
        rng = Rng(1)
        tap = open_tap(addresses=[KERNEL[4] + "/24", KERNEL[6] + "/64"])
        self.device = tap.name
        self.index = socket.if_nametoindex(tap.name)
        link = Link.tap(reactor.handle, tap.fd, rng, mtu=tap.mtu, caps=tap.caps)
        m = link.mac
        eui64 = bytes([m[0] ^ 2, m[1], m[2], 0xFF, 0xFE, m[3], m[4], m[5]])
        self.linklocal = socket.inet_ntop(socket.AF_INET6, b"\xfe\x80" + bytes(6) + eui64)
        self.stack = Stack(rng, reactor.now())
        self.ifindex = self.stack.add_link(link)
        self.stack.add_address(self.ifindex, OURS[4] + "/24")
        self.stack.add_address(self.ifindex, OURS[6] + "/64")
        self.network = StackNetwork(self.stack, reactor, resolver=Resolver(rng))
        self.loop = Loop(reactor)

    def run(self, main: Any) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(20):
                return await main

        return self.loop.run_until_complete(bounded())

    def close(self) -> None:
        self.network.close()
        self.loop.close()
        self.stack.close()


@pytest.fixture
def host(reactor: Any) -> Iterator[Host]:
    host = Host(reactor)
    yield host
    host.close()


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


class Received(asyncio.DatagramProtocol):
    def __init__(self, *, echo: bool = False) -> None:
        self.queue: asyncio.Queue[tuple[bytes, Any]] = asyncio.Queue()
        self.echo = echo

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.echo:
            self.transport.sendto(data, addr)
        self.queue.put_nowait((data, addr))


async def kernel_endpoint(sock: socket.socket) -> tuple[Any, Received]:
    sock.setblocking(False)
    return await asyncio.get_running_loop().create_datagram_endpoint(Received, sock=sock)


@pytest.mark.parametrize("size", [1472, 1473, 20000, 60000, 65507])
def test_datagrams_in_fragments_both_ways(host: Host, family: int, size: int) -> None:
    async def main() -> None:
        server, echo = await host.network.create_datagram_endpoint(
            host.loop, lambda: Received(echo=True), (OURS[family], 7000)
        )
        client, answers = await kernel_endpoint(socket.socket(AF[family], socket.SOCK_DGRAM))
        client.sendto(PATTERN[:size], (OURS[family], 7000))
        assert (await answers.queue.get())[0] == PATTERN[:size]
        assert (await echo.queue.get())[0] == PATTERN[:size]  # type: ignore[attr-defined]
        client.close()
        server.close()

    host.run(main())
    name = "Ip" if family == 4 else "Ip6"
    counters = host.stack.counters()
    in_pieces = size > (1472 if family == 4 else 1452)
    assert (counters[name + "ReasmOKs"], counters[name + "FragOKs"]) == ((1, 1) if in_pieces else (0, 0))


@pytest.mark.skipif(not shutil.which("ping"), reason="needs ping")
@pytest.mark.parametrize("size", [20000, 65507])
def test_ping_of_any_size(host: Host, family: int, size: int) -> None:
    async def main() -> None:
        command = ("ping", f"-{family}", "-c", "3", "-i", "0.05", "-W", "2", "-s", str(size), OURS[family])
        ping = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        said, _ = await ping.communicate()
        assert b" 0% packet loss" in said

    host.run(main())


def membership(family: int, group: str, index: int) -> bytes:
    raw = socket.inet_pton(AF[family], group)
    return raw + (bytes(4) if family == 4 else b"") + struct.pack("=i", index)


def join(sock: Any, family: int, index: int) -> None:
    raw = membership(family, GROUP[family], index)
    if family == 4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, raw)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, raw)


def kernel_socket(host: Host, family: int) -> socket.socket:
    """That sends to groups by the TAP."""
    sock = socket.socket(AF[family], socket.SOCK_DGRAM)
    if family == 4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(KERNEL[4]))
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, host.index)
    return sock


@pytest.mark.parametrize("size", [100, 8000])
def test_a_group_across_the_wire(host: Host, family: int, size: int) -> None:
    """What the kernel sends to a group is heard by an asyncio endpoint that has joined, and the other way round."""

    async def main() -> None:
        ours = host.network.socket(AF[family], socket.SOCK_DGRAM)
        ours.setblocking(False)
        ours.bind(("", 7001))
        join(ours, family, host.ifindex)
        server, heard = await host.network.create_datagram_endpoint(host.loop, Received, sock=ours)
        theirs = kernel_socket(host, family)
        theirs.bind(("", 7001))
        join(theirs, family, host.index)
        client, kernel_heard = await kernel_endpoint(theirs)

        client.sendto(PATTERN[:size], (GROUP[family], 7001))
        data, address = await heard.queue.get()  # type: ignore[attr-defined]
        assert data == PATTERN[:size]
        if family == 4:
            assert address[0] == KERNEL[4]
        else:
            assert address[0] == KERNEL[6] or address[3] == host.ifindex
        assert (await kernel_heard.queue.get())[0] == PATTERN[:size]  # the kernel's own copy

        server.sendto(PATTERN[1 : size + 1], (GROUP[family], 7001))
        assert (await kernel_heard.queue.get())[0] == PATTERN[1 : size + 1]
        assert (await heard.queue.get())[0] == PATTERN[1 : size + 1]  # type: ignore[attr-defined]
        client.close()
        server.close()

    host.run(main())


def test_link_local_addresses_with_their_scope(host: Host) -> None:
    """RFC 4007: fe80:: addresses of the kernel and of ours, each with the index of its own side."""
    kernel = "fe80::77"  # its own is not checked for duplicates yet
    subprocess.run(["ip", "addr", "add", f"{kernel}/64", "nodad", "dev", host.device], check=True)

    async def main() -> None:
        theirs = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        theirs.bind((kernel, 0, 0, host.index))
        client, answers = await kernel_endpoint(theirs)
        server, heard = await host.network.create_datagram_endpoint(
            host.loop, lambda: Received(echo=True), ("::", 7002)
        )
        client.sendto(b"near", (host.linklocal, 7002, 0, host.index))
        data, address = await heard.queue.get()  # type: ignore[attr-defined]
        assert (data, address[0], address[3]) == (b"near", kernel, host.ifindex)
        assert (await answers.queue.get())[0] == b"near"
        server.close()

        mine = host.network.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        mine.setblocking(False)
        mine.connect((*theirs.getsockname()[:3], host.ifindex))
        assert mine.getsockname()[::3] == (host.linklocal, host.ifindex)
        assert mine.getpeername()[3] == host.ifindex
        mine.send(b"back")
        assert (await answers.queue.get())[0] == b"back"
        mine.close()
        client.close()

    host.run(main())


def test_a_vlan_of_the_kernel(host: Host, family: int) -> None:
    """The kernel's VLAN 5 on the TAP, and ours."""
    name = f"{host.device}.5"
    made = subprocess.run(["ip", "link", "add", "link", host.device, "name", name, "type", "vlan", "id", "5"])
    if made.returncode:
        pytest.skip("this kernel has no VLANs")
    subprocess.run(["ip", "addr", "add", "10.42.197.1/24", "dev", name], check=True)
    subprocess.run(["ip", "addr", "add", "fd00:42:197::1/64", "nodad", "dev", name], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    index = host.stack.add_vlan(host.ifindex, 5)
    host.stack.add_address(index, "10.42.197.2/24")
    host.stack.add_address(index, "fd00:42:197::2/64")
    ours = {4: "10.42.197.2", 6: "fd00:42:197::2"}[family]
    blob = PATTERN * 8

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readexactly(len(blob))
        writer.write(data)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        def factory() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(), serve)

        server = await host.network.create_server(host.loop, factory, ours, 8000)
        reader, writer = await asyncio.open_connection(ours, 8000)
        writer.write(blob)
        assert await reader.readexactly(len(blob)) == blob
        writer.close()
        await writer.wait_closed()
        server.close()
        datagrams, _ = await host.network.create_datagram_endpoint(host.loop, lambda: Received(echo=True), (ours, 7003))
        client, answers = await kernel_endpoint(socket.socket(AF[family], socket.SOCK_DGRAM))
        client.sendto(PATTERN[:60000], (ours, 7003))
        assert (await answers.queue.get())[0] == PATTERN[:60000]
        client.close()
        datagrams.close()

    host.run(main())
