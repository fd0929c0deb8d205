"""Builds the digits network on every board, and keeps docs/boards.md in step with the boards' data.

``python -m benchmarks.boards BOARD ...`` builds (all without names, minutes each) and writes
``results/boards.json``; ``python -m benchmarks.boards --page`` renews the tables of the page.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateware.board.constraints import constraints_file
from pvq_hw.bundled import DIGITS, DIGITS_DATA, DIGITS_RATIO
from pvq_hw.data.dataset import make_data
from pvq_hw.errors import CheckError
from pvq_hw.flow.compile import compile_model
from pvq_hw.flow.options import load_options
from pvq_hw.output.accelerator import load
from pvq_hw.target.boards import TARGETS, Target

__all__ = ["PAGE", "build_digits", "updated"]

RESULTS = Path(__file__).parent / "results" / "boards.json"
PAGE = Path(__file__).parents[1] / "docs" / "boards.md"
_LUTS = ("ICESTORM_LC", "TRELLIS_COMB")
_BRAMS = ("ICESTORM_RAM", "DP16KD")


def build_digits(target: str, out: Path) -> dict[str, Any]:
    """Compiles the bundled network for a board and builds its bitstream.

    Raises CheckError where no seed meets the board's clock.
    """
    train = make_data([DIGITS_DATA], keys=["x_train", "y_train"])
    options = load_options(None, {"target": target, "ratio": DIGITS_RATIO})
    compile_model(DIGITS, out, options, calibration=train)
    built = load(out).build()
    used = {name: row["used"] for name, row in built["utilization"].items()}
    return {
        "fmax_mhz": built["fmax_mhz"],
        "clock_mhz": built["clock_mhz"],
        "seed": built["seed"],
        "seeds_tried": len(built["seeds"]),
        "interval_cycles": built["interval_cycles"],
        "luts": next(used[name] for name in _LUTS if name in used),
        "block_rams": next(used[name] for name in _BRAMS if name in used),
    }


def build_boards(names: Sequence[str]) -> None:
    """Builds one after the other; each result is kept as soon as it is there."""
    for name in names:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            try:
                result = build_digits(name, Path(folder) / "out")
            except CheckError as error:
                result = {"error": str(error)}
        print(name, result, flush=True)
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results[name] = result
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def updated(text: str) -> str:
    """The page with its tables made anew."""
    results = json.loads(RESULTS.read_text())
    tables = {"boards": _boards(), "wiring": _wiring(), "builds": _builds(results)}
    for name, table in tables.items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = mark.subn(lambda found, t=table: f"{found[1]}{t}{found[2]}", text)
        assert count == 1, name
    return text


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def _boards() -> str:
    heads = ("`--target`", "board", "device", "LUTs", "block RAM", "SPRAM", "multipliers",
             "oscillator, clock")  # fmt: skip
    rows = []
    for board in TARGETS.values():
        d = board.device
        luts = f"{d.luts:,}" + (f" (sold as {d.sold_luts:,})" if d.sold_luts else "")
        name = f"{d.name}-{board.package}" + (f", speed {board.speed}" if board.speed else "")
        rows.append((f"`{board.name}`", board.board, name, luts, f"{d.bram_bits >> 10:,} Kibit",
                     f"{d.spram_bits >> 10:,} Kibit" if d.sprams else "none", f"{d.dsps or 'none'}",
                     f"{board.crystal_mhz:g}, {board.clock_mhz:g} MHz"))  # fmt: skip
    return _table(heads, rows)


def _wiring() -> str:
    heads = ("`--target`", "serial line", "rx, tx", "SPI (`--link spi`)", "reset", "LEDs",
             "loaders", "pins are from")  # fmt: skip
    return _table(heads, [_wires(board) for board in TARGETS.values()])


def _wires(board: Target) -> tuple[str, ...]:
    link = board.link + (f", up to {board.baud:,} baud" if board.baud < 1_000_000 else "")
    note = f"; {board.note}" if board.note else ""
    return (
        f"[`{board.name}`](../constraints/{constraints_file(board)})",
        link + note,
        f"{board.rx.name}, {board.tx.name}",
        f"{board.spi_link}: {', '.join(pin.name for _, pin in board.spi)}" if board.spi else "none",
        board.reset.name if board.reset else "none",
        ", ".join(f"{pin.name} {name}" for name, pin in board.leds) or "none",
        ", ".join(loader.program for loader in board.loaders),
        "; ".join(board.source),
    )


def _builds(results: dict[str, dict[str, Any]]) -> str:
    heads = ("`--target`", "clock", "nextpnr's Fmax", "cycles per frame", "LUTs", "block RAMs")
    rows = []
    for name in TARGETS:
        found = results.get(name)
        if found is None:
            rows.append((f"`{name}`", f"{TARGETS[name].clock_mhz:g} MHz", "not built", *3 * ("",)))
        elif "error" in found:
            rows.append((f"`{name}`", "", found["error"], "", "", ""))
        else:
            rows.append((f"`{name}`", f"{found['clock_mhz']:.4g} MHz", f"{found['fmax_mhz']:g} MHz",
                         f"{found['interval_cycles']}", f"{found['luts']:,}",
                         f"{found['block_rams']}"))  # fmt: skip
    return _table(heads, rows)


def main() -> None:
    """See the module's own words."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("boards", nargs="*")
    parser.add_argument("--page", action="store_true")
    args = parser.parse_args()
    if not args.page:
        build_boards(args.boards or list(TARGETS))
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
