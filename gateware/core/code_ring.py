"""A core's code words where the flash gives them for every frame: a ring, and what fills it."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.device.memory import Ram
from gateware.link.flash import FlashStream, flash_pins
from pvq_hw.engine.code_stream import STREAM_START, stream_crc
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.shared_core import SharedSpec

__all__ = ["CodeRing", "StreamRuns", "words_at_hand"]


class CodeRing(wiring.Component):
    """``spec.code_buffer`` words of codes in block RAM, the next ones that the core reads.

    Words come in the order in which the core reads them for frame after frame, as far as there is
    room. ``data`` is the word of ``addr`` from ``latency`` cycles before, as of
    `gateware.device.memory.Rom`.

    Members
    -------
    came : Out(1)
        Strobe: another word can be read from the next cycle on.
    freed : In
        Words whose places are given back in this cycle.
    params_freed : In
        The same of words of rows' multipliers and biases, where these come too.
    row_came, row_place, row : Out
        Strobe: a row's multiplier, in the lower bits, and bias came, and which place is theirs.
    right, wrong, flash : see `gateware.link.flash.FlashStream`
    """

    def __init__(
        self, spec: SharedSpec, image: CoreImage, latency: int, wake_clocks: int, body: str
    ) -> None:
        self.spec, self.latency, self.body = spec, latency, body
        words = spec.contents(image)[spec.stream_memory]
        crc = stream_crc(spec, words)
        self._reader = FlashStream(
            STREAM_START, spec.word_bits, len(words), crc, wake_clocks, spec.flash_bits
        )
        super().__init__(
            {
                "addr": In(spec.code_address_bits),
                "data": Out(spec.word_bits),
                "came": Out(1),
                "freed": In(spec.freed_bits),
                **self._row_ports(),
                "right": Out(1),
                "wrong": Out(1),
                "flash": Out(flash_pins(spec.flash_bits)),
            }
        )

    def _row_ports(self) -> dict[str, Any]:
        if not self.spec.params_places:
            return {}
        spec: Any = self.spec
        return {
            "params_freed": In(spec.program_fields["params"]),
            "row_came": Out(1),
            "row_place": Out(range(spec.params_buffer)),
            "row": Out(spec.mult_bits + spec.bias_bits),
        }

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec, depth = self.spec, self.spec.code_buffer
        m.submodules.reader = reader = self._reader
        m.submodules.ram = ram = Ram(spec.word_bits, depth, latency=self.latency, body=self.body)
        connect(m, reader.pins, flipped(self.flash))
        free = Signal(range(depth + 1), init=depth)
        write = Signal(range(depth))
        begins, came, room = reader.begins, reader.o.valid, free != 0
        if spec.params_places:
            begins, came, room = self._rows(m, reader, room)
        m.d.sync += [free.eq(free + self.freed - begins), write.eq(write + came)]
        m.d.comb += [
            reader.room.eq(room),
            ram.w_en.eq(came),
            ram.w_addr.eq(write),
            ram.w_data.eq(reader.o.payload),
            ram.r_addr.eq(self.addr),
            self.data.eq(ram.r_data),
            self.came.eq(came),
            self.right.eq(reader.right),
            self.wrong.eq(reader.wrong),
        ]
        return m

    def _rows(self, m: Module, reader: FlashStream, room: Value) -> tuple[Value, Value, Value]:
        """Puts words of multipliers and biases together; whether a code word begins and came, and
        whether there is room for the next word, whichever it is."""
        spec: Any = self.spec
        m.submodules.runs = runs = StreamRuns([n for run in spec.stream_runs for n in run])
        count = spec.row_words
        free = Signal(range(spec.params_places + 1), init=spec.params_places, name="rows_free")
        m.d.comb += runs.begins.eq(reader.begins)
        m.d.sync += free.eq(free + self.params_freed - (reader.begins & ~runs.odd))
        # The next word may have begun when one comes, two cycles before at the earliest.
        began, later, is_code = Signal(), Signal(), Signal()
        with m.If(reader.begins):
            m.d.sync += began.eq(runs.odd)
        m.d.sync += [later.eq(began), is_code.eq(later)]
        comes, place = reader.o.valid & ~is_code, Signal(range(spec.params_buffer))
        part, before = Signal(range(max(2, count))), Signal((count - 1) * spec.word_bits)
        with m.If(comes):
            m.d.sync += before.eq(Cat(before, reader.o.payload)[spec.word_bits :])
            m.d.sync += part.eq(Mux(part == count - 1, 0, part + 1))
        with m.If(self.row_came):
            m.d.sync += place.eq(place + 1)
        m.d.comb += [
            self.row_came.eq(comes & (part == count - 1)),
            self.row_place.eq(place),
            self.row.eq(Cat(before, reader.o.payload)),
        ]
        return reader.begins & runs.odd, reader.o.valid & is_code, Mux(runs.odd, room, free != 0)


class StreamRuns(wiring.Component):
    """Counts the words of runs that follow one another, over and over: ``odd`` says whether the
    next word is of a run with an odd number. Words are 2 cycles or more apart.

    Parameters
    ----------
    lengths : sequence of int
        Words of each run; an even number of runs.

    Members
    -------
    begins : strobe, the next word begins
    odd : Out(1)
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths = tuple(lengths)
        super().__init__({"begins": In(1), "odd": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        lengths = self._lengths
        number, count = Signal(range(len(lengths))), Signal(range(max(lengths)))
        last, at_end = Signal(range(max(lengths))), Signal(init=int(lengths[0] == 1))
        with m.Switch(number):
            for k, length in enumerate(lengths):
                with m.Case(k):
                    m.d.comb += last.eq(length - 1)
        m.d.sync += at_end.eq(count == last)
        m.d.comb += self.odd.eq(number[0])
        with m.If(self.begins):
            m.d.sync += count.eq(Mux(at_end, 0, count + 1))
            with m.If(at_end):
                m.d.sync += number.eq(Mux(number == len(lengths) - 1, 0, number + 1))
        return m


def words_at_hand(m: Module, came: Value, go: Value, depth: int) -> Value:
    """Whether there is a word that can be read: each is counted when it came and when it is
    read."""
    missing = Signal(depth.bit_length(), init=(1 << depth.bit_length()) - 1)  # -1: none
    with m.If(came ^ go):
        m.d.sync += missing.eq(missing + Mux(go, -1, 1))
    return ~missing[-1]
