"""``pvq-hw update``."""

import argparse
from functools import cache
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Gives an accelerator other weights; exit status 1 when they are less accurate than asked."""
    from pvq_hw.cli.compile import describe
    from pvq_hw.data.dataset import load_data
    from pvq_hw.flow.update import update_output
    from pvq_hw.model.load import load_model
    from pvq_hw.output.accelerator import load

    accelerator = load(args.out)
    scale = accelerator.input_scale
    inputs = cache(lambda: load_model(args.model).inputs)
    calibration = load_data(args.calibrate, scale, inputs) if args.calibrate else None
    evaluation = load_data(args.evaluate, scale, inputs) if args.evaluate else None
    document = update_output(
        accelerator,
        args.model,
        calibration=calibration,
        evaluation=evaluation,
        metric=args.metric,
        min_accuracy=args.min_accuracy,
        steps=ui,
    )
    describe(document, ui)
    bitstream = document["bitstream"]
    if bitstream is None:
        ui.say(f"\n{args.out} has the new weights; it had no bitstream: pvq-hw build {args.out}")
    else:
        ui.say(f"\n{args.out / bitstream} has the new weights: pvq-hw program {args.out}")
    return document | {"out": str(args.out), "seconds": ui.seconds}, 0
