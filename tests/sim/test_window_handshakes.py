"""Control of cores that read windows is proven, and no mutant of it is; the line buffer's own ones
are in `test_line_buffers`."""

from types import SimpleNamespace

import pytest
from control_mutants import changed, mutants, refuse_all
from proof_cases import ship
from random_graphs import RandomNetwork, build

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import InputError, PvqError
from sim.proof.line_buffers import check_line_buffer
from sim.proof.netlist import read_units
from sim.proof.window_handshakes import check_window_handshakes

S16 = IntFormat(16, True)

# What is changed of which cell, and the claim that breaks.
FIXED = {
    ("writer._08_", "not reset"): "first place",
    ("writer._04_", "not counted"): "rows in turn",
    ("writer._14_", "never"): "banks in turn",
    ("writer._09_", "not reset"): "halves take turns",
    ("sequencer.busy", "only B"): "a half is free, or holds a window",
    ("sequencer._29_", "only A"): "halves take turns",
    ("fifo._07_", "not counted"): "has a place",
}


def netlist_of(folder, family="up5k", channels=2, **options):
    """A convolution's core."""
    net = RandomNetwork(8, (3, 4, channels))
    net.conv(net.input, 3, (2, 3), k=16, pads=((1, 1), (1, 1)), stride=(1, 2), out=S16)
    made = build(net, family=family, frames=2, **options)
    (unit,) = made.graph.units
    out = ship(folder / "out", made)
    return read_units(out, [unit.name])[unit.name], unit


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    return netlist_of(tmp_path_factory.mktemp("windows"))


def outside(netlist):
    """Mutants of what is not the line buffer's own walk."""
    inner = {tuple(bits) for name, bits in netlist.nets.items() if "writer.reader." in name}
    for name, kind, cell in mutants(netlist):
        if tuple(cell.output) not in inner:
            yield name, kind, cell


def test_no_window_is_lost_made_or_written_over(core):
    netlist, unit = core
    claims = check_line_buffer(netlist, unit.window, "writer.reader.", "Core") + 81
    assert check_window_handshakes(netlist, unit.core, unit.window) == claims


def test_lost_resets_halves_and_places_break_the_claim_that_is_about_them(core):
    netlist, (spec, window) = core[0], (core[1].core, core[1].window)
    found = {(name, kind): cell for name, kind, cell in outside(netlist)}
    for key, claim in FIXED.items():
        with pytest.raises(PvqError, match=claim):
            check_window_handshakes(changed(netlist, found[key]), spec, window)


@pytest.mark.slow
def test_no_mutant_of_the_control_is_proven(core):
    netlist, (spec, window) = core[0], (core[1].core, core[1].window)
    count = refuse_all(
        netlist, outside(netlist), lambda other: check_window_handshakes(other, spec, window)
    )
    assert count > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "claims"),
    [({"family": "ecp5"}, 87), ({"family": "hx8k", "lanes": {"conv0": 2}}, 81),
     ({"channels": 1, "lanes": {"conv0": 1}}, 81)],
)  # fmt: skip
def test_other_latencies_and_lanes(tmp_path, options, claims):
    netlist, unit = netlist_of(tmp_path, **options)
    claims += check_line_buffer(netlist, unit.window, "writer.reader.", "Core")
    assert check_window_handshakes(netlist, unit.core, unit.window) == claims


def test_what_is_not_followed_is_named(core):
    netlist, unit = core
    spec = SimpleNamespace(words=1)
    with pytest.raises(InputError, match="control of windows of one code word is not followed"):
        check_window_handshakes(netlist, spec, unit.window)
