"""The resolver against dnsmasq, a name server that many people have, over a TAP in a network namespace."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("dnsmasq"), reason="needs dnsmasq (Debian: dnsmasq-base)"),
    pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare of util-linux"),
]

# Runs in the namespace: a machine on a TAP whose other end dnsmasq listens on.
PROGRAM = """
import asyncio, json, socket, subprocess
import libos

records = [f"--host-record=many.corp.test,10.1.{n // 100}.{n % 100 + 1}" for n in range(150)]
with libos.Machine(libos.configure(net="tap", dns="10.0.3.2", search="corp.test", reactor="epoll")) as machine:
    dnsmasq = subprocess.Popen(
        ["dnsmasq", "--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
         "--user=root", "--pid-file=", "--listen-address=10.0.3.2", "--bind-interfaces", "--local=/test/",
         "--local-ttl=30", "--host-record=www.corp.test,192.0.2.1,2001:db8::1", "--host-record=box.corp.test,10.0.3.2",
         "--cname=alias.corp.test,www.corp.test", "--srv-host=_db._tcp.corp.test,www.corp.test,5432,10,5",
         "--txt-record=corp.test,hello world", "--mx-host=corp.test,www.corp.test,7", *records],
        stderr=subprocess.PIPE, text=True)
    try:
        next(line for line in dnsmasq.stderr if "started" in line)

        async def main():
            loop, found = asyncio.get_running_loop(), {}

            async def note(name, coroutine):
                try:
                    found[name] = await coroutine
                except socket.gaierror as error:
                    found[name] = error.errno

            async def addresses(host, family=0):
                return sorted(i[4][0] for i in await loop.getaddrinfo(host, 80, family=family, type=1))

            async def records(name, type):
                answer = await machine.network.resolver.query(machine.network, loop, name, type)
                return [repr(record) for record in answer.records], answer.ttl

            await note("both", addresses("www.corp.test"))
            await note("four", addresses("www.corp.test", socket.AF_INET))
            await note("search", addresses("www"))
            await note("alias", addresses("alias.corp.test"))
            await note("many", addresses("many.corp.test", socket.AF_INET))
            await note("nobody", addresses("nobody.corp.test"))
            await note("nodata", addresses("box.corp.test", socket.AF_INET6))
            await note("srv", records("_db._tcp.corp.test", "SRV"))
            await note("txt", records("corp.test", "TXT"))
            await note("mx", records("corp.test", "MX"))
            await note("pointer", loop.getnameinfo(("10.0.3.2", 53), 0))
            found["counts"] = machine.network.resolver.statistics()
            print(json.dumps(found))

        machine.run(main())
    finally:
        dnsmasq.terminate()
        dnsmasq.communicate()
"""


@pytest.fixture(scope="module")
def found() -> Any:
    command = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$0" -c "$1"', sys.executable, PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("both", ["192.0.2.1", "2001:db8::1"]),
        ("four", ["192.0.2.1"]),
        ("search", ["192.0.2.1", "2001:db8::1"]),
        ("alias", ["192.0.2.1", "2001:db8::1"]),
        ("nobody", -2),
        ("nodata", -5),
        ("srv", [["Service(priority=10, weight=5, port=5432, target='www.corp.test')"], 30]),
        ("txt", [["b'hello world'"], 30]),
        ("mx", [["(7, 'www.corp.test')"], 30]),
        ("pointer", ["box.corp.test", "domain"]),
    ],
)
def test_dnsmasq_says(found: Any, what: str, expected: object) -> None:
    assert found[what] == expected


def test_a_long_answer_came_by_tcp(found: Any) -> None:
    assert len(found["many"]) == 150
    assert found["counts"]["tcp"] == 1


def test_nothing_was_asked_twice_and_no_server_failed(found: Any) -> None:
    counts = found["counts"]
    assert (counts["failures"], counts["strays"], counts["refused"]) == (0, 0, 0)
    assert counts["hits"] >= 3
