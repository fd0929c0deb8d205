"""Quantized ONNX files: their own scales and zero points, from the file to simulated RTL."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from cli_tools import run
from onnx import TensorProto
from onnx_graphs import save
from onnxruntime.quantization import QuantType
from quantized_onnx import Qdq, asymmetric, quantized_by_runtime

from pvq_hw.arith.formats import IntFormat
from pvq_hw.data.dataset import Data
from pvq_hw.errors import CheckError, InputError
from pvq_hw.evaluate.agreement import agreement
from pvq_hw.model.export import save_model
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Dense, Quantize
from pvq_hw.model.own_graph import check_own_graph
from pvq_hw.network.network import Network
from pvq_hw.output.verify_model import check_numbers
from pvq_hw.plan.core_layers import core_layers
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import Plan, plan
from pvq_hw.quantizer.quantize import LayerOptions, quantize
from sim.result import compare
from sim.run import simulate

QONNX = "qonnx.custom_op.general"


def runtime(path, x, *, fused=True):
    """ONNX Runtime's outputs, (frames, outputs); ``fused`` by its operators on integers."""
    options = onnxruntime.SessionOptions()
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    out = session.run(None, {session.get_inputs()[0].name: x.astype(np.float32)})[0]
    return out.reshape(len(x), -1).astype(np.float64)


def plain(model):
    """All layers with weights left at 8 bits."""
    names = [n.name for n in model.nodes if hasattr(n, "weight")]
    return {name: LayerOptions(encoding="int8") for name in names}


def frames(model, count, spread=1.0, seed=5):
    return spread * np.random.default_rng(seed).standard_normal((count, *model.input_shape))


def steps_off(network, model, x, expected):
    """How many output steps golden model and float model are off, (2, frames, outputs)."""
    golden = network.predict(network.quantize_input(x)).reshape(len(x), -1) * network.output.scale
    return np.abs(np.stack((golden, model.predict(x))) - expected) / network.output.scale


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("QDQ", {}),
        ("QDQ", {"per_channel": True, "activation_type": QuantType.QInt8}),
        ("QDQ", {"weight_type": QuantType.QUInt8, "activation_type": QuantType.QUInt8}),
        ("QOperator", {"per_channel": True, "activation_type": QuantType.QInt8}),
        ("QOperator", {"extra_options": {"ActivationSymmetric": True},
                       "activation_type": QuantType.QInt8}),
    ],
    ids=["QDQ", "per channel", "unsigned weights", "QOperator", "symmetric"],
)  # fmt: skip
def test_files_of_the_runtimes_quantizer_give_its_integers(tmp_path, form, options):
    path = quantized_by_runtime(tmp_path, form, **options)
    model = load_model(path)
    x = frames(model, 600)
    expected = runtime(path, x)
    unsigned = options.get("weight_type") == QuantType.QUInt8
    for layers in (None,) if unsigned else (None, plain(model)):
        network = quantize(model, quantizer="given", layers=layers)
        off = steps_off(network, model, x, expected)
        assert off.max() < 1.01
        assert (off > 0.01).mean() <= 1e-3
    if unsigned:  # 0 to 255 around a zero point has more than 8 bits
        with pytest.raises(InputError, match="must have weights of -128 to 127 from their zero"):
            quantize(model, quantizer="given", layers=plain(model))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """The model with zero points all over: its path, the model, and its integer networks."""
    path = save(tmp_path_factory.mktemp("mixed"), asymmetric())
    model = load_model(path)
    return path, model, {
        "pulses": quantize(model, quantizer="given"),
        "int8": quantize(model, quantizer="given", layers=plain(model)),
    }  # fmt: skip


def test_zero_points_are_exact_everywhere(mixed):
    path, model, networks = mixed
    x = frames(model, 400, spread=1.5)
    expected = runtime(path, x, fused=False)
    for network in networks.values():
        off = steps_off(network, model, x, expected)
        assert off.max() < 1.01
        assert (off > 0.01).mean() <= 1e-3
    formats = {layer.name: layer.output.format for layer in network.layers}
    assert network.input.format == IntFormat(9, True, -121, 134)
    assert formats["a"] == IntFormat(9, True, -139, 116)
    assert formats["b"] == IntFormat(8, False, 0, 252)
    assert formats["most"] == formats["sum"] == IntFormat(9, True, -108, 147)
    assert network.output.scale == np.float32(0.0419)
    # Saturation at the file's bounds, not at the width's.
    inner = network.trace(network.quantize_input(frames(model, 50, spread=9)))
    assert (inner["a"].min(), inner["a"].max()) == (-139, 116)
    assert (inner["sum"].min(), inner["sum"].max()) == (-108, 147)


@pytest.mark.parametrize(("kind", "target"), [("pulses", "ulx3s-25f"), ("int8", "icebreaker")])
def test_zero_points_in_simulated_rtl(mixed, tmp_path, kind, target):
    _, model, networks = mixed
    network = networks[kind]
    network.save(tmp_path)
    assert Network.load(tmp_path) == network
    assert check_numbers(model, network) == []
    lanes = [4 if kind == "pulses" else 2] * len(core_layers(network))
    made = plan(network, target, lanes=lanes, top=False, check=False)
    assert Plan.from_json(made.to_json()) == made
    x = network.quantize_input(frames(model, 1, spread=4))
    result = simulate(
        made.graph, emit(network, made).cores, x, "amaranth",
        names=[layer.name for layer in network.layers], settle=False,
    )  # fmt: skip
    compared = compare(result, network.trace(x))
    assert compared.mismatches == 0
    assert compared.outputs_compared >= network.output.size
    assert result.latency_cycles == made.latency_cycles


def test_pulses_at_a_ratio_are_quantized_from_the_files_weights(mixed):
    _, model, _ = mixed
    x = frames(model, 200)
    network = quantize(model, ratio=2, quantizer="plain")
    assert 1.9 < network.n_over_k < 2.2
    assert network.output.scale == np.float32(0.0419)
    found = agreement(model, network, Data(x), "calibration")
    assert found.codes_error < 1
    assert found.integer_steps < 1


def test_written_again_and_read_again(mixed, tmp_path):
    _, model, networks = mixed
    save_model(model, tmp_path / "again.onnx")
    again = load_model(tmp_path / "again.onnx")
    x = frames(model, 100)
    assert np.abs(again.predict(x) - model.predict(x)).max() < 1e-6
    network = quantize(again, quantizer="given")
    inputs = network.quantize_input(x)
    assert np.array_equal(network.predict(inputs), networks["pulses"].predict(inputs))


def test_compile_from_the_command_line(tmp_path):
    q = Qdq()
    w = q.weights((3, 6), [0.01, 0.02, 0.03])
    y = q.node("Gemm", q.rounded("x", 0.05, 4), w, name="fc", transB=1)
    path = save(tmp_path, q.model((6,), q.rounded(y, 0.1, -3)))
    out = tmp_path / "out"
    made = run("compile", path, "--target", "icebreaker", "--quantizer", "given", "--int8", "all",
               "-o", out, "--json")  # fmt: skip
    assert made.code == 0, made.err
    assert made.json["int8_layers"] == ["fc"]
    assert made.json["model_file"]["largest_error"] < 1e-5
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((5, 6)))
    done = run("simulate", out, "--data", tmp_path / "x.npz", "--simulator", "amaranth", "--json")
    assert (done.json["frames"], done.json["mismatches"]) == (5, 0)
    assert run("verify", out, "--model", path).code == 0


# -- other forms ----------------------------------------------------------------------------------


def test_four_bits_and_clipped_integers(tmp_path):
    q = Qdq()
    a = q.rounded("x", 0.2517, 8, TensorProto.UINT4)
    w = q.weights((5, 6), 0.0913, kind=TensorProto.INT4, low=-8, high=7)
    b = q.node("Relu", q.node("Gemm", a, w, name="fc1", transB=1))
    b = q.rounded(b, 0.231, 0, TensorProto.UINT8, clip=(0, 7))  # QCDQ of 3 bits
    c = q.node("MatMul", b, q.weights((5, 3), 0.0531, axis=1, low=-1, high=1), name="fc2")
    path = save(tmp_path, q.model((6,), q.rounded(c, 0.02, 0, TensorProto.INT16)))
    model = load_model(path)
    network = quantize(model, quantizer="given")
    assert network.input.format == IntFormat(4, True)
    assert network.layers[0].output.format == IntFormat(3, False)
    assert network.output.format == IntFormat(16, True)
    assert np.abs(network.layers[1].y).max() == 1
    x = frames(model, 300)
    assert steps_off(network, model, x, model.predict(x)).max() < 1.01
    assert check_own_graph(path, model, Data(x)).runtime == "onnxruntime"


def test_roundings_in_a_row_are_each_as_the_file_says(tmp_path):
    """Runtimes may merge them into one, and then give something else."""
    q = Qdq()
    rounded = q.rounded(q.rounded("x", 0.0371, 11), 0.217, 11)
    out = q.node("MatMul", rounded, q.weights((6, 3), 0.0531), name="fc")
    path = save(tmp_path, q.model((6,), out))
    model = load_model(path)
    x = frames(model, 100)
    assert np.abs(runtime(path, x) - model.predict(x)).max() > 0.05  # merged
    assert check_own_graph(path, model, Data(x)).error < 1e-6


def test_means_that_lie_halfway_may_be_rounded_either_way(tmp_path):
    """A mean of integers does in a part of all frames; what a runtime's 32 bits make of it, and of
    all that follows, is no fault of the model."""
    q = Qdq()
    window = {"kernel_shape": [1, 6], "strides": [1, 6]}
    pooled = q.node("AveragePool", q.rounded("x", 0.0371), **window)
    flat = q.node("Flatten", q.rounded(pooled, 0.0371))
    out = q.node("MatMul", flat, q.weights((12, 2), 0.31), name="fc")
    path = save(tmp_path, q.model((1, 2, 36), out))
    model = load_model(path)
    x = Data(frames(model, 200, spread=0.2))
    found = runtime(path, x.x, fused=False) - model.predict(x.x)
    assert np.mean(np.abs(found).max(axis=1) > 1e-3) > 0.1
    assert check_own_graph(path, model, x).error < 0.02
    weight = model.nodes[-1].weight * 1.2
    wrong = replace(model, nodes=(*model.nodes[:-1], replace(model.nodes[-1], weight=weight)))
    with pytest.raises(CheckError, match="from what the file's own graph gives"):
        check_own_graph(path, wrong, x)


def test_float_weights_that_the_file_rounds(tmp_path):
    """Quantization-aware training exports the float weights and their rounding."""
    q = Qdq()
    real = np.random.default_rng(1).standard_normal((3, 6))
    pair = [q.constant(np.array([0.02, 0.03, 0.011])), q.constant(np.zeros(3), TensorProto.INT8)]
    w = q.node("QuantizeLinear", q.constant(real), *pair, axis=0)
    w = q.node("DequantizeLinear", w, *pair, axis=0)
    y = q.node("Gemm", q.rounded("x", 0.0213, 5), w, name="fc", transB=1)
    path = save(tmp_path, q.model((6,), q.rounded(y, 0.0371, -8)))
    model = load_model(path)
    network = quantize(model, quantizer="given", layers=plain(model))
    x = frames(model, 300)
    off = steps_off(network, model, x, runtime(path, x))
    assert off.max() < 1.01
    assert (off > 0.01).mean() <= 2e-3
    steps = np.rint(real / np.array([[0.02], [0.03], [0.011]]))
    assert np.array_equal(network.layers[0].y, steps)


def test_values_between_integer_operators(tmp_path):
    """A Q before a pooling and a Reshape, as quantized files of some tools have it."""
    q = Qdq()
    pair = [q.constant(np.float32(0.05)), q.constant(3, TensorProto.INT8)]
    s = q.node("QuantizeLinear", "x", *pair)
    s = q.node("MaxPool", s, kernel_shape=[2, 2], strides=[2, 2])
    s = q.node("Flatten", s)
    a = q.node("DequantizeLinear", s, *pair)
    y = q.node("Gemm", a, q.weights((2, 4), 0.02), name="fc", transB=1)
    path = save(tmp_path, q.model((1, 4, 4), q.rounded(y, 0.03)))
    model = load_model(path)
    x = frames(model, 50)
    assert np.abs(model.predict(x) - runtime(path, x)).max() < 1e-6
    q.nodes[3] = q.node("Relu", s) and q.nodes.pop()
    q.nodes[3].output[0] = a
    with pytest.raises(InputError, match="reads integers; DequantizeLinear must be between"):
        load_model(save(tmp_path, q.model((1, 4, 4), q.nodes[-1].output[0])))


def _fixed(x, scale, low, high):
    return np.clip(np.rint(x / scale), low, high) * scale


def test_qonnx_operators(tmp_path):
    q = Qdq(opset=17)

    def quant(x, scale, bits, **attributes):
        return q.node("Quant", x, q.constant(np.float32(scale)), q.constant(0.0),
                      q.constant(float(bits)), domain=QONNX, **attributes)  # fmt: skip

    rng = np.random.default_rng(0)
    w1, w2 = rng.standard_normal((3, 1, 2, 2)), rng.standard_normal((3, 2))
    scales = np.array([0.25, 0.5, 0.125]).reshape(3, 1, 1, 1)
    x = quant("x", 0.125, 5, signed=1, narrow=1)
    a = q.node("Conv", x, quant(q.constant(w1), scales, 4, signed=1, narrow=1), name="conv")
    a = quant(q.node("Relu", a), 0.0625, 6, signed=0)
    a = q.node("AveragePool", a, name="pool", kernel_shape=[2, 2])
    a = q.node("Trunc", a, q.constant(np.float32(0.015625)), q.constant(0.0), q.constant(8.0),
               q.constant(6.0), domain=QONNX, rounding_mode="FLOOR")  # fmt: skip
    b = q.node("BipolarQuant", q.constant(w2), q.constant(np.float32(0.5)), domain=QONNX)
    y = q.node("MatMul", q.node("Flatten", a), b, name="fc")
    path = save(tmp_path, q.model((1, 3, 3), quant(y, 0.0625, 8, signed=1, narrow=0)))
    model = load_model(path)
    x = frames(model, 200)

    first = _fixed(x, 0.125, -15, 15)
    kernel = _fixed(w1.astype(np.float32), scales, -7, 7)
    patches = np.stack([first[:, 0, i : i + 2, j : j + 2] for i in (0, 1) for j in (0, 1)])
    sums = np.einsum("pfij,oij->fop", patches, kernel[:, 0]).reshape(-1, 3, 2, 2)
    mean = _fixed(np.maximum(sums, 0), 0.0625, 0, 63).mean(axis=(2, 3))
    cut = np.floor(np.rint(mean / 0.015625) / 4) * 0.015625
    signs = np.where(w2.astype(np.float32) < 0, -0.5, 0.5)
    expected = _fixed(cut @ signs, 0.0625, -128, 127)
    assert np.array_equal(model.predict(x), expected)

    found = check_own_graph(path, model, Data(x))
    assert found.runtime == "onnx.reference"
    assert found.error < 1e-6

    network = quantize(model, quantizer="given")
    golden = network.predict(network.quantize_input(x)) * network.output.scale
    # Scales that are powers of two make halves, which the file rounds to even, the core up.
    assert np.abs(golden - expected).max() <= 3 * 0.0625
    assert [layer.output.format.bits for layer in network.layers][:2] == [6, 8]


def test_what_cannot_be_carried_is_refused_by_name(tmp_path):
    def refused(build, text):
        q = Qdq()
        with pytest.raises(InputError) as info:
            load_model(save(tmp_path, q.model((6,), build(q))))
        assert text in str(info.value)
        assert str(info.value).isprintable()

    def dense(q, x):
        return q.node("Gemm", x, q.weights((3, 6), 0.1), name="fc", transB=1)

    def mismatched(q):
        s = q.node("QuantizeLinear", "x", q.constant(0.5), q.constant(1, TensorProto.INT8))
        x = q.node("DequantizeLinear", s, q.constant(0.25), q.constant(1, TensorProto.INT8))
        return dense(q, x)

    def by_channel(q):
        pair = [q.constant(np.full(6, 0.1) + np.arange(6)), q.constant(np.zeros(6), 3)]
        return dense(q, q.node("QuantizeLinear", "x", *pair, axis=1))

    def blocks(q):
        w = q.constant(np.zeros((3, 6)), TensorProto.INT8)
        w = q.node("DequantizeLinear", w, q.constant(np.ones((3, 2))), axis=1, block_size=3)
        return q.node("Gemm", "x", w, name="fc", transB=1)

    refused(mismatched, "quantized with, 0.5 and 1, not 0.25 and 1")
    refused(by_channel, "must have one scale and zero point for all of its activations")
    refused(blocks, "must have a scale for each channel, not for blocks of them")
    refused(lambda q: dense(q, q.rounded("x", -0.1)), "must have scales that are positive numbers")
    refused(lambda q: dense(q, q.rounded("x", 0.1, 0, TensorProto.INT32)), "at most 16 bits")
    refused(
        lambda q: q.node("MatMulInteger", "x", q.constant(np.ones((6, 3)), TensorProto.INT8)),
        "must have scales in the file: those of dynamic quantization depend on each frame",
    )
    refused(
        lambda q: dense(q, q.node("Quant", "x", q.constant(0.1), q.constant(0.0), q.constant(4.0),
                                  domain=QONNX, rounding_mode="CEIL")),
        "must round activations to the nearest (ROUND), not by CEIL",
    )  # fmt: skip


def test_weights_that_are_whole_numbers_stay_so_at_eight_bits():
    rng = np.random.default_rng(0)
    y = rng.integers(-128, 128, (4, 9))
    y[:, 0] = (90, 1, 7, -128)
    weight = y * np.array([[0.03], [0.5], [1e-7], [2.0]])
    model = replace(_dense_model(), nodes=(Dense("fc", ("x",), "y", (4,), weight, np.zeros(4)),
                    Quantize("r", ("y",), "z", (4,), 50.0, -128, 127)))  # fmt: skip
    network = quantize(model, calibration=rng.standard_normal((20, 9)),
                       layers={"fc": LayerOptions(encoding="int8")})  # fmt: skip
    layer = network.layers[0]
    assert np.allclose(layer.gain * layer.y, weight, rtol=1e-12)
    assert not layer.bias.any()  # fitted to nothing: the layer is the file's


def _dense_model():
    from pvq_hw.model.model import Model

    return Model("m", "0" * 64, "x", (9,), (0,), (9,), ())
