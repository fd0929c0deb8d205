"""Batches of V frames behind streams of one frame after the other: values, cycles, flushes."""

from dataclasses import replace

import numpy as np
import pytest
from cli_tools import BUNDLED, MODEL, run
from plan_networks import random_network
from random_layers import Case, make_chain

import pvq_hw
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.dataflow import chain_graph
from pvq_hw.engine.patterns import Pattern
from pvq_hw.engine.timing import frame_ends, time_chain
from pvq_hw.errors import InputError
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import Plan, plan
from pvq_hw.tools import find as tools
from sim.backends.amaranth_runner import simulate_amaranth
from sim.backends.netlist import run_frames
from sim.board import simulated_port
from sim.run import simulate

U8, S8, S16, BIT = IntFormat(8, False), IntFormat(8, True), IntFormat(16, True), IntFormat(1, True)


def chain(frames, flush, family="ecp5", count=9, out=S16, rows=5, **options):
    """Two layers whose first takes frames one after the other."""
    both = {"frames": frames, "family": family, **options}
    return make_chain(
        frames,
        13,
        U8,
        Case(9, 8, 4, options=both | {"flush_cycles": flush}),
        Case(rows, 6, 2, out=out, options=both),
        frames=count - 4,
    )


def wrong(made, result):
    """Layers whose outputs are not the network's."""
    trace = made.network.trace(made.x)
    layers = zip(made.network.layers, result.outputs.values(), strict=True)
    return [a.name for a, got in layers if not np.array_equal(trace[a.name], got)]


@pytest.mark.parametrize(
    ("frames", "family", "options"),
    [
        (2, "ecp5", {}),
        (3, "up5k", {}),
        (4, "hx8k", {}),
        (5, "ecp5", {"bank_memory": "logic", "bank_latency": 1, "fifo_memory": "block"}),
        pytest.param(8, "ecp5", {}, marks=pytest.mark.slow),
    ],
)
def test_cycles_are_those_of_the_timing_model(frames, family, options):
    made = chain(frames, 64, family, count=2 * frames + 5, **options)
    result = simulate_amaranth(made.graph, made.images, made.x)
    ends = frame_ends(made.specs, made.images, 2)
    assert tuple(result.ends[frames - 1 :: frames][:2]) == ends
    timing = time_chain(made.specs, made.images)
    assert result.latency_cycles == timing.latency_cycles == ends[0]
    assert wrong(made, result) == []


@pytest.mark.parametrize(("rows", "out"), [(1, S16), (5, BIT), (40, S8)])
def test_few_and_many_results_with_stalls(rows, out):
    made = chain(3, 8, rows=rows, out=out, count=11)
    result = simulate_amaranth(made.graph, made.images, made.x, stall=Pattern(0.5, 0.5))
    assert wrong(made, result) == []


def test_a_batch_that_is_not_full_is_closed_after_the_stated_cycles():
    for flush in (2, 3, 40):
        made = chain(4, flush, count=5)
        first = [replace(made.specs[0], frames=4), *made.specs[1:]]
        result = simulate_amaranth(chain_graph(first), made.images, made.x[:1])
        # As if the batch had been full `flush` cycles later, less the frames that are not there.
        full = frame_ends(made.specs, made.images, 1)[0]
        missing = 3 * (made.specs[0].n + made.specs[-1].rows)
        assert result.ends[0] == full - missing + flush


def test_pauses_close_batches_in_every_simulator_alike():
    made = chain(3, 2, count=14)
    words = {"idle": "random:0.4", "stall": "random:0.3", "seed": 5}
    bursts = {"idle": Pattern(0.3, 0.4, "p"), "stall": Pattern(0.2, 0.6, "q"), "seed": 5}
    for pauses, simulators in (
        (words, ("amaranth", "compiled", "icarus")),
        (bursts, ("amaranth", "compiled")),
    ):
        runs = [simulate(made.graph, made.images, made.x, name, **pauses) for name in simulators]
        for result in runs:
            assert wrong(made, result) == []
            assert result.frames == len(made.x)
            assert np.array_equal(result.ends, runs[0].ends)


@pytest.mark.parametrize(
    "at", [14, 47, 75, *(pytest.param(at, marks=pytest.mark.slow) for at in (3, 30, 120))]
)
def test_reset_leaves_no_trace(at):
    made = chain(3, 5, count=8)
    result = simulate_amaranth(made.graph, made.images, made.x, resets=[at], idle=Pattern(0.2, 0.4))
    assert wrong(made, result) == []


@pytest.mark.skipif(not tools.have_tool("yosys"), reason="needs yosys")
@pytest.mark.parametrize("family", ["ecp5", "ice40"])
def test_what_bitstreams_are_made_of(family):
    options = {"bank_memory": "logic", "bank_latency": 1} if family == "ecp5" else {}
    made = chain(3, 6, {"ecp5": "ecp5", "ice40": "up5k"}[family], count=8, **options)
    expected = made.network.predict(made.x)
    run = run_frames(made.graph, made.images, made.x, expected, family, synthesize=False)
    assert run.compared == 3 * expected.size


def test_plan_image_and_simulation_of_batches(tmp_path):
    network, _ = random_network((24, 12, 5), (12, 6))
    planned = plan(network, "ulx3s-25f", frames=3)
    planned.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == planned
    assert planned.frames == 3
    # Frames come one after the other, and no core takes longer.
    assert planned.interval_cycles == 3 * 24
    assert planned.inferences_per_second == planned.clock_hz / 24
    x = np.random.default_rng(0).integers(0, 256, (7, 24))
    result = simulate(planned.graph, emit(network, planned).cores, x, "amaranth")
    assert (result.interval_cycles, result.latency_cycles) == (
        planned.interval_cycles,
        planned.latency_cycles,
    )
    assert np.array_equal(result.outputs[planned.specs[-1].name], network.predict(x))


def test_several_frames_take_fewer_lanes_for_the_same_speed():
    network, _ = random_network((60, 60, 5), (30, 20))
    one, four = (plan(network, "ulx3s-25f", frames=v) for v in (1, 4))
    assert four.inferences_per_second >= one.inferences_per_second
    assert four.code_bits <= 1.1 * one.code_bits
    assert max(four.lanes) < max(one.lanes)


@pytest.mark.parametrize(
    ("frames", "flush", "message"),
    [
        (1, 8, "flush_cycles must be 0 with one frame and 2 or more with several, not 8"),
        (2, 1, "flush_cycles must be 0 with one frame and 2 or more with several, not 1"),
        (2, -1, "flush_cycles must be 0 to 1048576, not -1"),
    ],
)
def test_impossible_batches_are_refused(frames, flush, message):
    made = chain(2, 4)
    with pytest.raises(InputError, match=message):
        replace(made.specs[0], frames=frames, flush_cycles=flush)


def test_there_is_a_place_for_every_batch_under_way():
    made = chain(2, 2, rows=1, count=40)
    assert made.graph.last.places >= sum(s.fifo_depth // (2 * s.rows) for s in made.specs)
    # Frames of one each, while nothing leaves for long: many batches wait for the output.
    result = simulate_amaranth(
        made.graph, made.images, made.x, idle=Pattern(0.5, 0.2), stall=Pattern(0.02, 0.002)
    )
    assert wrong(made, result) == []


def test_compile_with_frames_from_the_command_line(tmp_path):
    options = tmp_path / "c.toml"
    options.write_text('frames = 3\nquantizer = "plain"\nratio = 5\n')
    out, data = tmp_path / "out", tmp_path / "digits.npz"
    x = np.load(BUNDLED / "digits.npz")["x_train"][:200]
    np.savez(data, x=x)
    args = (MODEL, "--target", "ulx3s-25f", "--config", options, "-o", out)
    args += ("--calibrate", data)
    made = run("compile", *args, "--json")
    assert (made.code, made.json["frames_side_by_side"]) == (0, 3)
    assert run("verify", out).code == 0
    done = run("simulate", out, "--data", data, "--count", 7, "--json").json
    assert (done["mismatches"], done["frames"]) == (0, 7)
    assert done["interval_cycles"] == made.json["interval_cycles"]
    wrong = run("compile", *args, "--frames", 17)
    assert (wrong.code, wrong.complaint) == (
        2,
        "Frames side by side must be 1 to 16 or auto, not 17",
    )


def test_a_layer_with_frames_in_each_transfer(tmp_path):
    out, weights = tmp_path / "out", tmp_path / "w.npy"
    np.save(weights, np.random.default_rng(0).laplace(size=(5, 24)))
    made = run(
        "layer",
        weights,
        "--k",
        12,
        "--lanes",
        4,
        "--frames",
        3,
        "--vectors",
        7,
        "-o",
        out,
        "--json",
    )
    assert (made.code, made.json["frames_side_by_side"]) == (0, 3)
    assert run("verify", out).code == 0
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(1).integers(0, 256, (8, 24)))
    args = ("--data", tmp_path / "x.npz", "--simulator", "amaranth", "--json")
    done = run("simulate", out, *args).json
    assert (done["mismatches"], done["frames"]) == (0, 8)
    refused = run("build", out)
    assert refused.code == 2
    text = "Bitstreams must take and give one frame a transfer, not 3"
    assert refused.complaint.startswith(text)
    with pytest.raises(InputError, match=text), simulated_port(pvq_hw.load(out)):
        pass
