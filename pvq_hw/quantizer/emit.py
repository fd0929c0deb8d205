"""From quantized weights to integer layers: activation scales, multipliers, biases, shifts."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pvq_hw.arith import exact
from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import InputError
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.quantizer.fused import Step
from pvq_hw.quantizer.requantization import feasible_scale, requantization, thresholds
from pvq_hw.quantizer.scales import bounded_format, round_to_lattice, tensor_spec

__all__ = ["OUTPUT_BITS", "Codes", "emit", "output_spec"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

OUTPUT_BITS = 16
"""Width of the network's output, signed."""

_HEADROOM = 1.5  # of the final output's range over the largest value seen


@dataclass(frozen=True, eq=False)
class Codes:
    """A layer's quantized weights: ``gain * y`` by group, with a real bias.

    Parameters
    ----------
    y : int64 array (M, N)
    gain : float64 array (M, G)
    bias : float64 array (M,)
    encoding : str
        ``"pvq"`` or ``"int8"``.
    means : float64 array (M,), optional
        What the sums should be on average over the calibration data; the integer layer's bias is
        corrected to that.
    """

    y: IntArray
    gain: FloatArray
    bias: FloatArray
    encoding: str = "pvq"
    means: FloatArray | None = None

    def real(self) -> FloatArray:
        """The weights that the codes stand for, (M, N)."""
        size = self.y.shape[1] // self.gain.shape[1]
        return np.asarray(self.y * np.repeat(self.gain, size, axis=1))


def emit(
    stages: tuple[Step, ...],
    codes: list[Codes],
    spec: TensorSpec,
    x: FloatArray | None,
    bits: int,
    ranges: dict[str, tuple[float, float]],
) -> list[Dense]:
    """The integer layers, with the calibration data running through them.

    Parameters
    ----------
    spec : TensorSpec
        Of the network's input.
    x : float64 array (frames, N), optional
        Real calibration inputs; without them the scales come from ``ranges``.
    bits : int
        Of the activations between layers.
    """
    values = None if x is None else round_to_lattice(x, spec.scale, spec.format)
    layers = []
    for stage, code in zip(stages, codes, strict=True):
        bias, real = code.bias, None
        if values is not None:
            real = _sums(values, code) * spec.scale
            if code.means is not None:
                bias = code.means - real.mean(axis=0)
            real += bias
        least = feasible_scale(code.gain, spec.scale, 0.0)
        output = output_spec(stage, (len(code.y),), real, bits, True, least, ranges)
        layer = _layer(stage, code, bias, spec, output)
        layers.append(layer)
        values = None if values is None else layer.compute(values)
        spec = output
    return layers


def _sums(values: IntArray, code: Codes) -> FloatArray:
    """``sum_g gain[g] * (y[g] @ x)`` of every row, (frames, M): integers first, so exact."""
    groups = code.gain.shape[1]
    size = code.y.shape[1] // groups
    total = np.zeros((len(values), len(code.y)))
    for g in range(groups):
        part = slice(g * size, (g + 1) * size)
        zero = np.zeros(len(code.y))
        total += exact.sums(values[:, part], code.y[:, part], zero, np.float64) * code.gain[:, g]
    return total


def output_spec(
    step: Step,
    shape: tuple[int, ...],
    real: FloatArray | None,
    bits: int,
    signed: bool,
    least: float,
    ranges: dict[str, tuple[float, float]],
) -> TensorSpec:
    """Format and scale of a step's output.

    Parameters
    ----------
    real : float array, optional
        Its values before the activation; the scale is the one of the least error on them, or
        else covers its range in ``ranges``.
    bits : int
        Of activations; the network's output has 16.
    signed : bool
        Whether values below 0 occur where the activation does not rule them out.
    least : float
        The smallest scale that the multipliers allow.
    """
    if step.format is not None:
        if step.scale < least:
            raise InputError(
                f"Layer {step.name!r} must have an output scale of at least {least:.6g}, not "
                f"{step.scale:.6g}, which its gains in steps of its multiplier ask for"
            )
        return TensorSpec(step.output, shape, step.format, step.scale)
    kind = step.activation
    if kind.binary:
        return TensorSpec(step.output, shape, IntFormat(1, True), 1.0)
    if step.last:
        fmt, headroom = kind.format(OUTPUT_BITS), _HEADROOM
    else:
        fmt, headroom = kind.format(bits, signed), None
    fmt = bounded_format(step.name, fmt, kind.high, least)
    real = None if real is None else kind.compute(real)
    found = tensor_spec(step.output, shape, fmt, real, ranges, headroom)
    return replace(found, scale=max(least, min(found.scale, kind.largest_scale(fmt))))


def _layer(
    stage: Step, code: Codes, bias: FloatArray, spec: TensorSpec, output: TensorSpec
) -> Dense:
    k = np.abs(code.y).reshape(*code.gain.shape, -1).sum(axis=2)
    if output.format.binary and code.gain.shape[1] == 1:
        numbers = thresholds(code.gain[:, 0] * spec.scale, bias, k[:, 0] * spec.format.max_abs)
    else:
        numbers = requantization(
            code.gain, bias, k, spec.format, spec.scale, output.format, output.scale
        )
    return Dense(
        name=stage.name,
        input=spec.name,
        output=output,
        y=code.y,
        mult=numbers.mult,
        bias=numbers.bias,
        shift=numbers.shift,
        gain=code.gain,
        encoding=code.encoding,
    )
