"""Model files that nobody vouches for: each gives one clear line, and nothing else happens."""

import io
import itertools
import pickle
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import graph_model, save

from pvq_hw.data.arrays import write_npz
from pvq_hw.errors import InputError
from pvq_hw.model.load import load_model
from pvq_hw.model.onnx import folding as fold
from pvq_hw.naming import Names, quoted, safe_name

N = helper.make_node
W = np.random.default_rng(0).standard_normal((6, 5))
GEMM = N("Gemm", ["x", "w"], ["out"], name="fc")


def refused(path, text, most=4_000_000):
    """Sees one line of InputError that contains ``text``, and little memory taken."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as info:
            load_model(path)
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
    message = str(info.value)
    assert text in message
    assert message.isprintable()
    assert len(message) < 1200  # with all operations that are supported
    return message


def refused_model(tmp_path, model, text):
    return refused(save(tmp_path, model), text)


def good():
    return graph_model([GEMM], {"w": W}, ("N", 6))


def test_the_model_that_the_tests_below_break_is_good(tmp_path):
    assert load_model(save(tmp_path, good())).nodes[0].weight.shape == (5, 6)


# -- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\x00", b"hello world\n", b"\x93NUMPY", bytes(1000)])
def test_file_that_is_no_model(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    refused(tmp_path / "m.onnx", "must be an ONNX or npz file")


def test_missing_file_and_folder(tmp_path):
    refused(tmp_path / "none.onnx", "can't be read: No such file")
    refused(tmp_path, "must be a model file, not a folder")


def test_truncated_file(tmp_path):
    content = good().SerializeToString()
    path = tmp_path / "m.onnx"
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(InputError) as info:
            load_model(path)
        assert str(info.value).isprintable()


@settings(max_examples=150, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(st.data())
def test_flipped_bytes_never_crash(tmp_path, data):
    content = bytearray(_branchy().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    _opens_or_refuses(tmp_path, bytes(content))


@settings(max_examples=60, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(st.binary(max_size=300))
def test_random_bytes_never_crash(tmp_path, content):
    _opens_or_refuses(tmp_path, content)
    _opens_or_refuses(tmp_path, b"PK\x03\x04" + content)


def _opens_or_refuses(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    try:
        load_model(path)
    except InputError as error:
        assert str(error).isprintable()  # noqa: PT017


def _branchy():
    nodes = [
        N("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], strides=[1, 1]), N("Relu", ["c"], ["r"]),
        N("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        N("Reshape", ["p", "t"], ["f"]), N("Gemm", ["f", "g"], ["out"]),
    ]  # fmt: skip
    constants = {"w": np.ones((2, 1, 3, 3)), "t": np.array([-1, 8]), "g": np.ones((8, 3))}
    return graph_model(nodes, constants, ("N", 1, 4, 4))


# -- tensors ------------------------------------------------------------------------------------


def tensor(dims, kind=TensorProto.DOUBLE, raw=b""):
    return TensorProto(name="w", dims=dims, data_type=kind, raw_data=raw)


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        (tensor([1 << 40, 1 << 10]), "claims"),
        (tensor([1 << 62, 1 << 62]), "claims"),
        (tensor([1000, 1000]), "must hold 8,000,000 bytes for its shape (1000, 1000), not 0"),
        (tensor([-6, 5], raw=bytes(240)), "none negative"),
        (tensor([6, 5], raw=bytes(239)), "must hold 240 bytes"),
        (tensor([6, 5], raw=bytes(241)), "must hold 240 bytes"),
        (tensor([1] * 40 + [6, 5], raw=bytes(240)), "at most 8 dimensions"),
        (tensor([6, 5], TensorProto.STRING), "not STRING"),
        (tensor([6, 5], TensorProto.COMPLEX64, bytes(240)), "not COMPLEX64"),
        (tensor([6, 5], TensorProto.UNDEFINED), "not UNDEFINED"),
        (tensor([6, 5], 99, bytes(240)), "not 99"),
        (tensor([6, 5], TensorProto.INT4, bytes(14)), "must hold 15 bytes for its shape (6, 5)"),
        (tensor([1 << 40, 5], TensorProto.UINT4), "claims"),
        (tensor([6, 5], TensorProto.UINT16, bytes(30)), "must hold 60 bytes"),
        (tensor([6, 5], TensorProto.INT8, bytes(30)), "floating-point weights, not int64"),
        (tensor([6, 0]), "not be empty, not the shape (6, 0)"),
        (tensor([0, 5]), "not be empty"),
        (tensor([], raw=bytes(8)), "have 2 dimensions and not be empty, not the shape ()"),
        (tensor([30], raw=bytes(240)), "have 2 dimensions"),
        (tensor([7, 5], raw=bytes(280)), "must have weights for 6 activations, not 7"),
    ],
)
def test_broken_weights(tmp_path, weight, text):
    refused_model(tmp_path, graph_model([GEMM], {"w": weight}, ("N", 6)), text)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weights_that_are_no_numbers(tmp_path, value, dtype):
    weight = W.copy()
    weight[2, 3] = value
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = graph_model([GEMM], {"w": weight}, ("N", 6), dtype=dtype, out_type=kind)
    refused_model(tmp_path, model, "finite")


def test_nan_that_signals_is_refused_without_a_warning(tmp_path):
    weight = W.astype(np.float32)
    weight.view(np.uint32)[2, 3] = 0x7FA00001
    refused_model(tmp_path, graph_model([GEMM], {"w": weight}, ("N", 6), dtype=np.float32), "NaN")


def test_weights_that_overflow_when_folded(tmp_path):
    nodes = [N("MatMul", ["x", "w"], ["y"], name="fc"), N("Mul", ["y", "k"], ["out"])]
    model = graph_model(nodes, {"w": W * 1e300, "k": np.array(1e300)}, ("N", 6))
    refused_model(tmp_path, model, "must have finite weights after folding")
    model = graph_model([GEMM], {"w": W * 1e101}, ("N", 6))
    refused_model(tmp_path, model, "'fc' (Gemm) must have weights of at most 1e+100 after folding")


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr("pvq_hw.model.onnx.lowering.WEIGHTS_LIMIT", 1 << 20)


def test_constants_that_grow(tmp_path, small_limit):
    names = ["w"] + [f"w{i}" for i in range(40)]
    nodes = [N("Concat", [a, a], [b], axis=1) for a, b in itertools.pairwise(names)]
    nodes.append(N("MatMul", ["x", names[-1]], ["out"]))
    model = graph_model(nodes, {"w": np.ones((6, 4096))}, ("N", 6))
    refused(save(tmp_path, model), "must keep the weights below", most=30_000_000)


def test_one_weight_used_by_many_nodes(tmp_path, small_limit):
    nodes = [N("MatMul", ["x" if i == 0 else f"y{i - 1}", "w"], [f"y{i}"]) for i in range(1000)]
    nodes.append(N("Identity", ["y999"], ["out"]))
    model = graph_model(nodes, {"w": np.zeros((64, 64), np.float32)}, ("N", 64), dtype=np.float32)
    refused(save(tmp_path, model), "must keep the weights below", most=30_000_000)


# -- external data ------------------------------------------------------------------------------


def external(location, offset=0, length=240, **more):
    weight = TensorProto(name="w", dims=[6, 5], data_type=TensorProto.DOUBLE)
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": offset, "length": length, **more}.items():
        weight.external_data.add(key=key, value=str(value))
    return graph_model([GEMM], {"w": weight}, ("N", 6))


@pytest.fixture
def weights_file(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "w.bin").write_bytes(W.tobytes() + bytes(16))
    (tmp_path / "secret.bin").write_bytes(bytes(4096))
    return tmp_path / "model"


def test_external_data_in_the_folder_is_read(weights_file):
    assert np.array_equal(load_model(save(weights_file, external("w.bin"))).nodes[0].weight, W.T)


@pytest.mark.parametrize(
    "location",
    ["../secret.bin", "/etc/passwd", "", ".", "sub/../../secret.bin", "..", "C:/w.bin",
     "..\\secret.bin", "w.bin\0", "~/../../x"],
)  # fmt: skip
def test_external_data_outside_the_folder(weights_file, location):
    refused(save(weights_file, external(location)), "must be in the model's folder")


def test_external_data_by_an_absolute_path_into_the_folder(weights_file):
    path = save(weights_file, external(str(weights_file / "w.bin")))
    refused(path, "must be in the model's folder")


@pytest.mark.parametrize(
    ("offset", "length", "text"),
    [
        (17, 240, "must lie within 'w.bin' (256 bytes), not at 17 to 257"),
        (1 << 62, 240, "must lie within"),
        (-8, 240, "must be 240 bytes"),
        (0, 241, "must be 240 bytes, not 241"),
        (0, 1 << 50, "must be 240 bytes"),
        ("1e3", 240, "numbers"),
        (0, "many", "numbers"),
    ],
)
def test_external_data_beyond_its_file(weights_file, offset, length, text):
    refused(save(weights_file, external("w.bin", offset, length)), text)


def test_external_data_that_claims_terabytes(weights_file):
    model = external("w.bin")
    model.graph.initializer[0].dims[0] = 1 << 40
    refused(save(weights_file, model), "claims")


def test_external_data_by_symbolic_links(weights_file):
    (weights_file / "link.bin").symlink_to(weights_file / "w.bin")
    (weights_file / "folder").symlink_to(weights_file)
    for location in ("link.bin", "folder/w.bin"):
        refused(save(weights_file, external(location)), "must not be a symbolic link")


def test_external_data_that_is_missing_or_no_file(weights_file):
    (weights_file / "sub").mkdir()
    refused(save(weights_file, external("none.bin")), "No such file")
    refused(save(weights_file, external("sub")), "must be in a regular file")


# -- graphs -------------------------------------------------------------------------------------


def test_cycle(tmp_path):
    nodes = [N("Gemm", ["x", "w"], ["a"]), N("Add", ["a", "c"], ["b"]), N("Relu", ["b"], ["c"])]
    nodes.append(N("Identity", ["c"], ["out"]))
    refused_model(tmp_path, graph_model(nodes, {"w": W}, ("N", 6)), "the graph has a cycle")


def test_input_that_nothing_gives(tmp_path):
    model = graph_model([N("Gemm", ["x", "v"], ["out"])], {"w": W}, ("N", 6))
    refused_model(tmp_path, model, "reads 'v', which nothing gives")


@pytest.mark.parametrize("nodes", [
    [N("Gemm", ["x", "w"], ["out"]), N("Relu", ["x"], ["out"])],
    [N("Gemm", ["x", "w"], ["w"]), N("Relu", ["w"], ["out"])],
    [N("Relu", ["x"], ["x"]), N("Gemm", ["x", "w"], ["out"])],
])  # fmt: skip
def test_tensor_given_twice(tmp_path, nodes):
    refused_model(tmp_path, graph_model(nodes, {"w": W}, ("N", 6)), "must be given once, not twice")


def test_initializer_given_twice(tmp_path):
    model = good()
    model.graph.initializer.append(model.graph.initializer[0])
    refused_model(tmp_path, model, "tensor 'w' must be given once")


def test_nodes_of_one_name_get_different_ones(tmp_path):
    nodes = [N("Relu", ["x"], ["a"], name="n"), N("Gemm", ["a", "w"], ["b"], name="n"),
             N("Relu", ["b"], ["out"], name="N")]  # fmt: skip
    model = load_model(save(tmp_path, graph_model(nodes, {"w": W}, ("N", 6))))
    assert [n.name for n in model.nodes] == ["n", "n_2", "N_3"]


EVIL = "\"a'\n\r../../<script>alert(1)</script>\x1b[31m\u202e" + "z" * 500


def test_names_are_made_safe(tmp_path):
    nodes = [
        N("Gemm", ["x", EVIL + "w"], [EVIL], name=EVIL),
        N("Relu", [EVIL], ["out"], name="../.."),
    ]
    model = load_model(save(tmp_path, graph_model(nodes, {EVIL + "w": W}, ("N", 6))))
    for text in (n for node in model.nodes for n in (node.name, node.output, *node.inputs)):
        assert text == safe_name(text)


def test_names_in_messages_are_made_safe(tmp_path):
    model = graph_model([N("Evil" + EVIL, ["x"], ["out"], name=EVIL)], {"w": W}, ("N", 6))
    assert "\\n" in refused_model(tmp_path, model, "isn't supported")


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.text(max_size=100), st.text(max_size=100))
def test_safe_names_are_safe_and_unique(a, b):
    used = Names()
    names = [safe_name(a, used), safe_name(b, used), safe_name(a, used)]
    for name in names:
        assert 1 <= len(name) <= 48
        assert name.isascii()
        assert name.replace("_", "a").replace("-", "a").replace(".", "a").isalnum()
        assert name[0].isalnum()
    assert len({name.lower() for name in names}) == 3
    assert quoted(a).isprintable()
    assert len(quoted(a)) <= 60


def test_more_than_one_input_or_output(tmp_path):
    model = good()
    model.graph.input.append(helper.make_tensor_value_info("x2", TensorProto.DOUBLE, ["N", 6]))
    refused_model(tmp_path, model, "must use its input 'x2' or lack it")
    for k in range(16):
        model.graph.input.append(helper.make_tensor_value_info(f"i{k}", TensorProto.DOUBLE, None))
    refused_model(tmp_path, model, "must have 1 to 16 inputs, not 18: 'x', 'x2', 'i0', ")
    model = good()
    model.graph.output.append(helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["N", 6]))
    refused_model(tmp_path, model, "output 'x' must be computed from the input")
    model = good()
    del model.graph.output[:]
    refused_model(tmp_path, model, "must have 1 to 32 outputs, not 0")


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (("N", "L"), "must have a fixed size of 1 or more on axis 1, not 'L'"),
        (("N", None), "must have a fixed size"),
        (("N", 0), "must have a fixed size of 1 or more on axis 1, not 0"),
        ((0, 6), "axis 0, not 0"),
        (("N", -6), "not -6"),
        ((), "not 0"),
        ((6,), "must have frames first and 1 to 7 more axes, not 1"),
        (("N", 1 << 40), "must have at most"),
        (("N", *[1] * 20, 6), "not 22"),
    ],
)
def test_input_shapes(tmp_path, shape, text):
    refused_model(tmp_path, graph_model([GEMM], {"w": W}, shape), text)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"pads": [1 << 40] * 4}, "pads of 0 or more"),
        ({"pads": [1 << 30] * 4}, "maps of at most"),
        ({"pads": [30000] * 4}, "activations below"),
        ({"pads": [-1] * 4}, "pads of 0 or more"),
        ({"pads": [1]}, "must have 4 pads"),
        ({"strides": [0, 1]}, "strides of 1 or more"),
        ({"strides": [-1, 1]}, "strides of 1 or more"),
        ({"dilations": [0, 1]}, "dilations of 1 or more"),
        ({"dilations": [1 << 30, 1]}, "maps of at most"),
        ({"dilations": [9, 9]}, "kernel within its padded input"),
        ({"group": 0}, "0 groups"),
        ({"group": 3}, "3 groups"),
        ({"kernel_shape": [2, 2]}, "kernel_shape of its weights"),
        ({"auto_pad": "SOME"}, "auto_pad"),
    ],
)
def test_convolutions_that_make_no_sense(tmp_path, more, text):
    node = N("Conv", ["x", "w"], ["out"], name="c", **more)
    model = graph_model([node], {"w": np.ones((2, 2, 3, 3))}, ("N", 2, 8, 8))
    refused_model(tmp_path, model, text)


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (N("Reshape", ["x", "t"], ["y"]), "must keep the frames apart"),
        (N("Transpose", ["x"], ["y"], perm=[0, 0]), "must have a permutation"),
        (N("Transpose", ["x"], ["y"], perm=[0, 5]), "must have a permutation"),
        (N("Flatten", ["x"], ["y"], axis=0), "must keep the frames apart"),
        (N("Flatten", ["x"], ["y"], axis=9), "must have an axis of the input"),
        (N("Squeeze", ["x", "zero"], ["y"]), "must keep the axis of the frames"),
        (N("Squeeze", ["x", "one"], ["y"]), "must squeeze axes of length 1"),
        (N("Unsqueeze", ["x", "far"], ["y"]), "must have axes of"),
        (N("Clip", ["x", "hi", "lo"], ["y"]), "must have a min below its max"),
        (N("Div", ["x", "lo"], ["y"]), "must not divide by 0"),
        (N("Add", ["x", "big"], ["y"]), "must have a constant that broadcasts"),
        (N("Dropout", ["x", "lo", "yes"], ["y"]), "training_mode 0"),
        (N("Cast", ["x"], ["y"], to=TensorProto.INT8), "must give floating point"),
        (N("Softmax", ["x"], ["y"], axis=0), "must be over all of a frame's outputs"),
        (N("MaxPool", ["x"], ["y"], kernel_shape=[2]), "must read (N, C, L) or (N, C, H, W)"),
        (N("Pad", ["x", "pads"], ["y"], mode="reflect"), "must have the mode constant"),
        (N("Concat", ["x", "x"], ["y"], axis=0), "must join branches along their channels"),
    ],
)
def test_operations_that_cannot_be_kept(tmp_path, node, text):
    constants = {"t": np.array([2, 3]), "lo": np.array(0.0), "hi": np.array(1.0), "w": W,
                 "zero": np.array([0]), "one": np.array([1]), "far": np.array([7]),
                 "big": np.ones((4, 6)), "yes": np.array(True),
                 "pads": np.array([0, 1, 0, 1])}  # fmt: skip
    nodes = [node, N("MatMul", ["y", "w"], ["out"])]
    message = refused_model(tmp_path, graph_model(nodes, constants, ("N", 6)), text)
    assert f"node 'y' ({node.op_type})" in message


@pytest.mark.parametrize("opset", [1, 6, 999, -1])
def test_operator_sets(tmp_path, opset):
    refused_model(tmp_path, graph_model([GEMM], {"w": W}, ("N", 6), opset=opset), "operator set")


def test_other_domains_functions_and_subgraphs(tmp_path):
    node = N("Gemm", ["x", "w"], ["out"], domain="com.example")
    refused_model(tmp_path, graph_model([node], {"w": W}, ("N", 6)), "of 'com.example'")
    loop = N("Loop", ["x", "w"], ["out"], body=good().graph)
    refused_model(tmp_path, graph_model([loop], {"w": W}, ("N", 6)), "'Loop'")


def test_attributes_that_the_format_lacks(tmp_path):
    model = graph_model([N("Gemm", ["x", "w"], ["out"], wings=2)], {"w": W}, ("N", 6))
    refused_model(tmp_path, model, "must be a valid ONNX model")


def test_network_without_weights(tmp_path):
    refused_model(
        tmp_path, graph_model([N("Relu", ["x"], ["out"])], {}, ("N", 6)), "must have a Gemm"
    )
    for kind in ("Identity", "Softmax"):
        model = graph_model([N(kind, ["x"], ["out"])], {}, ("N", 6))
        refused_model(tmp_path, model, "must have a Gemm, MatMul or Conv on the way to its output")
    value = numpy_helper.from_array(np.ones(3))
    model = graph_model([N("Constant", [], ["out"], value=value)], {}, ("N", 6))
    refused_model(tmp_path, model, "must be computed from the input")


def test_too_many_nodes(tmp_path):
    nodes = [N("Relu", ["x" if i == 0 else f"y{i - 1}"], [f"y{i}"]) for i in range(2001)]
    model = graph_model(nodes, {}, ("N", 6), output="y2000")
    refused(save(tmp_path, model), "at most 2000 nodes", most=30_000_000)


# -- time and memory ----------------------------------------------------------------------------


def test_reordered_activations_are_charged(tmp_path, monkeypatch):
    monkeypatch.setattr("pvq_hw.model.onnx.lowering.VIEWS_LIMIT", 1 << 20)
    nodes, last = [], "x"
    for i in range(300):
        nodes.append(N("Transpose", [last], [f"t{i}"], perm=[0, 2, 1]))
        nodes.append(N("Reshape", [f"t{i}", "shape"], [f"r{i}"]))
        last = f"r{i}"
    nodes += [N("Flatten", [last], ["f"]), N("Gemm", ["f", "w"], ["out"])]
    constants = {"shape": np.array([-1, 256, 256]), "w": np.ones((1, 1))}
    path = save(tmp_path, graph_model(nodes, constants, ("N", 256, 256)))
    refused(path, "must keep activations that are reordered below 1,048,576", most=20_000_000)


def test_failed_orders_of_the_input_are_not_kept(tmp_path):
    nodes = [N("Reshape", ["x", "s"], ["r"]), N("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3])]
    nodes.append(N("Conv", ["t", "w"], ["out"]))
    constants = {"s": np.array([-1, 64, 32, 64]), "w": np.ones((1, 32, 3, 3))}
    path = save(tmp_path, graph_model(nodes, constants, ("N", 64, 64, 32)))
    # Each of seven tries holds the positions of 131,072 activations two or three times.
    refused(path, "node 'out' (Conv) must read activations whose order", most=6_500_000)


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_tensors_are_charged_by_what_they_take_here(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("pvq_hw.model.onnx.file.VALUES_LIMIT", 29)
    raw = bytes(30 * np.dtype(helper.tensor_dtype_to_np_dtype(kind)).itemsize)
    model = graph_model([GEMM], {"w": tensor([6, 5], kind, raw)}, ("N", 6))
    refused_model(tmp_path, model, "tensor 'w' claims 30 values; at most 29 are read")


def test_what_nothing_reads_is_not_read(tmp_path):
    """Tensors of whatever type, size or place, and nodes that no output needs."""
    model = good()
    sparse = tensor([1 << 40], TensorProto.INT8)
    sparse.data_location, sparse.name = TensorProto.EXTERNAL, "sparse"
    sparse.external_data.add(key="location", value="../none.bin")
    text = TensorProto(name="labels", dims=[2], data_type=TensorProto.STRING)
    text.string_data.extend([b"a", b"\xff"])
    model.graph.initializer.extend([sparse, text])
    model.graph.node.insert(0, N("LSTM", ["x", "sparse"], ["dead"], domain="com.example"))
    model.graph.node.append(N("ReLU", ["dead", "nobody gives this"], ["dead too"]))
    model.graph.node.append(N("Relu", ["nobody"], []))
    model.graph.value_info.add(name="dead")
    path = save(tmp_path, model)
    assert np.array_equal(load_model(path).nodes[0].weight, W.T)
    model.graph.node[1].input[1] = "sparse"
    refused_model(tmp_path, model, "tensor 'sparse' claims")


def time_of_many_names(tmp_path, count):
    model = good()
    names = [f"i{i}" for i in range(count)]
    for name in names:
        model.graph.initializer.append(TensorProto(name=name, data_type=1, dims=[0]))
        model.graph.input.append(helper.make_tensor_value_info(name, 1, [0]))
    model.graph.node[0].output.extend(f"o{i}" for i in range(count))
    model.graph.node.extend(N("Relu", [f"i{i}"], [f"r{i}"]) for i in range(1900))
    path = save(tmp_path, model)
    before = time.process_time()
    with pytest.raises(InputError, match="must be a valid ONNX model"):  # a Gemm has one output
        load_model(path)
    return time.process_time() - before


def test_many_inputs_and_outputs_take_little_time(tmp_path):
    few, many = (
        min(time_of_many_names(tmp_path, count) for _ in range(3)) for count in (2_500, 20_000)
    )
    assert many < 24 * few  # 64 times, if every name were looked for among all


@pytest.mark.parametrize("every", [1, 2])
def test_constants_are_folded_in_one_pass(tmp_path, monkeypatch, every):
    """And into each other before they go into weights."""
    passes, weighted = [], []
    one, into = fold.fold_one, fold.into_maker
    monkeypatch.setattr(fold, "fold_one", lambda *args: passes.append(1) or one(*args))
    monkeypatch.setattr(
        fold, "into_maker", lambda a, b: weighted.append(b.op != "Affine") or into(a, b)
    )
    nodes, last = [N("MatMul", ["x", "w"], ["g"])], "g"
    for i in range(1990):
        kind = ("Mul", "k") if i % every == 0 else ("MatMul", "q")
        nodes.append(N(kind[0], [last, kind[1]], [f"v{i}"]))
        last = f"v{i}"
    nodes.append(N("Identity", [last], ["out"]))
    constants = {"w": np.ones((6, 100)), "q": np.eye(100), "k": np.array(1.001)}
    path = save(tmp_path, graph_model(nodes, constants, ("N", 6)))
    model = load_model(path)
    assert len(passes) == 1
    assert sum(weighted) == (1 if every == 1 else 995)
    assert len(model.nodes) == (1 if every == 1 else 996)
    got = model.predict(np.ones((1, 6)))
    assert np.allclose(got, 6 * 1.001 ** (1990 / every))


def test_folding_is_charged(tmp_path, small_limit):
    nodes = [N("MatMul", ["x", "w"], ["g"]), N("Mul", ["g", "k"], ["h"]), N("Relu", ["h"], ["r"]),
             N("MatMul", ["r", "v"], ["y"]), N("Mul", ["y", "k"], ["out"])]  # fmt: skip
    for columns in (50, 100):  # 600 * 800 + 800 * 100 weights, twice, are more than 2**20
        constants = {"w": np.ones((600, 800)), "v": np.ones((800, columns)), "k": np.array(0.5)}
        path = save(tmp_path, graph_model(nodes, constants, ("N", 600)))
        if columns == 50:
            assert [n.op for n in load_model(path).nodes] == ["Dense", "Relu", "Dense"]
        else:
            refused(path, "node 'out' (Mul) must keep the weights below", most=40_000_000)


def test_long_lists_in_attributes(tmp_path):
    node = N("Conv", ["x", "w"], ["out"], name="c", pads=[0] * ((1 << 20) + 1))
    model = graph_model([node], {"w": np.ones((2, 2, 3, 3))}, ("N", 2, 8, 8))
    refused(save(tmp_path, model), "must have at most 1,048,576 numbers an attribute")


# -- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["w.bin", "offset", "key", "fc", "Gemm", "out", "alpha"])
def test_text_that_is_not_utf8(weights_file, text):
    model = external("w.bin", key="value")
    model.graph.node[0].attribute.append(helper.make_attribute("alpha", 1.0))
    content = model.SerializeToString()
    assert text.encode() in content
    (weights_file / "m.onnx").write_bytes(content.replace(text.encode(), b"\xff" * len(text)))
    refused(weights_file / "m.onnx", "must have names and texts in UTF-8")


# -- npz ----------------------------------------------------------------------------------------


def npz(tmp_path, members, compression=zipfile.ZIP_STORED):
    path = tmp_path / "m.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def npy(array):
    body = io.BytesIO()
    np.save(body, array)
    return body.getvalue()


def header(text, body=b"", version=1):
    packed = text.encode()
    size = struct.pack("<H" if version == 1 else "<I", len(packed))
    return b"\x93NUMPY" + bytes([version, 0]) + size + packed + body


def test_good_npz(tmp_path):
    path = tmp_path / "m.npz"
    second = np.arange(10.0).reshape(2, 5)
    write_npz(path, {"0.weight": W.T, "0.bias": np.ones(5), "2.weight": second.astype("f4")})
    model = load_model(path)
    assert [n.op for n in model.nodes] == ["Dense", "Relu", "Dense"]
    x = np.random.default_rng(2).standard_normal((3, 6))
    assert np.allclose(model.predict(x), np.maximum(x @ W + 1, 0) @ second.T)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({}, "must hold weights"),
        ({"fc.weight": W}, "must be <number>.weight or .bias"),
        ({"0.weight": W, "extra": W}, "array 'extra' must be"),
        ({"00.weight": W}, "must be <number>"),
        ({"0.bias": np.ones(5)}, "must hold '0.weight'"),
        ({"0.weight": np.ones((2, 1, 3, 3))}, "must have the shape (outputs, inputs)"),
        ({"0.weight": np.ones(4)}, "must have the shape (outputs, inputs)"),
        ({"0.weight": np.array(1.0)}, "must have the shape (outputs, inputs)"),
        ({"0.weight": np.ones((0, 4))}, "must have the shape (outputs, inputs)"),
        (
            {"0.weight": W, "1.weight": np.ones((6, 3))},
            "must have 6 columns, not 3; it looks trans",
        ),
        ({"0.weight": W, "1.weight": np.ones((2, 3))}, "must have 6 columns, not 3"),
        ({"0.weight": W, "0.bias": np.ones(5)}, "must have the shape (6,), not (5,)"),
        ({"0.weight": np.ones((2, 2), int)}, "must be floating point"),
        ({"0.weight": W + np.nan}, "must be finite"),
        ({"0.weight": W * np.inf}, "must be finite"),
        ({"0.weight": W * 1e101}, "'0.weight' must be at most 1e+100 in magnitude"),
        ({"0.weight": W.astype(complex)}, "must hold real numbers"),
        ({"0.weight": np.array([["a"]])}, "must hold real numbers"),
        ({'a"\n<b>../': W}, "must be <number>"),
    ],
)
def test_npz_that_is_ambiguous_or_broken(tmp_path, arrays, text):
    refused(npz(tmp_path, [(f"{k}.npy", npy(v)) for k, v in arrays.items()]), text)


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self):
        return (open, ("pickle-was-run", "w"))


def test_pickles_are_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objects = np.array([Bomb()], dtype=object)
    body = io.BytesIO()
    np.lib.format.write_array(body, objects, allow_pickle=True)
    refused(npz(tmp_path, [("0.weight.npy", body.getvalue())]), "not pickled Python objects")
    refused(npz(tmp_path, [("0.weight.npy", pickle.dumps(Bomb()))]), "must be a NumPy array")
    (tmp_path / "p.npz").write_bytes(pickle.dumps(Bomb()))
    refused(tmp_path / "p.npz", "must be an ONNX or npz file")
    assert not (tmp_path / "pickle-was-run").exists()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 9)}"), "claims"),
        (
            header("{'descr': '<f8', 'fortran_order': False, 'shape': (9, 9)}"),
            "must hold 648 bytes",
        ),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 9)}"), "integers >= 0"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (True, 9)}"), "integers >= 0"),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", bytes(8)), "pickled"),
        (
            header("{'descr': '|V8', 'fortran_order': False, 'shape': (1,)}", bytes(8)),
            "real numbers",
        ),
        (header("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,)}"), "broken npy"),
        (header("{'descr': 'wat', 'fortran_order': False, 'shape': (1,)}"), "broken npy"),
        (header("{'descr': '<f8'}"), "broken npy"),
        (header("__import__('os').system('true')"), "broken npy"),
        (header("(" * 5000), "broken npy"),
        (header("x" * 20000), "header of at most"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "header of at most"),
        (b"\x93NUMPY\x07\x00", "must be a NumPy array"),
        (b"\x93NUM", "cut off"),
        (b"", "cut off"),
    ],
)
def test_broken_arrays(tmp_path, content, text):
    refused(npz(tmp_path, [("0.weight.npy", content)]), text)


def test_zip_bombs(tmp_path):
    zeros = header(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3000, 1000)}", bytes(24_000_000)
    )
    path = npz(tmp_path, [("0.weight.npy", zeros)], zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    struct.pack_into("<I", content, entry + 24, 0xFFFFFFF0)  # claims 4 GiB
    path.write_bytes(content)
    refused(path, "claims 4,294,967,280 bytes")
    struct.pack_into("<I", content, entry + 24, 100_000_000)
    path.write_bytes(content)
    refused(path, "claims more bytes than its compressed data can hold")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_npz_compressed_as_numpy_never_does(tmp_path, method):
    refused(npz(tmp_path, [("0.weight.npy", npy(W))], method), "must be stored or deflated")


def test_npz_is_charged_by_what_it_takes_here(tmp_path, monkeypatch):
    """Half a megabyte of zeros that become 2 GB."""
    monkeypatch.setattr("pvq_hw.model.npz.BYTES_LIMIT", 8_000_000)
    shape = "{'descr': '<f2', 'fortran_order': False, 'shape': (1001, 1000)}"
    members = [("0.weight.npy", header(shape, bytes(2_002_000)))]
    path = npz(tmp_path, members, zipfile.ZIP_DEFLATED)
    refused(path, "claims 8,008,000 bytes of memory; at most 8,000,000 are read", most=2_000_000)


def test_member_that_lies_beyond_all_files(tmp_path):
    path = npz(tmp_path, [("0.weight.npy", npy(W))])
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    struct.pack_into("<I", content, entry + 42, 0xFFFFFFFF)
    extra = struct.pack("<HHQ", 1, 8, (1 << 64) - 1)
    struct.pack_into("<H", content, entry + 30, len(extra))
    struct.pack_into("<I", content, end + 12, end - entry + len(extra))
    content[end:end] = extra
    path.write_bytes(content)
    refused(path, "must be an npz file")


# -- files of others ----------------------------------------------------------------------------


def test_files_of_other_formats_are_named(tmp_path):
    torch_zip = npz(tmp_path, [("net/data.pkl", b"x"), ("net/version", b"3\n")])
    refused(torch_zip, "is a PyTorch file; export it with torch.onnx.export")
    refused(npz(tmp_path, [("config.json", b"{}"), ("model.weights.h5", b"x")]), "is a Keras file")
    refused(npz(tmp_path, [("a.txt", b"x")]), "array 'a.txt'")
    for content, text in [
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "is a PyTorch file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(9), "is an HDF5 file"),
        (b"\x1c\0\0\0TFL3" + bytes(9), "must be a whole TensorFlow Lite file"),
    ]:
        (tmp_path / "m").write_bytes(content)
        refused(tmp_path / "m", text)


# -- cut and broken npz -------------------------------------------------------------------------


def test_duplicate_encrypted_and_truncated_members(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = npz(tmp_path, [("0.weight.npy", npy(W)), ("0.weight.npy", npy(W))])
    refused(path, "is there twice")
    path = npz(tmp_path, [("0.weight.npy", npy(W))])
    content = bytearray(path.read_bytes())
    for cut in range(4, len(content), 40):
        path.write_bytes(content[:cut])
        refused(path, "m.npz")
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    refused(path, "encrypted")


def test_one_flipped_byte_of_an_npz_is_found(tmp_path):
    path = npz(tmp_path, [("0.weight.npy", npy(W))])
    content = bytearray(path.read_bytes())
    content[content.index(W.tobytes()) + 3] ^= 4
    path.write_bytes(content)
    refused(path, "CRC")
