"""``pvq-hw load``."""

import argparse
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Loads weights into a board while it runs, or packs them into a file."""
    from pvq_hw.errors import InputError
    from pvq_hw.flow.board import describe_output, port_of
    from pvq_hw.flow.live import LiveWeights, load_weights
    from pvq_hw.host.link import connect
    from pvq_hw.output.accelerator import load

    accelerator = load(args.out)
    weights = LiveWeights.of(accelerator)
    if args.weights:
        given = args.weights
        if given.is_dir():
            weights = LiveWeights.of(load(given))
        else:
            weights = LiveWeights.read(given, accelerator)
    if args.pack:
        size = weights.save(args.pack)
        ui.say(f"{args.pack} is written: {size:,} bytes for {weights.layout.size:,} in the board")
        if args.port is None:
            return {"file": str(args.pack), "file_bytes": size}, 0
    if args.port is None:
        raise InputError("A board must be given by --port, or a file by --pack")
    port, rate = port_of(accelerator, args.port), describe_output(accelerator).baud
    with connect(port, rate, timeout=args.timeout) as board:
        document = load_weights(accelerator, board, weights, ui, keep=args.keep)
    meanwhile = (
        "the weights before answered meanwhile"
        if document["answered_meanwhile"]
        else "no frames were taken meanwhile"
    )
    ui.say(
        f"{document['bytes']:,} bytes in {1e3 * document['seconds']:,.0f} ms: the board holds "
        f"network {document['identity']}; {meanwhile}; a reset brings network "
        f"{document['after_reset']}"
    )
    return document, 0
