"""An engine from outside the packages, file 2 of 2: its core's circuit and reference."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from toy_engine import SequentialSpec

from gateware.accelerator.circuits import core_circuit
from gateware.arith.activation import stream_ports
from gateware.core.parameters import core_rom
from pvq_hw.engine.core import CoreImage
from sim.reference import ReferenceCore, core_reference, core_words


class SequentialCore(wiring.Component):
    """Takes a frame; then, for each row, goes through its weights and gives its result."""

    def __init__(self, spec: SequentialSpec, image: CoreImage, body: str) -> None:
        self.spec, self.image, self.body = spec, image, body
        super().__init__(stream_ports(spec.x, spec.out))

    def elaborate(self, platform: object) -> Module:
        m, spec = Module(), self.spec
        roms = {role: core_rom(self, role, 1, "logic") for role in ("weights", "mult", "bias")}
        m.submodules += roms.values()
        at, row, column = (Signal(range(max(2, k))) for k in (spec.words, spec.rows, spec.n))
        frame, total = Signal(spec.n * spec.x.bits), Signal(signed(spec.acc_bits))
        at_end, last_row = column == spec.n - 1, row == spec.rows - 1
        # A ROM's word is there a cycle after its address: the addresses are the next cycle's.
        next_at, next_row = Signal.like(at), Signal.like(row)
        m.d.comb += [next_at.eq(at), next_row.eq(row), roms["weights"].addr.eq(next_at)]
        m.d.comb += [roms[role].addr.eq(next_row) for role in ("mult", "bias")]
        m.d.sync += [at.eq(next_at), row.eq(next_row)]
        oldest = frame[: spec.x.bits]
        x = oldest.as_signed() if spec.x.signed else oldest
        weight, bias = (roms[role].data.as_signed() for role in ("weights", "bias"))
        value = (total * roms["mult"].data + bias) >> spec.shift
        low, high = spec.out.min, spec.out.max
        clamped = Mux(value < low, low, Mux(value > high, high, value))
        m.d.comb += self.o.payload.as_value().eq(clamped)
        with m.FSM():
            with m.State("TAKE"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += [
                        frame.eq(Cat(frame, self.i.payload.as_value())[spec.x.bits :]),
                        column.eq(Mux(at_end, 0, column + 1)),
                        total.eq(0),
                    ]
                    with m.If(at_end):
                        m.next = "ADD"
            with m.State("ADD"):
                m.d.comb += next_at.eq(Mux(at == spec.words - 1, 0, at + 1))
                m.d.sync += [
                    total.eq(total + x * weight),
                    frame.eq(frame.rotate_right(spec.x.bits)),
                    column.eq(Mux(at_end, 0, column + 1)),
                ]
                with m.If(at_end):
                    m.next = "GIVE"
            with m.State("GIVE"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.comb += next_row.eq(Mux(last_row, 0, row + 1))
                    m.d.sync += total.eq(0)
                    m.next = "ADD"
                    with m.If(last_row):
                        m.next = "TAKE"
        return m


@core_circuit.of(SequentialSpec)
def _circuit(spec: SequentialSpec, image: CoreImage, body: str, window: None) -> SequentialCore:
    return SequentialCore(spec, image, body)


@core_words.of("sequential")
def _words(spec: dict) -> tuple[str, int, int]:
    return "weights", spec["rows"] * spec["n"], spec["rows"]


@core_reference.of("sequential")
def _sums(core: ReferenceCore, frame: Sequence[int]) -> list[int]:
    n, size = core.spec["n"], 1 << core.spec["weight_width"]
    weights = [word - size * (2 * word >= size) for word in core.codes]
    rows = (weights[at : at + n] for at in range(0, len(weights), n))
    return [sum(map(int.__mul__, row, frame)) for row in rows]
