"""``pvq-hw simulate``."""

import argparse
from typing import Any

from pvq_hw.cli.scores import tell_scores
from pvq_hw.cli.ui import Ui

__all__ = ["describe", "run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Simulates frames of a data file; exit status 1 for mismatches."""
    from pvq_hw.data.dataset import load_data
    from pvq_hw.evaluate.accuracy import check_data
    from pvq_hw.output.accelerator import load

    accelerator = load(args.out)
    data = load_data(args.data, accelerator.input_scale, accelerator.network.inputs)
    network = accelerator.network
    network = network if args.output is None else network.for_output(args.output)
    check_data(network, data, str(args.data), metric=args.metric)
    data = data.head(args.count)
    check_data(network, data, str(args.data), metric=args.metric)
    document = accelerator.simulate(
        data.x,
        simulator=args.simulator,
        stalls=args.stalls,
        seed=args.seed,
        steps=ui,
        labels=data.y,
        metric=args.metric,
        scenarios=args.scenarios,
        output=args.output,
    )
    describe(document, ui)
    return document, 1 if document["mismatches"] else 0


def describe(document: dict[str, Any], ui: Ui) -> None:
    """The figures of a simulation for people."""
    ui.say(
        f"\n{document['simulator']}: {document['mismatches']} mismatches in "
        f"{document['outputs_compared']:,} outputs of all layers, {document['frames']} frames"
    )
    if document.get("first_mismatch"):
        ui.say(f"  first                 {document['first_mismatch']}")
    if document.get("interval_cycles") is not None:
        batch = document["frames_side_by_side"]
        unit = "frames" if batch == 1 else f"batches of {batch} frames"
        ui.say(
            f"  cycles                {document['interval_cycles']:,} between {unit}, "
            f"{document['latency_cycles']:,} latency, as planned"
        )
    if "scenarios" in document:
        frames = sum(each["frames"] for each in document["scenarios"])
        ui.say(f"  scenarios             {len(document['scenarios'])}, {frames:,} frames")
    if "accuracy" in document:
        tell_scores(ui, document["accuracy"], {"simulated": "simulated"})
