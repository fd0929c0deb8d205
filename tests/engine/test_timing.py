"""The timing model equals the simulated circuits, cycle for cycle."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from engine import frames_for, random_layer, run, tensor
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import Built, RandomNetwork, build, random_network

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine import timing
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.pulse_core import make_core
from pvq_hw.engine.timing import (
    Wire,
    fifo_needs,
    frame_ends,
    round_ends,
    run_frames,
    time_chain,
    time_graph,
    with_depths,
)
from pvq_hw.errors import InputError

X = IntFormat(4, False)


def _chain(seed: int, cores: int, family: str, fifo_depth: int | None = None, widest: int = 24):
    rng = np.random.default_rng(seed)
    sizes = [int(s) for s in rng.integers(1, widest, cores + 1)]
    specs, images = [], []
    for n, rows in pairwise(sizes):
        groups = int(rng.choice([g for g in (1, 2, 3) if n % g == 0]))
        layer = random_layer(rng, rows, n, X, X, groups, density=rng.random())
        options = {"fifo_depth": fifo_depth} if fifo_depth else {}
        lanes = int(rng.integers(1, min(n, 16) + 1))
        spec, image = make_core(layer, tensor(n, X), lanes, family=family, **options)
        specs.append(spec)
        images.append(image)
    return rng, specs, images


def _check(rng, specs, images, frames=7):
    x = frames_for(rng, frames, specs[0].n, X)
    result = run(specs, images, x)
    rows = specs[-1].rows
    ends = [t - result.taken[0] for t in result.given[rows - 1 :: rows]]
    assert tuple(ends) == frame_ends(specs, images, frames)
    timing = time_chain(specs, images)
    assert timing.latency_cycles == ends[0]
    if timing.period == 1:
        assert timing.interval_cycles == ends[-1] - ends[-2]


@pytest.mark.parametrize("family", ["ecp5", "up5k", "hx8k"])
@pytest.mark.parametrize("cores", [1, 2, 3])
def test_timing_equals_the_circuit(family, cores):
    _check(*_chain(cores, cores, family))


@pytest.mark.parametrize("seed", range(2))
def test_timing_with_few_credits_equals_the_circuit(seed):
    _check(*_chain(seed, 2, "ecp5", fifo_depth=16))


@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.integers(0, 1 << 30), st.integers(1, 3), st.sampled_from(["ecp5", "up5k", "hx8k"]))
def test_timing_of_any_chain_equals_the_circuit(seed, cores, family):
    _check(*_chain(seed, cores, family, widest=14), frames=5)


def test_interval_is_the_slowest_core_where_rows_are_long():
    rng = np.random.default_rng(7)
    first = random_layer(rng, 12, 96, X, X, density=0.9)
    second = random_layer(rng, 5, 12, X, X)
    a = make_core(first, tensor(96, X), 2)
    b = make_core(second, tensor(12, X), 2)
    timing = time_chain([a[0], b[0]], [a[1], b[1]])
    assert timing.interval_cycles == a[0].words


def test_rounds_that_repeat_are_not_run_again(monkeypatch):
    """Where a state comes again, later ends follow from it; they are those of all rounds run."""
    made = []

    class Counted(Wire):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(timing, "Wire", Counted)
    fewer = 0
    for seed in range(9):
        net = random_network(seed)
        names = [layer.name for layer in net.network().layers if layer.weights is not None]
        built = build(net, unrolled=names if seed % 3 == 1 else ())
        graph = with_depths(built.graph, fifo_needs(built.graph, built.images))
        made.clear()
        wires, size = run_frames(graph, built.images, 40 + graph.lags), graph.transfers[1]
        whole, first = sum(len(wire.moved) for wire in made), wires[graph.input].moved[0]
        want = [end - first for end in wires[graph.output].moved[size - 1 :: size]][:40]
        made.clear()
        assert list(round_ends(graph, built.images, 40)) == want, seed
        fewer += sum(len(wire.moved) for wire in made) < 0.4 * whole
    assert fewer >= 2


def _by_pixel(seed: int) -> Built:
    """Windows that wait for the next map's pixels, or for none to come."""
    net, pads = RandomNetwork(seed, (6, 5, 4)), ((1, 1), (1, 1))
    x = net.conv(net.input, 4, (3, 3), k=4, groups=4, pads=pads)
    net.conv(x, 3, (3, 3), k=6, pads=pads)
    return build(net, by_pixel={"conv1"}, depthwise={"conv0"}, ends=(4, 1))


@pytest.mark.parametrize("made", [lambda: build(random_network(4)), lambda: _by_pixel(1)])
def test_a_run_that_goes_on_equals_one_of_all_rounds(made):
    """Rounds that are let in later change no time of those before, nor do they come otherwise."""
    built = made()
    graph = with_depths(built.graph, fifo_needs(built.graph, built.images))
    whole = run_frames(graph, built.images, 21)
    grown = timing._Run(graph, built.images, timing._ENDLESS)
    for rounds in (1, 2, 9, 20):
        grown.reach(rounds)
        assert grown.offered < 2 * rounds + 8
        for unit in graph.units:
            for name in unit.outputs:
                count = rounds * grown._given(unit)
                for kind in ("offers", "moved"):
                    have, want = (getattr(w[name], kind)[:count] for w in (grown.wires, whole))
                    assert len(have) == count, (rounds, name, kind)
                    assert have == want, (rounds, name, kind)


def test_unlike_neighbors_are_refused():
    _, specs, images = _chain(1, 1, "ecp5")
    with pytest.raises(InputError, match="must take what"):
        time_chain([*specs, *specs], [*images, *images])
    with pytest.raises(InputError, match="must have units"):
        time_chain([], [])
    flat, beside = ([replace(spec, frames=v) for spec in specs] for v in (1, 2))
    last = replace(flat[0], n=flat[0].rows)
    with pytest.raises(InputError, match="'layer_2' takes 1 frames side by side, but wire"):
        time_chain([*beside, last], [*images, *images])


def test_queues_that_fill_slowly_do_not_deceive():
    """Three equal intervals are no steady state while a queue still fills."""
    _, specs, images = _chain(77, 3, "ecp5", 16, widest=8)
    ends = frame_ends(specs, images, 400)
    timing = time_chain(specs, images)
    early = {b - a for a, b in pairwise(ends[2:6])}
    assert timing.interval_cycles == -(-(ends[-1] - ends[-1 - timing.period]) // timing.period)
    assert timing.interval_cycles not in early


def test_unknown_units_are_refused_by_name():
    @dataclass(frozen=True)
    class Abacus:
        name: str = "beads"
        inputs: tuple = ("i",)
        outputs: tuple = ("o",)
        kind: str = "abacus"
        frames: int = 1
        side_by_side: tuple = (1, 1)
        widths: tuple = (1, 1)
        transfers: tuple = ((3,), 3)

        def sizes(self):
            return (3,), 3

        def formats(self):
            return (X,), X

    with pytest.raises(InputError, match="Unit 'beads' has no timing: its kind 'abacus'"):
        time_graph(GraphSpec((Abacus(),)), {})
