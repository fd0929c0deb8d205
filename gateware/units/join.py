"""Sums and concatenations of streams, and forks."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from gateware.arith.activation import activation_layout
from gateware.arith.scaler import Scaler
from gateware.units.queue import add_queue, delayed
from pvq_hw.engine.units import Fork, Join

__all__ = ["ForkUnit", "JoinUnit"]


class JoinUnit(wiring.Component):
    """`Join.compute` as a circuit: takes a transfer of each input (a sum), or of one after
    the other (a concatenation), once a cycle as long as there is a place for the result, which
    is written ``spec.result_delay`` cycles later.

    Members
    -------
    i0, i1, ... : streams of activations; a sum's ``ready`` waits for all inputs' ``valid``
    o : stream of activations
    """

    def __init__(self, spec: Join, body: str = "behavioral") -> None:
        self.spec, self.body = spec, body
        ports = {
            f"i{k}": In(stream.Signature(activation_layout(x, spec.width)))
            for k, x in enumerate(spec.x)
        }
        output = stream.Signature(activation_layout(spec.out, spec.width))
        super().__init__(ports | {"o": Out(output)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        inputs = [getattr(self, f"i{k}") for k in range(len(spec.x))]
        queue, credits = add_queue(
            m, self.o, spec.out, spec.depth, spec.queue_memory, self.body, spec.width
        )
        products = 1 if spec.runs else len(inputs)
        scalers = [Scaler(spec.scale, products, self.body) for _ in range(spec.width)]
        for k, scaler in enumerate(scalers):
            m.submodules[f"scaler{k or ''}"] = scaler
        take = Signal()
        if spec.runs:
            self._concatenate(m, inputs, credits.some, take, scalers)
        else:
            valid = Cat(i.valid for i in inputs).all() & credits.some
            m.d.comb += take.eq(valid)
            for k, (i, mult) in enumerate(zip(inputs, spec.mult, strict=True)):
                m.d.comb += i.ready.eq(valid)
                for place, scaler in enumerate(scalers):
                    m.d.comb += [scaler.a[k].eq(i.payload[place]), scaler.mult[k].eq(mult)]
        done = delayed(m, take, spec.scale.delay)
        m.d.comb += [
            credits.claim.eq(take),
            queue.w_en.eq(done),
            queue.w_data.eq(Cat(scaler.o for scaler in scalers)),
        ]
        return m

    def _concatenate(
        self,
        m: Module,
        inputs: list[stream.Interface],
        some: Value,
        take: Value,
        scalers: list[Scaler],
    ) -> None:
        spec = self.spec
        which = Signal(range(max(2, len(inputs))))
        runs = [run // spec.width for run in spec.runs]
        count = Signal(range(max(2, *runs)))
        at_end = count == Array(run - 1 for run in runs)[which]
        with m.If(take):
            m.d.sync += count.eq(Mux(at_end, 0, count + 1))
            with m.If(at_end):
                m.d.sync += which.eq(Mux(which == len(inputs) - 1, 0, which + 1))
        with m.Switch(which):
            for k, (i, mult) in enumerate(zip(inputs, spec.mult, strict=True)):
                with m.Case(k):
                    m.d.comb += [i.ready.eq(some), take.eq(some & i.valid)]
                    for place, scaler in enumerate(scalers):
                        m.d.comb += [
                            scaler.a[0].eq(i.payload[place]),
                            scaler.mult[0].eq(Const(mult, spec.scale.mult_bits)),
                        ]


class ForkUnit(wiring.Component):
    """Offers every activation to all outputs at once, each takes it once, and the input goes on
    when the last one does. No latency, no storage.

    Members
    -------
    i : stream of activations
    o0, o1, ... : streams of activations
    """

    def __init__(self, spec: Fork) -> None:
        self.spec = spec
        signature = stream.Signature(activation_layout(spec.x, spec.width))
        outputs = {f"o{k}": Out(signature) for k in range(len(spec.outputs))}
        super().__init__({"i": In(signature)} | outputs)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        outputs = [getattr(self, f"o{k}") for k in range(len(self.spec.outputs))]
        taken = [Signal(name=f"taken{k}") for k in range(len(outputs))]
        through = [done | o.ready for done, o in zip(taken, outputs, strict=True)]
        m.d.comb += self.i.ready.eq(Cat(*through).all())
        for done, gone, o in zip(taken, through, outputs, strict=True):
            m.d.comb += [o.valid.eq(self.i.valid & ~done), o.payload.eq(self.i.payload)]
            m.d.sync += done.eq(self.i.valid & gone & ~self.i.ready)
        return m
