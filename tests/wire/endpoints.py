"""One end of a TCP connection, of the kernel's or of ours, with the same few non-blocking calls.

``send`` and ``recv`` answer None when they would block; a connection that was reset raises :class:`Reset` (ECONNRESET,
EPIPE and ENOTCONN alike: which of them a call meets depends on what the one before has already been told).
"""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct
import termios
from typing import Any, Protocol

from libos._native import ffi, lib
from libos.errors import check
from libos.net.stack import Stack

__all__ = ["Endpoint", "KernelEndpoint", "Reset", "StackEndpoint"]

_GONE = {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN, errno.ECONNABORTED}


class Reset(Exception):
    """The connection is no more, and not because both sides had ended it."""


class Endpoint(Protocol):
    def send(self, data: bytes | memoryview) -> int | None: ...
    def recv(self, most: int) -> bytes | None: ...
    def unread(self) -> int: ...
    def state(self) -> int: ...
    def shutdown(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class KernelEndpoint:
    """A connected socket of the host's."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock

    def send(self, data: bytes | memoryview) -> int | None:
        return self._call(self.sock.send, data)

    def recv(self, most: int) -> bytes | None:
        return self._call(self.sock.recv, most)

    def _call(self, call: Any, argument: Any) -> Any:
        try:
            return call(argument)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in _GONE:
                raise Reset(error.strerror) from None
            raise

    def unread(self) -> int:
        count = array.array("i", [0])
        fcntl.ioctl(self.sock, termios.FIONREAD, count)
        return count[0]

    def state(self) -> int:
        return self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]

    def shutdown(self) -> None:
        self._call(self.sock.shutdown, socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def abort(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class StackEndpoint:
    """A connected socket of a stack."""

    def __init__(self, stack: Stack, id: int) -> None:
        self.stack, self.id = stack, id
        self.buffer = ffi.new("uint8_t[]", 1 << 16)

    def send(self, data: bytes | memoryview) -> int | None:
        return self._checked(lib.sock_send(self.stack.handle, self.id, ffi.from_buffer(data), len(data)))

    def recv(self, most: int) -> bytes | None:
        n = self._checked(lib.sock_recv(self.stack.handle, self.id, self.buffer, min(most, 1 << 16)))
        return None if n is None else bytes(ffi.buffer(self.buffer, n))

    def _checked(self, rc: int) -> int | None:
        if rc == -errno.EAGAIN:
            return None
        if -rc in _GONE:
            raise Reset(errno.errorcode[-rc])
        return check(rc)

    def unread(self) -> int:
        counts = ffi.new("uint64_t[3]")
        check(lib.sock_queues(self.stack.handle, self.id, counts, counts + 1, counts + 2))
        return int(counts[0])

    def state(self) -> int:
        """By Linux's numbers (include/net/tcp_states.h)."""
        info, cursor = ffi.new("struct sock_info *"), ffi.new("uint64_t *")
        while lib.stack_next_socket(self.stack.handle, cursor, info):
            if info.id == self.id:
                return int(info.state)
        return 7

    def shutdown(self) -> None:
        self._checked(lib.sock_shutdown(self.stack.handle, self.id))

    def close(self) -> None:
        check(lib.sock_free(self.stack.handle, self.id))

    def abort(self) -> None:
        check(lib.sock_abort(self.stack.handle, self.id))
