"""``pvq-hw run``."""

import argparse
from typing import Any

from pvq_hw.cli.scores import tell_scores
from pvq_hw.cli.ui import Ui

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Sends data to a board; exit status 1 for outputs that are not the golden model's."""
    from pvq_hw.data.dataset import load_data
    from pvq_hw.evaluate.accuracy import check_data
    from pvq_hw.flow.board import run_output
    from pvq_hw.output.accelerator import load

    accelerator = load(args.out)
    data = load_data(args.data, accelerator.input_scale, accelerator.network.inputs)
    network = accelerator.network
    network = network if args.output is None else network.for_output(args.output)
    check_data(network, data, str(args.data), metric=args.metric)
    data = data.head(args.count)
    check_data(network, data, str(args.data), metric=args.metric)
    document = run_output(
        accelerator,
        args.port,
        data.x,
        timeout=args.timeout,
        labels=data.y,
        metric=args.metric,
        output=args.output,
        steps=ui,
        load=args.load,
    )
    ui.say(
        f"{document['mismatches']} mismatches in {document['outputs_compared']:,} outputs of "
        f"{document['frames']} frames, {document['frames_per_second']:,.0f} frames a second"
    )
    if "accuracy" in document:
        tell_scores(ui, document["accuracy"], {"board": "board"})
    return document, 1 if document["mismatches"] else 0
