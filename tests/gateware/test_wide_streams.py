"""Streams of several activations a transfer: exact, every cycle as the timing has it."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator
from graph_cases import STALLS, check
from random_graphs import Built, RandomNetwork, build

from gateware.units.converter import ConverterUnit, Gatherer
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.patterns import NONE
from pvq_hw.engine.timing import fifo_needs, run_frames, time_graph, with_depths
from pvq_hw.engine.units import Fork, Pool, WidthConverter
from pvq_hw.errors import InputError
from pvq_hw.flow.options import CompileOptions
from pvq_hw.plan.image import Image
from pvq_hw.plan.plan import plan
from sim.reference import load_reference, reference_outputs
from sim.run import simulate

U8, S8 = IntFormat(8, False), IntFormat(8, True)
SAME = ((1, 1), (1, 1))
WIRED = {"unrolled": {"conv0", "conv1", "conv7", "fc8"}}


def every_unit(seed: int = 4) -> RandomNetwork:
    net = RandomNetwork(seed, (6, 6, 2))
    x = net.conv(net.input, 8, (3, 3), k=5, pads=SAME)
    y = net.conv(x, 4, (1, 1), k=6, out=U8)
    z = net.average(net.concat(x, y), (2, 2), stride=(2, 2))
    z = net.add(net.maxpool(net.table(z, tables=12), (1, 1)), z)
    z = net.conv(z, 6, (3, 3), pads=SAME)
    net.dense(z, 4, groups=3)
    return net


def deep(built: Built) -> GraphSpec:
    return with_depths(built.graph, fifo_needs(built.graph, built.images))


@pytest.mark.parametrize(
    ("widths", "ends"),
    [
        ({"conv0": 8, "conv1": 4, "conv7": 3, "fc8": 4}, (2, 4)),
        pytest.param(
            {"conv0": 4, "conv1": 1, "conv7": 2, "fc8": 2}, (1, 1), marks=pytest.mark.slow
        ),
    ],
)
def test_units_of_every_kind_take_and_give_several_activations_a_transfer(widths, ends):
    built = build(every_unit(), widths=widths, ends=ends, frames=1, **WIRED)
    kinds = {u.kind for u in built.graph.units if max(u.widths) > 1}
    assert kinds == {"core", "fork", "fifo", "join", "pool", "lookup", "converter"}
    assert built.graph.widths == ends
    graph = deep(built)
    for pattern in (NONE, STALLS):
        check(built, graph, pattern)


def test_windows_side_by_side_give_several_results_a_transfer():
    net = RandomNetwork(9, (5, 7, 4))
    x = net.conv(net.input, 6, (3, 3), k=8, pads=SAME)
    net.conv(x, 4, (3, 3), k=9, stride=(1, 2))
    sides, lanes = {"conv0": 3, "conv1": 2}, {"conv0": 2, "conv1": 6}
    built = build(net, sides=sides, lanes=lanes, widths={"conv0": 3, "conv1": 4}, frames=1)
    assert [u.widths for u in built.graph.units] == [(1, 3), (3, 4), (4, 1)]
    for pattern in (NONE, STALLS):
        check(built, built.graph, pattern)


def test_short_pixels_are_pooled_in_a_row_before_they_meet_the_rows_above():
    """Partial results would be read before they are written: a transfer is a pixel."""
    net = RandomNetwork(3, (5, 7, 2), S8)
    x = net.maxpool(net.input, (2, 3), stride=(2, 3))
    net.average(x, (2, 2), include=False)
    built = build(net, ends=(2, 1), frames=3)
    pools = [u for u in built.graph.units if isinstance(u, Pool)]
    assert (pools[0].chained, pools[0].width, pools[0].window) == (True, 2, None)
    for pattern in (NONE, STALLS):
        check(built, built.graph, pattern)


def test_pipelined_layers_take_a_frame_a_cycle_where_all_of_it_comes_and_goes_at_once():
    net = RandomNetwork(5, (12,))
    net.dense(net.dense(net.input, 8, k=9), 4, k=6)
    names, frames = {"fc0", "fc1"}, 20
    built = build(net, unrolled=names, widths={"fc0": -8, "fc1": -4}, ends=(12, 4), frames=frames)
    timing = time_graph(built.graph, built.images)
    assert timing.interval_cycles == 1
    # Multiplier, bias, saturation and a place in the FIFO follow the adders, and nothing else.
    delays = [core.levels + core.multiplier_delay + 3 for core in built.graph.cores]
    assert timing.latency_cycles == sum(delays)
    for pattern in (NONE, STALLS):
        check(built, built.graph, pattern)


def test_multipliers_of_rows_that_leave_at_once_may_be_adders():
    net = RandomNetwork(5, (12,), IntFormat(3, True))
    x = net.dense(net.input, 8, k=1, shift=1)  # the last bit of a sum matters
    net.dense(net.dense(x, 6, k=5), 4, k=6, sign=True)
    names, widths = {"fc0", "fc1", "fc2"}, {"fc0": -8, "fc1": 6, "fc2": -4}
    gains = {"fc0", "fc1"}
    built = build(net, unrolled=names, widths=widths, ends=(12, 4), frames=20, gains=gains)
    first = built.graph.cores[0]
    found = first.gain_graphs(built.images[first.name])
    assert {g.sums[0].negative for g in found} == {False, True}
    assert len({g.depth for g in found}) > 1  # some wait for the others
    for pattern in (NONE, STALLS):
        check(built, built.graph, pattern)
    with pytest.raises(InputError, match="a result for each row at once to wire multipliers"):
        replace(first, out_width=4)


def test_pipelined_layers_give_their_results_in_several_transfers_too():
    net = RandomNetwork(4, (4, 5, 2))
    x = net.dense(net.conv(net.input, 4, (3, 3), k=5, pads=SAME), 6, k=20, groups=2)
    net.dense(x, 4, k=9, sign=True)
    widths = {"conv0": -2, "fc1": -3, "fc2": -2}
    built = build(net, unrolled=set(widths), widths=widths, frames=3)
    assert all(core.pipelined for core in built.graph.cores)
    for pattern in (NONE, STALLS):
        check(built, built.graph, pattern)
    with pytest.raises(InputError, match="fifo_depth must be a frame's 20 transfers or more"):
        replace(built.graph.cores[0], rows=20, out_width=1, fifo_depth=16)


@pytest.mark.parametrize(
    ("unit", "taken", "given"), [(ConverterUnit, 1, 4), (ConverterUnit, 4, 1), (Gatherer, 1, 4)]
)
def test_converters_lose_nothing_where_they_wait(unit, taken, given):
    """A gatherer takes nothing while it holds a transfer, whatever is taken of it."""
    spec = WidthConverter("c", ("i",), ("o",), U8, 12, taken, given)
    dut = unit(spec)
    rng = np.random.default_rng(taken)
    sent, got, taken_on = rng.integers(0, 256, 48).tolist(), [], []

    async def bench(ctx):
        at = 0
        for _ in range(400):
            part = sent[at : at + taken] if rng.random() < 0.8 else []
            ctx.set(dut.i.valid, bool(part))
            ctx.set(dut.i.payload, part or [0] * taken)
            ctx.set(dut.o.ready, bool(rng.random() < 0.4))
            offered = ctx.get(dut.o.valid)
            if offered and ctx.get(dut.o.ready):
                got.extend(ctx.get(value) for value in dut.o.payload)
            if part and ctx.get(dut.i.ready):
                at += taken
                taken_on.append(offered)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert got == sent
    assert any(taken_on) == (unit is ConverterUnit)


def test_a_wider_stream_takes_fewer_cycles():
    found = []
    for width in (1, 2, 8):
        built = build(every_unit(), widths={"conv0": width}, frames=2, **WIRED)
        wires = run_frames(built.graph, built.images, 2)
        moved = wires[built.graph.units[0].outputs[0]].moved
        assert len(moved) == 2 * 36 * 8 // width
        found.append(moved[-1])
    assert found[0] > found[1] > found[2]


@pytest.mark.slow
@pytest.mark.parametrize("simulator", ["amaranth", "compiled"])
def test_wide_ends_are_simulated_as_others_are(simulator):
    built = build(every_unit(), widths={"conv0": 8, "fc8": 2}, ends=(2, 4), frames=3, **WIRED)
    images = [built.images[core.name] for core in built.graph.cores]
    result = simulate(deep(built), images, built.x, simulator, settle=False)
    trace = built.network.trace(built.x)
    for values, layer in zip(result.outputs.values(), built.network.layers, strict=True):
        assert np.array_equal(values, trace[layer.name].reshape(3, -1)), layer.name


def test_memory_files_hold_a_transfers_multipliers_and_biases_in_a_word(tmp_path):
    built = build(every_unit(), widths={"conv0": 4, "fc8": 2}, frames=2, **WIRED)
    cores = built.graph.cores
    image = Image(tuple(cores), tuple(built.images[core.name] for core in cores))
    image.write(tmp_path)
    assert Image.load(tmp_path, cores) == image
    assert cores[-1].memories["fc8_mult"] == (2 * cores[-1].mult_bits, 4 * 3 // 2)
    reference = load_reference([core.to_json() for core in cores], tmp_path / "image")
    frames = built.x.reshape(2, -1).tolist()
    outputs = reference_outputs(built.graph.to_json(), reference, frames)
    trace = built.network.trace(built.x)
    last = built.network.layers[-1].name
    assert outputs["fc8"] == trace[last].tolist()


def test_widths_that_do_not_divide_are_refused():
    def refused(text, make):
        with pytest.raises(InputError, match=text):
            make()

    refused("must have two widths of which one divides the other, and both 12, not 4 and 6",
            lambda: WidthConverter("c", ("i",), ("o",), U8, 12, 4, 6))  # fmt: skip
    refused("must divide 12, not 5", lambda: Fork("f", ("i",), ("o",), U8, 12, 5))
    refused("must divide the 72 of 'x', not 5", lambda: build(every_unit(), ends=(5, 1)))
    converters = (
        WidthConverter("a", ("i",), ("w",), U8, 12, 1, 4),
        WidthConverter("b", ("w",), ("o",), U8, 12, 2, 1),
    )
    refused("takes 2 activations a transfer, but wire 'w' gives 4", lambda: GraphSpec(converters))


def test_the_planner_takes_the_widths_that_are_asked_for_and_names_what_cannot():
    network = every_unit().network()
    each = {"conv0": {"engine": "unrolled", "stream_width": 4}, "fc8": {"stream_width": 2}}
    planned = plan(network, "ulx3s-25f", each=each, engine="auto", widths=(2, 4))
    assert planned.graph.widths == (2, 4)
    assert [layer.spec.out_width for layer in planned.layers][::3] == [4, 2]
    assert planned.layers[3].unrolled, "dense layers in lanes give one result at a time"
    for asked, text in (
        ({"fc8": {"stream_width": 3}}, "'fc8': results a transfer must divide its 4 rows, not 3"),
        ({"fc8": {"engine": "folded", "stream_width": 2}},
         "'fc8' must give one result a transfer, not 2: it is dense and folded"),
        ({"conv0": {"engine": "folded", "stream_width": 2, "windows": 1}},
         "'conv0' must give one result a transfer, not 2: its windows are computed one at a time"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=text):
            plan(network, "ulx3s-25f", each=asked)
    with pytest.raises(InputError, match="Results a transfer must be 1 to 4,096, not 0"):
        CompileOptions(stream_width=0)


def test_folded_layers_whose_width_asks_for_several_windows_are_planned():
    """None of their choices takes as few windows as may be, where more were not tried."""
    net = RandomNetwork(5, (5, 5, 1))
    net.dense(net.conv(net.conv(net.input, 3, (2, 2)), 2, (2, 2)), 3)
    planned = plan(net.network(), "ulx3s-25f", stream_width=3, widths=(5, 1), engine="auto")
    assert planned.graph.widths == (5, 1)
    assert planned.layers[0].spec.out_width == 3


def test_the_planner_widens_streams_where_that_makes_a_network_faster():
    net = RandomNetwork(5, (8, 8, 2))
    x = net.conv(net.input, 8, (3, 3), k=4, pads=SAME)
    net.maxpool(net.conv(x, 8, (3, 3), k=4, pads=SAME), (2, 2), stride=(2, 2))
    network = net.network()
    narrow = plan(network, "ulx3s-85f", stream_width=1, engine="auto")
    free = plan(network, "ulx3s-85f", engine="auto")
    assert narrow.interval_cycles >= 8 * 8 * 8
    assert free.interval_cycles < 0.8 * narrow.interval_cycles
    assert max(layer.spec.out_width for layer in free.layers) > 1
