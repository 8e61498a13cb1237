"""The state machine: keys and values, and a session for each client.

Every node applies the same requests in the same order, so nothing here may depend on anything else: no clock, no
randomness, no order of a set. A session remembers the serial number of its client's last request and what the answer
was; a request that comes again gets that answer and changes nothing (section 6.3 of the dissertation). A client has one
request under way at a time, so one answer is enough.

At most ``MAX_SESSIONS`` are kept; the one that was quiet for longest goes first, and its client is told so
(``EXPIRED``), since nobody knows any more whether its last request was applied.
"""

from __future__ import annotations

from .messages import EXPIRED, Cas, Get, Open, Put, Reply, Request, Value, decode_request

MAX_SESSIONS = 4096


class Store:
    def __init__(self) -> None:
        self.data: dict[str, Value] = {}
        self.sessions: dict[int, Reply] = {}  # the last answer of each, the longest quiet first
        self.expired = 0  # sessions that had to go

    def apply(self, index: int, command: bytes) -> Reply | None:
        """The answer to ``command``, the entry ``index`` of the log; None to one that its client waits for no more."""
        if not command:
            return None
        request = decode_request(command)
        if isinstance(request.op, Open):
            return self._open(index, request)
        last = self.sessions.pop(request.client, None)
        if last is None:
            return Reply(request.serial, error=EXPIRED)
        self.sessions[request.client] = last
        if request.serial < last.serial:
            return None
        if request.serial > last.serial:
            last = self.sessions[request.client] = Reply(request.serial, self._perform(request))
        return last

    def _open(self, index: int, request: Request) -> Reply:
        """The index is nobody else's. A lost answer leaves a session that nobody uses; it will be the quietest one."""
        if len(self.sessions) >= MAX_SESSIONS:
            del self.sessions[next(iter(self.sessions))]
            self.expired += 1
        self.sessions[index] = Reply(0)
        return Reply(request.serial, index)

    def _perform(self, request: Request) -> Value:
        match request.op:
            case Get(key):
                return self.data.get(key)
            case Put(key, value):
                self._set(key, value)
            case Cas(key, expected, value):
                if not same(self.data.get(key), expected):
                    return False
                self._set(key, value)
                return True
        return None

    def _set(self, key: str, value: Value) -> None:
        if value is None:
            self.data.pop(key, None)
        else:
            self.data[key] = value


def same(a: Value, b: Value) -> bool:
    """Equal, and of one type: True is not 1 here."""
    return type(a) is type(b) and a == b
