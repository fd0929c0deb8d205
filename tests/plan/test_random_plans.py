"""The planner beside all that a user could write down, on random networks and boards."""

import pytest
from plan_attack import beaten, random_task


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_nothing_that_can_be_written_down_is_5_percent_faster(seed):
    cycles, written = beaten(*random_task(seed))
    assert written is None, f"{cycles:,} cycles, but {written}"
