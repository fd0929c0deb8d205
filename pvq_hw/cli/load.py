"""``pvq-hw load``."""

import argparse
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Loads weights into a board while it runs."""
    from pvq_hw.flow.board import describe_output
    from pvq_hw.flow.live import layout_of, load_weights
    from pvq_hw.host.link import connect
    from pvq_hw.output.accelerator import load

    accelerator = load(args.out)
    layout_of(accelerator)
    weights = load(args.weights) if args.weights else None
    with connect(args.port, describe_output(accelerator).baud, timeout=args.timeout) as board:
        document = load_weights(accelerator, board, weights, ui)
    meanwhile = (
        "the weights before answered meanwhile"
        if document["answered_meanwhile"]
        else "no frames were taken meanwhile"
    )
    ui.say(
        f"{document['bytes']:,} bytes in {1e3 * document['seconds']:,.0f} ms: the board holds "
        f"network {document['identity']}; {meanwhile}"
    )
    return document, 0
