"""Board files: TOML in, `Target` out, or one line that says what is wrong with it.

A board file may come from anyone. What it says reaches netlists, constraints, command lines and
pages, so every text has a pattern of its own, and no key is taken that isn't known.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from pvq_hw.documents import (
    Place,
    integer_range,
    load_toml,
    number_range,
    one_of,
    read,
    text_like,
    unknown_key,
)
from pvq_hw.errors import InputError
from pvq_hw.naming import quoted
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
    "reset": "button.0",
}
_MOST_TEXTS = 8
_MOST_DECISION = 16
_FLASH = ("cs", "clk", "copi", "cipo", "wp", "hold")
_INVERTED = ("cs", "wp", "hold")
_SPI = ("cs", "clk", "copi", "cipo")


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
    reader = _Reader(values, Place(where))
    try:
        board = reader.board()
    except InputError as error:
        if str(error).startswith(where):
            raise
        raise InputError(f"{where}: {error}") from None
    return replace(board, definition=json.dumps(values, sort_keys=True))


Name = Annotated[str, text_like(_NAME)]
Title = Annotated[str, text_like(_TITLE)]
Line = Annotated[str, text_like(_LINE)]
LoaderName = Annotated[str, text_like(_LOADER_NAME)]
Value = str | dict[str, Any]  # of a pin: its place, or a table


class _Oscillator(TypedDict):
    mhz: float
    pad: NotRequired[bool]


class _Pins(TypedDict):
    clk: NotRequired[Value]
    rx: NotRequired[Value]
    tx: NotRequired[Value]
    heartbeat: NotRequired[Value]
    busy: NotRequired[Value]
    reset: NotRequired[Value]


class _Pin(TypedDict):
    pin: Annotated[str, text_like(_PIN)]
    resource: NotRequired[Annotated[str, text_like(_RESOURCE)]]
    invert: NotRequired[bool]


class _Flash(TypedDict):
    cs: NotRequired[Value]
    clk: NotRequired[Value]
    copi: NotRequired[Value]
    cipo: NotRequired[Value]
    wp: NotRequired[Value]
    hold: NotRequired[Value]


class _Spi(TypedDict):
    link: Line
    cs: Value
    clk: Value
    copi: Value
    cipo: Value


class _Loader(TypedDict):
    program: Annotated[str, one_of(*_LOADERS)]
    board: NotRequired[LoaderName]
    cable: NotRequired[LoaderName]
    usb: NotRequired[Annotated[str, text_like(_USB)]]
    flash: NotRequired[bool]
    reset: NotRequired[bool]


class _Bitstream(TypedDict):
    compress: NotRequired[bool]
    mclk_mhz: NotRequired[float]


class _NoBitstream(TypedDict):
    """iCE40 bitstreams have no choices."""


class _File(TypedDict):
    """A board file."""

    name: Name
    board: Title
    device: Title
    package: str
    speed: NotRequired[str]
    clock_mhz: Annotated[float, number_range(1, 400)]
    baud: Annotated[int, integer_range(*_BAUDS)]
    link: Line
    tested: NotRequired[bool]
    note: NotRequired[Line]
    amaranth: NotRequired[Annotated[str, text_like(_CLASS)]]
    source: str | list[Line]
    oscillator: _Oscillator
    attributes: NotRequired[dict[str, Any]]
    pins: _Pins
    decision: NotRequired[dict[str, Value]]
    high: NotRequired[dict[str, Value]]
    flash: NotRequired[_Flash]
    spi: NotRequired[_Spi]
    bitstream: NotRequired[dict[str, Any]]
    loader: NotRequired[list[_Loader]]


class _Reader:
    """Takes a board file's values apart; each method is told what it reads, for its messages."""

    def __init__(self, values: Mapping[str, Any], place: Place) -> None:
        self.place = place
        self.values: dict[str, Any] = read(_File, values, place)

    def board(self) -> Target:
        values, place = self.values, self.place
        device = find_device(values["device"])
        self._among("package", device.packages, f"packages of {device.name}")
        if device.speeds == ("",):
            if "speed" in values:
                raise InputError(f"{device.name} has no speed grades; leave 'speed' out")
        else:
            self._among("speed", device.speeds, f"speed grades of {device.name}")
        oscillator = values["oscillator"]
        self.known = dict(device.architecture.pin_attributes)
        crystal = Annotated[float, number_range(*device.architecture.reference_mhz)]
        read(crystal, oscillator["mhz"], place.key("oscillator").key("mhz"))
        own = values.get("attributes", {})
        self.default = self._attributes(own, place.key("attributes"))
        found = {
            key: self._pin(value, place.key("pins").key(key), _PINS[key])
            for key, value in values["pins"].items()
        }
        for key in ("clk", "rx", "tx"):
            if key not in found:
                raise InputError(f"Pin {key!r} is missing: give pins.{key}")
        extra = read(
            _Bitstream if device.architecture.bitstream_options else _NoBitstream,
            values.get("bitstream", {}),
            place.key("bitstream"),
        )
        board = Target(
            name=values["name"],
            board=values["board"],
            device=device,
            package=values["package"],
            speed=values.get("speed", ""),
            crystal_mhz=float(oscillator["mhz"]),
            clock_mhz=float(values["clock_mhz"]),
            baud=values["baud"],
            link=values["link"],
            clk=found["clk"],
            rx=found["rx"],
            tx=found["tx"],
            leds=tuple((key, found[key]) for key in ("heartbeat", "busy") if key in found),
            decision=self._decision(),
            high=self._high(),
            flash=self._flash(),
            spi=self._spi(),
            spi_link=values.get("spi", {}).get("link", ""),
            reset=found.get("reset"),
            pad=oscillator.get("pad", False),
            compress=extra.get("compress", False),
            mclk_mhz=self._mclk(extra),
            loaders=self._loaders(),
            amaranth=values.get("amaranth", ""),
            source=self._source(),
            note=values.get("note", ""),
            tested=values.get("tested", False),
        )
        _check_places(board)
        board.check_clock(board.clock_mhz)
        return board

    def _among(self, key: str, known: tuple[str, ...], what: str) -> None:
        if key not in self.values:
            raise InputError(f"{self.place.key(key)} is missing")
        if self.values[key] not in known:
            rule = f"one of the {what} ({', '.join(known)})"
            raise self.place.key(key).wrong(rule, self.values[key])

    def _attributes(self, table: Mapping[str, Any], place: Place) -> dict[str, str | int]:
        known, found = self.known, {}
        for key, setting in table.items():
            if key not in known:
                raise unknown_key(place, key, known)
            found[key] = int(setting) if isinstance(setting, bool) else setting
            if type(setting) not in (str, int, bool) or found[key] not in known[key]:
                raise place.key(key).wrong(f"one of {', '.join(map(str, known[key]))}", setting)
        return found

    def _pin(self, value: Any, place: Place, resource: str, invert: bool = False) -> Pin:
        known = self.known
        table = {"pin": value} if isinstance(value, str) else value
        own = {key: table[key] for key in table if key in known}
        told = read(_Pin, {key: table[key] for key in table if key not in own}, place)
        return Pin(
            told["pin"],
            told.get("resource", resource),
            told.get("invert", invert),
            tuple((self.default | self._attributes(own, place)).items()),
        )

    def _decision(self) -> tuple[tuple[str, Pin], ...]:
        table, place = self.values.get("decision", {}), self.place.key("decision")
        names = [str(k) for k in range(len(table))]
        if len(table) > _MOST_DECISION or set(table) != set(names):
            raise InputError(
                f"Pins of the decision must be 0, 1, 2 and so on, at most {_MOST_DECISION}"
            )
        return tuple((k, self._pin(table[k], place.key(k), f"decision.{k}")) for k in names)

    def _high(self) -> tuple[tuple[str, Pin], ...]:
        table, place = self.values.get("high", {}), self.place.key("high")
        for key in table:
            read(Annotated[str, text_like(_PART)], key, "Names in 'high'")
        return tuple((key, self._pin(v, place.key(key), f"{key}.0")) for key, v in table.items())

    def _flash(self) -> tuple[tuple[str, Pin], ...]:
        if "flash" not in self.values:
            return ()
        table, place = self.values["flash"], self.place.key("flash")
        for key in _FLASH[:4]:
            if key not in table:
                raise InputError(f"Pin {key!r} of the flash is missing: give flash.{key}")
        return tuple(
            (key, self._pin(table[key], place.key(key), f"spi_flash.0.{key}", key in _INVERTED))
            for key in _FLASH if key in table
        )  # fmt: skip

    def _spi(self) -> tuple[tuple[str, Pin], ...]:
        if "spi" not in self.values:
            return ()
        table, place = self.values["spi"], self.place.key("spi")
        return tuple(
            (key, self._pin(table[key], place.key(key), f"spi.0.{key}", key in _INVERTED))
            for key in _SPI
        )

    def _mclk(self, extra: Mapping[str, Any]) -> float:
        value = extra.get("mclk_mhz", 0.0)
        if "mclk_mhz" in extra and value not in _MCLK_MHZ:
            place = self.place.key("bitstream").key("mclk_mhz")
            raise place.wrong(f"one of {', '.join(f'{v:g}' for v in _MCLK_MHZ)}", value)
        return float(value)

    def _loaders(self) -> tuple[LoaderChoice, ...]:
        tables = self.values.get("loader", [])
        if len(tables) > _MOST_TEXTS:
            raise InputError(f"loader must be tables [[loader]], at most {_MOST_TEXTS}")
        return tuple(_loader(table) for table in tables)

    def _source(self) -> tuple[str, ...]:
        texts = self.values["source"]
        texts = [texts] if isinstance(texts, str) else texts
        if not 1 <= len(texts) <= _MOST_TEXTS:
            raise InputError(f"source must be 1 to {_MOST_TEXTS} texts: where the pins are from")
        return tuple(read(list[Line], texts, self.place.key("source")))


def _loader(table: dict[str, Any]) -> LoaderChoice:
    program = table["program"]
    for key in _LOADERS[program]:
        if key not in table:
            raise InputError(f"loader.{key} is missing: {program} needs it")
    if program == "openFPGALoader" and ("board" in table) == ("cable" in table):
        raise InputError("loader must have 'board' or 'cable' for openFPGALoader")
    return LoaderChoice(**table)


def _check_places(board: Target) -> None:
    """No two pins in one place of the package or of the platform."""
    named = [("clk", board.clk), ("rx", board.rx), ("tx", board.tx), *board.leds, *board.high]
    named += [(f"flash.{key}", pin) for key, pin in board.flash]
    named += [(f"decision.{key}", pin) for key, pin in board.decision]
    named += [(f"spi.{key}", pin) for key, pin in board.spi]
    named += [("reset", board.reset)] if board.reset is not None else []
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
