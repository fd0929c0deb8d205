"""Control of units around the cores is proven for any pauses, and no mutant of it is."""

import re
from dataclasses import replace

import pytest
from control_mutants import changed, unit_mutants
from graph_cases import read_ahead
from proof_cases import ship
from random_graphs import RandomNetwork, build

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.timing import with_depths
from pvq_hw.errors import CheckError, InputError
from sim.proof.netlist import each_reset, read_units
from sim.proof.unit_handshakes import check_unit_handshakes

# What is the same circuit: with two parts a counter that is at its end goes on to 0 by itself.
EQUAL = {("input_width", "_06_", "never"), ("fc7_width", "_06_", "never")}
# What decides values alone: which payload and multiplier a concatenation takes, which activations
# a pooling merges, and flags of these.
VALUES = re.compile(
    r"cat3 _(20|21|02)_|(pool4|mean5) (_\d\d_$|.*ram\b|.*walk\b|inside_|first|last)"
)


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    """Each kind of unit that is followed, and its netlist."""
    net = RandomNetwork(5, (6, 6, 2), IntFormat(4, True))
    x = net.conv(net.input, 3, (3, 3), pads=((1, 1), (1, 1)), out=IntFormat(5, True))
    y = net.table(x, tables=3, out=IntFormat(5, True))
    y = net.concat(x, net.add(x, y, out=IntFormat(6, False)))
    y = net.average(net.maxpool(y, (2, 2), stride=(2, 2)), (2, 1), stride=(2, 1))
    net.dense(net.slice(y, 2, 1, 2), 4)
    built = build(net, unrolled={"fc7"}, widths={"fc7": 2}, ends=(4, 1))
    graph = with_depths(built.graph, {"cat3_fifo1": 11})  # more than are read ahead
    built = replace(built, graph=read_ahead(graph, {"cat3_fifo1": 3}))
    out = ship(tmp_path_factory.mktemp("units") / "out", built)
    named = {unit.name: unit for unit in built.graph.units}
    netlists = read_units(out, list(named))
    return {name: (unit, netlists[name]) for name, unit in named.items() if unit.kind != "core"}


def test_no_frame_is_lost_or_made_whatever_the_pauses(units):
    found = {name: check_unit_handshakes(*pair) for name, pair in units.items()}
    assert found == {
        "input_width": 13, "conv0_fork": 19, "table1": 34, "add2_fifo0": 31, "add2_fifo1": 31,
        "add2": 31, "cat3_fifo0": 31, "cat3_fifo1": 48, "cat3": 39, "pool4": 31, "mean5": 31,
        "part6": 8, "fc7_width": 13,
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "input_width",
        "conv0_fork",
        "add2_fifo0",
        "cat3_fifo1",
        "add2",
        "table1",
        "part6",
        "fc7_width",
    ]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("cat3", "pool4", "mean5")],
)
def test_no_mutant_of_the_control_is_proven(units, name):
    unit, netlist = units[name]
    for cell, kind, instead in unit_mutants(netlist):
        if (name, cell, kind) in EQUAL or VALUES.match(f"{name} {cell}"):
            continue
        with pytest.raises((CheckError, InputError)):
            pytest.fail(f"{cell}, {kind}: {check_unit_handshakes(unit, changed(netlist, instead))}")


@pytest.mark.parametrize(
    ("pool", "cell", "kind", "what"),
    [
        ("pool4", "first", "only A", "transfer 36 of a frame must have another 'first'"),
        ("pool4", "last", "only A", "transfer 6 of a frame must have another 'last'"),
        ("mean5", "inside_", "only A", "transfer 36 of a frame must have another 'inside'"),
    ],
)
def test_transfers_of_other_windows_are_found(units, pool, cell, kind, what):
    unit, netlist = units[pool]
    found = {(name, how): instead for name, how, instead in unit_mutants(netlist)}
    with pytest.raises(CheckError, match=what):
        check_unit_handshakes(unit, changed(netlist, found[cell, kind]))


def test_poolings_of_windows_are_proven_and_no_mutant_of_their_control_is(tmp_path):
    net = RandomNetwork(1, (5, 5, 2))
    net.maxpool(net.input, (3, 3))
    built = build(net)
    (unit,) = built.graph.units
    netlist = read_units(ship(tmp_path / "out", built), [unit.name])[unit.name]
    assert check_unit_handshakes(unit, netlist) == 87
    for cell, kind, instead in unit_mutants(netlist):
        # The line buffer's own are in `test_line_buffers`; and what is a window's first is a value.
        if "reader." in cell or cell in ("_06_", "_07_"):
            continue
        other = changed(netlist, instead)
        with pytest.raises((CheckError, InputError)):
            pytest.fail(f"{cell}, {kind}: {check_unit_handshakes(unit, other)}")


def test_each_of_two_resets_forgets_everything(units):
    """Where codes are loaded, units are also reset while they are."""
    unit, netlist = units["table1"]
    (rst,), second, cells = netlist.port("rst"), 10**6, []
    muxes = [c for c in netlist.cells if c.type == "$mux" and c.ports["S"] == [rst]]
    for cell in netlist.cells:
        if cell in muxes:
            at = second + 10 * (1 + muxes.index(cell))
            inner = [at + k for k in range(len(cell.output))]
            ports = {**cell.ports, "S": [second], "Y": inner}
            cells.append(replace(cell, name=f"{cell.name} inner", ports=ports))
            cell = replace(cell, ports={**cell.ports, "A": inner})
        cells.append(cell)
    ports = {**netlist.ports, "port_1_0": ("input", [second])}
    both = replace(netlist, cells=cells, ports=ports)
    assert each_reset(netlist) == [netlist]
    assert [check_unit_handshakes(unit, view) for view in each_reset(both)] == [34, 34]
    lost = next(c for c in cells if c.name.endswith("inner") and c.ports["A"] != c.ports["B"])
    cells = [replace(c, ports={**c.ports, "B": c.ports["A"]}) if c is lost else c for c in cells]
    first, other = each_reset(replace(both, cells=cells))
    assert check_unit_handshakes(unit, first) == 34
    with pytest.raises(CheckError, match="after reset"):
        check_unit_handshakes(unit, other)


def test_what_is_not_followed_is_named(toys):
    four = IntFormat(4, True)
    unit = toys.RunningSumUnit("sum", ("i",), ("o",), four, four, size=4)
    with pytest.raises(InputError, match="control of a unit of kind running_sum is not followed"):
        check_unit_handshakes(unit, None)
