"""Control is proven for any pauses as it is, and no mutant of it is."""

import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from proof_cases import ship
from random_graphs import RandomNetwork, build
from random_layers import Case, make_chain

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import CheckError, InputError, PvqError
from sim.proof.formulas import Solver
from sim.proof.handshakes import check_handshakes
from sim.proof.netlist import Cell, read_units

U8, S8 = IntFormat(8, False), IntFormat(8, True)
MODULES = ("sequencer.", "writer.", "fifo.")
STROBES = re.compile(r"(group_end|row_end|end_|clear)")

# Of control's cells by the name of what they give, what is changed, and the claim that breaks.
FIXED = {
    ("sequencer._00_", "not inverted"): None,
    ("sequencer.busy", "only B"): "a half holds each frame",
    ("fifo._07_", "only B"): "a stored result is offered",
    ("popped", "only A"): "has a place",
    ("written", "only A"): "a half holds each frame",
    ("writer._02_", "only A"): "bank and row",
}


def netlists(folder, made):
    images = dict(zip((c.name for c in made.graph.cores), made.images, strict=True))
    out = ship(folder / "out", SimpleNamespace(graph=made.graph, images=images))
    return read_units(out, [unit.name for unit in made.graph.units])


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Cores of every latency of the code memory, with FIFOs and banks of both kinds."""
    logic = {"fifo_memory": "logic", "bank_memory": "logic", "params_memory": "logic"}
    made = make_chain(
        3, 7, U8,
        Case(11, 2, 3, S8),
        Case(5, 4, 2, options={"code_latency": 1, "fifo_depth": 32}),
        Case(2, 3, 1, options=logic | {"code_latency": 4, "bank_latency": 1}),
        Case(3, 9, 1, options={"code_latency": 6, "fifo_depth": 16, "carry_chunk": 4}),
    )  # fmt: skip
    found = netlists(tmp_path_factory.mktemp("handshakes"), made)
    return [(found[unit.name], unit.core) for unit in made.graph.units]


def test_no_frame_is_lost_or_made_whatever_the_pauses(chain):
    assert [check_handshakes(netlist, spec) for netlist, spec in chain] == [97, 85, 103, 115]


def mutants(netlist):
    """Every control cell with what may be wrong with it: name, kind, and the cell instead."""
    rst = netlist.port("rst")
    for cell in netlist.cells:
        names = [name for name, bits in netlist.nets.items() if bits == cell.output]
        if not any(n.startswith(MODULES) or STROBES.match(n) for n in names):
            continue
        name = min((n for n in names if not n.startswith("_")), key=len, default=cell.name)
        a, b = cell.ports.get("A", []), cell.ports.get("B", [])
        if cell.type == "$mux" and cell.ports["S"] == rst:
            yield name, "not reset", passes(cell, a)
        elif cell.type == "$mux":
            yield name, "never", passes(cell, a)
            yield name, "always", passes(cell, b)
        elif cell.type in ("$and", "$or") and len(cell.output) == 1:
            yield name, "only A", passes(cell, a)
            yield name, "only B", passes(cell, b)
        elif cell.type == "$not" and len(cell.output) == 1:
            yield name, "not inverted", passes(cell, a)
        elif cell.type == "$add":
            yield name, "not counted", passes(cell, a)
        elif cell.type == "$eq" and not isinstance(b[0], int):
            other = ["0" if b[0] == "1" else "1", *b[1:]]
            yield name, "another number", replace(cell, ports={**cell.ports, "B": other})


def passes(cell, bits):
    """A cell that gives these bits."""
    wide = (list(bits) + ["0"] * len(cell.output))[: len(cell.output)]
    return Cell(cell.name, "$pos", {"A": wide, "Y": cell.output}, {"A_SIGNED": "0"})


def changed(netlist, instead):
    cells = [instead if cell.name == instead.name else cell for cell in netlist.cells]
    return replace(netlist, cells=cells)


def test_lost_frames_promises_halves_and_offers_break_the_claim_that_is_about_them(chain):
    netlist, spec = chain[0]
    found = {(name, kind): cell for name, kind, cell in mutants(netlist)}
    for key, claim in FIXED.items():
        with pytest.raises(PvqError) as caught:
            check_handshakes(changed(netlist, found[key]), spec)
        assert claim is None or claim in str(caught.value), key


@pytest.mark.slow
def test_no_mutant_of_the_control_is_proven(chain):
    netlist, spec = chain[0]
    count = 0
    for name, kind, cell in mutants(netlist):
        with pytest.raises((CheckError, InputError)):
            pytest.fail(f"{name}, {kind}: {check_handshakes(changed(netlist, cell), spec)} claims")
        count += 1
    assert count > 120


def test_code_words_that_end_too_few_rows_are_found(chain):
    netlist, spec = chain[0]
    words = next(c for c in netlist.cells if c.type == "$mem_v2" and c.name.startswith("codes."))
    init = words.parameters["INIT"]
    # The last word's highest bit is the first digit.
    fewer = replace(words, parameters={**words.parameters, "INIT": "0" + init[1:]})
    with pytest.raises(CheckError, match="code words must end 11 rows"):
        check_handshakes(changed(netlist, fewer), spec)


def test_what_is_not_followed_is_named(tmp_path, chain):
    net = RandomNetwork(8, (3, 3, 1))
    net.conv(net.input, 2, (2, 2))
    built = build(net)
    netlist = read_units(ship(tmp_path / "out", built), ["conv0"])["conv0"]
    with pytest.raises(InputError, match="control of windows of a map is not followed"):
        check_handshakes(netlist, built.graph.unit("conv0").core)
    netlist, spec = chain[1]
    with pytest.raises(InputError, match="control of codes in SPRAM is not followed"):
        check_handshakes(netlist, replace(spec, code_memory="spram"))


def test_what_contradicts_itself_proves_nothing(chain, monkeypatch):
    solver = Solver()
    x = solver.same(solver.unknown("x", 4), solver.number(3, 4))
    no = solver.op("NOT", [x])
    assert solver.possible([x])
    assert not solver.possible([x, no])
    assert solver.follows([x, no], solver.same(solver.number(0, 1), solver.number(1, 1)))
    monkeypatch.setattr(Solver, "possible", lambda *_: False)
    with pytest.raises(CheckError, match="the invariants allow no state"):
        check_handshakes(*chain[0])


def test_a_missing_solver_is_named(chain, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitwuzla", None)
    with pytest.raises(InputError, match=r"takes a solver: pip install 'pvq-hw\[prove\]'"):
        check_handshakes(*chain[0])
