"""Networks of which some layers share an engine, and others have cores of their own or are wires:
planned, simulated, verified, chosen and refused."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from plan_networks import random_network
from random_graphs import RandomNetwork

import sim
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.units import Fifo
from pvq_hw.errors import InputError
from pvq_hw.flow.options import CompileOptions, LayerChoice
from pvq_hw.geometry import Geometry
from pvq_hw.network.network import Network
from pvq_hw.output.verify_content import Finding, check_image, check_plan
from pvq_hw.plan.candidates import FoldLayer, Passed
from pvq_hw.plan.core_parts import engine_part
from pvq_hw.plan.folding import fold
from pvq_hw.plan.image import Image, emit
from pvq_hw.plan.plan import Plan, plan
from pvq_hw.plan.resources import Resources, budget
from pvq_hw.plan.sharing import fold_network
from pvq_hw.target.boards import get_target
from sim.reference import load_reference, reference_outputs

CHAIN, _ = random_network((24, 16, 12, 10, 9), (8, 6, 5, 4), seed=2)
ICE = get_target("icebreaker")
U8 = IntFormat(8, False)
SHARED, WIRES, FOLDED = ({"engine": kind} for kind in ("shared", "unrolled", "folded"))


def convolutions() -> Network:
    """A convolution and a maximum, then a block with its shortcut, and a dense layer of a map."""
    net = RandomNetwork(3, (4, 4, 2))
    x = net.conv(net.input, 4, (3, 3), pads=((1, 1), (1, 1)), k=5)
    x = net.maxpool(x, (2, 2), stride=(2, 2))
    y = net.conv(net.conv(x, 4, (1, 1), k=3), 4, (3, 3), pads=((1, 1), (1, 1)), k=4)
    net.dense(net.add(x, y), 9)
    return net.network()


# By network, engines by layer: the first, the last, both, and one between wires and lanes.
MIXED = {
    "two": (CHAIN, {"fc1": SHARED, "fc2": SHARED, "fc3": WIRES, "fc4": SHARED}),
    "maps": (convolutions(), {"conv0": FOLDED, "conv2": SHARED, "conv3": SHARED, "fc5": SHARED}),
    "tail": (CHAIN, {"fc1": FOLDED, "fc2": SHARED, "fc3": SHARED, "fc4": SHARED}),
    "head": (CHAIN, {"fc1": SHARED, "fc2": SHARED, "fc3": FOLDED, "fc4": WIRES}),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("tail", "head")]


def frames(network: Network, count: int = 3) -> np.ndarray:
    """Random frames."""
    low, high = network.input.format.limits
    return np.random.default_rng(1).integers(low, high + 1, (count, network.input.size))


def traced(network: Network, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every layer's outputs, flat."""
    trace = network.trace(x.reshape(len(x), *network.input.shape))
    return {name: values.reshape(len(values), -1) for name, values in trace.items()}


def found(folder, network, planned) -> list[Finding]:
    findings: list[Finding] = []
    cores = check_plan(folder, network, planned, findings)
    if cores is not None:
        check_image(folder, network, planned, cores, findings)
    return findings


@pytest.mark.parametrize("name", ["two", "maps", *SLOW])
def test_all_layers_outputs_and_cycles_are_those_planned(tmp_path, name):
    network, each = MIXED[name]
    planned = plan(network, ICE, each=each)
    assert Plan.from_json(planned.to_json()) == planned
    groups = [spec.shared_by for spec in planned.specs if spec.shared_by]
    assert [x for group in groups for x in group] == [n for n, e in each.items() if e is SHARED]
    image, x = emit(network, planned), frames(network)
    result = sim.simulate(planned.graph, list(image.cores), x, "amaranth")
    trace = traced(network, x)
    compared = sim.compare(result, trace)
    assert compared.mismatches == 0, str(compared.first)
    assert compared.outputs_compared == sum(values.size for values in trace.values())
    assert (result.interval_cycles, result.latency_cycles) == (
        planned.interval_cycles, planned.latency_cycles,
    )  # fmt: skip
    image.write(tmp_path)
    planned.save(tmp_path / "plan.json")
    assert Image.load(tmp_path, planned) == image
    assert found(tmp_path, network, planned) == []
    cores = load_reference([spec.to_json() for spec in planned.specs], tmp_path / "image")
    outputs = reference_outputs(planned.graph.to_json(), cores, x.tolist())
    assert outputs[planned.graph.last.name] == trace[network.layers[-1].name].tolist()


def test_the_exported_verilog_gives_what_folded_layers_give():
    network, each = MIXED["two"]
    x = frames(network, 2)
    folded = plan(network, ICE, each=dict.fromkeys(each, FOLDED))
    images = folded.graph.named(emit(network, folded).cores)
    expected = folded.graph.compute(images, x)
    planned = plan(network, ICE, each=each)
    images = list(emit(network, planned).cores)
    result = sim.simulate(planned.graph, images, x, "icarus", idle="random:0.3", seed=3)
    assert sim.compare(result, expected).mismatches == 0
    assert result.outputs.keys() == expected.keys()


def test_the_files_of_every_engine_are_verified_by_layer(tmp_path):
    network, each = MIXED["two"]
    planned = plan(network, ICE, each=each)
    emit(network, planned).write(tmp_path)
    planned.save(tmp_path / "plan.json")
    for file, layer in (("engine_codes", "fc1"), ("engine_2_mult", "fc4"), ("fc3_weights", "fc3")):
        path = tmp_path / "image" / f"{file}.hex"
        before = path.read_text()
        lines = before.splitlines()
        lines[0] = format(int(lines[0], 16) ^ 1, f"0{len(lines[0])}x")
        path.write_text("\n".join(lines) + "\n")
        (finding, *_) = found(tmp_path, network, planned)
        assert f"layer {layer!r}" in finding.where
        path.write_text(before)
    assert found(tmp_path, network, planned) == []


def test_the_table_says_what_shares_an_engine_and_why():
    network, each = MIXED["tail"]
    planned = plan(network, ICE, each=each, engine_reasons={"fc2": "shared: for the test"})
    assert [layer.layer for layer in planned.layers] == ["fc1", "engine"]
    lanes = planned.layers[1].spec.lanes
    text = f"3 layers on {lanes} lanes, one layer after the other; shared: for the test"
    assert planned.layers[1].reason == text
    rows = [row[0] for row in planned.table().rows]
    assert rows == ["fc1", "fc2", "fc3", "fc4", "engine"]
    assert planned.interval_cycles >= max(layer.cycles for layer in planned.layers)


def test_a_frame_waits_before_an_engine_with_maps():
    network, each = MIXED["maps"]
    planned = plan(network, ICE, each=each)
    (fifo,) = [unit for unit in planned.graph.units if isinstance(unit, Fifo)]
    assert (fifo.name, fifo.depth) == ("fc5_fifo", 16)
    # The first convolution works on the next frame meanwhile.
    assert planned.interval_cycles == planned.layers[1].cycles


def test_what_is_not_one_part_is_refused_by_name():
    net = RandomNetwork(5, (4, 4, 2))
    x = net.conv(net.input, 2, (1, 1), k=2)
    net.dense(net.add(net.conv(net.conv(x, 2, (1, 1), k=2), 2, (1, 1), k=2), x), 5)
    network = net.network()

    def refusal(*shared: str) -> str:
        with pytest.raises(InputError) as caught:
            plan(network, ICE, each=dict.fromkeys(shared, SHARED))
        return str(caught.value)

    assert refusal("conv2", "fc4") == (
        "Layer 'add3' can't share an engine with 'conv2': it reads 't0' too, and an engine has "
        "one input"
    )
    assert refusal("conv1", "conv2") == (
        "Layer 'conv2' can't be the last on a shared engine: it gives a map"
    )
    assert [x.name for x in engine_part(network, ["conv0", "conv1", "conv2", "fc4"]).layers] == [
        "conv0", "conv1", "conv2", "add3", "fc4",
    ]  # fmt: skip
    with pytest.raises(InputError, match="takes one frame at a time, not 2 side by side"):
        plan(CHAIN, ICE, each=MIXED["head"][1], frames=2)
    with pytest.raises(InputError, match="'fc1' and 'fc2' share an engine: options must be the"):
        plan(CHAIN, ICE, each=MIXED["head"][1] | {"fc2": SHARED | {"code_memory": "spram"}})
    with pytest.raises(InputError, match="'fc1' is on a shared engine: it has no digit"):
        plan(CHAIN, ICE, each=dict.fromkeys(("fc1", "fc2"), SHARED | {"digit": 2}))
    flash = SHARED | {"code_memory": "flash"}
    with pytest.raises(InputError, match="'fc1' shares an engine with some of the layers: only"):
        plan(CHAIN, get_target("hx8k"), each={"fc1": flash, "fc2": flash})
    with pytest.raises(InputError, match="from the flash for one engine of all layers, not of"):
        CompileOptions(layers={"fc1": LayerChoice(engine="shared")}, code_memory="flash")
    with pytest.raises(InputError, match="takes one frame at a time, and new weights of it need"):
        CompileOptions(layers={"fc1": LayerChoice(engine="shared")}, frames=2)


def lenet() -> list[FoldLayer]:
    """Two convolutions with maxima behind them, and three dense layers."""

    def maximum(name: str, rows: int, channels: int) -> Passed:
        g = Geometry((2 * rows, 2 * rows, channels), (2, 2), (2, 2))
        shape = (rows, rows, channels)
        return Passed(f"{name} pooled", "MaxPool", (name,), f"{name}p", shape, U8, g)

    first, second = Geometry((28, 28, 1), (5, 5)), Geometry((12, 12, 6), (5, 5))
    dense = [
        FoldLayer(f"fc{i}", m, n, n // 5, U8, U8, reads="bp" if i == 0 else f"f{i}",
                  gives=f"f{i + 1}", engine="auto")
        for i, (n, m) in enumerate(pairwise((256, 120, 84, 10)))
    ]  # fmt: skip
    return [
        FoldLayer("a", 6, 25, 5, U8, U8, geometry=first, reads="x", gives="a", engine="auto",
                  then=(maximum("a", 12, 6),)),
        FoldLayer("b", 16, 150, 30, U8, U8, geometry=second, reads="ap", gives="b", engine="auto",
                  then=(maximum("b", 4, 16),)),
        *dense,
    ]  # fmt: skip


def test_groups_are_chosen_where_they_are_faster_than_one_engine_for_all():
    layers, reserve = lenet(), Resources(luts=1500, brams=8)
    chosen = fold_network(layers, ICE, may_share=True, best=fold, reckoned=True, reserve=reserve)
    assert chosen.fits
    assert chosen.cost.within(budget(ICE))
    assert [chosen.engine(x.name) for x in layers] == ["depthwise", *["shared"] * 4]
    whole = fold_network(layers, ICE, shared=True, reserve=reserve)
    assert chosen.interval_cycles < 0.6 * whole.interval_cycles
    assert chosen.engine_reasons["b"] == (
        "shared: one core a layer would not fit; on one engine for all about "
        f"{whole.interval_cycles:,} cycles"
    )
    # Of a speed that is asked for, the smallest plan that reaches it.
    slow = fold_network(
        layers, ICE, may_share=True, best=fold, reckoned=True, reserve=reserve,
        goal=2 * whole.interval_cycles,
    )  # fmt: skip
    assert slow.interval_cycles <= 2 * whole.interval_cycles
    assert slow.cost.luts < chosen.cost.luts
    wide = [replace(layer, encoding="int8") for layer in layers]
    assert not fold_network(wide, ICE, may_share=True, best=fold, reckoned=True).engines
