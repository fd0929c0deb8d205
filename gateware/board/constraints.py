"""Pin and clock constraints for those who take the Verilog without Amaranth.

``pvq-hw boards --constraints DIR`` writes ``<board>.pcf`` (iCE40) and ``<board>.lpf`` (ECP5) for a
top module with the ports ``clk``, ``rx``, ``tx``, ``heartbeat`` and ``busy``. The pins are those of
the boards' data files.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gateware.board.boards import board_pins, input_pins
from pvq_hw.errors import InputError
from pvq_hw.files import whole_file
from pvq_hw.registry import ValueFace
from pvq_hw.target.architectures import ARCHITECTURES
from pvq_hw.target.boards import TARGETS, Pin, Target, get_target

__all__ = ["constraints_file", "make_constraints", "pin_lines", "write_constraints"]


_Named = tuple[str, Pin, str]


def constraints_file(target: str | Target) -> str:
    """Name of the target's file."""
    board = get_target(target)
    return board.name + board.device.architecture.constraints


def make_constraints(target: str | Target, used: Sequence[tuple[str, Pin]] = ()) -> str:
    """The text of the target's file, for a top of the user's, or for the board's own with the pins
    that it has ``used`` (`gateware.board.boards.board_pins`)."""
    board = get_target(target)
    lines = [f"# {board.board}: {board.device.name}-{board.package}"]
    lines += [f"# {' '.join(board.device.nextpnr(board.package, board.speed))}"]
    named = [(name, pin, "") for name, pin in used] or list(_pins(board))
    lines += pin_lines(board.family, board, named)
    return "\n".join(lines) + "\n"


def write_constraints(folder: Path, boards: Sequence[str] = ()) -> list[Path]:
    """Writes the files of some boards, or of all that are shipped; gives their paths."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} can't be written into: {error.strerror}") from None
    written = []
    for target in [get_target(name) for name in boards] or TARGETS.values():
        path = folder / constraints_file(target)
        with whole_file(path) as new:
            new.write_text(make_constraints(target), encoding="ascii", newline="\n")
        written.append(path)
    return written


def _pins(board: Target) -> Iterator[_Named]:
    """Port, pin and remark."""
    high = {id(pin) for _, pin in board.high}
    for name, pin in board_pins(board):
        if pin is not board.reset:
            held = "hold it high" if id(pin) in high else ""
            yield name, pin, held or ("low when on" if pin.invert else "")


pin_lines: ValueFace[[Target, Iterable[_Named]], Iterable[str]] = ARCHITECTURES.face("constraints")
"""The lines of a board's pins and clock, as the architecture's tools read them."""


@pin_lines.of("ice40")
def _pcf(family: str, board: Target, pins: Iterable[_Named]) -> Iterator[str]:
    inputs = input_pins(board)
    for name, pin, remark in pins:
        # Only an input has a use for the pull-up that a board file may give both UART pins.
        pulled = id(pin) in inputs and dict(pin.attributes).get("PULLUP")
        pull = "-pullup yes " if pulled else ""
        yield f"set_io {pull}{name} {pin.name}" + (f"  # {remark}" if remark else "")
    yield f"set_frequency clk {board.crystal_mhz:g}"


@pin_lines.of("ecp5")
def _lpf(family: str, board: Target, pins: Iterable[_Named]) -> Iterator[str]:
    yield "BLOCK ASYNCPATHS;"
    yield "BLOCK RESETPATHS;"
    for name, pin, remark in pins:
        if remark:
            yield f"# {name}: {remark}"
        yield f'LOCATE COMP "{name}" SITE "{pin.name}";'
        attributes = " ".join(f"{key}={value}" for key, value in sorted(pin.attributes))
        if attributes:
            yield f'IOBUF PORT "{name}" {attributes};'
    yield f'FREQUENCY PORT "clk" {board.crystal_mhz:g} MHZ;'
