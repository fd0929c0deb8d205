"""What `compile` reaches: what is judged, the page, and one row through the verb."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import reach
from pvq_hw.data.dataset import Data
from pvq_hw.model.export import save_model
from pvq_hw.model.model import Dense, Model, Relu

ROOT = Path(__file__).parents[2]


def test_answers_are_counted_in_pairs() -> None:
    exact = np.array([[2.0, 1.0], [2.0, 1.0], [1.0, 2.0], [1.0, 2.0]])
    ours = np.array([[2.0, 1.0], [1.0, 2.0], [2.0, 1.0], [1.0, 2.0]])
    found = reach.judged(exact, ours, np.array([0, 0, 0, 0]))
    assert [found[k] for k in ("frames", "same", "float_right", "right")] == [4, 2, 2, 2]
    assert (found["only_float"], found["only_ours"]) == (1, 1)
    assert found["error_percent"] == pytest.approx(100 * np.sqrt(0.5) / 0.5)


def test_a_command_has_its_own_memory_counted() -> None:
    ballast = np.ones(200 << 20, np.uint8)
    found = reach.run_verb([sys.executable, "-c", "print()"])
    assert found["peak_mib"] < 100 < ballast.nbytes >> 20
    with pytest.raises(RuntimeError, match=r"^no such thing$"):
        reach.run_verb([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_reconstruction_errors_are_compared() -> None:
    x = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
    exact = 0.1 * x
    assert reach.judged(exact, exact, None, x)["correlation"] == pytest.approx(1)
    assert reach.judged(exact, 2 - exact, None, x)["correlation"] < 0
    assert "right" not in reach.judged(exact, exact + 1, None)
    found = reach.judged(exact, exact + 0.1, None, x)
    assert found["error_of_all_percent"] == pytest.approx(10 / exact.std())
    assert found["error_percent"] > found["error_of_all_percent"]


def test_images_are_enlarged_between_their_middles() -> None:
    x = np.array([0, 255], dtype=np.uint8).reshape(1, 1, 2, 1).repeat(2, axis=1)
    assert reach.enlarged(x, 4)[0, 0, :, 0].tolist() == [0, 0.25, 0.75, 1]
    assert reach.enlarged(x, 4).shape == (1, 4, 4, 1)


def test_the_page_shows_medians_and_what_is_reached() -> None:
    kws, vww = reach.ROWS[1], reach.ROWS[5]
    results: dict[str, Any] = {}
    for seed, right in enumerate((440, 450, 447)):
        results[f"{kws.key} #{seed}"] = {
            "frames": 500, "same": 460, "float_right": 456, "right": right, "only_float": 20,
            "only_ours": 11, "error_percent": 20.0, "n_over_k": 3.0, "cycles": 8375,
            "calibration_frames": 400, "processor_seconds": 25.4, "peak_mib": 500,
        }  # fmt: skip
    results[f"{vww.key} #0"] = {
        "frames": 1000, "same": 890, "error_percent": 30.0, "n_over_k": 3.0, "cycles": 9,
        "calibration_frames": 400, "processor_seconds": 99.0, "peak_mib": 900,
    }  # fmt: skip
    text = reach.page(results)
    assert "| 91.20 | 89.40 | 86.39 to 91.80 | 20, 11 | 92.00 | 20.00 |" in text
    assert "| **1.80 lost, 2 asked** | 500 | 3 | 8,375 | 25 | 500 |" in text
    assert "| 89.00 | 30.00 | 90 % the same | 1,000 | 1 |" in text


def test_a_row_is_compiled_in_a_process_of_its_own(tmp_path) -> None:
    rng = np.random.default_rng(0)
    nodes = (
        Dense("a", ("x",), "s", (8,), rng.normal(size=(8, 6)), rng.normal(size=8)),
        Relu("r", ("s",), "t", (8,)),
        Dense("b", ("t",), "u", (3,), rng.normal(size=(3, 8)), np.zeros(3)),
    )
    model = Model("net", "", "x", (6,), (0,), (6,), nodes)
    save_model(model, tmp_path / "net.onnx")
    x = rng.random((100, 6)).astype(np.float32)
    test = Data(x, model.predict(x).argmax(axis=1))
    row = reach.Row("net", "net.onnx", "x", "icebreaker", 1, 90)
    found = reach.measure(row, 0, tmp_path / "net.onnx", Data(x), test)
    assert found["calibration_frames"] == 80
    assert found["float_right"] == found["frames"] == 100
    assert found["right"] == found["same"] > 80
    assert found["n_over_k"] >= 0.99
    assert found["processor_seconds"] > 0
    assert 50 < found["peak_mib"] < 2000
    with pytest.raises(RuntimeError, match="N/K must be"):
        reach.measure(
            reach.Row("net", "net.onnx", "x", "icebreaker", -1, 90), 0, tmp_path / "net.onnx",
            Data(x), test,
        )  # fmt: skip


def test_the_published_page_is_that_of_the_results() -> None:
    stored = json.loads(reach.RESULTS.read_text())
    assert (ROOT / "docs" / "benchmarks-reach.md").read_text() == reach.page(stored)
