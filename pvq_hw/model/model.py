"""The float model: a small channel-last graph that the importers make of a model file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pvq_hw.inputs import Input, join_inputs, real_frames
from pvq_hw.model.nodes import (
    Add,
    Affine,
    AveragePool,
    Clip,
    Concat,
    Conv,
    Dense,
    Function,
    MaxPool,
    Node,
    Outputs,
    Part,
    Quantize,
    Relu,
    Sign,
)
from pvq_hw.outputs import Output, find_output

__all__ = [
    "Add",
    "Affine",
    "AveragePool",
    "Clip",
    "Concat",
    "Conv",
    "Dense",
    "Function",
    "MaxPool",
    "Model",
    "Node",
    "Outputs",
    "Part",
    "Quantize",
    "Relu",
    "Sign",
]

FloatArray = npt.NDArray[np.float64]
CHUNK_VALUES = 1 << 22  # activations of one chunk of frames in `predict`


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network in float64, channels last, ready to be quantized.

    Parameters
    ----------
    name : str
        From the file's name; only ``A-Z a-z 0-9 _ . -``.
    source_sha256 : str
        Of the model file (and, after it, of every piece of external data it takes, in the
        file's order).
    input_name : str
        Tensor that the first nodes read.
    input_shape : tuple of int
        Shape of a frame as the model file has it, for instance ``(1, 28, 28)``.
    input_axes : tuple of int
        Permutation from the file's axes to channel-last ones, frames not counted.
    shape : tuple of int
        Shape of a frame inside: the permuted one, up to axes of length 1.
    nodes : tuple of Node
        In an order in which every input exists; the last one gives the model's output.
    ranges : dict
        (low, high) of tensors by name, where the file carries them.
    dropped : tuple of str
        Types of the final operations that were left out (Softmax, ArgMax, ...): the accelerator
        gives logits. Of several outputs each has its own.
    outputs : tuple of Output
        Where the file has several: which values of `predict` are which; else empty.
    scored : str
        The one of them that labels belong to; empty where nobody said which.
    inputs : tuple of Input
        Where the file has several: which values of a frame are which; else empty. The frame is
        then flat, all inputs one after the other, and `Part` nodes alone read it.
    """

    name: str
    source_sha256: str
    input_name: str
    input_shape: tuple[int, ...]
    input_axes: tuple[int, ...]
    shape: tuple[int, ...]
    nodes: tuple[Node, ...]
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()
    scored: str = ""
    inputs: tuple[Input, ...] = ()

    @property
    def output(self) -> str:
        """Name of the output tensor."""
        return self.nodes[-1].output

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output, channels last, without the frames."""
        return self.nodes[-1].shape

    def for_output(self, name: str) -> "Model":
        """The model whose labels belong to the output of that name."""
        return replace(self, scored=find_output(self.outputs, name).name)

    @property
    def parts(self) -> tuple[slice, ...]:
        """The parts of what `predict` gives that have scales of their own."""
        last = self.nodes[-1]
        return last.parts if isinstance(last, Outputs) else (slice(0, last.size),)

    @property
    def macs(self) -> int:
        """Multiplications of one frame in Dense and Conv nodes."""
        return sum(node.macs for node in self.nodes)

    @property
    def parameters(self) -> int:
        """Weights and biases of Dense and Conv nodes."""
        return sum(node.parameters for node in self.nodes)

    def consumers(self, tensor: str) -> tuple[Node, ...]:
        """The nodes that read a tensor."""
        return tuple(node for node in self.nodes if tensor in node.inputs)

    def tensor_shape(self, tensor: str) -> tuple[int, ...]:
        """Shape of a tensor, channels last, without the frames."""
        shapes = {self.input_name: self.shape} | {n.output: n.shape for n in self.nodes}
        return shapes[tensor]

    def to_internal(
        self, x: npt.ArrayLike | Mapping[str, npt.ArrayLike], input_scale: float = 1.0
    ) -> FloatArray:
        """Data in the file's axes -> float64 (frames, \\*shape), channels last.

        ``x`` is (frames, \\*input_shape), or has the same values per frame in another shape;
        floats are taken as they are, integers are divided by ``input_scale``. For several inputs
        it may be arrays by their names, or is what `pvq_hw.inputs.join_inputs` makes of these.
        """
        real = real_frames(x, self.inputs, self.input_shape, input_scale)
        real = real.transpose(0, *(1 + a for a in self.input_axes))
        return np.ascontiguousarray(real).reshape(len(real), *self.shape)

    def steps(self, x: FloatArray) -> Iterator[tuple[Node, FloatArray]]:
        """Computes node by node from internal data (frames, \\*shape); forgets what is used up."""
        last_use = {name: i for i, node in enumerate(self.nodes) for name in node.inputs}
        values = {self.input_name: x}
        for i, node in enumerate(self.nodes):
            out = node.compute(*(values[name] for name in node.inputs))
            values[node.output] = out
            for name in set(node.inputs):
                if last_use[name] == i:
                    del values[name]
            yield node, out

    def trace(
        self, x: npt.ArrayLike | Mapping[str, npt.ArrayLike], input_scale: float = 1.0
    ) -> dict[str, FloatArray]:
        """Every node's output (frames, \\*node.shape) by the output's name."""
        return {node.output: out for node, out in self.steps(self.to_internal(x, input_scale))}

    def predict(
        self, x: npt.ArrayLike | Mapping[str, npt.ArrayLike], input_scale: float = 1.0
    ) -> FloatArray:
        """(frames, \\*input_shape) -> float64 (frames, outputs), flattened channels last.

        Frames are computed in chunks, so memory stays bounded.
        """
        if isinstance(x, Mapping):
            x = join_inputs(self.inputs, x, input_scale)
        array = np.asarray(x)
        largest = max([int(np.prod(self.shape))] + [node.working_set for node in self.nodes])
        chunk = max(1, CHUNK_VALUES // largest)
        outputs = [np.zeros((0, self.nodes[-1].size))]
        for start in range(0, len(array) if array.ndim else 1, chunk):
            part = array[start : start + chunk] if array.ndim else array
            for _, out in self.steps(self.to_internal(part, input_scale)):  # noqa: B007  the last
                pass
            outputs.append(out.reshape(len(out), -1))
        return np.concatenate(outputs)
