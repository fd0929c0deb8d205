"""Layers of the integer network that look an activation up: functions of one value."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from pvq_hw.arith.formats import IntFormat
from pvq_hw.documents import Checked
from pvq_hw.errors import InputError
from pvq_hw.network.layer import LAYERS, IntArray, TensorSpec, Unweighted

__all__ = ["MOST_ENTRIES", "Table"]

MOST_ENTRIES = 1 << 16
"""The most entries of one layer, over the tables of all its channels."""

_LONGEST = 2000  # characters of a function's text


def _from_lines(rows: tuple[str, ...]) -> IntArray:
    entries = [[int(v) for v in row.split(" ")] for row in rows]
    return np.array(entries, dtype=np.int64).reshape(len(entries), -1)


_LINES = Checked(
    "lines of as many integers each",
    _from_lines,
    lambda entries: [" ".join(map(str, row)) for row in entries.tolist()],
    wire=tuple[str, ...],
)


@LAYERS.kind
@dataclass(frozen=True, eq=False)
class Table(Unweighted):
    """``entries[g, x - x_min]``: exact, whatever the function.

    The value that it reads was rounded where it was made; the entries are the function's values
    on that lattice, rounded to the output's.

    Parameters
    ----------
    name, input : str
    x : IntFormat
        Of the input.
    output : TensorSpec
    entries : int64 array (G, 2**bits)
        From the input's smallest value up. G is 1, or the number of channels where each has a
        function of its own.
    function : str
        What it is, for reports.
    """

    kind: ClassVar[str] = "table"

    name: str
    input: str
    x: IntFormat
    output: TensorSpec
    entries: Annotated[IntArray, _LINES]
    function: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input tensors."""
        return (self.input,)

    def compute(self, *x: IntArray) -> IntArray:
        """(frames, ...) -> (frames, \\*shape)."""
        values = np.asarray(x[0], dtype=np.int64).reshape(len(x[0]), *self.output.shape)
        channel = np.arange(self.output.shape[-1]) % len(self.entries)
        return np.asarray(self.entries[channel, values - self.x.limits[0]])

    def verify(self, *inputs: TensorSpec) -> None:
        """Raises InputError unless there is an entry of the output's format for every input."""
        where, (groups, depth) = f"Layer {self.name!r}", self.entries.shape
        if inputs[0].size != self.output.size:
            raise InputError(f"{where} must give as many values as it reads, {inputs[0].size}")
        if self.x != inputs[0].format or self.x.binary or self.output.format.binary:
            raise InputError(f"{where} must read values of its input's format, not {self.x}")
        if depth != 1 << self.x.bits or groups * depth > MOST_ENTRIES:
            raise InputError(f"{where} must have {1 << self.x.bits} entries a channel, not {depth}")
        if groups not in (1, self.output.shape[-1]):
            raise InputError(f"{where} must have 1 table or one a channel, not {groups}")
        if not self.output.format.contains(self.entries):
            raise InputError(f"{where} must have entries of its output's format")
        if not self.function.isprintable() or len(self.function) > _LONGEST:
            raise InputError(f"{where} must name its function in {_LONGEST} characters")
