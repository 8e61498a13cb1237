"""Sites, and a certificate made for this run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from .site import CERTIFIED, Site


class Certificate(NamedTuple):
    """Files: the certificate of servers, its key, and the authority that signed it."""

    chain: Path
    key: Path
    authority: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    import trustme

    folder = tmp_path_factory.mktemp("certificate")
    files = Certificate(folder / "chain.pem", folder / "key.pem", folder / "authority.pem")
    authority = trustme.CA()
    server = authority.issue_cert(*CERTIFIED)
    authority.cert_pem.write_to_path(files.authority)
    server.private_key_pem.write_to_path(files.key)
    for part in server.cert_chain_pems:
        part.write_to_path(files.chain, append=True)
    return files


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()
