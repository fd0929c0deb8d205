"""From a row's sums of pulses to its activation: one multiplication, one addition, saturation."""

from typing import Any, Protocol

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gateware.arith.adder_graph import WiredMultiplier
from gateware.arith.multiplier import DspMultiplier, PipelinedMultiplier, SerialMultiplier
from gateware.arith.tree import ChunkedAdder
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.adder_graph import AdderGraph
from pvq_hw.engine.core import CoreBase
from pvq_hw.registry import ValueFace
from pvq_hw.target.multipliers import MULTIPLIERS, Multiplier

__all__ = ["Requantizer", "Saturate", "make_multiplier"]


def make_multiplier(spec: CoreBase, body: str, gain: AdderGraph | None = None) -> Any:
    """The multiplier that the specification names; None where the sum itself is compared.

    ``gain`` is the constant of one that is wired.
    """
    return multiplier_circuit(spec.multiplies, spec, body, gain)


multiplier_circuit: ValueFace[[CoreBase, str, AdderGraph | None], Any] = MULTIPLIERS.face("circuit")
"""What multiplies a core's sums, given the body of DSP blocks and the constant of wired ones: a
component with ``a``, ``b``, ``start`` and ``product``, or None where there are no multipliers."""


@multiplier_circuit.of("none")
def _none(way: Multiplier, spec: CoreBase, body: str, gain: AdderGraph | None) -> None:
    return None


@multiplier_circuit.of("serial")
def _serial(
    way: Multiplier, spec: CoreBase, body: str, gain: AdderGraph | None
) -> SerialMultiplier | PipelinedMultiplier:
    if spec.multiplier_interval == 1:
        return PipelinedMultiplier(spec.acc_bits, spec.mult_bits)
    return SerialMultiplier(spec.acc_bits, spec.mult_bits, spec.multiplier_interval)


@multiplier_circuit.of("mult18", "mac16")
def _blocks(way: Multiplier, spec: CoreBase, body: str, gain: AdderGraph | None) -> DspMultiplier:
    return DspMultiplier(spec.acc_bits, spec.mult_bits, way.bits, body)


@multiplier_circuit.of("wires")
def _wires(way: Multiplier, spec: CoreBase, body: str, gain: AdderGraph | None) -> WiredMultiplier:
    assert gain is not None
    return WiredMultiplier(gain, spec.acc_bits, spec.mult_bits, spec.wire_levels)


class _Rounded(Protocol):
    """What says how a sum becomes an activation."""

    @property
    def out(self) -> IntFormat: ...
    @property
    def sum_bits(self) -> int: ...
    @property
    def shift(self) -> int: ...


class Saturate(wiring.Component):
    """``o = clamp(i)``, registered: 1 cycle. Binary outputs are the sign (1 stands for -1)."""

    def __init__(self, spec: _Rounded) -> None:
        self.out = spec.out
        self.bits = spec.sum_bits - spec.shift
        super().__init__({"i": In(signed(self.bits)), "o": Out(spec.out.bits)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value = Signal(self.out.bits, reset_less=True)
        m.d.comb += self.o.eq(value)
        negative = self.i[-1]
        if self.out.binary:
            m.d.sync += value.eq(negative)
            return m
        if self.out.bounded:
            low, high = (Const(v, signed(self.out.bits + 1)) for v in (self.out.min, self.out.max))
            below = Mux(self.i < low, low, self.i)
            m.d.sync += value.eq(Mux(self.i > high, high, below))
            return m
        kept = self.out.bits - self.out.signed
        # All bits above the kept ones equal the sign where the value fits.
        above = self.i[kept:-1]
        within = self.i[:kept]
        if self.out.signed:
            over = Mux(negative, ~above.all(), above.any())
            limit: Value = (~negative).replicate(kept)
            m.d.sync += [value[:kept].eq(Mux(over, limit, within)), value[-1].eq(negative)]
        else:
            over = above.any()
            m.d.sync += value.eq((within | over.replicate(kept)) & (~negative).replicate(kept))
        return m


class Requantizer(wiring.Component):
    """``clamp((sum_g acc * mult + bias) >> shift)``; one group a cycle (or per interval).

    ``bias`` comes ``multiplier_delay`` cycles (and one more with several groups) after ``acc``
    and ``mult``; ``start`` is high with the operands, ``add`` and ``first`` (of several groups)
    with the product; ``o`` is ``bias_chunks + 1`` cycles after ``bias``.

    Parameters
    ----------
    spec : CoreBase
    body : str
        See `gateware.device.bodies.bodies`.
    gain : AdderGraph, optional
        Of a multiplier that is wired; ``mult`` is then not read.
    """

    def __init__(
        self, spec: CoreBase, body: str = "behavioral", gain: AdderGraph | None = None
    ) -> None:
        self.spec, self.body, self.gain = spec, body, gain
        super().__init__(
            {
                "acc": In(signed(spec.acc_bits)),
                "mult": In(spec.mult_bits),
                "start": In(1),
                "add": In(1),
                "first": In(1),
                "bias": In(signed(spec.bias_bits + spec.multiplies.wired)),
                "o": Out(spec.out.bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.adder = adder = ChunkedAdder(spec.sum_bits, spec.carry_chunk)
        m.submodules.saturate = saturate = Saturate(spec)
        product = Signal(signed(spec.sum_bits))
        one = self._product(m)
        if spec.groups == 1:
            m.d.comb += product.eq(one)
        else:
            products = Signal(signed(spec.sum_bits), reset_less=True)
            # ``first``: the product that comes now is of the row's first group.
            rest = Mux(self.first, Const(0, signed(spec.sum_bits)), products)
            with m.If(self.add):
                m.d.sync += products.eq(rest + one)
            m.d.comb += product.eq(products)
        bias = Signal(signed(spec.sum_bits))
        m.d.comb += [
            bias.eq(self.bias),
            adder.a.eq(product),
            adder.b.eq(bias),
            saturate.i.eq(adder.o[spec.shift :]),
            self.o.eq(saturate.o),
        ]
        return m

    def _product(self, m: Module) -> Value:
        multiplier = make_multiplier(self.spec, self.body, self.gain)
        if multiplier is None:
            return self.acc
        m.submodules.multiplier = multiplier
        m.d.comb += [
            multiplier.a.eq(self.acc),
            multiplier.b.eq(self.mult),
            multiplier.start.eq(self.start),
        ]
        return multiplier.product
