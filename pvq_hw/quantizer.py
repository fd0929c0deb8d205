"""Quantization: a float model becomes the integer network that everything else must meet."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.calibrate import calibration_array, input_spec, round_to_lattice, tensor_spec
from pvq_hw.errors import InputError
from pvq_hw.layers import Dense, TensorSpec
from pvq_hw.model import Model
from pvq_hw.network import Network
from pvq_hw.numeric import IntFormat
from pvq_hw.pyramid import nearest
from pvq_hw.quantizer_allocate import spread
from pvq_hw.quantizer_balance import balance
from pvq_hw.quantizer_graph import Stage, dense_stages
from pvq_hw.quantizer_moves import improve, moments, ridge_weights
from pvq_hw.quantizer_numbers import feasible_scale, requantization
from pvq_hw.quantizer_options import LayerOptions, Request, requests

__all__ = ["LayerOptions", "quantize"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Progress = Callable[[str, float], None]

OUTPUT_BITS = 16
_HEADROOM = 1.5  # of the final output's range over the largest value seen


@dataclass(frozen=True, eq=False)
class _Codes:
    """A layer's quantized weights: ``gain * y`` by group, with a real bias."""

    y: IntArray
    gain: FloatArray
    bias: FloatArray
    encoding: str = "pvq"

    def real(self) -> FloatArray:
        """The weights that the codes stand for, (M, N)."""
        size = self.y.shape[1] // self.gain.shape[1]
        return np.asarray(self.y * np.repeat(self.gain, size, axis=1))


def quantize(
    model: Model,
    *,
    calibration: Any = None,
    ratio: float = 10.0,
    quantizer: str = "calibrated",
    activation_bits: int = 8,
    layers: Mapping[str, Any] | None = None,
    banks: Mapping[str, int] | None = None,
    max_gap: Mapping[str, int] | None = None,
    seed: int = 0,
    input_scale: float = 1.0,
    max_frames: int = 6000,
    progress: Progress | None = None,
) -> Network:
    """Quantizes a model to pyramid codewords and integer activations.

    Parameters
    ----------
    model : Model
        A chain of dense layers with Relu or Clip.
    calibration : array (frames, ...) or an object with such an ``x``, optional
        Inputs like those of later use (no labels): floats as the model expects them, or
        integers that ``input_scale`` divides. Needed unless the quantizer is plain and the
        model carries ranges.
    ratio : float
        Mean N/K of the network: total weights over total pulses of the final codes is at least
        this, within 1 % where rows are long enough. Layers with a ``ratio`` or ``k`` of their
        own, and int8 layers, don't take part.
    quantizer : str
        ``"calibrated"``: least output error on the calibration data, by pulse moves.
        ``"plain"``: the nearest point of every row, with the least squares gain.
    activation_bits : int
        2 to 16, or 1 for {-1, +1}; of the input and between layers. The output has 16.
    layers : mapping of layer name to LayerOptions, optional
    banks : mapping of layer name to int, optional
        Balances pulses: column n is in bank ``n mod P``, every bank of a row has K/P pulses.
    max_gap : mapping of layer name to int, optional
        Largest advance between pulses of a bank, counted from 0 at the start of a row.
    seed : int
        Picks ``max_frames`` of the calibration frames where there are more.
    progress : function (layer name, part done), optional

    Raises
    ------
    InputError
        In one line, for options or data that cannot be used.
    """
    _check(ratio, quantizer, max_frames)
    stages = dense_stages(model)
    asked = requests(stages, layers, banks, max_gap)
    data = None
    if calibration is not None:
        data = calibration_array(calibration, model.input_shape)
        data = _choose_frames(data, max_frames, seed)
    elif quantizer == "calibrated" and not model.ranges:
        raise InputError(
            "Quantization must have calibration data, since the model carries no ranges; "
            "give --calibrate TRAIN.npz (calibration= in Python)"
        )
    elif quantizer == "calibrated":
        raise InputError(
            "Calibrated quantization must have calibration data; give --calibrate TRAIN.npz "
            "(calibration= in Python) or choose the plain quantizer"
        )
    spec = input_spec(
        model.input_name, model.shape, activation_bits, data, input_scale, model.ranges
    )
    x = None if data is None else model.to_internal(data, input_scale).reshape(len(data), -1)
    builder = _Builder(model, spec, x, activation_bits)
    for stage, request, k in zip(stages, asked, _budget(stages, asked, ratio), strict=True):
        if quantizer == "plain" or request.int8:
            codes = _plain(stage, request, k)
        else:
            codes = _calibrated(stage, request, k, builder, progress)
        builder.add(stage, codes, correct=quantizer != "plain")
        if progress:
            progress(stage.name, 1.0)
    meta = {
        "quantizer": quantizer,
        "ratio": float(ratio),
        "seed": int(seed),
        "source_sha256": model.source_sha256,
        "calibration_frames": 0 if data is None else len(data),
        "dropped": list(model.dropped),
    }
    network = Network(
        model.name, spec, tuple(builder.layers), model.input_shape, model.input_axes, meta
    )
    network.verify()
    return network


def _check(ratio: float, quantizer: str, max_frames: int) -> None:
    if not (np.isfinite(ratio) and ratio > 0):
        raise InputError(f"The ratio N/K must be a positive number, not {ratio}")
    if quantizer not in ("calibrated", "plain"):
        raise InputError(f"Quantizer must be calibrated or plain, not {quantizer!r}")
    if max_frames < 1:
        raise InputError(f"Calibration frames must be at least 1, not {max_frames}")


def _choose_frames(data: npt.NDArray[Any], count: int, seed: int) -> npt.NDArray[Any]:
    """All frames, or ``count`` of them drawn by ``seed``, in their order."""
    if len(data) <= count:
        return data
    chosen = np.random.default_rng(seed).choice(len(data), count, replace=False)
    return data[np.sort(chosen)]


def _budget(stages: tuple[Stage, ...], asked: list[Request], ratio: float) -> list[IntArray]:
    """K of every group of every layer, (M, G): as asked, else the same N/K everywhere."""
    result = []
    for stage, request in zip(stages, asked, strict=True):
        m, n = stage.node.weight.shape
        if request.k is not None:
            result.append(request.k)
            continue
        if request.total is None and not request.int8 and m * n < ratio:
            raise InputError(
                f"Layer {stage.name!r}: N/K must leave K at least 1, but {ratio} does not"
            )
        total = int(m * n / ratio + 1e-9) if request.total is None else request.total
        even = spread(np.ones(m * request.groups), total, request.multiple)
        result.append(even.reshape(m, request.groups))
    return result


def _plain(stage: Stage, request: Request, k: IntArray) -> _Codes:
    """Nearest codewords and their least squares gains; or 8-bit weights."""
    w = stage.node.weight
    m, n = w.shape
    if request.int8:
        scale = np.maximum(np.abs(w).max(axis=1, keepdims=True) / 127, 1e-30)
        return _Codes(np.rint(w / scale).astype(np.int64), scale, stage.node.bias, "int8")
    if request.shared:
        y = nearest(w.reshape(1, -1), np.array([k.sum()])).reshape(m, n)
    elif request.placement:
        y = balance(w, k[:, 0], request.placement)
    else:
        y = nearest(w.reshape(m * request.groups, -1), k.ravel()).reshape(m, n)
    return _Codes(y, _gains(w, y, request), stage.node.bias)


def _gains(w: FloatArray, y: IntArray, request: Request) -> FloatArray:
    """Least squares gains of the weights, (M, G), not negative."""
    shape = (1, -1) if request.shared else (len(y) * request.groups, -1)
    wg, yg = w.reshape(shape), y.reshape(shape).astype(np.float64)
    square = np.square(yg).sum(axis=1)
    gain = np.maximum((wg * yg).sum(axis=1), 0) / np.where(square > 0, square, 1)
    if request.shared:
        return np.full((len(y), 1), gain[0])
    return gain.reshape(len(y), request.groups)


def _calibrated(
    stage: Stage,
    request: Request,
    k: IntArray,
    builder: "_Builder",
    progress: Progress | None,
) -> _Codes:
    """Codewords of the least output error on the inputs that the network itself gives."""
    x, reference = builder.dequantized(), builder.reference(stage)
    w = stage.node.weight
    m = moments(x, reference, w)
    start = ridge_weights(m)
    if request.placement:
        y = balance(start, k[:, 0], request.placement)
    elif request.shared:
        y = nearest(start.reshape(1, -1), np.array([k.sum()])).reshape(w.shape)
    else:
        y = nearest(start.reshape(k.size, -1), k.ravel()).reshape(w.shape)
    y, gain = improve(
        m,
        y,
        groups=request.groups,
        shared=request.shared,
        placement=request.placement,
        progress=(lambda part: progress(stage.name, part)) if progress else None,
    )
    return _Codes(y, gain, stage.node.bias)


class _Builder:
    """Puts the integer layers together, with the calibration data running through them.

    ``values`` are the integers that the network has computed so far, ``exact`` what the float
    model has at the same place; both None without calibration data.
    """

    def __init__(
        self, model: Model, spec: TensorSpec, x: FloatArray | None, activation_bits: int
    ) -> None:
        self.model, self.spec, self.bits = model, spec, activation_bits
        self.layers: list[Dense] = []
        self.exact = x
        self.values: IntArray | None = None
        if x is not None:
            self.values = round_to_lattice(x, spec.scale, spec.format)

    def dequantized(self) -> FloatArray:
        """Real values (frames, N) of the integers so far."""
        assert self.values is not None
        return np.asarray(self.values * self.spec.scale, dtype=np.float64)

    def reference(self, stage: Stage) -> FloatArray:
        """The float model's output of the stage's dense node, (frames, M)."""
        assert self.exact is not None
        return np.asarray(self.exact @ stage.node.weight.T + stage.node.bias)

    def add(self, stage: Stage, codes: _Codes, correct: bool) -> None:
        """Appends the layer: bias corrected by the means, output scale, integers."""
        bias, fmt = codes.bias, self._format(stage)
        real = None
        if self.values is not None:
            reference = self.reference(stage)
            real = self.dequantized() @ codes.real().T
            if correct:
                bias = reference.mean(axis=0) - real.mean(axis=0)
            real += bias
            self.exact = np.maximum(reference, 0) if stage.relu else reference
            self.exact = np.minimum(self.exact, stage.high)
        output = self._output(stage, fmt, real, codes)
        k = np.abs(codes.y).reshape(*codes.gain.shape, -1).sum(axis=2)
        numbers = requantization(
            codes.gain, bias, k, self.spec.format, self.spec.scale, fmt, output.scale
        )
        layer = Dense(
            name=stage.name,
            input=self.spec.name,
            output=output,
            y=codes.y,
            mult=numbers.mult,
            bias=numbers.bias,
            shift=numbers.shift,
            gain=codes.gain,
            encoding=codes.encoding,
        )
        self.layers.append(layer)
        if self.values is not None:
            self.values = layer.compute(self.values)
        self.spec = output

    def _format(self, stage: Stage) -> IntFormat:
        if stage.last:
            return IntFormat(OUTPUT_BITS, True)
        return IntFormat(self.bits, self.bits == 1 or not stage.relu)

    def _output(
        self, stage: Stage, fmt: IntFormat, real: FloatArray | None, codes: _Codes
    ) -> TensorSpec:
        shape = (len(codes.y),)
        headroom = _HEADROOM if stage.last else None
        spec = tensor_spec(stage.output, shape, fmt, real, self.model.ranges, headroom)
        scale = min(spec.scale, stage.high / fmt.max) if np.isfinite(stage.high) else spec.scale
        scale = feasible_scale(codes.gain, self.spec.scale, scale)
        return TensorSpec(spec.name, shape, fmt, scale)
