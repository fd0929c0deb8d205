"""Random layers, and a run of an accelerator in Amaranth's simulator, for the engine's tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gateware.accelerator.accelerator import Accelerator
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.dataflow import chain_graph
from pvq_hw.engine.patterns import Pattern
from pvq_hw.engine.timing import run_frames
from pvq_hw.network.layer import Dense, TensorSpec
from sim.agents.bench import Bench
from sim.agents.streams import Sink, Source
from sim.agents.wire import pack_frames, unpack_frames

__all__ = ["Run", "check_streams", "frames_for", "random_layer", "run", "tensor"]


def tensor(n: int, fmt: IntFormat) -> TensorSpec:
    return TensorSpec("x", (n,), fmt, 1.0)


def random_layer(rng, rows, n, x, out, groups=1, density=0.3, largest=2) -> Dense:
    """A layer whose outputs cover their range, with a row of zeros."""
    y = rng.integers(-largest, largest + 1, (rows, n)) * (rng.random((rows, n)) < density)
    if rows > 2:
        y[rows // 2] = 0
    k = max(1, int(np.abs(y).sum(axis=1).max()))
    top = out.max_abs * 2**12 / (k**0.5 * x.max_abs)
    return Dense(
        name="layer",
        input="x",
        output=tensor(rows, out),
        y=y,
        mult=rng.integers(0, max(2, min(60000, int(top))), (rows, groups)),
        bias=rng.integers(-200, 200, rows) << 8,
        shift=12,
        gain=np.ones((rows, groups)),
    )


def frames_for(rng, count: int, n: int, fmt: IntFormat):
    if fmt.binary:
        return rng.choice([-1, 1], (count, n))
    return rng.integers(fmt.min, fmt.max + 1, (count, n))


@dataclass(frozen=True)
class Run:
    outputs: np.ndarray  # (frames, rows)
    taken: list[int]  # cycle of every input transfer
    given: list[int]  # cycle of every output transfer


@lru_cache(2)
def _bench(specs: tuple[CoreBase, ...], images: tuple[CoreImage, ...]) -> tuple[Accelerator, Bench]:
    """An accelerator, elaborated and compiled once for all runs of it that follow one another."""
    dut = Accelerator(chain_graph(specs), images)
    return dut, Bench(dut, quiet=4000)


def run(
    specs: Sequence[CoreBase],
    images: Sequence[CoreImage],
    x,
    *,
    idle: float = 0.0,
    stall: float = 0.0,
    seed: int = 0,
    reset_at: int | None = None,
) -> Run:
    """Feeds frames (a multiple of V), with random pauses at both ends.

    With ``reset_at``, one cycle of reset comes then, and the frames start again from the first.
    """
    dut, bench = _bench(tuple(specs), tuple(images))
    first, last = specs[0], specs[-1]
    bench.clear()
    payloads = pack_frames(x, first.x, first.frames)
    source = bench.source(dut.i, Source(payloads, Pattern.random(idle), seed))
    sink = bench.sink(dut.o, Sink(Pattern.random(stall), seed + 1))
    total = len(x) // first.frames * last.rows
    resets = () if reset_at is None else (reset_at,)
    bench.run(lambda: len(sink.payloads) >= total, resets)
    outputs = unpack_frames(sink.payloads, last.out, last.frames, last.rows)
    return Run(outputs, source.cycles, sink.cycles)


def check_streams(chain) -> None:
    """A chain's results and the cycles of all its transfers while nothing waits, then results under
    pauses at both ends, and after a reset in the third frame."""
    wanted = chain.network.predict(chain.x)
    free = run(chain.specs, chain.images, chain.x)
    assert np.array_equal(free.outputs, wanted)
    graph = chain.graph
    wires = run_frames(graph, graph.named(chain.images), len(chain.x))
    assert free.taken == wires["i"].moved
    assert free.given == wires[graph.output].moved
    paused = run(chain.specs, chain.images, chain.x, idle=0.4, stall=0.6, seed=1)
    assert np.array_equal(paused.outputs, wanted)
    reset_at = 2 * chain.specs[0].n + 5
    again = run(chain.specs, chain.images, chain.x[:3], reset_at=reset_at, stall=0.3, seed=2)
    assert np.array_equal(again.outputs, wanted[:3])
