"""Control mutants of exported circuits: the shipped testbench catches each, or it is equivalent."""

import re
from dataclasses import replace

import numpy as np
import pytest
from mutants import mutants_of, pace, ship, survivors
from plan_networks import random_network
from random_graphs import RandomNetwork, build
from random_layers import Case, make_chain

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.patterns import Pattern
from pvq_hw.engine.scenarios import scenarios
from pvq_hw.engine.timing import fifo_needs, with_depths
from pvq_hw.network.rule import decided
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import plan
from pvq_hw.tools import find as tools

pytestmark = pytest.mark.skipif(not tools.have_tool("iverilog"), reason="needs Icarus Verilog")

U8, S8, S16 = IntFormat(8, False), IntFormat(8, True), IntFormat(16, True)

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


def core(folder, most=3):
    """One core, most rows a word: its output is full at any word, and its credits limit it."""
    made = make_chain(3, 7, U8, Case(11, 2, 3, S8))
    x = np.random.default_rng(1).integers(0, 256, (16, 7))
    expected = list(made.network.trace(x).values())[-1]
    chosen = scenarios(pace(made.graph, made.images))[:most]
    ship(folder, made.graph, made.images, x, expected, chosen)


def graph(folder):
    """A convolution on one branch of a sum, and a pooling."""
    net = RandomNetwork(8, (3, 3, 1))
    branch = net.conv(net.input, 1, (2, 2), k=2, pads=((0, 1), (0, 1)))
    net.maxpool(net.add(net.input, branch), (2, 2))
    # Resets at every phase, and queues that are full and run empty.
    names = ("resets while computing", "output blocked from the start", "bursts at the output")
    _ship(folder, net, 12, names=names)


def window(folder):
    """A convolution that reads windows all the time, with results that show every column."""
    net = RandomNetwork(8, (3, 4, 2))
    net.conv(net.input, 1, (2, 3), k=16, pads=((1, 1), (1, 1)), stride=(1, 2), out=S16)
    # Full rate, and resets at every phase: what lost resets are seen by.
    _ship(folder, net, 6, most=2)


def unrolled(folder):
    """An unrolled convolution whose windows wait for one another, and for their results."""
    net = RandomNetwork(8, (3, 4, 2))
    net.conv(net.input, 3, (2, 3), k=16, pads=((1, 1), (1, 1)), out=S16)
    _ship(folder, net, 6, most=2, unrolled={"conv0"})


def pixels(folder):
    """An unrolled convolution that reads windows as pixels come, whose last ones need pixels of
    the next map, or none."""
    net = RandomNetwork(8, (3, 5, 1))
    net.conv(net.input, 4, (2, 3), k=12, pads=((0, 1), (1, 1)), out=S16)
    names = ("full rate", "resets while computing", "resets while the output is blocked")
    _ship(folder, net, 6, names=names, blocked=60, by_pixel={"conv0"})


def digits(folder):
    """An unrolled layer that adds two bits a cycle, whose frames come faster than its sums."""
    net = RandomNetwork(8, (4,))
    net.dense(net.input, 8, k=9)
    names = ("full rate", "resets while computing", "resets while the output is blocked")
    _ship(folder, net, 12, names=names, blocked=60, digits={"fc0": 2})


def side_windows(folder):
    """A convolution of two windows side by side, of three in a row: the last one is by itself."""
    net = RandomNetwork(8, (2, 5, 2))
    net.conv(net.input, 2, (2, 2), k=16, pads=((0, 1), (1, 1)), stride=(1, 2), out=S16)
    # Full rate and resets at every phase, also of a memory that is full.
    names = ("full rate", "resets while computing", "resets while the output is blocked")
    _ship(folder, net, 6, names=names, sides={"conv0": 2}, lanes={"conv0": 4})


def poolings(folder):
    """A pooling of windows that overlap, one of activations as they come, and an average whose
    windows are smaller at the border."""
    net = RandomNetwork(8, (4, 4, 1))
    pooled = net.maxpool(net.input, (2, 2), stride=(1, 1))
    pooled = net.average(pooled, (2, 2), stride=(2, 2), pads=((1, 0), (1, 0)))
    net.conv(pooled, 1, (1, 1), k=3, out=S16)
    _ship(folder, net, 6, most=2)


def average(folder):
    """An average of activations as they come, with a border, and with some left over at the end
    of rows and of the map."""
    net = RandomNetwork(8, (3, 4, 1))
    pooled = net.average(net.input, (2, 2), stride=(2, 2), pads=((0, 0), (1, 0)))
    net.conv(pooled, 1, (1, 1), k=3, out=S16)
    _ship(folder, net, 6, most=13)


def channels(folder):
    """A depthwise convolution of two rows a channel, whose last windows need pixels of the next
    map, or none."""
    net = RandomNetwork(8, (3, 3, 2))
    net.conv(net.input, 4, (3, 3), k=12, groups=2, pads=((1, 1), (1, 1)), out=S16)
    # Full rate, resets at every phase, and random pauses.
    _ship(folder, net, 6, most=3, depthwise=["conv0"])


def shared(folder):
    """Two layers on one engine; frames of more results than half of its queue."""
    network, _ = random_network((4, 3, 21), (2, 2), seed=3)
    names = ("resets while computing", "resets among random pauses")
    names += ("resets while the output is blocked",)
    _plan(folder, network, names, blocked=300, engine="shared", lanes=[2, 2])


def decision(folder):
    """The two largest of seven scores, with the scores themselves."""
    network = decided(random_network((6, 7), (4,), seed=5)[0], "top=2")
    _plan(folder, network, ("resets while computing", "random pauses"))


def _plan(folder, network, names, blocked=None, **options):
    made = plan(network, "icebreaker", check=False, **options)
    x = np.random.default_rng(1).integers(0, 256, (12, network.input.size))
    _ship_graph(folder, made.graph, emit(network, made).cores, network, x, None, names, blocked)


def _ship(folder, net, frames, most=None, names=None, blocked=None, **options):
    made = build(net, family="up5k", frames=frames, **options)
    graph = with_depths(made.graph, fifo_needs(made.graph, made.images))
    images = [made.images[spec.name] for spec in graph.cores]
    _ship_graph(folder, graph, images, made.network, made.x, most, names, blocked)


def _ship_graph(folder, graph, images, network, x, most, names, blocked):
    expected = list(network.trace(x).values())[-1]
    chosen = scenarios(pace(graph, images))[:most]
    chosen = [scenario for scenario in chosen if names is None or scenario.name in names]
    if blocked is not None:  # until all memory is full
        stall = Pattern.script(*(3, blocked, 2, blocked) * 40)
        chosen[-1] = replace(chosen[-1], stall=stall)
    ship(folder, graph, images, x, expected, chosen)


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
