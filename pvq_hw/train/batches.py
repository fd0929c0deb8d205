"""What a network learns from, batch by batch: frames, the float network's outputs, labels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.train.fit import shifted
from pvq_hw.train.torch_model import Graph

__all__ = ["Lessons", "Lot"]

Tensor = Any
Rng = np.random.Generator
_CHUNK = 64  # frames that the float network sees at a time when its outputs are kept
_KEPT = 1 << 28  # bytes of kept outputs


@dataclass(frozen=True, eq=False)
class Lot:
    """A batch.

    Parameters
    ----------
    x : float32 tensor (frames, \\*shape)
    wanted : float32 tensor (frames, n), optional
        The float network's outputs, where they are known already.
    labels : int64 tensor (frames,) or float32 tensor (frames, n), optional
        Class numbers or targets.
    """

    x: Tensor
    wanted: Tensor | None
    labels: Tensor | None


class Lessons:
    """Batches of training frames, varied at random.

    Parameters
    ----------
    graph : Graph
        The float network.
    x : int array (frames, \\*shape)
        The accelerator's inputs.
    labels : int64 array (frames,) or float32 array (frames, n), optional
        Class numbers or targets.
    scale : float
        Of the inputs.
    shift : int
        Places by which maps are moved at random, each way.
    mirror : bool
        Whether maps are mirrored left to right, each with probability 1/2.
    vary : function (frames' places, generator) -> int array (frames, \\*shape), optional
        Instead of the frames as they are.

    Frames that are neither shifted nor varied are few enough that the float network's outputs are
    computed once (`teach`) and kept.
    """

    def __init__(
        self,
        graph: Graph,
        x: npt.NDArray[Any],
        labels: npt.NDArray[Any] | None,
        scale: float,
        shift: int = 0,
        mirror: bool = False,
        vary: Callable[[npt.NDArray[np.int64], Rng], npt.NDArray[Any]] | None = None,
    ) -> None:
        self._vary = vary
        maps = x.ndim == 4
        self._graph, self._x, self._labels, self._scale = graph, x, labels, scale
        self._shift, self._mirror = shift if maps else 0, mirror and maps and x.shape[2] > 1
        self._kept: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self._x)

    @property
    def labeled(self) -> bool:
        """Whether there are labels."""
        return self._labels is not None

    def real(self, x: npt.NDArray[Any]) -> Tensor:
        """The accelerator's integers as what the model takes."""
        return self._graph.tensor(x.astype(np.float32) * np.float32(self._scale))

    def some(self, count: int, rng: Rng) -> Tensor:
        """Frames as they are, to measure by."""
        return self.real(self._x[rng.permutation(len(self._x))[:count]])

    def teach(self, progress: Callable[[float], None] | None = None) -> None:
        """Keeps the float network's outputs, of mirrored frames too."""
        sides = 2 if self._mirror else 1
        size = self._graph.model.nodes[-1].size
        if self._shift or self._vary or sides * len(self._x) * size * 4 > _KEPT:
            return
        kept = np.empty((len(self._x), sides, size), dtype=np.float32)
        for start in range(0, len(self._x), _CHUNK):
            part = self._x[start : start + _CHUNK]
            for side in range(sides):
                kept[start : start + _CHUNK, side] = self._graph.outputs(
                    self.real(part[:, :, ::-1] if side else part)
                ).numpy()
            if progress:
                progress(min(1.0, (start + _CHUNK) / len(self._x)))
        self._kept = kept

    def take(self, chosen: npt.NDArray[np.int64], rng: Rng) -> Lot:
        """The batch of some frames."""
        x = self._vary(chosen, rng) if self._vary else self._x[chosen]
        side = np.zeros(len(chosen), dtype=np.int64)
        if self._mirror:
            side = rng.integers(0, 2, len(chosen))
            x = np.where((side == 1)[:, None, None, None], x[:, :, ::-1], x)
        x = shifted(x, self._shift, rng)
        wanted = None if self._kept is None else self._graph.tensor(self._kept[chosen, side])
        labels = None if self._labels is None else self._graph.tensor(self._labels[chosen])
        return Lot(self.real(x), wanted, labels)
