"""Control of unrolled convolutions is proven for any pauses, and no mutant of it is."""

from dataclasses import replace

import pytest
from control_mutants import changed, refuse_all, unit_mutants
from proof_cases import ship
from random_graphs import RandomNetwork, build

from pvq_hw.engine.sliding_window import SlidingWindow
from pvq_hw.errors import CheckError
from sim.proof.line_buffers import check_line_buffer
from sim.proof.netlist import read_units
from sim.proof.unrolled_windows import check_unrolled_windows

# What is changed of which cell, and the claim that breaks.
FIXED = {
    ("shift", "only A"): "results are owed for each frame, and no others",
    ("move", "only B"): "each unit has a place",
    ("wait_behind", "only A"): "a unit stands behind one that waits",
    ("_043_", "another number"): "the next unit's column is known",
    ("_044_", "never"): "a held frame's sums have their time",
    ("_031_", "not reset"): "after reset, each unit has a place",
}
# A unit that is whole moves on to where one waits, or stands behind one that does, at the latest a
# cycle later; and numbers below a power of two wrap by themselves.
SAME = {("_010_", "only A"), ("_039_", "only B"), ("_002_", "never")}


def netlist_of(folder, rows=3, kernel=(3, 3), pads=((1, 1), (1, 1)), stride=(1, 1), **options):
    """An unrolled convolution's core."""
    net = RandomNetwork(8, (5, 6, 2))
    net.conv(net.input, rows, kernel, k=16, pads=pads, stride=stride)
    built = build(net, frames=2, unrolled={"conv0"}, **options)
    unit = built.graph.units[0]
    return read_units(ship(folder / "out", built), [unit.name])[unit.name], unit


def claims_of_units(netlist, unit):
    return check_line_buffer(netlist, SlidingWindow(unit.window).reader, "collector.reader.", "C")


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    return netlist_of(tmp_path_factory.mktemp("unrolled"))


def test_no_window_is_lost_or_made_whatever_the_pauses(core):
    netlist, unit = core
    claims = claims_of_units(netlist, unit) + 79
    assert check_unrolled_windows(netlist, unit.core, unit.window) == claims


def outside(netlist):
    """Mutants of what is not the line buffer's own."""
    reader = {tuple(bits) for name, bits in netlist.nets.items() if "collector.reader." in name}
    for name, kind, cell in unit_mutants(netlist):
        if tuple(cell.output) not in reader and "requantizer" not in cell.name:
            yield name.removeprefix("collector."), kind, cell


def test_lost_resets_places_and_columns_break_the_claim_that_is_about_them(core):
    netlist, unit = core
    found = {(name, kind): cell for name, kind, cell in outside(netlist)}
    for key, claim in FIXED.items():
        with pytest.raises(CheckError, match=claim):
            check_unrolled_windows(changed(netlist, found[key]), unit.core, unit.window)


def test_activations_that_are_mixed_up_are_found(core):
    netlist, unit = core
    for name, claim in (
        ("frame", "a window moves on by the unit that waits, and only then"),
        ("waiting", "units wait as they came, in order"),
        ("coming", "a unit is what came, in order"),
    ):
        register = netlist.makers[netlist.net(f"collector.{name}")[0]]
        other = replace(register, ports={**register.ports, "D": register.ports["D"][::-1]})
        with pytest.raises(CheckError, match=claim):
            check_unrolled_windows(changed(netlist, other), unit.core, unit.window)
    g = unit.window.geometry
    shifted = replace(unit.window, geometry=replace(g, pads=(g.pads[0], (2, 0))))
    with pytest.raises(CheckError, match="the next unit's column is known"):
        check_unrolled_windows(netlist, unit.core, shifted)


@pytest.mark.slow
def test_no_mutant_of_the_control_is_proven(core):
    netlist, unit = core
    count = refuse_all(
        netlist,
        outside(netlist),
        lambda other: check_unrolled_windows(other, unit.core, unit.window),
        SAME,
    )
    assert count > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "claims"),
    [
        # Windows that do not overlap, two results a transfer.
        ({"rows": 4, "kernel": (2, 2), "pads": ((0, 0), (0, 0)), "stride": (2, 2),
          "widths": {"conv0": 2}}, 71),
        # All results of a window at once.
        ({"rows": 4, "stride": (1, 2), "widths": {"conv0": 4}}, 73),
        # Two bits a cycle, in adders that frames follow one another into.
        ({"rows": 4, "digits": {"conv0": 2}}, 120),
    ],
)  # fmt: skip
def test_other_strides_and_adders(tmp_path, options, claims):
    netlist, unit = netlist_of(tmp_path, **options)
    claims += claims_of_units(netlist, unit)
    assert check_unrolled_windows(netlist, unit.core, unit.window) == claims
