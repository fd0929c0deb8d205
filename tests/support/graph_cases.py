"""What tests of several folders take from those of `test_graph`."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from random_graphs import Built

from gateware.accelerator.accelerator import Accelerator
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.patterns import NONE, Pattern
from pvq_hw.engine.timing import run_frames
from pvq_hw.engine.units import Fifo
from sim.agents.bench import Bench
from sim.agents.streams import Sink, Source
from sim.agents.wire import pack_frames, unpack_frames

STALLS = Pattern.random(0.5)


def read_ahead(graph: GraphSpec, latencies: Mapping[str, int]) -> GraphSpec:
    """The graph with FIFOs in block RAM of such latencies."""
    units = [
        replace(unit, memory="block", latency=latencies[unit.name])
        if isinstance(unit, Fifo) and unit.name in latencies
        else unit
        for unit in graph.units
    ]
    return replace(graph, units=tuple(units))


def check(built: Built, graph: GraphSpec, *patterns: Pattern, quiet: int = 4000) -> None:
    """Every layer's outputs are the golden model's, with each pattern of pauses, none by default;
    without pauses, every cycle is the plan's.

    The network's own outputs are compared for one frame more, the first one again.
    """
    dut = Accelerator(graph, [built.images[core.name] for core in graph.cores])
    bench = Bench(dut, quiet)
    for pattern in patterns or (NONE,):
        bench.clear()
        _check(built, graph, dut, bench, pattern)


def _check(
    built: Built, graph: GraphSpec, dut: Accelerator, bench: Bench, pattern: Pattern
) -> None:
    frames, (n, form), (size, _) = len(built.x), graph.x, graph.out
    taken, given = graph.widths
    # One frame more: the last activations of a map may matter to no window, so that a layer
    # before it is not done when the results are.
    x = np.concatenate([built.x, built.x[:1]]).reshape(frames + 1, n)
    source = bench.source(dut.i, Source(pack_frames(x, form, 1, taken), pattern, 3))
    sink = bench.sink(dut.o, Sink(pattern, 4))
    units = [u for u in graph.units if not u.passes]
    monitors = [bench.monitor(dut.units[u.name].o, u.name) for u in units]
    bench.run(lambda: len(sink.payloads) >= (frames + 1) * size // given)
    trace = built.network.trace(built.x)
    for layer, unit, monitor in zip(built.network.layers, units, monitors, strict=True):
        _, wide = unit.widths
        got = unpack_frames(monitor.payloads, unit.formats()[1], 1, unit.sizes()[1], wide)
        assert np.array_equal(got[:frames], trace[layer.name].reshape(frames, -1)), layer.name
    again = unpack_frames(sink.payloads, graph.out[1], 1, size, given)[frames:]
    assert np.array_equal(again, trace[built.network.layers[-1].name][:1].reshape(1, -1))
    if pattern is NONE:
        wires = run_frames(graph, built.images, frames + 1)
        assert sink.cycles == wires[graph.output].moved
        assert source.cycles == wires[graph.input].moved[: len(source.cycles)]
