"""asyncpg on libos, PostgreSQL on the kernel. What they do is in postgres_guest.py."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Certificate
from .site import HERE, WAYS, WORLDS, Process, Site, needs

pytestmark = needs("postgres", modules=["asyncpg"])

OWNER = "postgres"  # it refuses to be root's
SETTINGS = """
listen_addresses = '*'
unix_socket_directories = ''
fsync = off
ssl = on
ssl_cert_file = 'chain.pem'
ssl_key_file = 'key.pem'
"""
ACCESS = """
hostssl all all all trust
hostnossl all all all trust
"""


def program(name: str) -> str:
    """Of the newest version there is. Debian keeps them off PATH."""
    return max(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: float(path.split("/")[4]))


@pytest.fixture(scope="module")
def cluster(certificate: Certificate) -> Iterator[Path]:
    """A fresh one to copy, where its owner may reach it: the folders of pytest are root's alone."""
    with tempfile.TemporaryDirectory(prefix="libos-postgres-") as name:
        shutil.chown(name, OWNER, OWNER)
        data = Path(name, "data")
        subprocess.run(
            [program("initdb"), "--no-sync", "--auth=trust", f"--username={OWNER}", "--encoding=UTF8", data],
            user=OWNER,
            group=OWNER,
            extra_groups=[],
            cwd=name,
            check=True,
            capture_output=True,
        )
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS)
        (data / "pg_hba.conf").write_text(ACCESS)
        for file in (certificate.chain, certificate.key):
            shutil.copy(file, data)
            os.chmod(data / file.name, 0o600)
            shutil.chown(data / file.name, OWNER, OWNER)
        yield data


@pytest.fixture
def postgres(site: Site, cluster: Path) -> Iterator[Process]:
    data = cluster.parent / "copy"
    subprocess.run(["cp", "--archive", "--reflink=auto", cluster, data], check=True)
    as_owner = {"user": OWNER, "group": OWNER, "extra_groups": [], "cwd": data}
    server = site.serve(program("postgres"), "-D", data, port=5432, **as_owner)
    yield server
    server.close()
    shutil.rmtree(data)


@pytest.mark.parametrize(("world", "security"), WAYS)
def test_asyncpg(site: Site, postgres: Process, certificate: Certificate, world: str, security: str) -> None:
    authority = str(certificate.authority) if security == "tls" else "plain"
    passed = site.run_cases(
        world, HERE / "postgres_guest.py", WORLDS[world].server, authority, wishes={"kill": postgres.close}
    )
    assert passed[-1] == "server_is_killed"
