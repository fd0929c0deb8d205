"""Unrolled layers as they are likely to become, reckoned in microseconds from N, M and K."""

from dataclasses import replace
from functools import lru_cache
from math import ceil, log2

import numpy as np

from pvq_hw.arith.formats import IntFormat, bits_for
from pvq_hw.engine.adder_graph import signed_digits
from pvq_hw.engine.unrolled_core import UnrolledSpec
from pvq_hw.pyramid.nearest import nearest
from pvq_hw.target.families import family
from pvq_hw.target.multipliers import multiplier_for, multiplier_named

__all__ = [
    "reckoned_adders",
    "reckoned_pairs",
    "reckoned_unrolled",
    "with_wired_multipliers",
]

_ROWS = 8  # sampled
_MULT, _SHIFT, _BIAS = 0x6000, 24, 3 << 22  # of a usual row
# Fitted to the graphs of 22 matrices from 8 x 9 to 128 x 784, which are all within 6 % but one of
# 64 x 64 that has as many pulses as weights: exp(a) * repeats**b * digits**c adders are saved for
# each that is left.
_SAVED = (0.0918, 0.343, 0.338)
_MOST_REPEATS = 12
_DELAYS = 0.2  # registers in which operands wait, for each adder: eight layers had 0.14 to 0.45


@lru_cache(maxsize=1024)
def _digits(n: int, k: int) -> float:
    """Signed digits of a row of ``n`` Laplacian weights: of ``k`` pulses, or 8 bits where 0."""
    w = np.random.default_rng(0).laplace(size=(_ROWS, n))
    y = nearest(w, k) if k else np.rint(w * (127 / np.abs(w).max(axis=1, keepdims=True)))
    return sum(len(signed_digits(int(v))) for v in y[y != 0]) / _ROWS


def reckoned_adders(rows: int, n: int, k: int, groups: int = 1) -> int:
    """About the adders of ``rows`` rows of ``n`` columns and ``k`` pulses each, or of 8-bit weights
    where ``k`` is 0; of a grouped convolution ``n`` is a group's columns."""
    digits = max(1.0, _digits(n, k))
    # How often a pair of terms that a row has occurs among the rows that share its columns.
    repeats = rows / groups * digits * (digits - 1) / max(1, n * (n - 1))
    share, power, more = _SAVED
    saved = share * min(_MOST_REPEATS, repeats) ** power * digits**more
    return max(1, round(rows * (digits - 1) / (1 + saved)))


def reckoned_pairs(rows: int, n: int, k: int) -> int:
    """About `pvq_hw.engine.adder_graph.pairs_of_digits` of such rows, ``n`` columns of a group."""
    digits = _digits(n, k)
    return round(rows * digits * (digits - 1) / 2)


def reckoned_unrolled(
    rows: int,
    n: int,
    k: int,
    x: IntFormat,
    out: IntFormat,
    engine: str,
    *,
    groups: int = 1,
    pace: int | None = None,
    multiplier: str | None = None,
) -> UnrolledSpec:
    """The specification of an unrolled core whose weights are not known.

    Parameters
    ----------
    rows, n, k, groups
        As `reckoned_adders` takes them, but ``n`` counts all columns of the core.
    x, out : IntFormat
    engine : str
        Key of `pvq_hw.target.families.FAMILIES`.
    pace : int, optional
        Cycles between frames at the input, for a serial multiplier; ``n`` unless given.
    multiplier : str, optional
        See `pvq_hw.engine.core.CoreBase`; the family's own unless given.
    """
    device = family(engine)
    digits = max(1.0, _digits(n // groups, k))
    adders = reckoned_adders(rows, n // groups, k, groups)
    mult_bits = 1 if out.binary else _MULT.bit_length()
    own = "none" if out.binary else multiplier_for(device.multiplier, mult_bits)
    multiplier = multiplier or own
    interval = 1
    if multiplier_named(multiplier).paced:
        interval = max(1, min(mult_bits + 1, max(n if pace is None else pace, rows) // rows))
    most = int((k or 64 * n // groups) * x.max_abs)
    total = most * (1 if out.binary else _MULT) + _BIAS
    return UnrolledSpec(
        name="core",
        n=n,
        rows=rows,
        x=x,
        out=out,
        weight_width=8,
        levels=max(0, ceil(log2(1.2 * digits))),
        adders=adders,
        adder_bits=round(adders * (x.bits + 1.47 + 0.223 * log2(digits))),
        register_bits=round(adders * (x.bits + 1.93 + 0.169 * log2(digits))),
        delay_bits=round(_DELAYS * adders * x.bits),
        mult_bits=mult_bits,
        shift=_SHIFT,
        multiplier=multiplier,
        multiplier_interval=interval,
        carry_chunk=device.carry_chunk,
        bank_latency=device.bank_latency,
        params_memory="logic" if rows <= device.logic_rows else "block",
        fifo_memory="logic" if device.lutram else "block",
        fifo_depth=32,
        acc_bits=max(2, bits_for(-most, most) - 1),
        bias_bits=bits_for(-_BIAS, _BIAS),
        sum_bits=max(bits_for(-total, total), _SHIFT + out.bits + 1),
    )


def with_wired_multipliers(spec: UnrolledSpec) -> UnrolledSpec:
    """The core of as many results a transfer as rows, each with adders for its multiplier, about:
    a third of a constant's bits are signed digits."""
    digits = max(2, round(spec.mult_bits / 3))
    adders = spec.rows * (digits - 1)
    wide = spec.acc_bits + spec.mult_bits // 2
    return replace(
        spec,
        multiplier="wires",
        multiplier_interval=1,
        gain_levels=ceil(log2(digits)),
        adders=spec.adders + adders,
        adder_bits=spec.adder_bits + adders * spec.acc_bits,
        register_bits=spec.register_bits + adders * wide,
        delay_bits=spec.delay_bits + adders * spec.acc_bits // 2,
    )
