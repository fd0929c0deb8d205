"""Whole accelerators in Amaranth's simulator: exact, portable, some thousand cycles a second."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth.hdl import Value

from gateware.accelerator.batch import BatchAccelerator
from gateware.accelerator.circuit import make_circuit
from gateware.accelerator.graph import GraphAccelerator
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.patterns import NONE, Pattern
from pvq_hw.engine.spram_image import code_file, code_layout, code_writes, has_spram
from sim.agents.bench import Bench
from sim.agents.streams import Sink, Source
from sim.agents.wire import pack_frames, unpack_frames
from sim.result import SimResult, assemble
from sim.taps.batch_taps import batch_taps, deal
from sim.taps.graph_taps import graph_taps

__all__ = ["simulate_amaranth"]


def simulate_amaranth(
    specs: Sequence[CoreBase],
    images: Sequence[CoreImage],
    x: npt.NDArray[np.int64],
    *,
    idle: Pattern = NONE,
    stall: Pattern = NONE,
    seed: int = 0,
    after_valid: bool = False,
    resets: Iterable[int] = (),
    quiet: int = 100_000,
    progress: Callable[[int], None] | None = None,
    graph: GraphSpec | None = None,
) -> SimResult:
    """Streams frames through an `Accelerator`, watching every core's output.

    Parameters
    ----------
    specs, images : sequences of CoreBase, CoreImage
    graph : GraphSpec, optional
        Of the cores: every layer's output is watched.
    x : int64 array (frames, n)
    idle, stall, seed, after_valid
        Of the source and the sink; see `sim.agents.streams`.
    resets : iterable of int
        Cycles that end with a reset, after which everything starts again.
    quiet : int
        Cycles without a transfer that the watchdog takes for a lost handshake.
    progress : callable, optional
        Is told the frames done.

    Raises
    ------
    StreamError
        A stream broke its protocol or stood still.
    """
    accelerator = make_circuit(specs, images, graph)
    streams: list[Any]
    if isinstance(accelerator, GraphAccelerator):
        assert graph is not None
        taps: Sequence[Any] = graph_taps(graph)
        streams = [accelerator.units[tap.name].o for tap in taps]
    elif isinstance(accelerator, BatchAccelerator):
        taps = batch_taps(specs)
        streams = [core.o for core in accelerator.chain.cores[:-1]]
        streams += [accelerator.batches.o, accelerator.unpacker.o]
    else:
        taps, streams = specs, [core.o for core in accelerator.cores]
    n, form = (specs[0].n, specs[0].x) if graph is None else graph.x
    vector = len(Value.cast(accelerator.i.payload)) // form.bits
    batch = specs[0].frames // vector
    payloads = pack_frames(x, form, vector)
    bench = Bench(accelerator, quiet)
    if has_spram(specs):
        layout = code_layout(specs)
        bench.load(accelerator.codes, code_writes(layout, code_file(layout, images)))
    source = bench.source(accelerator.i, Source(payloads, idle, seed))
    sink = bench.sink(accelerator.o, Sink(stall, seed + 1, after_valid))
    links = [bench.monitor(o, tap.name) for o, tap in zip(streams, taps, strict=True)]
    rows = taps[-1].rows
    total = len(payloads) // n * rows

    told = 0

    def done() -> bool:
        nonlocal told
        count = len(sink.payloads)
        if progress is not None and count // rows > told:
            told = count // rows
            progress(min(told * vector, len(x)))
        return count >= total

    bench.run(done, resets)
    outputs = {
        tap.name: unpack_frames(link.payloads, tap.out, tap.frames, tap.rows)
        for tap, link in zip(taps, links, strict=True)
    }
    outputs = deal(outputs, specs[0].frames)
    starts, ends = source.cycles[::n], sink.cycles[rows - 1 :: rows]
    steady = not (idle.pauses or stall.pauses or after_valid or tuple(resets))
    runs = [(starts, ends, bench.cycle)]
    return assemble("amaranth", len(x), outputs, runs, vector, steady, batch)
