"""Shared engines that were synthesized: the planner's estimates beside what was counted."""

import json

import pytest

from benchmarks import fit_shared
from pvq_hw.plan.resources import core_resources

RESULTS = fit_shared.HERE / "results" / "shared.json"


@pytest.mark.parametrize(
    ("family", "number"),
    [("up5k", 7), ("up5k", 9), ("up5k", 11), ("up5k", 12), ("up5k", 13), ("ecp5", 10), ("hx8k", 9)],
)
def test_estimates_are_within_a_tenth_of_what_was_counted(family, number):
    spec, _ = fit_shared.make(number, family)
    found = json.loads(RESULTS.read_text())[f"{family} shared {number}"]
    own = core_resources(spec, family)
    assert own.luts == pytest.approx(found["luts"], rel=0.1)
    assert (own.brams, own.dsps) == (found["brams"], found["dsps"])
