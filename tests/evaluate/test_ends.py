"""Every supported operation as a network's last and as its first, against onnxruntime.

Weights are whole numbers times a gain, taken as they are, so what the integer network gives
differs by the rounding of activations alone.
"""

from functools import cache

import numpy as np
import onnxruntime
import pytest
from ends_cases import AFTER, CONSTANTS, ENDS, STARTS, TAIL, node
from onnx_graphs import as_single, channel_last, graph_model, save

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import InputError
from pvq_hw.model.load import load_model
from pvq_hw.network.network import Network
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import plan
from pvq_hw.quantizer.quantize import quantize
from pvq_hw.quantizer.scales import bounded_format
from pvq_hw.target.boards import get_target
from sim.result import compare
from sim.run import simulate

BITS = 12
TOLERANCE = 3e-3  # of the largest value: a few roundings to 12 bits


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
    pooled = end in ("MaxPool", "GlobalMaxPool", "ReduceMax") and after == "nothing"
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
    result = simulate(planned.graph, cores, values, "amaranth", names=names, settle=False)
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
