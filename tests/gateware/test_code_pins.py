"""The flash's pins on the board that loads codes, and that no other board has them."""

import re

from amaranth.hdl import Fragment
from loaded import Loaded
from stand_in import small_top

from gateware.accelerator.accelerator import Accelerator
from gateware.board.boards import make_board_top, make_platform
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


def test_only_boards_with_spram_have_a_flash():
    assert all(target.device.sprams for target in TARGETS.values() if target.flash)
    top = small_top()
    assert "flash" not in top.signature.members
    Fragment.get(top, None)
