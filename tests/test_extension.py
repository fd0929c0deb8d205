"""What others can add from outside the packages, each from a model file to simulated RTL.

A layer without weights is four files: `toy_node`, `toy_layer`, `toy_unit`, `toy_circuit`; a code is
two: `toy_code`, `toy_decoder`; an engine with its core is two: `toy_engine`, `toy_engine_circuit`;
a family of devices is one: `toy_family`.
The one entry of an activation function is in `tests/model/test_functions.py`, the one file of a
board in `tests/target/test_board_file.py`.
"""

import json

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx_graphs import graph_model, save

from gateware.device.memory import rom_block
from pvq_hw.engine.pulse_code import PulseCode
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.errors import InputError
from pvq_hw.flow.options import CompileOptions, LayerChoice
from pvq_hw.geometry import Geometry
from pvq_hw.model.load import load_model
from pvq_hw.plan.folding import FoldLayer, fold
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import Plan, core_images, plan
from pvq_hw.quantizer.quantize import quantize
from pvq_hw.target.block_ram import memory_columns
from pvq_hw.target.families import family
from sim.reference import load_reference, reference_outputs
from sim.result import compare
from sim.run import simulate

FLOAT = {"dtype": np.float32, "out_type": TensorProto.FLOAT}
FRAMES = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)


def model_file(folder, operator):
    """Dense, one operator, Dense."""
    rng = np.random.default_rng(0)
    shapes = {"w": (5, 6), "b": (5,), "v": (3, 5), "c": (3,)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["g"], "first", transB=1),
        operator,
        helper.make_node("Gemm", ["a", "v", "c"], ["out"], "last", transB=1),
    ]
    return save(folder, graph_model(nodes, arrays | {"axis": np.array(1)}, ("n", 6), **FLOAT))


def check(network, made, folder):
    """Circuit, plan and reference agree with the integers, and the plan's file with the plan."""
    assert Plan.from_json(json.loads(json.dumps(made.to_json()))) == made
    image, x = emit(network, made), network.quantize_input(FRAMES[:4])
    names = [layer.name for layer in network.layers]
    result = simulate(made.graph, image.cores, x, "amaranth", names=names)
    assert compare(result, network.trace(x)).mismatches == 0
    assert result.latency_cycles == made.latency_cycles
    assert result.interval_cycles == made.interval_cycles
    assert core_images(network, made) == list(image.cores)
    for spec, contents in zip(image.specs, image.cores, strict=True):
        for name, words in spec.contents(contents).items():
            (folder / f"{name}.hex").write_text("".join(f"{word:x}\n" for word in words))
    graph = json.loads(json.dumps(made.graph.to_json()))
    cores = load_reference([u["core"] for u in graph["units"] if u["kind"] == "core"], folder)
    outputs = reference_outputs(graph, cores, x.tolist())
    assert outputs[made.graph.last.name] == network.predict(x).tolist()


def test_a_layer_without_weights_goes_from_file_to_simulated_rtl(toys, tmp_path):
    operator = helper.make_node("CumSum", ["g", "axis"], ["a"], "sums")
    path = model_file(tmp_path, operator)
    model = load_model(path)
    assert [node.op for node in model.nodes] == ["Dense", "CumSum", "Dense"]
    session = onnxruntime.InferenceSession(path.read_bytes())
    exact = model.predict(FRAMES)
    assert np.allclose(exact, session.run(None, {"x": FRAMES})[0], atol=1e-4)
    network = quantize(model, calibration=FRAMES, ratio=1.0)
    real = network.real(network.predict(network.quantize_input(FRAMES)))
    assert np.corrcoef(real.ravel(), exact.ravel())[0, 1] > 0.9
    network.save(tmp_path)
    assert type(network).load(tmp_path) == network
    made = plan(network, "icebreaker")
    assert [unit.kind for unit in made.graph.units] == ["core", "running_sum", "core"]
    check(network, made, tmp_path)


def test_a_code_goes_from_file_to_simulated_rtl(tmp_path):
    import toy_decoder

    model = load_model(model_file(tmp_path, helper.make_node("Relu", ["g"], ["a"], "relu")))
    network = quantize(model, calibration=FRAMES, ratio=0.5)
    with pytest.raises(InputError, match="must be pulse, shifted, absolute, pvq or auto"):
        LayerChoice(code="absolut")
    made = plan(network, "icebreaker", codes={"first": LayerChoice(code="absolute").code})
    first, last = made.layers
    assert isinstance(first.spec.code, toy_decoder.AbsoluteCode)
    assert isinstance(last.spec.code, PulseCode)
    assert first.reason.startswith("absolute codes were asked for: ")
    check(network, made, tmp_path)


def test_an_engine_goes_from_file_to_simulated_rtl(tmp_path):
    import toy_engine_circuit

    model = load_model(model_file(tmp_path, helper.make_node("Relu", ["g"], ["a"], "relu")))
    network = quantize(model, calibration=FRAMES, ratio=0.5)
    with pytest.raises(InputError, match="depthwise, shared, sequential or auto, not 's"):
        LayerChoice(engine="sequentially")
    with pytest.raises(InputError, match="A sequential layer must have no lanes"):
        LayerChoice(engine="sequential", lanes=2)
    options = CompileOptions(layers={"first": LayerChoice(engine="sequential")})
    made = plan(network, "icebreaker", each=options.asked(["first"], "up5k"))
    first, last = made.layers
    assert isinstance(first.spec, toy_engine_circuit.SequentialSpec)
    assert isinstance(last.spec, CoreSpec)
    assert first.reason == "30 weights, one a cycle; sequential was asked for"
    assert made.limit == "layer 'first' is sequential, which takes its 41 cycles"
    assert made.interval_cycles == first.cycles == 6 + 5 * 7
    assert "sequential" in made.summary()
    check(network, made, tmp_path)
    window = Geometry((4, 4, 2), (3, 3))
    form = last.spec.x
    conv = FoldLayer("conv", 4, 18, 6, form, form, geometry=window, engine="sequential")
    with pytest.raises(InputError, match="'conv' can't be sequential: it is a convolution"):
        fold([conv], made.target)


def test_a_family_of_devices_goes_from_board_file_to_simulated_rtl(tmp_path):
    import toy_family

    model = load_model(model_file(tmp_path, helper.make_node("Relu", ["g"], ["a"], "relu")))
    network = quantize(model, calibration=FRAMES, ratio=0.5)
    toy_family.register()
    try:
        made = plan(network, toy_family.board(tmp_path))
        assert made.target.device.architecture == toy_family.TOY
        assert {spec.multiplier for spec in made.specs} == {"serial"}
        assert "cells" in made.summary()
        assert memory_columns(30, 512, "toy") == [(10, 1)] * 3
        check(network, made, tmp_path)
        with pytest.raises(InputError, match="Architecture has no ROM block: its kind 'toy' is"):
            rom_block("toy")
    finally:
        toy_family.forget()
    with pytest.raises(InputError, match="'toy', which is not known: ecp5, hx8k, up5k are"):
        family("toy")
