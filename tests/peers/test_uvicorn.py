"""A FastAPI application (uvicorn_app.py) under uvicorn on libos, as users start it. On the kernel: a client, and load
from wrk and h2load."""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import sys
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import Certificate
from .site import HERE, PATIENCE, WAYS, WORLDS, Guest, Site, needs

pytestmark = needs("wrk", "h2load", modules=["fastapi", "httptools", "httpx", "uvicorn", "websockets"])

PORT = 8000


class Server:
    """uvicorn in ``world``, seen from outside."""

    def __init__(self, site: Site, guest: Guest, world: str, certificate: Certificate | None) -> None:
        self.site, self.guest = site, guest
        self.authority = certificate.authority if certificate else "plain"
        self.url = f"http{'s' if certificate else ''}://{WORLDS[world].guest}:{PORT}"
        site.wait_for(guest, WORLDS[world].guest, PORT)

    def everything(self) -> str:
        """What a client (uvicorn_client.py) says when it has tried it all."""
        return self.site.outside(sys.executable, HERE / "uvicorn_client.py", self.url, self.authority).strip()

    def get(self, path: str) -> Any:
        context = None if self.authority == "plain" else ssl.create_default_context(cafile=self.authority)
        with (
            self.site.namespace.entered(),
            urllib.request.urlopen(f"{self.url}/{path}", timeout=PATIENCE, context=context) as response,
        ):
            return json.load(response)

    def h2load(self, *options: str) -> None:
        """1000 requests of 50 clients: each succeeds, and no other arrives."""
        before = self.get("served")
        said = self.site.outside("h2load", "-n1000", "-c50", *options, f"{self.url}/hello")
        assert "1000 total, 1000 started, 1000 done, 1000 succeeded, 0 failed, 0 errored, 0 timeout" in said, said
        assert "1000 2xx" in said, said
        assert self.get("served") == before + 1000

    def wrk(self) -> None:
        """For a second. It does not wait for the last answers of its 64 clients."""
        before = self.get("served")
        said = self.site.outside("wrk", "-t2", "-c64", "-d1s", f"{self.url}/hello")
        requests = re.search(r"(\d+) requests in", said)
        assert requests
        assert "Socket errors" not in said, said
        assert "Non-2xx" not in said, said
        assert 0 < int(requests[1]) <= self.get("served") - before <= int(requests[1]) + 64


Start = Callable[..., contextlib.AbstractContextManager[Server]]


@pytest.fixture
def uvicorn(site: Site, certificate: Certificate) -> Start:
    """Start it, with more of its options, until the block ends; then it must end well."""

    @contextlib.contextmanager
    def start(world: str, *options: str, security: str = "plain") -> Iterator[Server]:
        words = [
            "-m",
            "uvicorn",
            "uvicorn_app:app",
            "--host=0.0.0.0",
            f"--port={PORT}",
            "--log-level=warning",
            *options,
        ]
        if security == "tls":
            words += [f"--ssl-certfile={certificate.chain}", f"--ssl-keyfile={certificate.key}"]
        publish = ("--publish", f"{PORT}:{PORT}") if world == "user" else ()
        with site.guest(world, *words, options=publish) as guest:
            yield Server(site, guest, world, certificate if security == "tls" else None)
            assert guest.stop() == 0, guest.said()
            assert "Traceback" not in guest.said(), guest.said()

    return start


@pytest.mark.parametrize(("world", "security"), WAYS)
def test_an_application(uvicorn: Start, world: str, security: str) -> None:
    with uvicorn(world, security=security) as server:
        assert server.everything() == "done"
        server.h2load("--h1")
        if (world, security) in (("tap", "plain"), ("host", "plain")):
            server.wrk()


@pytest.mark.parametrize(("loop", "http"), [("auto", "httptools"), ("asyncio", "h11"), ("uvloop", "httptools")])
def test_every_loop_is_ours(uvicorn: Start, loop: str, http: str) -> None:
    with uvicorn("tap", f"--loop={loop}", f"--http={http}") as server:
        said = server.get("loop")
        assert "libos.sched.loop" in said["loops"]
        assert said["client"] == "10.0.3.2"
        server.h2load("--h1")


def test_http2_of_hypercorn(site: Site, certificate: Certificate) -> None:
    """Five connections with ten streams each, over TLS."""
    pytest.importorskip("hypercorn", reason="needs pip install hypercorn")
    with site.guest("tap", HERE / "hypercorn_guest.py", f"0.0.0.0:{PORT}", *certificate[:2]) as guest:
        server = Server(site, guest, "tap", certificate)
        server.h2load("-c5", "-m10")
        assert guest.stop() == 0, guest.said()
