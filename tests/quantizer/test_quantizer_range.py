"""Values far from 1: the same codes as near 1, no warnings of the arithmetic, no wrong refusals."""

from dataclasses import replace

import numpy as np
import pytest

from pvq_hw.data.dataset import Data
from pvq_hw.errors import InputError
from pvq_hw.model.model import (
    Add,
    Affine,
    AveragePool,
    Clip,
    Concat,
    Conv,
    Dense,
    MaxPool,
    Model,
    Relu,
    Sign,
)
from pvq_hw.network.network import Network
from pvq_hw.quantizer.quantize import LayerOptions, quantize, row_budget

PADS = ((1, 1), (1, 1))


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


def chain(bound: float = 2.0) -> Model:
    nodes = (
        Dense("fc1", ("x",), "a", (8,), rng(1).normal(size=(8, 12)) / 3, rng(2).normal(size=8)),
        Clip("clip", ("a",), "b", (8,), 0.0, bound),
        Dense("fc2", ("b",), "c", (6,), rng(3).normal(size=(6, 8)) / 3, rng(4).normal(size=6)),
        Relu("relu", ("c",), "d", (6,)),
        Dense("fc3", ("d",), "out", (3,), rng(5).normal(size=(3, 6)) / 3, rng(6).normal(size=3)),
    )
    return Model("chain", "", "x", (12,), (0,), (12,), nodes, {"x": (-3.0, 3.0)})


def branched() -> Model:
    def conv(name: str, source: str, output: str, channels: int) -> Conv:
        weight = rng(len(name)).normal(size=(4, 3, 3, channels)) / 3
        return Conv(name, (source,), output, (4, 4, 4), (4, 4, channels), (3, 3), pads=PADS,
                    weight=weight, bias=rng(7).normal(size=4) / 3)  # fmt: skip

    nodes = (
        Affine("norm", ("x",), "n", (4, 4, 2), np.array([0.5, -2.0]), np.array([0.1, 1.0])),
        conv("stem", "n", "s_r", 2),
        Relu("stem_relu", ("s_r",), "s", (4, 4, 4)),
        conv("left", "s", "l", 4),
        Add("sum", ("l", "s"), "a_r", (4, 4, 4)),
        Clip("six", ("a_r",), "a", (4, 4, 4), 0.0, 3.0),
        MaxPool("most", ("a",), "m", (2, 2, 4), (4, 4, 4), (2, 2), (2, 2)),
        AveragePool("mean", ("s",), "v", (2, 2, 4), (4, 4, 4), (2, 2), (2, 2)),
        Concat("both", ("m", "v"), "c", (2, 2, 8)),
        Dense("head", ("c",), "out", (3,), rng(8).normal(size=(3, 32)) / 6, rng(9).normal(size=3)),
    )
    return Model("branched", "", "x", (4, 4, 2), (0, 1, 2), (4, 4, 2), nodes)


def stretched(model: Model, exponents: dict[str, int]) -> Model:
    """The model whose tensors are multiplied by powers of two; tensors that no layer with weights
    makes follow what they are made of."""
    by = dict(exponents)
    nodes = []
    for node in model.nodes:
        if not isinstance(node, Dense | Conv | Affine):
            by[node.output] = by[node.inputs[0]]
        inner, outer = by[node.output] - by[node.inputs[0]], by[node.output]
        if isinstance(node, Affine):
            scale, offset = np.ldexp(node.scale, inner), np.ldexp(node.offset, outer)
            node = replace(node, scale=scale, offset=offset)
        elif isinstance(node, Dense | Conv):
            weight, bias = np.ldexp(node.weight, inner), np.ldexp(node.bias, outer)
            node = replace(node, weight=weight, bias=bias)
        elif isinstance(node, Clip):
            node = replace(node, high=float(np.ldexp(node.high, outer)))
        nodes.append(node)
    return replace(model, nodes=tuple(nodes), ranges={})


def integers(network: Network) -> list[np.ndarray]:
    names = ("y", "mult", "bias", "shift", "weights")
    return [np.asarray(v) for n in network.layers for v in map(n.to_json().get, names) if v] + [
        n.weights for n in network.layers if n.weights is not None
    ]


CASES = {
    "chain": (chain(), (12,), ("x", "a", "c", "out")),
    "branched": (branched(), (4, 4, 2), ("x", "n", "s_r", "out")),
}
SPREAD = (-200, -64, 64, 200)


@pytest.mark.parametrize("quantizer", ["calibrated", "plain"])
@pytest.mark.parametrize("name", list(CASES))
def test_factors_of_two_change_no_integer(name: str, quantizer: str) -> None:
    """Whatever tensors are multiplied by; scales and gains carry the factors."""
    model, shape, free = CASES[name]
    x = rng(0).normal(size=(48, *shape))
    options = {"ratio": 2.0, "quantizer": quantizer}
    seen: list[tuple[dict[str, int], Network, np.ndarray]] = []
    for turn in range(3):
        by = {t: SPREAD[(turn + i) % 4] for i, t in enumerate(free)}
        if name == "branched":  # a sum's branches have one scale
            by["l"] = by["s_r"]
        data = np.ldexp(x, by["x"])
        network = quantize(stretched(model, by), calibration=data, **options)
        seen.append((by, network, network.predict(network.quantize_input(data))))
    first, near, scores = seen[0]
    for by, far, found in seen[1:]:
        assert np.array_equal(found, scores)
        for a, b in zip(integers(near), integers(far), strict=True):
            assert np.array_equal(a, b)
        for spec, tensor in ((near.input, "x"), (near.output, "out")):
            other = far.input if tensor == "x" else far.output
            assert other.scale == np.ldexp(spec.scale, by[tensor] - first[tensor])
        inner = [p[free[1]] - p["x"] for p in (by, first)]
        assert np.array_equal(
            far.layers[0].gain, np.ldexp(near.layers[0].gain, inner[0] - inner[1])
        )
    usual = quantize(model, calibration=x, **options)
    expected = usual.predict(usual.quantize_input(x)).reshape(len(x), -1) * usual.output.scale
    got = np.ldexp(scores.reshape(len(x), -1) * near.output.scale, -first["out"])
    real = model.predict(x)
    assert np.square(real - got).mean() < 2 * np.square(real - expected).mean()


def test_integer_data_keep_their_lattice() -> None:
    x = rng(0).integers(0, 256, (48, 12)).astype(np.uint8)
    model = stretched(chain(), {"x": 0, "a": 90, "c": -90, "out": 0})
    network = quantize(model, calibration=x, ratio=2.0, input_scale=255)
    assert network.input.scale == 1 / 255
    assert network.meta["input_scale"] == 255
    assert np.array_equal(network.quantize_input(x, 255), x)


def test_signs_stay_signs() -> None:
    first = Dense("fc1", ("x",), "a", (8,), rng(1).normal(size=(8, 12)), rng(2).normal(size=8))
    last = Dense("fc2", ("b",), "out", (3,), rng(3).normal(size=(3, 8)), rng(4).normal(size=3))
    model = Model("m", "", "x", (12,), (0,), (12,), (first, Sign("s", ("a",), "b", (8,)), last))
    x = rng(0).normal(size=(48, 12))
    plain = {n: LayerOptions(encoding="int8") for n in ("fc1", "fc2")}
    near_model, far = (
        replace(model, nodes=(replace(first, weight=np.ldexp(first.weight, a),
                                      bias=np.ldexp(first.bias, b)), *model.nodes[1:]))
        for a, b in ((0, 60), (100, 40))
    )  # fmt: skip
    for layers in (None, plain):
        near, other = (
            quantize(m, calibration=a, ratio=1.0, layers=layers)
            for m, a in ((near_model, np.ldexp(x, 60)), (far, np.ldexp(x, -60)))
        )
        assert all(map(np.array_equal, integers(near), integers(other)))
        assert other.layers[0].output.scale == 1.0


def times(model: Model, weights: float) -> Model:
    """The model without biases and bounds, its weights multiplied."""
    nodes = []
    for node in model.nodes:
        if isinstance(node, Dense | Conv):
            node = replace(node, weight=node.weight * weights, bias=0 * node.bias)
        elif isinstance(node, Affine):
            node = replace(node, offset=0 * node.offset)
        elif isinstance(node, Clip):
            node = Relu(node.name, node.inputs, node.output, node.shape)
        nodes.append(node)
    return replace(model, nodes=tuple(nodes), ranges={})


@pytest.mark.parametrize(
    ("name", "weights", "inputs"),
    [
        ("chain", 1e30, 1.0), ("chain", 1e-30, 1.0), ("chain", 1e30, 1e-30), ("chain", 1.0, 1e38),
        ("chain", 1.0, 1e-200), ("branched", 1.0, 1e38), ("branched", 1.0, 1e-38),
    ],
)  # fmt: skip
def test_large_and_small_values_lose_nothing(name: str, weights: float, inputs: float) -> None:
    model, shape, _ = CASES[name]
    model, x = times(model, weights), rng(0).normal(size=(48, *shape)) * inputs
    network = quantize(model, calibration=x, ratio=1.0)
    real = model.predict(x)
    size = np.abs(real).max()
    got = network.predict(network.quantize_input(x)).reshape(len(x), -1) * network.output.scale
    assert np.abs(real / size - got / size).max() < 0.3
    assert all(k.min() >= 1 for k in row_budget(model, x, ratio=1.0).values())


def test_weights_that_no_factor_brings_near_1_are_refused_by_name() -> None:
    x = rng(0).normal(size=(48, 4, 4, 2))
    with pytest.raises(InputError, match=r"Layer 'left' must have weights of at most 1.1e\+12"):
        quantize(times(branched(), 1e30), calibration=x, ratio=1.0)


def test_what_float64_cannot_hold_is_refused_by_name() -> None:
    model, x = chain(), rng(0).normal(size=(48, 12))
    big = stretched(model, {"x": 0, "a": 0, "c": 400, "out": 0})
    with pytest.raises(InputError, match="Layer 'fc2' must give values of at most 1e\\+100 on"):
        quantize(big, calibration=x, ratio=2.0)
    for array in (np.array([1.0, 2e100]), np.array([-2e100, 1.0])):
        with pytest.raises(InputError, match="Data 'x' must be at most 1e\\+100 in magnitude"):
            Data(array)
        with pytest.raises(InputError, match="Data 'y' must be at most 1e\\+100 in magnitude"):
            Data(np.ones(2), array)
