"""Adder tree and accumulator: sums of pulses."""

from amaranth.hdl import Cat, Const, Module, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Accumulator", "AdderTree", "ChunkedAdder"]


class AdderTree(wiring.Component):
    """Sum of ``count`` signed values, a register after each level.

    Latency ``levels`` cycles, one sum a cycle. The register of every level also keeps Yosys from
    merging the adders into 3:2 compressors, which are 1.3 to 2 times larger here. No overflow: a
    level adds a bit.
    """

    def __init__(self, count: int, bits: int) -> None:
        self.count, self.bits = count, bits
        self.levels = (count - 1).bit_length()
        super().__init__(
            {
                "i": In(data.ArrayLayout(signed(bits), count)),
                "o": Out(signed(bits + self.levels)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        values: list[Value] = [Value.cast(self.i[k]).as_signed() for k in range(self.count)]
        for level in range(self.levels):
            sums: list[Value] = []
            for k in range(0, len(values), 2):
                total = Signal(
                    signed(self.bits + level + 1), name=f"sum{level}_{k // 2}", reset_less=True
                )
                m.d.sync += total.eq(_add(values, k))
                sums.append(total)
            values = sums
        m.d.comb += self.o.eq(values[0])
        return m


def _add(values: list[Value], k: int) -> Value:
    return values[k] + values[k + 1] if k + 1 < len(values) else values[k]


def _bounds(width: int, chunk: int) -> list[tuple[int, int]]:
    step = chunk or width
    return [(low, min(width, low + step)) for low in range(0, width, step)]


def _later(m: Module, value: Value, cycles: int, name: str, *, reset_less: bool = True) -> Value:
    for i in range(cycles):
        now = Signal(len(value), name=f"{name}_{i}", reset_less=reset_less)
        m.d.sync += now.eq(value)
        value = now
    return value


class Accumulator(wiring.Component):
    """Sums of runs of values: the register is never cleared.

    Where ``first`` is high the sum so far is kept aside; ``o`` is the accumulator minus what was
    kept, modulo ``2**width``, so it is the sum of the run once the run's last value is in. ``o``
    is ``chunks + 1`` cycles after ``i``. Stale values that are still under way after a reset
    are harmless, because the next run starts from whatever the register then holds.

    Parameters
    ----------
    bits, width : int
        Of the values and of the accumulator.
    chunk : int
        Longest carry chain, 0 for no limit: chunk j works j cycles after chunk 0.
    gated : bool
        Whether there is a ``valid``, without which a value does not count. Else what comes
        between the values of a run must be 0.
    """

    def __init__(self, bits: int, width: int, chunk: int = 0, *, gated: bool = False) -> None:
        self.bits, self.width, self.chunk, self.gated = bits, width, chunk, gated
        self.chunks = len(_bounds(width, chunk))
        valid = {"valid": In(1)} if gated else {}
        super().__init__({"i": In(signed(bits)), "first": In(1), "o": Out(signed(width)), **valid})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value = Signal(signed(self.width))
        m.d.comb += value.eq(self.i)
        carry: Value | None = None
        borrow: Value | None = None
        parts = []
        for j, (low, high) in enumerate(_bounds(self.width, self.chunk)):
            size = high - low
            addend = _later(m, value[low:high], j, f"addend{j}")
            first = _later(m, self.first, j, f"first{j}")
            acc = Signal(size, name=f"acc{j}", reset_less=True)
            kept = Signal(size, name=f"kept{j}", reset_less=True)
            total = Signal(size + 1, name=f"total{j}")
            m.d.comb += total.eq(_sum(acc, addend, carry))
            if self.gated:
                with m.If(_later(m, self.valid, j, f"valid{j}")):
                    m.d.sync += acc.eq(total)
            else:
                m.d.sync += acc.eq(total)
            with m.If(first):
                m.d.sync += kept.eq(acc)
            rest = Signal(size + 1, name=f"rest{j}")
            m.d.comb += rest.eq(_difference(acc, kept, borrow))
            difference = Signal(size, name=f"difference{j}", reset_less=True)
            m.d.sync += difference.eq(rest)
            parts.append(_later(m, difference, self.chunks - 1 - j, f"part{j}"))
            if high < self.width:
                carry = Signal(name=f"carry{j}", reset_less=True)
                borrow = Signal(name=f"borrow{j}", reset_less=True)
                m.d.sync += [carry.eq(total[-1]), borrow.eq(rest[-1])]
        m.d.comb += self.o.eq(Cat(*parts))
        return m


def _sum(a: Value, b: Value, carry: Value | None) -> Value:
    """``a + b + carry`` as one carry chain."""
    if carry is None:
        return a + b
    return (Cat(Const(1, 1), a) + Cat(carry, b))[1:]


def _difference(a: Value, b: Value, borrow: Value | None) -> Value:
    """``a - b - borrow`` as one carry chain; the top bit is the borrow."""
    if borrow is None:
        return (a - b)[: len(a) + 1]
    return (Cat(Const(0, 1), a) - Cat(borrow, b))[1 : len(a) + 2]


class ChunkedAdder(wiring.Component):
    """``o = a + b`` modulo ``2**width``, ``chunks`` cycles later, in carry chains of ``chunk``."""

    def __init__(self, width: int, chunk: int = 0) -> None:
        self.width, self.chunk = width, chunk
        self.chunks = len(_bounds(width, chunk))
        super().__init__(
            {"a": In(unsigned(width)), "b": In(unsigned(width)), "o": Out(unsigned(width))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        carry: Value | None = None
        parts = []
        for j, (low, high) in enumerate(_bounds(self.width, self.chunk)):
            a = _later(m, self.a[low:high], j, f"a{j}")
            b = _later(m, self.b[low:high], j, f"b{j}")
            total = Signal(high - low + 1, name=f"total{j}", reset_less=True)
            m.d.sync += total.eq(_sum(a, b, carry))
            parts.append(_later(m, total[: high - low], self.chunks - 1 - j, f"part{j}"))
            carry = total[-1]
        m.d.comb += self.o.eq(Cat(*parts))
        return m
