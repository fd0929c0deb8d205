"""Several layers on one set of lanes, with maps between them in memories of their own."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.arith.activation import activation_layout
from gateware.core.parameters import Strobe, core_rom
from gateware.core.pulse_core import read_codes
from gateware.core.sequencer import ResultFifo, count_credits, credits_taken
from gateware.core.shared_core import (
    SharedCore,
    finish_of,
    lane_sum,
    layer_steps,
    step_layout,
    widened,
)
from gateware.device.memory import Ram
from gateware.device.spram import SpramBlock
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.map_core import MapSpec

__all__ = ["MapCore"]


class MapCore(SharedCore):
    """Computes several layers, convolutions too: `MapSpec.compute` as a circuit.

    As `SharedCore`, but a frame is taken when the one before is through: it takes ``spec.n`` cycles
    and those of the layers, ``spec.frame_cycles`` together.
    """

    spec: MapSpec

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        # The output first, so that it keeps its name in Verilog.
        m.submodules.fifo = fifo = ResultFifo(spec, self.body)
        connect(m, fifo.o, flipped(self.o))
        m.submodules.sequencer = sequencer = WindowSequencer(spec, self.image, self.body)
        m.submodules.fetcher = fetcher = WindowFetcher(spec)
        m.submodules.writer = writer = MapWriter(spec)
        step: Any = sequencer.step
        word, word_end, clear = read_codes(self, m, sequencer)
        row_end, is_signed, sums = self._sums(m, word_end, step)
        ends = Strobe(m, "word_end", word_end, spec.code_latency)
        again = Strobe(m, "again", sequencer.again, spec.code_latency)
        position = Strobe(m, "position", sequencer.pixel, spec.code_latency)
        starting = Signal(init=1)
        with m.If(sequencer.valid):
            m.d.sync += starting.eq(word_end)
        first = Strobe(m, "group_start", sequencer.valid & starting, spec.code_latency)
        half = Signal(reset_less=True)
        m.d.sync += half.eq(sequencer.half)
        total = lane_sum(m, self, word, clear, sequencer, _banks(fetcher), half, is_signed)
        mult, bias = (
            _row_words(m, self, role, ends, again, stage, step)
            for role, stage in (("mult", spec.row_stage), ("bias", spec.product_stage))
        )
        finished = self._results(m, total, first, ends, mult, bias, sums)
        result = row_end(spec.result_stage)
        between = self._between(m, sequencer, finished, result)
        connect(m, flipped(self.i), writer.i)
        self._maps(m, fetcher, writer, step)
        m.d.comb += [
            Value.cast(fetcher.step).eq(Value.cast(step)),
            fetcher.start.eq(sequencer.opens),
            fetcher.release.eq(sequencer.end),
            sequencer.written.eq(fetcher.written),
            sequencer.whole.eq(fetcher.whole),
            sequencer.final.eq(fetcher.final),
            sequencer.taken.eq(writer.written),
            sequencer.popped.eq(fifo.popped),
            sequencer.row_end.eq(row_end(spec.code_latency)),
            writer.opens.eq(sequencer.done),
            writer.result.eq(between),
            writer.ends.eq(position(spec.result_stage)),
            writer.value.eq(self._kept(finished, step)),
            writer.starts.eq(sequencer.opens),
            writer.base.eq(step.base),
            fifo.w_en.eq(result & step.last),
            fifo.w_data.eq(finished[spec.finishes.index(finish_of(spec, -1))]),
        ]
        return m

    def _sums(
        self, m: Module, word_end: Value, step: Any
    ) -> tuple[Strobe, Value, tuple[Strobe, Strobe] | None]:
        """Ends of the rows that give a result, the sign of what the lanes read, and the ends of
        rows whose products begin a sum or are added to it."""
        spec = self.spec
        if not spec.joined:
            return Strobe(m, "row_end", word_end, spec.code_latency), step.signed, None
        # Whether the row is of a sum's second map.
        second = Signal()
        with m.If(word_end):
            m.d.sync += second.eq(~second & step.joins)
        ends = word_end & (second | ~step.joins)
        sign = Strobe(m, "sign", Mux(second, step.others, step.signed), spec.code_latency)
        strobes = [
            Strobe(m, name, flag, spec.code_latency)
            for name, flag in (("begins", word_end & ~second), ("adds", word_end & second))
        ]
        stage = spec.code_latency + 1 + spec.bank_latency
        return (
            Strobe(m, "row_end", ends, spec.code_latency), sign(stage), (strobes[0], strobes[1])
        )  # fmt: skip

    def _maps(self, m: Module, fetcher: "WindowFetcher", writer: "MapWriter", step: Any) -> None:
        """The two memories: one is read by the fetcher, the other written. While a frame comes in,
        the first is written."""
        spec, words = self.spec, []
        for number in range(2):
            m.submodules[f"map{number}"] = memory = MapMemory(spec, self.body)
            reads = ~writer.coming & (step.source == number)
            m.d.comb += [
                memory.addr.eq(Mux(reads, fetcher.addr, writer.w_addr)),
                memory.w_en.eq(writer.w_en & ~reads),
                memory.w_data.eq(writer.w_data),
            ]
            words.append(memory.data)
        m.d.comb += fetcher.data.eq(Mux(step.source[0], words[1], words[0]))


def _banks(fetcher: "WindowFetcher") -> Any:
    """The fetcher as what writes the banks: of lane ``p`` the pair ``p // 2``."""

    def ports(p: int) -> tuple[Value, Value, Value]:
        data = fetcher.w_data.word_select(p % 2, len(fetcher.w_data) // 2)
        return fetcher.w_en[p // 2], fetcher.w_addr, data

    return ports


def _row_words(
    m: Module, core: Any, which: str, strobe: Strobe, again: Strobe, stage: int, step: Any
) -> Value:
    """As `gateware.core.parameters.row_words`; at the end of a position the layer's rows begin
    anew while there are others."""
    spec = core.spec
    rom = core_rom(core, which, spec.params_latency, spec.params_memory)
    m.submodules[which] = rom
    address = Signal(max(1, (rom.depth - 1).bit_length()), name=f"{which}_address")
    early = stage - spec.params_latency
    following = Mux(address == rom.depth - 1, 0, address + 1)
    following = Mux(again(early), step.row, following)
    with m.If(strobe(early)):
        m.d.sync += address.eq(following)
    m.d.comb += rom.addr.eq(address)
    return rom.data


class MapMemory(wiring.Component):
    """A map: reads or writes a word a cycle; ``data`` is the word of ``addr`` a cycle before."""

    def __init__(self, spec: MapSpec, body: str) -> None:
        self.spec, self.body = spec, body
        super().__init__(
            {
                "addr": In(spec.map_address_bits),
                "w_en": In(1),
                "w_data": In(spec.map_bits),
                "data": Out(spec.map_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        memory: Any
        if spec.map_memory == "spram":
            m.submodules.spram = memory = SpramBlock(self.body, spec.map_depth)
            m.d.comb += [memory.addr.eq(self.addr), self.data.eq(memory.data)]
        else:
            memory = Ram(spec.map_bits, spec.map_depth, latency=1, body=self.body)
            m.submodules.ram = memory
            m.d.comb += [
                memory.w_addr.eq(self.addr), memory.r_addr.eq(self.addr),
                self.data.eq(memory.r_data),
            ]  # fmt: skip
        m.d.comb += [memory.w_en.eq(self.w_en), memory.w_data.eq(self.w_data)]
        return m


class WindowFetcher(wiring.Component):
    """Copies window after window of a map into the halves of the banks, a word a cycle.

    A layer's windows begin two cycles after ``start``. The last word of a window is asked for with
    ``written``; it is in the banks two cycles later. Between two windows are three cycles, and as
    many as a half is not free.

    Members
    -------
    step : word of the program
    start : strobe, a layer begins
    release : strobe, a half has been read
    addr, data : of the map; ``data`` comes a cycle later
    written, whole, final : strobe, and with it whether the window is its position's last, and its
        layer's
    w_en : one bit for each pair of banks
    w_addr, w_data : to all of them
    """

    def __init__(self, spec: MapSpec) -> None:
        self.spec = spec
        super().__init__(
            {
                "step": In(step_layout(spec)),
                "start": In(1),
                "release": In(1),
                "addr": Out(spec.map_address_bits),
                "data": In(spec.map_bits),
                "written": Out(1),
                "whole": Out(1),
                "final": Out(1),
                "w_en": Out(spec.lanes // 2),
                "w_addr": Out(spec.address_bits + 1),
                "w_data": Out(spec.map_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec, step = self.spec, self.step
        fields, bits = spec.program_fields, spec.map_address_bits
        arm, hold, run, after = (Signal(name=n) for n in ("arm", "hold", "run", "after"))
        free = Signal(2, init=2)
        begin = Signal()
        m.d.comb += begin.eq(hold & (free != 0))
        m.d.sync += free.eq(free + self.release - begin)
        # Positions: the place and the address of the window's first pixel.
        column, row = Signal(fields["columns"]), Signal(fields["rows"])
        left, top = Signal(signed(fields["x"])), Signal(signed(fields["y"]))
        line, base = Signal(bits, reset_less=True), Signal(bits, reset_less=True)
        place, part = Signal(bits, reset_less=True), Signal(fields["parts"])
        at_column, at_row, at_part = Signal(), Signal(), Signal()
        m.d.comb += [
            at_column.eq(column == step.columns), at_row.eq(row == step.rows),
            at_part.eq(part == step.parts),
        ]  # fmt: skip
        first_x, first_y = step.x.as_signed(), step.y.as_signed()
        with m.If(self.start):
            m.d.sync += [column.eq(0), row.eq(0), left.eq(first_x), top.eq(first_y)]
            m.d.sync += [line.eq(step.first), base.eq(step.first), place.eq(step.first)]
            m.d.sync += part.eq(0)
        with m.Elif(after):
            m.d.sync += part.eq(Mux(at_part, 0, part + 1))
            with m.If(~at_part):
                m.d.sync += place.eq(place + step.words + 1)
            with m.Elif(~at_column):
                m.d.sync += [column.eq(column + 1), left.eq(left + step.step_x)]
                m.d.sync += [base.eq(base + step.right), place.eq(base + step.right)]
            with m.Else():
                m.d.sync += [column.eq(0), left.eq(first_x), row.eq(row + 1)]
                m.d.sync += [top.eq(top + step.step_y), line.eq(line + step.below)]
                m.d.sync += [base.eq(line + step.below), place.eq(line + step.below)]
        # Within a window.
        word, tap, kernel = (Signal(fields[k], name=k) for k in ("words", "taps", "lines"))
        x, y = Signal(signed(fields["x"] + 1)), Signal(signed(fields["y"] + 1))
        addr, start = Signal(bits), Signal(bits, reset_less=True)
        at_word, at_tap, at_kernel = Signal(), Signal(), Signal()
        m.d.comb += [
            at_word.eq(word == step.words), at_tap.eq(tap == step.taps),
            at_kernel.eq(kernel == step.lines),
            self.written.eq(run & at_word & at_tap & at_kernel),
            self.whole.eq(at_part),
            self.final.eq(at_column & at_row & at_part),
            self.addr.eq(addr),
        ]  # fmt: skip
        m.d.sync += [
            arm.eq(self.start | (after & ~self.final)),
            hold.eq(arm | (hold & ~begin)),
            run.eq(begin | (run & ~self.written)),
            after.eq(self.written),
        ]
        with m.If(arm):
            m.d.sync += [word.eq(0), tap.eq(0), kernel.eq(0), x.eq(left), y.eq(top)]
            m.d.sync += [addr.eq(place), start.eq(place)]
        with m.Elif(run):
            m.d.sync += [word.eq(word + 1), addr.eq(addr + Mux(at_word, step.across, 1))]
            with m.If(at_word):
                m.d.sync += [word.eq(0), tap.eq(tap + 1), x.eq(x + 1)]
                with m.If(at_tap):
                    m.d.sync += [tap.eq(0), kernel.eq(kernel + 1), x.eq(left), y.eq(y + 1)]
                    m.d.sync += [start.eq(start + step.down), addr.eq(start + step.down)]
        inside = (x >= 0) & (x < step.width) & (y >= 0) & (y < step.height)
        self._write(m, run, inside)
        return m

    def _write(self, m: Module, run: Value, inside: Value) -> None:
        """Two cycles later: the word, or zeros beyond the map, into the next pair of banks."""
        spec = self.spec
        moves, within, ended = Signal(), Signal(reset_less=True), Signal()
        m.d.sync += [moves.eq(run), within.eq(inside), ended.eq(self.written)]
        pair = Signal(spec.lanes // 2, init=1)
        address, half = Signal(spec.address_bits), Signal()
        with m.If(moves):
            m.d.sync += pair.eq(pair.rotate_left(1))
            with m.If(pair[-1]):
                m.d.sync += address.eq(address + 1)
        with m.If(ended):
            m.d.sync += [pair.eq(1), address.eq(0), half.eq(~half)]
        w_en = Signal(len(pair))
        w_addr = Signal(len(self.w_addr), reset_less=True)
        w_data = Signal(spec.map_bits, reset_less=True)
        m.d.sync += [
            w_en.eq(Mux(moves, pair, 0)),
            w_addr.eq(Cat(address, half)),
            w_data.eq(Mux(within, self.data, 0)),
        ]
        m.d.comb += [self.w_en.eq(w_en), self.w_addr.eq(w_addr), self.w_data.eq(w_data)]


class WindowSequencer(wiring.Component):
    """Reads a layer's code words for one window after the other, and layer after layer.

    As `gateware.core.shared_core.LayerSequencer`, but what starts a run of words is a window in the
    banks. ``end``, ``pixel`` and ``again`` belong to the word that leaves the code ROM now: it is
    a window's last, a position's, and others of the layer follow.

    Members
    -------
    taken : strobe, a frame is in its map
    written, whole, final : strobe, a window is in the banks; whether it is the position's last, and
        the layer's
    opens : strobe, ``step`` is another layer's, whose windows may be fetched
    done : strobe, a frame's last layer is through
    """

    def __init__(self, spec: MapSpec, image: CoreImage, body: str) -> None:
        self.spec, self.image, self.body = spec, image, body
        super().__init__(
            {
                "taken": In(1),
                "written": In(1),
                "whole": In(1),
                "final": In(1),
                "row_end": In(1),
                "popped": In(1),
                "addr": Out(max(1, (spec.words - 1).bit_length())),
                "valid": Out(1),
                "valid_next": Out(1),
                "half": Out(1),
                "end": Out(1),
                "pixel": Out(1),
                "again": Out(1),
                "turn": Out(1),
                "opens": Out(1),
                "done": Out(1),
                "layer": Out(range(max(2, len(spec.layers)))),
                "step": Out(step_layout(spec)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        step: Any = self.step
        taken = credits_taken(spec)
        full = taken[-1]
        count_credits(m, taken, self.row_end & step.last, self.popped)
        run, half, at_end = Signal(), Signal(), Signal()
        waiting, next_final, final = Signal(), Signal(), Signal()
        next_whole, whole = Signal(), Signal()
        count = Signal(len(step.before))
        go, ends, busy, over = Signal(), Signal(), Signal(), Signal()
        addr = Signal(len(self.addr))
        m.d.comb += [
            go.eq(run & ~(full & step.last)),
            ends.eq(go & at_end),
            busy.eq(run & ~ends),
            over.eq(ends & final),
            self.addr.eq(addr),
        ]
        opens, first = layer_steps(m, self, over)
        frame = Signal()
        m.d.sync += frame.eq(self.taken)
        m.d.comb += [self.opens.eq((opens & ~first) | frame), self.done.eq(opens & first)]
        with m.If(self.written):
            m.d.sync += [next_final.eq(self.final), next_whole.eq(self.whole)]
        with m.If(waiting & ~busy):
            m.d.sync += [final.eq(next_final), whole.eq(next_whole)]
        m.d.sync += [
            run.eq(waiting | busy), waiting.eq(self.written | (waiting & busy)),
            half.eq(half ^ ends),
        ]  # fmt: skip
        with m.If(go):
            m.d.sync += [addr.eq(addr + 1), count.eq(count + 1)]
            m.d.sync += at_end.eq(count == step.before)
        with m.If(ends):
            m.d.sync += [at_end.eq(step.single), count.eq(0)]
            with m.If(whole & ~final):
                m.d.sync += addr.eq(step.start)
            with m.Elif(whole & step.last):
                m.d.sync += addr.eq(0)
        with m.Elif(~run):
            m.d.sync += at_end.eq(step.single)
        flags = [go, half, ends, ends & whole, ends & whole & ~final]
        for i in range(spec.code_latency):
            later = [Signal(name=f"{n}_{i}") for n in ("valid", "half", "end", "pixel", "again")]
            m.d.sync += [a.eq(b) for a, b in zip(later, flags, strict=True)]
            before, flags = flags[0], list(later)
        m.d.comb += [
            self.valid_next.eq(before), self.valid.eq(flags[0]), self.half.eq(flags[1]),
            self.end.eq(flags[2]), self.pixel.eq(flags[3]), self.again.eq(flags[4]),
        ]  # fmt: skip
        return m


class MapWriter(wiring.Component):
    """Puts activations two to a word into a map: a frame that comes in, and results.

    Members
    -------
    i : stream of activations
    opens : strobe, a frame may come in
    coming : a frame comes in, or may
    written : strobe, with the transfer of a frame's last activation
    result, value, ends : strobe, an activation, and whether it is its pixel's last
    starts, base : strobe, a layer begins, and the first word of the map that it gives
    w_en, w_addr, w_data : two cycles after a transfer, one after ``result``
    """

    def __init__(self, spec: MapSpec) -> None:
        self.spec = spec
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(spec.x, 1))),
                "opens": In(1),
                "coming": Out(1),
                "written": Out(1),
                "result": In(1),
                "value": In(spec.bank_bits),
                "ends": In(1),
                "starts": In(1),
                "base": In(spec.program_fields["base"]),
                "w_en": Out(1),
                "w_addr": Out(spec.map_address_bits),
                "w_data": Out(spec.map_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        channels = spec.layers[0].geometry.input_shape[2]
        open_, coming, take = Signal(init=1), Signal(init=1), Signal()
        count, at_end = Signal(range(spec.n)), Signal(init=int(spec.n == 1))
        channel, at_pixel = Signal(range(channels)), Signal()
        m.d.comb += [
            self.i.ready.eq(open_),
            take.eq(self.i.valid & open_),
            self.written.eq(take & at_end),
            at_pixel.eq(channel == channels - 1),
            self.coming.eq(coming),
        ]
        with m.If(take):
            m.d.sync += [
                count.eq(Mux(at_end, 0, count + 1)),
                channel.eq(Mux(at_pixel, 0, channel + 1)),
            ]
            if spec.n > 1:
                m.d.sync += at_end.eq(count == spec.n - 2)
        m.d.sync += open_.eq(self.opens | (open_ & ~self.written))
        taken, pixel, frame = Signal(), Signal(reset_less=True), Signal()
        given = Signal(spec.bank_bits, reset_less=True)
        m.d.sync += [taken.eq(take), pixel.eq(at_pixel), frame.eq(self.written)]
        m.d.sync += given.eq(widened(Value.cast(self.i.payload), spec.x, spec.bank_bits))
        landed = Signal()  # the frame's last word is at the memory's port
        m.d.sync += [landed.eq(frame), coming.eq(self.opens | (coming & ~landed))]
        moves, value, last = Signal(), Signal(spec.bank_bits), Signal()
        m.d.comb += [
            moves.eq(self.result | taken),
            value.eq(Mux(self.result, self.value, given)),
            last.eq(Mux(self.result, self.ends, pixel)),
        ]
        odd, low = Signal(), Signal(spec.bank_bits, reset_less=True)
        address = Signal(spec.map_address_bits)
        w_en, w_addr = Signal(), Signal(spec.map_address_bits, reset_less=True)
        w_data = Signal(spec.map_bits, reset_less=True)
        full = Signal()
        m.d.comb += full.eq(moves & (odd | last))
        with m.If(moves):
            m.d.sync += [odd.eq(~(odd | last)), low.eq(value)]
        with m.If(full):
            m.d.sync += address.eq(address + 1)
        with m.If(self.starts | self.opens):
            m.d.sync += address.eq(Mux(self.starts, self.base, 0))
        m.d.sync += [
            w_en.eq(full), w_addr.eq(address),
            w_data.eq(Mux(odd, Cat(low, value), Cat(value, value))),
        ]  # fmt: skip
        m.d.comb += [self.w_en.eq(w_en), self.w_addr.eq(w_addr), self.w_data.eq(w_data)]
        return m
