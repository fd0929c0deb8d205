"""Completion of the command line, where argcomplete is installed."""

import argparse
import os
from typing import Any

__all__ = ["board_names", "complete"]


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers a shell that asks how a command line may go on, and ends the process; returns at once
    where none asks, or nothing can answer."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    try:
        import argcomplete
    except ModuleNotFoundError:
        return
    argcomplete.autocomplete(parser)


def board_names(**_: Any) -> list[str]:
    """What a shell offers for a board."""
    from pvq_hw.target.boards import TARGETS

    return list(TARGETS)
