"""Whether ``--max-loss`` keeps its word: intervals, the page, and one case."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import promise
from pvq_hw.bundled import DIGITS, DIGITS_DATA
from pvq_hw.data.dataset import Data

ROOT = Path(__file__).parents[2]
FOUND: dict[str, Any] = {
    "frames": 500, "float_right": 480, "right": 470, "only_float": 12, "only_ours": 2,
    "held": 200, "held_loss": 0.5, "reckoned_loss": 0.9, "ratio": 3.54, "int8_layers": ["a"],
    "cycles": 64, "inferences_per_second": 5e5, "int8_inferences_per_second": None, "trials": 9,
    "processor_seconds": 7.0,
}  # fmt: skip


def test_the_interval_is_that_of_pairs() -> None:
    assert promise.half_interval(0, 0, 100) == 0
    # 12 and 2 of 500: the variance of a mean of 1, -1 and 0.
    values = np.array([1] * 12 + [-1] * 2 + [0] * 486)
    assert promise.half_interval(12, 2, 500) == pytest.approx(
        196 * values.std() / np.sqrt(500), rel=1e-3
    )


def test_the_page_counts_what_is_kept_and_shows_what_is_refused() -> None:
    worse = FOUND | {"right": 460, "only_float": 20, "only_ours": 0}
    search = FOUND | {"cycles": 60, "processor_seconds": 140.0, "trials": 200, "met": True}
    text = promise.page({
        "net | icebreaker | 1 | 0": FOUND,
        "net | icebreaker | 0.3 | 0": worse,
        "net | icebreaker | 3 | 0": {"refused": "Loss must be at most 3"},
        "net | icebreaker | 1 | tune": search,
    })  # fmt: skip
    assert (
        "| net | icebreaker | 1 | 0 | 2.00 \u00b1 1.46 | 12, 2 (500) | yes | 0.50, 0.90 (200)"
        in text
    )
    assert "| 4.00 \u00b1 1.72 | 20, 0 (500) | **no** |" in text
    assert "Kept in 1 of 2 cases." in text
    assert "- net on icebreaker, P 3, draw 0: Loss must be at most 3" in text
    assert (
        "| net | icebreaker | 1 | 200 | 2.00 \u00b1 1.46 | 2.00 \u00b1 1.46 | 60 | 64 | 140 | 20 |"
        in text
    )


@pytest.mark.slow
def test_a_case_is_judged_on_inputs_that_took_no_part() -> None:
    with np.load(DIGITS_DATA) as file:
        train = Data(file["x_train"][:150], file["y_train"][:150])
        test = Data(file["x_test"][:40], file["y_test"][:40])
    found = promise.measure(promise.CASES[0], 30.0, 0, DIGITS, train, test)
    assert (found["frames"], found["held"]) == (40, 24)
    assert found["held_loss"] <= found["reckoned_loss"] <= 30
    assert found["float_right"] - found["right"] == found["only_float"] - found["only_ours"]
    searched = promise.by_hand(promise.CASES[0], 30.0, 2, DIGITS, train, test)
    assert (searched["frames"], searched["trials"], searched["met"]) == (40, 2, True)
    refused = promise.measure(promise.CASES[0], 0.0, 0, DIGITS, train, test)
    assert "held" in refused or "Loss must be at most 0" in refused["refused"]


def test_the_published_page_is_that_of_the_results() -> None:
    stored = json.loads(promise.RESULTS.read_text())
    assert (ROOT / "docs" / "benchmarks-promise.md").read_text() == promise.page(stored)
