"""Raft's consensus, without I/O: messages and time in, messages and committed entries out.

After "In Search of an Understandable Consensus Algorithm" (Ongaro and Ousterhout, 2014; "the paper", cited by section)
with the pre-vote and the leader's check of its quorum of Ongaro's dissertation (2014, sections 9.6 and 6.2).

Whoever drives a Node calls ``receive`` for each message, ``propose`` for each command and ``tick`` when ``deadline``
has passed, each with the present time in seconds. Whenever it has called some of them, it does this, in this order:

    storage.sync()                                   what the node has promised is durable, before anybody hears of it
    for peer, message in node.take_messages(): ...   to be sent; any of them may be lost, late, doubled or overtaken
    for index, entry in node.take_committed(): ...   to be applied; each index once and in order

The node reads no clock and draws only the election timeouts, by ``rng.uniform``. It owns its log in memory; the storage
is the caller's. Not here: snapshots, changes of the membership, reads that do not go through the log.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from enum import Enum
from typing import Protocol

from .messages import Append, Appended, Entry, Message, RequestVote, Vote
from .storage import Storage

HEARTBEAT = 0.05  # seconds
ELECTION = (0.15, 0.3)  # seconds, drawn anew each time
BATCH = 64  # entries in a message,
BATCH_BYTES = 1 << 18  # and bytes of their commands, unless one alone has more
WINDOW = 512  # entries on their way to one follower
PENDING = 1024  # entries that wait for their commitment; a leader with so many takes no more


class Uniform(Protocol):
    def uniform(self, a: float, b: float) -> float: ...


class Role(Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Progress:
    """What a leader knows of a follower."""

    __slots__ = ("heard", "match", "next", "probing")

    def __init__(self, following: int, now: float) -> None:
        self.match = 0  # its log is ours up to here: only grows within a term
        self.next = following  # what it is sent next
        self.probing = True  # whether ``next`` is a guess: then it stays until an answer comes
        self.heard = now


class Node:
    def __init__(
        self,
        id: int,
        peers: Iterable[int],
        storage: Storage,
        now: float,
        *,
        rng: Uniform = random,
        pre_vote: bool = True,
    ) -> None:
        """``peers``: the ids of the others. Raises what ``storage.load`` does."""
        self.id = id
        self.peers = tuple(peer for peer in peers if peer != id)
        self.quorum = (len(self.peers) + 1) // 2 + 1
        self._storage, self._rng, self._pre_vote = storage, rng, pre_vote
        # durable (figure 2)
        self.term, self.vote, entries = storage.load()
        self.log = [Entry(0, b""), *entries]  # log[i] is the entry i
        # lost in a crash
        self.role = Role.FOLLOWER
        self.leader: int | None = None  # of this term, as far as known
        self.commit = 0
        self._taken = 0  # committed entries that were handed out
        self._votes: set[int] = set()
        self._followers: dict[int, Progress] = {}
        self._out: list[tuple[int, Message]] = []
        self._heard = float("-inf")  # when a leader of this term was last heard of
        self._timeout = self._rng.uniform(*ELECTION)
        self.deadline = now + self._timeout  # when ``tick`` is due

    @property
    def last(self) -> int:
        return len(self.log) - 1

    # --- in ---------------------------------------------------------------------------------------------------------

    def receive(self, peer: int, message: Message, now: float) -> None:
        """A message from ``peer``, which is one of ``peers``."""
        match message:
            case Append():
                self._on_append(peer, message, now)
            case Appended():
                self._on_appended(peer, message, now)
            case RequestVote():
                self._on_request_vote(peer, message, now)
            case Vote():
                self._on_vote(peer, message, now)

    def propose(self, command: bytes) -> int | None:
        """Put ``command`` into the log; its index. None: this is not the leader, or one with enough to do.

        It is committed when ``take_committed`` yields that index with the term of now. Another term there: it is lost.
        """
        if self.role is not Role.LEADER or self.last - self.commit >= PENDING:
            return None
        self._extend([Entry(self.term, command)])
        return self.last

    def tick(self, now: float) -> None:
        """To be called when ``deadline`` has come; earlier does nothing."""
        if now < self.deadline:
            return
        if self.role is not Role.LEADER:
            self._campaign(now, pre=self._pre_vote)
            return
        silent = now - ELECTION[1]
        if sum(follower.heard > silent for follower in self._followers.values()) + 1 < self.quorum:
            self._follow(self.term, None, now)  # there may be another leader by now: let the clients look for it
            return
        self.deadline = now + HEARTBEAT
        for peer in self.peers:
            self._send_entries(peer)

    # --- out --------------------------------------------------------------------------------------------------------

    def take_messages(self) -> list[tuple[int, Message]]:
        """What is to be sent, and to whom. For after ``storage.sync``."""
        if self.role is Role.LEADER:
            last = self.last
            for peer, follower in self._followers.items():
                if follower.next <= last and not follower.probing:
                    self._send_entries(peer, heartbeat=False)
        out, self._out = self._out, []
        return out

    def take_committed(self) -> list[tuple[int, Entry]]:
        """Entries that no crash of a minority can undo, with their indices. For after ``storage.sync``."""
        if self._taken == self.commit:
            return []
        first, self._taken = self._taken + 1, self.commit
        return [(index, self.log[index]) for index in range(first, self.commit + 1)]

    # --- elections (5.2, 5.4.1) -------------------------------------------------------------------------------------

    def _campaign(self, now: float, *, pre: bool) -> None:
        """Ask for votes; with ``pre``, first whether it is any use, so that nobody's term moves for nothing."""
        self.role = Role.PRE_CANDIDATE if pre else Role.CANDIDATE
        self.leader = None
        if not pre:
            self._remember(self.term + 1, self.id)
        self._votes = {self.id}
        self._timeout = self._rng.uniform(*ELECTION)  # another one each time, so that two do not meet for ever
        self.deadline = now + self._timeout
        request = RequestVote(self.term + pre, self.last, self.log[-1].term, pre)
        self._out += [(peer, request) for peer in self.peers]
        self._count_votes(now)

    def _on_request_vote(self, peer: int, message: RequestVote, now: float) -> None:
        up_to_date = (message.last_term, message.last_index) >= (self.log[-1].term, self.last)
        if message.pre:
            # Not while there is a leader: one that cannot hear it must not depose it (dissertation, 4.2.3).
            content = self.role is Role.LEADER or now - self._heard < ELECTION[0]
            granted = message.term > self.term and up_to_date and not content
        else:
            if message.term > self.term:
                self._follow(message.term, None, now)
            granted = message.term == self.term and self.vote in (None, peer) and up_to_date
            if granted and self.vote is None:
                self._remember(self.term, peer)
                self.deadline = now + self._timeout
        self._out.append((peer, Vote(message.term if granted else self.term, granted, message.pre)))

    def _on_vote(self, peer: int, message: Vote, now: float) -> None:
        asked = Role.PRE_CANDIDATE if message.pre else Role.CANDIDATE
        if message.granted and self.role is asked and message.term == self.term + message.pre:
            self._votes.add(peer)
            self._count_votes(now)
        elif message.term > self.term and not message.granted:
            self._follow(message.term, None, now)

    def _count_votes(self, now: float) -> None:
        if len(self._votes) < self.quorum:
            return
        if self.role is Role.PRE_CANDIDATE:
            self._campaign(now, pre=False)
            return
        self.role, self.leader = Role.LEADER, self.id
        self._followers = {peer: Progress(self.last + 1, now) for peer in self.peers}
        self._begin_term()
        self.deadline = now  # the first heartbeat is due at once
        self.tick(now)

    def _begin_term(self) -> None:
        """An entry of this term, so that those before it can be committed (5.4.2, 8)."""
        self._extend([Entry(self.term, b"")])

    # --- replication (5.3) ------------------------------------------------------------------------------------------

    def _extend(self, entries: list[Entry]) -> None:
        self._storage.append(self.last + 1, entries)
        self.log += entries
        if not self.peers:
            self.commit = self.last  # a quorum of one

    def _send_entries(self, peer: int, *, heartbeat: bool = True) -> None:
        """What ``peer`` has not been sent. Once it is known where its log ends, nobody waits for answers: if a message
        is lost, the next one does not fit, and it is a guess again. A heartbeat goes out even if it is empty."""
        follower = self._followers[peer]
        room = max(0, min(BATCH, follower.match + WINDOW + 1 - follower.next))
        if not room and not heartbeat:
            return
        first = follower.next
        entries = self.log[first : first + room]
        size = 0
        for count, entry in enumerate(entries):
            size += len(entry.command)
            if count and size > BATCH_BYTES:
                del entries[count:]
                break
        if not follower.probing:
            follower.next = first + len(entries)
        self._out.append((peer, Append(self.term, first - 1, self.log[first - 1].term, self.commit, entries)))

    def _on_append(self, peer: int, message: Append, now: float) -> None:
        if message.term < self.term:
            self._out.append((peer, Appended(self.term, False, self.last + 1)))
            return
        if message.term > self.term or self.leader != peer:
            self._follow(message.term, peer, now)
        self._heard = now
        self.deadline = now + self._timeout
        before = message.prev_index
        if before > self.last or self.log[before].term != message.prev_term:
            self._out.append((peer, Appended(self.term, False, self._retry_from(before))))
            return
        entries, index = message.entries, before + 1
        for skip, entry in enumerate(entries):
            if index + skip > self.last or self.log[index + skip].term != entry.term:
                # Only a conflict cuts the log: a message that was overtaken must not undo what came after it.
                del self.log[index + skip :]
                self._extend(entries[skip:])
                break
        same = before + len(entries)
        if message.commit > self.commit:
            self.commit = max(self.commit, min(message.commit, same))
        self._out.append((peer, Appended(self.term, True, same)))

    def _retry_from(self, before: int) -> int:
        """Where the leader may continue: skips the whole term of the entry that did not fit."""
        if before > self.last:
            return self.last + 1
        while before > self.commit + 1 and self.log[before - 1].term == self.log[before].term:
            before -= 1
        return before

    def _on_appended(self, peer: int, message: Appended, now: float) -> None:
        if message.term > self.term:
            self._follow(message.term, None, now)
        if self.role is not Role.LEADER or message.term < self.term:
            return
        follower = self._followers[peer]
        follower.heard = now
        if not message.ok:
            retry = max(follower.match + 1, message.index)
            if retry < follower.next:  # else it is the answer to a message from before we knew
                follower.next, follower.probing = retry, True
                self._send_entries(peer)
            return
        follower.probing = False
        if follower.match < message.index <= self.last:
            follower.match = message.index
            follower.next = max(follower.next, message.index + 1)
            matches = sorted([self.last, *(each.match for each in self._followers.values())])
            index = matches[-self.quorum]
            if index > self.commit and self._may_commit(index):
                self.commit = index

    def _may_commit(self, index: int) -> bool:
        """Whether it is enough that a quorum has ``index``: only an entry of this term, which takes the earlier ones
        with it. One of an earlier term can still be overwritten by a leader whose log is better (5.4.2, figure 8)."""
        return self.log[index].term == self.term

    # --- the state that it all turns on ----------------------------------------------------------------------------

    def _follow(self, term: int, leader: int | None, now: float) -> None:
        if term > self.term:
            self._remember(term, None)
            self._heard = float("-inf")
        if self.role is Role.LEADER:
            self.deadline = now + self._timeout  # until now the deadline was a heartbeat's
        self.role, self.leader = Role.FOLLOWER, leader

    def _remember(self, term: int, vote: int | None) -> None:
        self.term, self.vote = term, vote
        self._storage.save_vote(term, vote)
