"""The accuracy benchmark: its draws, its page and its picture."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import accuracy
from benchmarks.accuracy_page import chart, page

ROOT = Path(__file__).parents[2]


def images(count: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = np.zeros((count, 1, 28, 28), dtype=np.uint8)
    x[:, :, 8:20, 10:18] = rng.integers(100, 256, (count, 1, 12, 8))
    return x


def entry(ratio: float, quantizer: str, seed: int, percent: float) -> dict[str, Any]:
    return {
        "network": "B",
        "ratio": ratio,
        "quantizer": quantizer,
        "seed": seed,
        "n_over_k": ratio + 0.01,
        "goal_percent": 97.5,
        "float_percent": 97.59,
        "accuracy_percent": percent,
        "calibration_frames": 100,
        "sweeps": 1,
        "processor_seconds": 2.0,
    }


def results() -> dict[str, Any]:
    found = [entry(5, "calibrated", seed, p) for seed, p in enumerate((97.5, 97.1, 97.4))]
    found += [entry(5, "plain", 0, 42.0), entry(2.5, "calibrated", 0, 97.55)]
    return {str(i): e for i, e in enumerate(found)}


def test_the_table_holds_medians() -> None:
    points = accuracy.points(results())
    assert [(p["quantizer"], p["ratio"], p["median"]) for p in points] == [
        ("calibrated", 2.5, 97.55),
        ("calibrated", 5, 97.4),
        ("plain", 5, 42.0),
    ]
    assert "97.50 97.10 97.40" in accuracy.report(results())


def test_page_and_picture_say_the_same() -> None:
    points = accuracy.points(results())
    text = page(points, accuracy.TITLES)
    assert (
        "| MNIST 784-64-32-10 | 97.59 | 5.01 | 42.00 | **97.40** | 97.07 to 97.69 | 97.50, " in text
    )
    svg = ET.fromstring(chart(points, accuracy.TITLES))
    circles = [e for e in svg.iter() if e.tag.endswith("circle")]
    assert len(circles) == 3


def test_what_balance_costs_stands_beside_the_free_draws() -> None:
    found = results()
    for kind, percent in (("unbalanced", 97.5), ("balanced", 97.42)):
        found[kind] = entry(5, kind, 0, percent)
    text = page(accuracy.points(found), accuracy.TITLES)
    assert "| 5.01 | 97.50 | 97.50 | 5.01 | **97.42** | 97.42 | 0.08 |" in text
    assert "balance" not in page(accuracy.points(results()), accuracy.TITLES)


def test_the_published_page_is_that_of_the_results() -> None:
    stored = json.loads((ROOT / "benchmarks" / "results" / "accuracy.json").read_text())
    points = accuracy.points(stored)
    assert (ROOT / "docs" / "accuracy.md").read_text() == page(points, accuracy.TITLES)
    assert (ROOT / "docs" / "accuracy.svg").read_text() == chart(points, accuracy.TITLES)
