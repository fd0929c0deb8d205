"""Whole accelerators in Amaranth's simulator: exact, portable, some thousand cycles a second."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
from amaranth.hdl import Value

from gateware.accelerator import Accelerator
from pvq_hw.core import CoreImage, CoreSpec
from sim.bench import Bench
from sim.patterns import NONE, Pattern
from sim.result import SimResult, assemble
from sim.streams import Sink, Source
from sim.wire import pack_frames, unpack_frames

__all__ = ["simulate_amaranth"]


def simulate_amaranth(
    specs: Sequence[CoreSpec],
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
    """Streams frames through an `Accelerator`, watching every core's output.

    Parameters
    ----------
    specs, images : sequences of CoreSpec, CoreImage
    x : int64 array (frames, n)
    idle, stall, seed, after_valid
        Of the source and the sink; see `sim.streams`.
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
    accelerator = Accelerator(specs, images)
    vector = len(Value.cast(accelerator.i.payload)) // specs[0].x.bits
    payloads = pack_frames(x, specs[0].x, vector)
    bench = Bench(accelerator, quiet)
    source = bench.source(accelerator.i, Source(payloads, idle, seed))
    sink = bench.sink(accelerator.o, Sink(stall, seed + 1, after_valid))
    links = [
        bench.monitor(core.o, spec.name)
        for core, spec in zip(accelerator.cores, specs, strict=True)
    ]
    rows = specs[-1].rows
    total = len(payloads) // specs[0].n * rows

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
        spec.name: unpack_frames(link.payloads, spec.out, spec.frames, spec.rows)
        for spec, link in zip(specs, links, strict=True)
    }
    starts, ends = source.cycles[:: specs[0].n], sink.cycles[rows - 1 :: rows]
    steady = not (idle.pause or stall.pause or after_valid or tuple(resets))
    return assemble("amaranth", len(x), outputs, [(starts, ends, bench.cycle)], vector, steady)
