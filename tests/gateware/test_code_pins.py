"""The flash's pins on the board that loads codes, and that no other board has them."""

import re
from types import SimpleNamespace

import pytest
from amaranth.hdl import Fragment, Module
from amaranth.sim import Simulator
from loaded import Loaded
from simulated_pins import SimulatedPins
from stand_in import small_top
from test_streamed_codes import Small

from gateware.accelerator.accelerator import Accelerator
from gateware.board.boards import BoardTop, make_board_top, make_platform
from gateware.link.flash import flash_pins
from pvq_hw.arith.formats import IntFormat
from pvq_hw.host.protocol import WireFormat
from pvq_hw.target.boards import TARGETS

# iCEBreaker V1.0e schematic: the flash at the UltraPlus's configuration pins.
FLASH = {"cs": "16", "clk": "15", "copi": "14", "cipo": "17", "wp": "12", "hold": "13"}


def _pins(crc, target="icebreaker"):
    loaded = Loaded()
    accelerator = Accelerator(loaded.graph, loaded.images, body="ice40")
    top = make_board_top(
        accelerator, target, 36.0, None, loaded.input, loaded.output, bytes(8), crc
    )
    plan = make_platform(target).prepare(top, "top", emit_src=False)
    pins = re.findall(r"set_io (\S+) (\d+)", plan.files["top.pcf"])
    return {name.removeprefix("spi_flash_1x_0__").removesuffix("__io"): pin for name, pin in pins}


def test_codes_come_from_the_flash_that_holds_the_bitstream():
    pins = _pins(0x12345678)
    assert {name: pins.get(name) for name in FLASH} == FLASH


def test_a_board_whose_flash_cannot_be_read_is_built_without_it():
    assert not any("flash" in name for name in _pins(0x12345678, "upduino-v3") if name in FLASH)
    assert not {"clk", "copi", "cipo"} & _pins(0x12345678, "upduino-v3").keys()


def test_tops_whose_codes_are_in_the_bitstream_have_no_flash():
    top = small_top()
    assert "flash" not in top.signature.members
    Fragment.get(top, None)


def _streamed(board, bits, body="behavioral"):
    small = Small(flash_bits=bits)
    wires = WireFormat(7, IntFormat(8, False)), WireFormat(3, IntFormat(8, True))
    accelerator = Accelerator(small.graph, [small.image], body=body)
    return make_board_top(accelerator, board, 72.0, None, *wires, bytes(8), 0x12345678)


def test_codes_for_every_frame_come_over_the_pins_of_a_board_without_spram():
    plan = make_platform("hx8k").prepare(_streamed("hx8k", 2, "ice40"), "top", emit_src=False)
    pins = dict(re.findall(r"set_io spi_flash_1x_0__(\w+?)__io (\w+)", plan.files["top.pcf"]))
    # iCE40HX-8K Breakout Board's schematic: the configuration's flash.
    assert pins == {"cs": "R12", "clk": "R11", "copi": "P12", "cipo": "P11"}
    # The one tristate output.
    assert str(plan.files["top.il"]).count("connect \\OUTPUT_ENABLE \\oe") == 1


class Pins(BoardTop):
    """The flash's part of a board's top."""

    def __init__(self, board, bits):
        self.flash = flash_pins(bits).create()
        super().__init__(SimpleNamespace(flash=self.flash), board, 36.0)

    def elaborate(self, platform):
        m = Module()
        self._flash(m, platform)
        return m


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_data_come_from_the_pins_that_are_released(bits):
    board = TARGETS["icebreaker"]
    platform = SimulatedPins(board, [(key, pin) for key, pin in board.flash])
    pins = Pins(board, bits)
    simulator = Simulator(Fragment.get(pins, platform))
    lines = [platform.ports[name] for name in ("copi", "cipo", "wp", "hold")]

    async def testbench(ctx):
        for drives in (1, 0):
            if bits > 1:
                ctx.set(pins.flash.copi_oe, drives)
            for copi in (0, 1):
                ctx.set(pins.flash.copi, copi)
                await ctx.delay(1e-6)
                # WP and HOLD are high as long as they are driven.
                assert [ctx.get(line.o) for line in lines if line is not lines[1]] == [copi, 1, 1]
                turned = [drives if bits > 1 else 1, None, *[drives if bits == 4 else 1] * 2]
                assert [None if k == 1 else ctx.get(lines[k].oe) for k in range(4)] == turned
        for levels in range(16):
            for k in range(4) if bits == 4 else (0, 1) if bits == 2 else (1,):
                ctx.set(lines[k].i, levels >> k & 1)
            await ctx.delay(1e-6)
            seen = levels >> 1 & 1 if bits == 1 else levels & (1 << bits) - 1
            assert ctx.get(pins.flash.cipo) == seen

    simulator.add_testbench(testbench)
    simulator.run()
