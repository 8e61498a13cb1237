"""redis-py on libos, redis-server on the kernel. What they do is in redis_guest.py."""

from __future__ import annotations

import pytest

from .conftest import Certificate
from .site import HERE, WAYS, WORLDS, Process, Site, needs

pytestmark = needs("redis-server", modules=["redis"])


def serve(site: Site, certificate: Certificate) -> Process:
    """Without TLS on 6379, with it on 6380; nothing is kept on disk."""
    options = {
        "port": 6379,
        "tls-port": 6380,
        "tls-cert-file": certificate.chain,
        "tls-key-file": certificate.key,
        "tls-auth-clients": "no",
        "bind": "* -::*",
        "protected-mode": "no",
        "save": "",
        "dir": site.folder,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", *str(value).split(" "))]
    return site.serve("redis-server", *words, port=6380)


@pytest.mark.parametrize(("world", "security"), WAYS)
def test_redis(site: Site, certificate: Certificate, world: str, security: str) -> None:
    server = serve(site, certificate)
    wishes = {"kill": server.close, "restart": lambda: serve(site, certificate)}
    authority = str(certificate.authority) if security == "tls" else "plain"
    passed = site.run_cases(world, HERE / "redis_guest.py", WORLDS[world].server, authority, wishes=wishes)
    assert passed[-1] == "server_is_restarted"
