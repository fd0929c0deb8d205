"""``pvq-hw check``."""

import argparse
import itertools
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Tells which operations of a model are taken, then the estimate for each board as it comes."""
    from pvq_hw.cli.compile import layer_kinds
    from pvq_hw.flow.check import check

    layers: dict[str, dict[str, Any]] = {}
    engine = layer_kinds("engine", args.engine, layers)
    engines = {name: kinds["engine"] for name, kinds in layers.items()}
    found = check(args.model, args.target, engine=engine or "auto", engines=engines)
    for line in itertools.chain(found.operation_lines(), found.estimate_lines()):
        ui.say(line)
    if found.examination.ok and not found.ok:
        where = args.target or "any board"
        ui.say(f"It does not fit {where} at these N/K; fewer inputs, rows or layers, or a larger "
               "N/K may help")  # fmt: skip
    elif found.ok:
        ui.say("It will compile")
    return found.to_json(), 0 if found.ok else 1
