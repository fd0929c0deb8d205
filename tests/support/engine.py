"""Random layers, and a run of an accelerator in Amaranth's simulator, for the engine's tests."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Cat, Value
from amaranth.sim import Simulator

from gateware.accelerator.accelerator import Accelerator
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.dataflow import chain_graph
from pvq_hw.engine.pulse_core import CoreImage, CoreSpec
from pvq_hw.network.layer import Dense, TensorSpec

__all__ = ["Run", "frames_for", "random_layer", "run", "tensor"]


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


@dataclass
class Run:
    outputs: np.ndarray  # (frames, rows)
    taken: list[int]  # cycle of every input transfer
    given: list[int]  # cycle of every output transfer


def _wire(value: int, fmt: IntFormat) -> int:
    return int(value < 0) if fmt.binary else int(value)


def _value(bits: int, fmt: IntFormat) -> int:
    if fmt.binary:
        return -1 if bits else 1
    return bits - (1 << fmt.bits) if fmt.signed and bits >> (fmt.bits - 1) else bits


def run(
    specs: Sequence[CoreSpec],
    images: Sequence[CoreImage],
    x,
    *,
    idle: float = 0.0,
    stall: float = 0.0,
    seed: int = 0,
    reset_at: int | None = None,
    watchdog: int = 40000,
) -> Run:
    """Feeds frames (a multiple of V), with random pauses at both ends.

    With ``reset_at``, one cycle of reset comes then, and the frames start again from the first.
    """
    dut = Accelerator(chain_graph(specs), images)
    first, last = specs[0], specs[-1]
    v = first.frames
    payloads = x.reshape(-1, v, first.n).transpose(0, 2, 1).reshape(-1, v)
    total = len(x) // v * last.rows
    source, sink = random.Random(seed), random.Random(seed + 1)
    result = Run(np.zeros(0), [], [])
    words: list[int] = []
    reset = None

    async def bench(ctx):
        nonlocal words
        index = cycle = offered = payload = 0
        held = None
        # Set at once and only where one changes: each time, the simulator settles the circuit.
        bits, levels = first.x.bits, -1
        wires = [dut.i.valid, dut.o.ready, Value.cast(dut.i.payload)]
        driven = Cat(*wires, *([] if reset is None else [reset]))
        while len(words) < total:
            if cycle == reset_at:
                index = offered = 0
                words.clear()
                result.taken.clear()
                result.given.clear()
                held = None
            if not offered and index < len(payloads) and source.random() >= idle:
                offered = 1
                codes = [_wire(value, first.x) & ((1 << bits) - 1) for value in payloads[index]]
                payload = sum(code << (bits * k) for k, code in enumerate(codes))
            now = offered | int(sink.random() >= stall) << 1 | payload << 2
            now |= int(cycle == reset_at) << (2 + bits * v)
            if now != levels:
                ctx.set(driven, now)
                levels = now
            _, _, i_ready, o_valid, o_ready, word = await ctx.tick().sample(
                dut.i.ready, dut.o.valid, dut.o.ready, dut.o.payload.as_value()
            )
            if cycle != reset_at:
                if held is not None:
                    assert o_valid, "valid fell before the transfer"
                    assert word == held, "payload changed before the transfer"
                held = word if o_valid and not o_ready else None
                if offered and i_ready:
                    result.taken.append(cycle)
                    index, offered = index + 1, 0
                if o_valid and o_ready:
                    result.given.append(cycle)
                    words.append(word)
            cycle += 1
            assert cycle < watchdog, "watchdog"

    if reset_at is not None:
        from amaranth.hdl import ResetInserter, Signal

        reset = Signal()
        simulator = Simulator(ResetInserter(reset)(dut))
    else:
        simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    bits = last.out.bits
    mask = (1 << bits) - 1
    table = [[_value(word >> (k * bits) & mask, last.out) for k in range(v)] for word in words]
    result.outputs = (
        np.array(table).reshape(-1, last.rows, v).transpose(0, 2, 1).reshape(-1, last.rows)
    )
    return result
