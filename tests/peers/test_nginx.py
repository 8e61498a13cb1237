"""aiohttp and httpx on libos, nginx on the kernel. What they do is in nginx_guest.py."""

from __future__ import annotations

import hashlib

import pytest

from .conftest import Certificate
from .site import HERE, WAYS, WORLDS, Process, Site, needs

pytestmark = needs("nginx", modules=["aiohttp", "httpx", "h2"])

CONFIG = """
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type text/plain;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 16m;
    server {{
        listen 80;
        listen [::]:80;
        listen 443 ssl http2;
        listen [::]:443 ssl http2;
        ssl_certificate {certificate.chain};
        ssl_certificate_key {certificate.key};
        root {folder};

        location /files/ {{ dav_methods PUT DELETE; }}
        location /post/ {{ proxy_method PUT; proxy_pass http://127.0.0.1/files/; }}
        location = /blob {{ }}
        location = /text {{ gzip on; gzip_types text/plain; }}
        location = /slow {{ alias {folder}/blob; limit_rate 64k; }}
        location = /small {{ client_max_body_size 1k; proxy_pass http://127.0.0.1/who; }}
        location = /nothing {{ return 444; }}
        location = /who {{ return 200 "$connection $connection_requests\\n"; }}
        location = /ten {{ keepalive_requests 10; return 200 "$connection $connection_requests\\n"; }}
        location = /echo {{ return 200 "$args\\n"; }}
    }}
}}
"""


@pytest.fixture
def nginx(site: Site, certificate: Certificate) -> Process:
    (site.folder / "files").mkdir()
    (site.folder / "blob").write_bytes(hashlib.shake_128(b"seed").digest(10 << 20))
    (site.folder / "text").write_text("".join(f"line {n}\n" for n in range(50_000)))
    config = site.folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=site.folder, certificate=certificate))
    return site.serve("nginx", "-c", config, port=80)


@pytest.mark.parametrize(("world", "security"), WAYS)
def test_clients(site: Site, nginx: Process, certificate: Certificate, world: str, security: str) -> None:
    authority = str(certificate.authority) if security == "tls" else "plain"
    passed = site.run_cases(world, HERE / "nginx_guest.py", WORLDS[world].server, authority)
    assert passed[-1] == "httpx_on_http2"
    assert nginx.stop() == 0
