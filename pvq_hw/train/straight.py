"""Layers whose weights are ``gain * y`` in the forward pass, with ``sum |y| = K`` in every row.

The gradient goes straight through the projection: real weights behind it, the latent ones, take
the gradient of the weights used, and every few steps they are projected onto the pyramid anew by
the same `pvq_hw.pyramid.nearest.nearest` that quantizes. Latent weights are counted in pulses, so
one learning rate suits every layer.
"""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.pyramid.nearest import nearest
from pvq_hw.quantizer.banks import Placement, balance
from pvq_hw.train.torch_extra import require_torch

__all__ = ["Int8Layer", "PvqLayer", "fake_quantize"]

Tensor = Any
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_SLACK = 0.4  # pulses by which a latent weight may start from its code


class PvqLayer:
    """Weights of one layer, dense or convolutional: (M, N) rows.

    Parameters
    ----------
    w : float64 array (M, N)
        Real weights, which break ties between places without a pulse.
    y : int64 array (M, N)
        Codes to start from; the K of every row stays theirs.
    gain : float64 array (M, 1)
        Not negative.
    bias : float64 array (M,)
    placement : Placement, optional
        Where pulses may be.
    unit : float
        What biases are counted in while they are learned, so that one learning rate suits
        outputs of any unit.

    Attributes
    ----------
    latent, log_gain, offset : tensor
        float32 leaves that ask for gradients; ``log_gain`` is relative to the gain at the start,
        ``offset`` is what the biases have gained, in units.
    """

    def __init__(
        self,
        w: FloatArray,
        y: IntArray,
        gain: FloatArray,
        bias: FloatArray,
        placement: Placement | None = None,
        unit: float = 1.0,
    ) -> None:
        torch = require_torch()
        self._torch, self._placement = torch, placement
        self.y = y.astype(np.int64)
        self.k = np.abs(self.y).sum(axis=1)
        rho = np.where(gain > 0, gain, 1.0)
        start = self.y + np.clip(w / rho - self.y, -_SLACK, _SLACK)
        self.latent = _leaf(torch, start)
        self.log_gain = _leaf(torch, np.zeros_like(gain))
        self.offset = _leaf(torch, np.zeros_like(bias))
        self._bias, self.unit = torch.tensor(bias.astype(np.float32)), unit
        self._start = torch.tensor(gain.astype(np.float32))
        self._pulses = torch.tensor(self.y.astype(np.float32))

    def parts(self) -> tuple[list[Tensor], list[Tensor]]:
        """The latent weights, and what is learned besides."""
        return [self.latent], [self.log_gain, self.offset]

    @property
    def bias(self) -> Tensor:
        """(M,)."""
        return self._bias + self.unit * self.offset

    def project(self) -> int:
        """Codes anew from the latent weights; the number of weights whose code changed."""
        live = np.flatnonzero(self.k)
        latent = self.latent.detach().numpy().astype(np.float64)
        y = np.zeros_like(self.y)
        if live.size and self._placement is None:
            y[live] = nearest(latent[live], self.k[live])
        elif live.size and self._placement is not None:
            y[live] = balance(latent[live], self.k[live], self._placement)
        changed = int((y != self.y).sum())
        self.y = y
        self._pulses.copy_(self._torch.from_numpy(y.astype(np.float32)))
        return changed

    def weight(self) -> Tensor:
        """``gain * y``, (M, N)."""
        return self._gain() * (self._pulses + (self.latent - self.latent.detach()))

    def _gain(self) -> Tensor:
        return self._start * self.log_gain.exp()

    def real(self) -> tuple[FloatArray, FloatArray]:
        """Weights ``gain * y`` as float32 has them, and biases."""
        gain = self._gain().detach().numpy().astype(np.float64)
        weight = (gain * self.y).astype(np.float32).astype(np.float64)
        return weight, self.bias.detach().numpy().astype(np.float64)


class Int8Layer:
    """Weights of a layer that stays at 8 bits a weight, rounded in the forward pass.

    The latent weights are counted in sixteenths of a row's largest weight at the start, so that
    they may share the learning rate of pulses.
    """

    def __init__(self, w: FloatArray, bias: FloatArray, unit: float = 1.0) -> None:
        torch = require_torch()
        most = np.abs(w).max(axis=1, keepdims=True, initial=0)
        step = np.where(most > 0, most, 1.0) / 16
        self.latent, self.offset = _leaf(torch, w / step), _leaf(torch, np.zeros_like(bias))
        self._step = torch.tensor(step.astype(np.float32))
        self._bias, self.unit = torch.tensor(bias.astype(np.float32)), unit

    def parts(self) -> tuple[list[Tensor], list[Tensor]]:
        """The latent weights, and what is learned besides."""
        return [self.latent], [self.offset]

    @property
    def bias(self) -> Tensor:
        """(M,)."""
        return self._bias + self.unit * self.offset

    def project(self) -> int:
        """Nothing to do."""
        return 0

    def weight(self) -> Tensor:
        """The rounded weights, (M, N)."""
        latent = self.latent.detach()
        scale = latent.abs().amax(1, keepdim=True).clamp(min=1e-30) / 127
        return self._step * ((latent / scale).round() * scale + (self.latent - latent))

    def real(self) -> tuple[FloatArray, FloatArray]:
        """Real weights and biases."""
        weight = self.latent.detach() * self._step
        return weight.numpy().astype(np.float64), self.bias.detach().numpy().astype(np.float64)


def fake_quantize(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    """``x`` on its lattice, ties up and saturated as `pvq_hw.arith.formats` has it; the gradient is
    that
    of the saturation. Binary formats (-1 and 1): the sign, with the gradient within +-1."""
    if (low, high) == (-1, 1):
        bounded = x.clamp(-1, 1)
        signs = (x >= 0).to(x.dtype) * 2 - 1
        return bounded + (signs - bounded).detach()
    return _rounding().apply(x, scale, low, high)


@cache
def _rounding() -> Any:
    """Rounding to a lattice in as few passes over memory as PyTorch allows: they take as long as
    small convolutions do."""
    torch = require_torch()

    class Rounding(torch.autograd.Function):  # type: ignore[misc,name-defined]
        @staticmethod
        def forward(ctx: Any, x: Tensor, scale: float, low: int, high: int) -> Tensor:
            ctx.save_for_backward(x)
            ctx.bounds = (low - 0.5) * scale, (high + 0.5) * scale
            return torch.div(x, scale).add_(0.5).floor_().clamp_(low, high).mul_(scale)

        @staticmethod
        def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
            (x,) = ctx.saved_tensors
            return torch.ops.aten.hardtanh_backward(slope, x, *ctx.bounds), None, None, None

    return Rounding


def _leaf(torch: Any, array: npt.NDArray[Any]) -> Tensor:
    return torch.tensor(np.asarray(array, dtype=np.float32), requires_grad=True)
