"""Reads a board's SPI flash: bytes once, or words over and over."""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from pvq_hw.engine.code_stream import FLASH_BITS, READ_COMMANDS, command_clocks

__all__ = ["FLASH_PINS", "WAKE_SECONDS", "FlashReader", "FlashStream", "flash_pins"]

WAKE_SECONDS = 50e-6  # tRES1 is 3 us of a W25Q128JV and 30 us of the slowest
_WAKE, _READ = 0xAB, READ_COMMANDS[1]
_CRC32_POLYNOMIAL = 0xEDB88320  # reflected


def flash_pins(bits: int = 1) -> wiring.Signature:
    """SPI in mode 0, seen from the FPGA, for ``bits`` a clock: 1, 2 or 4.

    Of more than one, ``cipo`` has the levels of all pins that bring data, IO0 (``copi``) lowest,
    IO1 (else ``cipo`` alone), IO2 (WP) and IO3 (HOLD); ``copi_oe`` says that the FPGA drives all of
    these but IO1, the last two high. It is low while the flash gives data.
    """
    members = {"cs_n": Out(1, init=1), "clk": Out(1), "copi": Out(1), "cipo": In(bits)}
    return wiring.Signature(members | ({"copi_oe": Out(1, init=1)} if bits > 1 else {}))


FLASH_PINS = flash_pins()
"""`flash_pins` of one bit a clock."""


class FlashReader(wiring.Component):
    """Wakes the flash up, which configuration leaves in deep power-down, and reads on and on.

    The SPI clock is a quarter of the circuit's. Data are sampled when the clock falls, almost a
    whole SPI clock after they were asked for. A byte takes 32 cycles; nothing can stall it.

    Parameters
    ----------
    offset : int
        Address of the first byte.
    wake_clocks : int
        Pause before and after the flash is woken up, cycles (the next power of two).

    Members
    -------
    start, stop : In(1)
        Strobes: read from ``offset`` on, from the beginning if it reads already; end it.
    o : Out(stream of 8 bits), always ready
    pins : Out(`FLASH_PINS`)
        From registers.
    """

    def __init__(self, offset: int, wake_clocks: int) -> None:
        if not 0 <= offset < 1 << 24:
            raise ValueError(f"Flash offset must have 24 bits, not {offset:#x}")
        self._commands = _WAKE << 24, _READ << 24 | offset
        self._pause_bits = max(4, (wake_clocks - 1).bit_length())
        super().__init__(
            {
                "start": In(1),
                "stop": In(1),
                "o": Out(stream.Signature(8, always_ready=True)),
                "pins": Out(FLASH_PINS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        # Pause, wake, pause, command, then data: one flip-flop each.
        before, wake, after, command, read = (Signal() for _ in range(5))
        pause = Signal(self._pause_bits + 1)
        phase, count, first = Signal(2), Signal(5), Signal()
        turn, shifts = Signal(), Signal()
        over = pause[-1]
        woken, asked = Signal(), Signal()
        texts = [Array(Const(text, 32)[31 - i] for i in range(32)) for text in self._commands]
        cipo, byte = Signal(), Signal(8)
        shifts = phase == 1
        m.d.comb += [
            turn.eq(phase == 0),
            woken.eq(wake & shifts & count[3]),
            asked.eq(command & shifts & count.all()),
            self.o.payload.eq(byte),
        ]
        m.d.sync += [
            self.pins.clk.eq(phase[1] & (wake | command | read)),
            self.pins.cs_n.eq(~(wake | command | read)),
            cipo.eq(self.pins.cipo),
            self.o.valid.eq(read & shifts & (count[:3] == 0) & ~first),
        ]
        with m.If(self.start | self.stop):
            m.d.sync += [s.eq(0) for s in (wake, after, command, read)]
            m.d.sync += before.eq(self.start)
        with m.Else():
            m.d.sync += [
                before.eq(before & ~over),
                wake.eq((before & over) | (wake & ~woken)),
                after.eq(woken | (after & ~over)),
                command.eq((after & over) | (command & ~asked)),
                read.eq(asked | read),
            ]
        with m.If((before | after) & ~over):
            m.d.sync += pause.eq(pause + 1)
        with m.Else():
            m.d.sync += pause.eq(0)
        with m.If(wake | command | read):
            m.d.sync += phase.eq(phase + 1)
        with m.Else():
            m.d.sync += [phase.eq(0), count.eq(0)]
        with m.If(turn):
            m.d.sync += self.pins.copi.eq((wake & texts[0][count]) | (command & texts[1][count]))
        with m.If(shifts):
            m.d.sync += [count.eq(count + 1), byte.eq(Cat(cipo, byte[:-1])), first.eq(~read)]
        return m


class FlashStream(wiring.Component):
    """Reads the same words out of the flash over and over, each time with one command.

    The SPI clock is half of the circuit's and stands still while there is no room for a word. The
    first pass is checked: its CRC-32 must be the right one before words are given; it is repeated
    until it is. All further passes are checked too, and after one that is wrong ``right`` stays low
    until a reset. See `pvq_hw.engine.code_stream` for the order of bits and for what cycle a word
    comes in.

    Parameters
    ----------
    offset : int
        Address of the first byte.
    width, words : int
        Bits of a word, and words of a pass.
    crc : int
        Of all words, see `pvq_hw.engine.code_stream.stream_crc`.
    wake_clocks : int
        Pause before and after the flash is woken up, cycles (the next power of two).
    bits : int
        That the flash gives a clock: 1, 2 or 4. Before a word that isn't a multiple of them it
        gives zeros.

    Members
    -------
    room : In(1)
        Another word may be read; ``begins``, a strobe, says that it is.
    o : Out(stream of words), always ready
        From the cycle in which it is valid on, a word stays for a cycle more.
    right, wrong : Out(1)
        What has been read was right; the last pass wasn't. Neither is high before the first.
    pins : Out(`flash_pins` of so many bits)
        From registers.
    """

    def __init__(
        self, offset: int, width: int, words: int, crc: int, wake_clocks: int, bits: int = 1
    ) -> None:
        if not 0 <= offset < 1 << 24:
            raise ValueError(f"Flash offset must have 24 bits, not {offset:#x}")
        if bits not in FLASH_BITS:
            raise ValueError(f"Bits a clock must be one of {FLASH_BITS}, not {bits}")
        self._commands = _WAKE << 24, READ_COMMANDS[bits] << 24 | offset
        self._width, self._words, self._crc, self._bits = width, words, crc, bits
        self._pause_bits = max(4, (wake_clocks - 1).bit_length())
        super().__init__(
            {
                "room": In(1),
                "begins": Out(1),
                "o": Out(stream.Signature(width, always_ready=True)),
                "right": Out(1),
                "wrong": Out(1),
                "pins": Out(flash_pins(bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        asked, given = command_clocks(self._bits), -(-self._width // self._bits)  # clocks
        # Pause, wake, pause, command, data, pause, command and so on: one flip-flop each.
        before, wake, after, command, read, gap = (
            Signal(init=int(k == 0), name=name)
            for k, name in enumerate(("before", "wake", "after", "command", "read", "gap"))
        )
        phase, count = Signal(), Signal(range(max(asked, given)))
        word, at_last = Signal(range(max(2, self._words))), Signal(init=int(self._words == 1))
        starts, at_end, selected = Signal(), Signal(), Signal()
        serving, first = Signal(), Signal()
        m.d.comb += [
            first.eq(read & serving & ~phase & (count == 0)),
            self.begins.eq(first & self.room),
            starts.eq(~phase & (wake | command | (read & ~(first & ~self.room)))),
            at_end.eq(phase & (count == Mux(read, given - 1, Mux(command, asked - 1, 7)))),
        ]
        pause = self._pause(m, before | after, gap)
        m.d.sync += [
            phase.eq(starts),
            before.eq(before & ~pause[0]),
            wake.eq((before & pause[0]) | (wake & ~at_end)),
            after.eq((wake & at_end) | (after & ~pause[0])),
            command.eq((after & pause[0]) | (gap & pause[1]) | (command & ~at_end)),
            read.eq((command & at_end) | (read & ~(at_end & at_last))),
            gap.eq((read & at_end & at_last) | (gap & ~pause[1])),
        ]
        with m.If(phase):
            m.d.sync += count.eq(Mux(at_end, 0, count + 1))
        with m.If(read & at_end):
            m.d.sync += [word.eq(Mux(at_last, 0, word + 1))]
            if self._words > 1:
                m.d.sync += at_last.eq(word == self._words - 2)
        texts = [Array(Const(text, 32)[31 - i] for i in range(32)) for text in self._commands]
        place = count[:5]
        m.d.sync += [
            selected.eq(wake | command | read),
            self.pins.cs_n.eq(~(wake | command | read | selected)),
            self.pins.clk.eq(phase),
            self.pins.copi.eq((wake & texts[0][place]) | (command & texts[1][place])),
        ]
        if self._bits > 1:
            # From the dummy byte until the flash has been released for the pause's length.
            turned = (command & count[5]) | read | gap
            m.d.sync += self.pins.copi_oe.eq(~turned)
        self._take(m, read & phase, at_end, at_last, serving)
        return m

    def _pause(self, m: Module, wakes: Value, gap: Signal) -> tuple[Value, Value]:
        """Whether the pause of waking up is over, and that between two passes."""
        pause = Signal(self._pause_bits + 1)
        with m.If((wakes & ~pause[-1]) | gap):
            m.d.sync += pause.eq(pause + 1)
        with m.Else():
            m.d.sync += pause.eq(0)
        return pause[-1], pause[:3].all()

    def _take(
        self, m: Module, bit: Value, at_end: Signal, at_last: Signal, serving: Signal
    ) -> None:
        """Bits become words, and go into the CRC. A bit is on its pin two cycles after the first
        half of its clock began, is sampled at the end of that cycle and is here in the next."""
        cipo, shifts, ends, last = Signal(self._bits), Signal(2), Signal(2), Signal(2)
        crc, value = Signal(32, init=0xFFFFFFFF), Signal(self._width)
        judged, equal = Signal(2), Signal()
        checked: Value = crc
        for level in reversed(cipo):
            checked = checked.shift_right(1) ^ Mux(checked[0] ^ level, _CRC32_POLYNOMIAL, 0)
        m.d.sync += [
            cipo.eq(self.pins.cipo),
            shifts.eq(Cat(bit, shifts)),
            ends.eq(Cat(bit & at_end, ends)),
            last.eq(Cat(bit & at_end & at_last, last)),
            self.o.valid.eq(ends[1] & serving),
            judged.eq(Cat(last[1], judged)),
            equal.eq(crc == self._crc ^ 0xFFFFFFFF),
        ]
        with m.If(shifts[1]):
            m.d.sync += [
                value.eq(Cat(cipo, value)),
                crc.eq(checked),
            ]
        with m.If(judged[1]):
            m.d.sync += [
                crc.eq(0xFFFFFFFF),
                serving.eq(serving | equal),
                self.right.eq(equal & (self.right | ~serving)),
                self.wrong.eq(~equal | (self.wrong & serving)),
            ]
        m.d.comb += self.o.payload.eq(value)
