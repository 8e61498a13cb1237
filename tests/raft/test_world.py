"""The cluster in a simulated world: unharmed by chaos, and each planted mistake is found."""

from __future__ import annotations

import pytest
from raft.world import run, scenario

from libos.sim import World, check_determinism

# The first seed that finds each, of a search from 0 (README.md): all choices come from the seed.
FOUND = {"ForgottenVote": 0, "CommitsEarlierTerms": 4, "ForgetfulSession": 2}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_what_must_hold_holds_under_chaos(seed: int) -> None:
    world = run(seed)
    assert len(world.applied) > 5


@pytest.mark.slow
@pytest.mark.parametrize("bug", FOUND)
def test_a_planted_mistake_is_found(bug: str) -> None:
    with pytest.raises(AssertionError, match=r"two leaders|without all|commits another|not linearizable"):
        run(FOUND[bug], bug)


@pytest.mark.slow
def test_one_seed_is_one_run() -> None:
    def make() -> World:
        world = World(3)
        scenario(world, seconds=5)
        return world

    assert check_determinism(make)


@pytest.mark.slow
def test_the_faults_of_a_run_can_be_had_again() -> None:
    with World(4) as world:
        scenario(world, seconds=5)
        world.run()
        digest, applied = world.digest, world.applied
    with World(4, faults=applied) as world:
        scenario(world, seconds=5)
        world.run()
        assert world.applied == applied
        assert world.digest == digest
