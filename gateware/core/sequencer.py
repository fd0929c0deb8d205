"""Control of a core: writes frames into the banks, reads the codes, keeps the results' credits."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from gateware.arith.activation import activation_layout
from gateware.core.writer_ports import writer_ports
from gateware.device.memory import Ram
from pvq_hw.engine.core import CoreBase
from pvq_hw.engine.pulse_core import CoreSpec

__all__ = ["BankWriter", "ResultFifo", "Sequencer", "count_credits", "credits_taken", "take_frames"]


def take_frames(m: Module, writer: Any, n: int) -> tuple[Signal, Signal]:
    """Handshake of a writer of frames of ``n`` transfers: one a cycle while a half is free.

    Drives ``writer.i.ready`` and ``writer.written`` from ``writer.i.valid`` and
    ``writer.release``. Returns, a cycle later, that there was a transfer and that it was its
    frame's last.
    """
    # Two halves are free, or one, or none and nothing is ready: two flags, since a counter of
    # them is three LUTs behind the handshake.
    ready, one = Signal(init=1), Signal()
    last, take = Signal(), Signal()
    count, at_end = Signal(range(n)), Signal(init=int(n == 1))
    m.d.comb += [
        writer.i.ready.eq(ready),
        take.eq(writer.i.valid & ready),
        last.eq(writer.i.valid & at_end),
        writer.written.eq(last & ready),
    ]
    m.d.sync += [
        ready.eq(writer.release | (ready & ~(one & last))),
        one.eq(Mux(ready, Mux(one, last == writer.release, last), writer.release)),
    ]
    with m.If(take):
        m.d.sync += count.eq(Mux(at_end, 0, count + 1))
        if n > 1:
            m.d.sync += at_end.eq(count == n - 2)
    taken, ended = Signal(), Signal(reset_less=True)
    m.d.sync += [taken.eq(take), ended.eq(at_end)]
    return taken, ended


class BankWriter(wiring.Component):
    """Spreads a stream of activations over the banks: column n to bank ``n mod P``.

    Takes one activation a cycle as long as a half of the banks is free; the halves are used in
    turn. The write is on the outputs two cycles after the transfer: what hangs on the handshake is
    one counter alone.

    Members
    -------
    i : stream of activations
    release : strobe, a half has been read
    written : strobe, with the transfer of a frame's last activation
    w_en : one bit per bank
    w_addr, w_data : to all banks
    """

    def __init__(self, spec: CoreSpec) -> None:
        self.spec, self.width = spec, 1
        width = spec.x.bits * spec.frames
        super().__init__(
            writer_ports(
                spec.x,
                spec.frames,
                enables=spec.lanes,
                address_bits=spec.address_bits + 1,
                data_bits=width,
            )
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        taken, ended = take_frames(m, self, self.spec.n)
        payload = Signal(len(self.w_data), reset_less=True)
        m.d.sync += payload.eq(self.i.payload.as_value())
        self._spread(m, taken, ended)
        w_data = Signal(len(self.w_data), reset_less=True)
        m.d.sync += w_data.eq(payload)
        m.d.comb += self.w_data.eq(w_data)
        return m

    def _spread(self, m: Module, taken: Signal, ended: Signal) -> None:
        """A cycle after the transfer: the banks, their addresses, and the halves in turn."""
        spec = self.spec
        bank = Signal(spec.lanes, init=1)
        address, half = Signal(spec.address_bits), Signal()
        with m.If(taken & ended):
            m.d.sync += [bank.eq(1), address.eq(0), half.eq(~half)]
        with m.Elif(taken):
            m.d.sync += bank.eq(bank.rotate_left(1))
            with m.If(bank[-1]):
                m.d.sync += address.eq(address + 1)
        w_en = Signal(spec.lanes)
        w_addr = Signal(spec.address_bits + 1, reset_less=True)
        m.d.sync += [w_en.eq(Mux(taken, bank, 0)), w_addr.eq(Cat(address, half))]
        m.d.comb += [self.w_en.eq(w_en), self.w_addr.eq(w_addr)]


def credits_taken(spec: CoreBase) -> Signal:
    """A count of places for results that are taken or promised, for `count_credits`: it starts so
    high that its top bit is set when the last one is gone."""
    top = 1 << (spec.credits - 1).bit_length()
    return Signal((2 * top - 1).bit_length(), init=top - spec.credits, name="taken")


def count_credits(m: Module, taken: Signal, promised: Value, popped: Value) -> None:
    """Counts places, two cycles after the strobes."""
    more, less = Signal(), Signal()
    m.d.sync += [more.eq(promised & ~popped), less.eq(popped & ~promised)]
    with m.If(more | less):
        m.d.sync += taken.eq(taken + Mux(less, -1, 1))


class Sequencer(wiring.Component):
    """Reads the code words of one frame after the other, as far as results have places.

    ``addr`` is the word to read while ``go`` is high. ``valid``, ``half`` and ``end`` (last word
    of a frame) belong to the word that leaves the code ROM now, ``code_latency`` cycles later.
    Frames follow one another without a bubble. No word is read while `CoreBase.credits` places of
    the result FIFO are taken or promised; the words under way fit into the others.

    Members
    -------
    written : strobe, a frame is in the banks
    row_end : strobe, a row's last word leaves the code ROM
    popped : strobe, a result has left

    Both strobes count two cycles later.
    """

    def __init__(self, spec: CoreBase) -> None:
        self.spec = spec
        super().__init__(
            {
                "written": In(1),
                "row_end": In(1),
                "popped": In(1),
                "addr": Out(max(1, (spec.words - 1).bit_length())),
                "valid": Out(1),
                "valid_next": Out(1),
                "half": Out(1),
                "end": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        words = self.spec.words
        # A frame is in the banks and not started: never two, since the half of the one that is
        # read is free only after its end.
        waiting, run, half = Signal(), Signal(), Signal()
        at_end = Signal(init=int(words == 1))
        addr = Signal(len(self.addr))
        taken = credits_taken(self.spec)
        full = taken[-1]
        go, busy = Signal(), Signal()
        m.d.comb += [
            go.eq(run & ~full),
            # The frame goes on in the next cycle; else one that waits starts then.
            busy.eq(run & (full | ~at_end)),
            self.addr.eq(addr),
        ]
        m.d.sync += [
            run.eq(waiting | busy),
            waiting.eq(self.written | (waiting & busy)),
            half.eq(half ^ (go & at_end)),
        ]
        count_credits(m, taken, self.row_end, self.popped)
        with m.If(go):
            m.d.sync += addr.eq(addr + 1)
            if words > 1:
                m.d.sync += at_end.eq(addr == words - 2)
            with m.If(at_end):
                m.d.sync += addr.eq(0)
        flags = [go, half, go & at_end]
        for i in range(self.spec.code_latency):
            later = [Signal(name=f"{n}_{i}") for n in ("valid", "half", "end")]
            m.d.sync += [a.eq(b) for a, b in zip(later, flags, strict=True)]
            before, flags = flags[0], list(later)
        m.d.comb += self.valid_next.eq(before)
        m.d.comb += [self.valid.eq(flags[0]), self.half.eq(flags[1]), self.end.eq(flags[2])]
        return m


class ResultFifo(wiring.Component):
    """Results wait here for the next core. The credits see to it that it never overflows.

    A result is offered ``spec.fifo_delay`` cycles after its write, if nothing is before it; one a
    cycle. Of 1 cycle: out of the memory, whose data no register follows.

    Members
    -------
    w_en, w_data : write
    o : stream
    popped : strobe, a result has left
    """

    def __init__(self, spec: CoreBase, body: str = "behavioral") -> None:
        self.spec, self.body = spec, body
        together = spec.frames if spec.frames > 1 else spec.out_width
        self.width = spec.out.bits * together
        super().__init__(
            {
                "w_en": In(1),
                "w_data": In(self.width),
                "o": Out(stream.Signature(activation_layout(spec.out, together))),
                "popped": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self.spec.fifo_depth
        block = self.spec.fifo_memory == "block"
        m.submodules.ram = ram = Ram(
            self.width,
            depth,
            latency=int(block),
            kind=self.spec.fifo_memory,
            body=self.body,
            holds=block,
        )
        bits = depth.bit_length()
        write, read = Signal(bits - 1), Signal(bits - 1)
        # ``after`` is ``read + 1``; ``some`` says that there are results that are not on offer yet.
        after, some = Signal(bits - 1, init=1), Signal()
        valid, load = Signal(), Signal()
        now = self.spec.fifo_delay == 1
        m.d.comb += [
            load.eq(some & (self.o.ready if now else ~valid | self.o.ready)),
            ram.w_en.eq(self.w_en),
            ram.w_addr.eq(write),
            ram.w_data.eq(self.w_data),
            self.o.valid.eq(some if now else valid),
            self.popped.eq(self.o.valid & self.o.ready),
        ]
        m.d.sync += [
            write.eq(write + self.w_en),
            some.eq(self.w_en | (some & ~(load & (write == after)))),
        ]
        m.d.comb += ram.r_addr.eq(read)
        if now:
            m.d.comb += self.o.payload.eq(ram.r_data)
        elif block:
            m.d.comb += [ram.r_en.eq(load), self.o.payload.eq(ram.r_data)]
        else:
            result = Signal(self.width, reset_less=True)
            m.d.comb += self.o.payload.eq(result)
            with m.If(load):
                m.d.sync += result.eq(ram.r_data)
        with m.If(load):
            m.d.sync += [read.eq(after), after.eq(after + 1), valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += valid.eq(0)
        return m
