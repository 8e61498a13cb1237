"""The C peers' programs, built when they are first needed and kept in the user's cache directory.

A program's file name carries a digest of all it is made from (its source, ``peer.h``, the flags, the compiler's
name), so a stale one is never run, and the package directory is never written to.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from libos.errors import HostError

__all__ = ["build", "compiler"]

_SOURCES = Path(__file__).resolve().parent / "peers"
_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra")


def compiler() -> str | None:
    """The C compiler of this host, None: there is none."""
    return shutil.which("gcc") or shutil.which("cc")


def build(name: str, flags: tuple[str, ...] = (), more: Sequence[Path] = ()) -> Path:
    """The program made from ``peers/<name>.c`` and ``more`` C files, with ``flags`` behind them. Raises HostError, with
    the compiler's first complaint."""
    cc = compiler()
    if cc is None:
        raise HostError("no C compiler: install gcc (Debian: apt install gcc libc6-dev linux-libc-dev)")
    source = _SOURCES / f"{name}.c"
    headers = sorted({header for file in more for header in file.parent.glob("*.h")})
    files = (source, _SOURCES / "peer.h", *more, *headers)
    made_from = (*(file.read_bytes() for file in files), " ".join((cc, *_FLAGS, *flags)).encode())
    program = _directory() / f"{name}-{hashlib.sha256(b'|'.join(made_from)).hexdigest()[:16]}"
    if program.exists():
        return program
    with tempfile.TemporaryDirectory(dir=program.parent) as directory:
        fresh = Path(directory, name)
        command = [str(word) for word in (cc, *_FLAGS, "-o", fresh, source, *more, *flags)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            complaint = next((line for line in made.stderr.splitlines() if "error" in line), made.stderr.strip())
            raise HostError(f"{cc} cannot build {source.name}: {complaint}")
        fresh.replace(program)  # whole or not at all, even when two build at once
    return program


def _directory() -> Path:
    """Where built programs are kept: the user's cache, else a directory in the temporary one that is the user's own."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "libos" / "bench"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if os.access(cache, os.W_OK):
            return cache
    except OSError:
        pass
    private = Path(tempfile.gettempdir(), f"libos-bench-{os.getuid()}")
    private.mkdir(mode=0o700, exist_ok=True)
    if private.lstat().st_uid != os.getuid():
        raise HostError(f"{private} belongs to another user: set XDG_CACHE_HOME")
    return private
