"""The chains of the table in Amaranth's simulator: golden model and timing model hold."""

from dataclasses import replace

import numpy as np
import pytest
from chain_table import CHAINS, chain

import sim
from pvq_hw.engine.timing import time_chain

PATTERNS = ["none", "random:0.3", "random:0.9", "bursts:15"]
QUICK = ["plain", "one weight", "one column", "zero rows", "all zero", "groups", "two frames"]


def golden(name):
    """The chain, and its golden outputs by the names of its cores."""
    made = chain(name)
    trace = made.network.trace(made.x)
    names = [layer.name for layer in made.network.layers]
    return made, {s.name: trace[n] for s, n in zip(made.specs, names, strict=True)}


def check(name, **options):
    made, trace = golden(name)
    result = sim.simulate(made.graph, made.images, made.x, "amaranth", **options)
    comparison = sim.compare(result, trace)
    assert comparison.mismatches == 0, str(comparison.first)
    assert comparison.frames == len(made.x)
    assert comparison.outputs_compared == len(made.x) * sum(s.rows for s in made.specs)
    return result


@pytest.mark.parametrize("name", CHAINS)
def test_outputs_under_stalls_and_reset_in_mid_frame(name):
    check(name, idle="random:0.4", stall="bursts:9", seed=5, resets=(30, 31, 77))


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CHAINS]
)
def test_cycles_are_those_of_the_timing_model(name):
    made, _ = golden(name)
    timing = time_chain(made.specs, made.images)
    result = check(name)
    assert result.interval_cycles == timing.interval_cycles
    assert result.latency_cycles == timing.latency_cycles


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("idle", PATTERNS)
@pytest.mark.parametrize("stall", PATTERNS)
def test_outputs_under_every_pattern(name, idle, stall):
    check(name, idle=idle, stall=stall, seed=len(idle) + 7 * len(stall), settle=False)


def test_a_frame_depends_on_nothing_before_it():
    made, _ = golden("plain")
    forward = sim.simulate(made.graph, made.images, made.x, "amaranth", settle=False)
    backward = sim.simulate(made.graph, made.images, made.x[::-1], "amaranth", settle=False)
    for name, outputs in forward.outputs.items():
        assert np.array_equal(outputs, backward.outputs[name][::-1])


def test_a_wrong_bias_is_a_named_mismatch():
    made, trace = golden("plain")
    spec, image = made.specs[-1], made.images[-1]
    inside = np.abs(trace[spec.name]) < spec.out.max - 3
    frame, row = (int(i) for i in np.argwhere(inside)[0])
    bias = list(image.bias)
    bias[row] += 3 << spec.shift
    images = [*made.images[:-1], replace(image, bias=tuple(bias))]
    result = sim.simulate(made.graph, images, made.x, "amaranth", settle=False)
    comparison = sim.compare(result, trace)
    value = int(trace[spec.name][frame, row])
    assert comparison.mismatches >= np.count_nonzero(inside[:, row])
    assert str(comparison.first) == (
        f"frame {frame}, layer '{spec.name}', row {row}: expected {value}, got {value + 3}"
    )
