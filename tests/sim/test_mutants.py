"""Control mutants of exported circuits: the shipped testbench catches each, or it is equivalent."""

import re

import pytest
from mutants import mutants_of, survivors
from small_circuits import (
    average,
    channels,
    core,
    decision,
    digits,
    graph,
    pixels,
    poolings,
    shared,
    side_windows,
    unrolled,
    window,
)

from pvq_hw.tools import find as tools

pytestmark = pytest.mark.skipif(not tools.have_tool("iverilog"), reason="needs Icarus Verilog")

# Mutants that do the same as the circuit, and why.
EQUIVALENT = {
    r"sequencer: half(_[01])?, not reset": "belongs to a word, and the words' valid is reset",
    r"sequencer: end_[01]?, not reset": "frees a half while both are free, which has no effect "
    "unless a whole frame came within its three cycles: frames of more columns cannot",
    r"writer: written, only signal_\d+": "ready falls behind a frame's last activation only, and "
    "frames of more than one column are at their first then",
    r"writer: w_en\d?, (not reset|reset to .*)": "banks are written whole before they are read",
    r"order: i__ready, not reset": "what counts the halves says it again in the next cycle",
    r"order: free, reset to -1": "a half less at full rate, when results never wait for one",
    r"credits: spare, reset to -1": "a place less in a queue that is never full at full rate, and "
    "deeper than it takes to follow up: no result comes later",
    r"fork: taken0, not reset": "the FIFO of the other branch is never full before the convolution",
    r"reader(_walk)?: (last|inside_0?), not reset": "belongs to a word, whose valid is reset",
    r"(pool|mean)\d+_reader(_walk)?: valid, not reset": "its word is outside the map by then, and "
    "adds nothing to a pooling",
    r"conv0: places, reset to -1": "a place less where there is always another",
    r"queue: (room|ahead), reset to .*": "an activation more or less waits, or is there before the "
    "next map begins, which it then waits for",
    r"pacer: left, reset to \+1": "gives a place back early, and the queue has one more, on offer",
    r"pacer: pause, (not reset|reset to .*)": "is set with the flag that lets it count",
    r"conv0_pacer: rested, not reset": "the pause is over before the first window has come",
    r"conv0(_collector)?_walk: takes, not reset": "begins with a pixel that takes nothing: a few "
    "cycles later",
    r"conv0(_collector)?_walk: pause, not reset": "counts between two windows, and is set with "
    "the first",
    r"conv0(_collector)?_walk: column, reset to \+1": "names a place in a row of the memory, "
    "whichever",
    r"(pool|mean)\d+_walk: channel, not reset": "counts one channel: it is always 0",
    r"conv0_walk: channel, not reset": "of the first pixel, with whose column no window is read",
    r"walk: address, (not reset|reset to .*)": "belongs to a word, whose valid is reset",
    r"decision: left, (not reset|reset to .*)": "is set as the results that it counts are",
    r"fc2_sequencer: (opens|signal_(12|21)), not reset": "begins a layer or ends a word, and both "
    "begin again where nothing runs",
    r"fc2_sequencer: release_\d, not reset": "frees the input's region while it is free",
    r"fc2_sequencer: (taken|less|signal), (not reset|reset to .*)": "counts credits as a core's "
    "sequencer does, where each is caught; here fewer results wait than there are places",
}


def different(mutants):
    """Those that are not known to be equivalent."""
    known = "|".join(EQUIVALENT)
    return [mutant for mutant in mutants if not re.search(rf"(?:{known})$", mutant.name)]


LOST, STUCK = "not reset|reset to .*", "not reset|reset to .*|stuck at 1"

# What is shipped, whose modules are changed, how, and at least how many of these do something.
CAUGHT = {
    "a core": (core, "sequencer|fifo|writer", STUCK, 40),
    "queues and forks": (graph, "_credits|_fork", LOST, 9),
    "windows": (window, "reader|_walk|reader_writer", LOST, 28),
    "an unrolled convolution": (unrolled, "collector|shifter", LOST, 9),
    "windows by the pixel": (pixels, "_walk|_queue|pacer|pacer_credits", LOST, 20),
    "digit-serial adders": (digits, "collector|shifter|pacer|pacer_credits", LOST, 11),
    "windows side by side": (side_windows, "conv0_writer|order|order_credits", LOST, 32),
    "a depthwise core": (channels, "conv0|conv0_queue|_walk", STUCK, 40),
    "poolings": (poolings, r"pool\d+|reader|reader_walk|reader_writer", LOST, 40),
    "an average": (average, r"mean\d+_walk", LOST, 8),
    "a shared engine": (shared, "sequencer|writer", STUCK, 38),
    "a decision": (decision, "decision", STUCK, 10),
}
LONG = {"poolings", "an average", "a shared engine"}


@pytest.mark.parametrize(
    ("what", "step"),
    [*((what, 2) for what in CAUGHT if what not in LONG),
     *(pytest.param(what, 1, marks=pytest.mark.slow) for what in CAUGHT)],
)  # fmt: skip
def test_lost_resets_and_wrong_counts_are_caught(tmp_path, what, step):
    """All of them in the long run, every second in the short one."""
    shipped, modules, changes, least = CAUGHT[what]
    shipped(tmp_path)
    chosen = different(mutants_of(tmp_path, modules, changes))
    assert len(chosen) >= least
    left = survivors(tmp_path, chosen[::step])
    assert not left, ", ".join(left)


@pytest.mark.slow
def test_every_control_mutant_of_a_core_is_caught_or_equivalent(tmp_path):
    core(tmp_path, most=None)
    mutants = mutants_of(tmp_path, "sequencer|fifo|writer")
    assert len(mutants) >= 160
    passed = survivors(tmp_path, mutants)
    assert len(passed) == len(mutants) - len(different(mutants))
