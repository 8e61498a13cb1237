"""The Raft of examples/raft/ on three machines under chaos, for many seeds; or one with a planted mistake:

libos sim examples/raft_chaos.py --seeds 0..999 --jobs 2
BUG=ForgottenVote libos sim examples/raft_chaos.py --seeds 0..199 --jobs 2 --shrink --out failures
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from raft import world as raft

if TYPE_CHECKING:
    from libos.sim import World


def scenario(world: World) -> None:
    raft.scenario(world, **raft.planted(os.environ.get("BUG")))
