"""The rule of the plain quantizer's gains."""

import numpy as np
import pytest
from quantizer_cases import chain, data, dense_layers

from pvq_hw.errors import InputError
from pvq_hw.model.model import Conv, Dense, Model
from pvq_hw.pyramid.nearest import gain
from pvq_hw.quantizer.quantize import quantize


@pytest.mark.parametrize("rule", ["least-squares", "norm"])
def test_gains_of_the_plain_quantizer_follow_the_rule(rule: str) -> None:
    model = chain()
    net = quantize(model, calibration=data(), ratio=2, quantizer="plain", gain_rule=rule)
    weights = {node.name: node.weight for node in model.nodes if isinstance(node, Dense)}
    for layer in dense_layers(net):
        w = weights[layer.name]
        np.testing.assert_array_equal(layer.gain[:, 0], gain(w, layer.y, rule))
        kept = np.linalg.norm(layer.gain * layer.y, axis=1) / np.linalg.norm(w, axis=1)
        if rule == "norm":
            np.testing.assert_allclose(kept, 1, rtol=1e-12)
        else:
            assert (kept < 1).all()
    assert net.meta["gain_rule"] == rule


def test_rules_that_cannot_be_followed_are_refused() -> None:
    with pytest.raises(InputError, match="must be least-squares or norm, not 'loud'"):
        quantize(chain(), calibration=data(), quantizer="plain", gain_rule="loud")
    with pytest.raises(InputError, match="must come with the plain quantizer"):
        quantize(chain(), calibration=data(), gain_rule="norm")


def test_convolutions_follow_the_rule_too() -> None:
    weight = np.random.default_rng(0).normal(size=(2, 3, 3, 4))
    layer = Conv(
        "c", ("x",), "y", (4, 4, 2), (6, 6, 4), (3, 3), weight=weight, bias=np.zeros(2)
    )  # fmt: skip
    model = Model("net", "0" * 64, "x", (6, 6, 4), (0, 1, 2), (6, 6, 4), (layer,))
    x = np.arange(16 * 144, dtype=np.uint8).reshape(16, 6, 6, 4)
    net = quantize(model, calibration=x, ratio=3, quantizer="plain", gain_rule="norm")
    kept = np.linalg.norm(net.layers[0].gain * net.layers[0].y, axis=1)
    np.testing.assert_allclose(kept, np.linalg.norm(weight.reshape(2, -1), axis=1), rtol=1e-12)
