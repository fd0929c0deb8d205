"""No lanes, codes, memories or multipliers that a user can write down beat the planner by more
than 5 % of the cycles: a search at random, which knows only what each choice costs, finds none.
"""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from plan_networks import S16, U8, random_network
from random_graphs import RandomNetwork

from pvq_hw.plan.candidates import Choice, Question, layer_choices, too_thin, with_serial
from pvq_hw.plan.folding import FoldLayer, fold, known_layers
from pvq_hw.plan.plan import plan
from pvq_hw.plan.resources import Resources, budget, load_resources, top_resources
from pvq_hw.target.boards import get_target

WORTH = 0.95
DRAWS = 400
LANES = 6  # numbers of lanes of a layer that are drawn

JETS, DIGITS, MIDDLE = (16, 64, 32, 32, 5), (64, 32, 10), (256, 128, 64, 10)
SMALL, LARGE = (784, 64, 32, 10), (784, 512, 512, 10)


def mlp(sizes, ratio):
    """Dense layers before quantization, N/K of each."""
    pairs = list(pairwise(sizes))
    return [
        FoldLayer(f"fc{i}", m, n, max(1, round(n / ratio)), U8, S16 if i == len(pairs) else U8)
        for i, (n, m) in enumerate(pairs, 1)
    ]


def dense(sizes, ratio):
    """The same after quantization, at random."""
    return random_network(sizes, tuple(max(1, round(n / ratio)) for n in sizes[:-1]))[0]


def convolutions():
    net = RandomNetwork(3, (12, 12, 1))
    x = net.maxpool(net.conv(net.input, 8, (3, 3), k=30), (2, 2), stride=(2, 2))
    net.dense(net.conv(x, 12, (3, 3), k=24), 10, k=60)
    return net.network()


def residual():
    net, same = RandomNetwork(4, (8, 8, 3)), {"pads": ((1, 1), (1, 1))}
    x = net.conv(net.input, 8, (3, 3), k=20, **same)
    branch = net.conv(net.conv(x, 8, (3, 3), k=20, **same), 8, (3, 3), k=20, **same)
    net.dense(net.average(net.add(x, branch), (8, 8), stride=(8, 8)), 10, k=8)
    return net.network()


def depthwise():
    net = RandomNetwork(5, (8, 8, 16))
    x = net.conv(net.input, 16, (3, 3), k=5, groups=16, pads=((1, 1), (1, 1)))
    net.dense(net.average(net.conv(x, 32, (1, 1), k=8), (8, 8), stride=(8, 8)), 10, k=8)
    return net.network()


def dense_pulses():
    """More pulses than weights, in windows and beside them."""
    net, same = RandomNetwork(6, (15, 15, 1)), {"pads": ((1, 1), (1, 1))}
    x = net.conv(net.conv(net.input, 16, (3, 3), k=8, **same), 16, (3, 3), k=129, **same)
    net.dense(net.average(x, (15, 15), stride=(15, 15)), 10, k=16)
    return net.network()


def twice_as_many_pulses():
    """A second layer of 635 pulses for 278 weights."""
    first, last = mlp((46, 278, 23), 1)
    return [replace(first, k=47), replace(last, k=635)]


# (target, layers or network, cycles that must be reached at least)
CASES = {
    "icebreaker middle 3": ("icebreaker", lambda: mlp(MIDDLE, 3), 1092),
    "ulx3s-25f large 10": ("ulx3s-25f", lambda: mlp(LARGE, 10), 1120),
    "icebreaker small 5": ("icebreaker", lambda: mlp(SMALL, 5), 912),
    "ulx3s-25f jets, codes": ("ulx3s-25f", lambda: random_network(JETS, (1, 16, 8, 8))[0], 66),
    "hx8k small 5": ("hx8k", lambda: mlp(SMALL, 5), 912),
    "hx8k small 10": ("hx8k", lambda: mlp(SMALL, 10), 784),
    "ulx3s-25f small 2": ("ulx3s-25f", lambda: mlp(SMALL, 2), 784),
    "ulx3s-25f wide 2": ("ulx3s-25f", lambda: mlp((400, 300, 10), 2), 600),
    "ulx3s-25f large 5": ("ulx3s-25f", lambda: mlp(LARGE, 5), 1536),
    "ulx3s-25f large 20": ("ulx3s-25f", lambda: mlp(LARGE, 20), 1056),
    "ulx3s-85f large 5": ("ulx3s-85f", lambda: mlp(LARGE, 5), 1024),
    "icebreaker large 20": ("icebreaker", lambda: mlp(LARGE, 20), 4992),
    "icebreaker large 5": ("icebreaker", lambda: mlp(LARGE, 5), 13408),
    "icebreaker digits 2": ("icebreaker", lambda: mlp(DIGITS, 2), 64),
    "hx8k jets 2": ("hx8k", lambda: mlp(JETS, 2), 128),
    "ulx3s-25f jets 2": ("ulx3s-25f", lambda: mlp(JETS, 2), 80),
    "icebreaker jets 2, codes": ("icebreaker", lambda: dense(JETS, 2), 155),
    "hx8k jets 2, codes": ("hx8k", lambda: dense(JETS, 2), 155),
    "ulx3s-25f wide end 3": ("ulx3s-25f", lambda: mlp((114, 27, 53, 311), 3.12), 331),
    "ulx3s-25f few inputs 5, codes": (
        "ulx3s-25f",
        lambda: dense((26, 151, 169, 8), 4.75),
        205,
    ),
    "icebreaker few pulses 11, codes": ("icebreaker", lambda: dense((37, 71, 150), 10.96), 230),
    "icebreaker convolutions": ("icebreaker", convolutions, 1560),
    "ulx3s-25f convolutions": ("ulx3s-25f", convolutions, 1610),
    "ulx3s-25f residual": ("ulx3s-25f", residual, 1090),
    "icebreaker depthwise": ("icebreaker", depthwise, 3140),
    "icebreaker dense pulses": ("icebreaker", dense_pulses, 30000),
    "icebreaker shifted in SPRAM": ("icebreaker", twice_as_many_pulses, 1431),
    "hx8k depthwise": ("hx8k", depthwise, 2950),
}


# Further samples of what the other cases are of.
LONG = {
    "ulx3s-25f large 5", "ulx3s-25f large 10", "ulx3s-25f large 20", "icebreaker large 5",
    "icebreaker small 5", "hx8k small 10", "ulx3s-25f small 2", "ulx3s-25f wide 2",
    "ulx3s-25f convolutions", "hx8k depthwise", "hx8k jets 2, codes",
}  # fmt: skip


@cache
def case(name):
    """Layers, target, reserve, and the planner's cycles."""
    kind, make, _ = CASES[name]
    board, made = get_target(kind), make()
    if isinstance(made, list):
        reserve = top_resources(board, made[0].n)
        return made, board, reserve, fold(made, board).interval_cycles
    planned = plan(made, board)
    cores = sum((layer.resources for layer in planned.layers), Resources())
    return known_layers(made), board, planned.resources - cores, planned


def cycles(name):
    found = case(name)[-1]
    return found if isinstance(found, int) else found.interval_cycles


NAMES = [pytest.param(n, marks=pytest.mark.slow if n in LONG else ()) for n in CASES]


@pytest.mark.parametrize("name", NAMES)
def test_a_search_at_random_finds_no_faster_plan(name):
    layers, board, reserve, _ = case(name)
    goal = WORTH * cycles(name)
    rng = np.random.default_rng(len(name))
    drawn = [user_choices(rng, layer, board, goal) for layer in layers]
    limit = budget(board)
    parts = [shares(own, limit) for own in drawn]
    for _ in range(DRAWS if all(drawn) else 0):
        weights = rng.dirichlet(np.full(4, 0.5))
        picked = [cheapest(rng, *pair, weights) for pair in zip(drawn, parts, strict=True)]
        total = sum((choice.cost for choice in picked), reserve)
        total += load_resources(board) if total.sprams else Resources()
        if total.within(limit):  # by what the layers take alone; they may wait for each other
            lanes = [choice.lanes for choice in picked]
            assert with_lanes(name, tuple(lanes)) > goal, f"lanes {lanes} take {total}"


@cache
def with_lanes(name, lanes):
    """Cycles between frames of the planner's best choice with these lanes."""
    kind, make, _ = CASES[name]
    board, made = get_target(kind), make()
    if isinstance(made, list):
        return fold(made, board, lanes=lanes).interval_cycles
    return plan(made, board, lanes=lanes, check=False).interval_cycles


def user_choices(rng, layer, board, goal):
    """Choices at random below ``goal`` cycles: lanes, code, memory, multiplier. Lanes that would
    cost accuracy, since pulses are balanced over them, are left out."""
    asked = Question(board)
    free = [p for p in range(1, min(layer.n, 300) + 1) if not too_thin(layer, p)]
    places = sorted({min(int(1.15**k), len(free)) for k in range(42)})
    steps = [free[place - 1] for place in places]
    low = next((p for p in steps if quick(layer, p, asked, goal)), None)
    if low is None:
        return []
    lanes = {low, *rng.choice([p for p in free if 0.85 * low <= p <= 2 * low + 3], LANES).tolist()}
    codes = ("pulse", "shifted") if layer.groups == 1 else ("pulse",)
    found: list[Choice] = []
    for p in lanes:
        own = [c for code in codes for c in layer_choices(replace(layer, code=code), [p], asked)]
        found += with_serial(own, asked)
    return [choice for choice in found if choice.cycles <= goal]


def quick(layer, lanes, asked, goal):
    return min(choice.cycles for choice in layer_choices(layer, [lanes], asked)) <= goal


def shares(own, limit):
    """What each choice takes of each kind of part of the chip."""
    parts = np.array([[c.cost.luts, c.cost.brams, c.cost.dsps, c.cost.sprams] for c in own])
    return parts.reshape(-1, 4) / np.maximum(1, [limit.luts, limit.brams, limit.dsps, limit.sprams])


def cheapest(rng, own, parts, weights):
    """A choice that is cheap by these weights, more or less."""
    price = parts @ weights
    return own[
        int((price * rng.uniform(0.9, 1.1, len(own)) + 1e-9 * rng.random(len(own))).argmin())
    ]


@pytest.mark.parametrize("name", NAMES)
def test_cycles_are_not_above_those_once_reached(name):
    assert cycles(name) <= CASES[name][2]


def test_a_few_cycles_more_are_taken_where_they_cost_much_less():
    layers, board = mlp(LARGE, 10), get_target("ulx3s-85f")
    found = fold(layers, board)
    faster = fold(layers, board, lanes=(39, 208, 1))
    assert faster.fits
    assert WORTH * found.interval_cycles < faster.interval_cycles
    assert found.interval_cycles > faster.interval_cycles
    assert found.cost.luts < 0.6 * faster.cost.luts


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("ulx3s-25f small 2", "layer 'fc1' takes the 784 activations one a cycle"),
        ("ulx3s-85f large 5", "layer 'fc1' has 157 pulses a row, and 78 lanes"),
        ("hx8k small 5", "% fewer cycles would take about 34 block RAMs, of which 32 may be used"),
        ("icebreaker large 20", "would take about 5 SPRAMs, of which 4 may be used"),
    ],
)
def test_what_stops_the_plan_is_said_in_one_line(name, limit):
    kind, make, _ = CASES[name]
    assert limit in fold(make(), get_target(kind)).limit


def test_given_lanes_and_other_units_are_named_where_they_are_the_limit():
    layers, board = mlp(DIGITS, 2), get_target("ulx3s-85f")
    given = fold(layers, board, lanes=(2, 1))
    assert given.limit == "layer 'fc1' is as fast as the lanes that it was given: 2"
    plain = fold(layers, board, lanes=(16, 8), pace=500, slowest="unit 'pool' is slow")
    assert plain.limit == "unit 'pool' is slow"
    assert fold(mlp(LARGE, 5), get_target("hx8k")).limit == ""  # it does not fit at all


def test_plans_carry_their_limit():
    planned = case("icebreaker jets 2, codes")[-1]
    assert "may be used" in planned.limit
    value = planned.to_json()
    assert type(planned).from_json(value) == planned
    with pytest.raises(Exception, match="Plan: limit must be a line of at most 300 characters"):
        type(planned).from_json(value | {"limit": "two\nlines"})
