"""node.py: a cluster on a virtual clock in bad weather, the mistakes of bugs.py found there, and single nodes."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from raft import messages
from raft.bugs import CommitsEarlierTerms, ForgetfulSession, ForgottenVote
from raft.messages import Append, Appended, Entry, RequestVote, Vote
from raft.node import ELECTION, HEARTBEAT, Node, Role
from raft.storage import MemoryStorage

from .cluster import Cluster, Unsafe

SEEDS = 200
T0 = 100.0


# --- the cluster in bad weather ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_safety_always_and_progress_when_the_faults_end(first: int) -> None:
    for seed in range(first, first + 50):
        try:
            Cluster(seed).run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error


def test_the_same_seed_is_the_same_run() -> None:
    def run(seed: int) -> tuple[object, ...]:
        cluster = Cluster(seed)
        cluster.run()
        return cluster.now, cluster.leaders, cluster.history.operations, [host.disk for host in cluster.hosts.values()]

    assert run(3) == run(3) != run(4)


def find(**mistake: Any) -> str:
    """What the first seed that finds it says."""
    for seed in range(SEEDS):
        try:
            Cluster(seed, **mistake).run()
        except Unsafe as error:
            return str(error)
    pytest.fail(f"not found with {SEEDS} seeds")


@pytest.mark.slow
def test_a_vote_that_is_forgotten_is_found() -> None:
    assert find(new_node=ForgottenVote).startswith("election: ")


@pytest.mark.slow
def test_a_commitment_of_an_earlier_term_is_found() -> None:
    assert find(new_node=CommitsEarlierTerms).startswith("completeness: ")


@pytest.mark.slow
def test_a_request_without_identity_is_found() -> None:
    assert find(new_session=ForgetfulSession).startswith("linearizability: ")


# --- one node ---------------------------------------------------------------------------------------------------------


def new_node(disk: bytearray | None = None, *, id: int = 1, pre_vote: bool = True) -> Node:
    """Of three."""
    storage = MemoryStorage(bytearray() if disk is None else disk)
    return Node(id, (1, 2, 3), storage, T0, rng=Random(1), pre_vote=pre_vote)


def sent(node: Node) -> list[tuple[int, messages.Message]]:
    node._storage.sync()
    return node.take_messages()


def elect(node: Node) -> float:
    """By node 2; the time then."""
    now = node.deadline
    node.tick(now)
    if node.role is Role.PRE_CANDIDATE:
        node.receive(2, Vote(node.term + 1, True, True), now)
    node.receive(2, Vote(node.term, True, False), now)
    assert node.role is Role.LEADER
    return now


def test_pre_vote_moves_no_term() -> None:
    node = new_node()
    node.tick(node.deadline)
    assert sent(node) == [(2, RequestVote(1, 0, 0, True)), (3, RequestVote(1, 0, 0, True))]
    assert node.term == 0
    node.receive(3, Vote(1, True, True), T0 + 0.3)
    assert sent(node) == [(2, RequestVote(1, 0, 0, False)), (3, RequestVote(1, 0, 0, False))]
    assert (node.term, node.vote) == (1, 1)


def test_who_has_a_leader_grants_no_pre_vote() -> None:
    node = new_node()
    node.receive(2, Append(1, 0, 0, 0, []), T0)
    sent(node)
    node.receive(3, RequestVote(2, 5, 1, True), T0 + ELECTION[0] - 0.001)
    assert sent(node) == [(3, Vote(1, False, True))]
    node.receive(3, RequestVote(2, 5, 1, True), T0 + ELECTION[0])
    assert sent(node) == [(3, Vote(2, True, True))]
    assert node.term == 1


def test_a_vote_outlives_a_crash() -> None:
    disk = bytearray()
    node = new_node(disk)
    node.receive(2, RequestVote(4, 0, 0, False), T0)
    assert sent(node) == [(2, Vote(4, True, False))]
    node = new_node(disk)
    node.receive(3, RequestVote(4, 0, 0, False), T0)
    node.receive(2, RequestVote(4, 0, 0, False), T0)
    assert sent(node) == [(3, Vote(4, False, False)), (2, Vote(4, True, False))]


def test_no_vote_for_a_log_that_lacks_something() -> None:
    """5.4.1"""
    node = new_node()
    node.receive(2, Append(2, 0, 0, 0, [Entry(1, b"a"), Entry(2, b"b")]), T0)
    sent(node)
    for last_index, last_term, granted in ((9, 1, False), (1, 2, False), (2, 2, True), (1, 3, True)):
        term = node.term + 1
        node.receive(3, RequestVote(term, last_index, last_term, False), T0)
        assert sent(node) == [(3, Vote(term, granted, False))]


def test_a_leader_commits_with_an_entry_of_its_own_term() -> None:
    """Figure 8: the entry 1 of term 1 is on two of three nodes, and not committed until the one of term 3 is."""
    node = new_node()
    node.receive(2, Append(2, 0, 0, 0, [Entry(1, b"old")]), T0)
    now = elect(node)
    assert node.log[1:] == [Entry(1, b"old"), Entry(3, b"")]
    node.receive(3, Appended(3, True, 1), now)
    assert node.take_committed() == []
    node.receive(3, Appended(3, True, 2), now)
    assert node.take_committed() == [(1, Entry(1, b"old")), (2, Entry(3, b""))]


def test_a_late_message_does_not_undo_a_later_one() -> None:
    """5.3: only a conflict cuts the log"""
    node = new_node()
    first = Append(1, 0, 0, 0, [Entry(1, b"a")])
    node.receive(2, first, T0)
    node.receive(2, Append(1, 1, 1, 0, [Entry(1, b"b")]), T0)
    node.receive(2, first, T0)
    assert node.last == 2
    assert [answer for _, answer in sent(node)] == [Appended(1, True, 1), Appended(1, True, 2), Appended(1, True, 1)]
    node.receive(3, Append(2, 1, 1, 0, [Entry(2, b"c")]), T0)
    assert node.log[1:] == [Entry(1, b"a"), Entry(2, b"c")]


def test_a_leader_finds_where_a_log_departs() -> None:
    """By terms, not by entries: one question for ten entries of a term that the leader does not know."""
    leader, follower = new_node(), new_node(id=2)
    leader.receive(3, Append(1, 0, 0, 0, [Entry(1, b"a")]), T0)
    follower.receive(3, Append(2, 0, 0, 0, [Entry(1, b"a"), *[Entry(2, b"x")] * 10]), T0)
    leader.receive(3, RequestVote(2, 0, 0, False), T0)
    now = elect(leader)
    sent(leader), sent(follower)
    turns = 0
    leader.tick(now := now + HEARTBEAT)
    while asked := [message for peer, message in sent(leader) if peer == 2]:
        for question in asked:
            follower.receive(1, question, now)
        for _, answer in sent(follower):
            leader.receive(2, answer, now)
        turns += 1
    assert follower.log == leader.log
    assert turns <= 3


def test_a_leader_that_nobody_answers_resigns() -> None:
    node = new_node()
    now = elect(node)
    while now < T0 + 2 and node.role is Role.LEADER:
        now = node.deadline
        node.tick(now)
    assert node.role is Role.FOLLOWER
    assert node.propose(b"x") is None


def test_a_leader_takes_no_more_than_it_can_hold() -> None:
    node = new_node()
    now = elect(node)
    node.receive(2, Appended(1, True, 1), now)
    sent(node)
    taken = sum(node.propose(b"x") is not None for _ in range(5000))
    assert taken == 1024
    sizes = [len(message.entries) for _, message in sent(node) if isinstance(message, Append)]
    assert sizes == [64], "to node 2; where the log of node 3 ends is not known"


def test_a_message_has_a_bound_in_bytes() -> None:
    node = new_node()
    now = elect(node)
    node.receive(2, Appended(1, True, 1), now)
    sent(node)
    for _ in range(20):
        assert node.propose(bytes(60_000))
    for last, count in ((1, 4), (5, 4)):
        [(_, message)] = sent(node)
        assert isinstance(message, Append)
        assert (message.prev_index, len(message.entries)) == (last, count)


def test_a_lost_message_is_sent_again_once() -> None:
    """However many that followed it are refused."""
    node = new_node()
    now = elect(node)
    node.receive(2, Appended(1, True, 1), now)
    for _ in range(3):
        node.propose(b"x")
        sent(node)
    for _ in range(3):
        node.receive(2, Appended(1, False, 2), now)
    [(_, message)] = sent(node)
    assert isinstance(message, Append)
    assert (message.prev_index, len(message.entries)) == (1, 3)


def test_a_cluster_of_one() -> None:
    node = Node(1, (1,), MemoryStorage(bytearray()), T0, rng=Random(1))
    node.tick(node.deadline)
    assert node.propose(b"x") == 2
    assert node.take_committed() == [(1, Entry(1, b"")), (2, Entry(1, b"x"))]
