"""``pvq-hw program``."""

import argparse
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Loads the bitstream onto the board."""
    from pvq_hw.flow.board import program_output
    from pvq_hw.output.accelerator import load

    accelerator = load(args.out)
    with ui.step("Program the board"):
        loader = program_output(accelerator, ui, args.port)
    keeps = "keeps" if loader.lasting else "forgets"
    ui.say(f"{loader.name} has loaded the board, which {keeps} it without power")
    return {"loader": loader.name, "lasting": loader.lasting}, 0
