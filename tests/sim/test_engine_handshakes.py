"""Control of shared engines is proven for any pauses as it is, and no mutant of it is."""

from dataclasses import replace

import pytest
from control_mutants import MODULES, changed, mutants, refuse_all
from engine_cases import chain_of

from pvq_hw.errors import CheckError, InputError
from sim.proof.engine_handshakes import check_engine_handshakes

# Of control's cells by the name of what they give, what is changed, and the claim that breaks.
FIXED = {
    ("written", "only A"): "has its region",
    ("blocked", "only A"): "no result comes",
    ("layer0.o__valid", "only A"): "results of layer 0 are its own",
    ("writer._04_", "never"): "or the result",
    ("sequencer.starts", "only B"): "a layer runs, turns or begins",
}
SAME = {
    ("sequencer._045_", "not reset"),  # whether a word is a layer's last: found anew while all wait
    ("taken", "only A"), ("taken_99", "only A"),  # ready wherever its own layer's results are
}  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return chain_of(tmp_path_factory.mktemp("engine"), "up5k")


def test_no_frame_is_lost_or_made_whatever_the_pauses(engine, tmp_path):
    """Of three families, whose code memories, multipliers and queues differ."""
    assert check_engine_handshakes(*engine) == 179
    for family, claims in (("ecp5", 191), ("hx8k", 212)):
        assert check_engine_handshakes(*chain_of(tmp_path / family, family)) == claims


@pytest.mark.slow
def test_no_mutant_of_an_engines_control_is_proven(engine):
    netlist, spec = engine
    found = mutants(netlist, modules=(*MODULES, "layer"))
    count = refuse_all(netlist, found, lambda other: check_engine_handshakes(other, spec), SAME)
    assert count > 210


def test_lost_frames_results_and_places_break_the_claim_that_is_about_them(engine):
    netlist, spec = engine
    found = {(name, kind): c for name, kind, c in mutants(netlist, modules=(*MODULES, "layer"))}
    for key, claim in FIXED.items():
        with pytest.raises((CheckError, InputError)) as caught:
            check_engine_handshakes(changed(netlist, found[key]), spec)
        assert claim in str(caught.value), key


@pytest.mark.parametrize(
    ("memory", "text"),
    [("codes.", "code words of layer 'fc2' must end 2 rows"),
     ("sequencer.program", "the program of layer 'fc2' is another")],
)  # fmt: skip
def test_wrong_words_are_found(engine, memory, text):
    netlist, spec = engine
    words = next(c for c in netlist.cells if c.type == "$mem_v2" and c.name.startswith(memory))
    init, width = words.parameters["INIT"], words.number("WIDTH")
    used = spec.words if memory == "codes." else len(spec.layers)
    at = len(init) - used * width  # the last word's highest bit
    other = init[:at] + ("1" if init[at] == "0" else "0") + init[at + 1 :]
    wrong = replace(words, parameters={**words.parameters, "INIT": other})
    with pytest.raises(CheckError, match=text):
        check_engine_handshakes(changed(netlist, wrong), spec)


def test_engines_that_are_not_followed_are_named(engine):
    netlist, spec = engine
    with pytest.raises(InputError, match="engine of one layer is not followed"):
        check_engine_handshakes(netlist, replace(spec, **_alone(spec)))


def _alone(spec):
    last = spec.layers[-1]
    return {"layers": (last,), "n": last.n, "x": last.x}
