"""What a user could write down instead of the plan: every number of lanes, code, memory,
multiplier, number of windows and engine of each layer, of which an exact search takes the fastest
that fits; and random networks on random boards to try that on."""

from dataclasses import replace

import numpy as np
from plan_networks import S16, U8, random_network
from random_graphs import RandomNetwork

from pvq_hw.engine.engines import AUTO
from pvq_hw.engine.units import CoreUnit
from pvq_hw.plan.candidates import Question, layer_choices, offered, too_thin, with_serial
from pvq_hw.plan.folding import FoldLayer, batch_options, fold, known_layers
from pvq_hw.plan.plan import plan
from pvq_hw.plan.resources import Resources, budget, load_resources, top_resources
from pvq_hw.plan.search import search
from pvq_hw.plan.unit_resources import unit_resources
from pvq_hw.target.boards import TARGETS, get_target

__all__ = ["beaten", "random_task"]

WORTH = 0.95
LANES = 18  # numbers of lanes that are written down for a layer and a code
MOST_LANES = 400
BOARDS = sorted({(t.engine, t.device.name): t.name for t in reversed(TARGETS.values())}.values())
SAME = {"pads": ((1, 1), (1, 1))}


def beaten(made, board, frames=1):
    """The planner's cycles, and the fewest of what else can be written down if they are 5 % fewer
    and fit; of a network, or of layers whose codes are not known yet."""
    known = not isinstance(made, list)
    layers = known_layers(made) if known else made
    each = {x.name: {"engine": AUTO} for x in layers} if frames == 1 else {}
    reserve = top_resources(board, layers[0].n)
    if known:
        planned = plan(made, board, frames=frames, each=each, check=False)
        fits, cycles = planned.resources.within(budget(board)), planned.interval_cycles
        others = [u for u in planned.graph.units if not isinstance(u, CoreUnit)]
        reserve += sum((unit_resources(u, board.engine) for u in others), Resources())
    else:
        planned = fold(layers, board, frames=frames, each=each, reserve=reserve)
        fits, cycles = planned.fits, planned.interval_cycles
    goal = WORTH * cycles if fits else float("inf")
    room = budget(board) - reserve
    questions = _questions(layers, board, frames)
    lists = [_written(x, q, goal, room) for x, q in zip(layers, questions, strict=True)]
    found = _fastest(lists, board, room) if all(lists) else None
    if found is None:
        return cycles, None
    lanes, codes, asked = zip(*found, strict=True)
    each = {x.name: own for x, own in zip(layers, asked, strict=True)}
    if known:
        codes = {x.name: code for x, code in zip(layers, codes, strict=True) if code}
        own = plan(made, board, frames=frames, lanes=lanes, codes=codes, each=each, check=False)
        fits = own.resources.within(budget(board))
    else:
        layers = [replace(x, code=code) for x, code in zip(layers, codes, strict=True)]
        own = fold(layers, board, frames=frames, lanes=lanes, each=each, reserve=reserve)
        fits = own.fits
    fewer = fits and own.interval_cycles <= goal
    return cycles, (own.interval_cycles, found) if fewer else None


def _questions(layers, board, frames):
    sides = batch_options(layers, frames)
    first, last = next((i for i, side in enumerate(sides) if side), -1), len(layers) - 1
    return [
        Question(
            board,
            tuple(sorted(side.items())),
            held=layer.geometry is None,
            ends=(frames if i == first else 1, frames if i == last else 1),
            turns=1 if side else frames,
        )
        for i, (layer, side) in enumerate(zip(layers, sides, strict=True))
    ]


def _written(layer, question, goal, room):
    """(choice, code) of a layer within the goal."""
    found = []
    free = [p for p in range(1, min(layer.n, MOST_LANES) + 1) if not too_thin(layer, p)]
    for code in ("pulse", "shifted"):
        own = replace(layer, code=code, engine="folded")
        for p in _lanes(own, free, question, goal):
            choices = layer_choices(own, [p], question)
            for side in (7, 10, 12, 16) if layer.geometry is not None else ():
                if side <= layer.geometry.output_size[1]:
                    choices = choices + layer_choices(own, [p], replace(question, windows=side))
            found += [(choice, code) for choice in with_serial(choices, question)]
    if not question.asked:
        auto = replace(layer, engine=AUTO)
        for wired in (True, False):
            choices = offered(auto, question, room.luts, wired=wired)
            found += [(choice, None) for choice in with_serial(choices, question)]
    return [pair for pair in found if pair[0].cycles <= goal]


def _lanes(layer, free, question, goal):
    """From the fewest that reach the goal up to twice as many."""
    steps = sorted({free[min(len(free), int(1.2**k)) - 1] for k in range(36)})
    fast = (p for p in steps if min(c.cycles for c in layer_choices(layer, [p], question)) <= goal)
    low = next(fast, None)
    if low is None:
        return []
    before = max((p for p in steps if p < low), default=0)
    near = [p for p in free if before < p <= 2.2 * low + 4]
    return near[: LANES // 2] + near[LANES // 2 :: max(1, 2 * len(near) // LANES)]


def _fastest(lists, board, room):
    """(lanes, code, options) of every layer; None where nothing fits."""
    for loaded in (False, True) if board.device.sprams else (False,):
        lists_now = [[pair for pair in own if loaded or not pair[0].cost.sprams] for own in lists]
        if not all(lists_now):
            continue
        left = room - load_resources(board) if loaded else room
        found = search([[choice for choice, _ in own] for own in lists_now], left)
        if found.fits:
            codes = [
                next(code for choice, code in own if choice is taken)
                for own, taken in zip(lists_now, found.choices, strict=True)
            ]
            return [_options(*pair) for pair in zip(found.choices, codes, strict=True)]
    return None


def _options(choice, code):
    spec = choice.spec
    asked = {"engine": choice.engine.kind}
    if code is not None:
        asked["code_memory"] = spec.code_memory
        if spec.row_windows:
            asked["windows"] = spec.frames
    if spec.multiplier == "serial" and not choice.engine.wired:
        asked["multiplier"] = "serial"
    return (None if code is None else spec.lanes), code, asked


def random_task(seed):
    """(layers or network, board, frames): chains before and after quantization, convolutions,
    residual and depthwise ones."""
    rng = np.random.default_rng([seed, 4711])
    small = np.array([4 if TARGETS[name].device.luts < 30_000 else 1 for name in BOARDS])
    board = get_target(str(rng.choice(BOARDS, p=small / small.sum())))
    kind = rng.choice(["chain", "codes", "maps"], p=[0.35, 0.35, 0.3])
    if kind == "maps":
        return _maps(rng, seed), board, 1
    count = int(rng.integers(2, 6))
    sizes = [int(_between(rng, 8, 800)) for _ in range(count)] + [int(_between(rng, 2, 150))]
    ratio = _between(rng, 0.7, 16)
    pulses = [max(1, round(n / (ratio * _between(rng, 0.6, 1.6)))) for n in sizes[:-1]]
    frames = int(rng.choice([1, 1, 1, 1, 2, 4]))
    if kind == "codes":
        return random_network(tuple(sizes), tuple(pulses), seed=seed)[0], board, frames
    layers = [
        FoldLayer(f"fc{i}", m, n, k, U8, S16 if i == count - 1 else U8)
        for i, (n, m, k) in enumerate(zip(sizes[:-1], sizes[1:], pulses, strict=True))
    ]
    return layers, board, frames


def _maps(rng, seed):
    net = RandomNetwork(seed, (*rng.integers(6, 17, 2).tolist(), int(rng.choice([1, 2, 3, 8]))))
    ratio, x = _between(rng, 0.5, 8), net.input

    def conv(x, rows, size, groups=1):
        k = max(1, round(size * size * x.shape[2] / groups / ratio / _between(rng, 0.6, 1.6)))
        return net.conv(x, rows, (size, size), k=k, groups=groups, **(SAME if size > 1 else {}))

    for _ in range(int(rng.integers(1, 4))):
        channels, draw = x.shape[2], rng.random()
        if channels > 1 and draw < 0.3:
            x = conv(conv(x, channels, 3, channels), int(rng.choice([8, 16, 24])), 1)
        elif channels > 1 and draw < 0.5:
            x = net.add(x, conv(conv(x, channels, 3), channels, 3))
        else:
            x = conv(x, int(rng.choice([4, 8, 12, 16, 24])), 3)
        if rng.random() < 0.4 and min(x.shape[:2]) >= 4:
            x = net.maxpool(x, (2, 2), stride=(2, 2))
    if rng.random() < 0.5:
        x = net.average(x, x.shape[:2], stride=x.shape[:2])
    net.dense(x, 10, k=max(1, round(x.size / ratio)))
    return net.network()


def _between(rng, low, high):
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
