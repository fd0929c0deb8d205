"""What is watched of an accelerator: every layer's outputs, and how many frames batches have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.batch import last_frame_format
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.units import CoreUnit, Unpack

__all__ = ["BATCHES", "Tap", "deal", "layer_taps", "taps_of"]

BATCHES = "(batches)"
"""Name of the stream that numbers the last frame of each batch; no layer is called so."""


@dataclass(frozen=True)
class Tap:
    """An output stream that is watched.

    Parameters
    ----------
    name : str
        Of the layer's unit, or `BATCHES`.
    scope : tuple of str
        Names of the instances from the top module down to the one that gives the stream; empty for
        the top module itself.
    rows, form : int, IntFormat
        Activations of a frame, and their format.
    frames : int
        V: frames in a transfer.
    work : int
        Cycles that the unit works on a round, about.
    width : int
        W: activations of a frame in a transfer.
    order : int array, optional
        The place of each activation in the layer's output, where they come in another order.
    """

    name: str
    scope: tuple[str, ...]
    rows: int
    form: IntFormat
    frames: int = 1
    work: int = 0
    width: int = 1
    order: npt.NDArray[np.int64] | None = None

    @property
    def transfers(self) -> int:
        """Transfers of a frame (of V side by side)."""
        return self.rows // self.width

    @property
    def bits(self) -> int:
        """Width of the payload."""
        return self.form.bits * self.frames * self.width

    @property
    def words(self) -> int:
        """32-bit words of the payload."""
        return -(-self.bits // 32)

    def to_json(self) -> dict[str, Any]:
        """What a testbench outside this process needs."""
        return {"name": self.name, "scope": list(self.scope), "bits": self.bits}


def taps_of(graph: GraphSpec) -> list[Tap]:
    """A tap for every layer, in order, the last one where its frames leave one by one; before
    that, where there are batches, one that tells how many frames each has."""
    found: list[Tap] = []
    for unit in graph.units:
        if unit.passes:
            continue
        taken, given = unit.sizes()
        form, side, wide = unit.formats()[1], unit.side_by_side[1], unit.widths[1]
        work = 4 * max(taken) * unit.frames
        if isinstance(unit, CoreUnit):
            core = unit.core
            work = core.words + core.n * core.frames + core.output_delay
            work = unit.positions * work
            for inner in core.inner_streams:
                scope, size = (unit.name, inner.instance), inner.results
                found.append(Tap(inner.layer, scope, size, inner.out, 1, work, order=inner.order))
        if isinstance(unit, Unpack):
            # The core's results come from here; its own have parts that no frame came for.
            core_tap = found.pop()
            number = last_frame_format(unit.batch)
            found.append(Tap(BATCHES, (unit.name, "batches"), 1, number, 1, core_tap.work))
            found.append(Tap(core_tap.name, (unit.name,), given, form, 1, work))
        else:
            found.append(Tap(unit.name, (unit.name,), given, form, side, work, wide))
    return found


def layer_taps(graph: GraphSpec) -> list[Tap]:
    """The taps of the layers alone."""
    return [tap for tap in taps_of(graph) if tap.name != BATCHES]


def deal(
    outputs: Mapping[str, npt.NDArray[np.int64]], taps: Sequence[Tap]
) -> dict[str, npt.NDArray[np.int64]]:
    """Outputs (frames, rows) by name, each in its layer's order, without those of a batch's parts
    that no frame came for."""
    outputs = dict(outputs)
    for tap in taps:
        if tap.order is not None and tap.name in outputs:
            given = outputs[tap.name]
            outputs[tap.name] = np.empty_like(given)
            outputs[tap.name][:, tap.order] = given
    if BATCHES not in outputs:
        return outputs
    frames = {tap.name: tap.frames for tap in taps}
    most = max(frames.values())
    keep = (np.arange(most) <= outputs[BATCHES].reshape(-1, 1)).ravel()
    return {
        name: values[keep[: len(values)]] if frames[name] > 1 else values
        for name, values in outputs.items()
        if name != BATCHES
    }
