"""Scales and biases of plain codes mended, with calibration data and without."""

from dataclasses import replace

import numpy as np
import pytest
from quantizer_cases import chain, data
from quantizer_datafree_cases import ranged
from quantizer_graphs_cases import branched, conv, inputs

from pvq_hw.errors import InputError
from pvq_hw.model.model import Dense, MaxPool, Model, Relu
from pvq_hw.quantizer.autodiff import Tape
from pvq_hw.quantizer.fused import network_steps
from pvq_hw.quantizer.mend import equalized
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
    steps, x = network_steps(model), np.random.default_rng(1).random((400, 64))
    same, ranges = equalized(steps, x, model.ranges)
    outputs = [Tape(s, "x").outputs(x.astype(np.float32), 400) for s in (steps, same)]
    np.testing.assert_allclose(*outputs, atol=1e-4)
    inner = Tape(same, "x").forward(x.astype(np.float32))["r1"]
    root = np.sqrt(np.square(inner).mean(axis=0))
    assert np.isclose(root, np.median(root), rtol=1e-3).mean() > 0.7  # the others are at a bound
    assert ranges["x"] == (0.0, 1.0)
    assert ranges["r1"] != model.ranges["r1"]


def test_clips_stop_equalization() -> None:
    steps = network_steps(chain(high=0.5))
    same, _ = equalized(steps, data() / 255, {})
    assert all(a.node is b.node for a, b in zip(steps, same, strict=True))


def convolutional(uneven: bool) -> Model:
    """A convolution, a pooling and two dense layers; ``uneven``: channels of different scales."""
    rng = np.random.default_rng(2)
    first = conv("first", "x", "a", 8, side=6, channels=2)
    second = Dense("second", ("p",), "s", (10,), rng.normal(size=(10, 72)) / 8, np.zeros(10))
    if uneven:
        by = np.exp(1.5 * rng.normal(size=8))
        first.weight[:] *= by[:, None, None, None]
        first.bias[:] *= by
        second.weight[:] /= np.tile(by, 9)
    nodes = (
        first, Relu("relu", ("a",), "r", (6, 6, 8)),
        MaxPool("most", ("r",), "p", (3, 3, 8), (6, 6, 8), (2, 2), (2, 2)),
        second, Relu("relu2", ("s",), "q", (10,)),
        Dense("head", ("q",), "out", (4,), rng.normal(size=(4, 10)) / 3, np.zeros(4)),
    )  # fmt: skip
    return Model("net", "0" * 64, "x", (6, 6, 2), (0, 1, 2), (6, 6, 2), nodes)


@pytest.mark.parametrize("known", [True, False], ids=["inputs", "ranges"])
def test_convolutions_are_mended_too(known: bool) -> None:
    rng = np.random.default_rng(4)
    model, x = convolutional(uneven=True), rng.random((300, 6, 6, 2))
    seen = {name: (float(v.min()), float(v.max())) for name, v in model.trace(x).items()}
    model = replace(model, ranges=seen | {"x": (0.0, 1.0)})
    test = rng.random((300, 6, 6, 2))
    want, errors = model.predict(test), {}
    for mend in ("none", "scales", "biases", "both"):
        net = quantize(
            model, calibration=x if known else None, quantizer="plain", ratio=1.0, mend=mend
        )
        real = net.predict(net.quantize_input(test)).reshape(300, -1) * net.output.scale
        errors[mend] = float(np.square(real - want).mean())
    assert errors["scales"] < 0.7 * errors["none"]
    assert errors["biases"] < 0.8 * errors["none"]
    assert errors["both"] < min(errors["scales"], errors["biases"])


def test_scales_move_only_where_one_layer_reads_them() -> None:
    """Not where branches join, nor into depthwise convolutions."""
    steps = network_steps(branched())
    same, _ = equalized(steps, inputs(50), {})
    assert all(a.node is b.node for a, b in zip(steps, same, strict=True))


def test_mending_is_for_the_plain_quantizer_only() -> None:
    with pytest.raises(InputError, match="must come with the plain quantizer"):
        quantize(chain(), calibration=data(), mend="biases")
    with pytest.raises(InputError, match="Mending must be none, biases, scales or both"):
        quantize(chain(), calibration=data(), quantizer="plain", mend="all")
