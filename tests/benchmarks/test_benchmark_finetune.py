"""Fine-tuning's benchmark: goals, and the tables of the page."""

from pathlib import Path
from typing import Any

from benchmarks import finetune
from benchmarks.networks import read

ROOT = Path(__file__).parents[2]


def test_goals_are_percent_or_points_above_the_start() -> None:
    goals = {goal.case.name: goal for goal in finetune.PICKED}
    assert goals["ResNet8"].to_reach(71.5) == 73.5
    assert goals["digits MLP"].to_reach(94.0) == 94.0
    assert goals["LeNet-5"].to_reach(98.5) == 98.9


def test_what_was_picked_has_a_table_of_its_own() -> None:
    goal = next(goal for goal in finetune.PICKED if goal.case.name == "ResNet8")
    found: dict[str, Any] = {
        "network": "ResNet8", "ratio": 3, "n_over_k": 3.001, "to_reach_percent": 74.0,
        "float_percent": 77.2, "start_percent": 72.0, "tuned_percent": 74.5, "frames": 1000,
        "training_frames": 1000, "held": 200, "recipe": "some pulses move, longer",
        "processor_seconds": 300.4, "tried": [{"figure": 71.0}, {"figure": 74.0}, {"figure": 73.0}],
    }  # fmt: skip
    results = {goal.key: found}
    line = (
        "| ResNet8 | 3.00 | 1,000 | 71.00 to 74.00 of 200 | 77.20 | 72.00 | 74.50 | 74.00 "
        "| some pulses move, longer | 1,000 | 300 |"
    )
    assert finetune.picked_report(results).splitlines()[2:] == [line]
    assert len(finetune.report(results).splitlines()) == 2


def test_the_page_has_the_tables_of_the_results() -> None:
    page, results = (ROOT / "docs" / "training.md").read_text(), read(finetune.RESULTS)
    assert finetune.picked_report(results) in page
    assert finetune.report(results) in page
