"""The MLPerf Tiny page: rows by the verbs, and the page that they give."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import mlperf_tiny
from benchmarks.reach import Row, row_data
from pvq_hw.data.dataset import Data
from pvq_hw.model.export import save_model
from pvq_hw.model.model import Model
from pvq_hw.model.nodes import Dense

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_row_is_compiled_judged_and_simulated_and_a_refusal_is_one_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    nodes = (Dense("a", ("x",), "s", (8,), rng.normal(size=(8, 6)), rng.normal(size=8)),)
    model = Model("net", "", "x", (6,), (0,), (6,), nodes)
    save_model(model, tmp_path / "net.onnx")
    x = rng.random((60, 6)).astype(np.float32)
    data = Data(x), Data(x, model.predict(x).argmax(axis=1))
    task = mlperf_tiny.Task("a task", "net.onnx", "x", 3)
    given = (tmp_path / "net.onnx", data, 0)
    found = mlperf_tiny.measure(task, "icebreaker", "--ratio 1", *given)
    assert (found["mismatches"], found["simulated_frames"]) == (0, 3)
    assert found["simulated_cycles"] == found["cycles"]
    assert found["same"] > 50
    refused = mlperf_tiny.measure(task, "icebreaker", "--ratio -1", *given)
    assert "N/K must be" in refused["refused"]


def test_calibration_images_come_with_the_labels_that_losses_are_counted_by(tmp_path):
    images, labels = np.zeros((4, 32, 32, 3), np.uint8), np.arange(4)
    parts = {"x": images, "y": labels, "x_calibration": images, "y_calibration": labels[::-1]}
    np.savez(tmp_path / "cifar.npz", **parts)
    row = Row("a task", "net.onnx", "cifar", "", 1, 0)
    train, test = row_data(row, Namespace(cifar=tmp_path / "cifar.npz"))
    assert (list(train.y), list(test.y)) == ([3, 2, 1, 0], [0, 1, 2, 3])


def test_the_page_has_what_was_measured_refused_and_left_out():
    measured = {
        "frames": 200, "float_right": 190, "right": 180, "same": 184, "n_over_k": 3.01,
        "int8_layers": 1, "layers": 9, "simulated_cycles": 1000, "simulated_frames": 5,
        "mismatches": 0, "clock_mhz": 36.0, "energy_uj": 1.5, "planned": {"luts": 4000},
    }  # fmt: skip
    built = {"built": {"clock_mhz": 40.5, "luts": 4100, "fmax_mhz": [39, 40, 41]}}
    results = {
        "KWS icebreaker --ratio 3": measured,
        "KWS hx8k --ratio 3": {"refused": "It needs | more"},
        "KWS ulx3s-85f --ratio 3 --inferences-per-second 14000": measured
        | {
            "not_built": "The plan must have 14,000 inferences a second, but has 12,900 inferences "
            "a second"
        },
        "AD icebreaker --ratio 5": measured | built | {"correlation": 0.95},
    }
    page = mlperf_tiny.page(results)
    row = "| icebreaker | `--ratio 3` | 3.01, 1 of 9 | 95.0 | 90.0 | 92.0 % | 1,000 | 5, 0 |"
    assert f"{row} 36, planned | 36,000 | 4,000 planned | 1.50 |" in page
    assert "| 12.9, too slow for that pace | 12,900 | 4,000 planned |" in page
    assert "| hx8k | `--ratio 3` | refused: It needs / more |" in page
    assert "errors correlate 0.950 | 1,000 | 5, 0 | 40.5 of 3 seeds | 40,500 | 4,100 |" in page
    assert "Not measured: icebreaker `--max-loss 1`" in page


def test_the_published_page_is_that_of_the_results():
    stored = json.loads(mlperf_tiny.RESULTS.read_text())
    assert (ROOT / "docs" / "mlperf-tiny.md").read_text() == mlperf_tiny.page(stored)
