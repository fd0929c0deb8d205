"""``pvq-hw verify``."""

import argparse
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Verifies an output folder; exit status 1 for findings."""
    from pvq_hw.model import load_model
    from pvq_hw.verify import verify_output

    model = load_model(args.model) if args.model else None
    with ui.step("Verify"):
        findings = verify_output(args.out, model=model)
    for finding in findings:
        ui.say(str(finding))
    if not findings:
        what = "files, codes and figures" if model else "files and codes"
        ui.say(f"{args.out}: {what} are right")
    document = {"ok": not findings, "findings": [f.to_json() for f in findings]}
    return document, 1 if findings else 0
