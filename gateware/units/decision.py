"""Decisions: the largest values of a frame, averages of frames, and values above thresholds."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import wiring

from gateware.arith.activation import stream_ports
from gateware.units.queue import add_queue, delayed
from pvq_hw.engine.decision import AboveUnit, LargestUnit, SmoothedUnit

__all__ = ["AboveCircuit", "LargestCircuit", "SmoothedCircuit"]


class LargestCircuit(wiring.Component):
    """`LargestUnit.compute` as a circuit: every value finds its place in a sorted list while the
    next one comes.

    Members
    -------
    i, o : streams of activations
    """

    def __init__(self, spec: LargestUnit) -> None:
        self.spec = spec
        super().__init__(stream_ports(spec.x, spec.out))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        count = Signal(range(max(2, spec.size)))
        full, busy, take, load = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            load.eq(full & ~busy),
            self.i.ready.eq(~full | ~busy),
            take.eq(self.i.valid & self.i.ready),
        ]
        last = take & (count == spec.size - 1)
        m.d.sync += full.eq(last | (full & ~load))
        with m.If(take):
            m.d.sync += count.eq(Mux(count == spec.size - 1, 0, count + 1))
        values, places = self._sort(m, take, count)
        self._send(m, load, busy, values, places)
        return m

    def _sort(self, m: Module, take: Value, count: Signal) -> tuple[list[Signal], list[Signal]]:
        """The list, largest first. What isn't taken yet loses against any value."""
        spec = self.spec
        x = self.i.payload.as_value()
        shape = (x.as_signed() if spec.x.signed else x).shape()
        value = Signal(shape)
        m.d.comb += value.eq(x)
        # Payload alone: what a frame began with is forgotten at its first value.
        values = [Signal(shape, name=f"value_{k}", reset_less=True) for k in range(spec.count)]
        places = [
            Signal(spec.place_bits, name=f"place_{k}", reset_less=True) for k in range(spec.count)
        ]
        wins = [(count <= k) | (value > held) for k, held in enumerate(values)]
        with m.If(take):
            for k in range(spec.count):
                with m.If(wins[k]):
                    # Of equal values the first stays ahead, so all places behind one that is
                    # beaten are beaten too.
                    before = wins[k - 1] if k else 0
                    m.d.sync += [
                        values[k].eq(Mux(before, values[k - 1], value)),
                        places[k].eq(Mux(before, places[k - 1], count)),
                    ]
        return values, places

    def _send(
        self,
        m: Module,
        load: Signal,
        busy: Signal,
        values: list[Signal],
        places: list[Signal],
    ) -> None:
        """Places, then values, one a transfer."""
        spec = self.spec
        words = Array(
            Signal(spec.out.bits, name=f"word_{k}", reset_less=True) for k in range(2 * spec.count)
        )
        left = Signal(range(2 * spec.count))
        m.d.comb += [self.o.valid.eq(busy), self.o.payload.eq(words[0])]
        moved = busy & self.o.ready
        with m.If(load):
            m.d.sync += [busy.eq(1), left.eq(2 * spec.count - 1)]
            m.d.sync += [word.eq(x) for word, x in zip(words, [*places, *values], strict=True)]
        with m.Elif(moved):
            m.d.sync += [busy.eq(left != 0), left.eq(left - 1)]
            m.d.sync += Cat(*words).eq(Cat(*words) >> spec.out.bits)


class SmoothedCircuit(wiring.Component):
    """`SmoothedUnit.compute` as a circuit: a ring of averages goes round once a frame; each is
    brought up to date as its value comes and compared a cycle later.

    Members
    -------
    i, o : streams of activations
    """

    def __init__(self, spec: SmoothedUnit) -> None:
        self.spec = spec
        self.sum_shape = Shape(spec.sum_bits, signed=spec.x.signed)
        super().__init__(stream_ports(spec.x, spec.out))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        count = Signal(range(spec.size))
        first = Signal(init=1)  # of the frames since the reset
        closed, full, busy, take, load = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            load.eq(full & ~busy),
            self.i.ready.eq(~closed),
            take.eq(self.i.valid & ~closed),
        ]
        last = take & (count == spec.size - 1)
        fresh, place, final = self._average(m, take, last, count, first)
        m.d.sync += [full.eq(final | (full & ~load)), closed.eq(last | (closed & ~load))]
        with m.If(take):
            m.d.sync += count.eq(Mux(last, 0, count + 1))
        held = Signal(spec.place_bits, reset_less=True)
        best, best_place, kept, bound = self._compare(m, fresh, place, held)
        other = Signal()
        m.d.comb += other.eq(first | (best > bound))
        with m.If(load):
            m.d.sync += first.eq(0)
            with m.If(other):
                m.d.sync += held.eq(best_place)
        self._send(m, load, busy, Mux(other, best_place, held), Mux(other, best, kept))
        return m

    def _average(
        self, m: Module, take: Value, last: Value, count: Signal, first: Signal
    ) -> tuple[Signal, Signal, Signal]:
        """The average, times ``2**shift``, of the value taken a cycle ago, its place, and whether
        it was a frame's last."""
        spec = self.spec
        x = self.i.payload.as_value()
        value = x.as_signed() if spec.x.signed else x
        # Payload alone: the first frame after a reset begins all of it anew.
        ring = Signal(spec.size * spec.sum_bits, reset_less=True)
        fresh = Signal(self.sum_shape, reset_less=True)
        place, final = Signal(spec.place_bits, reset_less=True), Signal()
        old, new = Signal(self.sum_shape), Signal(self.sum_shape)
        m.d.comb += [
            old.eq(ring[: spec.sum_bits]),
            new.eq(Mux(first, value << spec.shift, old - (old >> spec.shift) + value)),
        ]
        m.d.sync += final.eq(last)
        with m.If(take):
            m.d.sync += [
                ring.eq(Cat(ring[spec.sum_bits :], new)),
                fresh.eq(new),
                place.eq(count),
            ]
        return fresh, place, final

    def _compare(
        self, m: Module, fresh: Signal, place: Signal, held: Signal
    ) -> tuple[Signal, Signal, Signal, Signal]:
        """The largest average so far and its place, that of the class that holds, and what another
        must exceed. What is compared again while no value comes changes nothing."""
        spec = self.spec
        best, kept = (Signal(self.sum_shape, name=n, reset_less=True) for n in ("best", "kept"))
        bound = Signal(signed(spec.sum_bits + 2), reset_less=True)
        best_place = Signal(spec.place_bits, reset_less=True)
        with m.If((place == 0) | (fresh > best)):
            m.d.sync += [best.eq(fresh), best_place.eq(place)]
        with m.If(place == held):
            m.d.sync += [kept.eq(fresh), bound.eq(fresh + (spec.margin << spec.shift))]
        return best, best_place, kept, bound

    def _send(self, m: Module, load: Signal, busy: Signal, place: Value, average: Value) -> None:
        """The place, then the average."""
        spec = self.spec
        words = [Signal(spec.out.bits, name=f"word_{k}", reset_less=True) for k in range(2)]
        second = Signal()
        m.d.comb += [self.o.valid.eq(busy), self.o.payload.eq(Mux(second, words[1], words[0]))]
        with m.If(load):
            m.d.sync += [busy.eq(1), second.eq(0)]
            m.d.sync += [words[0].eq(place), words[1].eq(average >> spec.shift)]
        with m.Elif(busy & self.o.ready):
            m.d.sync += [busy.eq(~second), second.eq(1)]


class AboveCircuit(wiring.Component):
    """`AboveUnit.compute` as a circuit: takes a value a cycle as long as there is a place for the
    result, which is written a cycle later.

    Members
    -------
    i, o : streams of activations
    """

    def __init__(self, spec: AboveUnit, body: str = "behavioral") -> None:
        self.spec, self.body = spec, body
        super().__init__(stream_ports(spec.x, spec.out))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        queue, credits = add_queue(m, self.o, spec.out, spec.depth, spec.queue_memory, self.body)
        x = self.i.payload.as_value()
        value = x.as_signed() if spec.x.signed else x
        take, above = Signal(), Signal(reset_less=True)
        m.d.comb += [
            self.i.ready.eq(credits.some),
            take.eq(self.i.valid & credits.some),
            credits.claim.eq(take),
        ]
        m.d.sync += above.eq(value >= self._threshold(m, take))
        m.d.comb += [queue.w_en.eq(delayed(m, take, 1)), queue.w_data.eq(above)]
        return m

    def _threshold(self, m: Module, take: Value) -> Value:
        """The threshold of the value on offer: a constant where all are equal."""
        thresholds = self.spec.thresholds
        constants = Array(Const(t, signed(18)) for t in thresholds)
        if len(set(thresholds)) == 1:
            return constants[0]
        place = Signal(range(len(thresholds)))
        with m.If(take):
            m.d.sync += place.eq(Mux(place == len(thresholds) - 1, 0, place + 1))
        return constants[place]
