"""Small circuits with the testbench that is shipped with each, for mutants of their Verilog."""

from dataclasses import replace

import numpy as np
from mutants import pace, ship
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

__all__ = [
    "CIRCUITS",
    "average",
    "channels",
    "core",
    "decision",
    "digits",
    "graph",
    "pixels",
    "poolings",
    "shared",
    "side_windows",
    "unrolled",
    "window",
]

U8, S8, S16 = IntFormat(8, False), IntFormat(8, True), IntFormat(16, True)


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


CIRCUITS = {
    "a core": (lambda folder: core(folder, most=None), ""),
    "queues and forks": (graph, ""),
    "windows": (window, ""),
    "an unrolled convolution": (unrolled, ""),
    "windows by the pixel": (pixels, ""),
    "digit-serial adders": (digits, ""),
    "windows side by side": (side_windows, ""),
    "a depthwise core": (channels, ""),
    "poolings": (poolings, ""),
    "an average": (average, ""),
    "a shared engine": (shared, ""),
    "a decision": (decision, ""),
}
"""How each is written into a folder, and a regular expression of cells that are none of it."""
