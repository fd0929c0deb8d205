"""Frames that come one after the other, side by side in the banks of a core of V frames."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from gateware.arith.activation import activation_layout
from pvq_hw.engine.batch import last_frame_format
from pvq_hw.engine.pulse_core import CoreSpec

__all__ = ["SerialWriter"]


class SerialWriter(wiring.Component):
    """Spreads frames that come one after the other over the banks, V of them side by side.

    Takes one activation a cycle as long as a half of the banks is free; column n of a batch's
    frame v goes to bank ``n mod P``, part v. A batch is closed with its last frame's last
    activation, or ``spec.flush_cycles`` cycles after that of another frame if no activation came
    until then. The parts that no frame came for keep what they had.

    Members
    -------
    i : stream of activations
    release : strobe, a half has been read
    written : strobe, a batch is closed
    batch : stream of the number of a closed batch's last frame, a cycle later; never waits
    w_en, w_part : one bit per bank, one bit per frame of the batch
    w_addr, w_data : to all banks
    """

    def __init__(self, spec: CoreSpec) -> None:
        self.spec, self.width = spec, 1
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(spec.x, 1))),
                "release": In(1),
                "written": Out(1),
                "batch": Out(
                    stream.Signature(activation_layout(last_frame_format(spec.frames), 1))
                ),
                "w_en": Out(spec.lanes),
                "w_part": Out(spec.frames),
                "w_addr": Out(spec.address_bits + 1),
                "w_data": Out(spec.x.bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        lanes, depth = spec.lanes, spec.bank_depth
        free, left = Signal(2, init=2), Signal(2)
        ready, take, ended = Signal(init=1), Signal(), Signal()
        bank, address = Signal(lanes, init=1), Signal(spec.address_bits)
        at_end, half = Signal(init=int(depth == 1)), Signal()
        part = Signal(spec.frames, init=1)
        flush = self._timer(m, take, ended & ~part[-1])
        m.d.comb += [
            self.i.ready.eq(ready),
            take.eq(self.i.valid & ready),
            ended.eq(take & at_end & bank[(spec.n - 1) % lanes]),
            self.written.eq((ended & part[-1]) | flush),
            left.eq(free + self.release - self.written),
        ]
        m.d.sync += [free.eq(left), ready.eq(left != 0), half.eq(half ^ self.written)]
        with m.If(ended):
            m.d.sync += [bank.eq(1), address.eq(0), at_end.eq(int(depth == 1))]
            m.d.sync += part.eq(part.rotate_left(1))
        with m.Elif(take):
            m.d.sync += bank.eq(bank.rotate_left(1))
            with m.If(bank[-1]):
                m.d.sync += [address.eq(address + 1), at_end.eq(address == depth - 2)]
        with m.If(flush):
            m.d.sync += part.eq(1)
        self._tell(m, ended, flush)
        # What goes to the banks has two registers: the first ones hang on the handshake.
        taken = Signal()
        m.d.sync += taken.eq(take)
        held = []
        for value in (bank, part, Cat(address, half), self.i.payload.as_value()):
            held.append(Signal(len(value), reset_less=True))
            m.d.sync += held[-1].eq(value)
        w_en, w_part = Signal(lanes), Signal(spec.frames)
        w_addr = Signal(spec.address_bits + 1, reset_less=True)
        w_data = Signal(len(self.w_data), reset_less=True)
        m.d.sync += [
            w_en.eq(Mux(taken, held[0], 0)),
            w_part.eq(held[1]),
            w_addr.eq(held[2]),
            w_data.eq(held[3]),
        ]
        m.d.comb += [
            self.w_en.eq(w_en),
            self.w_part.eq(w_part),
            self.w_addr.eq(w_addr),
            self.w_data.eq(w_data),
        ]
        return m

    def _timer(self, m: Module, take: Signal, ended: Value) -> Signal:
        """Whether a batch that is not full is closed in this cycle."""
        cycles = self.spec.flush_cycles
        waiting, expired, flush = Signal(), Signal(), Signal()
        count = Signal(range(cycles))
        m.d.comb += flush.eq(expired & ~take)
        m.d.sync += expired.eq(waiting & (count == cycles - 2) & ~take)
        with m.If(ended):
            m.d.sync += [waiting.eq(1), count.eq(0)]
        with m.Elif(take | flush):
            m.d.sync += waiting.eq(0)
        with m.Else():
            m.d.sync += count.eq(count + 1)
        return flush

    def _tell(self, m: Module, ended: Signal, flush: Signal) -> None:
        """Counts the frames of a batch."""
        number, last = Signal(range(self.spec.frames)), Signal(range(self.spec.frames))
        closed = Signal()
        with m.If(self.written):
            m.d.sync += [number.eq(0), last.eq(Mux(flush, number - 1, number))]
        with m.Elif(ended):
            m.d.sync += number.eq(number + 1)
        m.d.sync += closed.eq(self.written)
        m.d.comb += [self.batch.valid.eq(closed), self.batch.payload.as_value().eq(last)]
