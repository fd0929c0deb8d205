"""PVQ beside uniform codes: the other codes, what is counted, and the page."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import anchors
from benchmarks.uniform import adaround, gptq, levels, nearest_grid, uniform_network
from pvq_hw.model.model import Dense, Model, Relu
from pvq_hw.quantizer.pulse_moves import moments, output_error

ROOT = Path(__file__).parents[2]


def correlated(most: int) -> dict[str, float]:
    """Errors of the outputs that the three kinds of codes leave of inputs that are alike."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4)) @ rng.normal(size=(4, 24)) + 0.2 * rng.normal(size=(400, 24))
    w = rng.normal(size=(6, 24))
    m = moments(x.astype(np.float32), (x @ w.T).astype(np.float32), w, 0.01)
    found = {"RTN": nearest_grid(w, most), "GPTQ": gptq(m, most), "AdaRound": adaround(m, most)}
    for y, _ in found.values():
        assert np.abs(y).max() <= most
    return {name: float(output_error(m, y, gain).sum()) for name, (y, gain) in found.items()}


@pytest.mark.parametrize("bits", [4, 3, 1.6])
def test_calibrated_codes_leave_less_than_rounding(bits: float) -> None:
    errors = correlated(levels(bits))
    assert errors["GPTQ"] < 0.7 * errors["RTN"]
    assert errors["AdaRound"] < 0.7 * errors["RTN"]


def test_a_network_of_uniform_codes_runs_on_integers() -> None:
    rng = np.random.default_rng(0)
    nodes = (
        Dense("a", ("x",), "s", (8,), rng.normal(size=(8, 6)), rng.normal(size=8)),
        Relu("r", ("s",), "t", (8,)),
        Dense("b", ("t",), "u", (3,), rng.normal(size=(3, 8)), np.zeros(3)),
    )
    model = Model("net", "", "x", (6,), (0,), (6,), nodes)
    x = rng.integers(0, 256, (200, 6)).astype(np.uint8)
    exact = model.predict(x, 255)
    errors = {}
    for kind, bits in (("RTN", 8), ("GPTQ", 4), ("AdaRound", 1.6)):
        network = uniform_network(model, x, bits, kind, input_scale=255)
        real = network.real(network.predict(network.quantize_input(x, 255)))
        errors[bits] = float(np.square(real.reshape(exact.shape) - exact).mean() / exact.var())
        assert all(np.abs(layer.weights).max() <= levels(bits) for layer in network.layers)
    assert errors[8] < errors[4] < 0.01 < errors[1.6] < 0.6


def layer(weights: list[list[int]], size: int) -> SimpleNamespace:
    return SimpleNamespace(weights=np.array(weights), output=SimpleNamespace(size=size))


def test_bits_and_additions_are_counted_by_hand() -> None:
    network: Any = SimpleNamespace(
        layers=[
            layer([[0, 0, 1, -1], [0, 0, 1, -1]], 6),  # 1.5 bits, 3 windows
            SimpleNamespace(weights=None),
            layer([[7, 7, 3, 3]], 1),  # 1 bit
        ]
    )
    assert anchors.bits_a_weight(network) == pytest.approx((8 * 1.5 + 4 * 1) / 12)
    assert anchors.additions(network, pulses=True) == 3 * 4 + 20
    assert anchors.additions(network, pulses=False) == 3 * 4 + 8  # 8 - 1 and 4 - 1


def result(right: int, bits: float) -> dict[str, Any]:
    return {
        "right": right, "float_right": 95, "only_float": 3, "only_ours": 1, "frames": 100,
        "same": 90, "bits": bits, "adds": int(1000 * bits), "error": 0.1,
    }  # fmt: skip


def test_the_page_says_where_pvq_lies_below() -> None:
    name = anchors.SUBJECTS[0].name
    found = {
        f"{name}: PVQ at 1": result(94, 2.0),
        f"{name}: PVQ at 5": result(90, 1.0),
        f"{name}: GPTQ ternary": result(93, 1.5),
        f"{name}: RTN ternary": result(85, 1.5),
        f"{name}: RTN int8": result(95, 7.5),
    }
    text = anchors.page(found)
    assert "| GPTQ ternary | 93.00 | 86.25 to 96.57 | 3, 1 | 10.00 | 1.50 | 1,500 | -1.00 |" in text
    assert "| RTN ternary | 85.00 |" in text
    assert "+7.00 | +7.00 |" in text
    assert "| 7.50 | 7,500 | more than any PVQ here | more than any PVQ here |" in text
    assert "At equal bits PVQ lies below GPTQ ternary (-1.00)." in text


def test_the_published_page_is_that_of_the_results() -> None:
    stored = json.loads(anchors.RESULTS.read_text())
    assert (ROOT / "docs" / "benchmarks-codes.md").read_text() == anchors.page(stored)
