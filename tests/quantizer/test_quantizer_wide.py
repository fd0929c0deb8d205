"""Rows too wide for products of all pairs of their columns: calibrated in bounded memory."""

import tracemalloc

import numpy as np
import pytest

from pvq_hw.model.model import Dense, Model, Relu
from pvq_hw.quantizer.quantize import quantize


def model(n: int, rows: int = 3) -> Model:
    rng = np.random.default_rng(n)
    nodes = (
        Dense("wide", ("x",), "a", (rows,), rng.normal(size=(rows, n)), rng.normal(size=rows)),
        Relu("relu", ("a",), "b", (rows,)),
        Dense("last", ("b",), "out", (2,), rng.normal(size=(2, rows)), rng.normal(size=2)),
    )
    return Model("m", "", "x", (n,), (0,), (n,), nodes, {"x": (0.0, 1.0)})


def inputs(n: int, frames: int) -> np.ndarray:
    """Columns that rise and fall together."""
    rng = np.random.default_rng(1)
    common = rng.normal(size=(frames, 4)) @ rng.normal(size=(4, n))
    return np.clip(128 + 40 * common + rng.normal(size=(frames, n)), 0, 255).astype(np.int64)


def error(found: Model, network, x: np.ndarray) -> float:
    expected = found.predict(x, 255.0)
    real = network.predict(network.quantize_input(x, 255.0)) * network.output.scale
    return float(np.square(real - expected).mean() / expected.var())


def test_65536_inputs_take_no_more_memory_than_their_frames() -> None:
    found, x = model(65536), inputs(65536, 40)
    tracemalloc.start()
    network = quantize(found, calibration=x, input_scale=255, ratio=500)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 29
    assert [layer.y.shape for layer in network.layers] == [(3, 65536), (2, 3)]
    # At so few pulses errors on the data say nothing of more of them: every row gets its share.
    assert [layer.k.tolist() for layer in network.layers] == [[131, 130, 130], [1, 1]]


def test_biases_of_wide_rows_follow_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    found, x = model(96, 8), inputs(96, 400)
    asked = {"calibration": x, "input_scale": 255, "ratio": 4}
    plain = error(found, quantize(found, quantizer="plain", **asked), x)
    moved = error(found, quantize(found, **asked), x)
    monkeypatch.setattr("pvq_hw.quantizer.layer_options.WIDE", 90)
    only = Model("m", "", "x", (96,), (0,), (96,), found.nodes[:1])
    assert quantize(only, **asked).layers[0].k.tolist() == [24] * 8
    assert moved < error(found, quantize(found, **asked), x) < plain / 2
