"""Pin and clock constraints for those who take the Verilog without Amaranth.

``python -m gateware.board.constraints FOLDER`` writes ``<board>.pcf`` (iCE40) and ``<board>.lpf``
(ECP5) for a top module with the ports ``clk``, ``rx``, ``tx``, ``heartbeat`` and ``busy``. The pins
are those of `gateware.board.boards`, out of the boards' files of amaranth-boards.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateware.board.boards import BOARDS, find_port, make_platform
from pvq_hw.target.boards import Target, get_target

__all__ = ["constraints_file", "make_constraints", "write_constraints"]


def constraints_file(target: str) -> str:
    """File name of a target's constraints."""
    return target + (".pcf" if get_target(target).family == "ice40" else ".lpf")


def make_constraints(target: str) -> str:
    """Text of a target's constraints."""
    board = get_target(target)
    lines = [f"# {board.board}: {board.device}-{board.package}"]
    lines += _pcf(board) if board.family == "ice40" else _lpf(board)
    return "\n".join(lines) + "\n"


def write_constraints(folder: Path) -> None:
    """Writes the files of all targets."""
    folder.mkdir(parents=True, exist_ok=True)
    for target in BOARDS:
        path = folder / constraints_file(target)
        path.write_text(make_constraints(target), encoding="ascii", newline="\n")


def _pins(target: Target) -> Iterator[tuple[str, Any, str]]:
    """Port name, the pin's metadata and a remark, pin by pin."""
    board, platform = BOARDS[target.name], make_platform(target.name)
    for name, path in (
        ("clk", board.clk),
        ("rx", board.rx),
        ("tx", board.tx),
        *board.leds.items(),
    ):
        port = find_port(platform, path)
        yield name, port.io.metadata[0], "low when on" if port.invert[0] else ""
    for path in board.high:
        yield "_".join(path[::2]), find_port(platform, path).io.metadata[0], "hold it high"


def _pcf(target: Target) -> Iterator[str]:
    for name, pin, remark in _pins(target):
        # Only an input has a use for the pull-up that the board file gives both UART pins.
        pull = "-pullup yes " if name == "rx" and pin.attrs.get("PULLUP") else ""
        yield f"set_io {pull}{name} {pin.name}" + (f"  # {remark}" if remark else "")
    yield f"set_frequency clk {target.crystal_mhz:g}"


def _lpf(target: Target) -> Iterator[str]:
    yield "BLOCK ASYNCPATHS;"
    yield "BLOCK RESETPATHS;"
    for name, pin, remark in _pins(target):
        if remark:
            yield f"# {name}: {remark}"
        yield f'LOCATE COMP "{name}" SITE "{pin.name}";'
        attributes = " ".join(f"{key}={value}" for key, value in sorted(pin.attrs.items()))
        yield f'IOBUF PORT "{name}" {attributes};'
    yield f'FREQUENCY PORT "clk" {target.crystal_mhz:g} MHZ;'


if __name__ == "__main__":
    write_constraints(Path(sys.argv[1]))
