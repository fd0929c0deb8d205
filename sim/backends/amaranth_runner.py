"""Whole accelerators in Amaranth's simulator: exact, portable, some thousand cycles a second."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gateware.accelerator.accelerator import Accelerator
from pvq_hw.engine.code_stream import stream_file, streamed_core
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.patterns import NONE, Pattern
from pvq_hw.engine.spram_image import FLASH_OFFSET, code_file, code_writes
from sim.agents.bench import Bench
from sim.agents.spi_flash import SpiFlash
from sim.agents.streams import Sink, Source
from sim.agents.wire import pack_frames, unpack_frames
from sim.result import SimResult, assemble
from sim.taps import deal, taps_of

__all__ = ["simulate_amaranth"]

_WAKE_CLOCKS, _WAKES = 16, 12  # the flash's, instead of thousands of cycles


def simulate_amaranth(
    graph: GraphSpec,
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
) -> SimResult:
    """Streams frames through an `Accelerator`, watching every layer's output.

    Parameters
    ----------
    graph : GraphSpec
    images : sequence of CoreImage
        Of its cores, in order.
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
    accelerator: Any = Accelerator(graph, images)
    taps, form, vector = taps_of(graph), graph.x[1], graph.vectors[0]
    n, rows = graph.frame_transfers
    streams = [_stream(accelerator, tap.scope) for tap in taps]
    payloads = pack_frames(x, form, vector, graph.widths[0])
    bench = Bench(accelerator, quiet)
    if accelerator.layout.blocks:
        layout = accelerator.layout
        bench.load(accelerator.codes, code_writes(layout, code_file(layout, images)))
    streamed = streamed_core(graph.cores, images)
    if streamed is not None:
        for unit in accelerator.units.values():
            unit.wake_clocks = _WAKE_CLOCKS
        contents = {FLASH_OFFSET: stream_file(*streamed)}
        bench.flash(accelerator.flash, lambda: SpiFlash(contents, _WAKES, delay=0))
    source = bench.source(accelerator.i, Source(payloads, idle, seed))
    sink = bench.sink(accelerator.o, Sink(stall, seed + 1, after_valid))
    links = [bench.monitor(o, tap.name) for o, tap in zip(streams, taps, strict=True)]
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
        tap.name: unpack_frames(link.payloads, tap.form, tap.frames, tap.rows, tap.width)
        for tap, link in zip(taps, links, strict=True)
    }
    outputs = deal(outputs, taps)
    starts, ends = source.cycles[::n], sink.cycles[rows - 1 :: rows]
    steady = not (idle.pauses or stall.pauses or after_valid or tuple(resets))
    runs = [(starts, ends, bench.cycle)]
    batch = graph.frames // vector
    return assemble("amaranth", len(x), outputs, runs, vector, steady, batch)


def _stream(accelerator: Accelerator, scope: tuple[str, ...]) -> Any:
    component: Any = accelerator.units[scope[0]]
    for name in scope[1:]:
        component = getattr(component, name)
    return component.o
