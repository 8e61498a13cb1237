"""``getaddrinfo`` and ``getnameinfo``. What the network's own resolver does is tested with it."""

from __future__ import annotations

import asyncio
import socket

import pytest

from .worlds import World

AnyLoop = asyncio.AbstractEventLoop


def test_addresses_and_ports(loop: AnyLoop) -> None:
    async def main() -> None:
        for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
            infos = await loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM)
            assert [(info[0], info[1], info[4][:2]) for info in infos] == [(family, socket.SOCK_STREAM, (host, 80))]
        infos = await loop.getaddrinfo(None, 80, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        assert sorted(info[4][0] for info in infos) == ["0.0.0.0", "::"]
        infos = await loop.getaddrinfo(b"127.0.0.1", "80", family=socket.AF_INET, type=socket.SOCK_DGRAM)
        assert [(info[1], info[2], info[4]) for info in infos] == [
            (socket.SOCK_DGRAM, socket.IPPROTO_UDP, ("127.0.0.1", 80))
        ]

    loop.run_until_complete(main())


def test_the_name_of_the_server(world: World, names: None) -> None:
    async def main() -> None:
        infos = await world.loop.getaddrinfo(world.name, 80, family=socket.AF_INET, type=socket.SOCK_STREAM)
        assert world.host in [info[4][0] for info in infos]

    world.run(main())


def test_errors_are_those_of_the_socket_module(loop: AnyLoop) -> None:
    async def main() -> None:
        with pytest.raises(socket.gaierror) as info:
            await loop.getaddrinfo("name.invalid", 80, flags=socket.AI_NUMERICHOST)
        assert info.value.errno == socket.EAI_NONAME
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("127.0.0.1", 80, family=socket.AF_INET6, flags=socket.AI_NUMERICHOST)

    loop.run_until_complete(main())


def test_names_of_addresses(loop: AnyLoop) -> None:
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV

    async def main() -> None:
        assert await loop.getnameinfo(("127.0.0.1", 80), flags) == ("127.0.0.1", "80")
        assert await loop.getnameinfo(("::1", 80, 0, 0), flags) == ("::1", "80")

    loop.run_until_complete(main())


def test_a_question_is_cancelled(loop: AnyLoop) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(loop.getaddrinfo("localhost", 80))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    loop.run_until_complete(main())
