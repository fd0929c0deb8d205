"""Float semantics of the ONNX import, against the format's own reference implementation."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_graphs import DATA, as_double, channel_last, graph_model, reference, save

from pvq_hw.data.dataset import make_data
from pvq_hw.errors import InputError
from pvq_hw.model.load import load_model
from pvq_hw.naming import safe_name

N = helper.make_node
RNG = np.random.default_rng(7)
W = {s: RNG.standard_normal(s) for s in [(5, 6), (6, 5), (5,), (1, 5), (5, 1), (4, 3, 3, 3)]}


def agree(tmp_path, nodes, constants, shape, *, frames=3, **options):
    """Imports a model and compares its outputs with the reference's; returns the Model."""
    model = graph_model(nodes, constants, shape, **options)
    x = np.random.default_rng(1).standard_normal((frames, *shape[1:]))
    expected = channel_last(reference(model, x)[0])
    imported = load_model(save(tmp_path, model))
    assert np.allclose(imported.predict(x), expected, rtol=1e-10, atol=1e-10)
    assert np.abs(expected).max() > 0.01
    return imported


def kinds(model):
    return [node.op for node in model.nodes]


# -- matrix products ----------------------------------------------------------------------------


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", [None, (5,), (1, 5), ()])
@pytest.mark.parametrize("opset", [9, 11, 17, 21])
def test_gemm_with_all_attributes(tmp_path, trans_b, bias, opset):
    if bias is None and opset < 11:
        pytest.skip("C was not optional then")
    names = ["x", "w"] + (["c"] if bias is not None else [])
    node = N("Gemm", names, ["out"], alpha=0.5, beta=-2.0, transB=trans_b)
    constants = {"w": W[(5, 6) if trans_b else (6, 5)]}
    if bias is not None:
        constants["c"] = np.full(bias, 0.7) + np.arange(np.prod(bias)).reshape(bias)
    model = agree(tmp_path, [node], constants, ("N", 6), opset=opset)
    assert kinds(model) == ["Dense"]


@pytest.mark.parametrize("trans_w", [0, 1])
@pytest.mark.parametrize("trans_x", [0, 1])
def test_gemm_with_the_weights_on_the_left(tmp_path, trans_w, trans_x):
    nodes = [] if trans_x else [N("Transpose", ["x"], ["t"], perm=[1, 0])]
    x = "x" if trans_x else "t"
    nodes += [
        N("Gemm", ["w", x, "c"], ["g"], transA=trans_w, transB=trans_x, alpha=2.0, beta=3.0),
        N("Transpose", ["g"], ["out"]),
    ]
    agree(tmp_path, nodes, {"w": W[(6, 5) if trans_w else (5, 6)], "c": W[5, 1]}, ("N", 6))


def test_gemm_with_trans_a_undoes_a_transpose(tmp_path):
    nodes = [N("Transpose", ["x"], ["t"]), N("Gemm", ["t", "w"], ["out"], transA=1)]
    agree(tmp_path, nodes, {"w": W[6, 5]}, ("N", 6))


def test_gemm_that_sums_over_frames_is_refused(tmp_path):
    model = graph_model([N("Gemm", ["x", "w"], ["out"], transA=1)], {"w": W[6, 5]}, ("N", 6))
    with pytest.raises(InputError, match="must not sum over the frames"):
        load_model(save(tmp_path, model))


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("shape", [(5,), (1, 5)])
def test_matmul_and_add_in_both_orders(tmp_path, order, shape):
    operands = ["p", "b"][:: -1 if order else 1]
    nodes = [N("MatMul", ["x", "w"], ["p"]), N("Add", operands, ["out"])]
    model = agree(tmp_path, nodes, {"w": W[6, 5], "b": W[shape]}, ("N", 6))
    assert kinds(model) == ["Dense"]
    assert model.output == "out"


def test_matmul_with_the_weights_on_the_left_and_constant_weights_transposed(tmp_path):
    nodes = [
        N("Transpose", ["w"], ["wt"], perm=[1, 0]), N("Unsqueeze", ["x", "axis"], ["column"]),
        N("MatMul", ["wt", "column"], ["p"]), N("Squeeze", ["p", "axis"], ["out"]),
    ]  # fmt: skip
    agree(tmp_path, nodes, {"w": W[6, 5], "axis": np.array([2])}, ("N", 6))


# -- relabeling ---------------------------------------------------------------------------------


def test_flatten_after_a_convolution_permutes_the_weights(tmp_path):
    nodes = [
        N("Conv", ["x", "w"], ["c"]),
        N("Flatten", ["c"], ["f"]),
        N("Gemm", ["f", "g"], ["out"]),
    ]
    model = agree(
        tmp_path, nodes, {"w": W[4, 3, 3, 3], "g": RNG.standard_normal((48, 7))}, ("N", 3, 5, 6)
    )
    assert model.shape == (5, 6, 3)
    assert model.input_axes == (1, 2, 0)


def test_view_with_the_batch_size_taken_from_the_shape(tmp_path):
    """``x.view(x.size(0), -1)`` as PyTorch exports it."""
    nodes = [
        N("Conv", ["x", "w"], ["c"]), N("Shape", ["c"], ["s"]),
        N("Constant", [], ["zero"], value=numpy_helper.from_array(np.array(0))),
        N("Gather", ["s", "zero"], ["n"], axis=0), N("Unsqueeze", ["n"], ["n1"], axes=[0]),
        N("Concat", ["n1", "rest"], ["target"], axis=0), N("Reshape", ["c", "target"], ["f"]),
        N("Gemm", ["f", "g"], ["out"]),
    ]  # fmt: skip
    constants = {"w": W[4, 3, 3, 3], "g": RNG.standard_normal((48, 7)), "rest": np.array([-1])}
    agree(tmp_path, nodes, constants, ("N", 3, 5, 6), opset=11)


@pytest.mark.parametrize("target", [[-1, 6], [0, 6], [0, -1], [1, 6]])
def test_reshape_keeps_the_frames(tmp_path, target):
    nodes = [N("Reshape", ["x", "t"], ["f"]), N("Gemm", ["f", "w"], ["out"])]
    agree(tmp_path, nodes, {"w": W[6, 5], "t": np.array(target)}, (1, 2, 3), frames=1)


def test_flat_input_reshaped_to_an_image(tmp_path):
    nodes = [N("Reshape", ["x", "t"], ["i"]), N("Conv", ["i", "w"], ["out"])]
    constants = {"t": np.array([-1, 1, 5, 6]), "w": RNG.standard_normal((2, 1, 3, 3))}
    assert agree(tmp_path, nodes, constants, ("N", 30)).shape == (5, 6, 1)


@pytest.mark.parametrize("shape", [("N", 90), ("N", 3, 30), ("N", 15, 1, 6)])
def test_flat_input_reshaped_to_an_image_of_channels(tmp_path, shape):
    """The model takes the image's shape, and data of the file's shape as before."""
    nodes = [
        N("Div", ["x", "k"], ["d"]), N("Reshape", ["d", "t"], ["i"]), N("Conv", ["i", "w"], ["c"]),
    ]  # fmt: skip
    constants = {"t": np.array([-1, 3, 5, 6]), "w": W[4, 3, 3, 3], "k": np.array(2.0)}
    plain = graph_model(nodes, constants, shape, output="c")
    model = load_model(save(tmp_path, plain))
    if shape[1:] != (3, 30):  # which has its channels apart as it is
        assert (model.input_shape, model.input_axes) == ((3, 5, 6), (1, 2, 0))
    x = np.random.default_rng(1).standard_normal((4, *shape[1:]))
    expected = channel_last(reference(plain, x)[0])
    for data in (x, x.reshape(4, -1), x.reshape(4, 3, 5, 6)):
        assert np.allclose(model.predict(data), expected, rtol=1e-10, atol=1e-10)


def test_flat_input_reshaped_to_a_line_of_channels(tmp_path):
    nodes = [N("Reshape", ["x", "t"], ["i"]), N("Conv", ["i", "w"], ["out"])]
    constants = {"t": np.array([0, 3, 30]), "w": RNG.standard_normal((2, 3, 5))}
    assert agree(tmp_path, nodes, constants, ("N", 90)).input_shape == (3, 30)


def test_reorder_of_a_flat_input_is_refused(tmp_path):
    nodes = [N("Reshape", ["x", "t"], ["i"]), N("Transpose", ["i"], ["j"], perm=[0, 1, 3, 2]),
             N("Conv", ["j", "w"], ["out"])]  # fmt: skip
    model = graph_model(nodes, {"t": np.array([-1, 3, 5, 6]), "w": W[4, 3, 3, 3]}, ("N", 90))
    with pytest.raises(InputError, match=r"node 'out' \(Conv\) must read activations whose order"):
        load_model(save(tmp_path, model))


def test_channel_last_input_through_a_transpose(tmp_path):
    nodes = [N("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), N("Conv", ["t", "w"], ["out"])]
    model = agree(tmp_path, nodes, {"w": W[4, 3, 3, 3]}, ("N", 5, 6, 3))
    assert model.input_axes == (0, 1, 2)


def test_transposes_that_undo_each_other_make_no_node(tmp_path):
    nodes = [
        N("Conv", ["x", "w"], ["c"]), N("Transpose", ["c"], ["a"], perm=[0, 2, 3, 1]),
        N("Relu", ["a"], ["r"]), N("Transpose", ["r"], ["b"], perm=[0, 3, 1, 2]),
        N("MaxPool", ["b"], ["out"], kernel_shape=[2, 2]),
    ]  # fmt: skip
    assert kinds(agree(tmp_path, nodes, {"w": W[4, 3, 3, 3]}, ("N", 3, 6, 6))) == [
        "Conv",
        "Relu",
        "MaxPool",
    ]


# -- windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("strides", [[1, 1], [2, 3]])
@pytest.mark.parametrize(
    ("kernel", "dilations"), [((3, 2), [1, 1]), ((2, 2), [2, 2]), ((1, 1), [1, 1])]
)
def test_convolution(tmp_path, auto_pad, strides, kernel, dilations):
    if auto_pad.startswith("SAME") and dilations != [1, 1]:
        pytest.skip("the reference implementation ignores dilations here")
    pads = {"pads": [2, 0, 1, 1]} if auto_pad == "NOTSET" else {}
    options = {"strides": strides, "dilations": dilations, "auto_pad": auto_pad}
    node = N("Conv", ["x", "w", "b"], ["out"], **options, **pads)
    constants = {"w": RNG.standard_normal((4, 3, *kernel)), "b": RNG.standard_normal(4)}
    agree(tmp_path, [node], constants, ("N", 3, 7, 8))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_and_depthwise_convolution(tmp_path, groups):
    node = N("Conv", ["x", "w"], ["out"], group=groups, pads=[1, 1, 1, 1])
    agree(tmp_path, [node], {"w": RNG.standard_normal((8, 4 // groups, 3, 3))}, ("N", 4, 5, 5))


def test_one_dimensional_network(tmp_path):
    nodes = [
        N("Conv", ["x", "w"], ["c"], pads=[2, 1], strides=[2]), N("Relu", ["c"], ["r"]),
        N("MaxPool", ["r"], ["p"], kernel_shape=[2], strides=[2]),
        N("AveragePool", ["p"], ["a"], kernel_shape=[2], strides=[1]),
        N("Flatten", ["a"], ["f"]), N("Gemm", ["f", "g"], ["out"]),
    ]  # fmt: skip
    constants = {"w": RNG.standard_normal((4, 3, 4)), "g": RNG.standard_normal((20, 6))}
    model = agree(tmp_path, nodes, constants, ("N", 3, 24))
    assert model.shape == (1, 24, 3)
    assert model.nodes[0].shape == (1, 12, 4)


@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0]])
@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool", "counted"])
def test_pooling(tmp_path, ceil, pads, kind):
    if kind == "counted" and ceil and any(pads):
        pytest.skip("refused: see below")
    more = {"count_include_pad": 1} if kind == "counted" else {}
    op = "AveragePool" if kind == "counted" else kind
    node = N(
        op, ["c"], ["out"], kernel_shape=[3, 2], strides=[2, 2], pads=pads, ceil_mode=ceil, **more
    )
    nodes = [N("Conv", ["x", "w"], ["c"]), node]
    agree(tmp_path, nodes, {"w": RNG.standard_normal((2, 3, 1, 1))}, ("N", 3, 8, 7), opset=19)


def test_average_pool_that_counts_padding_beyond_the_end_is_refused(tmp_path):
    node = N("AveragePool", ["x"], ["out"], kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1,
             pads=[1, 1, 1, 1], count_include_pad=1, name="pool")  # fmt: skip
    model = graph_model([node], {}, ("N", 3, 8, 7))
    with pytest.raises(InputError, match=r"node 'pool' \(AveragePool\) must have ceil_mode 0"):
        load_model(save(tmp_path, model))


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pooling_and_concat_of_branches(tmp_path, op):
    nodes = [
        N("Conv", ["x", "a"], ["ca"]), N("Conv", ["x", "b"], ["cb"]),
        N("Concat", ["ca", "cb", "x"], ["cc"], axis=1), N(op, ["cc"], ["p"]),
        N("Flatten", ["p"], ["f"]), N("Gemm", ["f", "g"], ["out"]),
    ]  # fmt: skip
    constants = {k: RNG.standard_normal(s) for k, s in
                 {"a": (4, 3, 1, 1), "b": (2, 3, 1, 1), "g": (9, 5)}.items()}  # fmt: skip
    model = agree(tmp_path, nodes, constants, ("N", 3, 5, 6))
    assert model.nodes[2].shape == (5, 6, 9)


@pytest.mark.parametrize("keep", [0, 1])
def test_mean_over_height_and_width_is_global_pooling(tmp_path, keep):
    nodes = [
        N("Conv", ["x", "w"], ["c"]),
        N("ReduceMean", ["c"], ["m"], axes=[2, 3], keepdims=keep),
    ]
    nodes += [N("Flatten", ["m"], ["f"]), N("Gemm", ["f", "g"], ["out"])]
    agree(tmp_path, nodes, {"w": W[4, 3, 3, 3], "g": RNG.standard_normal((4, 5))}, ("N", 3, 5, 6))


NHWC = [N("Conv", ["x", "w"], ["c"]), N("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1])]
BACK = N("Transpose", ["t2"], ["b"], perm=[0, 3, 1, 2])


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axes", [[1, 2], [-2, -3]])
def test_mean_over_height_and_width_of_channel_last_maps(tmp_path, keep, axes):
    nodes = [*NHWC, N("ReduceMean", ["t"], ["m"], axes=axes, keepdims=keep)]
    nodes += [N("Flatten", ["m"], ["f"]), N("Gemm", ["f", "g"], ["out"])]
    constants = {"w": W[4, 3, 3, 3], "g": RNG.standard_normal((4, 5))}
    agree(tmp_path, nodes, constants, ("N", 3, 5, 6))
    nodes[:2] = [N("Identity", ["x"], ["t"])]
    agree(tmp_path, nodes, constants, ("N", 5, 6, 4))


def test_pad_of_channel_last_maps(tmp_path):
    """Height and width are not mixed up, even where maps are one wide."""
    nodes = [*NHWC, N("Relu", ["t"], ["r"]), N("Pad", ["r", "pads"], ["t2"]), BACK,
             N("MaxPool", ["b"], ["out"], kernel_shape=[2, 2])]  # fmt: skip
    constants = {"w": W[4, 3, 3, 3], "pads": np.array([0, 1, 0, 0, 0, 0, 1, 0])}
    agree(tmp_path, nodes, constants, ("N", 3, 5, 6))
    start = [N("Pad", ["x", "pads"], ["t2"]), BACK, N("Conv", ["b", "w"], ["out"])]
    for shape in ((5, 6, 3), (2, 9, 3), (9, 2, 3)):
        agree(tmp_path, start, constants, ("N", *shape))
    thin = {"w": RNG.standard_normal((4, 1, 3, 2)), "pads": np.array([0, 1, 0, 0, 0, 1, 1, 0])}
    agree(tmp_path, start, thin, ("N", 1, 7, 1))


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ([*NHWC, N("ReduceMean", ["t"], ["m"], axes=[2, 3], keepdims=0)], "'m' (ReduceMean) must"),
        ([*NHWC, N("ReduceMean", ["t"], ["m"], axes=[2], keepdims=0)], "'m' (ReduceMean) must"),
        ([*NHWC, N("Pad", ["t", "channels"], ["t2"]), BACK, N("MaxPool", ["b"], ["m"],
          kernel_shape=[2, 2])], "'t2' (Pad) must pad height and width only"),
        ([*NHWC, N("Pad", ["t", "pads"], ["m"]), N("Gemm", ["m", "w"], ["out"])],
         "'m' (Pad) must stand before a convolution or pooling, not Flatten"),
        ([*NHWC, N("MaxPool", ["t"], ["m"], kernel_shape=[2, 2])], "'m' (MaxPool) must read act"),
        ([N("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), N("Conv", ["t", "v"], ["c"]),
          N("MaxPool", ["c"], ["a"], kernel_shape=[1, 1]), N("Transpose", ["a"], ["d"]),
          N("Transpose", ["d"], ["e"], perm=[3, 1, 2, 0]),
          N("AveragePool", ["e"], ["m"], kernel_shape=[2, 2])], "'m' (AveragePool) must read act"),
    ],
)  # fmt: skip
def test_refusal_names_the_node_at_fault(tmp_path, nodes, text):
    """Though several orders of the input are tried, and most fail before."""
    nodes = [*nodes[: [n.output[0] for n in nodes].index("m") + 1]]
    nodes += [N("Flatten", ["m"], ["f"]), N("Gemm", ["f", "g"], ["out"])]
    constants = {"w": W[4, 3, 3, 3], "g": np.ones((4, 5)), "v": RNG.standard_normal((4, 6, 3, 3)),
                 "pads": np.array([0, 1, 1, 0, 0, 0, 0, 0]),
                 "channels": np.array([0, 0, 0, 1, 0, 0, 0, 0])}  # fmt: skip
    model = graph_model(nodes, constants, ("N", 3, 5, 6))
    with pytest.raises(InputError) as info:
        load_model(save(tmp_path, model))
    assert text in str(info.value)


def test_pad_is_folded_into_what_follows(tmp_path):
    nodes = [
        N("Pad", ["x", "pads"], ["p"]), N("Conv", ["p", "w"], ["c"], pads=[0, 1, 1, 0]),
        N("Relu", ["c"], ["r"]), N("Pad", ["r", "more"], ["q"]),
        N("MaxPool", ["q"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        N("Pad", ["m", "more"], ["s"]), N("AveragePool", ["s"], ["out"], kernel_shape=[2, 2]),
    ]  # fmt: skip
    constants = {
        "pads": np.array([0, 0, 1, 2, 0, 0, 0, 1]),
        "more": np.array([0, 0, 1, 0, 0, 0, 0, 1]),
    }
    model = agree(tmp_path, nodes, constants | {"w": W[4, 3, 3, 3]}, ("N", 3, 6, 6))
    assert kinds(model) == ["Conv", "Relu", "MaxPool", "AveragePool"]


# -- folding ------------------------------------------------------------------------------------


def norm(name, x, out, channels):
    rng = np.random.default_rng(channels)
    constants = {f"{name}{i}": rng.uniform(0.5, 1.5, channels) for i in range(4)}
    return N("BatchNormalization", [x, *constants], [out], epsilon=0.01), constants


def test_batch_normalization_folds_before_and_after(tmp_path):
    first, c1 = norm("p", "x", "n", 3)
    second, c2 = norm("q", "c", "m", 4)
    nodes = [first, N("Conv", ["n", "w"], ["c"]), second, N("Relu", ["m"], ["out"])]
    model = agree(tmp_path, nodes, {**c1, **c2, "w": W[4, 3, 3, 3]}, ("N", 3, 5, 6))
    assert kinds(model) == ["Conv", "Relu"]


def test_offset_before_a_padded_convolution_stays(tmp_path):
    first, constants = norm("p", "x", "n", 3)
    nodes = [first, N("Conv", ["n", "w"], ["out"], pads=[1, 1, 1, 1])]
    model = agree(tmp_path, nodes, {**constants, "w": W[4, 3, 3, 3]}, ("N", 3, 5, 6))
    assert kinds(model) == ["Affine", "Conv"]


def test_normalization_after_relu_goes_past_the_pooling(tmp_path):
    bn, constants = norm("p", "r", "n", 4)
    nodes = [
        N("Conv", ["x", "w"], ["c"]), N("Relu", ["c"], ["r"]), bn,
        N("MaxPool", ["n"], ["m"], kernel_shape=[2, 2]), N("Conv", ["m", "v"], ["out"]),
    ]  # fmt: skip
    constants |= {"w": W[4, 3, 3, 3], "v": RNG.standard_normal((2, 4, 2, 2))}
    assert kinds(agree(tmp_path, nodes, constants, ("N", 3, 7, 7))) == [
        "Conv",
        "Relu",
        "MaxPool",
        "Conv",
    ]


def test_normalization_after_a_pooling_goes_into_the_convolution_before(tmp_path):
    bn, constants = norm("p", "m", "n", 4)
    nodes = [
        N("Conv", ["x", "w"], ["c"]), N("MaxPool", ["c"], ["m"], kernel_shape=[2, 2]),
        bn, N("Relu", ["n"], ["out"]),
    ]  # fmt: skip
    model = agree(tmp_path, nodes, constants | {"w": W[4, 3, 3, 3]}, ("N", 3, 7, 7))
    assert kinds(model) == ["Conv", "MaxPool", "Relu"]  # the last of a network keeps 16 bits


def test_offset_is_not_moved_past_counted_padding(tmp_path):
    bn, constants = norm("p", "r", "n", 4)
    pool = {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1}
    nodes = [
        N("Conv", ["x", "w"], ["c"]),
        N("Relu", ["c"], ["r"]),
        bn,
        N("AveragePool", ["n"], ["m"], **pool),
        N("Conv", ["m", "v"], ["out"]),
    ]
    constants |= {"w": W[4, 3, 3, 3], "v": RNG.standard_normal((2, 4, 2, 2))}
    assert "Affine" in kinds(agree(tmp_path, nodes, constants, ("N", 3, 7, 7)))


def test_pad_of_zeros_before_a_max_pooling_of_signed_values_is_refused(tmp_path):
    nodes = [
        N("Conv", ["x", "w"], ["c"]),
        N("Pad", ["c", "pads"], ["p"]),
        N("MaxPool", ["p"], ["out"], kernel_shape=[2, 2]),
    ]
    constants = {"w": W[4, 3, 3, 3], "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    model = graph_model(nodes, constants, ("N", 3, 7, 7))
    with pytest.raises(InputError, match=r"\(MaxPool\) must follow a Pad of zeros only after Relu"):
        load_model(save(tmp_path, model))


def test_negative_scale_is_not_moved_past_a_max_pooling(tmp_path):
    nodes = [
        N("Conv", ["x", "w"], ["c"]), N("Relu", ["c"], ["r"]), N("Mul", ["r", "s"], ["n"]),
        N("MaxPool", ["n"], ["m"], kernel_shape=[2, 2]), N("Conv", ["m", "v"], ["out"]),
    ]  # fmt: skip
    constants = {"w": W[4, 3, 3, 3], "v": RNG.standard_normal((2, 4, 2, 2)), "s": np.array(-1.5)}
    assert "Affine" in kinds(agree(tmp_path, nodes, constants, ("N", 3, 7, 7)))


@pytest.mark.parametrize("op", ["Sub", "Div", "Mul", "Add"])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("shape", [(), (1, 3, 1, 1), (3, 5, 6)])
def test_input_normalization_is_folded_into_the_first_layer(tmp_path, op, left, shape):
    if op == "Div" and left:
        return
    nodes = [
        N(op, ["k", "x"] if left else ["x", "k"], ["n"]), N("Flatten", ["n"], ["f"]),
        N("Gemm", ["f", "g"], ["out"]),
    ]  # fmt: skip
    constants = {"k": RNG.uniform(0.5, 2.0, shape), "g": RNG.standard_normal((90, 4))}
    assert kinds(agree(tmp_path, nodes, constants, ("N", 3, 5, 6))) == ["Dense"]


def test_constant_per_pixel_before_a_convolution_is_refused(tmp_path):
    nodes = [N("Sub", ["x", "k"], ["n"], name="mean"), N("Conv", ["n", "w"], ["out"])]
    model = graph_model(
        nodes, {"k": RNG.uniform(size=(3, 5, 6)), "w": W[4, 3, 3, 3]}, ("N", 3, 5, 6)
    )
    with pytest.raises(
        InputError, match=r"node 'mean' \(Sub\) must be by one constant per channel"
    ):
        load_model(save(tmp_path, model))


def test_residual_sum_and_shared_branches(tmp_path):
    nodes = [
        N("Conv", ["x", "a"], ["c"], pads=[1, 1, 1, 1]),
        N("BatchNormalization", ["c", *"pqrs"], ["n"]),
        N("Relu", ["n"], ["u"]),
        N("Conv", ["u", "b"], ["d"], pads=[1, 1, 1, 1]),
        N("Add", ["u", "d"], ["sum"]),
        N("Add", ["sum", "sum"], ["twice"]),
        N("Clip", ["twice", "lo", "hi"], ["out"]),
    ]
    constants = {
        "a": W[4, 3, 3, 3],
        "b": RNG.standard_normal((4, 4, 3, 3)),
        "lo": np.array(0.0),
        "hi": np.array(6.0),
    }
    constants |= {k: RNG.uniform(0.5, 1.5, 4) for k in "pqrs"}
    model = agree(tmp_path, nodes, constants, ("N", 3, 6, 6))
    assert kinds(model) == ["Conv", "Relu", "Conv", "Add", "Affine", "Clip"]


# -- what runtimes accept -----------------------------------------------------------------------

PARTS = [
    N("Conv", ["x", "w"], ["c"]), N("BatchNormalization", ["c", "p", "q", "u", "v"], ["n"]),
    N("Relu", ["n"], ["r"]), N("MaxPool", ["r"], ["m"], kernel_shape=[2, 2]),
    N("Dropout", ["m"], ["d"]), N("AveragePool", ["d"], ["a"], kernel_shape=[2, 1]),
    N("Flatten", ["a"], ["f"]), N("Gemm", ["f", "g", "h"], ["y"]), N("Mul", ["y", "k"], ["z"]),
    N("Softmax", ["z"], ["out"]),
]  # fmt: skip
CONSTANTS = {
    "w": W[4, 3, 3, 3], "g": RNG.standard_normal((12, 5)), "h": W[5,], "k": np.array(0.5),
    **{k: RNG.uniform(0.5, 1.5, 4) for k in "pquv"},
}  # fmt: skip


def parts(order=range(10), **options):
    return graph_model([PARTS[i] for i in order], CONSTANTS, ("N", 3, 5, 6), **options)


def same(tmp_path, model, ordered):
    """Compares a model with the same one in another form; the logits stand before the Softmax."""
    x = np.random.default_rng(1).standard_normal((3, 3, 5, 6))
    expected = reference(ordered, x, ["z"])[0]
    assert np.allclose(load_model(save(tmp_path, model)).predict(x), expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_nodes_in_any_order(tmp_path, seed):
    ordered = parts()
    shuffled = parts(np.random.default_rng(seed).permutation(10))
    same(tmp_path, shuffled, ordered)
    plain, other = load_model(save(tmp_path, ordered)), load_model(save(tmp_path, shuffled))
    assert [n.name for n in plain.nodes] == [n.name for n in other.nodes]


def test_operator_set_7(tmp_path):
    """What can be imported means there what it means later."""
    old = parts(opset=7)
    onnx.checker.check_model(old)
    same(tmp_path, old, parts())


@pytest.mark.parametrize("domains", [["", ""], ["", "ai.onnx"], ["ai.onnx"]])
def test_operator_set_named_twice(tmp_path, domains):
    ordered = parts()
    model = parts()
    del model.opset_import[:]
    for domain in [*domains, "com.example"]:
        model.opset_import.append(helper.make_opsetid(domain, 17))
    same(tmp_path, model, ordered)
    model.opset_import.append(helper.make_opsetid("", 16))
    with pytest.raises(InputError, match=r"must use one operator set of 7 to .*, not 17, 16"):
        load_model(save(tmp_path, model))


def test_output_without_a_shape_or_a_type(tmp_path):
    ordered = parts()
    model = parts()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    same(tmp_path, model, ordered)
    model.graph.output[0].ClearField("type")
    same(tmp_path, model, ordered)


def test_flatten_of_everything_at_a_batch_of_one(tmp_path):
    nodes = [N("Conv", ["x", "w"], ["c"]), N("Flatten", ["c"], ["f"], axis=0)]
    nodes.append(N("Gemm", ["f", "g"], ["out"]))
    constants = {"w": W[4, 3, 3, 3], "g": RNG.standard_normal((48, 5))}
    agree(tmp_path, nodes, constants, (1, 3, 5, 6), frames=1)
    nodes[1] = N("Flatten", ["c"], ["f"], axis=-4)
    agree(tmp_path, nodes, constants, (1, 3, 5, 6), frames=1)


# -- ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [9, 13])
@pytest.mark.parametrize(
    "end", [["Softmax"], ["LogSoftmax"], ["Softmax", "ArgMax"], ["Sigmoid"], ["ArgMax"]]
)
def test_final_operations_are_dropped(tmp_path, opset, end):
    nodes, last = [N("MatMul", ["x", "w"], ["y0"])], "y0"
    for i, op in enumerate(end):
        nodes.append(N(op, [last], [f"y{i + 1}"], **({"axis": 1} if op != "Sigmoid" else {})))
        last = f"y{i + 1}"
    nodes.append(N("Identity", [last], ["out"]))
    out = onnx.TensorProto.INT64 if "ArgMax" in end else onnx.TensorProto.DOUBLE
    model = graph_model(nodes, {"w": W[6, 5]}, ("N", 6), opset=opset, out_type=out)
    imported = load_model(save(tmp_path, model))
    assert imported.dropped == tuple(end)
    x = np.random.default_rng(0).standard_normal((4, 6))
    assert np.allclose(imported.predict(x), x @ W[6, 5], rtol=1e-12)


def test_operation_after_softmax_is_refused(tmp_path):
    nodes = [N("Gemm", ["x", "w"], ["y"]), N("Softmax", ["y"], ["s"]), N("Relu", ["s"], ["out"])]
    model = graph_model(nodes, {"w": W[6, 5]}, ("N", 6))
    with pytest.raises(InputError, match="must not follow Softmax"):
        load_model(save(tmp_path, model))


def test_unsupported_operation_is_refused_by_name_with_what_is_supported(tmp_path):
    nodes = [N("LSTM", ["x", "w", "w"], ["out"], name="cell", hidden_size=3)]
    model = graph_model(nodes, {"w": W[6, 5]}, ("N", 6))
    with pytest.raises(
        InputError, match=r"node 'cell' has the operation 'LSTM'.*supported are Abs, Add, "
    ):
        load_model(save(tmp_path, model))


def test_external_data_gives_the_same_model(tmp_path):
    model = graph_model([N("Gemm", ["x", "w", "c"], ["out"])], {"w": W[6, 5], "c": W[5,]}, ("N", 6))
    plain = load_model(save(tmp_path, model, "plain.onnx"))
    onnx.save(model, tmp_path / "two.onnx", save_as_external_data=True, size_threshold=0,
              location="two.onnx.data")  # fmt: skip
    two = load_model(tmp_path / "two.onnx")
    assert np.array_equal(two.nodes[0].weight, plain.nodes[0].weight)
    assert two.source_sha256 != plain.source_sha256


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weights_of_all_float_types(tmp_path, dtype):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = graph_model(
        [N("Gemm", ["x", "w"], ["out"])], {"w": W[6, 5]}, ("N", 6), dtype=dtype, out_type=kind
    )
    imported = load_model(save(tmp_path, model))
    assert np.array_equal(imported.nodes[0].weight, W[6, 5].T.astype(dtype).astype(np.float64))


# -- real networks ------------------------------------------------------------------------------

MODELS = ["digits_mlp_64_32_10", "hello_world_float", "mnist-8", "mnist_lenet5_relu",
          "mnist_mlp_784_64_32_10", "mnist_netA_mlp_784_512_512_10", "mnist_tinycnn_8_16_bn",
          "pretrainedResnet"]  # fmt: skip
data_needed = pytest.mark.skipif(not DATA.exists(), reason="the shared data set isn't here")


@data_needed
@pytest.mark.parametrize("name", MODELS)
def test_real_network_equals_the_reference_node_by_node(name):
    path = DATA / "models" / f"{name}.onnx"
    imported = load_model(path)
    original = onnx.load(path)
    x = np.random.default_rng(3).uniform(0, 1, (1, *imported.input_shape))
    names = [o for n in original.graph.node for o in n.output if n.op_type != "Softmax"]
    values = dict(zip(names, reference(as_double(original), x, names), strict=True))
    trace = imported.trace(x)
    by_safe_name = {safe_name(k): v for k, v in values.items()}
    for output, value in trace.items():
        expected = channel_last(by_safe_name[output])
        assert np.allclose(value.reshape(1, -1), expected, rtol=1e-9, atol=1e-9), output
    assert len(trace) == len(imported.nodes)


@data_needed
@pytest.mark.parametrize(
    ("name", "images", "scale", "correct"),
    [
        ("digits_mlp_64_32_10", "digits", 1, 483),
        ("mnist_mlp_784_64_32_10", "mnist", 255, 9759),
        ("mnist_netA_mlp_784_512_512_10", "mnist", 255, 9855),
        pytest.param("mnist_lenet5_relu", "mnist", 255, 9900, marks=pytest.mark.slow),
        pytest.param("mnist_tinycnn_8_16_bn", "mnist", 255, 9917, marks=pytest.mark.slow),
        pytest.param("mnist-8", "mnist", 1, 9891, marks=pytest.mark.slow),
        pytest.param("pretrainedResnet", "cifar", 1, 772, marks=pytest.mark.slow),
    ],
)
def test_real_network_has_its_accuracy(name, images, scale, correct):
    if images == "mnist":
        files = [DATA / "mnist" / f"t10k-{k}-ubyte.gz" for k in ("images-idx3", "labels-idx1")]
        data = make_data(files)
    elif images == "digits":
        data = make_data([DATA / "digits.npz"], keys=["x_test", "y_test"])
    else:
        data = make_data([DATA / "cifar10_jpeg.npz"])
    model = load_model(DATA / "models" / f"{name}.onnx")
    answers = model.predict(data.x, scale).argmax(axis=1)
    assert int((answers == data.y).sum()) == correct
