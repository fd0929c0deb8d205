"""Resets in the middle of every kind of folded core leave no trace; a core that stands alone."""

from dataclasses import replace

import numpy as np
import pytest
from engine import frames_for, random_layer, run, tensor
from random_graphs import RandomNetwork
from random_layers import Case, make_chain

from gateware.core.pulse_core import LayerCore
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.pulse_core import make_core
from pvq_hw.engine.shared_core import make_shared_core
from pvq_hw.engine.spram_image import code_file, code_layout, code_writes
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import plan
from sim.agents.bench import Bench
from sim.agents.streams import Sink, Source
from sim.agents.wire import pack_frames, unpack_frames

U8, S8 = IntFormat(8, False), IntFormat(8, True)


def core(**options):
    """A layer's core, whose words are read in a cycle or in two, as ``code_latency`` says."""
    rng = np.random.default_rng(5)
    layer = random_layer(rng, 6, 10, U8, U8, density=0.8)
    spec, image = make_core(layer, tensor(10, U8), 2, family="up5k")
    x = frames_for(rng, 2, 10, U8)
    return [replace(spec, **options)], [image], x, layer.compute(x)


def engine():
    """Two layers on one engine."""
    chain = make_chain(2, 7, S8, Case(4, 2, 3), Case(3, 2, 3, S8), frames=2)
    tensors = chain.network.tensors()
    layers = [(layer, tensors[layer.input]) for layer in chain.network.layers]
    spec, image = make_shared_core(layers, 2, family="up5k")
    return [spec], [image], chain.x, chain.network.predict(chain.x)


def maps():
    """A convolution and a dense layer on an engine with maps."""
    net = RandomNetwork(7, (2, 3, 3))
    net.dense(net.conv(net.input, 2, (2, 2), k=3), 5)
    network = net.network()
    made = plan(network, "ulx3s-25f", engine="shared", lanes=[2] * 2, side=1)
    x = np.random.default_rng(1).integers(0, 256, (2, 2, 3, 3))
    expected = np.asarray(network.predict(x)).reshape(2, -1)
    return made.specs, emit(network, made).cores, x.reshape(2, -1), expected


CIRCUITS = {
    "a core": lambda: core(code_latency=2),
    "a core whose words come at once": lambda: core(code_latency=1),
    "an engine": engine,
    "an engine with maps": maps,
}


@pytest.mark.parametrize("name", CIRCUITS)
def test_a_reset_at_any_moment_of_a_frame_leaves_no_trace(name):
    specs, images, x, expected = CIRCUITS[name]()
    whole = run(specs, images, x)
    assert np.array_equal(whole.outputs, expected)
    last = whole.given[-1]
    for at in range(3, last, max(5, last // 9)):
        again = run(specs, images, x, reset_at=at)
        assert np.array_equal(again.outputs, expected), at


def test_a_core_that_stands_alone_has_its_codes_in_the_first_blocks():
    (spec,), (image,), x, expected = core(code_memory="spram")
    dut, layout = LayerCore(spec, image), code_layout([spec])
    bench = Bench(dut, quiet=400)
    bench.load(dut.codes, code_writes(layout, code_file(layout, [image])))
    bench.source(dut.i, Source(pack_frames(x, spec.x, 1)))
    sink = bench.sink(dut.o, Sink())
    bench.run(lambda: len(sink.payloads) == expected.size)
    assert np.array_equal(unpack_frames(sink.payloads, spec.out, 1, spec.rows), expected)
