"""Three mistakes that real systems have made, each in a few lines, for a test to find.

They pass every test in which nothing fails. What it takes to see one is in its docstring.
"""

from __future__ import annotations

from .client import Session
from .messages import Request
from .node import Node


class ForgottenVote(Node):
    """Neither the vote nor its term is made durable: after a restart the node votes again where it has voted.

    Seen when a voter restarts while an election, or the term of the one that it elected, is under way: two leaders of
    one term, and two histories.
    """

    def _remember(self, term: int, vote: int | None) -> None:
        self.term, self.vote = term, vote


class CommitsEarlierTerms(Node):
    """A leader counts the replicas of entries of earlier terms, and has no entry of its own to begin its term with.

    Seen as in figure 8 of the paper: such an entry is on a quorum and applied, its leader is gone, and the next one is
    elected for a later entry that only it has.
    """

    def _begin_term(self) -> None:
        pass

    def _may_commit(self, index: int) -> bool:
        return True


class ForgetfulSession(Session):
    """A lost answer is taken for a failure: the request is sent again as a new one, and is applied twice.

    Seen when a connection breaks, or a leader falls, between a request and its answer.
    """

    def again(self, request: Request) -> Request:
        return self.next(request.op)
