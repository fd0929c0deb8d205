"""What a simulation gives, and its comparison with the golden model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import CheckError

__all__ = ["Comparison", "Mismatch", "SimResult", "Stamps", "assemble", "compare", "interval_of"]

IntArray = npt.NDArray[np.int64]
Stamps = Sequence[int] | IntArray

_STEADY = 6  # equal distances between batches that show a steady state


def interval_of(ends: Stamps) -> int | None:
    """Steady-state cycles between batches, from the cycles at which they ended.

    Cores of very few rows settle to a pattern of several batches: its mean, rounded up. None when
    the last six distances, or two patterns, don't show a steady state.
    """
    steps = np.diff(np.asarray(ends, dtype=np.int64))
    for period in range(1, len(steps) // 2 + 1):
        window = max(2 * period, _STEADY)
        last = steps[-window:]
        if len(last) == window and np.array_equal(last[period:], last[:-period]):
            return -(-int(last[-period:].sum()) // period)
    return None


@dataclass(frozen=True, eq=False)
class SimResult:
    """Outputs of every layer and the cycles of a simulated accelerator.

    Parameters
    ----------
    simulator : str
    outputs : dict of int64 array (frames, rows)
        By the layer's name, in the accelerator's order.
    starts, ends : int64 array (frames,)
        Cycle of each frame's first input and last output transfer; frames that were simulated
        in another process count from its own reset.
    interval_cycles : int or None
        Between batches of V frames (V = 1: between frames) in the steady state, without idle
        cycles or stalls; None when not measured.
    latency_cycles : int or None
        From the first input transfer to the last output transfer of a frame that meets an empty
        accelerator, without idle cycles or stalls; None when not measured.
    cycles : int
        Simulated clock cycles.
    rounds : int64 array
        Of the first process or thread, those that were run to settle too: cycles from the first
        input transfer to each batch's last output transfer; empty when not measured.
    """

    simulator: str
    outputs: dict[str, IntArray]
    starts: IntArray
    ends: IntArray
    interval_cycles: int | None
    latency_cycles: int | None
    cycles: int
    rounds: IntArray

    @property
    def frames(self) -> int:
        """Frames simulated."""
        return len(self.ends)

    def first(self, frames: int, names: Mapping[str, str]) -> "SimResult":
        """The same without the frames after the first ``frames``, its layers renamed."""
        return replace(
            self,
            outputs={names[name]: values[:frames] for name, values in self.outputs.items()},
            starts=self.starts[:frames],
            ends=self.ends[:frames],
        )


def assemble(
    simulator: str,
    frames: int,
    outputs: Mapping[str, IntArray],
    runs: Sequence[tuple[Stamps, Stamps, int]],
    vector: int,
    steady: bool,
    batch: int = 1,
) -> SimResult:
    """Puts a result together.

    Parameters
    ----------
    simulator : str
    frames : int
        Those asked for; more may have been simulated, to fill a batch or to settle.
    outputs : mapping
    runs : sequence of (starts, ends, cycles)
        By process or thread: the cycles of its batches' first input and last output transfers.
    vector : int
        Frames in a batch.
    steady : bool
        Whether interval and latency are to be told: there were no idle cycles, stalls or resets.
    batch : int
        Frames in a batch where each frame has cycles of its own (``vector`` is 1 then).
    """
    starts, ends = (
        np.concatenate([np.repeat(np.asarray(run[i], dtype=np.int64), vector) for run in runs])
        for i in (0, 1)
    )
    first = [stamps[batch - 1 :: batch] if at else stamps for at, stamps in enumerate(runs[0][:2])]
    interval = interval_of(first[1]) if steady else None
    rounds = np.asarray(first[1] if steady else (), dtype=np.int64)
    return SimResult(
        simulator,
        {name: values[:frames] for name, values in outputs.items()},
        starts[:frames],
        ends[:frames],
        interval,
        int(first[1][0] - first[0][0]) if steady and len(first[1]) else None,
        sum(run[2] for run in runs),
        rounds - first[0][0] if len(rounds) else rounds,
    )


@dataclass(frozen=True)
class Mismatch:
    """The first output that differs: its frame, layer, row and both values."""

    frame: int
    layer: str
    row: int
    expected: int
    got: int

    def __str__(self) -> str:
        return (
            f"frame {self.frame}, layer {self.layer!r}, row {self.row}: "
            f"expected {self.expected}, got {self.got}"
        )

    def to_json(self) -> dict[str, Any]:
        """The mismatch as JSON values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Comparison:
    """Counts of a comparison, over all frames and all outputs of all layers."""

    frames: int
    outputs_compared: int
    mismatches: int
    first: Mismatch | None = None

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return dict(vars(self)) | {"first": self.first.to_json() if self.first else None}


def compare(result: SimResult, trace: Mapping[str, npt.NDArray[Any]]) -> Comparison:
    """Compares a simulation with the golden model's trace, exactly.

    Parameters
    ----------
    result : SimResult
    trace : mapping of array (frames, ...)
        `Network.trace` of the same frames, by layer; layers without a core of their own may be
        in it besides.

    Raises
    ------
    CheckError
        When layers are missing or shapes differ, so that nothing could be compared.
    """
    compared = mismatches = 0
    first: Mismatch | None = None
    for layer, got in result.outputs.items():
        if layer not in trace:
            raise CheckError(f"The golden model has no layer {layer!r}")
        expected = np.asarray(trace[layer]).reshape(len(trace[layer]), -1)
        if expected.shape != got.shape:
            raise CheckError(
                f"Layer {layer!r} must give (frames, rows) of {expected.shape}, not {got.shape}"
            )
        compared += got.size
        wrong = np.argwhere(expected != got)
        mismatches += len(wrong)
        if len(wrong) and (first is None or wrong[0][0] < first.frame):
            frame, row = (int(i) for i in wrong[0])
            first = Mismatch(frame, layer, row, int(expected[frame, row]), int(got[frame, row]))
    return Comparison(result.frames, compared, mismatches, first)
