"""Convolutions that take several windows of a map side by side: bit for bit, cycle for cycle."""

from dataclasses import replace

import numpy as np
import pytest
from graph_cases import STALLS, check
from proof_cases import core_parts, ship
from random_graphs import RandomNetwork, build

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.line_buffer import make_window
from pvq_hw.engine.map_order import MapOrder, map_order
from pvq_hw.engine.timing import fifo_needs, least_depths, with_depths
from pvq_hw.errors import CheckError, InputError
from pvq_hw.geometry import Geometry
from sim.proof.frames import check_frames
from sim.proof.moves import check_moves, leaf_activations
from sim.proof.netlist import read_units
from sim.proof.structure import check_structure
from sim.proof.sums import RowSums
from sim.proof.traced_sums import coded_frames


def many(family):
    """Convolutions one behind the other: strides, dilation, padding without and with windows in it;
    the last windows of a row are fewer than V, or as many."""
    net = RandomNetwork(1, (3, 7, 2))
    x = net.conv(net.input, 4, (3, 3), pads=((1, 1), (1, 1)))
    x = net.conv(x, 3, (3, 2), stride=(1, 2), pads=((0, 1), (1, 0)))
    x = net.conv(x, 4, (1, 3), pads=((0, 0), (2, 2)), dilation=(1, 2))
    x = net.conv(x, 2, (1, 1))
    net.conv(x, 3, (2, 2), stride=(2, 2), pads=((0, 0), (3, 3)))
    sides = {"conv0": 3, "conv1": 4, "conv2": 3, "conv3": 2, "conv4": 4}
    lanes = {"conv0": 2, "conv1": 3, "conv2": 6, "conv3": 4, "conv4": 2}
    return build(net, family=family, sides=sides, lanes=lanes, frames=1)


@pytest.mark.parametrize("family", ["ecp5", pytest.param("up5k", marks=pytest.mark.slow)])
def test_windows_side_by_side_are_exact_with_few_rows_and_with_stalls(family):
    built = many(family)
    assert GraphSpec.from_json(built.graph.to_json()) == built.graph
    least = [
        replace(unit, window=replace(unit.window, rows=unit.window.least_rows))
        for unit in built.graph.units
    ]
    check(built, replace(built.graph, units=tuple(least)), STALLS)
    if family == "ecp5":
        check(built, built.graph)


def test_branches_with_the_smallest_fifos_run_as_planned():
    net, same = RandomNetwork(2, (4, 5, 1)), {"pads": ((1, 1), (1, 1))}
    x = net.conv(net.input, 2, (3, 3), k=12, **same)
    net.maxpool(net.add(x, net.conv(x, 2, (3, 3), k=9, **same)), (2, 2), stride=(2, 2))
    built = build(net, sides={"conv0": 3, "conv1": 2}, frames=1)
    deep, least = fifo_needs(built.graph, built.images), least_depths(built.graph, built.images)
    check(built, with_depths(built.graph, deep))
    check(built, with_depths(built.graph, least))


def test_signs_which_have_no_zero_are_read_too():
    """A row's last windows are fewer than V: the others reach beyond the map."""
    net = RandomNetwork(3, (4, 6, 2), IntFormat(1, True))
    net.conv(net.conv(net.input, 4, (2, 2), k=6, out=IntFormat(1, True)), 2, (1, 3), k=3)
    signs = net.layers[0]
    net.layers[0] = replace(signs, mult=np.ones_like(signs.mult), bias=signs.bias - 1000, shift=1)
    built = build(net, sides={"conv0": 3, "conv1": 2}, frames=2)
    check(built, built.graph)


# -- what is read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [2, 3, 4])
def test_a_segment_has_the_columns_of_its_windows_once(side):
    """Whatever stride, dilation and padding: the words of part v are window v's, in order."""
    for kernel, stride, dilation, pads in (
        ((2, 3), (1, 1), (1, 1), (1, 1)),
        ((1, 2), (1, 3), (1, 1), (0, 2)),
        ((1, 2), (2, 1), (1, 3), (3, 0)),
        ((1, 1), (1, 2), (1, 1), (0, 0)),
    ):
        g = Geometry((3, 9, 2), kernel, stride, ((0, 0), pads), dilation)
        window = make_window(g, UNSIGNED, 2, side=side)
        columns = g.output_size[1]
        x = np.random.default_rng(0).integers(1, 256, (1, 3, 9, 2))
        read = window.segment.compute(x).reshape(
            -1, window.groups, kernel[0], len(window.parts()), 2
        )
        assert len(window.parts()) == (kernel[1] - 1) * dilation[1] + 1 + (side - 1) * stride[1]
        whole = window.compute(x).reshape(-1, columns, kernel[0], kernel[1], 2)
        for v in range(side):
            own = [bits >> v & 1 for bits in window.parts()]
            found = read[:, :, :, np.flatnonzero(own)]
            number = np.arange(window.groups) * side + v
            inside = number < columns
            assert np.array_equal(found[:, inside], whole[:, number[inside]])


UNSIGNED = RandomNetwork(0, (1,)).input.format


def test_results_beyond_the_end_of_a_row_are_not_counted():
    assert MapOrder(UNSIGNED, 3, 4, 10).counts == (4, 4, 2)
    assert MapOrder(UNSIGNED, 3, 5, 10).counts == (5, 5)
    core = many("ecp5").graph.cores[0]
    assert map_order(core).counts == (3, 3, 1)
    assert map_order(replace(core, frames=1, row_windows=0)) is None


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"frames": 1}, "a row of 7 windows must have 2 or more side by side, not 1"),
        ({"frames": 8}, "a row of 7 windows must have 2 or more side by side, not 8"),
        ({"flush_cycles": 8}, "flush_cycles must be 0 where windows are side by side"),
        ({"row_windows": -1}, "row_windows must be 0 to 1048576, not -1"),
    ],
)
def test_impossible_numbers_of_windows_are_refused(change, line):
    core = many("ecp5").graph.cores[0]
    with pytest.raises(InputError, match=line):
        replace(core, **change)


def test_windows_that_do_not_suit_the_core_are_refused():
    unit = many("ecp5").graph.units[0]
    for other in (replace(unit.window, side=2), replace(unit.window, side=1)):
        with pytest.raises(InputError, match="must take as many windows side by side as are read"):
            replace(unit, window=other)
    with pytest.raises(InputError, match="must be 1 to 7, a row of the map, not 8"):
        replace(unit.window, side=8)


# -- proofs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2])
def test_proofs_follow_windows_side_by_side(tmp_path, width):
    net = RandomNetwork(5, (3, 5, width))
    net.conv(net.input, 2 + width, (2, 3), pads=((0, 0), (1, 1)))
    built = build(net, sides={"conv0": 2}, lanes={"conv0": 2}, ends=(width,) * 2,
                  widths={"conv0": width})  # fmt: skip
    ((layer, unit),) = core_parts(built)
    netlist = read_units(ship(tmp_path / "out", built), ["conv0"])["conv0"]
    assert unit.widths == (width, width)
    sums = RowSums.of(layer, unit.core, built.images["conv0"])
    assert check_structure(netlist).leaks == []
    ends = leaf_activations(netlist, unit.core)
    assert check_moves(netlist, unit.core, ends, window=unit.window) > 0
    assert check_frames(netlist, unit, sums, lambda *_: None).sums > 0
    swapped = replace(unit, window=replace(unit.window, geometry=_shifted(unit.window.geometry)))
    with pytest.raises(CheckError, match="Sums of layer"):
        check_frames(netlist, swapped, sums, lambda *_: None)
    # A bit of another lane's activation, as the leaf computes with it and as it is looked at.
    one, other = ends[0][0], ends[1][0]
    (reader,) = [c for c in netlist.cells if one in c.inputs and "leaf0_0" in c.name]
    ports = {
        port: [other if bit == one else bit for bit in bits] for port, bits in reader.ports.items()
    }
    crossed = [replace(c, ports=ports) if c is reader else c for c in netlist.cells]
    nets = {**netlist.nets, "leaf0_0.x": [other, *ends[0][1:]]}
    for broken in (replace(netlist, nets=nets), replace(netlist, cells=crossed)):
        with pytest.raises(CheckError, match=r"Leaves of core 'conv0' must be|Sums of layer"):
            check_frames(broken, unit, sums, lambda *_: None)


@pytest.mark.parametrize("form", [IntFormat(8, False), IntFormat(4, True), IntFormat(1, True)])
@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 8, 100])
def test_coded_frames_tell_activations_apart(size, form):
    frames = coded_frames(size, form)
    codes = {tuple(column) for column in frames.T}
    assert (len(codes), frames.shape[1]) == (size, size)
    assert all(len(set(code)) == 2 for code in codes)
    assert set(np.unique(frames)) == {0 if form.bits > 1 else 1, -1 if form.signed else 255}


def _shifted(g):
    """The windows a column further to the left."""
    return replace(g, pads=(g.pads[0], (g.pads[1][0] + 1, g.pads[1][1] - 1)))
