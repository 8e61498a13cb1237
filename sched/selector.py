"""A Reactor with the face of a standard ``selectors.BaseSelector``.

Through it CPython's own asyncio code watches the host's descriptors: pipes, datagram sockets, the self-pipe of
threads and signals, ``add_reader``. An event of such a descriptor is left in ``ready``, and the loop comes for it with
:meth:`ReactorSelector.take` after the turn. Sockets of transports do not pass here: their sinks are called inside the
turn.
"""

from __future__ import annotations

import selectors
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from libos.sched.reactor import EV_READ, EV_WRITE, NEVER, Reactor

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = ["ReactorSelector"]

# One number for both, so that a mask passes as it is.
assert (EV_READ, EV_WRITE) == (selectors.EVENT_READ, selectors.EVENT_WRITE)

EVENTS = selectors.EVENT_READ | selectors.EVENT_WRITE


class ReactorSelector(selectors.BaseSelector):
    """Watches through ``reactor``. ``own_reactor``: closing the selector closes the reactor too."""

    def __init__(self, reactor: Reactor, *, own_reactor: bool = False) -> None:
        self._reactor = reactor
        self._own_reactor = own_reactor
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._map = _Map(self)
        self.ready: list[tuple[selectors.SelectorKey, int]] = []  # always this list: the loop has it too

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = _fileno(fileobj)
        if fd in self._keys:
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        return self._watch(selectors.SelectorKey(fileobj, fd, events, data))

    def modify(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._watch(selectors.SelectorKey(fileobj, self.get_key(fileobj).fd, events, data))

    def _watch(self, key: selectors.SelectorKey) -> selectors.SelectorKey:
        if not key.events or key.events & ~EVENTS:
            raise ValueError(f"Invalid events: {key.events!r}")
        append = self.ready.append
        self._reactor.watch(key.fd, key.events, lambda mask: append((key, mask)))
        self._keys[key.fd] = key
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        key = self.get_key(fileobj)
        del self._keys[key.fd]
        self._reactor.unwatch(key.fd)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.ready.clear()  # left by a turn that was interrupted; what still holds comes again
        self._reactor.turn(NEVER if timeout is None else int(timeout * 1e9) if timeout > 0 else 0)
        return self.take()

    def take(self) -> list[tuple[selectors.SelectorKey, int]]:
        """The events of the last turn."""
        # A sink of the same turn may have closed a descriptor, and opened another under its number.
        keys = self._keys
        events = [event for event in self.ready if keys.get(event[0].fd) is event[0]]
        self.ready.clear()
        return events

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._map

    def get_key(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        try:
            key = self._keys.get(_fileno(fileobj))
        except ValueError:
            # An object that has been closed since has no number any more.
            key = next((key for key in self._keys.values() if key.fileobj is fileobj), None)
            if key is None:
                raise
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        return key

    def close(self) -> None:
        for fd in list(self._keys):
            self._reactor.unwatch(fd)
        self._keys.clear()
        self.ready.clear()
        if self._own_reactor:
            self._reactor.close()


class _Map(Mapping["FileDescriptorLike", selectors.SelectorKey]):
    """Keys by file object or descriptor, as asyncio looks them up from Python 3.13 on."""

    def __init__(self, selector: ReactorSelector) -> None:
        self._selector = selector

    def __getitem__(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._selector.get_key(fileobj)

    def __iter__(self) -> Iterator[int]:
        return iter(self._selector._keys)

    def __len__(self) -> int:
        return len(self._selector._keys)


def _fileno(fileobj: FileDescriptorLike) -> int:
    try:
        fd = fileobj if isinstance(fileobj, int) else int(fileobj.fileno())
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"Invalid file object: {fileobj!r}") from None
    if fd < 0:
        raise ValueError(f"Invalid file descriptor: {fd}")
    return fd
