"""A core's code words where the flash gives them for every frame: a ring, and what fills it."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.device.memory import Ram
from gateware.link.flash import FLASH_PINS, FlashStream
from pvq_hw.engine.code_stream import STREAM_START, stream_crc
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.shared_core import SharedSpec

__all__ = ["CodeRing", "words_at_hand"]


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
    right, wrong, flash : see `gateware.link.flash.FlashStream`
    """

    def __init__(
        self, spec: SharedSpec, image: CoreImage, latency: int, wake_clocks: int, body: str
    ) -> None:
        self.spec, self.latency, self.body = spec, latency, body
        self._reader = FlashStream(
            STREAM_START, spec.word_bits, spec.words, stream_crc(spec, image.codes), wake_clocks
        )
        super().__init__(
            {
                "addr": In(spec.code_address_bits),
                "data": Out(spec.word_bits),
                "came": Out(1),
                "freed": In(spec.freed_bits),
                "right": Out(1),
                "wrong": Out(1),
                "flash": Out(FLASH_PINS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec, depth = self.spec, self.spec.code_buffer
        m.submodules.reader = reader = self._reader
        m.submodules.ram = ram = Ram(spec.word_bits, depth, latency=self.latency, body=self.body)
        connect(m, reader.pins, flipped(self.flash))
        free = Signal(range(depth + 1), init=depth)
        write = Signal(range(depth))
        m.d.sync += [free.eq(free + self.freed - reader.begins), write.eq(write + reader.o.valid)]
        m.d.comb += [
            reader.room.eq(free != 0),
            ram.w_en.eq(reader.o.valid),
            ram.w_addr.eq(write),
            ram.w_data.eq(reader.o.payload),
            ram.r_addr.eq(self.addr),
            self.data.eq(ram.r_data),
            self.came.eq(reader.o.valid),
            self.right.eq(reader.right),
            self.wrong.eq(reader.wrong),
        ]
        return m


def words_at_hand(m: Module, came: Value, go: Value, depth: int) -> Value:
    """Whether there is a word that can be read: each is counted when it came and when it is
    read."""
    missing = Signal(depth.bit_length(), init=(1 << depth.bit_length()) - 1)  # -1: none
    with m.If(came ^ go):
        m.d.sync += missing.eq(missing + Mux(go, -1, 1))
    return ~missing[-1]
