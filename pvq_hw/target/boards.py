"""The boards that are shipped, one data file each, and those that a user brings."""

import tomllib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from pvq_hw.documents import Checked, read
from pvq_hw.errors import InputError
from pvq_hw.naming import near, quoted
from pvq_hw.target.board import LoaderChoice, Pin, Target
from pvq_hw.target.board_file import board_from, load_board

__all__ = ["TARGET", "TARGETS", "LoaderChoice", "Pin", "Target", "get_target", "target_from_json"]


def _shipped() -> dict[str, Target]:
    folder = files("pvq_hw.target") / "board_files"
    found = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name.endswith(".toml"):
            board = board_from(tomllib.loads(path.read_text(encoding="utf-8")), path.name)
            found[board.name] = replace(board, definition="")
    return found


TARGETS: dict[str, Target] = _shipped()


def get_target(name: str | Target) -> Target:
    """The shipped board of that name, or the one that a file ``NAME.toml`` describes.

    Raises InputError, with the names that are nearest, for any other name, and for a file that
    is wrong or takes a shipped board's name.
    """
    if isinstance(name, Target):
        return name
    return _own(load_board(Path(name))) if name.endswith(".toml") else _shipped_target(name)


def target_from_json(value: Any) -> Target:
    """The board that `Target.to_json` told of; raises InputError where there is none such."""
    told = read(_Told, value, "Target")
    if "definition" in told:
        return _own(board_from(told["definition"]))
    return _shipped_target(told["name"])


class _Told(TypedDict):
    """What `Target.to_json` tells; all but the name or the definition follows from these."""

    name: str
    board: NotRequired[str]
    family: NotRequired[str]
    device: NotRequired[str]
    package: NotRequired[str]
    speed: NotRequired[str]
    luts: NotRequired[int]
    ffs: NotRequired[int]
    block_rams: NotRequired[int]
    block_ram_bits: NotRequired[int]
    dsps: NotRequired[int]
    spram_bits: NotRequired[int]
    definition: NotRequired[dict[str, Any]]


TARGET = Checked("a board", target_from_json, Target.to_json, wire=dict[str, Any])
"""How documents hold a `Target`."""


def _shipped_target(name: str) -> Target:
    target = TARGETS.get(name)
    if target is None:
        hint = near(name, TARGETS) or "; `pvq-hw boards` lists them, a file NAME.toml is one too"
        raise InputError(f"Target {quoted(name)} is unknown{hint}")
    return target


def _own(board: Target) -> Target:
    if board.name in TARGETS:
        raise InputError(f"Board {board.name!r} is shipped already; give yours another name")
    return board
