"""``pvq-hw doctor``."""

import argparse
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Reports what is installed; with ``--warm-up`` compiles first what is compiled once."""
    from pvq_hw.tools import doctor
    from pvq_hw.tools import find as tools

    if args.warm_up:
        from pvq_hw.quantizer.warm_up import warm_up

        tools.warm_up(tools.TOOLS, ui.note)
        with ui.step("Compile the quantizer's loops"):
            warm_up()
    checks = doctor.doctor()
    doctor.render(checks, ui.say)
    return doctor.to_json(checks), doctor.exit_code(checks)
