"""The best real weights on codes' supports: what is learned, and the page."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import limits
from pvq_hw import quantize
from pvq_hw.model.model import Dense, Model, Relu

ROOT = Path(__file__).parents[2]


@pytest.mark.torch
def test_real_weights_are_learned_where_pulses_are() -> None:
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    nodes = (
        Dense("a", ("x",), "s", (8,), rng.normal(size=(8, 12)), rng.normal(size=8)),
        Relu("r", ("s",), "t", (8,)),
        Dense("b", ("t",), "u", (4,), rng.normal(size=(4, 8)), np.zeros(4)),
    )
    model = Model("net", "", "x", (12,), (0,), (12,), nodes)
    x = rng.random((400, 12)).astype(np.float32)
    network = quantize(model, calibration=x[:300], ratio=3)
    graph = limits.Graph(model)
    exact = model.predict(x[300:])
    start = limits._Real(graph, network).outputs(graph.tensor(x[300:])).detach().numpy()
    codes = network.real(network.predict(network.quantize_input(x[300:])))
    assert np.abs(start - codes).max() < 0.1 * exact.std()  # but for the activations' rounding
    real = limits.learned(limits.Case("net", 3, 200), graph, network, x[:300], x[300:])
    learned = real.outputs(graph.tensor(x[300:])).detach().numpy()
    assert np.square(learned - exact).mean() < 0.9 * np.square(start - exact).mean()
    for layer in network.layers:
        at, unit, change = (part.detach().numpy() for part in real.weights[layer.name])
        assert not np.any((at + unit * change)[layer.y == 0])


def test_the_published_page_of_limits_is_that_of_the_results() -> None:
    stored = json.loads(limits.RESULTS.read_text())
    assert (ROOT / "docs" / "benchmarks-limits.md").read_text() == limits.page(stored)
