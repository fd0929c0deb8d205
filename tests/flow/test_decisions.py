"""Decisions on the chip: the largest scores, and scores above thresholds."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator
from board_port import BoardPort
from cli_tools import refused, reseal, run
from plan_networks import random_network

import pvq_hw
from gateware.units.decision import SmoothedCircuit
from pvq_hw.arith.formats import IntFormat
from pvq_hw.bundled import DIGITS
from pvq_hw.data.dataset import Data
from pvq_hw.engine.decision import SmoothedUnit
from pvq_hw.errors import CheckError, InputError
from pvq_hw.flow.board import run_output
from pvq_hw.flow.selftest import selftest
from pvq_hw.host.link import Link
from pvq_hw.model.export import save_model
from pvq_hw.model.model import Dense, Model, Relu
from pvq_hw.network.decision import Above, Largest, Smoothed
from pvq_hw.network.layer import TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.network.rule import Rule, check_decision, decided
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import plan
from sim.reference import load_reference, reference_outputs
from sim.result import compare
from sim.run import simulate


def with_ties(network):
    """Its last layer with every row twice, where it has that many."""
    (layer,) = network.layers
    rows = np.arange(len(layer.y)) // 2
    fields = {name: getattr(layer, name)[rows] for name in ("y", "mult", "bias", "gain")}
    return replace(network, layers=(replace(layer, **fields),))


def test_the_largest_come_first_and_of_equal_ones_the_first():
    x = np.array([[3, 7, -1, 7], [-5, -5, -6, -5]])
    out = TensorSpec("d", (6,), IntFormat(4, signed=True), 1.0)
    layer = Largest("top", "x", out, 3)
    layer.verify(TensorSpec("x", (4,), IntFormat(4, signed=True), 0.5))
    assert layer.compute(x).tolist() == [[1, 3, 0, 7, 7, 3], [0, 1, 3, -5, -5, -5]]


def test_thresholds_are_in_the_models_own_unit_and_reached_by_what_equals_them():
    network, _ = random_network((6, 4), (5,))
    scale = network.output.scale
    found = decided(network, f"above={3 * scale},{-2.5 * scale},1e308,-1e308").layers[-1]
    assert isinstance(found, Above)
    assert found.thresholds == (3, -2, 1 << 15, -(1 << 15))
    x = np.array([[3, -2, 32767, -32768], [2, -3, 0, 0]])
    assert found.compute(x).tolist() == [[1, 1, 0, 1], [0, 0, 0, 1]]
    network.meta["dropped"] = ["Sigmoid"]
    halves = decided(network, "above=0.5").layers[-1].thresholds
    sure = decided(network, "above=1").layers[-1].thresholds
    assert (set(halves), set(sure)) == ({0}, {1 << 15})


def test_what_cannot_be_decided_is_refused():
    for text in ("argmin", "top=0", "top=17", "top=x", "above", "above=", "above=nan", "top", "",
                 "top=+3", "top= 3", "top=1_0", "top=\u0663", "smoothed", "smoothed=1",
                 "smoothed=6", "smoothed=512", "smoothed=8,", "smoothed=8,-1"):  # fmt: skip
        with pytest.raises(InputError, match="A decision must be argmax"):
            Rule.parse(text)
    for text in ("argmax", "top=1"):
        with pytest.raises(InputError, match="of one it would always be class 0; give a threshold"):
            check_decision(text, 1, 0, 1)
    check_decision("above=0.5", 1, 0, 1)


def test_decisions_are_the_golden_models_whatever_stalls(tmp_path):
    """As many values as come and one more, fewer, one, and of a frame of one score."""
    cases = [((6, 9), "argmax"), ((6, 5), "top=5"), ((6, 1), "argmax"), ((6, 7), "top=2")]
    cases += [((6, 3), "above=0.1,-0.2,0"), ((6, 4), "above=0")]
    cases += [((6, 5), "smoothed=4"), ((6, 2), "smoothed=2,0.1"), ((6, 9), "smoothed=256,0.001")]
    for sizes, text in cases:
        network = decided(with_ties(random_network(sizes, (4,), seed=len(text))[0]), text)
        network.save(tmp_path)
        assert Network.load(tmp_path) == network
        made = plan(network, "icebreaker")
        image = emit(network, made)
        x = np.random.default_rng(0).integers(0, 256, size=(12, 6))
        names, golden = [layer.name for layer in network.layers], network.trace(x)
        for seed, stall in enumerate(("none", "random:0.3", "bursts:40")):
            result = simulate(
                made.graph, image.cores, x, "amaranth", names=names, stall=stall, seed=seed
            )
            assert compare(result, golden).mismatches == 0, (text, stall)
            if stall == "none":
                found = result.interval_cycles, result.latency_cycles
                assert found == (made.interval_cycles, made.latency_cycles), text
        graph = json.loads(json.dumps(made.graph.to_json()))
        for spec, contents in zip(image.specs, image.cores, strict=True):
            for name, words in spec.contents(contents).items():
                (tmp_path / f"{name}.hex").write_text("".join(f"{word:x}\n" for word in words))
        cores = load_reference([u["core"] for u in graph["units"] if u["kind"] == "core"], tmp_path)
        outputs = reference_outputs(graph, cores, x.tolist())
        assert outputs[made.graph.last.name] == network.predict(x).tolist()


def smoothed(shift, margin, scores):
    """By hand, one frame after the other."""
    bits = IntFormat(8, signed=True)
    layer = Smoothed("s", "x", TensorSpec("d", (2,), bits, 1.0), shift, margin)
    layer.verify(TensorSpec("x", (len(scores[0]),), bits, 0.5))
    return layer.compute(np.array(scores)).tolist()


def test_averages_begin_with_the_first_frame_and_another_class_takes_over_by_the_margin():
    scores = [[8, 0], [0, 8], [0, 8], [0, 8]]
    # Sums over 2 frames, times 2: 16, 0; 8, 8; 4, 12; 2, 14.
    assert smoothed(1, 0, scores) == [[0, 8], [0, 4], [1, 6], [1, 7]]
    assert smoothed(1, 3, scores) == [[0, 8], [0, 4], [1, 6], [1, 7]]
    assert smoothed(1, 4, scores) == [[0, 8], [0, 4], [0, 2], [1, 7]]  # by more than 4
    # Times 2: -6, -4; -5, -4; -4, -5: rounded down.
    assert smoothed(1, 0, [[-3, -2], [-2, -2], [-2, -3]]) == [[1, -2], [1, -2], [0, -2]]


@pytest.mark.parametrize(("bits", "signed", "margin"), [(3, False, 0), (3, False, 1), (2, True, 0)])
def test_classes_that_are_as_large_are_decided_as_by_the_golden_model(bits, signed, margin):
    """Narrow scores, so that averages often are equal or differ by just the margin."""
    unit = SmoothedUnit("s", ("x",), ("o",), IntFormat(bits, signed), 3, 1, margin)
    low, high = unit.x.limits
    rng = np.random.default_rng(bits)
    x = rng.integers(low, high + 1, size=(150, 3))
    circuit, found = SmoothedCircuit(unit), []
    sim = Simulator(circuit)
    sim.add_clock(1e-6)

    async def drive(ctx):
        values = x.ravel().tolist()
        while len(found) < 2 * len(x):
            ctx.set(circuit.i.valid, int(bool(values)))
            ctx.set(circuit.i.payload.as_value(), (values or [0])[0] % (1 << bits))
            ctx.set(circuit.o.ready, int(rng.integers(2)))
            *_, taken, given, word = await ctx.tick().sample(
                circuit.i.valid & circuit.i.ready,
                circuit.o.valid & circuit.o.ready,
                circuit.o.payload.as_value(),
            )
            del values[:taken]
            sign = unit.out.signed and word >> (unit.out.bits - 1)
            found.extend([word - (sign << unit.out.bits)] * given)

    sim.add_testbench(drive)
    sim.run_until(1e-6 * 3000)
    assert np.array_equal(np.reshape(found, (-1, 2)), unit.compute(x))


def test_averages_stay_within_their_bits_whatever_comes():
    rng = np.random.default_rng(5)
    for signed in (False, True):
        fmt = IntFormat(4, signed)
        values = rng.choice([*fmt.limits], size=(3000, 3))
        for shift in (1, 8):
            unit = SmoothedUnit("s", ("x",), ("o",), fmt, 3, shift, 0)
            found = unit.compute(values)
            assert found[:, 1].min() >= fmt.limits[0]
            assert found[:, 1].max() <= fmt.limits[1]
    for wrong in ({"shift": 9}, {"shift": 0}, {"margin": -1}, {"margin": 32}, {"size": 65}):
        with pytest.raises(InputError, match="Unit 's' must average"):
            SmoothedUnit(**{"name": "s", "inputs": ("x",), "outputs": ("o",), "x": fmt, "size": 3,
                            "shift": 2, "margin": 0} | wrong)  # fmt: skip


def test_a_stream_of_frames_is_decided_from_file_to_board(tmp_path):
    """More frames than the golden model computes at a time, and on a board that has seen some."""
    network, _ = random_network((6, 4), (5,))
    many = decided(network, "smoothed=64,0.01")
    x = np.random.default_rng(1).integers(0, 256, size=(1500, 6))
    scores = network.predict(x)
    assert np.array_equal(many.predict(x), many.layers[-1].compute(scores))
    assert len(np.unique(many.predict(x)[:, 0])) > 1
    with pytest.raises(InputError, match="must follow the last of the other layers"):
        decided(many, "argmax")
    data = np.load(DIGITS.parent / "digits.npz")
    x, out = data["x_test"][:40], tmp_path / "o"
    np.savez(tmp_path / "d.npz", x=x)
    given = ("compile", DIGITS, "--target", "icebreaker", "--quantizer", "plain", "--ratio", "2",
             "--calibrate", tmp_path / "d.npz", "-o", out, "--decide")  # fmt: skip
    refused(tmp_path, "whose margin is wires", *given, "smoothed=4", "--updatable")
    compiled = json.loads(run(*given, "smoothed=4,0.5", "--json").out)
    assert [part["name"] for part in compiled["outputs"]] == ["class", "score"]
    accelerator = pvq_hw.load(out)
    assert accelerator.simulate(x)["mismatches"] == 0
    assert accelerator.verify(DIGITS, Data(x)) == []
    port = BoardPort(accelerator)
    assert run_output(accelerator, "port", x, link=Link(port))["mismatches"] == 0
    again = BoardPort(accelerator)
    again.board = port.board
    with pytest.raises(CheckError, match="its decisions go on from 40 frames before"):
        run_output(accelerator, "port", x, link=Link(again))
    with pytest.raises(InputError, match="A self-test must have answers that depend on no earlier"):
        selftest(accelerator, again)


@pytest.mark.parametrize("rule", ["argmax", "smoothed=4,0.2"])
def test_the_exported_testbench_takes_decisions_as_they_come(tmp_path, rule):
    """Whatever is blocked or reset; a stream's second round is not its first."""
    rng = np.random.default_rng(0)
    nodes = (
        Dense("a", ("x",), "s", (6,), rng.normal(size=(6, 8)), rng.normal(size=6)),
        Relu("r", ("s",), "t", (6,)),
        Dense("b", ("t",), "u", (4,), rng.normal(size=(4, 6)), np.zeros(4)),
    )
    save_model(Model("net", "", "x", (8,), (0,), (8,), nodes), tmp_path / "net.onnx")
    x = rng.uniform(-1, 1, (64, 8)).astype(np.float32)
    pvq_hw.compile(tmp_path / "net.onnx", tmp_path / "o", target="icebreaker", ratio=1.0,
                   quantizer="plain", engine="folded", calibrate=x, decide=rule)  # fmt: skip
    command = f"iverilog -o {tmp_path}/tb ../testbench/tb.v ../verilog/*.v && vvp {tmp_path}/tb"
    ran = subprocess.run(command, shell=True, cwd=tmp_path / "o" / "image", capture_output=True,
                         text=True, check=False)  # fmt: skip
    assert ran.stdout.splitlines()[-1] == "PASS: 580 results compared, 0 mismatches", ran.stdout


def test_an_accelerator_decides_from_file_to_board(tmp_path):
    """Compiled, simulated, verified; a rule changed in the folder is found."""
    data = np.load(DIGITS.parent / "digits.npz")
    x, y = data["x_test"][:60], data["y_test"][:60]
    np.savez(tmp_path / "d.npz", x=x, y=y)
    out, given = tmp_path / "o", ("--target", "icebreaker", "--quantizer", "plain", "--ratio", "2")
    asked = (
        "compile",
        DIGITS,
        *given,
        "--calibrate",
        tmp_path / "d.npz",
        "--evaluate",
        tmp_path / "d.npz",
        "-o",
        out,
        "--decide",
    )
    refused(tmp_path, "must ask for at most the model's 10 outputs", *asked, "top=11")
    refused(tmp_path, "must have 1 threshold or 10", *asked, "above=1,2")
    refused(tmp_path, "takes one frame at a time", *asked, "argmax", "--frames", "2")
    compiled = json.loads(run(*asked, "top=2", "--json").out)
    assert [part["name"] for part in compiled["outputs"]] == ["class", "score"]
    accelerator = pvq_hw.load(out)
    found = accelerator.predict(x)
    scores = accelerator.network.undecided.predict(accelerator.quantize_input(x))
    assert (found["class"][:, 0] == scores.argmax(axis=1)).all()
    assert np.allclose(found["score"][:, 0], scores.max(axis=1) * accelerator.network.layers[1]
                       .output.scale)  # fmt: skip
    simulated = accelerator.simulate(x[:20], labels=y[:20])
    assert simulated["mismatches"] == 0
    right = (found["class"][:, 0] == y).mean() * 100
    assert compiled["accuracy"]["pvq"] == pytest.approx(right)
    assert accelerator.verify(DIGITS, Data(x, y)) == []
    port = BoardPort(accelerator)
    ran = run_output(accelerator, "port", x, labels=y, link=Link(port))
    assert (ran["mismatches"], ran["accuracy"]["board"]) == (0, pytest.approx(right))
    path = out / "network" / "network.json"
    path.write_text(path.read_text().replace("top=2", "top=3"))
    reseal(out)
    assert "has a decision that is not by its rule" in str(pvq_hw.load(out).verify())
