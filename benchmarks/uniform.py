"""Uniform codes per channel, as others make them: what PVQ's accuracy is held against.

Rows of weights become a scale times whole numbers of a few bits, by round-to-nearest, by sequential
second-order compensation of the class of GPTQ (E. Frantar et al., "GPTQ: accurate post-training
quantization for generative pre-trained transformers", arXiv 2210.17323) or by learned rounding of
the class of AdaRound (M. Nagel et al., "Up or down? Adaptive rounding for post-training
quantization", arXiv 2004.10568). All else is as PVQ's: layer by layer on the integer network's own
inputs against the float model's outputs, 8-bit activations with scales of the least error,
corrected biases, and the integer golden model.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.model.model import Model
from pvq_hw.network.network import Network
from pvq_hw.quantizer.autodiff import node_groups
from pvq_hw.quantizer.fused import Step, network_steps
from pvq_hw.quantizer.layer_options import Request, requests
from pvq_hw.quantizer.layerwise import LayerBuilder
from pvq_hw.quantizer.options import QuantizerOptions
from pvq_hw.quantizer.pulse_moves import Moments, moments, solve_gains
from pvq_hw.quantizer.scales import calibration_array
from pvq_hw.quantizer.source import model_source

__all__ = ["METHODS", "adaround", "gptq", "levels", "nearest_grid", "uniform_network"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_DAMPING = 0.01  # of the moments, as GPTQ has it
_CLIPS = np.linspace(1.0, 0.3, 36)  # scales tried, in parts of the one at which nothing saturates
_TERNARY_CLIPS = np.linspace(1.2, 0.1, 56)
_STEPS = 1500  # of AdaRound's
_RATE, _WEIGHT, _WARM = 0.02, 0.02, 0.2


def levels(bits: float) -> int:
    """The largest magnitude of a code: 127, 7, 3, or 1 for ternary ones."""
    return 1 if bits < 2 else (1 << (int(bits) - 1)) - 1


def nearest_grid(
    v: FloatArray, most: int, heavy: FloatArray | None = None
) -> tuple[IntArray, FloatArray]:
    """Whole numbers up to ``most`` and the scale of each row (M, 1) of the least squared error;
    ``heavy`` (N,) weighs the columns."""
    weight = np.ones(v.shape[1]) if heavy is None else heavy
    top = np.maximum(np.abs(v).max(axis=1, keepdims=True), 1e-30)
    best = np.full((len(v), 1), np.inf)
    scale = top / most
    for clip in _TERNARY_CLIPS if most == 1 else _CLIPS:
        tried = top * clip / most
        error = np.square(_round(v / tried, most) * tried - v) @ weight[:, None]
        scale, best = np.where(error < best, tried, scale), np.minimum(error, best)
    return _round(v / scale, most).astype(np.int64), np.asarray(scale, dtype=np.float64)


def _round(v: FloatArray, most: int) -> FloatArray:
    return np.asarray(np.clip(np.rint(v), -most, most))


def _wanted(m: Moments) -> tuple[FloatArray, FloatArray]:
    """The real weights of the least error, (M, N), and the form they are the bottom of, (N, N)."""
    gram = m.gram.astype(np.float64)
    gram += 1e-7 * np.diag(gram).mean() * np.eye(len(gram))
    return np.linalg.solve(gram, m.cross.astype(np.float64).T).T, gram


def gptq(m: Moments, most: int) -> tuple[IntArray, FloatArray]:
    """Codes column by column, those of the largest inputs first; what one loses is spread over the
    columns that are left."""
    v, gram = _wanted(m)
    order = np.argsort(-np.diag(gram), kind="stable")
    v, gram = v[:, order].copy(), gram[np.ix_(order, order)]
    _, scale = nearest_grid(v, most, np.diag(gram))
    upper = np.linalg.cholesky(np.linalg.inv(gram)).T
    y = np.empty(v.shape, dtype=np.int64)
    for n in range(v.shape[1]):
        code = _round(v[:, n : n + 1] / scale, most)
        y[:, order[n]] = code[:, 0]
        lost = (v[:, n : n + 1] - code * scale) / upper[n, n]
        v[:, n + 1 :] -= lost * upper[n, n + 1 :]
    return y, scale


def adaround(m: Moments, most: int) -> tuple[IntArray, FloatArray]:
    """Codes rounded up or down as Adam learns it on the form, with the regularizer that drives
    every choice to one side."""
    v, gram = _wanted(m)
    _, scale = nearest_grid(v, most, np.diag(gram))
    low = np.floor(v / scale)
    rest = np.clip(v / scale - low, 0.01, 0.99).astype(np.float32)
    choice = -np.log(1.2 / (rest + 0.1) - 1)
    form = (gram / np.diag(gram).mean()).astype(np.float32)
    base = (low - v / scale).astype(np.float32)
    bottom, top = (-most - low).astype(np.float32), (most - low).astype(np.float32)
    mean, square = np.zeros_like(choice), np.zeros_like(choice)
    for step in range(_STEPS):
        sigmoid = 1 / (1 + np.exp(-choice))
        up = np.clip(1.2 * sigmoid - 0.1, 0, 1)
        free = (up > 0) & (up < 1)
        kept = np.clip(up, bottom, top)
        by = 2 * (base + kept) @ form * (kept == up)
        part = (step / _STEPS - _WARM) / (1 - _WARM)
        if part > 0:
            power = 2 + 18 * (1 - part)
            middle = 2 * up - 1
            by -= _WEIGHT * 2 * power * np.sign(middle) * np.abs(middle) ** (power - 1)
        by *= 1.2 * sigmoid * (1 - sigmoid) * free
        mean += 0.1 * (by - mean)
        square += 0.001 * (by * by - square)
        choice -= _RATE * mean / (np.sqrt(square / (1 - 0.999 ** (step + 1))) + 1e-8)
    up = np.clip(1.2 / (1 + np.exp(-choice)) - 0.1, 0, 1)
    return np.clip(low + (up >= 0.5), -most, most).astype(np.int64), scale


Fit = Callable[[Moments, int], tuple[IntArray, FloatArray]]
METHODS: dict[str, Fit | None] = {"RTN": None, "GPTQ": gptq, "AdaRound": adaround}
"""By name; round-to-nearest has no fit."""


class _Builder(LayerBuilder):
    """A builder whose codes are uniform ones."""

    most, fit = 127, None

    def _codes(
        self, step: Step, request: Request, columns: Any, target: Any
    ) -> tuple[IntArray, FloatArray]:
        w = np.asarray(step.weight, dtype=np.float64)
        if self.fit is None:
            return nearest_grid(w, self.most)
        parts = node_groups(step.node)
        size, found = len(w) // parts, []
        for g in range(parts):
            rows = slice(g * size, (g + 1) * size)
            m = moments(columns[g], target[:, rows], w[rows], _DAMPING)
            y, _ = self.fit(m, self.most)
            found.append((y, solve_gains(m.gram, m.cross, y)))
        return np.concatenate([y for y, _ in found]), np.concatenate([gain for _, gain in found])


def uniform_network(
    model: Model, x: Any, bits: float, method: str, *, input_scale: float = 1.0
) -> Network:
    """The network with weights of so many bits (below 2: ternary), calibrated on ``x``."""
    options = QuantizerOptions(
        quantizer="plain", mend="biases", input_scale=input_scale, max_frames=len(x)
    )
    data = calibration_array(x, model.input_shape)
    steps = network_steps(model)
    source = model_source(model, options.activation_bits, data, input_scale)
    builder = _Builder(
        steps, source, model.to_internal(data, input_scale), requests(steps, options), {},
        model.ranges, options, measured=True,
    )  # fmt: skip
    builder.most, builder.fit = levels(bits), METHODS[method]  # type: ignore[assignment]
    builder.run()
    network = Network(
        model.name, source.spec, tuple(builder.layers), model.input_shape, model.input_axes, {},
        model.outputs, model.inputs,
    )  # fmt: skip
    network.verify()
    return network
