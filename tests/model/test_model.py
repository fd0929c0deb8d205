"""The float model: each node against plain loops, and the graph that holds them."""

import numpy as np
import pytest

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
)  # fmt: skip

RNG = np.random.default_rng(5)


def positions(node, x):
    """(frame, row, column, [(channel vector, kernel row, kernel column) inside the map])."""
    h, w, _ = node.input_shape
    for f in range(len(x)):
        for r in range(node.shape[0]):
            for c in range(node.shape[1]):
                taps = []
                for i in range(node.kernel[0]):
                    for j in range(node.kernel[1]):
                        y = r * node.stride[0] + i * node.dilation[0] - node.pads[0][0]
                        z = c * node.stride[1] + j * node.dilation[1] - node.pads[1][0]
                        if 0 <= y < h and 0 <= z < w:
                            taps.append((x[f, y, z], i, j))
                yield f, r, c, taps


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolution_equals_loops(groups):
    weight = RNG.standard_normal((8, 3, 2, 4 // groups))
    node = Conv("c", ("x",), "y", (4, 4, 8), (6, 7, 4), (3, 2), (2, 2), ((1, 2), (0, 1)), (1, 1),
                weight=weight, bias=RNG.standard_normal(8), groups=groups)  # fmt: skip
    x = RNG.standard_normal((2, 6, 7, 4))
    expected = np.tile(node.bias, (2, 4, 4, 1))
    for f, r, c, taps in positions(node, x):
        for values, i, j in taps:
            for m in range(8):
                g = m // (8 // groups)
                part = values[g * (4 // groups) : (g + 1) * (4 // groups)]
                expected[f, r, c, m] += part @ weight[m, i, j]
    assert np.allclose(node.compute(x), expected, rtol=1e-12)
    assert node.macs == 8 * 3 * 2 * (4 // groups) * 16
    columns = node.columns(x)
    assert columns.shape == (groups, 2 * 16, 6 * 4 // groups)
    assert node.matrix.shape == (8, 6 * 4 // groups)


def test_pooling_equals_loops():
    shape = {"input_shape": (5, 6, 3), "kernel": (3, 2), "stride": (2, 1)}
    shape["pads"] = ((1, 1), (1, 0))
    largest = MaxPool("m", ("x",), "y", (3, 6, 3), **shape)
    inside = AveragePool("a", ("x",), "y", (3, 6, 3), **shape)
    counted = AveragePool("b", ("x",), "y", (3, 6, 3), **shape, count_include_pad=True)
    x = RNG.standard_normal((2, 5, 6, 3)) - 5  # padding with 0 would win
    outputs = [node.compute(x) for node in (largest, inside, counted)]
    for f, r, c, taps in positions(largest, x):
        values = np.array([t[0] for t in taps])
        sums = values.sum(axis=0)
        for out, expected in zip(
            outputs, (values.max(axis=0), sums / len(values), sums / 6), strict=True
        ):
            assert np.allclose(out[f, r, c], expected, rtol=1e-12)


def test_elementwise_and_branches():
    a, b = RNG.standard_normal((2, 3, 2, 2, 4))
    assert np.array_equal(Relu("r", ("x",), "y", (2, 2, 4)).compute(a), np.where(a > 0, a, 0))
    clip = Clip("c", ("x",), "y", (2, 2, 4), -0.5, 0.25)
    assert clip.compute(a).min() == -0.5
    assert clip.compute(a).max() == 0.25
    assert np.array_equal(Add("s", ("a", "b"), "y", (2, 2, 4)).compute(a, b), a + b)
    joined = Concat("j", ("a", "b"), "y", (2, 2, 8)).compute(a, b)
    assert np.array_equal(joined, np.concatenate([a, b], axis=3))
    flat = Concat("j", ("a", "b"), "y", (32,)).compute(a, b)
    assert np.array_equal(flat, np.concatenate([a.reshape(3, -1), b.reshape(3, -1)], axis=1))
    affine = Affine("f", ("x",), "y", (2, 2, 4), np.arange(4.0), np.ones(4))
    assert np.array_equal(affine.compute(a), a * np.arange(4) + 1)


@pytest.fixture
def model():
    weight = RNG.standard_normal((4, 2, 2, 3))
    conv = Conv("conv", ("x",), "c", (3, 4, 4), (4, 5, 3), (2, 2), weight=weight, bias=np.ones(4))
    relu = Relu("relu", ("c",), "r", (3, 4, 4))
    fc = Dense("fc", ("r",), "y", (6,), RNG.standard_normal((6, 48)), np.arange(6.0))
    return Model("m", "0" * 64, "x", (3, 4, 5), (1, 2, 0), (4, 5, 3), (conv, relu, fc))


def test_predict_and_trace_take_the_files_axes(model):
    x = RNG.standard_normal((7, 3, 4, 5))
    trace = model.trace(x)
    assert list(trace) == ["c", "r", "y"]
    inner = np.moveaxis(x, 1, -1)
    assert np.array_equal(model.to_internal(x), inner)
    expected = np.einsum("fhwc,mhwc->fm", inner[:, :2, :2], model.nodes[0].weight) + 1
    assert np.allclose(trace["c"][:, 0, 0], expected)
    assert np.allclose(model.predict(x), trace["y"])
    assert np.allclose(model.predict(x.reshape(7, 60)), trace["y"])


def test_predict_in_chunks_equals_predict_at_once(model, monkeypatch):
    x = RNG.standard_normal((23, 3, 4, 5))
    whole = model.predict(x)
    monkeypatch.setattr("pvq_hw.model.model.CHUNK_VALUES", 5 * 576)
    assert np.allclose(model.predict(x), whole, rtol=1e-12)
    assert model.predict(x[:0]).shape == (0, 6)


def test_integers_are_divided_by_the_input_scale_and_floats_are_not(model):
    x = RNG.integers(0, 256, (2, 3, 4, 5), dtype=np.uint8)
    assert np.array_equal(model.predict(x, 255), model.predict(x / 255.0, 255))


@pytest.mark.parametrize("x", [np.zeros((2, 3, 4, 4)), np.zeros(()), np.zeros((2, 61))])
def test_data_of_a_wrong_shape_is_refused(model, x):
    with pytest.raises(InputError, match=r"Data must have the shape \(frames, 3, 4, 5\), not"):
        model.predict(x)


def test_data_that_is_no_number_is_refused(model):
    with pytest.raises(InputError, match="Data must be numbers, not"):
        model.predict(np.full((2, 60), "a"))


def test_counts_and_lookups(model):
    assert model.parameters == 48 + 4 + 288 + 6
    assert model.macs == 48 * 12 + 288
    assert model.output == "y"
    assert model.tensor_shape("x") == (4, 5, 3)
    assert [n.name for n in model.consumers("c")] == ["relu"]
