"""``pvq-hw boards``."""

import argparse
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["run"]

_HEADS = ("board", "device", "LUTs", "block RAM", "SPRAM", "DSP", "MHz", "link")
_NETWORK = ("cycles", "frames/s", "over link", "uses")


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Lists boards and what the planner expects of a network on each; writes pin files."""
    from pvq_hw.flow.boards import board_table, write_pin_files

    document = board_table(args.boards, model=args.model, ratio=args.ratio)
    if args.constraints is not None:
        written = write_pin_files(args.constraints, args.boards)
        document["constraints"] = [str(path) for path in written]
    rows = [(*_HEADS, *_NETWORK), *(_cells(row) for row in document["boards"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADS) + len(_NETWORK))]
    for row in rows:
        cells = zip(row, widths, range(len(row)), strict=True)
        text = (c.rjust(w) if 2 <= i < 7 or i in (8, 9, 10) else c.ljust(w) for c, w, i in cells)
        ui.say("  ".join(text).rstrip())
    ui.say(
        f"\nLUTs with a + are more than the device is sold with. cycles to uses: "
        f"{document['model']} at N/K {document['ratio']:g}, by the planner, before quantization."
    )
    if not any(row["tested"] for row in document["boards"]):
        ui.say("No bitstream of this project has run on a real one of these boards yet.")
    if args.constraints is not None:
        ui.say(f"{len(written)} pin files are in {args.constraints}")
    return document, 0


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    network = row["network"]
    more = "+" if row["sold_luts"] < row["luts"] else ""
    cells = (
        row["name"],
        row["device"],
        f"{row['luts']:,}{more}",
        f"{row['block_ram_bits'] >> 10:,} Kibit",
        f"{row['spram_bits'] >> 10:,} Kibit" if row["sprams"] else "-",
        str(row["dsps"] or "-"),
        f"{row['clock_mhz']:g}",
        "USB" if row["link"].startswith("USB") else "wires",
    )
    if not network["fits"]:
        return (*cells, "-", "-", "-", "does not fit")
    return (
        *cells,
        f"{network['interval_cycles']:,}",
        f"{network['inferences_per_second']:,.0f}",
        f"{network['inferences_per_second_over_link']:,.0f}",
        f"{100 * network['luts'] / row['luts']:.0f} % LUTs",
    )
