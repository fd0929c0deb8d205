"""Control of cores of several windows side by side is proven, and no mutant of it is."""

from dataclasses import replace

import pytest
from control_mutants import changed, mutants, refuse_all
from proof_cases import ship
from random_graphs import RandomNetwork, build

from pvq_hw.errors import CheckError, PvqError
from sim.proof.line_buffers import check_line_buffer
from sim.proof.netlist import read_units
from sim.proof.side_handshakes import check_side_handshakes

# What is changed of which cell, and the claim that breaks.
FIXED = {
    ("fifo._06_", "not reset"): "each result and row behind its promise has a place",
    ("order._017_", "not counted"): "each half is free, whole or read",
    ("order.written", "only A"): "results are owed for windows within the row, and no others",
    ("order.w_en", "only B"): "memory 0 takes its rows, and nothing else",
    ("order.w_en_21", "only A"): "memory 1 takes its rows, and nothing else",
    ("order._004_", "not counted"): "rows are written in turn",
    ("order._039_", "only A"): "a half that is whole is read as soon as none is",
    ("order._008_", "never"): "the last window within the row is known",
}
# Numbers below a power of two wrap by themselves; and what chooses values is followed by *sums*.
SAME = {"order._005_", "order._007_", "order._016_", "order._020_", "order._021_"}


def netlist_of(folder, *, side=2, width=2, family="ecp5", stride=(1, 2)):
    """A convolution's core, its results a few a transfer; the last window of a row stands alone."""
    net = RandomNetwork(8, (5, 6, 4))
    net.conv(net.input, 4, (3, 3), k=16, pads=((1, 1), (1, 1)), stride=stride)
    built = build(net, family=family, frames=2, lanes={"conv0": 4}, sides={"conv0": side},
                  widths={"conv0": width}, ends=(2, width))  # fmt: skip
    unit = built.graph.units[0]
    return read_units(ship(folder / "out", built), [unit.name])[unit.name], unit


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    return netlist_of(tmp_path_factory.mktemp("side"))


def outside(netlist):
    """Mutants of what is not the line buffer's own."""
    inner = {tuple(bits) for name, bits in netlist.nets.items() if "writer.reader." in name}
    for name, kind, cell in mutants(netlist, modules=("sequencer.", "writer.", "fifo.", "order.")):
        if tuple(cell.output) not in inner:
            yield name, kind, cell


def claims_of_windows(netlist, unit):
    return check_line_buffer(netlist, unit.window.segment, "writer.reader.", "Core")


def test_no_window_is_lost_or_made_and_results_leave_in_the_order_of_the_map(core):
    netlist, unit = core
    claims = claims_of_windows(netlist, unit) + 198
    assert check_side_handshakes(netlist, unit.core, unit.window) == claims


def test_lost_resets_rows_and_halves_break_the_claim_that_is_about_them(core):
    netlist, unit = core
    found = {(name, kind): cell for name, kind, cell in outside(netlist)}
    for key, claim in FIXED.items():
        with pytest.raises(PvqError, match=claim):
            check_side_handshakes(changed(netlist, found[key]), unit.core, unit.window)


def test_words_of_other_windows_and_places_are_found(core):
    netlist, unit = core
    for name, port, line in (
        ("bank1_1.mem", "WR_ADDR", "part 1: banks are written where the writer says"),
        ("order.ram1.mem", "RD_ADDR", "memory 1 is read with the others"),
        ("order.ram.mem", "WR_DATA", "memory 0 has what came, in its place"),
    ):
        (cell,) = (c for c in netlist.cells if c.name == name)
        other = replace(cell, ports={**cell.ports, port: cell.ports[port][::-1]})
        with pytest.raises(CheckError, match=line):
            check_side_handshakes(changed(netlist, other), unit.core, unit.window)
    g = unit.window.geometry
    shifted = replace(unit.window, geometry=replace(g, kernel=(3, 4), stride=(1, 1)))
    with pytest.raises(CheckError, match="word 1 of a row must be of other windows"):
        check_side_handshakes(netlist, unit.core, shifted)


@pytest.mark.slow
def test_no_mutant_of_the_control_is_proven(core):
    netlist, unit = core
    count = refuse_all(
        netlist,
        outside(netlist),
        lambda other: check_side_handshakes(other, unit.core, unit.window),
        SAME,
    )
    assert count > 150


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "claims"),
    [({"side": 5, "width": 1, "family": "up5k", "stride": (1, 1)}, 222),
     ({"side": 3, "width": 1, "family": "hx8k"}, 193)],
)  # fmt: skip
def test_more_windows_and_other_memories(tmp_path, options, claims):
    netlist, unit = netlist_of(tmp_path, **options)
    claims += claims_of_windows(netlist, unit)
    assert check_side_handshakes(netlist, unit.core, unit.window) == claims
