"""Layers of the integer network: what each one computes, exactly.

A layer takes integer arrays with the frames first, channels last, and gives one. The class of a
layer is its golden model; the gateware's specifications call the same functions of
`pvq_hw.arith.formats`.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Protocol, Self, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat, requantize
from pvq_hw.documents import HEX, Document, write_fields
from pvq_hw.errors import InputError
from pvq_hw.registry import Registry

__all__ = [
    "LAYERS",
    "Dense",
    "Layer",
    "TensorSpec",
    "Unweighted",
    "Weighted",
]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TensorSpec(Document):
    """An activation tensor: its name, shape without the frames, integer format and scale.

    Parameters
    ----------
    name : str
        Unique in the network.
    shape : tuple of int
        Without the frames; channels last: ``(n,)``, ``(length, c)`` or ``(height, width, c)``.
    format : IntFormat
    scale : float
        Real value of one unit: ``real = scale * integer``; the zero point is 0.
    """

    name: str
    shape: tuple[int, ...]
    format: IntFormat
    scale: Annotated[float, HEX]

    @property
    def size(self) -> int:
        """Activations of one frame."""
        return int(np.prod(self.shape, dtype=np.int64))


@runtime_checkable
class Layer(Protocol):
    """What every layer of a `Network` offers.

    ``weights`` is the integer weight matrix, one row per output channel, or None where the
    operation has none; ``replace_weights`` gives the same layer with another matrix, and is how
    a network is put together again from its packed weights.
    """

    kind: ClassVar[str]

    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def output(self) -> TensorSpec: ...
    @property
    def weights(self) -> IntArray | None: ...
    def replace_weights(self, weights: IntArray) -> "Layer": ...
    def compute(self, *x: IntArray) -> IntArray: ...
    def scaling(self, *inputs: TensorSpec) -> list[tuple[float, int]]: ...
    def unit(self, *inputs: TensorSpec) -> float | npt.NDArray[np.float64]: ...
    def verify(self, *inputs: TensorSpec) -> None: ...
    def to_json(self) -> dict[str, Any]: ...


LAYERS: Registry[Layer] = Registry("layer")
"""Every kind of layer of the integer network. Their face: ``unit`` (`pvq_hw.plan.lowering`), the
circuit that computes it; layers with weights have cores instead."""


class Unweighted(Document):
    """What layers without weights share."""

    name: str
    output: TensorSpec

    def unit(self, *inputs: TensorSpec) -> float | npt.NDArray[np.float64]:
        """What 1 stands for in the output: a scale, or one for each value of a frame."""
        return self.output.scale

    def scaling(self, *inputs: TensorSpec) -> list[tuple[float, int]]:
        """What its multipliers are to be, before they are scaled to integers by ``2**shift``, and
        what they are: none, unless the layer has some."""
        return []

    @property
    def weights(self) -> IntArray | None:
        """None: there are no weights."""
        return None

    def replace_weights(self, weights: IntArray) -> Any:
        """Raises InputError: there is nothing to replace."""
        raise InputError(f"Layer {self.name!r} must not be given weights: it has none")


class Weighted(Document):
    """What layers with weights share: the fields of one multiplication per row or group."""

    kind: ClassVar[str]

    name: str
    input: str
    output: TensorSpec
    y: IntArray
    mult: IntArray
    bias: IntArray
    shift: int
    gain: Annotated[npt.NDArray[np.float64], HEX]
    encoding: str

    def unit(self, *inputs: TensorSpec) -> float:
        """What 1 stands for in the output."""
        return self.output.scale

    def scaling(self, *inputs: TensorSpec) -> list[tuple[float, int]]:
        """None: its multipliers are made with its codes."""
        return []

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input tensors."""
        return (self.input,)

    @property
    def weights(self) -> IntArray:
        """``y``."""
        return self.y

    @property
    def k(self) -> IntArray:
        """``K = sum |y|`` of every row, (M,)."""
        return np.asarray(np.abs(self.y).sum(axis=1))

    @property
    def k_groups(self) -> IntArray:
        """K of every row's groups, (M, G): of a row without any, its own."""
        return self.k[:, None]

    def accumulate(self, x: IntArray) -> IntArray:
        """Exact sums of pulses."""
        raise NotImplementedError

    def products(self, x: IntArray) -> IntArray:
        """Sums of pulses times their multipliers, those of a row's groups added up: what biases
        are added to, (..., M)."""
        raise NotImplementedError

    def check_numbers(self, acc_max: IntArray) -> None:
        """Raises InputError for numbers that no core computes with.

        ``acc_max`` (M, G) bounds the magnitude of every row's or group's sum.
        """
        where = f"Layer {self.name!r}"
        if not 1 <= self.shift <= 48:
            raise InputError(f"{where}: the shift must be 1 to 48, not {self.shift}")
        if self.encoding not in ("pvq", "int8"):
            raise InputError(f"{where}: the encoding must be pvq or int8, not {self.encoding!r}")
        if self.mult.min(initial=0) < 0:
            raise InputError(f"{where} has a negative multiplier")
        bound = (acc_max * self.mult).sum(axis=1)
        if int(bound.max(initial=0)) + int(np.abs(self.bias).max(initial=0)) >= 1 << 61:
            raise InputError(f"{where} overflows 62 bits")

    def replace_weights(self, weights: IntArray) -> Self:
        """The same layer with another weight matrix of the same shape."""
        if weights.shape != self.y.shape:
            raise InputError(
                f"Layer {self.name!r} must have weights {self.y.shape}, not {weights.shape}"
            )
        return cast(Self, replace(cast(Any, self), y=weights))

    def to_json(self) -> dict[str, Any]:
        """Everything but the weights, of which only the shape is here."""
        return write_fields(self, but=("y",)) | {"shape": list(self.y.shape)}


@LAYERS.kind
@dataclass(frozen=True, eq=False)
class Dense(Weighted):
    """Fully connected layer: row m gives ``clamp((acc * mult + bias + half) >> shift)``.

    With G groups, group g of row m covers the columns ``g*N/G .. (g+1)*N/G - 1``, has its own
    accumulator and its own multiplier: ``clamp((sum_g acc[m,g] * mult[m,g] + bias[m] + half)
    >> shift)``. ReLU is the saturation of an unsigned output format.

    Parameters
    ----------
    name : str
    input : str
        Name of the input tensor; it is read flattened, N activations in channel-last order.
    output : TensorSpec
        Shape ``(M,)``.
    y : int64 array (M, N)
        Integer weights: pyramid codewords (``sum |y| = K`` per row or group), or plain integers
        for ``encoding = "int8"``.
    mult : int64 array (M, G)
        Unsigned multipliers, which hold ``gain * scale_in / scale_out * 2**shift``; 0 for a row
        of zeros.
    bias : int64 array (M,)
    shift : int
        At least 1.
    gain : float64 array (M, G)
        ``rho``: the real weights are about ``rho * y``. For reports only.
    encoding : str
        ``"pvq"`` or ``"int8"``.
    """

    kind: ClassVar[str] = "dense"

    name: str
    input: str
    output: TensorSpec
    y: IntArray
    mult: IntArray
    bias: IntArray
    shift: int
    gain: Annotated[npt.NDArray[np.float64], HEX]
    encoding: str = "pvq"

    @property
    def groups(self) -> int:
        """Gains per row."""
        return int(self.mult.shape[1])

    @property
    def k_groups(self) -> IntArray:
        """K of every group of every row, (M, G)."""
        m, n = self.y.shape
        return np.abs(self.y).reshape(m, self.groups, n // self.groups).sum(axis=2)

    def accumulate(self, x: IntArray) -> IntArray:
        """Exact sums of pulses: ``x`` (frames, N) -> (frames, M, G)."""
        m, n = self.y.shape
        g = self.groups
        # Sums stay below 2**53 (verify), so the BLAS product in float64 is exact and fast.
        xf = x.reshape(len(x), g, n // g).astype(np.float64)
        yf = self.y.reshape(m, g, n // g).astype(np.float64)
        acc = (
            np.einsum("fgn,mgn->fmg", xf, yf, optimize=True)
            if g > 1
            else (xf[:, 0] @ yf[:, 0].T)[:, :, None]
        )
        return acc.astype(np.int64)

    def products(self, x: IntArray) -> IntArray:
        """``x`` (frames, N) -> (frames, M)."""
        return np.asarray((self.accumulate(x) * self.mult).sum(axis=2))

    def compute(self, *x: IntArray) -> IntArray:
        """(frames, ...) -> (frames, M), exact."""
        total = self.products(np.asarray(x[0]).reshape(len(x[0]), -1))
        return np.asarray(
            requantize(total, 1, self.bias, self.shift, self.output.format), dtype=np.int64
        )

    def verify(self, *inputs: TensorSpec) -> None:
        """Raises InputError unless shapes agree and every intermediate value fits 62 bits."""
        where = f"Layer {self.name!r}"
        m, n = self.y.shape
        if inputs[0].size != n:
            raise InputError(f"{where} must have {inputs[0].size} columns, not {n}")
        if self.output.shape != (m,):
            raise InputError(f"{where} must give ({m},), not {self.output.shape}")
        if self.mult.ndim != 2 or self.mult.shape[0] != m or n % self.mult.shape[1]:
            raise InputError(f"{where} has multipliers of shape {self.mult.shape} for {(m, n)}")
        if self.bias.shape != (m,) or self.gain.shape != self.mult.shape:
            raise InputError(f"{where} has biases or gains of a wrong shape")
        self.check_numbers(self.k_groups * inputs[0].format.max_abs)
