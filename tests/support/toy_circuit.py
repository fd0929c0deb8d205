"""A layer without weights from outside the packages, file 4 of 4: the circuit and its reference."""

from itertools import accumulate

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from toy_unit import RunningSumUnit

from gateware.accelerator.circuits import unit_circuit
from gateware.arith.activation import activation_layout
from gateware.units.queue import Credits, ResultQueue
from sim.reference import unit_reference


class RunningSumCircuit(wiring.Component):
    """Takes an activation a cycle as long as there is a place for the sum."""

    def __init__(self, spec: RunningSumUnit, body: str) -> None:
        self.spec, self.body = spec, body
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(spec.x, 1))),
                "o": Out(stream.Signature(activation_layout(spec.out, 1))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m, spec = Module(), self.spec
        m.submodules.queue = queue = ResultQueue(spec.out, spec.depth, spec.queue_memory, self.body)
        m.submodules.credits = credits = Credits(spec.depth)
        connect(m, queue.o, flipped(self.o))
        take, done = Signal(), Signal()
        count = Signal(range(spec.size))
        x = self.i.payload.as_value()
        x = x.as_signed() if spec.x.signed else x
        total = Signal(spec.out.bits)
        m.d.comb += [
            self.i.ready.eq(credits.some),
            take.eq(self.i.valid & credits.some),
            credits.claim.eq(take),
            credits.returned.eq(queue.popped),
            queue.w_en.eq(done),
            queue.w_data.eq(total),
        ]
        m.d.sync += done.eq(take)
        with m.If(take):
            m.d.sync += [
                total.eq(x + Mux(count == 0, 0, total)),
                count.eq(Mux(count == spec.size - 1, 0, count + 1)),
            ]
        return m


@unit_circuit.of(RunningSumUnit)
def _circuit(unit: RunningSumUnit, images: dict, body: str) -> RunningSumCircuit:
    return RunningSumCircuit(unit, body)


@unit_reference.of("running_sum")
def _reference(unit: dict, inputs: tuple, cores: dict) -> list[int]:
    return list(accumulate(inputs[0]))
