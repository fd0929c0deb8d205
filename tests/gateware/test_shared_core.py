"""Several layers on one engine: golden model, circuit and timing model agree; refusals."""

from dataclasses import replace

import numpy as np
import pytest
from random_layers import Case, Chain, make_chain

import sim
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.pulse_core import CoreImage
from pvq_hw.engine.shared_core import SharedSpec, make_shared_core
from pvq_hw.engine.timing import time_graph
from pvq_hw.engine.units import CoreUnit
from pvq_hw.errors import InputError
from sim.reference import ReferenceCore, core_reference

U8, S8, S16 = IntFormat(8, False), IntFormat(8, True), IntFormat(16, True)
U5 = IntFormat(5, False)

# Signed and unsigned, wide and narrow activations, other shifts, a layer of fewer columns than
# lanes, rows enough that results wait.
MIXED = (7, S8, (Case(5, 6, 2), Case(2, 6, 2, S8, shift=9), Case(4, 2, 2, U5, shift=10),
                 Case(9, 4, 2, S16)))  # fmt: skip
CHAINS = {
    "mixed": (*MIXED, 3, "up5k"),
    "one layer": (9, S8, (Case(4, 5, 2, S16),), 2, "ecp5"),
    "narrow": (30, U8, (Case(3, 16, 2), Case(17, 3, 2), Case(40, 9, 2, S16)), 8, "up5k"),
    "serial": (30, U5, (Case(7, 16, 2), Case(17, 6, 2), Case(30, 9, 2, S8)), 5, "hx8k"),
    "one column": (1, U8, (Case(1, 1, 1), Case(1, 1, 1, S8)), 1, "ecp5"),
    "deep": (24, U8, (*(Case(8, 9, 3),) * 17, Case(10, 9, 3, S16)), 4, "ecp5"),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in CHAINS if name != "mixed"]


def engine(name: str, **options) -> tuple[Chain, GraphSpec, SharedSpec, CoreImage]:
    """A chain's layers on one engine."""
    n, x, cases, lanes, family = CHAINS[name]
    chain = make_chain(1, n, x, *cases, frames=2)
    tensors = chain.network.tensors()
    layers = [(layer, tensors[layer.input]) for layer in chain.network.layers]
    spec, image = make_shared_core(layers, lanes, family=family, **options)
    unit = CoreUnit(layers[-1][0].name, ("i",), ("o",), spec)
    return chain, GraphSpec((unit,)), spec, image


@pytest.mark.parametrize("name", ["mixed", *SLOW])
def test_every_layer_s_outputs_and_the_cycles(name):
    chain, graph, spec, image = engine(name)
    trace = chain.network.trace(chain.x)
    result = sim.simulate(graph, [image], chain.x, "amaranth")
    compared = sim.compare(result, trace)
    assert compared.mismatches == 0, str(compared.first)
    assert compared.outputs_compared == len(chain.x) * sum(x.rows for x in spec.layers)
    timing = time_graph(graph, {spec.name: image})
    assert (result.interval_cycles, result.latency_cycles) == (
        timing.interval_cycles, timing.latency_cycles,
    )  # fmt: skip
    # Nothing waits but for the input, which comes while the later layers are computed.
    assert timing.interval_cycles == max(spec.frame_cycles, timing.interval_cycles)


@pytest.mark.parametrize("name", ["mixed", *SLOW])
def test_outputs_under_stalls_and_resets(name):
    chain, graph, _, image = engine(name)
    result = sim.simulate(
        graph, [image], chain.x, "amaranth", idle="random:0.4", stall="bursts:9", seed=5,
        resets=(30, 31, 140),
    )  # fmt: skip
    assert sim.compare(result, chain.network.trace(chain.x)).mismatches == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
def test_the_exported_verilog(name):
    chain, graph, spec, image = engine(name)
    result = sim.simulate(graph, [image], chain.x, "compiled")
    assert sim.compare(result, chain.network.trace(chain.x)).mismatches == 0
    timing = time_graph(graph, {spec.name: image})
    assert result.interval_cycles == timing.interval_cycles


@pytest.mark.parametrize("name", CHAINS)
def test_golden_model_and_reference_from_the_memories_alone(name):
    chain, _, spec, image = engine(name)
    trace, found = chain.network.trace(chain.x), spec.trace(image, chain.x)
    for layer in spec.layers:
        assert np.array_equal(found[layer.name], trace[layer.name]), layer.name
    words = spec.contents(image)
    memories = (words[spec.memory_name(role)] for role in ("weights", "mult", "bias"))
    core = ReferenceCore(spec.to_json(), *memories)
    assert core_reference.has("shared")
    for frame, expected in zip(chain.x, trace[spec.layers[-1].name], strict=True):
        assert core.compute(frame.tolist())[0] == expected.tolist()


def test_multipliers_are_scaled_so_that_layers_have_few_shifts():
    chain, _, spec, _ = engine("mixed")
    own = [layer.shift for layer in chain.network.layers]
    shared = [layer.shift for layer in spec.layers]
    assert (len(set(own)), len(set(shared))) == (3, 2)
    assert all(b >= a for a, b in zip(own, shared, strict=True))
    assert spec.mult_bits <= 16


def test_the_program_says_what_differs_from_layer_to_layer():
    _, _, spec, image = engine("mixed")
    steps = spec.steps()
    assert [step["source"] for step in steps] == [0, 1, 2, 1]
    assert [step["target"] for step in steps] == [1, 2, 1, 0]
    assert [step["signed"] for step in steps] == [1, 0, 1, 0]
    assert [step["last"] for step in steps] == [0, 0, 0, 1]
    assert steps[-1]["before"] == spec.words - 2
    low = (1 << spec.program_fields["before"]) - 1
    assert [word & low for word in spec.program()] == [step["before"] for step in steps]
    assert SharedSpec.from_json(spec.to_json()) == spec
    assert spec.contents(image)["engine_program"] == spec.program()


def test_what_an_engine_cannot_share_is_refused_by_name():
    def refusal(n, x, *cases):
        chain = make_chain(0, n, x, *cases)
        tensors = chain.network.tensors()
        with pytest.raises(InputError) as caught:
            make_shared_core([(x, tensors[x.input]) for x in chain.network.layers], 2)
        return str(caught.value)

    binary = IntFormat(1, True)
    assert refusal(8, U8, Case(4, 5, 2, encoding="int8")) == (
        "Layer 'fc0' can't be on a shared engine: it has 8-bit weights; a small N/K of its own, "
        "such as 0.5, takes fewer cycles there"
    )
    assert "'fc1' can't be on a shared engine: it has several gains a row" in refusal(
        8, U8, Case(4, 5, 2), Case(4, 4, 2, groups=2)
    )
    assert "its activations are signs" in refusal(8, binary, Case(4, 5, 2))
    assert "it reads activations of 16 bits" in refusal(8, S16, Case(4, 5, 2, shift=14))
    _, _, spec, _ = engine("mixed")
    with pytest.raises(InputError, match="layer 'fc1' must take what is before it"):
        replace(spec, layers=(spec.layers[0], replace(spec.layers[1], n=4), *spec.layers[2:]))
