"""Unrolled layers against the golden model, and every cycle against the timing."""

import json
from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator
from engine import check_streams, run
from random_layers import Case, make_chain

from gateware.arith.adder_graph import AdderNetwork
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.adder_graph import make_adder_graph
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.kinds import make_layer_core
from pvq_hw.engine.timing import time_graph
from pvq_hw.errors import InputError

U8, S8, S4, BIT = (
    IntFormat(8, False),
    IntFormat(8, True),
    IntFormat(4, True),
    IntFormat(1, True),
)
UNROLLED = {"engine": "unrolled"}

# Every chain is one circuit: rows, pulses, outputs, groups, weights and multipliers of its layers.
CHAINS = {
    "wide after narrow": (
        (9, U8, Case(20, 12, 1, S8, strong=True, options=UNROLLED), Case(3, 5, 1, options=UNROLLED))
    ),
    "groups, a row of zeros, signed": (
        (12, S8, Case(5, 9, 1, S4, groups=3, zero_rows=(1,), options=UNROLLED))
    ),
    "one input, one pulse a row": (1, U8, Case(2, 1, 1, options=UNROLLED)),
    "8-bit weights, serial multiplier": (
        (
            16,
            S4,
            Case(3, 1, 1, U8, encoding="int8", shift=12, options=UNROLLED | {"family": "hx8k"}),
        )
    ),
    "serial, slower than the input": (
        (4, U8, Case(6, 7, 1, U8, options=UNROLLED | {"family": "hx8k", "multiplier_interval": 3}))
    ),
    "binary to binary": (
        (
            10,
            BIT,
            Case(12, 8, 1, BIT, threshold=True, options=UNROLLED),
            Case(4, 6, 1, S8, options=UNROLLED),
        )
    ),
    "folded, unrolled, folded": (
        (
            24,
            U8,
            Case(10, 14, 3),
            Case(16, 9, 1, S8, options=UNROLLED | {"params_memory": "block"}),
            Case(6, 8, 2),
        )
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_results_are_the_golden_models_and_cycles_the_timings(name):
    n, form, *cases = CHAINS[name]
    chain = make_chain(3, n, form, *cases, frames=2)
    wanted = chain.network.predict(chain.x)
    value = chain.x
    for spec, image in zip(chain.specs, chain.images, strict=True):
        assert CoreBase.from_json(json.loads(json.dumps(spec.to_json()))) == spec
        value = spec.compute(image, value)
    assert np.array_equal(value, wanted)
    check_streams(chain)


def test_a_frame_takes_as_long_as_it_comes_and_goes():
    for n, rows in ((24, 5), (6, 20)):
        chain = make_chain(1, n, U8, Case(rows, 4, 1, options=UNROLLED))
        (spec,) = chain.specs
        timing = time_graph(chain.graph, chain.graph.named(chain.images))
        assert timing.interval_cycles == max(n, rows)
        assert timing.latency_cycles == n - 1 + spec.levels + 3 + spec.output_delay + rows - 1


def test_unrolled_gives_what_folded_gives():
    folded = make_chain(4, 20, U8, Case(12, 10, 4, S8), Case(5, 8, 2, S4))
    cases = (Case(12, 10, 1, S8, options=UNROLLED), Case(5, 8, 1, S4, options=UNROLLED))
    unrolled = make_chain(4, 20, U8, *cases)
    assert np.array_equal(folded.network.layers[0].y, unrolled.network.layers[0].y)
    outputs = [run(c.specs, c.images, c.x).outputs for c in (folded, unrolled)]
    assert np.array_equal(*outputs)


def test_sums_come_every_cycle_where_the_adders_are_balanced():
    rng = np.random.default_rng(2)
    y = rng.integers(-9, 10, (6, 7)) * (rng.random((6, 7)) < 0.7)
    y[2] = 0
    graph = make_adder_graph(y, [(S8.min, S8.max)] * 7)
    dut = AdderNetwork(graph, S8, 16, balanced=True)
    x = rng.integers(-128, 128, (30, 7))
    sums = []

    async def bench(ctx):
        for frame in np.concatenate([x, np.zeros((graph.depth, 7), dtype=np.int64)]):
            ctx.set(dut.frame, sum((int(v) & 255) << (8 * k) for k, v in enumerate(frame)))
            *_, word = await ctx.tick().sample(dut.sums.as_value())
            sums.append([(word >> (16 * m) & 0xFFFF ^ 0x8000) - 0x8000 for m in range(6)])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    signs = [-1 if total.negative else 1 for total in graph.sums]
    assert np.array_equal(np.array(sums)[graph.depth :], x @ y.T * signs)


def test_what_cannot_be_unrolled_is_refused_by_name():
    chain = make_chain(1, 6, U8, Case(4, 4, 1, options=UNROLLED))
    (layer,), (spec,), (image,) = chain.network.layers, chain.specs, chain.images
    with pytest.raises(InputError, match="'fc0' is unrolled: it takes one frame at a time, not 2"):
        make_layer_core(layer, chain.network.input, 1, engine="unrolled", frames=2)
    wide = r"Engine must be folded, unrolled.* or \w+, not 'wide'"
    with pytest.raises(InputError, match=wide):
        make_layer_core(layer, chain.network.input, 1, engine="wide")
    with pytest.raises(InputError, match="has 1 weights, not 24"):
        spec.decode(CoreImage((0,), image.mult, image.bias))
    with pytest.raises(InputError, match="code_memory must be wires"):
        replace(spec, code_memory="block")
    wide = make_chain(1, 2100, U8, Case(2, 8, 1))
    dense = replace(wide.network.layers[0], y=np.ones((2, 2100), dtype=np.int64))
    with pytest.raises(InputError, match="'fc0' is too large to be unrolled"):
        make_layer_core(dense, wide.network.input, 1, engine="unrolled")
