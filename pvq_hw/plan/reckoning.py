"""Cores as they are likely to become, reckoned in microseconds: no codes are made for them.

A plan before quantization makes real codes of sampled rows for every number of lanes. Here the
slots come from pulses that are drawn once for a layer, and widths from their bounds; resources and
the search are the plan's own. Tests hold the cycles within 25 % of each other.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat, accumulator_bits, bits_for
from pvq_hw.engine.pulse_code import PulseCode, pulse_digits
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.pyramid.nearest import nearest
from pvq_hw.target.block_ram import select_registers
from pvq_hw.target.families import family
from pvq_hw.target.multipliers import multiplier_named

__all__ = ["digit_counts", "gap_bits_for", "reckoned_core", "reckoned_slots"]

IntArray = npt.NDArray[np.int64]

_ROWS = 4
_MULT, _SHIFT = 0x6000, 24  # of a usual row
_MORE_SLOTS = 1.01  # than the fewest, for fewer stored bits


@lru_cache(maxsize=2048)
def _banks(n: int, k: int, lanes: int, even: bool) -> IntArray:
    """Pulses (rows, lanes, addresses) of Laplacian weights; ``even``: as many in each bank."""
    depth = -(-n // lanes)
    padded = np.zeros((_ROWS, depth * lanes))
    padded[:, :n] = np.abs(np.random.default_rng(0).laplace(size=(_ROWS, n)))
    if not even:
        padded[:, :n] = _row(n, k)
    banks = padded.reshape(_ROWS, depth, lanes).transpose(0, 2, 1)
    if even:
        found = nearest(banks.reshape(-1, depth), max(1, round(k / lanes)))
        return np.asarray(found.reshape(_ROWS, lanes, depth), dtype=np.int64)
    return banks.astype(np.int64)


@lru_cache(maxsize=256)
def _row(n: int, k: int) -> IntArray:
    """Pulses of whole rows, which all numbers of lanes share."""
    return nearest(np.abs(np.random.default_rng(0).laplace(size=(_ROWS, n))), k)


@lru_cache(maxsize=8192)
def reckoned_slots(
    n: int, k: int, lanes: int, even: bool, held: bool, shift_bits: int
) -> tuple[tuple[int, float], ...]:
    """(gap bits, slots of a row) worth a choice, wide gaps first.

    ``even``: every bank has as many pulses; ``held``: no gap needs an escape.
    """
    if even and held and not shift_bits:
        return ((gap_bits_for(n, k), max(1.0, k / lanes)),)
    y = _banks(n, k, lanes, even)
    counts = (digit_counts(y, shift_bits) if shift_bits else y).sum(axis=2)
    if even and held:
        return ((gap_bits_for(n, k), max(1.0, float(counts.max(axis=1).mean()))),)
    used = y > 0
    index = np.arange(y.shape[2])
    before = np.maximum.accumulate(np.where(used, index, 0), axis=2)
    before = np.concatenate([np.zeros_like(before[:, :, :1]), before[:, :, :-1]], axis=2)
    gaps = np.where(used, index - before, 0)
    found = []
    for bits in range(1, max(2, y.shape[2].bit_length() + 2)):
        escapes = (gaps // ((1 << bits) - 1)).sum(axis=2)
        found.append((bits, max(1.0, float((counts + escapes).max(axis=1).mean()))))
    fewest = min(slots for _, slots in found)
    usual = min((s * (b + 1 + shift_bits), b) for b, s in found if s <= fewest * _MORE_SLOTS)[1]
    return tuple((b, s) for b, s in reversed(found) if b <= usual and s <= 1.1 * fewest)


def digit_counts(y: IntArray, shift_bits: int) -> IntArray:
    """Signed powers of two of each magnitude, shifts up to ``2**shift_bits - 1``."""
    table = np.array([len(pulse_digits(v, shift_bits)) for v in range(int(y.max()) + 1)])
    return np.asarray(table[y], dtype=np.int64)


def gap_bits_for(n: int, k: int) -> int:
    """The least that hold the gaps of balanced rows: 2.75 times the mean one."""
    return max(1, int(np.ceil(np.log2(2.75 * n / k + 2))))


def reckoned_core(
    rows: int, n: int, k: int, x: IntFormat, out: IntFormat, code: PulseCode, slots: float,
    engine: str, options: dict[str, Any],
) -> CoreSpec:  # fmt: skip
    """The specification of a core of ``slots`` words a row."""
    device = family(engine)
    words = max(rows, round(rows * slots))
    binary = out.binary
    acc_bits = max(2, accumulator_bits(k, x, inverted_leaves=not x.signed))
    mult = 1 if binary else _MULT
    bias = (3 << 22) + mult * k // 2
    total = k * mult * (x.max_abs + 1) + bias
    multiplier = options.get("multiplier", "none" if binary else device.multiplier)
    latency = device.code_latency
    if latency >= 3:
        latency += select_registers(code.word_bits, words, device.blocks)
    mult_bits = mult.bit_length()
    interval = 1
    if multiplier_named(multiplier).paced:
        interval = options.get("multiplier_interval") or max(1, min(mult_bits + 1, int(slots)))
    spec = CoreSpec(
        name="core", n=n, rows=rows, groups=1, x=x, out=out, code=code, words=words,
        frames=options.get("frames", 1), flush_cycles=options.get("flush_cycles", 0),
        acc_bits=acc_bits, mult_bits=mult_bits, bias_bits=bits_for(-bias, bias),
        sum_bits=max(bits_for(-total, total), _SHIFT + out.bits + 1), shift=_SHIFT,
        multiplier=multiplier, multiplier_interval=interval, code_latency=latency,
        bank_latency=device.bank_latency, carry_chunk=device.carry_chunk,
        params_memory="logic" if rows <= device.logic_rows else "block",
        fifo_memory="logic" if device.lutram else "block", fifo_depth=64,
    )  # fmt: skip
    need = int(np.ceil(spec.flight / max(1.0, slots))) + latency + 3
    fields = {key: value for key, value in options.items() if key in vars(spec)}
    fields.setdefault("fifo_depth", min(128, max(16, 1 << (need - 1).bit_length())))
    return CoreSpec(**(vars(spec) | fields))
