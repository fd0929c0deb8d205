"""Slice and Split of activations, sums of branches, extremes over maps, and shapes by arithmetic:
what is read is what the format's reference computes, and what a stream can't part is refused."""

import numpy as np
import pytest
from onnx import helper
from onnx_graphs import graph_model, reference, save

from pvq_hw.errors import InputError
from pvq_hw.model.export import save_model
from pvq_hw.model.load import load_model
from pvq_hw.quantizer.quantize import quantize

N = helper.make_node
RNG = np.random.default_rng(0)
SHAPE = (4, 5, 6)


def model_of(nodes, constants=(), shape=SHAPE, last="v", size=None):
    """A graph of ``nodes`` whose value ``last`` goes into a dense layer of 3 rows."""
    x = RNG.standard_normal((3, *shape))
    whole = graph_model(nodes, dict(constants), ("N", *shape), output=last)
    size = int(np.prod(reference(whole, x)[0].shape[1:])) if size is None else size
    nodes = [*nodes, N("Flatten", [last], ["flat"]), N("MatMul", ["flat", "layer"], ["out"])]
    held = dict(constants) | {"layer": RNG.standard_normal((size, 3))}
    return graph_model(nodes, held, ("N", *shape)), x


def cut(starts, ends, axes, steps=None):
    """Slice's inputs as constants."""
    lists = {"starts": starts, "ends": ends, "axes": axes} | ({"steps": steps} if steps else {})
    return {name: np.array(values) for name, values in lists.items()}


TAKEN = {
    "channels": ([N("Slice", ["x", "starts", "ends", "axes"], ["v"])], cut([1], [3], [1])),
    "columns to the end": ([N("Slice", ["x", "starts", "ends", "axes"], ["v"])],
                           cut([-4], [2**62], [-1])),
    "several axes": ([N("Slice", ["x", "starts", "ends", "axes"], ["v"])],
                     cut([1, 0, 2], [4, 3, 5], [1, 2, 3])),
    "all frames": ([N("Slice", ["x", "starts", "ends", "axes"], ["v"])],
                   cut([0, 2], [2**62, 4], [0, 2])),
    "halves": ([N("Split", ["x"], ["a", "b"], axis=1), N("Sub", ["b", "a"], ["v"])], {}),
    "uneven parts": ([N("Split", ["x", "sizes"], ["a", "b", "c"], axis=2),
                      N("Sum", ["a", "b"], ["s"]), N("Relu", ["s"], ["v"])],
                     {"sizes": np.array([2, 2, 1])}),
    "mean of three": ([N("Relu", ["x"], ["a"]), N("Sigmoid", ["x"], ["b"]), N("Abs", ["x"], ["c"]),
                       N("Conv", ["x", "k"], ["d"]), N("Mean", ["a", "d", "d"], ["v"])],
                      {"k": RNG.standard_normal((4, 4, 1, 1))}),
    "largest": ([N("ReduceMax", ["x"], ["v"], axes=[2, 3], keepdims=0)], {}),
    "smallest": ([N("ReduceMin", ["x"], ["v"], axes=[-1, -2])], {}),
    "total": ([N("ReduceSum", ["x", "axes"], ["v"])], {"axes": np.array([-1, -2])}),
    "a shape by arithmetic": (
        [N("Shape", ["x"], ["s"]), N("Gather", ["s", "one"], ["c"]),
         N("Gather", ["s", "two"], ["h"]), N("Mul", ["c", "h"], ["ch"]),
         N("Div", ["ch", "two"], ["half"]), N("Mod", ["ch", "six"], ["m"]),
         N("Add", ["half", "half"], ["all"]), N("Sub", ["all", "m"], ["less"]),
         N("Add", ["less", "m"], ["more"]),
         N("Concat", ["minus", "more", "six"], ["shape"], axis=0),
         N("Reshape", ["x", "shape"], ["v"])],
        {"one": np.array([1]), "two": np.array([2]), "six": np.array([6]), "minus": np.array([-1])},
    ),
    "padding by arithmetic": (
        [N("ConstantOfShape", ["four"], ["zeros"], value=helper.make_tensor("v", 7, [1], [0])),
         N("Concat", ["ones", "zeros"], ["both"], axis=0), N("Reshape", ["both", "pairs"], ["p"]),
         N("Slice", ["p", "minus", "least", "zero", "minus"], ["turned"]),
         N("Transpose", ["turned"], ["t"], perm=[1, 0]), N("Reshape", ["t", "minus"], ["pads"]),
         N("Pad", ["x", "pads"], ["wide"]), N("Conv", ["wide", "k"], ["v"])],
        {"four": np.array([4]), "ones": np.array([1, 2, 0, 1]), "pairs": np.array([-1, 2]),
         "minus": np.array([-1]), "least": np.array([-(2**63) + 1]), "zero": np.array([0]),
         "k": RNG.standard_normal((2, 4, 2, 2))},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken_means_what_the_reference_computes(tmp_path, name):
    nodes, constants = TAKEN[name]
    file, x = model_of(nodes, constants, size=80 if name == "padding by arithmetic" else None)
    model = load_model(save(tmp_path, file))
    expected = reference(file, x)[0]
    assert np.abs(model.predict(x) - expected).max() < 1e-9
    save_model(model, tmp_path / "again.onnx")
    assert np.allclose(load_model(tmp_path / "again.onnx").predict(x), expected, atol=1e-4)


REFUSED = {
    "some frames": (cut([0], [2], [0]), "must keep all frames"),
    "every other": (cut([0], [4], [2], [2]), "must slice activations by steps of 1, not 2"),
    "nothing": (cut([3], [3], [2]), "must keep something of axis 2"),
    "twice": (cut([0, 0], [2, 2], [1, 1]), "must slice each axis of its data once, not 1"),
    "backwards": (cut([3], [0], [1], [-1]), "must slice activations by steps of 1, not -1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_slices_that_no_stream_gives_are_refused(tmp_path, name):
    constants, text = REFUSED[name]
    names = ["x", *constants]
    file, _ = model_of([N("Slice", names, ["v"])], constants, size=1)
    with pytest.raises(InputError, match=text):
        load_model(save(tmp_path, file))


def test_splits_that_do_not_add_up_are_refused(tmp_path):
    file, _ = model_of(
        [N("Split", ["x", "sizes"], ["v", "b"], axis=1)], {"sizes": np.array([1, 2])}, size=1
    )
    with pytest.raises(InputError, match=r"must split 4 activations into 2 parts, not \[1, 2\]"):
        load_model(save(tmp_path, file))
    file, _ = model_of([N("Split", ["x"], ["v", "b"], axis=0)], size=1)
    with pytest.raises(InputError, match="must split an axis of its activations, not 0"):
        load_model(save(tmp_path, file))


def test_a_part_keeps_scale_and_format_and_lets_slopes_through(tmp_path):
    """Both halves of a layer meet in a sum; the calibrated quantizer moves pulses before them."""
    rng = np.random.default_rng(2)  # its own, whatever ran before
    nodes = [
        N("Conv", ["x", "k"], ["c"]), N("Relu", ["c"], ["r"]),
        N("Split", ["r"], ["a", "b"], axis=1), N("Add", ["a", "b"], ["v"]),
    ]  # fmt: skip
    file, _ = model_of(nodes, {"k": rng.standard_normal((4, 4, 2, 2))})
    model = load_model(save(tmp_path, file))
    x = rng.standard_normal((200, *SHAPE))
    network = quantize(model, calibration=x, ratio=1.5, sweeps=1)
    layers = {layer.name: layer for layer in network.layers}
    before = next(layer for layer in network.layers if layer.kind == "conv").output
    parts = [layer for layer in layers.values() if layer.kind == "part"]
    assert len(parts) == 2
    assert all((p.output.scale, p.output.format) == (before.scale, before.format) for p in parts)
    found = network.real(network.predict(network.quantize_input(x)))
    exact = model.predict(x)
    assert np.sqrt(np.mean((found - exact) ** 2)) < 0.35 * exact.std()
