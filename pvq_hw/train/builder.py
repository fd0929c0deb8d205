"""Building a model to train: nodes one after the other, with random weights."""

import numpy as np
import numpy.typing as npt

from pvq_hw.model.model import Model
from pvq_hw.model.nodes import AveragePool, Conv, Dense, MaxPool, Node, Pads, Relu

__all__ = ["Builder"]


class Builder:
    """A chain of layers; sizes follow from what came before.

    Parameters
    ----------
    name : str
    shape : tuple of int
        A frame as the file is to have it: ``(n,)``, ``(channels, length)`` or
        ``(channels, height, width)``.
    seed : int
        Of the weights: normal, with a variance of 2 / inputs.
    """

    def __init__(self, name: str, shape: tuple[int, ...], seed: int) -> None:
        self.name, self.input_shape = name, shape
        rank = len(shape)
        self.axes = (*range(1, rank), 0)
        last = tuple(shape[a] for a in self.axes)
        self.start: tuple[int, ...] = (1, *last) if rank == 2 else last
        self.shape = self.start
        self.nodes: list[Node] = []
        self.rng = np.random.default_rng(seed)

    def _put(self, node: Node) -> "Builder":
        self.nodes.append(node)
        self.shape = node.shape
        return self

    def _names(self, kind: str) -> tuple[str, tuple[str, ...], str]:
        """Name, inputs and output of the next node."""
        count = 1 + sum(node.name.startswith(kind) for node in self.nodes)
        before = self.nodes[-1].output if self.nodes else "x"
        return f"{kind}{count}", (before,), f"{kind}{count}_out"

    def _random(self, *shape: int) -> npt.NDArray[np.float64]:
        return self.rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)

    def dense(self, rows: int) -> "Builder":
        """A dense layer, without an activation function."""
        n = int(np.prod(self.shape))
        weight = self._random(rows, n)
        return self._put(Dense(*self._names("fc"), (rows,), weight, np.zeros(rows)))

    def relu(self) -> "Builder":
        """ReLU."""
        return self._put(Relu(*self._names("relu"), self.shape))

    def conv(
        self,
        filters: int,
        kernel: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        groups: int = 1,
    ) -> "Builder":
        """A convolution padded so that a stride of 1 keeps the size; odd kernels."""
        height, width, channels = self.shape
        pads = tuple(((k - 1) // 2, (k - 1) // 2) for k in kernel)
        kind = "conv" if groups == 1 else "depthwise"
        weight = self._random(filters, *kernel, channels // groups)
        size = (-(-height // stride[0]), -(-width // stride[1]))
        return self._put(
            Conv(
                *self._names(kind), (*size, filters), (height, width, channels), kernel, stride,
                _pair(pads), weight=weight, bias=np.zeros(filters), groups=groups,
            )
        )  # fmt: skip

    def depthwise(self, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> "Builder":
        """One filter a channel."""
        return self.conv(self.shape[2], kernel, stride, groups=self.shape[2])

    def max_pool(self, kernel: tuple[int, int]) -> "Builder":
        """The largest of each window; the windows don't overlap."""
        height, width, channels = self.shape
        shape = (height // kernel[0], width // kernel[1], channels)
        return self._put(
            MaxPool(*self._names("pool"), shape, (height, width, channels), kernel, kernel)
        )

    def average(self) -> "Builder":
        """The mean of every channel."""
        height, width, channels = self.shape
        size = (height, width, channels)
        return self._put(
            AveragePool(*self._names("average"), (1, 1, channels), size, (height, width))
        )

    def model(self) -> Model:
        """What was built."""
        return Model(self.name, "", "x", self.input_shape, self.axes, self.start, tuple(self.nodes))


def _pair(pads: tuple[tuple[int, int], ...]) -> Pads:
    return pads[0], pads[1]
