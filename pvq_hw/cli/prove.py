"""``pvq-hw prove``."""

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["run", "tell_proof"]

_STATES = {
    "proven": "proven for all inputs",
    "shown": "shown on frames",
    "open": "not proven",
    "wrong": "WRONG",
}


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Proves an output; exit status 1 where something is wrong."""
    from pvq_hw.output.accelerator import load
    from pvq_hw.output.proof_record import proof_lines

    document = load(args.out).prove(steps=ui, fresh=args.fresh)
    ui.say()
    tell_proof(proof_lines(document["parts"]), ui)
    counts = Counter(part["state"] for part in document["parts"])
    ui.say(f"{args.out}/proof.json: " + ", ".join(
        f"{counts[state]} {words}" for state, words in _STATES.items() if counts[state]
    ))  # fmt: skip
    return document, 1 if counts["wrong"] else 0


def tell_proof(lines: Sequence[tuple[str, str]], ui: Ui) -> None:
    """The parts of a proof for people; see `pvq_hw.output.proof_record.proof_lines`."""
    for state, text in lines:
        ui.say(f"  {_STATES[state]}: {text}")
