"""Weights that are codes already: read back exactly, compiled as they are."""

import numpy as np
import pytest

from pvq_hw.data.dataset import Data
from pvq_hw.errors import InputError
from pvq_hw.flow.compile import quantize_for
from pvq_hw.flow.options import CompileOptions
from pvq_hw.model.export import save_model
from pvq_hw.model.load import load_model
from pvq_hw.pyramid.nearest import gain, nearest
from pvq_hw.quantizer.fused import network_steps
from pvq_hw.quantizer.given import given_codes
from pvq_hw.quantizer.quantize import LayerOptions, quantize
from pvq_hw.target.boards import get_target
from pvq_hw.train.builder import Builder
from pvq_hw.train.fit import with_weights


def coded(model, ratio):
    """The model with plain codes as its weights, in float32, and those codes."""
    weights, biases, codes = {}, {}, {}
    for step in network_steps(model):
        if step.weighted:
            w = step.weight
            y = nearest(w, max(1, int(w.shape[1] / ratio)))
            y //= np.maximum(np.gcd.reduce(y, axis=1, keepdims=True), 1)
            codes[step.name] = y
            rho = gain(w, y)[:, None]
            weights[step.name] = (rho * y).astype(np.float32).astype(np.float64)
            biases[step.name] = np.zeros(len(y))
    return with_weights(model, weights, biases), codes


def dense_net():
    return Builder("mlp", (20,), 3).dense(12).relu().dense(5).model()


def conv_net():
    net = Builder("net", (3, 9, 8), 4).conv(6, (3, 3)).relu().depthwise((3, 3), (2, 2)).relu()
    return net.conv(8, (1, 1)).relu().max_pool((2, 2)).dense(5).model()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 2, 7, 60])
def test_codes_come_back_from_float32(k, seed):
    rng = np.random.default_rng(seed)
    y = nearest(rng.normal(size=(30, 25)), k)
    y //= np.gcd.reduce(y, axis=1, keepdims=True)
    w = (rng.uniform(1e-6, 30, (30, 1)) * y).astype(np.float32)
    found, rho = given_codes(w, "fc")
    np.testing.assert_array_equal(found, y)
    np.testing.assert_allclose(rho * y, w, rtol=1e-6)


def test_rows_of_zeros_and_common_divisors():
    y, rho = given_codes(np.array([[0, 0, 0], [4, -2, 0], [0, 0, -7.5]]), "fc")
    assert y.tolist() == [[0, 0, 0], [2, -1, 0], [0, 0, -1]]
    assert rho.tolist() == [[0], [2], [7.5]]


def test_other_weights_are_refused():
    w = np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32)
    w[0] = 0.25
    with pytest.raises(InputError, match=r"Layer 'fc': row 1 must be a gain times whole numbers"):
        given_codes(w, "fc")
    with pytest.raises(InputError, match="Layer 'fc' must have finite weights"):
        given_codes(np.full((1, 2), np.nan), "fc")


@pytest.mark.parametrize("make", [dense_net, conv_net])
@pytest.mark.parametrize("target", ["icebreaker", "ulx3s-25f"])
def test_a_file_of_codes_compiles_to_those_codes(make, target, tmp_path):
    """Through a file, for a board: the same codes, and the network that `quantize` gives."""
    model, codes = coded(make(), 3)
    save_model(model, tmp_path / "net.onnx")
    loaded = load_model(tmp_path / "net.onnx")
    rng = np.random.default_rng(5)
    x = rng.normal(size=(64, *model.input_shape)).astype(np.float32)
    options = CompileOptions(target, quantizer="given")
    network, folding = quantize_for(loaded, get_target(target), options, Data(x))
    assert folding.names == tuple(codes)
    for layer in network.layers:
        if layer.weights is not None:
            np.testing.assert_array_equal(layer.weights, codes[layer.name])
    direct = quantize(model, calibration=x, quantizer="given")
    a, b = network.quantize_input(x), direct.quantize_input(x)
    np.testing.assert_array_equal(network.predict(a), direct.predict(b))
    near = model.predict(x)
    real = direct.predict(b).reshape(len(x), -1) * direct.output.scale
    assert np.abs(real - near).max() < 0.05 * np.abs(near).max()


def test_a_dense_chain_is_also_an_npz_file(tmp_path):
    model, codes = coded(dense_net(), 2)
    save_model(model, tmp_path / "net.npz")
    x = np.random.default_rng(6).normal(size=(32, 20)).astype(np.float32)
    network = quantize(load_model(tmp_path / "net.npz"), calibration=x, quantizer="given")
    for layer, y in zip(network.layers, codes.values(), strict=True):
        np.testing.assert_array_equal(layer.weights, y)


def test_groups_are_refused():
    model, _ = coded(dense_net(), 2)
    x = np.zeros((32, 20), dtype=np.float32)
    with pytest.raises(InputError, match="must have a gain per row where codes are given"):
        quantize(model, calibration=x, quantizer="given", layers={"fc1": LayerOptions(unit=10)})
