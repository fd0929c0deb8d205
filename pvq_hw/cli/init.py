"""``pvq-hw init``."""

import argparse
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Writes a project for continuous integration."""
    from pvq_hw.flow.project import Project, make_project

    files = make_project(
        args.folder,
        Project(
            model=args.model,
            train=args.train,
            test=args.test,
            target=args.target or "icebreaker",
            ratio=args.ratio,
            input_scale=args.input_scale or 1.0,
            min_accuracy=args.min_accuracy,
        ),
    )
    ui.say(f"{args.folder} holds {', '.join(files)}; next: make -C {args.folder} check")
    return {"folder": str(args.folder), "files": files}, 0
