"""``libos doctor``: what this host offers, and for each thing missing one line on what to do.

It looks and tries (a ring that is closed again, a child that enters a user namespace) and changes nothing. It uses no
part of libos that might be what is broken: its system calls go through ctypes.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import os
import platform
import shutil
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Finding", "examine", "print_findings"]

# linux/io_uring.h
_SYS_IO_URING_SETUP = 425
_SYS_IO_URING_REGISTER = 427
_SETUP_SINGLE_ISSUER, _SETUP_DEFER_TASKRUN = 1 << 12, 1 << 13
_REGISTER_PROBE, _REGISTER_PBUF_RING = 8, 22
_OP_SEND_ZC, _OP_READ_MULTISHOT = 47, 49
_OP_SUPPORTED = 1
_PARAMS_SIZE = 120

_CLONE_NEWUSER = 0x10000000
_AF_XDP = 44
_TUNSETIFF = 0x400454CA
_IFF_TAP_NO_PI = 0x1002


class Finding(NamedTuple):
    """``good``: there; None: missing, and libos does without it; False: missing, and something will not work."""

    what: str
    good: bool | None
    found: str
    advice: str = ""


def examine() -> list[Finding]:
    """Everything, in the order in which a reader wants it."""
    libc = ctypes.CDLL(None, use_errno=True)
    return [
        _python(),
        _extension(),
        _kernel(),
        *_io_uring(libc),
        _tap(),
        _user_namespaces(libc),
        _huge_pages(),
        _vfio(),
        _xdp(),
        *_tools(),
    ]


def _python() -> Finding:
    found = f"{platform.python_implementation()} {platform.python_version()}"
    return Finding("Python", sys.version_info >= (3, 11), found, "libos needs 3.11 or later")


def _extension() -> Finding:
    try:
        for module in ("libos._native", "liburing"):
            importlib.import_module(module)
    except ImportError as error:
        return Finding("libos's C half", False, str(error), "pip install -e . (needs gcc and Python's headers)")
    return Finding("libos's C half", True, "built")


def _kernel() -> Finding:
    release = platform.release()
    number = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdecimal())
    return Finding(
        "kernel", number >= (5, 11), f"{platform.system()} {release}", "io_uring as libos uses it needs Linux 5.11"
    )


# --- io_uring ----------------------------------------------------------------------------------------------------


def _io_uring(libc: ctypes.CDLL) -> Iterator[Finding]:
    fd = _ring(libc, 0)
    if fd < 0:
        sysctl = _read("/proc/sys/kernel/io_uring_disabled")
        advice = "a container's seccomp profile denies it: run with one that allows io_uring_*"
        if fd == -errno.ENOSYS:
            advice = "the kernel is older than 5.1 or built without it"
        if sysctl in ("1", "2"):
            advice = "sysctl -w kernel.io_uring_disabled=0"
        yield Finding("io_uring", None, os.strerror(-fd), advice + "; until then libos waits in epoll")
        return
    try:
        yield Finding("io_uring", True, "allowed")
        ops = _probe(libc, fd)
        newer = "comes with a newer kernel ({}); libos does without it"
        yield Finding("  multishot read", _bit(ops, _OP_READ_MULTISHOT), "", newer.format("6.7"))
        yield Finding("  provided buffer rings", _buffer_ring(libc, fd), "", newer.format("5.19"))
        yield Finding("  deferred task work", _deferred(libc), "", newer.format("6.1"))
        yield Finding("  zero-copy send", _bit(ops, _OP_SEND_ZC), "", newer.format("6.0"))
    finally:
        os.close(fd)


def _bit(ops: frozenset[int], op: int) -> bool | None:
    return True if op in ops else None


def _ring(libc: ctypes.CDLL, flags: int) -> int:
    """A descriptor, or -errno."""
    params = ctypes.create_string_buffer(struct.pack("=III", 0, 0, flags), _PARAMS_SIZE)
    fd: int = libc.syscall(_SYS_IO_URING_SETUP, 4, params)
    return fd if fd >= 0 else -ctypes.get_errno()


def _probe(libc: ctypes.CDLL, fd: int) -> frozenset[int]:
    """The operations that the kernel knows (struct io_uring_probe: a 16-byte header, then 8 bytes for each)."""
    probe = ctypes.create_string_buffer(16 + 256 * 8)
    if libc.syscall(_SYS_IO_URING_REGISTER, fd, _REGISTER_PROBE, probe, 256) < 0:
        return frozenset()
    raw = probe.raw
    return frozenset(
        raw[at] for at in range(16, 16 + raw[1] * 8, 8) if struct.unpack_from("=H", raw, at + 2)[0] & _OP_SUPPORTED
    )


def _buffer_ring(libc: ctypes.CDLL, fd: int) -> bool | None:
    page = os.sysconf("SC_PAGESIZE")
    area = ctypes.create_string_buffer(2 * page)
    address = (ctypes.addressof(area) + page - 1) // page * page
    registration = ctypes.create_string_buffer(struct.pack("=QIHH3Q", address, 8, 0, 0, 0, 0, 0))
    return True if libc.syscall(_SYS_IO_URING_REGISTER, fd, _REGISTER_PBUF_RING, registration, 1) >= 0 else None


def _deferred(libc: ctypes.CDLL) -> bool | None:
    fd = _ring(libc, _SETUP_SINGLE_ISSUER | _SETUP_DEFER_TASKRUN)
    if fd < 0:
        return None
    os.close(fd)
    return True


# --- the rest ----------------------------------------------------------------------------------------------------


def _tap() -> Finding:
    import fcntl

    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        advice = "modprobe tun, or give the container --device /dev/net/tun"
        if error.errno != errno.ENOENT:
            advice = "run as root, or with read and write access to /dev/net/tun and CAP_NET_ADMIN"
        return Finding("TAP", None, f"/dev/net/tun: {error.strerror}", advice + "; --net user needs none")
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"", _IFF_TAP_NO_PI))  # it goes with the descriptor
    except OSError as error:
        return Finding(
            "TAP", None, error.strerror or "refused", "run as root or with CAP_NET_ADMIN; --net user needs neither"
        )
    finally:
        os.close(fd)
    return Finding("TAP", True, "allowed")


def _user_namespaces(libc: ctypes.CDLL) -> Finding:
    """A child tries: a process that has threads may not."""
    child = os.fork()
    if child == 0:
        rc = libc.unshare(_CLONE_NEWUSER)
        os._exit(ctypes.get_errno() & 0xFF if rc < 0 else 0)
    error = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if error == 0:
        return Finding("user namespaces", True, "allowed")
    advice = "sysctl -w user.max_user_namespaces=15000 (Debian also: kernel.unprivileged_userns_clone=1)"
    if _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        advice = "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    return Finding("user namespaces", None, os.strerror(error), advice + "; only tests and benchmarks want them")


def _huge_pages() -> Finding:
    lines = (line.split() for line in _read("/proc/meminfo").splitlines())
    total = next((int(words[1]) for words in lines if words and words[0] == "HugePages_Total:"), 0)
    transparent = _read("/sys/kernel/mm/transparent_hugepage/enabled")
    chosen = transparent[transparent.find("[") + 1 : transparent.find("]")] if "[" in transparent else "absent"
    found = f"{total} reserved, transparent: {chosen}"
    good = True if total or chosen in ("always", "madvise") else None
    return Finding("huge pages", good, found, "sysctl -w vm.nr_hugepages=128 (256 MiB); small pages serve too")


def _vfio() -> Finding:
    groups = len(os.listdir("/sys/kernel/iommu_groups")) if os.path.isdir("/sys/kernel/iommu_groups") else 0
    if not os.path.exists("/dev/vfio/vfio"):
        return Finding("vfio", None, "no /dev/vfio/vfio", "modprobe vfio-pci; not used yet")
    if not groups:
        return Finding("vfio", None, "no IOMMU group", "boot with intel_iommu=on or amd_iommu=on; not used yet")
    return Finding("vfio", True, f"{groups} IOMMU groups")


def _xdp() -> Finding:
    try:
        socket.socket(_AF_XDP, socket.SOCK_RAW, 0).close()
    except OSError as error:
        return Finding(
            "AF_XDP", None, error.strerror or "refused", "root, and a kernel with CONFIG_XDP_SOCKETS; not used yet"
        )
    return Finding("AF_XDP", True, "allowed")


def _tools() -> Iterator[Finding]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    yield Finding("gcc", True if compiler else None, compiler or "", "apt-get install gcc: to build libos from source")
    clang = shutil.which("clang")
    yield Finding("clang", True if clang else None, clang or "", "apt-get install clang: for make fuzz")


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def print_findings(findings: list[Finding]) -> None:
    """A table on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("", "", "found", "what to do"):
        table.add_column(column)
    for finding in findings:
        mark = {True: "[green]yes[/]", None: "[yellow]no[/]", False: "[red]NO[/]"}[finding.good]
        table.add_row(finding.what, mark, finding.found, "" if finding.good else finding.advice)
    Console().print(table)
