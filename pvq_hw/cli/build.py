"""``pvq-hw build``."""

import argparse
from typing import Any

from pvq_hw.choices import LINK_WORDS, UART
from pvq_hw.cli.ui import Ui

__all__ = ["describe", "run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Builds the bitstream; exit status 1 when timing is not met."""
    from pvq_hw.errors import InputError
    from pvq_hw.output.accelerator import load

    if not 1 <= args.seeds <= 100:
        raise InputError(f"Seeds must be 1 to 100, not {args.seeds}")
    if args.seed < 0:
        raise InputError(f"The first seed must be at least 0, not {args.seed}")
    if not 1 <= args.jobs <= 64:
        raise InputError(f"Jobs must be 1 to 64, not {args.jobs}")
    accelerator = load(args.out)
    clock = _clock(args.clock)
    with ui.step("Build the bitstream"):
        document = accelerator.build(
            seeds=range(args.seed, args.seed + args.seeds),
            steps=ui,
            every_seed=args.best,
            jobs=args.jobs,
            clock=clock,
            placer=args.placer,
        )
    describe(document, ui)
    ui.say(f"\n{args.out / 'build' / document['bitstream']} is ready: pvq-hw program {args.out}")
    return document | {"out": str(args.out)}, 0


def _clock(text: str | None) -> float | str | None:
    """A number of MHz; any other text as it is."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def describe(document: dict[str, Any], ui: Ui) -> None:
    """The figures of a build for people."""
    ui.say(f"\n{document['target']}: Fmax {document['fmax_mhz']:.1f} MHz (seed {document['seed']})")
    margin = 100 * (document["fmax_mhz"] / document["clock_mhz"] - 1)
    ui.say(
        f"  clock                 {document['clock_mhz']:g} MHz, met with {margin:.0f} % to spare"
    )
    tried = document.get("clocks_tried", [])
    if len(tried) > 1:
        told = ", ".join(f"{t['clock_mhz']:.5g} {'met' if t['met'] else 'missed'}" for t in tried)
        ui.say(f"  clocks tried          {told} MHz")
    if len(document["seeds"]) > 1:
        told = ", ".join(f"{a['seed']}: {a['fmax_mhz']:.1f}" for a in document["seeds"])
        ui.say(f"  Fmax by seed          {told} MHz")
    over = LINK_WORDS[document.get("link", UART)]
    ui.say(
        f"  inferences per second {document['inferences_per_second']:,.0f} at that clock, "
        f"{document['inferences_per_second_over_link']:,.0f} over {over}"
    )
    for name, part in sorted(document["utilization"].items()):
        if part["used"] and part["available"]:
            free = part["available"] - part["used"]
            ui.say(
                f"  {name:<21} {part['used']:>6,} used, {free:>6,} free of {part['available']:,} "
                f"({100 * part['used'] / part['available']:.0f} %)"
            )
