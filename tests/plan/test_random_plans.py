"""The planner beside all that a user could write down, on random networks and boards."""

import pytest
from plan_attack import beaten, random_task

from pvq_hw.plan.plan import plan


def test_queues_are_not_reckoned_longer_than_they_are():
    """With room for queues that aren't there this network took 2,394 cycles."""
    network, board, _ = random_task(36)
    each = {layer.name: {"engine": "auto"} for layer in network.layers}
    assert plan(network, board, each=each).interval_cycles <= 2132


SEEDS: list = [*range(60)]
SEEDS[48] = pytest.param(
    48, marks=pytest.mark.xfail(reason="its plan takes 5.4 % more cycles than were reckoned")
)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_that_can_be_written_down_is_5_percent_faster(seed):
    cycles, written = beaten(*random_task(seed))
    assert written is None, f"{cycles:,} cycles, but {written}"
