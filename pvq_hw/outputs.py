"""Models of several outputs: which part of the one stream is which."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from pvq_hw.errors import InputError
from pvq_hw.inputs import FramePart
from pvq_hw.naming import near, quoted, safe_name

__all__ = [
    "MOST_OUTPUTS",
    "Output",
    "check_outputs",
    "find_output",
    "output_names",
    "split_outputs",
]

MOST_OUTPUTS = 32
"""The most outputs of one model: each that is no other's is a branch of the circuit."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Output(FramePart):
    """One of several outputs, as a part of the values that a network gives for a frame.

    Outputs may share a part: a file gives a tensor twice, or once before and once after an
    operation that the accelerator leaves out.

    Parameters
    ----------
    name : str
        As in the file; only ``A-Z a-z 0-9 _ . -``, at most 48 characters, unlike all others'.
    shape : tuple of int
        Without the frames, channels last.
    start : int
        Place of its first value among those of a frame.
    dropped : tuple of str
        Types of its final operations that are left out.
    """

    name: str
    shape: tuple[int, ...]
    start: int = 0
    dropped: tuple[str, ...] = ()


def check_outputs(outputs: Sequence[Output], size: int) -> None:
    """Raises InputError unless all are named apart and lie within the ``size`` values of a
    frame."""
    names = [output.name for output in outputs]
    if len(set(names)) != len(names) or len(names) > MOST_OUTPUTS:
        raise InputError(f"Outputs must be at most {MOST_OUTPUTS}, all of different names")
    for output in outputs:
        if output.name != safe_name(output.name, default=""):
            raise InputError(f"Output {quoted(output.name)} must have a safe name")
        if min(output.shape, default=1) < 1 or output.start < 0 or output.part.stop > size:
            raise InputError(f"Output {quoted(output.name)} must lie within {size} values")


def find_output(outputs: Sequence[Output], name: str) -> Output:
    """The output of that name; raises InputError where there is none."""
    for output in outputs:
        if output.name == name:
            return output
    known = [output.name for output in outputs]
    if not known:
        raise InputError(f"--output must not be given for a model of one output, as {quoted(name)}")
    raise InputError(
        f"Output must be one of {output_names(outputs)}, not {quoted(name)}{near(name, known)}"
    )


def output_names(outputs: Sequence[Output]) -> str:
    """Their names for people."""
    return ", ".join(repr(output.name) for output in outputs)


def split_outputs(outputs: Sequence[Output], values: Array) -> dict[str, Array]:
    """Values (frames, ...) of the whole stream as (frames, \\*shape) by the outputs' names."""
    flat = values.reshape(len(values), -1)
    return {o.name: flat[:, o.part].reshape(len(flat), *o.shape) for o in outputs}
