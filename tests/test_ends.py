"""Every supported operation as a network's last and as its first, against onnxruntime.

Weights are whole numbers times a gain, taken as they are, so what the integer network gives
differs by the rounding of activations alone.
"""

from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_graphs import as_single, channel_last, graph_model, save

from pvq_hw.calibrate import bounded_format
from pvq_hw.errors import InputError
from pvq_hw.image import emit
from pvq_hw.model import load_model
from pvq_hw.network import Network
from pvq_hw.numeric import IntFormat
from pvq_hw.plan import plan
from pvq_hw.quantizer import quantize
from pvq_hw.targets import get_target
from sim.entry import simulate
from sim.result import compare

BITS = 12
TOLERANCE = 3e-3  # of the largest value: a few roundings to 12 bits

_rng = np.random.default_rng(7)
CONSTANTS = {
    "wc": _rng.integers(-1, 2, (4, 2, 3, 3)) * 0.25, "bc": _rng.normal(size=4),
    "wd": _rng.integers(-1, 2, (4, 1, 3, 3)) * 0.5, "bd": _rng.normal(size=4),
    "wg": _rng.integers(-1, 2, (3, 72)) * 0.25, "bg": _rng.normal(size=3),
    "wm": _rng.integers(-1, 2, (72, 3)) * 0.25,
    "s": np.array([0.5, -1.0, 2.0, 0.75]), "t": _rng.normal(size=4),
    "mean": _rng.normal(size=4), "var": np.array([0.5, 1.0, 2.0, 1.5]),
    "s2": np.array([0.5, 2.0]), "t2": _rng.normal(size=2),
    "mean2": _rng.normal(size=2), "var2": np.array([0.5, 2.0]),
    "zero": np.float64(0), "two": np.float64(2), "half": np.float64(0.5),
    "c2": np.array([0.5, -0.5]).reshape(2, 1, 1),
}  # fmt: skip

# What makes "t0" of the input, or of a tensor of the same shape.
CONV = "c=Conv(x,wc,bc) pads=1,1,1,1"
ENDS = {
    "Gemm": ["f=Flatten(x)", "t0=Gemm(f,wg,bg) transB=1"],
    "MatMul": ["f=Flatten(x)", "t0=MatMul(f,wm)"],
    "MatMul and Add": ["f=Flatten(x)", "g=MatMul(f,wm)", "t0=Add(g,bg)"],
    "two layers": ["a=Relu(x)", "f=Flatten(a)", "t0=Gemm(f,wg,bg) transB=1"],
    "Conv": ["t0=Conv(x,wc,bc) pads=1,1,1,1"],
    "depthwise Conv": [CONV, "t0=Conv(c,wd,bd) group=4"],
    "Flatten": [CONV, "g=GlobalAveragePool(c)", "t0=Flatten(g)"],
    "Identity": [CONV, "t0=Identity(c)"],
    "BatchNormalization": [CONV, "t0=BatchNormalization(c,s,t,mean,var)"],
    "AveragePool": [CONV, "t0=AveragePool(c) kernel_shape=2,2 strides=2,2"],
    "padded AveragePool": [CONV, "t0=AveragePool(c) kernel_shape=3,3 pads=1,1,1,1"],
    "MaxPool": [CONV, "t0=MaxPool(c) kernel_shape=2,2 strides=2,2"],
    "GlobalAveragePool": [CONV, "t0=GlobalAveragePool(c)"],
    "GlobalMaxPool": [CONV, "t0=GlobalMaxPool(c)"],
    "ReduceMean": [CONV, "t0=ReduceMean(c) axes=2,3 keepdims=0"],
    "Add": [CONV, "d=Conv(c,wd,bd) group=4 pads=1,1,1,1", "t0=Add(c,d)"],
    "Concat": [CONV, "d=Conv(c,wd,bd) group=4 pads=1,1,1,1", "t0=Concat(c,d) axis=1"],
    "Mul": [CONV, "t0=Mul(c,half)"],
}  # fmt: skip
AFTER = {
    "nothing": ["out=Identity(t0)"],
    "Relu": ["out=Relu(t0)"],
    "Clip": ["out=Clip(t0,zero,two)"],
    "Relu, then Clip": ["r=Relu(t0)", "out=Clip(r,zero,two)"],
}
TAIL = ["c=Conv(t0,wc,bc) pads=1,1,1,1", "out=Relu(c)"]
STARTS = {
    "Relu": ["t0=Relu(x)"],
    "Clip": ["t0=Clip(x,zero,two)"],
    "Identity": ["t0=Identity(x)"],
    "Dropout": ["t0=Dropout(x)"],
    "Add": ["t0=Add(x,c2)"],
    "Sub": ["t0=Sub(x,c2)"],
    "Mul": ["t0=Mul(x,half)"],
    "Div": ["t0=Div(x,two)"],
    "BatchNormalization": ["t0=BatchNormalization(x,s2,t2,mean2,var2)"],
    "AveragePool": ["t0=AveragePool(x) kernel_shape=3,3 pads=1,1,1,1"],
    "MaxPool": ["t0=MaxPool(x) kernel_shape=3,3 pads=1,1,1,1"],
    "sum with itself": ["r=Relu(x)", "t0=Add(r,x)"],
}  # fmt: skip


def node(text: str):
    """``"y=Op(a,b) name=1,2"`` as a node."""
    output, rest = text.split("=", 1)
    call, *given = rest.split(" ")
    kind, inputs = call.rstrip(")").split("(")
    attributes = {}
    for item in given:
        name, value = item.split("=")
        numbers = [int(v) for v in value.split(",")]
        single = name in ("transB", "group", "axis", "keepdims", "to")
        attributes[name] = numbers[0] if single else numbers
    return onnx.helper.make_node(kind, inputs.split(","), [output], **attributes)


def made(tmp_path, texts: list[str]) -> tuple[Network, np.ndarray, np.ndarray]:
    """The integer network, what onnxruntime says, and the inputs."""
    nodes = [node(text) for text in texts]
    used = {name for n in nodes for name in n.input}
    constants = {name: value for name, value in CONSTANTS.items() if name in used}
    model = as_single(graph_model(nodes, constants, ("N", 2, 6, 6)))
    x = np.random.default_rng(3).normal(size=(40, 2, 6, 6)).astype(np.float32)
    expected = session(model.SerializeToString()).run(None, {"x": x})[0]
    loaded = load_model(save(tmp_path, model))
    network = quantize(loaded, calibration=x, ratio=1.0, quantizer="given", activation_bits=BITS)
    return network, channel_last(expected) if expected.ndim > 2 else expected, x


@cache
def session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(model, options)


def check(tmp_path, texts: list[str]) -> Network:
    network, expected, x = made(tmp_path, texts)
    real = network.predict(network.quantize_input(x)) * network.output.scale
    real = real.reshape(len(x), -1)
    error = np.abs(real - expected).max()
    assert error <= TOLERANCE * np.abs(expected).max(), (error, np.abs(expected).max())
    return network


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("end", ENDS)
def test_a_network_may_end_with_any_operation_and_any_activation(tmp_path, end, after):
    network = check(tmp_path, ENDS[end] + AFTER[after])
    pooled = end in ("MaxPool", "GlobalMaxPool") and after == "nothing"
    assert network.output.format == (
        IntFormat(BITS, True) if pooled else IntFormat(16, after == "nothing")
    )


@pytest.mark.parametrize("start", STARTS)
def test_a_network_may_start_with_any_operation(tmp_path, start):
    check(tmp_path, STARTS[start] + TAIL)


@pytest.mark.parametrize("quantizer", ["plain", "calibrated"])
@pytest.mark.parametrize("kind", ["chain", "graph"])
def test_every_quantizer_keeps_the_final_activation(tmp_path, quantizer, kind):
    texts = ENDS["Gemm" if kind == "chain" else "Add"] + AFTER["Clip"]
    nodes = [node(text) for text in texts]
    used = {name for n in nodes for name in n.input}
    constants = {name: value for name, value in CONSTANTS.items() if name in used}
    model = load_model(save(tmp_path, graph_model(nodes, constants, ("N", 2, 6, 6))))
    x = np.random.default_rng(3).normal(size=(40, 2, 6, 6))
    network = quantize(model, calibration=x, ratio=1.0, quantizer=quantizer)
    real = network.predict(network.quantize_input(10 * x)) * network.output.scale
    assert real.min() == 0
    assert real.max() == pytest.approx(2, rel=1e-9)


@pytest.mark.parametrize(
    ("end", "after"), [("Gemm", "Relu"), ("Conv", "Clip"), ("AveragePool", "Relu"), ("Add", "Clip")]
)
def test_circuits_end_with_the_activation_too(tmp_path, end, after):
    network, _, x = made(tmp_path, ENDS[end] + AFTER[after])
    planned = plan(network, get_target("ulx3s-25f"))
    values = network.quantize_input(10 * x[:2])
    expected = network.trace(values)
    output = network.predict(values)
    assert (output == 0).any()
    assert (output > output.max() // 2).any()
    names = [layer.name for layer in network.layers]
    cores = emit(network, planned).cores
    result = simulate(
        planned.specs, cores, values, "amaranth", names=names, graph=planned.graph, settle=False
    )
    compared = compare(result, expected)
    assert compared.outputs_compared >= output.size
    assert compared.mismatches == 0


def test_a_bound_that_no_wide_format_reaches_gets_a_narrower_one():
    wide = IntFormat(16, False)
    assert bounded_format("f", wide, np.inf, 1.0) == wide
    assert bounded_format("f", wide, 6.0, 6 / 65535) == wide
    assert bounded_format("f", wide, 6.0, 6 / 65534) == IntFormat(15, False)
    assert bounded_format("f", wide, 6.0, 2.0) == IntFormat(2, False)
    with pytest.raises(InputError) as caught:
        bounded_format("f", wide, 6.0, 2.1)
    assert str(caught.value) == (
        "Layer 'f' must have gains below what it clips at, 6, in steps of its multiplier, 2.1; "
        "scale its weights and its bound"
    )


def test_large_gains_still_saturate_at_the_bound(tmp_path):
    weight = np.array([[3e4, -3e4], [3e4, 3e4]])
    nodes = [node("g=Gemm(x,w) transB=1"), node("out=Clip(g,zero,two)")]
    constants = {"w": weight, "zero": CONSTANTS["zero"], "two": CONSTANTS["two"]}
    model = load_model(save(tmp_path, graph_model(nodes, constants, ("N", 2))))
    x = np.random.default_rng(3).normal(size=(40, 2))
    network = quantize(model, calibration=x, ratio=1.0, quantizer="given")
    real = network.predict(network.quantize_input(x)) * network.output.scale
    assert (real.min(), real.max()) == (0, pytest.approx(2))
    assert network.output.format.bits < 16
