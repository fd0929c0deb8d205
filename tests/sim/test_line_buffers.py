"""What a line buffer reads, and when, is proven for any pauses, and no mutant of it is."""

from collections import Counter
from dataclasses import replace

import pytest
from control_mutants import changed, variants
from proof_cases import ship
from random_graphs import RandomNetwork, build

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import PvqError
from sim.proof.line_buffers import _LineBuffer, check_line_buffer
from sim.proof.netlist import read_units
from sim.proof.window_walks import check_window_walk

PATH = "writer.reader."

# What is changed of which cell, and what is said.
FIXED = {
    ("_01_", "not reset"): "after reset, what a window needs",
    ("freed", "only A"): "rows that are there have come and are not gone",
    ("start", "only A"): "a window starts as soon as it may and its last activation has come",
    ("walk._014_", "not counted"): "starts must have another 'next_base'",
    ("walk._083_", "not reset"): "windows after reset must have another 'step_row_count'",
    ("writer._05_", "not counted"): "transfers of a word are counted",
    ("writer._11_", "not counted"): "words go to their row's place",
}
# Where nothing is read counters are 0, flags of no word are not looked at, and a number below a
# power of two wraps by itself.
SAME = {
    "not reset": {"_00_", "_02_", "_03_", "_11_", "walk._001_", "walk._085_", "walk._086_"},
    "only A": {"walk._037_", "walk._074_"},
    "only B": {"walk._025_", "walk._029_", "walk._039_", "walk._052_", "walk._071_", "walk._076_"},
    "never": {"walk._013_", "walk._027_", "walk.span", "writer._06_", "writer._09_"},
    "always": {"walk._097_"},
    "another number": {"walk._012_"},
}


def netlist_of(folder, shape=(3, 4, 2), rows=3, kernel=(2, 3), **options):
    """A convolution's core with the windows that it reads."""
    made = {name: options.pop(name) for name in ("lanes", "ends") if name in options}
    net = RandomNetwork(8, shape)
    net.conv(net.input, rows, kernel, k=16, out=IntFormat(16, True), **options)
    built = build(net, frames=2, **made)
    unit = built.graph.units[0]
    netlist = read_units(ship(folder / "out", built), [unit.name])[unit.name]
    return netlist, unit.window


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("line_buffer")
    return netlist_of(folder, pads=((1, 1), (1, 1)), stride=(1, 2))


def inner_mutants(netlist):
    """Mutants of the cells that only the line buffer has, and that no payload reaches."""
    data = netlist.reached(netlist.payloads)
    for cell in netlist.cells:
        names = [n for n, bits in netlist.nets.items() if bits == cell.output and PATH in n]
        if names and data.isdisjoint(cell.output):
            for kind, instead in variants(cell, netlist.port("rst")):
                yield min(names, key=len).removeprefix(PATH), kind, instead


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pads": ((1, 1), (1, 1)), "stride": (1, 2)}, 48),
        # Words of several transfers, and a map that begins at another row of the buffer each time.
        ({"shape": (5, 4, 4), "kernel": (3, 2), "pads": ((1, 1), (0, 0)), "stride": (2, 1),
          "lanes": {"conv0": 2}, "ends": (2, 1)}, 756),
        # Rows that no window needs, pixels of three words, and dilation.
        ({"shape": (7, 6, 3), "kernel": (2, 2), "dilation": (1, 2), "stride": (3, 2),
          "lanes": {"conv0": 1}}, 384),
        ({"shape": (1, 6, 2), "kernel": (1, 1)}, 12),
    ],
)  # fmt: skip
def test_what_is_read_is_there_for_any_pauses(tmp_path, options, words):
    netlist, window = netlist_of(tmp_path, **options)
    assert check_window_walk(netlist, window, PATH, "Core") == words
    assert check_line_buffer(netlist, window, PATH, "Core") == 58 - (window.width == window.taken)


def test_other_rows_words_and_resets_break_the_claim_that_is_about_them(case):
    netlist, window = case
    found = {(name, kind): cell for name, kind, cell in inner_mutants(netlist)}
    for key, line in FIXED.items():
        with pytest.raises(PvqError, match=line):
            check_line_buffer(changed(netlist, found[key]), window, PATH, "Core")


def test_words_that_are_mixed_up_and_rows_that_wait_for_themselves_are_found(case):
    netlist, window = case
    (memory,) = (c for c in netlist.cells if c.type == "$mem_v2" and c.name.startswith(PATH))
    ready = netlist.makers[netlist.net(PATH + "ready")[0]]
    for cell, port, claims in (
        (memory, "RD_ADDR", ["words are read where the walk says"]),
        (memory, "WR_DATA", ["it is what came, in its place"]),
        (ready, "B", ["an activation is taken where a row has a place",
                      "no line buffer waits for itself"]),
    ):  # fmt: skip
        other = replace(cell, ports={**cell.ports, port: cell.ports[port][::-1]})
        if cell is ready:  # full with one row of three
            assert cell.ports[port] == ["1", "1"]
            other = replace(cell, ports={**cell.ports, port: ["1", "0"]})
        broken = _LineBuffer(changed(netlist, other), window, PATH, "Core").broken()
        assert [claim for claim in broken if claim in claims] == claims


@pytest.mark.slow
def test_no_mutant_of_a_line_buffer_is_proven(case):
    netlist, window = case
    count, proven = 0, Counter()
    for name, kind, cell in inner_mutants(netlist):
        count += 1
        try:
            check_line_buffer(changed(netlist, cell), window, PATH, "Core")
            proven[kind, name] += 1
        except PvqError:
            pass
    assert set(proven) == {(kind, name) for kind, names in SAME.items() for name in names}
    assert count > 150
