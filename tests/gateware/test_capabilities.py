"""What dense layers can do behind convolutions: loaded codes, gain groups, signs, V frames side by
side. Golden model, Amaranth's simulator and the exported Verilog of one design agree."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Value
from amaranth.sim import Simulator
from cli_tools import run
from onnx import helper
from onnx_graphs import graph_model, save
from random_graphs import RandomNetwork

from gateware.accelerator.accelerator import Accelerator
from pvq_hw.engine.batch import FLUSH_CYCLES
from pvq_hw.engine.spram_image import code_file, code_layout, code_writes
from pvq_hw.engine.timing import run_frames
from pvq_hw.engine.units import Unpack
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import Plan, plan
from pvq_hw.tools import find as tools
from sim.agents.wire import pack_frames, unpack_frames
from sim.result import compare
from sim.run import simulate

needs_yosys = pytest.mark.skipif(not tools.have_tool("yosys"), reason="needs yosys")
SIMULATORS = ["amaranth", pytest.param("compiled", marks=needs_yosys)]


def made():
    """Behind a convolution and a pooling, a dense layer of gain groups that gives signs through a
    multiplier, one of signs by thresholds, and one that ends it."""
    net = RandomNetwork(5, (5, 5, 2))
    x = net.maxpool(net.conv(net.input, 4, (3, 3), pads=((1, 0), (1, 0))), (2, 2), stride=(2, 2))
    x = net.dense(net.dense(x, 9, 12, groups=4), 6, sign=True)
    net.dense(x, 3)
    network = net.network()
    signs = network.layers[-2].output.format
    assert signs.binary
    return network


def agree(network, planned, x, simulator, **options):
    """Every layer's outputs; without pauses, every full round's cycles too, and in the compiled
    model, which is fast, the plan's interval."""
    images, graph = emit(network, planned).cores, planned.graph
    names = [layer.name for layer in network.layers]
    steady = simulator == "compiled" and not options
    result = simulate(graph, images, x, simulator, names=names, settle=steady, **options)
    compared = compare(result, network.trace(x))
    assert (compared.mismatches, compared.frames) == (0, len(x))
    sizes = sum(layer.output.size for layer in network.layers)
    assert compared.outputs_compared == len(x) * sizes
    if steady:
        assert result.interval_cycles == planned.interval_cycles
    if not options:
        v, rows, rounds = graph.frames, graph.transfers[1], len(x) // graph.frames
        wires = run_frames(graph, graph.named(images), rounds + 1)
        moved = wires[graph.output].moved
        ends = result.ends[v - 1 :: v][:rounds] - result.starts[0]
        expected = [end - wires[graph.input].moved[0] for end in moved[rows - 1 :: rows]]
        assert ends.tolist() == expected[:rounds]
        assert ends[0] == planned.latency_cycles


def frames_of(network, count):
    rng, form = np.random.default_rng(3), network.input.format
    return rng.integers(form.min, form.max + 1, (count, *network.input.shape))


@needs_yosys
def test_both_from_the_command_line(tmp_path):
    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("Conv", ["x", "W"], ["a"]), helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]), helper.make_node("Gemm", ["c", "V"], ["out"]),
    ]  # fmt: skip
    weights = {"W": rng.normal(size=(3, 1, 3, 3)), "V": rng.normal(size=(48, 4))}
    model = save(tmp_path, graph_model(nodes, weights, ("N", 1, 6, 6)))
    data, out = tmp_path / "d.npz", tmp_path / "out"
    np.savez(data, x=rng.random((40, 1, 6, 6)))
    options = ("--quantizer", "plain", "--ratio", 2, "--calibrate", data, "--frames", 3)
    board = ("--target", "icebreaker", "--code-memory", "spram")
    made = run("compile", model, *options, *board, "-o", out, "--json")
    assert (made.code, made.json["frames_side_by_side"]) == (0, 3), made.err
    assert made.json["resources"]["sprams"] >= 2
    ran = run("simulate", out, "--data", data, "--count", 4)
    assert ran.code == 0
    assert "between batches of 3 frames" in ran.out
    assert run("verify", out).code == 0


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_loaded_codes_groups_signs_and_batches_behind_a_convolution(simulator):
    """The convolution takes frame after frame; pauses between its frames close no batch."""
    network = made()
    asked = {"frames": 3, "code_memory": "spram", "check": False}
    planned = plan(network, "icebreaker", lanes=(2, 4, 3, 2), **asked)
    assert [core.code_memory for core in planned.specs] == ["spram"] * 4
    assert [core.groups for core in planned.specs] == [1, 4, 1, 1]
    assert planned.specs[2].multiplier == "none"
    # The convolution's are windows of one frame.
    assert [core.frames for core in planned.specs] == [2, 3, 3, 3]
    assert [core.output_frames for core in planned.specs] == [1, 3, 3, 3]
    first, *others = planned.specs[1:]
    assert first.flush_cycles > FLUSH_CYCLES + 32
    assert [core.flush_cycles for core in others] == [0, 0]
    assert isinstance(planned.graph.last, Unpack)
    assert Plan.from_json(planned.to_json()) == planned
    x = frames_of(network, 7)
    agree(network, planned, x[:4] if simulator == "amaranth" else x, simulator)
    if simulator == "compiled":
        agree(network, planned, x, simulator, seed=2, idle="bursts:40", stall="random:0.3")
        agree(network, planned, x[:4], simulator, resets=[150, 500])


def test_codes_are_loaded_again_while_units_work():
    """One convolution has windows in its padding, which it computes before any frame comes; the
    last activations of another matter to no window, so that it works on when the results are out.
    Neither keeps anything of the codes that were there before."""
    net = RandomNetwork(6, (4, 4, 2))
    x = net.conv(net.input, 2, (2, 2), k=9, stride=(2, 2), pads=((3, 3), (3, 3)))
    net.conv(net.conv(x, 3, (1, 1), k=4), 2, (2, 2), stride=(4, 4))
    network = net.network()
    planned = plan(network, "icebreaker", lanes=(2, 2, 2), code_memory="spram", check=False)
    images = emit(network, planned).cores
    layout, dut = code_layout(planned.specs), Accelerator(planned.graph, images)
    old = [
        replace(image, codes=tuple(word ^ signs(core.code) for word in image.codes))
        for core, image in zip(planned.specs, images, strict=True)
    ]
    x = frames_of(network, 3)
    (n, form), (rows, out) = planned.graph.x, planned.graph.out
    payloads = pack_frames(x.reshape(3, n), form, 1)
    found = []

    async def bench(ctx):
        async def load(cores):
            ctx.set(dut.codes.load, 1)
            ctx.set(dut.codes.w_en, 1)
            for address, word in code_writes(layout, code_file(layout, cores)):
                ctx.set(dut.codes.addr, address)
                ctx.set(dut.codes.w_data, word)
                await ctx.tick()
            ctx.set(dut.codes.load, 0)
            ctx.set(dut.codes.w_en, 0)

        async def stream(words, results):
            queue, got = list(words), []
            for _ in range(5_000):
                if len(got) == results:
                    break
                ctx.set(dut.i.valid, bool(queue))
                ctx.set(Value.cast(dut.i.payload), queue[0] if queue else 0)
                _, _, ready, valid, word = await ctx.tick().sample(
                    dut.i.ready, dut.o.valid, dut.o.payload.as_value()
                )
                if queue and ready:
                    del queue[0]
                if valid:
                    got.append(word)
            return got

        ctx.set(dut.o.ready, 1)
        await load(old)
        found.append(await stream(payloads[:n], rows))
        await load(images)
        found.append(await stream(payloads, 3 * rows))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    first, again = (unpack_frames(words, out, 1, rows) for words in found)
    expected = network.predict(x).reshape(3, rows)
    assert not np.array_equal(first, expected[:1])
    assert np.array_equal(again, expected)


def signs(code):
    """The sign bit of every lane of a code word."""
    return sum(1 << (p * code.lane_bits + code.gap_bits) for p in range(code.lanes))
