"""The flash's pins on the board that loads codes, and that no other board has them."""

import re

from amaranth.hdl import Fragment
from loaded import Loaded
from stand_in import small_top

from gateware.accelerator.accelerator import Accelerator
from gateware.board.boards import BOARDS, make_board_top, make_platform
from pvq_hw.target.boards import TARGETS

# iCEBreaker V1.0e schematic: the flash at the UltraPlus's configuration pins.
FLASH = {"cs": "16", "clk": "15", "copi": "14", "cipo": "17", "wp": "12", "hold": "13"}


def _pins(crc):
    loaded = Loaded()
    accelerator = Accelerator(loaded.graph, loaded.images, body="ice40")
    top = make_board_top(
        accelerator, "icebreaker", 36.0, None, loaded.input, loaded.output, bytes(8), crc
    )
    plan = make_platform("icebreaker").prepare(top, "top", emit_src=False)
    pins = re.findall(r"set_io (\S+) (\d+)", plan.files["top.pcf"])
    return {name.removeprefix("spi_flash_1x_0__").removesuffix("__io"): pin for name, pin in pins}


def test_codes_come_from_the_flash_that_holds_the_bitstream():
    pins = _pins(0x12345678)
    assert {name: pins.get(name) for name in FLASH} == FLASH


def test_boards_with_spram_have_a_flash():
    assert {name for name, board in BOARDS.items() if board.flash} == {
        name for name, target in TARGETS.items() if target.spram_bits
    }
    top = small_top()
    assert "flash" not in top.signature.members
    Fragment.get(top, None)
