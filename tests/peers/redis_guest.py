"""redis-py's asyncio client against redis-server, in cases. Arguments: the server, and the authority that its
certificate is to be of, or `plain` for a connection without TLS."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from typing import Any

import cases
import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

BLOB = hashlib.shake_128(b"seed").digest(1 << 20)


def client(host: str, security: str, **options: Any) -> redis.asyncio.Redis:
    """One that tries again only once, and soon."""
    options["retry"] = Retry(ConstantBackoff(0.01), 1)
    if security == "plain":
        return redis.asyncio.Redis(host=host, port=6379, **options)
    os.environ["SSL_CERT_FILE"] = security  # it makes a context for each connection, which reads all of the system's
    return redis.asyncio.Redis(host=host, port=6380, ssl=True, ssl_ca_certs=security, **options)


async def values_of_a_mebibyte(host: str, security: str) -> None:
    async with client(host, security) as db:
        for n in range(8):
            assert await db.set(f"blob:{n}", BLOB[n:])
        assert await db.mget([f"blob:{n}" for n in range(8)]) == [BLOB[n:] for n in range(8)]
        assert await db.getrange("blob:0", 1 << 19, -1) == BLOB[1 << 19 :]


async def pipelines(host: str, security: str) -> None:
    async with client(host, security, decode_responses=True) as db:
        async with db.pipeline(transaction=False) as pipe:
            for n in range(2000):
                pipe.set(f"n:{n}", n).get(f"n:{n}")
            answers = await pipe.execute()
        assert answers[::2] == [True] * 2000
        assert answers[1::2] == [str(n) for n in range(2000)]
        async with db.pipeline() as pipe:  # a transaction that somebody spoils
            await pipe.watch("n:1")
            await db.set("n:1", "other")
            pipe.multi()
            pipe.set("n:1", "mine")
            try:
                await pipe.execute()
            except redis.exceptions.WatchError:
                pass
            else:
                raise AssertionError("it was not noticed")
        assert await db.get("n:1") == "other"


async def scripts_and_scans(host: str, security: str) -> None:
    async with client(host, security) as db:
        await db.sadd("set", *range(3000))
        assert len({member async for member in db.sscan_iter("set", count=50)}) == 3000
        assert await db.eval("return redis.call('scard', KEYS[1]) + ARGV[1]", 1, "set", 7) == 3007


async def publishing_and_subscribing(host: str, security: str) -> None:
    """Ten subscribers, each of which hears everything in order."""
    async with client(host, security) as db:

        async def listen(ready: asyncio.Event) -> list[bytes]:
            heard = []
            async with db.pubsub() as channel:
                await channel.subscribe("news")
                await channel.psubscribe("n*")
                async for message in channel.listen():
                    if message["type"] == "psubscribe":
                        ready.set()
                    elif message["type"] == "message":
                        heard.append(message["data"])
                        if message["data"] == b"end":
                            return heard
            raise AssertionError("the end was not heard")

        ready = [asyncio.Event() for _ in range(10)]
        listeners = [asyncio.ensure_future(listen(each)) for each in ready]
        for each in ready:
            await each.wait()
        said = [*(b"%d" % n for n in range(200)), BLOB[: 1 << 16], b"end"]
        for word in said:
            assert await db.publish("news", word) == 20  # by name and by pattern
        assert await asyncio.gather(*listeners) == [said] * 10


async def blocking_pops(host: str, security: str) -> None:
    """With time-outs of the server's and of the client's; and those that get what they wait for."""
    async with client(host, security) as db:
        started = time.monotonic()
        assert await db.blpop("nothing", timeout=0.05) is None
        assert time.monotonic() - started >= 0.05
        try:
            await asyncio.wait_for(db.blpop("nothing", timeout=0), 0.05)
        except TimeoutError:
            pass
        else:
            raise AssertionError("popped from nothing")
        poppers = [asyncio.ensure_future(db.brpop("work", timeout=10)) for _ in range(20)]
        while (await db.info("clients"))["blocked_clients"] < 20:
            pass
        await db.lpush("work", *range(20))
        assert sorted(int(value) for _, value in await asyncio.gather(*poppers)) == list(range(20))
        assert await db.llen("work") == 0


async def many_clients(host: str, security: str) -> None:
    """A hundred connections at once, each with its own question."""
    number = 100
    async with client(host, security, max_connections=number) as db:
        hold = asyncio.Barrier(number)

        async def ask(n: int) -> bytes:
            async with db.client() as own:
                await own.set(f"own:{n}", b"%d" % n * 1000)
                await hold.wait()
                answer: bytes = await own.get(f"own:{n}")
                return answer

        assert await asyncio.gather(*map(ask, range(number))) == [b"%d" % n * 1000 for n in range(number)]
        assert (await db.info("clients"))["connected_clients"] >= number


async def slow_server(host: str, security: str) -> None:
    """It sleeps, and our patience ends; the connection is given up, the next one works."""
    async with client(host, security) as db, client(host, security, socket_timeout=0.1) as hasty:
        assert await hasty.ping()
        await db.client_pause(60_000, all=False)  # writes only: that it is over can still be said
        try:
            await hasty.set("key", "value")
        except redis.exceptions.TimeoutError:
            pass
        else:
            raise AssertionError("it did not sleep")
        await db.client_unpause()
        assert await hasty.ping()


async def server_is_restarted(host: str, security: str) -> None:
    """In the middle of everything: a clear error for who waits; afterwards the same client connects anew."""
    async with client(host, security) as db:
        waiting = [asyncio.ensure_future(db.blpop(f"nothing:{n}", timeout=30)) for n in range(10)]
        while (await db.info("clients"))["blocked_clients"] < 10:
            pass
        await cases.wish("kill")
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, redis.exceptions.ConnectionError), repr(error)
        try:
            await db.ping()
        except redis.exceptions.ConnectionError:
            pass
        else:
            raise AssertionError("who answered?")
        await cases.wish("restart")
        assert sorted(await asyncio.gather(*(db.incr("count") for _ in range(50)))) == list(range(1, 51))


cases.run(
    values_of_a_mebibyte,
    pipelines,
    scripts_and_scans,
    publishing_and_subscribing,
    blocking_pops,
    many_clients,
    slow_server,
    server_is_restarted,
)
