"""``pvq-hw selftest``."""

import argparse
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Tests a board; exit status 1 where it doesn't answer as computed."""
    from pvq_hw.flow.selftest import selftest
    from pvq_hw.output.accelerator import load

    document = selftest(
        load(args.out),
        args.port,
        frames=args.frames,
        timeout=args.timeout,
        bundle=args.bundle,
        steps=ui,
    )
    ui.say(f"{'Passed' if document['ok'] else 'Failed'}: {document['verdict']}")
    if args.bundle:
        ui.say(f"{args.bundle} is written")
    return document, 0 if document["ok"] else 1
