"""Board files: TOML in, `Target` out, or one line that says what is wrong with it.

A board file may come from anyone. What it says reaches netlists, constraints, command lines and
pages, so every text has a pattern of its own, and no key is taken that isn't known.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pvq_hw.documents import load_toml
from pvq_hw.errors import InputError
from pvq_hw.naming import near, quoted
from pvq_hw.target.board import LoaderChoice, Pin, Target
from pvq_hw.target.devices import find_device

__all__ = ["board_from", "load_board"]

_PIN = r"[A-Z]{0,2}[0-9]{1,3}"
_NAME = r"[a-z0-9][a-z0-9_-]{0,39}"
_TITLE = r"[A-Za-z0-9][A-Za-z0-9 _.,+/()-]{0,59}"
_LINE = r"[ -~]{1,400}"
_PART = r"[a-z][a-z0-9_]{0,30}"
_RESOURCE = rf"{_PART}\.[0-9]{{1,2}}(\.{_PART})?"
_CLASS = r"[a-z0-9_]{1,40}:[A-Za-z0-9_]{1,60}"
_LOADER_NAME = r"[A-Za-z0-9][A-Za-z0-9_+-]{0,39}"
_USB = r"[0-9a-f]{4}:[0-9a-f]{4}"

_ATTRIBUTES: dict[str, dict[str, tuple[str | int, ...]]] = {
    "ice40": {
        "IO_STANDARD": ("SB_LVCMOS", "SB_LVTTL"),
        "PULLUP": (0, 1),
        "GLOBAL": (0, 1),
    },
    "ecp5": {
        "IO_TYPE": ("LVCMOS33", "LVCMOS25", "LVCMOS18", "LVCMOS15", "LVCMOS12", "LVTTL33",
                    "SSTL15_I", "SSTL135_I"),
        "PULLMODE": ("UP", "DOWN", "NONE"),
        "DRIVE": ("4", "8", "12", "16"),
        "SLEWRATE": ("SLOW", "FAST"),
        "OPENDRAIN": ("ON", "OFF"),
    },
}  # fmt: skip
_REFERENCE_MHZ = {"ice40": (10, 133), "ecp5": (8, 400)}  # of the PLLs
_MCLK_MHZ = (2.4, 4.8, 9.7, 19.4, 38.8, 62.0)
_BAUDS = 1_200, 12_000_000
_LOADERS: dict[str, tuple[str, ...]] = {  # the keys that each one needs
    "dfu-util": ("usb",),
    "fujprog": (),
    "iceprog": (),
    "icesprog": (),
    "openFPGALoader": (),
    "tinyprog": (),
}
_PINS = {  # resources unless the file says otherwise
    "clk": "clk.0",
    "rx": "uart.0.rx",
    "tx": "uart.0.tx",
    "heartbeat": "led.0",
    "busy": "led.1",
}
_FLASH = ("cs", "clk", "copi", "cipo", "wp", "hold")
_INVERTED = ("cs", "wp", "hold")


def load_board(path: Path) -> Target:
    """The board of a file of the user's; raises InputError with what is wrong, in one line."""
    values = load_toml(path, "a board file")
    return board_from(values, f"Board file {quoted(path.name)}")


def board_from(values: Mapping[str, Any], where: str = "Board") -> Target:
    """The board that the values of a board file describe.

    Its `Target.definition` holds the values, so that `board_from` makes the same board of them.

    Raises
    ------
    InputError
        In one line that begins with ``where``: a key that isn't known, a missing pin, two pins
        in one place, a device, package or speed grade that doesn't exist, a clock out of range.
    """
    try:
        board = _Reader(values).board()
        definition = json.dumps(values, sort_keys=True)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise InputError(f"{where}: {error}") from None
        # Dates and the like, which TOML has and JSON hasn't.
        raise InputError(f"{where}: values must be texts, numbers, lists and tables") from None
    return replace(board, definition=definition)


class _Reader:
    """Takes a board file's values apart; each method is told what it reads, for its messages."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = _table(values, "the file", _KEYS)

    def board(self) -> Target:
        values = self.values
        device = find_device(_text(values, "device", _TITLE))
        package = _one_of(values, "package", device.packages, f"packages of {device.name}")
        if device.speeds == ("",):
            if "speed" in values:
                raise InputError(f"{device.name} has no speed grades; leave 'speed' out")
            speed = ""
        else:
            speed = _one_of(values, "speed", device.speeds, f"speed grades of {device.name}")
        oscillator = _table(_need(values, "oscillator"), "oscillator", ("mhz", "pad"))
        family = device.family
        low, high = _REFERENCE_MHZ[family]
        self.default = self._attributes(values.get("attributes", {}), family, "attributes")
        pins = _table(_need(values, "pins"), "pins", _PINS)
        found = {key: self._pin(pins[key], f"pins.{key}", _PINS[key], family) for key in pins}
        for key in ("clk", "rx", "tx"):
            if key not in found:
                raise InputError(f"Pin {key!r} is missing: give pins.{key}")
        rest = values.get("bitstream", {})
        extra = _table(rest, "bitstream", ("compress", "mclk_mhz") if family == "ecp5" else ())
        board = Target(
            name=_text(values, "name", _NAME),
            board=_text(values, "board", _TITLE),
            device=device,
            package=package,
            speed=speed,
            crystal_mhz=_number(oscillator, "mhz", low, high, "oscillator."),
            clock_mhz=_number(values, "clock_mhz", 1, 400),
            baud=int(_number(values, "baud", *_BAUDS, whole=True)),
            link=_text(values, "link", _LINE),
            clk=found["clk"],
            rx=found["rx"],
            tx=found["tx"],
            leds=tuple((key, found[key]) for key in ("heartbeat", "busy") if key in found),
            high=self._high(family),
            flash=self._flash(family),
            pad=_flag(oscillator, "pad", "oscillator."),
            compress=_flag(extra, "compress", "bitstream."),
            mclk_mhz=self._mclk(extra),
            loaders=self._loaders(),
            amaranth=_text(values, "amaranth", _CLASS, default=""),
            source=self._source(),
            note=_text(values, "note", _LINE, default=""),
            tested=_flag(values, "tested"),
        )
        _check_places(board)
        board.check_clock(board.clock_mhz)
        return board

    def _attributes(self, value: Any, family: str, what: str) -> dict[str, str | int]:
        known = _ATTRIBUTES[family]
        table = _table(value, what, known)
        for key, setting in table.items():
            if isinstance(setting, bool):
                table[key] = setting = int(setting)
            if type(setting) not in (str, int) or setting not in known[key]:
                values = ", ".join(str(v) for v in known[key])
                raise InputError(f"{what}.{key} must be one of {values}, not {_shown(setting)}")
        return table

    def _pin(self, value: Any, what: str, resource: str, family: str, invert: bool = False) -> Pin:
        known = _ATTRIBUTES[family]
        if isinstance(value, str):
            value = {"pin": value}
        table = _table(value, what, ("pin", "resource", "invert", *known))
        own = {key: table[key] for key in table if key in known}
        attributes = self.default | self._attributes(own, family, what)
        return Pin(
            _text(table, "pin", _PIN, where=f"{what}."),
            _text(table, "resource", _RESOURCE, default=resource, where=f"{what}."),
            _flag(table, "invert", f"{what}.") if "invert" in table else invert,
            tuple(attributes.items()),
        )

    def _high(self, family: str) -> tuple[tuple[str, Pin], ...]:
        table = _table(self.values.get("high", {}), "high", None)
        for key in table:
            _matches(key, _PART, "Names in 'high'")
        return tuple(
            (key, self._pin(value, f"high.{key}", f"{key}.0", family))
            for key, value in table.items()
        )

    def _flash(self, family: str) -> tuple[tuple[str, Pin], ...]:
        if "flash" not in self.values:
            return ()
        table = _table(self.values["flash"], "flash", _FLASH)
        for key in _FLASH[:4]:
            if key not in table:
                raise InputError(f"Pin {key!r} of the flash is missing: give flash.{key}")
        return tuple(
            (key, self._pin(table[key], f"flash.{key}", f"spi_flash.0.{key}", family,
                            key in _INVERTED))
            for key in _FLASH if key in table
        )  # fmt: skip

    @staticmethod
    def _mclk(extra: Mapping[str, Any]) -> float:
        if "mclk_mhz" not in extra:
            return 0.0
        value = _number(extra, "mclk_mhz", 0, 100, "bitstream.")
        if value not in _MCLK_MHZ:
            values = ", ".join(f"{v:g}" for v in _MCLK_MHZ)
            raise InputError(f"bitstream.mclk_mhz must be one of {values}, not {value:g}")
        return value

    def _loaders(self) -> tuple[LoaderChoice, ...]:
        tables = self.values.get("loader", [])
        if not isinstance(tables, list) or len(tables) > 8:
            raise InputError("loader must be tables [[loader]], at most 8")
        return tuple(_loader(table) for table in tables)

    def _source(self) -> tuple[str, ...]:
        texts = self.values.get("source", [])
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not 1 <= len(texts) <= 8:
            raise InputError("source must be 1 to 8 texts that say where the pins are from")
        return tuple(_matches(text, _LINE, "source") for text in texts)


_KEYS = (
    "name", "board", "device", "package", "speed", "clock_mhz", "baud", "link", "tested", "note",
    "amaranth", "source", "oscillator", "attributes", "pins", "high", "flash", "bitstream",
    "loader",
)  # fmt: skip


def _loader(value: Any) -> LoaderChoice:
    table = _table(value, "loader", ("program", "board", "cable", "usb", "flash", "reset"))
    program = _one_of(table, "program", tuple(_LOADERS), "loaders", "loader.")
    for key in _LOADERS[program]:
        if key not in table:
            raise InputError(f"loader.{key} is missing: {program} needs it")
    if program == "openFPGALoader" and ("board" in table) == ("cable" in table):
        raise InputError("loader must have 'board' or 'cable' for openFPGALoader")
    text: Callable[..., str] = _text
    return LoaderChoice(
        program,
        text(table, "board", _LOADER_NAME, default="", where="loader."),
        text(table, "cable", _LOADER_NAME, default="", where="loader."),
        text(table, "usb", _USB, default="", where="loader."),
        _flag(table, "flash", "loader."),
        _flag(table, "reset", "loader."),
    )


def _check_places(board: Target) -> None:
    """No two pins in one place of the package or of the platform."""
    named = [("clk", board.clk), ("rx", board.rx), ("tx", board.tx), *board.leds, *board.high]
    named += [(f"flash.{key}", pin) for key, pin in board.flash]
    places: dict[str, str] = {}
    paths: dict[tuple[str, int, str], str] = {}
    for name, pin in named:
        other = places.setdefault(pin.name, name)
        if other != name:
            raise InputError(f"Pins {other!r} and {name!r} must differ, not both be {pin.name}")
        alike = [path for path in paths if path[:2] == pin.path[:2]]
        if pin.path in alike or (any(not path[2] for path in (*alike, pin.path)) and alike):
            raise InputError(f"Resource {pin.resource!r} of {name!r} is another pin's already")
        paths[pin.path] = name


def _table(value: Any, what: str, known: Iterable[str] | None) -> dict[str, Any]:
    """A copy of a table whose keys are all ``known``."""
    if not isinstance(value, Mapping):
        raise InputError(f"{what} must be a table, not {_shown(value)}")
    if known is not None:
        names = list(known)
        for key in value:
            if key not in names:
                rest = near(str(key), names) or (f"; known are {', '.join(names)}" if names else "")
                raise InputError(f"{what} has an unknown key {quoted(str(key))}{rest}")
    return dict(value)


def _need(table: Mapping[str, Any], key: str, where: str = "") -> Any:
    if key not in table:
        raise InputError(f"{where}{key} is missing")
    return table[key]


def _text(
    table: Mapping[str, Any], key: str, pattern: str, default: str | None = None, where: str = ""
) -> str:
    if default is not None and key not in table:
        return default
    return _matches(_need(table, key, where), pattern, where + key)


def _matches(value: Any, pattern: str, what: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise InputError(f"{what} must be text like {pattern}, not {_shown(value)}")
    return value


def _one_of(
    table: Mapping[str, Any], key: str, known: tuple[str, ...], what: str, where: str = ""
) -> str:
    value = _need(table, key, where)
    if value not in known:
        raise InputError(
            f"{where}{key} must be one of the {what}: {', '.join(known)}; not {_shown(value)}"
        )
    return str(value)


def _number(
    table: Mapping[str, Any], key: str, low: float, high: float, where: str = "",
    whole: bool = False,
) -> float:  # fmt: skip
    value = _need(table, key, where)
    good = isinstance(value, int) or (isinstance(value, float) and not whole)
    if isinstance(value, bool) or not good or not low <= value <= high or math.isnan(value):
        kind = "an integer" if whole else "a number"
        raise InputError(
            f"{where}{key} must be {kind} from {low:,} to {high:,}, not {_shown(value)}"
        )
    return float(value)


def _flag(table: Mapping[str, Any], key: str, where: str = "") -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise InputError(f"{where}{key} must be true or false, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """At most 60 characters of a value, in ASCII; Python writes out no endless integer."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length():,} bits"
    try:
        return f"{value!a:.60}"
    except (ValueError, RecursionError):
        return "a value too long to show"
