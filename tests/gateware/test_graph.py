"""Graphs of units: bit for bit and cycle for cycle, under stalls, with the smallest FIFOs."""

import json
from dataclasses import replace

import numpy as np
import pytest
from graph_cases import STALLS, check, read_ahead
from random_graphs import Built, RandomNetwork, build, random_network

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.patterns import NONE
from pvq_hw.engine.timing import fifo_needs, least_depths, run_frames, time_graph, with_depths
from pvq_hw.engine.units import CoreUnit, Fifo, Lookup
from pvq_hw.errors import CheckError, InputError
from pvq_hw.geometry import Geometry
from pvq_hw.plan.core_layers import window_weights
from pvq_hw.plan.lowering import plan_graph
from sim.agents.streams import StreamError

U8, S8 = IntFormat(8, False), IntFormat(8, True)


@pytest.mark.parametrize("family", ["ecp5", "up5k"])
def test_tables_are_exact_whatever_they_read_and_give(family: str) -> None:
    """One for all channels and one for each, signed and unsigned, in LUTs and in block RAM."""
    net = RandomNetwork(3, (3, 5, 3), IntFormat(4, True))
    small = net.table(net.input, out=IntFormat(9, True))
    wide = net.table(small, tables=3, out=IntFormat(12, True))
    deep = net.table(wide, out=IntFormat(16, False))
    other = net.table(net.input, tables=3, out=IntFormat(2, False))
    net.add(net.table(other, out=S8), deep)
    built = build(net, family=family, frames=1)
    lookups = [unit for unit in built.graph.units if isinstance(unit, Lookup)]
    assert {unit.memory for unit in lookups} == {"logic", "block"}
    check(built, built.graph, NONE, STALLS)
    assert GraphSpec.from_json(json.loads(json.dumps(built.graph.to_json()))) == built.graph


def test_several_inputs_are_parts_of_a_frame() -> None:
    """A part that waits for a later one, one that is read twice, one of a single activation, and
    one that joins as it comes."""
    net = RandomNetwork(5, (60,), S8)
    image, early, scalar, late = net.parts((4, 5, 2), (12,), (1,), (7,))
    seen = net.maxpool(net.conv(image, 3, (2, 2)), (2, 2), stride=(2, 2))
    net.concat(net.dense(early, 3), net.dense(scalar, 2), early, net.add(net.dense(seen, 7), late))
    built = build(net, frames=1)
    assert [unit.kind for unit in built.graph.units[:5]] == ["fork", "pick", "pick", "fork", "pick"]
    with pytest.raises(CheckError, match="stands still"):
        run_frames(built.graph, built.images, 3)
    check(built, with_depths(built.graph, fifo_needs(built.graph, built.images)))
    least = with_depths(built.graph, least_depths(built.graph, built.images))
    check(built, least, NONE, STALLS)
    assert GraphSpec.from_json(json.loads(json.dumps(built.graph.to_json()))) == built.graph


def test_slices_of_every_axis_are_parts_of_it() -> None:
    """Channels, columns and rows, one after the other, and a whole axis; of an input and of a
    layer; both halves are read."""
    net = RandomNetwork(6, (4, 5, 3))
    first = net.slice(net.input, 2, 0, 1)
    rest = net.slice(net.slice(net.input, 2, 1, 2), 1, 2, 2)
    seen = net.conv(rest, 4, (2, 1))
    halves = net.add(net.slice(seen, 2, 0, 2), net.slice(seen, 2, 2, 2))
    last = net.slice(first, 0, 3, 1)
    net.concat(net.dense(halves, 3), net.dense(last, 2))
    built = build(net, frames=1)
    check(built, with_depths(built.graph, fifo_needs(built.graph, built.images)))
    check(built, with_depths(built.graph, least_depths(built.graph, built.images)), STALLS)


CONVOLUTIONS = {
    "same": ((6, 5, 2), (3, 3), {"pads": ((1, 1), (1, 1))}),
    "valid": ((6, 5, 2), (3, 3), {}),
    "uneven": ((7, 6, 3), (3, 2), {"stride": (2, 1), "pads": ((0, 1), (1, 0))}),
    "one_dimension": (
        (1, 12, 4),
        (1, 3),
        {"stride": (1, 2), "pads": ((0, 0), (1, 1)), "dilation": (1, 2)},
    ),
    "gaps_between_windows": ((9, 9, 1), (2, 2), {"stride": (3, 3)}),
    "points": ((8, 8, 4), (1, 1), {"stride": (2, 2)}),
    "dilated": ((5, 5, 2), (3, 3), {"pads": ((2, 2), (2, 2)), "dilation": (2, 2)}),
    "whole_map": ((4, 4, 2), (4, 4), {}),
    "windows_in_the_padding": ((4, 4, 2), (2, 2), {"stride": (2, 2), "pads": ((3, 3), (3, 3))}),
}


# Of the other family, whose memories answer sooner, three in the short run.
ON_ICE40 = ("same", "points", "gaps_between_windows")


@pytest.mark.parametrize(
    ("case", "family"),
    [*((case, "ecp5") for case in CONVOLUTIONS),
     *(pytest.param(case, "up5k", marks=[pytest.mark.slow] * (case not in ON_ICE40))
       for case in CONVOLUTIONS)],
)  # fmt: skip
def test_convolutions_are_exact_with_any_rows(case: str, family: str) -> None:
    shape, kernel, geometry = CONVOLUTIONS[case]
    net = RandomNetwork(1, shape)
    net.conv(net.input, 3, kernel, **geometry)
    built = build(net, family=family, lanes={"conv0": shape[2] if shape[2] > 1 else 2}, frames=1)
    if family == "ecp5":
        check(built, built.graph)
    unit = built.graph.units[0]
    assert isinstance(unit, CoreUnit)
    assert unit.window is not None
    window = replace(unit.window, rows=unit.window.least_rows)
    tight = replace(built.graph, units=(replace(unit, window=window),))
    check(built, tight, NONE, STALLS)


POOLINGS = {
    "streamed": ((6, 6, 4), (2, 2), {"stride": (2, 2)}),
    "border": ((5, 7, 4), (2, 3), {"stride": (3, 3), "pads": ((1, 0), (1, 1))}),
    "global": ((4, 4, 5), (4, 4), {}),
    "overlapping": ((6, 6, 4), (3, 3), {"stride": (2, 2), "pads": ((1, 1), (1, 1))}),
    "one_channel": ((6, 6, 1), (2, 2), {"stride": (2, 2)}),
}


@pytest.mark.parametrize("case", POOLINGS)
@pytest.mark.parametrize("form", [U8, S8])
@pytest.mark.parametrize("kind", ["max", "mean", "mean_with_pads"])
def test_poolings_are_exact(case: str, form: IntFormat, kind: str) -> None:
    shape, kernel, geometry = POOLINGS[case]
    net = RandomNetwork(2, shape, form)
    if kind == "max":
        net.maxpool(net.input, kernel, **geometry)
    else:
        net.average(net.input, kernel, include=kind == "mean_with_pads", **geometry)
    built = build(net, frames=1)
    check(built, built.graph, NONE if form is U8 else STALLS)
    if case == "global":  # nothing overlaps, whatever the stride: no map is kept
        assert built.graph.units[0].window is None


def test_line_buffers_keep_more_rows_where_their_block_ram_has_room() -> None:
    found = {}
    for width, channels in ((12, 8), (32, 16)):
        net = RandomNetwork(1, (9, width, channels))
        net.conv(net.input, 3, (3, 3), stride=(2, 1))
        window = build(net, lanes={"conv0": 4}, frames=1).graph.units[0].window
        found[width] = (window.rows - window.least_rows, window.depth)
    # 7 rows of 12 x 8 channels are 168 words of 32 bits, a block has 512; of 32 x 16 channels they
    # are 896, and 5 rows, 640, take two blocks as well.
    assert found == {12: (4, 168), 32: (4, 896)}


# Small ones with joins of every kind and FIFOs that must be deep.
@pytest.mark.parametrize(
    ("seed", "family"),
    [
        *[(58, "ecp5"), (25, "up5k")],
        pytest.param(79, "hx8k", marks=pytest.mark.slow),
        pytest.param(16, "ecp5", marks=pytest.mark.slow),
        pytest.param(36, "hx8k", marks=pytest.mark.slow),
    ],
)
def test_random_networks_run_with_their_fifos_and_hang_with_less(seed: int, family: str) -> None:
    built = build(random_network(seed), family=family, frames=2)
    assert GraphSpec.from_json(built.graph.to_json()) == built.graph
    least = least_depths(built.graph, built.images)
    assert max(least.values()) > 2
    quiet = 500  # enough for those that run
    check(built, with_depths(built.graph, fifo_needs(built.graph, built.images)), quiet=quiet)
    check(built, with_depths(built.graph, least), NONE, STALLS, quiet=quiet)
    for name, depth in least.items():
        if depth > 2:
            short = with_depths(built.graph, least | {name: depth - 1})
            with pytest.raises(CheckError, match="stands still"):
                run_frames(short, built.images, 3)
            long = replace(built, x=np.concatenate([built.x] * 2))
            with pytest.raises(StreamError, match="No stream moved"):
                check(long, short, quiet=quiet)


def residual(family: str = "ecp5") -> Built:
    net = RandomNetwork(3, (6, 6, 2))
    branch = net.conv(net.input, 2, (3, 3), pads=((1, 1), (1, 1)))
    net.add(net.input, net.conv(branch, 2, (3, 3), pads=((1, 1), (1, 1))))
    return build(net, family=family, frames=2)


def test_a_skip_branch_needs_the_depth_that_the_plan_gives() -> None:
    built = residual()
    depth = fifo_needs(built.graph, built.images)
    assert max(depth.values()) > 2
    deep = with_depths(built.graph, depth)
    deeper = with_depths(built.graph, {name: 2 * d for name, d in depth.items()})
    # No FIFO holds anything up: more depth changes nothing.
    assert time_graph(deep, built.images) == time_graph(deeper, built.images)


@pytest.mark.parametrize(("family", "latency"), [("ecp5", 4), ("hx8k", 2)])
def test_a_fifo_that_is_read_ahead_keeps_the_pace(family: str, latency: int) -> None:
    """With places for what comes later, it holds nothing up; with few, all goes on as planned."""
    built = residual(family)
    needs = fifo_needs(built.graph, built.images)
    ahead = read_ahead(built.graph, dict.fromkeys(needs, latency))
    assert {unit.delay for unit in ahead.units if isinstance(unit, Fifo)} == {latency + 3}
    later = sum(latency + 1 for _ in needs)
    deep = with_depths(ahead, {name: depth + later for name, depth in needs.items()})
    pace = time_graph(with_depths(built.graph, needs), built.images).interval_cycles
    assert time_graph(deep, built.images).interval_cycles == pace
    check(built, deep, NONE, STALLS)
    check(built, with_depths(ahead, needs), NONE, STALLS)


def test_a_fifo_of_several_block_rams_is_read_ahead() -> None:
    """On an iCE40 4 blocks in depth, chosen among in two steps; on an ECP5 it always is, since
    blocks have a register of their own."""
    net = RandomNetwork(3, (24, 30, 2))
    branch = net.conv(net.input, 2, (15, 1), pads=((7, 7), (0, 0)))
    net.add(net.input, net.conv(branch, 2, (15, 1), pads=((7, 7), (0, 0))))
    for family, expected in (("hx8k", {2}), ("ecp5", {2})):
        built = build(net, frames=2, family=family)
        layers = [(core, built.images[core.name]) for core in built.graph.cores]
        graph = plan_graph(built.network, layers, family)
        fifos = [unit for unit in graph.units if isinstance(unit, Fifo) and unit.depth > 512]
        assert {unit.latency for unit in fifos} == expected


def test_depthwise_rows_see_their_own_group() -> None:
    net = RandomNetwork(4, (4, 4, 3))
    net.conv(net.input, 6, (2, 2), groups=3, k=3)
    layer = net.layers[0]
    full = window_weights(layer.y, layer.geometry, layer.groups).reshape(6, 4, 3)
    for row in range(6):
        assert np.array_equal(full[row, :, row // 2], layer.y[row])
        assert not np.delete(full[row], row // 2, axis=1).any()
    built = build(net)
    check(built, built.graph)


def test_graphs_that_are_none_are_refused() -> None:
    built = residual()
    with pytest.raises(InputError, match="must read its input"):
        replace(built.graph, units=built.graph.units[1:])
    with pytest.raises(InputError, match="must take what wire"):
        replace(built.graph, units=(*built.graph.units[:1], *built.graph.units[2:]))
    with pytest.raises(InputError, match="Wires o of the graph are read by no unit"):
        replace(built.graph, output="elsewhere")
    value = built.graph.to_json()
    value["units"][0]["kind"] = "spoon"
    kinds = r"units\[0\].kind must be .*core or fifo .*, not 'spoon'; did you mean pool"
    with pytest.raises(InputError, match=kinds):
        GraphSpec.from_json(value)


def test_windows_are_checked() -> None:
    g = Geometry((4, 4, 3), (3, 3))
    net = RandomNetwork(5, (4, 4, 3))
    net.conv(net.input, 2, (3, 3))
    unit = build(net, lanes={"conv0": 3}).graph.units[0]
    assert isinstance(unit, CoreUnit)
    assert unit.window is not None
    assert (unit.window.width, unit.window.geometry) == (3, g)
    with pytest.raises(InputError, match="width must divide 3 channels, not 2"):
        replace(unit.window, width=2)
    with pytest.raises(InputError, match="rows must be at least 3, not 2"):
        replace(unit.window, rows=2)
