"""Models of several inputs: which part of the one stream is which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pvq_hw.documents import Document
from pvq_hw.errors import InputError
from pvq_hw.naming import quoted, safe_name

__all__ = [
    "MOST_INPUTS",
    "FramePart",
    "Input",
    "channels_last",
    "check_inputs",
    "input_names",
    "join_inputs",
    "real_frames",
]

MOST_INPUTS = 16
"""The most inputs of one model: each is a branch of the circuit."""

Array = npt.NDArray[Any]


class FramePart(Document):
    """What one of several inputs or outputs is: some of the values of a frame, one after another.
    It has the fields ``name``, ``shape`` and ``start``."""

    derived: ClassVar[tuple[str, ...]] = ("stop",)

    name: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """Values of a frame."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def part(self) -> slice:
        """Its values within a frame."""
        return slice(self.start, self.start + self.size)

    def to_json(self) -> dict[str, Any]:
        """JSON values; ``stop`` says again what follows from the shape."""
        return super().to_json() | {"stop": self.part.stop}


@dataclass(frozen=True)
class Input(FramePart):
    """One of several inputs, as a part of the values that a network takes for a frame.

    Parameters
    ----------
    name : str
        As in the file; only ``A-Z a-z 0-9 _ . -``, at most 48 characters, unlike all others' and
        not ``y``, which names the labels of a data file.
    shape : tuple of int
        A frame's, as the model file has it.
    axes : tuple of int
        Permutation from the file's axes to channel-last ones, frames not counted.
    start : int
        Place of its first value among those of a frame.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    start: int = 0


def check_inputs(inputs: Sequence[Input], size: int) -> None:
    """Raises InputError unless all are named apart and fill the ``size`` values of a frame."""
    names = [each.name for each in inputs]
    if len(set(names)) != len(names) or len(names) > MOST_INPUTS or "y" in names:
        raise InputError(f"Inputs must be at most {MOST_INPUTS}, all of different names, not 'y'")
    at = 0
    for each in inputs:
        if each.name != safe_name(each.name, default=""):
            raise InputError(f"Input {quoted(each.name)} must have a safe name")
        if min(each.shape, default=0) < 1 or sorted(each.axes) != list(range(len(each.shape))):
            raise InputError(f"Input {quoted(each.name)} must have an order of its axes")
        if each.start != at:
            raise InputError(f"Input {quoted(each.name)} must follow the one before it")
        at = each.part.stop
    if inputs and at != size:
        raise InputError(f"Inputs must have {size} values in all, not {at}")


def input_names(inputs: Sequence[Input]) -> str:
    """Their names for people."""
    return ", ".join(repr(each.name) for each in inputs)


def join_inputs(
    inputs: Sequence[Input], arrays: Mapping[str, npt.ArrayLike], input_scale: float = 1.0
) -> Array:
    """Arrays by the inputs' names, (frames, ...) each, as one array (frames, n).

    Each is flattened in the file's order, one after the other in the order of ``inputs``. Integers
    stay integers where all arrays are; beside floats they are divided by ``input_scale``, so that
    the result is what the model expects. Raises InputError for names or shapes that are others.
    """
    if not inputs:
        raise InputError("Only models of several inputs take arrays by name; this one has one")
    found = {str(name): np.asarray(value) for name, value in arrays.items()}
    names = {each.name for each in inputs}
    if set(found) != names:
        held = ", ".join(map(quoted, list(found)[:20])) or "nothing"
        raise InputError(f"Data must hold the inputs {input_names(inputs)}, not {held}")
    parts = []
    for each in inputs:
        array = found[each.name]
        if array.dtype.kind not in "fiub":
            raise InputError(f"Input {each.name!r} must be numbers, not {array.dtype}")
        if array.ndim < 1 or array.size != len(array) * each.size:
            shape = ", ".join(map(str, each.shape))
            raise InputError(
                f"Input {each.name!r} must have the shape (frames, {shape}), not {array.shape}"
            )
        parts.append(array.reshape(len(array), each.size))
    if len({len(part) for part in parts}) > 1:
        counts = ", ".join(str(len(part)) for part in parts)
        raise InputError(f"Inputs must have as many frames each, not {counts}")
    if any(part.dtype.kind == "f" for part in parts):
        parts = [p if p.dtype.kind == "f" else p.astype(np.float64) / input_scale for p in parts]
    return np.concatenate(parts, axis=1)


def channels_last(inputs: Sequence[Input], x: Array) -> Array:
    """Frames (frames, n) with every input's values in the order of its ``axes``."""
    parts = [
        x[:, each.part]
        .reshape(len(x), *each.shape)
        .transpose(0, *(1 + axis for axis in each.axes))
        .reshape(len(x), -1)
        for each in inputs
    ]
    return np.concatenate(parts, axis=1)


def real_frames(
    x: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    inputs: Sequence[Input],
    shape: Sequence[int],
    input_scale: float,
) -> npt.NDArray[np.float64]:
    """Data as float64 (frames, \\*shape), in the file's axes but for several inputs, whose channels
    come last.

    Parameters
    ----------
    x : array (frames, ...) or mapping of input name to array
        Floats as the model expects them, or integers that ``input_scale`` divides; for several
        ``inputs`` arrays by their names, or what `join_inputs` makes of these.
    shape : tuple of int
        A frame's, in the file's axes; other shapes of as many values are taken too.

    Raises
    ------
    InputError
        For anything but numbers, and for another number of values in a frame.
    """
    if isinstance(x, Mapping):
        x = join_inputs(inputs, x, input_scale)
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise InputError(f"Data must be numbers, not {array.dtype}")
    size = int(np.prod(shape, dtype=np.int64))
    if array.ndim < 1 or array.size != len(array) * size:
        raise InputError(
            f"Data must have the shape (frames, {', '.join(map(str, shape))}), not {array.shape}"
        )
    real = array.reshape(len(array), *shape).astype(np.float64)
    if array.dtype.kind != "f":
        real = real / input_scale
    return channels_last(inputs, real) if inputs else real
