"""Small circuits with the testbench that is shipped with each, for mutants of their Verilog."""

from dataclasses import replace

import numpy as np
from live_board import LiveBoard
from mutants import pace, ship
from plan_networks import random_network
from random_graphs import RandomNetwork, build
from random_layers import Case, make_chain
from stand_in import small_top
from verilog_pins import RESET, judged_talk

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.patterns import Pattern
from pvq_hw.engine.scenarios import scenarios
from pvq_hw.engine.timing import fifo_needs, with_depths
from pvq_hw.host.board_model import Responder
from pvq_hw.host.code_state import CodeState, CodeStatus
from pvq_hw.host.protocol import Kind, Packet, PacketDecoder
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
    "link",
    "loader",
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


def graph(folder, whole=False):
    """A convolution on one branch of a sum, and a pooling."""
    net = RandomNetwork(8, (3, 3, 1))
    branch = net.conv(net.input, 1, (2, 2), k=2, pads=((0, 1), (0, 1)))
    net.maxpool(net.add(net.input, branch), (2, 2))
    # Resets at every phase, and queues that are full and run empty.
    names = ("resets while computing", "output blocked from the start", "bursts at the output")
    _ship(folder, net, 12, names=names, whole=whole)


def window(folder, whole=False):
    """A convolution that reads windows all the time, with results that show every column."""
    net = RandomNetwork(8, (3, 4, 2))
    net.conv(net.input, 1, (2, 3), k=16, pads=((1, 1), (1, 1)), stride=(1, 2), out=S16)
    # Full rate, and resets at every phase: what lost resets are seen by.
    _ship(folder, net, 6, most=2, whole=whole)


def unrolled(folder, whole=False):
    """An unrolled convolution whose windows wait for one another, and for their results."""
    net = RandomNetwork(8, (3, 4, 2))
    net.conv(net.input, 3, (2, 3), k=16, pads=((1, 1), (1, 1)), out=S16)
    _ship(folder, net, 6, most=2, unrolled={"conv0"}, whole=whole)


def pixels(folder, whole=False):
    """An unrolled convolution that reads windows as pixels come, whose last ones need pixels of
    the next map, or none."""
    net = RandomNetwork(8, (3, 5, 1))
    net.conv(net.input, 4, (2, 3), k=12, pads=((0, 1), (1, 1)), out=S16)
    names = ("full rate", "resets while computing", "resets while the output is blocked")
    _ship(folder, net, 6, names=names, blocked=60, by_pixel={"conv0"}, whole=whole)


def digits(folder, whole=False):
    """An unrolled layer that adds two bits a cycle, whose frames come faster than its sums."""
    net = RandomNetwork(8, (4,))
    net.dense(net.input, 8, k=9)
    names = ("full rate", "resets while computing", "resets while the output is blocked")
    _ship(folder, net, 12, names=names, blocked=60, digits={"fc0": 2}, whole=whole)


def side_windows(folder, whole=False):
    """A convolution of two windows side by side, of three in a row: the last one is by itself."""
    net = RandomNetwork(8, (2, 5, 2))
    net.conv(net.input, 2, (2, 2), k=16, pads=((0, 1), (1, 1)), stride=(1, 2), out=S16)
    # Full rate and resets at every phase, also of a memory that is full.
    names = ("full rate", "resets while computing", "resets while the output is blocked")
    _ship(folder, net, 6, names=names, sides={"conv0": 2}, lanes={"conv0": 4}, whole=whole)


def poolings(folder, whole=False):
    """A pooling of windows that overlap, one of activations as they come, and an average whose
    windows are smaller at the border."""
    net = RandomNetwork(8, (4, 4, 1))
    pooled = net.maxpool(net.input, (2, 2), stride=(1, 1))
    pooled = net.average(pooled, (2, 2), stride=(2, 2), pads=((1, 0), (1, 0)))
    net.conv(pooled, 1, (1, 1), k=3, out=S16)
    _ship(folder, net, 6, most=2, whole=whole)


def average(folder, whole=False):
    """An average of activations as they come, with a border, and with some left over at the end
    of rows and of the map."""
    net = RandomNetwork(8, (3, 4, 1))
    pooled = net.average(net.input, (2, 2), stride=(2, 2), pads=((0, 0), (1, 0)))
    net.conv(pooled, 1, (1, 1), k=3, out=S16)
    _ship(folder, net, 6, most=13, whole=whole)


def channels(folder, whole=False):
    """A depthwise convolution of two rows a channel, whose last windows need pixels of the next
    map, or none."""
    net = RandomNetwork(8, (3, 3, 2))
    net.conv(net.input, 4, (3, 3), k=12, groups=2, pads=((1, 1), (1, 1)), out=S16)
    # Full rate, resets at every phase, and random pauses.
    _ship(folder, net, 6, most=3, depthwise=["conv0"], whole=whole)


def shared(folder, whole=False):
    """Two layers on one engine; frames of more results than half of its queue."""
    network, _ = random_network((4, 3, 21), (2, 2), seed=3)
    names = ("resets while computing", "resets among random pauses")
    names += ("resets while the output is blocked",)
    _plan(folder, network, names, blocked=300, engine="shared", lanes=[2, 2], whole=whole)


def decision(folder, whole=False):
    """The two largest of seven scores, with the scores themselves."""
    network = decided(random_network((6, 7), (4,), seed=5)[0], "top=2")
    _plan(folder, network, ("resets while computing", "random pauses"), whole=whole)


def _plan(folder, network, names, blocked=None, whole=False, **options):
    made = plan(network, "icebreaker", check=False, **options)
    x = np.random.default_rng(1).integers(0, 256, (12, network.input.size))
    _ship_graph(
        folder, made.graph, emit(network, made).cores, network, x, None, names, blocked, whole
    )


def _ship(folder, net, frames, most=None, names=None, blocked=None, whole=False, **options):
    made = build(net, family="up5k", frames=frames, **options)
    graph = with_depths(made.graph, fifo_needs(made.graph, made.images))
    images = [made.images[spec.name] for spec in graph.cores]
    _ship_graph(folder, graph, images, made.network, made.x, most, names, blocked, whole)


def _ship_graph(folder, graph, images, network, x, most, names, blocked, whole):
    expected = list(network.trace(x).values())[-1]
    chosen = scenarios(pace(graph, images))[:most]
    if whole:
        chosen, blocked = scenarios(pace(graph, images)), None
    elif names is not None:
        chosen = [scenario for scenario in chosen if scenario.name in names]
    if blocked is not None:  # until all memory is full
        stall = Pattern.script(*(3, blocked, 2, blocked) * 40)
        chosen[-1] = replace(chosen[-1], stall=stall)
    ship(folder, graph, images, x, expected, chosen)


def link(folder):
    """A board's serial link: every kind of packet and of mistake, among them a packet cut off, a
    wrong checksum, noise, and frames one behind the other."""
    top = small_top(divisor=5)
    board = Responder(top.description, lambda frame: np.array(top.accelerator.compute(frame)))
    frames = np.random.default_rng(0).integers(0, 256, (5, 6))
    infer, classify = (
        [
            Packet(kind, tag, top.description.input.encode(x)).encode()
            for tag, x in enumerate(frames)
        ]
        for kind in (Kind.INFER, Kind.CLASSIFY)
    )
    wrong = bytearray(infer[0])
    wrong[-1] ^= 4
    describe, status = (Packet(kind, 7).encode() for kind in (Kind.DESCRIBE, Kind.STATUS))
    talk = [
        describe, b"P" + infer[0], classify[1], bytes(wrong), b"\0PQ" + Packet(0x33, 9).encode(),
        Packet(Kind.INFER, 5, b"abc").encode(), Packet(Kind.STATUS, 6, b"a").encode(),
        b"".join(infer[1:5]), status, describe,
    ]  # fmt: skip
    steps, expected = [], b""
    for data in talk:
        reply = board.feed(data)
        expected += reply
        # Pauses of all lengths, so that nothing always meets the same cycle of something else.
        steps += [(data, len(PacketDecoder().feed(reply))), 1 + len(steps) % 7]
    expected += board.feed(infer[2][:9]) + board.idle() + board.feed(status)
    steps += [(infer[2][:9], 1), (status, 1)]
    # Resets in the middle of requests, after each of which the board knows nothing of them.
    for size in (1, 3, 9, len(infer[0])):
        board = Responder(board.description, board.predict)
        expected += board.feed(infer[3]) + board.feed(status)
        steps += [(infer[1][:size], 0), 3, RESET, (infer[3], 1), (status, 1)]
    judged_talk(folder, top, steps, expected, cycles=40_000)


def loader(folder):
    """A board whose memories are loaded over the link: a set with a wrong word, then the right
    one, frames before and after."""
    board = LiveBoard(banks=1)
    frame, new = board.frames(1)[0], board.words(board.networks[1])
    layout, golden = board.layout, board.responder()
    places = [n << 14 | at for n, block in enumerate(new) for at in range(len(block))]
    words = [word for block in new for word in block]

    def write(first, part):
        address = places[first].to_bytes(4, "little")
        return Packet(Kind.CODES_WRITE, 2, address + layout.encoded(part)).encode()

    ask = Packet(Kind.INFER, 1, board.input.encode(frame)).encode()
    counted, described = Packet(Kind.STATUS, 4).encode(), Packet(Kind.DESCRIBE, 5).encode()
    opened, checked, status = (
        Packet(kind, 3).encode() for kind in (Kind.CODES_OPEN, Kind.CODES_CHECK, Kind.CODES_STATUS)
    )
    spoiled = [words[0] ^ 1, *words[1:]]
    talk = [ask, opened, write(0, spoiled), ask, checked, board.checked, status, ask, opened,
            write(0, words[:1]), checked, board.checked, status, ask, counted, described,
            Packet(0x5A, 6).encode()]  # fmt: skip
    steps, expected = [], []
    for step in talk:
        if isinstance(step, int):
            steps.append(step)
            continue
        reply = golden.feed(step)
        if step == checked:  # the golden model is through with it before it replies
            state = CodeStatus(CodeState.CHECKING, 0)
            reply = [*Packet(Kind.CODES, 3, state.encode()).encode()[:7], *[None] * 6]
        expected += reply
        steps += [(step, 1), 1 + len(steps) % 7]
    judged_talk(folder, board.top(), steps, expected, cycles=200_000)


WHOLE = {"whole": True}
CIRCUITS = {
    "a core": (core, {"most": None}, ""),
    "queues and forks": (graph, WHOLE, ""),
    "windows": (window, WHOLE, ""),
    "an unrolled convolution": (unrolled, WHOLE, ""),
    "windows by the pixel": (pixels, WHOLE, ""),
    "digit-serial adders": (digits, WHOLE, ""),
    "windows side by side": (side_windows, WHOLE, ""),
    "a depthwise core": (channels, WHOLE, ""),
    "poolings": (poolings, WHOLE, ""),
    "an average": (average, WHOLE, ""),
    "a shared engine": (shared, WHOLE, ""),
    "a decision": (decision, WHOLE, ""),
    "a serial link": (link, {}, "accelerator"),
    "a loader": (loader, {}, "accelerator"),
}
"""How each is written into a folder, with all scenarios of the testbench that is shipped, and a
regular expression of cells that are none of it."""
