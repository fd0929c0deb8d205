"""The benchmark of activation functions: its training, and its table."""

import numpy as np
import pytest

from benchmarks.activations import ACTIVATIONS, gradients, tables, train
from benchmarks.activations_cnn import CLASSES, train_cnn
from pvq_hw.data.dataset import Data
from pvq_hw.model.curve import Curve, X


@pytest.mark.parametrize("name", ["Relu", "Gelu"])
def test_gradients_are_those_of_the_loss(name):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 6)), rng.integers(0, 3, 20)
    curve = ACTIVATIONS[name]
    net = train(curve, x, y, 0, epochs=1)

    def loss():
        value = x
        for i, (w, b) in enumerate(zip(net.weights, net.biases, strict=True)):
            value = value @ w.T + b
            value = curve(value) if i + 1 < len(net.weights) else value
        value = value - value.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(value).sum(axis=1)) - value[np.arange(20), y]))

    found = gradients(net, curve, x, y)
    for place, values in enumerate([*net.weights, *net.biases]):
        before, at = loss(), np.unravel_index(3 % values.size, values.shape)
        values[at] += 1e-6
        assert (loss() - before) / 1e-6 == pytest.approx(found[place][at], abs=1e-4)
        values[at] -= 1e-6


def test_training_learns_and_repeats():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 6))
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    nets = [train(Curve("Tanh", (X,)), x, y, 3, epochs=60) for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(nets[0].weights, nets[1].weights, strict=True))
    model = nets[0].model("Tanh")
    assert float((model.predict(x).argmax(axis=1) == y).mean()) > 0.9


def test_the_table_tells_the_mean_of_the_seeds():
    run = {"float_percent": 97.0, "pvq_percent": 96.5, "table_bits": []}
    other = {"float_percent": 98.0, "pvq_percent": 97.1, "table_bits": [9, 10]}
    better = other | {"pvq_percent": 97.3}
    runs = {"mlp Relu 0": run, "mlp Relu 1": run, "mlp Tanh 0": other, "mlp Tanh 1": better}
    text = tables(runs | {"cnn Tanh 0": other})
    assert "| mlp | Relu | 97.00 % | 96.50 % | 0.50 |  |  |" in text
    assert "| mlp | Tanh | 98.00 % | 97.20 % | 0.80 | +0.30 (+0.40, +0.20) | 9 to 10 bits |" in text
    assert "| cnn | Tanh | 98.00 % | 97.10 % | 0.90 |  | 9 to 10 bits |" in text


@pytest.mark.torch
def test_the_convolutional_network_is_the_same_with_every_activation():
    assert set(CLASSES) == set(ACTIVATIONS)
    rng = np.random.default_rng(2)
    data = Data(rng.integers(0, 256, (64, 28, 28), dtype=np.uint8), np.arange(64) % 10)
    models = {name: train_cnn(name, data, 0, epochs=1) for name in ("Relu", "HardTanh", "Silu")}
    kinds = {name: [n.op for n in m.nodes if not n.weighted] for name, m in models.items()}
    assert kinds["HardTanh"] == ["Clip", "MaxPool", "Clip", "MaxPool", "Clip"]
    assert kinds["Silu"] == ["Function", "MaxPool", "Function", "MaxPool", "Function"]
    weights = sum(n.weight.size + n.bias.size for n in models["Relu"].nodes if n.weighted)
    assert weights == 7578
