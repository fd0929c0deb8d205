"""``pvq-hw doctor``."""

import argparse
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Reports what is installed; with ``--warm-up`` compiles the tools' cache first."""
    from pvq_hw.tools import doctor
    from pvq_hw.tools import find as tools

    if args.warm_up:
        tools.warm_up(tools.TOOLS, ui.note)
    checks = doctor.doctor()
    doctor.render(checks, ui.say)
    return doctor.to_json(checks), doctor.exit_code(checks)
