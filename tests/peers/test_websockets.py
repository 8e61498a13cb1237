"""websockets on libos and websockets on the kernel, each once the client and once the server of the other. What they do
is in websockets_guest.py."""

from __future__ import annotations

import sys

import pytest

from .conftest import Certificate
from .site import HERE, WAYS, WORLDS, Site, needs

pytestmark = needs(modules=["websockets"])

PROGRAM = HERE / "websockets_guest.py"
PORT = 8765


@pytest.mark.parametrize(("world", "security"), WAYS)
def test_client(site: Site, certificate: Certificate, world: str, security: str) -> None:
    files = certificate[:2] if security == "tls" else ()
    site.serve(sys.executable, PROGRAM, "serve", "0.0.0.0", *files, port=PORT)
    authority = (certificate.authority,) if security == "tls" else ()
    passed = site.run_cases(world, PROGRAM, "connect", WORLDS[world].server, *authority)
    assert passed[-1] == "a_hundred_at_once"


@pytest.mark.parametrize(("world", "security"), WAYS)
def test_server(site: Site, certificate: Certificate, world: str, security: str) -> None:
    address = WORLDS[world].guest
    files = certificate[:2] if security == "tls" else ()
    options = ("--publish", f"{PORT}:{PORT}") if world == "user" else ()
    with site.guest(world, PROGRAM, "serve", "0.0.0.0", *files, options=options) as guest:
        site.wait_for(guest, address, PORT)
        authority = (certificate.authority,) if security == "tls" else ()
        said = site.outside(sys.executable, PROGRAM, "connect", address, *authority)
        assert "a_hundred_at_once" in said
        assert guest.stop() == 0, guest.said()
