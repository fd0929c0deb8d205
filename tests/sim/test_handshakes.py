"""Control is proven for any pauses as it is, and no mutant of it is."""

import sys
from dataclasses import replace

import pytest
from control_mutants import changed, mutants, netlists, refuse_all
from proof_cases import ship
from random_graphs import RandomNetwork, build
from random_layers import Case, make_chain

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import CheckError, InputError, PvqError
from sim.proof.formulas import Solver
from sim.proof.handshakes import check_handshakes
from sim.proof.netlist import read_units

U8, S8 = IntFormat(8, False), IntFormat(8, True)

# Of control's cells by the name of what they give, what is changed, and the claim that breaks.
FIXED = {
    ("sequencer._00_", "not inverted"): None,
    ("sequencer.busy", "only B"): "a half holds each frame",
    ("fifo._07_", "only B"): "a stored result is offered",
    ("popped", "only A"): "has a place",
    ("written", "only A"): "a half holds each frame",
    ("writer._02_", "only A"): "bank and row",
}
GROUPS = "groups are a row.s"


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Cores of every latency of the code memory, with FIFOs and banks of both kinds, and with
    several gains a row."""
    logic = {"fifo_memory": "logic", "bank_memory": "logic", "params_memory": "logic"}
    made = make_chain(
        3, 7, U8,
        Case(11, 2, 3, S8),
        Case(5, 4, 2, options={"code_latency": 1, "fifo_depth": 32}),
        Case(2, 3, 1, options=logic | {"code_latency": 4, "bank_latency": 1}),
        Case(3, 9, 1, options={"code_latency": 6, "fifo_depth": 16, "carry_chunk": 4}),
        Case(4, 5, 2, groups=3),
        Case(6, 4, 2, groups=2, options={"code_latency": 1}),
    )  # fmt: skip
    found = netlists(tmp_path_factory.mktemp("handshakes"), made)
    return [(found[unit.name], unit.core) for unit in made.graph.units]


def test_no_frame_is_lost_or_made_whatever_the_pauses(chain):
    assert [check_handshakes(netlist, spec) for netlist, spec in chain] == [
        97, 85, 103, 115, 103, 91,
    ]  # fmt: skip


def test_lost_frames_promises_halves_and_offers_break_the_claim_that_is_about_them(chain):
    netlist, spec = chain[0]
    found = {(name, kind): cell for name, kind, cell in mutants(netlist)}
    for key, claim in FIXED.items():
        with pytest.raises(PvqError) as caught:
            check_handshakes(changed(netlist, found[key]), spec)
        assert claim is None or claim in str(caught.value), key


@pytest.mark.slow
def test_frames_side_by_side_are_followed_as_one(tmp_path):
    made = make_chain(3, 7, U8, Case(11, 2, 3, S8, options={"frames": 2}))
    (core,) = made.specs
    assert check_handshakes(netlists(tmp_path, made)[core.name], core) == 98


@pytest.mark.slow
@pytest.mark.parametrize(("core", "least"), [(0, 140), (4, 140)])
def test_no_mutant_of_the_control_is_proven(chain, core, least):
    netlist, spec = chain[core]
    count = refuse_all(netlist, mutants(netlist), lambda other: check_handshakes(other, spec))
    assert count >= least


def test_a_row_that_ends_with_another_group_is_found(chain):
    netlist, spec = chain[4]
    eq = next(c for n, k, c in mutants(netlist) if k == "another number" and n[0] == "$")
    with pytest.raises(CheckError, match=GROUPS):
        check_handshakes(changed(netlist, eq), spec)


@pytest.mark.parametrize(("core", "what"), [(0, "11 rows"), (4, "12 groups of rows")])
def test_code_words_that_end_too_few_rows_are_found(chain, core, what):
    netlist, spec = chain[core]
    words = next(c for c in netlist.cells if c.type == "$mem_v2" and c.name.startswith("codes."))
    init = words.parameters["INIT"]
    # The last word's highest bit is the first digit.
    fewer = replace(words, parameters={**words.parameters, "INIT": "0" + init[1:]})
    with pytest.raises(CheckError, match=f"code words must end {what}"):
        check_handshakes(changed(netlist, fewer), spec)


def test_what_is_not_followed_is_named(tmp_path):
    net = RandomNetwork(8, (3, 3, 1))
    net.conv(net.input, 2, (2, 2))
    built = build(net)
    netlist = read_units(ship(tmp_path / "out", built), ["conv0"])["conv0"]
    with pytest.raises(InputError, match="control of windows of a map is not followed"):
        check_handshakes(netlist, built.graph.unit("conv0").core)


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
