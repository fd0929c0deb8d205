"""``pvq-hw report``."""

import argparse
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Writes the report anew, from what the other verbs have left."""
    from pvq_hw.output.accelerator import load

    document = load(args.out).report()
    ui.say(f"{args.out / 'report.json'} and {args.out / 'report.html'} are written")
    return document, 0
