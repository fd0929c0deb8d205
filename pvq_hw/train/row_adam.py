"""Steps of the latent weights, all of a row's by one measure."""

from typing import Any

from pvq_hw.train.torch_extra import require_torch

__all__ = ["RowAdam"]

Tensor = Any


class RowAdam:
    """Adam whose second moment is the mean over each row.

    Adam divides every weight's mean gradient by that weight's own spread, so that weights which
    hardly matter (of pixels that are nearly always black) go as far as all others, at random, and
    pulses follow them. By the row's spread they stay where they are.

    Parameters
    ----------
    tensors : list of tensors (rows, ...)
    rate : float
    betas : pair of float
        Decay of the mean gradient and of its mean square, each below 1.
    """

    def __init__(self, tensors: list[Tensor], rate: float, betas: tuple[float, float]) -> None:
        torch = require_torch()
        self._torch, self._betas, self._count = torch, betas, 0
        self.param_groups: list[dict[str, Any]] = [{"params": tensors, "lr": rate}]
        self._mean = [torch.zeros_like(t) for t in tensors]
        self._square = [torch.zeros(len(t), *(1,) * (t.dim() - 1)) for t in tensors]

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for tensor in self.param_groups[0]["params"]:
            tensor.grad = None

    def step(self) -> None:
        """Moves the tensors in place, those that have a gradient."""
        self._count += 1
        first, second = self._betas
        group = self.param_groups[0]
        fresh = 1 - second**self._count
        rate = group["lr"] / (1 - first**self._count)
        with self._torch.no_grad():
            for t, mean, square in zip(group["params"], self._mean, self._square, strict=True):
                if t.grad is None:
                    continue
                mean.lerp_(t.grad, 1 - first)
                axes = tuple(range(1, t.dim()))
                square.lerp_(t.grad.square().mean(dim=axes, keepdim=True), 1 - second)
                t.sub_(rate * mean / ((square / fresh).sqrt() + 1e-12))
