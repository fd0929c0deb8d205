"""What units around the cores do with values is proven, and each wrong cell is found."""

from dataclasses import replace

import pytest
from control_mutants import changed, unit_mutants, wrong_cell
from proof_cases import ship
from random_graphs import RandomNetwork, build

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.decision import AboveUnit, LargestUnit, SmoothedUnit
from pvq_hw.engine.units import Join, Lookup
from pvq_hw.errors import CheckError, PvqError
from pvq_hw.network.decision import Above, Largest, Smoothed
from pvq_hw.network.layer import TensorSpec
from sim.proof.decisions import check_largest, check_largest_handshakes
from sim.proof.netlist import read_units
from sim.proof.smoothed import check_smoothed
from sim.proof.unit_handshakes import check_unit_handshakes
from sim.proof.units import check_sum, check_table, check_thresholds

S4, U5 = IntFormat(4, True), IntFormat(5, False)
OTHER = {"$add": "$sub", "$mul": "$add", "$gt": "$lt", "$lt": "$ge", "$ge": "$lt", "$and": "$or",
         "$or": "$and", "$not": "$pos", "$eq": "$ne"}  # fmt: skip
CONTROL = ("queue.", "credits.")
CHECKS = {Join: check_sum, Lookup: check_table, AboveUnit: check_thresholds}
KINDS = (*CHECKS, LargestUnit, SmoothedUnit)


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    """A sum, tables and a concatenation, of two activations a transfer; thresholds of several
    kinds."""
    net = RandomNetwork(5, (2, 2, 4), S4)
    x = net.table(net.input, tables=4, out=S4)
    net.concat(net.add(net.input, x, out=U5), x, out=S4)
    wide = units_of(tmp_path_factory, net, ends=(2, 2))
    net = RandomNetwork(5, (8,), S4)
    above = TensorSpec("above0_out", (8,), IntFormat(2, False), 1.0)
    net._add(Above("above0", net.input.name, above, (*range(-3, 4), 3)))
    return wide | units_of(tmp_path_factory, net)


def units_of(tmp_path_factory, net, **options):
    built = build(net, **options)
    found = {unit.name: unit for unit in built.graph.units if type(unit) in KINDS}
    netlists = read_units(ship(tmp_path_factory.mktemp("units") / "out", built), found)
    return {name: (netlists[name], unit) for name, unit in found.items()}


def check(netlist, unit):
    return CHECKS[type(unit)](netlist, unit)


def test_every_value_is_the_units(units):
    assert {name: unit.width for name, (_, unit) in units.items() if name != "above0"} == {
        "table0": 2, "add1": 2, "cat2": 2,
    }  # fmt: skip
    found = {name: check(*pair) for name, pair in units.items()}
    assert found == {"table0": 4 << 4, "add1": 1 << 8, "cat2": 32 + 16, "above0": 8 << 4}


@pytest.mark.parametrize("name", ["table0", "add1", "cat2", "above0"])
def test_every_wrong_cell_is_found(units, name):
    netlist, unit = units[name]
    data = netlist.reached(netlist.payloads)
    count = 0
    for cell in netlist.cells:
        names = [n for n, bits in netlist.nets.items() if bits == cell.output]
        if data.isdisjoint(cell.output) or any(n.startswith(CONTROL) for n in (cell.name, *names)):
            continue
        other = wrong_cell(cell, OTHER, memory="RD_ADDR")
        if other == cell:
            continue
        with pytest.raises(PvqError):
            pytest.fail(f"{cell.name}, {names}: {check(changed(netlist, other), unit)}")
        count += 1
    assert count > 0


def test_other_thresholds_and_multipliers_are_found(units):
    netlist, unit = units["above0"]
    with pytest.raises(CheckError, match="Unit 'above0' must give"):
        check(netlist, replace(unit, thresholds=(*unit.thresholds[:-1], 2)))
    netlist, unit = units["cat2"]
    with pytest.raises(CheckError, match="Sum 'cat2' must give"):
        check(netlist, replace(unit, mult=unit.mult[::-1]))


# -- the largest values ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def largest(tmp_path_factory):
    net = RandomNetwork(3, (4,), S4)
    x = net.table(net.dense(net.input, 5), out=S4)
    net._add(Largest("top2", x.name, TensorSpec("o", (4,), Largest.form(S4, 5), 1.0), 2))
    return units_of(tmp_path_factory, net)["top2"]


def both(netlist, unit):
    return check_largest_handshakes(netlist, unit), check_largest(netlist, unit)


def test_the_largest_values_are_sent_for_every_frame(largest):
    assert both(*largest) == (18, 16)


def test_no_mutant_of_the_list_is_proven(largest):
    netlist, unit = largest
    left = netlist.makers[netlist.net("left")[0]].ports["D"]  # nothing while no list is sent
    mutants = [cell for _, kind, cell in unit_mutants(netlist)
               if (kind, cell.output) != ("not reset", left)] + wrong_cells(netlist)  # fmt: skip
    for cell in mutants:
        with pytest.raises(PvqError):
            pytest.fail(f"{cell}: {both(changed(netlist, cell), unit)}")
    assert len(mutants) > 60


def wrong_cells(netlist):
    """Every cell of another kind, or with its inputs or bits in another order."""
    found = [(cell, wrong_cell(cell, OTHER)) for cell in netlist.cells]
    return [other for cell, other in found if other != cell]


# -- averages --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smoothed(tmp_path_factory):
    net = RandomNetwork(3, (4,), S4)
    x = net.table(net.dense(net.input, 3), out=S4)
    out = TensorSpec("o", (2,), Largest.form(S4, 3), 1.0)
    net._add(Smoothed("mean", x.name, out, 2, 3))
    return units_of(tmp_path_factory, net)["mean"]


def averaged(netlist, unit):
    return check_unit_handshakes(unit, netlist), check_smoothed(netlist, unit)


def test_averages_and_the_class_that_holds_are_the_golden_models(smoothed):
    assert averaged(*smoothed) == (27, 47)


def test_no_wrong_cell_of_the_averages_is_proven(smoothed):
    netlist, unit = smoothed
    mutants = wrong_cells(netlist)
    for cell in mutants:
        with pytest.raises(PvqError):
            pytest.fail(f"{cell}: {averaged(changed(netlist, cell), unit)}")
    assert len(mutants) > 50


@pytest.mark.slow
def test_no_mutant_of_the_averages_control_is_proven(smoothed):
    netlist, unit = smoothed
    second = netlist.makers[netlist.net("second")[0]].ports["D"]  # begins with each decision
    mutants = [cell for _, kind, cell in unit_mutants(netlist)
               if (kind, cell.output) != ("not reset", second)
               and not is_same(netlist, kind, cell)]  # fmt: skip
    for cell in mutants:
        with pytest.raises(PvqError):
            pytest.fail(f"{cell}: {averaged(changed(netlist, cell), unit)}")
    assert len(mutants) > 40


def is_same(netlist, kind, cell):
    """Whether that changes nothing: a count that starts anew is only looked at with a value."""
    chooses = [c for c in netlist.readers[cell.output[0]] if c.type == "$mux"]
    return kind == "only B" and any(c.ports["B"] == ["0"] * len(c.output) for c in chooses)


@pytest.mark.parametrize("other", [{"shift": 1}, {"shift": 3}, {"margin": 2}, {"margin": 4}])
def test_averages_over_other_frames_and_other_margins_are_found(smoothed, other):
    netlist, unit = smoothed
    with pytest.raises(PvqError):
        check_smoothed(netlist, replace(unit, **other))
