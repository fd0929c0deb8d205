"""Queues of activations: results that wait for the next unit, and FIFOs of skip branches."""

from typing import Any

from amaranth.hdl import Module, Mux, Shape, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.arith.activation import activation_layout, stream_ports
from gateware.device.memory import Ram
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.units import DEEP_QUEUE

__all__ = ["Credits", "DeepFifo", "ResultQueue", "StreamFifo", "add_queue", "delayed"]


def _after(place: Signal, depth: int) -> Value:
    """The next of so many places in a ring."""
    if depth & (depth - 1):
        return Mux(place == depth - 1, 0, place + 1)
    return place + 1


class _Places(wiring.Component):
    """What holds so many values of activations in a memory."""

    def __init__(
        self,
        form: IntFormat,
        depth: int,
        memory: str = "logic",
        body: str = "behavioral",
        width: int = 1,
    ) -> None:
        self.form, self.depth, self.memory, self.body = form, depth, memory, body
        self.width = width
        super().__init__(self._ports())

    def _ports(self) -> dict[str, Any]:
        raise NotImplementedError


class ResultQueue(_Places):
    """Values wait here until they are taken; whoever writes sees to it that it never overflows.

    A value is offered two cycles after its write, if nothing is before it; one a cycle. Holds
    ``depth`` values, the one on offer included.

    Parameters
    ----------
    form : IntFormat
    depth : int
        At least 2.
    memory : str
        ``"logic"`` or ``"block"``.
    width : int
        Activations of a value.

    Members
    -------
    w_en, w_data : write
    o : stream of activations
    popped : strobe, a value has left
    """

    @property
    def bits(self) -> int:
        """Bits of a value."""
        return self.form.bits * self.width

    def _ports(self) -> dict[str, Any]:
        return {
            "w_en": In(1),
            "w_data": In(self.bits),
            "o": Out(stream.Signature(activation_layout(self.form, self.width))),
            "popped": Out(1),
        }

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ram = ram = Ram(
            self.bits, self.depth, latency=1, kind=self.memory, body=self.body
        )
        pointer = Shape.cast(range(self.depth))
        write, read, held = Signal(pointer), Signal(pointer), Signal(pointer, reset_less=True)
        waiting = Signal(range(self.depth + 1))
        valid, load = Signal(), Signal()

        m.d.comb += [
            load.eq((waiting != 0) & (~valid | self.o.ready)),
            ram.w_en.eq(self.w_en),
            ram.w_addr.eq(write),
            ram.w_data.eq(self.w_data),
            # The value on offer is read again and again: the memory needs no read enable.
            ram.r_addr.eq(Mux(load, read, held)),
            self.o.valid.eq(valid),
            self.o.payload.eq(ram.r_data),
            self.popped.eq(valid & self.o.ready),
        ]
        m.d.sync += waiting.eq(waiting + self.w_en - load)
        with m.If(self.w_en):
            m.d.sync += write.eq(_after(write, self.depth))
        with m.If(load):
            m.d.sync += [read.eq(_after(read, self.depth)), held.eq(read), valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += valid.eq(0)
        return m


class Credits(wiring.Component):
    """Free places of a queue: ``some`` while there is one that nobody has claimed.

    Members
    -------
    claim, returned : strobes; ``claim`` only with ``some``
    some : whether a place is free, from the cycle after on
    """

    def __init__(self, places: int) -> None:
        self.places = places
        super().__init__({"claim": In(1), "returned": In(1), "some": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # One less than there are, so that the sign says that there is none: no logic behind it.
        spare = Signal(range(-1, self.places), init=self.places - 1)
        m.d.sync += spare.eq(spare + self.returned - self.claim)
        m.d.comb += self.some.eq(~spare[-1])
        return m


def add_queue(
    m: Module,
    o: stream.Interface,
    form: IntFormat,
    depth: int,
    memory: str,
    body: str,
    width: int = 1,
) -> tuple[ResultQueue, Credits]:
    """Adds a queue of results in front of a unit's output, and credits for its places. The unit
    claims a credit for each result before it writes it; credits come back as results leave."""
    m.submodules.queue = queue = ResultQueue(form, depth, memory, body, width)
    m.submodules.credits = credits = Credits(depth)
    connect(m, queue.o, flipped(o))
    m.d.comb += credits.returned.eq(queue.popped)
    return queue, credits


def delayed(m: Module, strobe: Value, cycles: int) -> Value:
    """A strobe so many cycles later."""
    for n in range(cycles):
        later = Signal(name=f"done_{n}")
        m.d.sync += later.eq(strobe)
        strobe = later
    return strobe


class StreamFifo(_Places):
    """A FIFO of ``depth`` transfers; a value is offered two cycles after it came, at best.

    Members
    -------
    i, o : streams of activations
    """

    def _ports(self) -> dict[str, Any]:
        return stream_ports(self.form, self.form, self.width)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        queue, credits = add_queue(
            m, self.o, self.form, self.depth, self.memory, self.body, self.width
        )
        take = Signal()
        m.d.comb += [
            self.i.ready.eq(credits.some),
            take.eq(self.i.valid & self.i.ready),
            credits.claim.eq(take),
            queue.w_en.eq(take),
            queue.w_data.eq(self.i.payload.as_value()),
        ]
        return m


class DeepFifo(StreamFifo):
    """A `StreamFifo` whose memory is read ``latency`` cycles ahead into a short queue, so that its
    block RAMs, and the choice among them, have registers behind them. A value is offered
    ``latency + 3`` cycles after it came, at best.

    Parameters
    ----------
    form, depth, memory, body, width
        As of a `StreamFifo`; the short queue's places are among the ``depth``.
    latency : int
        Of the memory, 2 to 4 cycles.

    Members
    -------
    i, o : streams of activations
    """

    def __init__(self, form: IntFormat, depth: int, *args: Any, latency: int, **options: Any):
        self.latency = latency
        super().__init__(form, depth, *args, **options)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = self.form.bits * self.width
        queue, ahead = add_queue(m, self.o, self.form, DEEP_QUEUE, "logic", self.body, self.width)
        m.submodules.places = places = Credits(self.depth)
        m.submodules.ram = ram = Ram(
            bits, self.depth, latency=self.latency, kind=self.memory, body=self.body
        )
        write, read = Signal(range(self.depth)), Signal(range(self.depth))
        stored = Signal(range(self.depth + 1))
        take, move = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(places.some),
            take.eq(self.i.valid & self.i.ready),
            places.claim.eq(take),
            places.returned.eq(queue.popped),
            ram.w_en.eq(take),
            ram.w_addr.eq(write),
            ram.w_data.eq(self.i.payload.as_value()),
            ram.r_addr.eq(read),
            move.eq((stored != 0) & ahead.some),
            ahead.claim.eq(move),
            queue.w_en.eq(delayed(m, move, self.latency)),
            queue.w_data.eq(ram.r_data),
        ]
        m.d.sync += stored.eq(stored + take - move)
        with m.If(take):
            m.d.sync += write.eq(_after(write, self.depth))
        with m.If(move):
            m.d.sync += read.eq(_after(read, self.depth))
        return m
