"""Scales and biases mended without calibration data."""

import numpy as np
import pytest
from quantizer_cases import chain, data
from quantizer_datafree_cases import ranged

from pvq_hw.errors import InputError
from pvq_hw.model.model import Model
from pvq_hw.quantizer.chain import dense_stages
from pvq_hw.quantizer.datafree import Spread, corrected, equalized, spreads
from pvq_hw.quantizer.emit import Codes
from pvq_hw.quantizer.quantize import quantize


def error_of(model: Model, **options) -> float:
    """Squared error of the outputs on uniform inputs, over their variance."""
    x = np.random.default_rng(9).random((400, 64))
    net = quantize(model, quantizer="plain", **options)
    real = net.predict(net.quantize_input(x)) * net.output.scale
    want = model.predict(x)
    return float(np.square(real - want).mean() / want.var(axis=0).mean())


@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_biases_without_any_data_lower_the_error(ratio: float) -> None:
    plain, mended = (error_of(ranged(), ratio=ratio, mend=m) for m in ("none", "biases"))
    assert mended < 0.6 * plain


def test_scales_without_any_data_lower_the_error() -> None:
    model = ranged(uneven=True)
    plain, mended = (error_of(model, ratio=1.0, mend=m) for m in ("none", "scales"))
    assert mended < 0.7 * plain
    assert error_of(model, ratio=1.0, mend="both") < mended


def test_measured_biases_give_the_float_means() -> None:
    model, x = chain(), data()
    net = quantize(
        model, calibration=x, quantizer="plain", ratio=2.0, input_scale=255, mend="biases"
    )
    real = net.predict(net.quantize_input(x, 255)) * net.output.scale
    want = model.predict(x, 255)
    assert np.abs(real.mean(axis=0) - want.mean(axis=0)).max() < 0.01 * want.std()


def test_equalized_layers_compute_the_same() -> None:
    model = ranged(uneven=True)
    stages = dense_stages(model)
    same, found, ranges = equalized(stages, spreads(stages, None, 0.0, 1.0), model.ranges)
    x = y = np.random.default_rng(1).random((20, 64))
    for stage, other in zip(stages, same, strict=True):
        x = x @ stage.weight.T + stage.bias
        y = y @ other.weight.T + other.bias
        x, y = stage.activation.compute(x), stage.activation.compute(y)
    assert np.allclose(x, y, rtol=1e-9, atol=1e-12)
    root = found[1].root
    assert np.isclose(root, np.median(root)).mean() > 0.8
    assert ranges["x"] == (0.0, 1.0)
    assert ranges["r1"] != model.ranges["r1"]


def test_guessed_spreads_are_those_of_uniform_inputs() -> None:
    stages = dense_stages(ranged())
    x = np.random.default_rng(3).random((20_000, 64))
    for guess, true in zip(
        spreads(stages, None, 0.0, 1.0)[:2], spreads(stages, x, 0.0, 0.0), strict=False
    ):
        assert np.allclose(guess.mean, true.mean, atol=0.1 * true.root.max())
        assert np.allclose(guess.variance, true.variance, atol=0.15 * true.variance.max())


def test_clips_stop_equalization() -> None:
    stages = dense_stages(chain(high=0.5))
    same, _, _ = equalized(stages, spreads(stages, None, 0.0, 1.0), {})
    assert all(a.node is b.node for a, b in zip(stages, same, strict=True))


def test_exact_codes_keep_their_biases() -> None:
    stages = dense_stages(ranged())
    codes = [Codes(s.weight, np.ones((len(s.weight), 1)), s.bias) for s in stages]
    for stage, code in zip(
        stages, corrected(stages, codes, spreads(stages, None, 0.0, 1.0), False), strict=True
    ):
        assert np.allclose(code.bias, stage.bias, atol=1e-4)
    assert Spread(np.zeros(2), np.ones(2)).top == 4.0


def test_mending_is_for_plain_chains_only() -> None:
    with pytest.raises(InputError, match="must come with the plain quantizer"):
        quantize(chain(), calibration=data(), mend="biases")
    with pytest.raises(InputError, match="Mending must be none, biases, scales or both"):
        quantize(chain(), calibration=data(), quantizer="plain", mend="all")
