"""Board files of a user's: what they may say, and the line that says what is wrong."""

import json
import re
from datetime import date

import pytest
import tomli_w

from gateware.board.boards import make_platform
from gateware.board.constraints import make_constraints
from pvq_hw.errors import InputError
from pvq_hw.host.programmer import find_loader, make_loader
from pvq_hw.target.board_file import board_from
from pvq_hw.target.boards import TARGETS, get_target, target_from_json

TOY = {
    "name": "toy",
    "board": "Toy board",
    "device": "iCE40HX4K",
    "package": "TQ144",
    "clock_mhz": 48.0,
    "baud": 1_000_000,
    "link": "pins 87 and 88",
    "source": "a drawing of the toy",
    "oscillator": {"mhz": 12.0},
    "attributes": {"IO_STANDARD": "SB_LVCMOS"},
    "pins": {"clk": "21", "rx": {"pin": "87", "PULLUP": True}, "tx": "88"},
}
ECP5 = TOY | {
    "device": "LFE5U-45F",
    "package": "BG256",
    "speed": "7",
    "attributes": {"IO_TYPE": "LVCMOS33"},
    "pins": {"clk": "P6", "rx": "A9", "tx": {"pin": "B9", "PULLMODE": "UP"}},
}


def edited(base, *path, value=None):
    """A copy in which one value is another, or is gone."""
    values = json.loads(json.dumps(base))
    *folders, key = path
    table = values
    for folder in folders:
        table = table.setdefault(folder, {})
    if value is None:
        del table[key]
    else:
        table[key] = value
    return values


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "toy.toml"
    path.write_text(tomli_w.dumps(TOY))
    return path


def test_a_file_is_a_target(file):
    board = get_target(str(file))
    assert (board.name, board.device.name, board.package, board.speed) == (
        "toy", "iCE40HX4K", "TQ144", "",
    )  # fmt: skip
    assert (board.rx.name, board.rx.attributes) == (
        "87", (("IO_STANDARD", "SB_LVCMOS"), ("PULLUP", 1)),
    )  # fmt: skip
    assert (board.tested, board.leds, board.flash, board.loaders) == (False, (), (), ())
    assert make_constraints(board) == (
        "# Toy board: iCE40HX4K-TQ144\n"
        "# nextpnr-ice40 --hx8k --package tq144:4k\n"
        "set_io clk 21\n"
        "set_io -pullup yes rx 87\n"
        "set_io tx 88\n"
        "set_frequency clk 12\n"
    )
    assert make_platform(board).device == "iCE40HX4K"


def test_pins_of_an_ecp5_have_their_attributes_or_none():
    lines = make_constraints(board_from(ECP5)).splitlines()
    assert lines[1] == "# nextpnr-ecp5 --45k --package CABGA256 --speed 7"
    assert 'IOBUF PORT "tx" IO_TYPE=LVCMOS33 PULLMODE=UP;' in lines
    plain = ECP5 | {"pins": {"clk": "P6", "rx": "A9", "tx": "B9"}, "attributes": {}}
    assert make_constraints(board_from(plain)).splitlines()[2:] == [
        "BLOCK ASYNCPATHS;",
        "BLOCK RESETPATHS;",
        'LOCATE COMP "clk" SITE "P6";',
        'LOCATE COMP "rx" SITE "A9";',
        'LOCATE COMP "tx" SITE "B9";',
        'FREQUENCY PORT "clk" 12 MHZ;',
    ]


def test_a_plan_carries_the_whole_board(file):
    board = get_target(str(file))
    file.unlink()
    assert target_from_json(json.loads(json.dumps(board.to_json()))) == board
    assert "definition" not in TARGETS["hx8k"].to_json()


def test_pins_of_a_decision_are_counted_from_0():
    pins = {"1": {"pin": "4", "invert": True}, "0": "3"}
    board = board_from(TOY | {"decision": pins})
    assert [(k, p.name, p.invert, p.resource) for k, p in board.decision] == [
        ("0", "3", False, "decision.0"), ("1", "4", True, "decision.1"),
    ]  # fmt: skip
    for wrong in ({"0": "3", "2": "4"}, {"a": "3"}, {str(k): str(k) for k in range(17)}):
        with pytest.raises(InputError, match="Pins of the decision must be 0, 1, 2 and so on"):
            board_from(TOY | {"decision": wrong})
    with pytest.raises(InputError, match=r"'rx' and 'decision\.0' must differ, not both be 87"):
        board_from(TOY | {"decision": {"0": "87"}})


def test_shipped_boards_are_read_by_the_same_rules():
    with pytest.raises(InputError, match="Board 'hx8k' is shipped already; give yours another"):
        target_from_json({"name": "hx8k", "definition": TOY | {"name": "hx8k"}})
    with pytest.raises(InputError, match=r"Target '.*toy.toml' is unknown"):
        target_from_json({"name": "/tmp/toy.toml"})  # a plan opens no file


def test_loaders_of_a_file_make_command_lines():
    tables = [
        {"program": "openFPGALoader", "cable": "ft232"},
        {"program": "dfu-util", "usb": "1209:b1c0", "flash": True, "reset": True},
        {"program": "iceprog", "flash": True},
    ]
    loaders = [make_loader(c) for c in board_from(TOY | {"loader": tables}).loaders]
    with pytest.raises(InputError, match="Board 'toy' must name a loader in its file to be progr"):
        find_loader(board_from(TOY))
    assert [(x.arguments, x.lasting, x.offset) for x in loaders] == [
        (("--cable", "ft232"), False, ()),
        (("--device", "1209:b1c0", "--alt", "0", "--reset", "--download"), True, ()),
        ((), True, ("-o",)),
    ]


WRONG = {
    "unknown key": (edited(TOY, "colour", value="red"), "has an unknown key 'colour'"),
    "near key": (edited(TOY, "pakage", value="x"), "'pakage'; did you mean package?"),
    "unknown pin": (edited(TOY, "pins", "led", value="1"), "pins has an unknown key 'led'; known"),
    "unknown setting": (edited(TOY, "pins", "tx", value={"pin": "88", "DRIVE": "4"}),
                        "pins.tx has an unknown key 'DRIVE'"),
    "device": (edited(TOY, "device", value="iCE40HX9K"), "'iCE40HX9K' is unknown; did you mean"),
    "no device": (edited(TOY, "device"), "device is missing"),
    "package": (edited(TOY, "package", value="SG48"),
                "one of the packages of iCE40HX4K (BG121, CB132, TQ144), not 'SG48'"),
    "speed of an iCE40": (edited(TOY, "speed", value="6"), "iCE40HX4K has no speed grades"),
    "no speed": (edited(ECP5, "speed"), "speed is missing"),
    "speed": (edited(ECP5, "speed", value="9"), "speed grades of LFE5U-45F (6, 7, 8), not '9'"),
    "no rx": (edited(TOY, "pins", "rx"), "Pin 'rx' is missing: give pins.rx"),
    "no pins": (edited(TOY, "pins"), "pins is missing"),
    "one place": (edited(TOY, "pins", "tx", value="87"), "'tx' must differ, not both be 87"),
    "one resource": (edited(TOY, "pins", "tx", value={"pin": "88", "resource": "uart.0.rx"}),
                     "Resource 'uart.0.rx' of 'tx' is another pin's already"),
    "whole and part": (edited(TOY, "pins", "tx", value={"pin": "88", "resource": "uart.0"}),
                       "Resource 'uart.0' of 'tx' is another pin's already"),
    "clock": (edited(TOY, "clock_mhz", value=300.0), "Clock of toy must be 12 to 275 MHz, not 300"),
    "endless clock": (edited(TOY, "clock_mhz", value=1e999), "clock_mhz must be a finite"),
    "no number": (edited(TOY, "clock_mhz", value="48"), "clock_mhz must be a number"),
    "true clock": (edited(TOY, "clock_mhz", value=True), "clock_mhz must be a number"),
    "oscillator": (edited(TOY, "oscillator", "mhz", value=200), "oscillator.mhz must be a number "
                   "from 10 to 133, not 200"),
    "baud": (edited(TOY, "baud", value=9.5e5), "baud must be an integer, not 950000.0"),
    "huge": (edited(TOY, "baud", value=10**5000), "not an integer of 16,610 bits"),
    "flash": (edited(TOY, "flash", value={"cs": "1"}), "Pin 'clk' of the flash is missing"),
    "loader": (edited(TOY, "loader", value=[{"program": "rm"}]), "loader[0].program must be"),
    "loader without usb": (edited(TOY, "loader", value=[{"program": "dfu-util"}]),
                           "loader.usb is missing: dfu-util needs it"),
    "option as a board": (
        edited(TOY, "loader", value=[{"program": "openFPGALoader", "board": "--write-flash"}]),
        "loader[0].board must be text like"),
    "mclk": (edited(ECP5, "bitstream", "mclk_mhz", value=50.0), "mclk_mhz must be one of 2.4, 4.8"),
    "no source": (edited(TOY, "source"), "source is missing"),
    "tested": (edited(TOY, "tested", value=1), "tested must be true or false, not 1"),
    "table": (edited(TOY, "pins", value=[1]), "pins must be a table, not [1]"),
}  # fmt: skip


@pytest.mark.parametrize(("values", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_in_one_line(values, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        board_from(values, "Board file 'toy.toml'")
    assert str(caught.value).startswith(("Board file 'toy.toml': ", "Board file 'toy.toml' has"))
    assert "\n" not in str(caught.value)


HOSTILE = ["$(reboot)", "a; reboot", 'x" INVALID', "a\nb", "../../etc", "`reboot`", "<b>", "", 7]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "path",
    [
        ("name",), ("board",), ("device",), ("package",), ("amaranth",), ("pins", "clk"),
        ("pins", "clk", "pin"), ("pins", "clk", "resource"), ("attributes", "IO_STANDARD"),
        ("high", "x"), ("loader", "program"),
    ],
)  # fmt: skip
def test_no_text_that_a_tool_would_read_otherwise_gets_in(path, text):
    values = TOY | {"pins": TOY["pins"] | {"clk": {"pin": "21"}}}
    if path[0] == "loader":
        values = edited(values, "loader", value=[{"program": text}])
    else:
        values = edited(values, *path, value=text)
    with pytest.raises(InputError):
        board_from(values)


def test_names_of_tables_are_checked_too():
    with pytest.raises(InputError, match="Names in 'high' must be text like"):
        board_from(edited(TOY, "high", "x; y", value="1"))
    with pytest.raises(InputError, match="unknown key 'a"):
        board_from(TOY | {"a\nb" * 100: 1})


def test_files_that_are_no_board_files(tmp_path):
    for content, message in (
        (b"\x80", "must be a TOML file"),
        (b"x" * (1 << 20) + b"y", "must be a board file of at most 1 MiB"),
        (b"a" + b".a" * 6000 + b"=1", "must be a board file with at most 5,000 dots"),
        (tomli_w.dumps(TOY | {"device": date(1979, 5, 27)}).encode(), "device must be text"),
    ):
        path = tmp_path / "bad.toml"
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            get_target(str(path))
    with pytest.raises(InputError, match="can't be read: No such file"):
        get_target(str(tmp_path / "none.toml"))
