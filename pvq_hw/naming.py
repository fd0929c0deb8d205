"""Names from model files, made safe to show, to write into files and to use as file names."""

import difflib
import re
from collections.abc import Iterable

from pvq_hw.reserved import RESERVED

__all__ = ["identifiers", "near", "quoted", "safe_name"]

_LENGTH = 48
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


def safe_name(text: str, used: set[str] | None = None, default: str = "node") -> str:
    """Maps any text to 1 to 48 characters of ``A-Z a-z 0-9 _ . -``, letter or digit first.

    With ``used`` the result differs from every name in it, upper and lower case taken as
    equal (file systems), and is added to it: a number is appended where needed.
    """
    base = _UNSAFE.sub("_", text[: 4 * _LENGTH]).strip("_.-")[:_LENGTH].rstrip("_.-") or default
    if used is None:
        return base
    name, number = base, 2
    while name.lower() in used:
        suffix = f"_{number}"
        name = base[: _LENGTH - len(suffix)].rstrip("_.-") + suffix
        number += 1
    used.add(name.lower())
    return name


def identifiers(texts: Iterable[str]) -> list[str]:
    """A Verilog identifier and file stem for every text, all different.

    None is in `RESERVED` (in whatever case) or has two underscores in a row, as the wires of
    streams have.
    """
    used = set(RESERVED)
    names = []
    for text in texts:
        stem = re.sub(r"[_.-]+", "_", safe_name(text, default="layer"))
        stem = stem if stem[0].isalpha() else f"layer_{stem}"
        names.append(safe_name(stem, used))
    return names


def quoted(text: str) -> str:
    """A name from a file as it may appear in a message: one line, at most 60 characters, ASCII."""
    shown = ascii(text[: 2 * _LENGTH])
    return shown if len(shown) <= 60 else shown[:56] + "..." + shown[0]


def near(text: str, names: Iterable[str]) -> str:
    """``"; did you mean A or B?"``, of the names that are nearest to ``text``; ``""`` without."""
    known = {name.lower(): name for name in names}
    found = difflib.get_close_matches(text[:_LENGTH].lower(), known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(known[name] for name in found)}?" if found else ""
