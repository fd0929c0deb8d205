"""Control of cores with 8-bit weights is proven for any pauses as it is, and no mutant of it is."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from control_mutants import WIDE, changed, mutants, netlists, refuse_all
from proof_cases import ship
from random_graphs import RandomNetwork, build
from random_layers import Case, make_chain

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import CheckError, InputError
from sim.proof.line_buffers import check_line_buffer
from sim.proof.netlist import read_units
from sim.proof.wide_handshakes import check_wide_handshakes

U8, S8 = IntFormat(8, False), IntFormat(8, True)

# Of control's cells by the name of what they give, what is changed, and the claim that breaks.
FIXED = {
    ("sequencer.busy", "only B"): "a half holds each frame",
    ("popped", "only A"): "has a place",
    ("row_end", "only A"): "has a place",
    ("fifo._07_", "only B"): "a stored result is offered",
    ("$add", "not counted"): "rows end where their last words are",
    ("$eq", "another number"): "a row's last word is known",
}
# Not ready means none of a frame is there yet, so its last activation is not on offer.
EQUIVALENT = [("written", "only A")]


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Words of one activation and several, whole ones and a part, rows of one word and several,
    activations that wait for weights and such that do not."""
    case = {"encoding": "int8"}
    made = make_chain(
        3, 14, U8,  # sizes at which no counter turns by itself
        Case(5, 0, 3, S8, **case),
        Case(4, 0, 1, **case),
        Case(3, 0, 4, S8, **case, options={"fifo_memory": "logic", "bank_memory": "logic"}),
        Case(6, 0, 2, **case, options={"family": "hx8k", "bank_latency": 1, "weight_latency": 2}),
        Case(4, 0, 1, **case, options={"family": "up5k", "bank_latency": 1, "weight_latency": 6}),
    )  # fmt: skip
    found = netlists(tmp_path_factory.mktemp("wide"), made)
    return [(found[unit.name], unit.core) for unit in made.graph.units]


def test_no_frame_is_lost_or_made_whatever_the_pauses(chain):
    assert [spec.wait for _, spec in chain] == [3, 3, 3, 0, 4]
    assert [spec.row_words for _, spec in chain] == [5, 5, 1, 2, 6]
    claims = [check_wide_handshakes(netlist, spec) for netlist, spec in chain]
    assert claims == [121, 121, 118, 101, 122]


def test_lost_frames_rows_and_places_break_the_claim_that_is_about_them(chain):
    netlist, spec = chain[0]
    found = {
        (name[:1] + name[1:].split("$")[0], kind): cell
        for name, kind, cell in mutants(netlist, WIDE)
    }
    for key, claim in FIXED.items():
        with pytest.raises(CheckError, match=claim):
            check_wide_handshakes(changed(netlist, found[key]), spec)


def test_words_that_are_read_later_than_they_are_free_are_found(chain):
    """Five cycles after the sequencer they may be other ones."""
    netlist, spec = chain[4]
    with pytest.raises(InputError, match="control of a wait of 5 cycles is not followed"):
        check_wide_handshakes(netlist, SimpleNamespace(**vars(spec), wait=5, words=24))
    # A word that is read from where the next one is.
    bank = next(cell for cell in netlist.cells if cell.name == "bank.mem")
    ports = {**bank.ports, "RD_ADDR": netlist.net("address_2")}
    early = changed(netlist, replace(bank, ports=ports))
    with pytest.raises(CheckError, match="banks are read in the frame's half"):
        check_wide_handshakes(early, spec)


@pytest.mark.slow
def test_no_mutant_of_the_control_is_proven(chain):
    netlist, spec = chain[0]
    count = refuse_all(
        netlist,
        mutants(netlist, WIDE),
        lambda other: check_wide_handshakes(other, spec),
        EQUIVALENT,
    )
    assert count > 170


# -- windows of a map ------------------------------------------------------------------------------

# Of a core of windows: cells that decide what a window's words are, the claim that breaks.
WINDOWS = {
    ("writer._02_", "not counted"): "a window's words go to rows in turn",
    ("writer._16_", "not counted"): "a word's last part is known",
    ("writer._05_", "only A"): "written when it is whole, or its window's last",
    ("writer._06_", "only B"): "a word is written for a window that is under way",
    ("writer._13_", "never"): "a word is what came, in order",
}


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    return windows_of(tmp_path_factory.mktemp("windows"))


def windows_of(folder, shape=(4, 5, 2), rows=3, kernel=(3, 3), lanes=4, pads=1, **options):
    """A convolution's core with 8-bit weights, whose last word of a window may be short."""
    net = RandomNetwork(8, shape)
    net.conv(net.input, rows, kernel, pads=((pads, pads), (pads, pads)))
    net.layers[-1] = replace(net.layers[-1], encoding="int8")
    built = build(net, lanes={"conv0": lanes}, **options)
    unit = built.graph.unit("conv0")
    return read_units(ship(folder / "out", built), ["conv0"])["conv0"], unit


def claims_of_windows(netlist, unit):
    return check_line_buffer(netlist, unit.window, "writer.reader.", "Core")


def test_no_window_is_lost_or_made_whatever_the_pauses(windows):
    netlist, unit = windows
    claims = claims_of_windows(netlist, unit) + 136
    assert check_wide_handshakes(netlist, unit.core, unit.window) == claims


def window_mutants(netlist):
    """Those outside of the line buffer; of two parts the second goes on to 0 by itself."""
    reader = {tuple(bits) for name, bits in netlist.nets.items() if "writer.reader." in name}
    for name, kind, cell in mutants(netlist, WIDE):
        if tuple(cell.output) not in reader and (name, kind) != ("writer._15_", "only B"):
            yield name, kind, cell


def test_other_words_and_rows_of_windows_are_found(windows):
    netlist, unit = windows
    found = {(name, kind): cell for name, kind, cell in window_mutants(netlist)}
    for key, claim in WINDOWS.items():
        with pytest.raises(CheckError, match=claim):
            check_wide_handshakes(changed(netlist, found[key]), unit.core, unit.window)


@pytest.mark.slow
def test_no_mutant_of_the_control_of_windows_is_proven(windows):
    netlist, unit = windows
    count = refuse_all(
        netlist,
        window_mutants(netlist),
        lambda other: check_wide_handshakes(other, unit.core, unit.window),
    )
    assert count > 140


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "claims"),
    [({"shape": (4, 5, 4), "kernel": (2, 3), "pads": 0, "family": "up5k"}, 97),
     ({"shape": (4, 4, 3), "kernel": (2, 2), "lanes": 1, "family": "hx8k"}, 97)],
)  # fmt: skip
def test_other_words_and_waits(tmp_path, options, claims):
    netlist, unit = windows_of(tmp_path, **options)
    claims += claims_of_windows(netlist, unit)
    assert check_wide_handshakes(netlist, unit.core, unit.window) == claims
