"""Names: those of model files, made safe to show and to write, and all that are generated.

Whatever is called by a text from outside, or made beside it, gets its name from a `Names`: the
nodes and tensors of a model, the units of a graph with their memories and files, the identifiers of
exported Verilog.
"""

import difflib
import re
from collections.abc import Iterable

from pvq_hw.errors import InputError
from pvq_hw.reserved import LANGUAGE, RESERVED

__all__ = ["Names", "check_module_name", "identifiers", "near", "quoted", "safe_name"]

_LENGTH = 48
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


class Names:
    """The names of one scope: no two are the same, upper and lower case taken as equal (as file
    systems and VHDL do), and none is reserved.

    Parameters
    ----------
    reserved : iterable of str
        Names that none may be, in whatever case.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._used = {name.lower() for name in reserved}

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._used

    def new(self, name: str, longest: int = 1 << 20) -> str:
        """The name, or where it is taken or reserved, with the first number that makes it free;
        it is taken from then on.

        Parameters
        ----------
        name : str
        longest : int
            Characters with the number: as many are cut off before it as need be.
        """
        found, number = name, 2
        while found in self:
            suffix = f"_{number}"
            found = name[: longest - len(suffix)].rstrip("_.-") + suffix
            number += 1
        self._used.add(found.lower())
        return found

    def identifier(self, text: str) -> str:
        """A Verilog identifier and file stem for a text, of at most 48 characters, without two
        underscores in a row, as the wires of streams have."""
        stem = re.sub(r"[_.-]+", "_", safe_name(text, default="layer"))
        stem = stem if stem[0].isalpha() else f"layer_{stem}"
        return safe_name(stem, self)


def safe_name(text: str, names: Names | None = None, default: str = "node") -> str:
    """Maps any text to 1 to 48 characters of ``A-Z a-z 0-9 _ . -``, letter or digit first.

    With ``names`` the result is a new one of these.
    """
    base = _UNSAFE.sub("_", text[: 4 * _LENGTH]).strip("_.-")[:_LENGTH].rstrip("_.-") or default
    return base if names is None else names.new(base, _LENGTH)


def identifiers(texts: Iterable[str]) -> list[str]:
    """`Names.identifier` of every text: all different, and none in `RESERVED`."""
    names = Names(RESERVED)
    return [names.identifier(text) for text in texts]


def check_module_name(name: str) -> None:
    """Raises InputError where Verilog, or the files beside it, rule a module's name out."""
    if name.lower() in LANGUAGE:
        raise InputError(f"Module name must not be a word of Verilog: {name!r}")
    if not re.fullmatch(r"[A-Za-z_]\w{0,120}", name, re.ASCII) or name in ("pvq_rom", "tb"):
        raise InputError(f"Module name must be letters, digits and underscores, not {name!r}")


def quoted(text: str) -> str:
    """A name from a file as it may appear in a message: one line, at most 60 characters, ASCII."""
    shown = ascii(text[: 2 * _LENGTH])
    return shown if len(shown) <= 60 else shown[:56] + "..." + shown[0]


def near(text: str, names: Iterable[str]) -> str:
    """``"; did you mean A or B?"``, of the names that are nearest to ``text``; ``""`` without."""
    known = {name.lower(): name for name in names}
    found = difflib.get_close_matches(text[:_LENGTH].lower(), known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(known[name] for name in found)}?" if found else ""
