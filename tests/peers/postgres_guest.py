"""asyncpg against PostgreSQL, in cases. Arguments: the server, and the authority that its certificate is to be of, or
`plain` for a connection without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import cases

PORT = 5432
ROWS = 40_000


def options(host: str, security: str) -> dict[str, Any]:
    verified = False if security == "plain" else ssl.create_default_context(cafile=security)
    return {"host": host, "port": PORT, "user": "postgres", "database": "postgres", "ssl": verified}


@contextlib.asynccontextmanager
async def connection(host: str, security: str) -> AsyncIterator[asyncpg.Connection]:
    made = await asyncpg.connect(**options(host, security))
    try:
        yield made
    finally:
        await made.close()


async def is_who_we_meant(host: str, security: str) -> None:
    async with connection(host, security) as db:
        encrypted = await db.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        assert encrypted == (security != "plain")


async def prepared_statements(host: str, security: str) -> None:
    async with connection(host, security) as db:
        plus = await db.prepare("select $1::int + $2::int")
        assert [await plus.fetchval(n, 1) for n in range(500)] == list(range(1, 501))
        await db.execute("create temp table numbers (n int primary key, word text)")
        await db.executemany("insert into numbers values ($1, $2)", [(n, "w" * n) for n in range(1000)])
        assert await db.fetchval("select sum(length(word)) from numbers") == 499_500
        async with db.transaction():  # a cursor fetches in portions
            words = [row["word"] async for row in db.cursor("select word from numbers order by n", prefetch=64)]
        assert words == ["w" * n for n in range(1000)]


async def transactions(host: str, security: str) -> None:
    async with connection(host, security) as db:
        await db.execute("create temp table ledger (entry int unique)")
        async with db.transaction():
            await db.execute("insert into ledger values (1)")
            with contextlib.suppress(ZeroDivisionError):
                async with db.transaction():  # a savepoint
                    await db.execute("insert into ledger values (2)")
                    raise ZeroDivisionError
        try:
            async with db.transaction(isolation="serializable"):
                await db.execute("insert into ledger values (3)")
                await db.execute("insert into ledger values (1)")
        except asyncpg.UniqueViolationError:
            pass
        else:
            raise AssertionError("an entry that was there already was taken")
        assert [row["entry"] for row in await db.fetch("select entry from ledger")] == [1]


async def copies(host: str, security: str) -> None:
    """COPY, 5 MiB each way: out of and into memory, and between two connections without touching ground."""
    text = b"".join(b"%d\t%s\n" % (n, hashlib.sha512(b"%d" % n).hexdigest().encode()) for n in range(ROWS))
    async with connection(host, security) as db, connection(host, security) as other:
        for each in (db, other):
            await each.execute("create temp table bulk (n int, digest text)")
        assert await db.copy_to_table("bulk", source=io.BytesIO(text)) == f"COPY {ROWS}"
        back = io.BytesIO()
        assert await db.copy_from_query("select * from bulk order by n", output=back) == f"COPY {ROWS}"
        assert back.getvalue() == text

        portions: asyncio.Queue[bytes | None] = asyncio.Queue(4)

        async def give() -> None:
            await db.copy_from_table("bulk", output=portions.put)
            await portions.put(None)

        async def take() -> AsyncIterator[bytes]:
            while (portion := await portions.get()) is not None:
                yield portion

        _, copied = await asyncio.gather(give(), other.copy_to_table("bulk", source=take()))
        assert copied == f"COPY {ROWS}"
        sums = [await each.fetchval("select md5(string_agg(digest, ',' order by n)) from bulk") for each in (db, other)]
        assert sums[0] == sums[1]
        await db.copy_records_to_table("bulk", records=((n, "x") for n in range(1000)))  # the binary format
        assert await db.fetchval("select count(*) from bulk") == ROWS + 1000


async def large_values(host: str, security: str) -> None:
    blob = hashlib.shake_128(b"seed").digest(8 << 20)
    async with connection(host, security) as db:
        digest, same = await db.fetchrow("select sha256($1::bytea), $1::bytea", blob)
        assert digest == hashlib.sha256(blob).digest()
        assert same == blob


async def listen_and_notify(host: str, security: str) -> None:
    async with connection(host, security) as listener, connection(host, security) as speaker:
        heard: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        await listener.add_listener("news", lambda _, pid, channel, payload: heard.put_nowait((pid, payload)))
        for n in range(100):
            await speaker.execute(f"notify news, '{n}'")
        assert [await heard.get() for _ in range(100)] == [(speaker.get_server_pid(), f"{n}") for n in range(100)]


async def a_pool_of_twenty(host: str, security: str) -> None:
    """All of which are in use at once, and then by four hundred."""
    async with asyncpg.create_pool(**options(host, security), min_size=5, max_size=20) as pool:
        everybody = asyncio.Barrier(20)

        async def meet() -> None:
            async with pool.acquire() as db:
                await everybody.wait()
                assert await db.fetchval("select 1") == 1

        await asyncio.gather(*(meet() for _ in range(20)))
        assert pool.get_size() == 20
        answers = await asyncio.gather(*(pool.fetchval("select $1::int", n) for n in range(400)))
        assert answers == list(range(400))


async def a_query_that_takes_too_long(host: str, security: str) -> None:
    """asyncpg cancels it in the server, by a connection of its own; ours goes on. Three ways of giving up."""
    async with connection(host, security) as db:
        started = time.monotonic()
        for attempt in (
            lambda: db.fetch("select pg_sleep(60)", timeout=0.05),
            lambda: asyncio.wait_for(db.fetch("select pg_sleep(60)"), 0.05),
            lambda: db.execute("set local statement_timeout = 50; select pg_sleep(60)"),
        ):
            try:
                await attempt()
            except (TimeoutError, asyncpg.QueryCanceledError):
                assert await db.fetchval("select 1") == 1
            else:
                raise AssertionError("it came to its end")
        assert time.monotonic() - started < 10


async def tasks_are_cancelled(host: str, security: str) -> None:
    """In the middle of queries; the pool has all its connections afterwards."""
    async with asyncpg.create_pool(**options(host, security), min_size=4, max_size=4) as pool:
        tasks = [asyncio.ensure_future(pool.fetchval("select pg_sleep(60)")) for _ in range(12)]
        await cases.until(lambda: pool.get_idle_size() == 0)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*tasks, return_exceptions=True)
        )
        assert await asyncio.gather(*(pool.fetchval("select $1::int", n) for n in range(8))) == list(range(8))


async def refused(host: str, security: str) -> None:
    """A wrong database, a port where nobody is, and a certificate of somebody else's authority."""
    wrong = options(host, security)
    strangers = [({**wrong, "database": "nowhere"}, asyncpg.InvalidCatalogNameError), ({**wrong, "port": 1}, OSError)]
    if security != "plain":
        strangers.append(({**wrong, "ssl": ssl.create_default_context()}, ssl.SSLCertVerificationError))
    for what, error in strangers:
        try:
            await asyncpg.connect(**what)
        except error:
            continue
        raise AssertionError(f"{what} was accepted")


async def until_asleep(admin: asyncpg.Connection, count: int) -> None:
    """Until so many queries sleep: asyncpg itself falls over an end that comes between preparing one and asking it."""
    asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
    while await admin.fetchval(asleep) < count:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def backend_is_ended(host: str, security: str) -> None:
    """By an administrator, in the middle of a query: an error that says so."""
    async with connection(host, security) as admin:
        db = await asyncpg.connect(**options(host, security))
        query = asyncio.ensure_future(db.fetch("select pg_sleep(60)"))
        await until_asleep(admin, 1)
        assert await admin.fetchval("select pg_terminate_backend($1, 5000)", db.get_server_pid())
        (error,) = await asyncio.gather(query, return_exceptions=True)
        assert "terminating connection due to administrator command" in str(error)
        assert db.is_closed()


async def server_is_killed(host: str, security: str) -> None:
    """All of it, by SIGKILL, in the middle of queries: an error for each, at once."""
    made = [await asyncpg.connect(**options(host, security)) for _ in range(8)]
    queries = [asyncio.ensure_future(db.fetch("select pg_sleep(60)")) for db in made]
    async with connection(host, security) as admin:
        await until_asleep(admin, len(queries))
    await cases.wish("kill")
    for error in await asyncio.gather(*queries, return_exceptions=True):
        assert isinstance(error, OSError | asyncpg.PostgresConnectionError), repr(error)
    try:
        await asyncpg.connect(**options(host, security))
    except OSError:
        return
    raise AssertionError("who accepted this?")


cases.run(
    is_who_we_meant,
    prepared_statements,
    transactions,
    copies,
    large_values,
    listen_and_notify,
    a_pool_of_twenty,
    a_query_that_takes_too_long,
    tasks_are_cancelled,
    refused,
    backend_is_ended,
    server_is_killed,
)
