"""The flash's pins on the board that loads codes, and that no other board has them."""

import re

from amaranth.hdl import Fragment
from loaded import Loaded
from stand_in import small_top
from test_streamed_codes import Small

from gateware.accelerator.accelerator import Accelerator
from gateware.board.boards import make_board_top, make_platform
from pvq_hw.arith.formats import IntFormat
from pvq_hw.host.protocol import WireFormat

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


def test_codes_for_every_frame_come_over_the_pins_of_a_board_without_spram():
    small = Small()
    wires = WireFormat(7, IntFormat(8, False)), WireFormat(3, IntFormat(8, True))
    accelerator = Accelerator(small.graph, [small.image], body="ice40")
    top = make_board_top(accelerator, "hx8k", 72.0, None, *wires, bytes(8), 0x12345678)
    plan = make_platform("hx8k").prepare(top, "top", emit_src=False)
    pins = dict(re.findall(r"set_io spi_flash_1x_0__(\w+?)__io (\w+)", plan.files["top.pcf"]))
    # iCE40HX-8K Breakout Board's schematic: the configuration's flash.
    assert pins == {"cs": "R12", "clk": "R11", "copi": "P12", "cipo": "P11"}
