"""Layers whose weights are ``gain * y`` in the forward pass, with ``sum |y| = K`` in every row.

The gradient goes straight through the projection: real weights behind it, the latent ones, take
the gradient of the weights used, and every few steps they are projected onto the pyramid anew by
the same `pvq_hw.pyramid.nearest` that quantizes. Latent weights are counted in pulses, so one
learning rate suits every layer.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.pyramid import nearest
from pvq_hw.quantizer_balance import Placement, balance
from pvq_hw.train.extra import require_torch

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

    Attributes
    ----------
    latent, log_gain, bias : tensor
        float32 leaves that ask for gradients; ``log_gain`` is relative to the gain at the start.
    """

    def __init__(
        self,
        w: FloatArray,
        y: IntArray,
        gain: FloatArray,
        bias: FloatArray,
        placement: Placement | None = None,
    ) -> None:
        torch = require_torch()
        self._torch, self._placement = torch, placement
        self.y = y.astype(np.int64)
        self.k = np.abs(self.y).sum(axis=1)
        rho = np.where(gain > 0, gain, 1.0)
        start = self.y + np.clip(w / rho - self.y, -_SLACK, _SLACK)
        self.latent = _leaf(torch, start)
        self.log_gain = _leaf(torch, np.zeros_like(gain))
        self.bias = _leaf(torch, bias)
        self._start = torch.tensor(gain.astype(np.float32))
        self._pulses = torch.tensor(self.y.astype(np.float32))

    def parts(self) -> tuple[list[Tensor], list[Tensor]]:
        """The latent weights, and what is learned besides."""
        return [self.latent], [self.log_gain, self.bias]

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
    """Weights of a layer that stays at 8 bits a weight, rounded in the forward pass."""

    def __init__(self, w: FloatArray, bias: FloatArray) -> None:
        torch = require_torch()
        self.latent, self.bias = _leaf(torch, w), _leaf(torch, bias)

    def parts(self) -> tuple[list[Tensor], list[Tensor]]:
        """Nothing that is counted in pulses, and what is learned."""
        return [], [self.latent, self.bias]

    def project(self) -> int:
        """Nothing to do."""
        return 0

    def weight(self) -> Tensor:
        """The rounded weights, (M, N)."""
        scale = self.latent.detach().abs().amax(1, keepdim=True).clamp(min=1e-30) / 127
        rounded = (self.latent.detach() / scale).round() * scale
        return rounded + (self.latent - self.latent.detach())

    def real(self) -> tuple[FloatArray, FloatArray]:
        """Real weights and biases."""
        return tuple(t.detach().numpy().astype(np.float64) for t in (self.latent, self.bias))  # type: ignore[return-value]


def fake_quantize(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    """``x`` on its lattice, ties up and saturated as `pvq_hw.numeric` has it; the gradient is that
    of the saturation. Binary formats (-1 and 1): the sign, with the gradient within +-1."""
    if (low, high) == (-1, 1):
        bounded = x.clamp(-1, 1)
        signs = (x >= 0).to(x.dtype) * 2 - 1
        return bounded + (signs - bounded).detach()
    bounded = x.clamp(low * scale, high * scale)
    rounded = (bounded.detach() / scale + 0.5).floor().clamp(low, high) * scale
    return bounded + (rounded - bounded).detach()


def _leaf(torch: Any, array: npt.NDArray[Any]) -> Tensor:
    return torch.tensor(np.asarray(array, dtype=np.float32), requires_grad=True)
