"""``pvq-hw export``."""

import argparse
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Writes an accelerator as a core of another flow."""
    from pvq_hw.output.accelerator import load

    files = load(args.out).export(
        args.into, flow=args.flow, interface=args.interface, name=args.name
    )
    ui.say(f"{args.into} holds {len(files)} files; {args.into / 'README.txt'} says how to use them")
    return {"folder": str(args.into), "files": files}, 0
