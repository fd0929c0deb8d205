"""Quantization: a float model becomes the integer network that everything else must meet."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.data.augment import augmented
from pvq_hw.errors import InputError
from pvq_hw.model.model import Model
from pvq_hw.network.layer import TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.pyramid.nearest import gain, nearest
from pvq_hw.quantizer.banks import balance
from pvq_hw.quantizer.budget import round_to_multiple, spread
from pvq_hw.quantizer.chain import dense_stages, is_dense_chain, refuse_signs_of_zero
from pvq_hw.quantizer.datafree import Spread, corrected, equalized, spreads
from pvq_hw.quantizer.emit import Codes, emit
from pvq_hw.quantizer.fused import Step, rounded_input
from pvq_hw.quantizer.given import given_codes
from pvq_hw.quantizer.layer_options import LayerOptions, Request, requests
from pvq_hw.quantizer.layerwise import calibrated, row_pulses
from pvq_hw.quantizer.pulse_moves import within
from pvq_hw.quantizer.requantization import int8_codes
from pvq_hw.quantizer.scales import calibration_array, input_spec, round_to_lattice
from pvq_hw.quantizer.value_range import near_one

__all__ = [
    "MAX_FRAMES",
    "LayerOptions",
    "calibration_frames",
    "even_budget",
    "quantize",
    "row_budget",
]

MAX_FRAMES = 6000
"""Calibration frames that are looked at where nothing else is said."""

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Progress = Callable[[str, float], None]


@near_one
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
    max_frames: int = MAX_FRAMES,
    augment: str | Mapping[str, float] | None = None,
    sweeps: int = 1,
    patience: int = 16,
    gain_rule: str = "least-squares",
    mend: str = "none",
    pulses: Mapping[str, IntArray] | None = None,
    progress: Progress | None = None,
) -> Network:
    """Quantizes a model to pyramid codewords and integer activations.

    Parameters
    ----------
    model : Model
        Of any shape; chains of dense layers with Relu or Clip are refined as a whole.
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
        ``"plain"``: the nearest point of every row, with the least squares gain. ``"given"``: the
        weights are gains times whole numbers already, and those are the codes; ``ratio``,
        ``banks`` and ``max_gap`` then say nothing.
    activation_bits : int
        2 to 16, or 1 for {-1, +1}; of the input and between layers. The output has 16.
    layers : mapping of layer name to LayerOptions, optional
    banks : mapping of layer name to int, optional
        Balances pulses: column n is in bank ``n mod P``, every bank of a row has K/P pulses.
    max_gap : mapping of layer name to int, optional
        Largest advance between pulses of a bank, counted from 0 at the start of a row.
    seed : int
        Picks ``max_frames`` of the calibration frames where there are more.
    augment : str or mapping, optional
        Distorts seven of ten of these frames at random, as `pvq_hw.data.augment.augmented` does;
        where there are fewer than ``max_frames``, they are taken again and again.
    sweeps : int
        Of moves against the network's outputs, after the layers' own; 0 for none. Each costs
        about as much as all else and lowers the error further, the more frames there are.
    patience : int
        A row of a dense chain is done when this many of its cheapest pulses in turn have nowhere
        better to go; less is quicker.
    gain_rule : str
        Of the plain quantizer: ``"least-squares"``, or ``"norm"`` for gains that keep each row's
        norm. The calibrated one solves the gains that the outputs want.
    mend : str
        Of the plain quantizer on chains of dense layers: ``"biases"`` are corrected, ``"scales"``
        between layers made equal, ``"both"`` or ``"none"``; by the calibration inputs where
        there are some, else by guesses (see `pvq_hw.quantizer.datafree`).
    pulses : mapping of layer name to int64 array (M,), optional
        K of every row, as `row_budget` gave them for the same model, data and options; they are
        then not measured again, only rounded to the banks.
    progress : function (name of a layer or step, part done), optional

    Raises
    ------
    InputError
        In one line, for options or data that cannot be used.
    """
    _check(ratio, quantizer, max_frames, sweeps)
    if gain_rule not in ("least-squares", "norm"):
        raise InputError(f"Gain rule must be least-squares or norm, not {gain_rule!r}")
    if mend not in ("none", "biases", "scales", "both"):
        raise InputError(f"Mending must be none, biases, scales or both, not {mend!r}")
    if mend != "none" and (quantizer != "plain" or not is_dense_chain(model)):
        raise InputError("Mending must come with the plain quantizer and a chain of dense layers")
    if gain_rule != "least-squares" and quantizer != "plain":
        raise InputError("Norm-preserving gains must come with the plain quantizer")
    if not is_dense_chain(model):
        if gain_rule != "least-squares":
            raise InputError("Norm-preserving gains must come with a chain of dense layers")
        return _network(
            model, calibration, ratio, quantizer, activation_bits, layers, banks, max_gap, seed,
            input_scale, max_frames, augment, sweeps, pulses, progress,
        )  # fmt: skip
    stages = dense_stages(model)
    asked = requests(stages, layers, banks, max_gap)
    for stage in stages:
        if activation_bits == 1 and stage.activation.bounded:
            raise InputError(
                f"Activations must have 2 to 16 bits after layer {stage.name!r}, not 1: "
                "Relu and Clip give values, not signs"
            )
    data = _calibration(model, calibration, quantizer, max_frames, seed, augment)
    spec = _input_spec(model, activation_bits, data, input_scale)
    x = None if data is None else model.to_internal(data, input_scale).reshape(len(data), -1)
    if x is not None:
        refuse_signs_of_zero(model, x)
    ranges = model.ranges
    if quantizer == "given":
        codes = [_given(stage, request) for stage, request in zip(stages, asked, strict=True)]
    elif quantizer == "plain" or x is None:
        found: list[Spread] = []
        if mend != "none":
            found = spreads(stages, x, *ranges.get(model.input_name, (0.0, 1.0)))
        if mend in ("scales", "both"):
            stages, found, ranges = equalized(stages, found, ranges)
        codes = [
            _plain(stage, request, k, gain_rule)
            for stage, request, k in zip(stages, asked, _budget(stages, asked, ratio), strict=True)
        ]
        if mend in ("biases", "both"):
            codes = corrected(stages, codes, found, x is not None)
    else:
        lattice = np.asarray(round_to_lattice(x, spec.scale, spec.format) * spec.scale, dtype=float)
        none = np.zeros((0, 0), dtype=np.int64)
        if pulses is None:
            k = row_pulses(stages, asked, lattice, ratio, progress)
        else:
            k = _in_banks(stages, asked, pulses)
        codes = calibrated(
            stages, asked, lambda stage, request: _plain(stage, request, none), lattice, k,
            activation_bits, sweeps, progress, patience,
        )  # fmt: skip
    emitted = emit(stages, codes, spec, x, activation_bits, ranges)
    meta = _meta(model, quantizer, ratio, input_scale, seed, sweeps, data)
    meta["gain_rule"] = gain_rule
    meta["mend"] = mend
    network = Network(model.name, spec, tuple(emitted), model.input_shape, model.input_axes, meta)
    network.verify()
    return network


@near_one
def row_budget(
    model: Model,
    calibration: Any,
    *,
    ratio: float,
    layers: Mapping[str, Any] | None = None,
    activation_bits: int = 8,
    seed: int = 0,
    input_scale: float = 1.0,
    max_frames: int = MAX_FRAMES,
    augment: str | Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> dict[str, IntArray]:
    """Pulses of every row of the layers, (M,), or (M, G) where rows have groups: the first part of
    calibrated quantization, which banks do not change."""
    if not is_dense_chain(model):
        from pvq_hw.quantizer.fused import network_steps
        from pvq_hw.quantizer.sensitivity import measured_pulses

        frames = _calibration(model, calibration, "calibrated", max_frames, seed, augment)
        assert frames is not None
        inputs = model.to_internal(frames, input_scale).astype(np.float32)
        return measured_pulses(network_steps(model), inputs, ratio, layers or {}, seed, progress)
    stages = dense_stages(model)
    asked = requests(stages, layers, None, None)
    data = _calibration(model, calibration, "calibrated", max_frames, seed, augment)
    assert data is not None
    spec = _input_spec(model, activation_bits, data, input_scale)
    x = model.to_internal(data, input_scale).reshape(-1, int(np.prod(model.shape)))
    lattice = np.asarray(round_to_lattice(x, spec.scale, spec.format) * spec.scale, dtype=float)
    found = row_pulses(stages, asked, lattice, ratio, progress)
    return {s.name: k[:, 0] if k.shape[1] == 1 else k for s, k in zip(stages, found, strict=True)}


def even_budget(
    model: Model, *, ratio: float, layers: Mapping[str, Any] | None = None
) -> dict[str, IntArray]:
    """What `row_budget` gives, without measuring anything: every row of a layer has the same K."""
    stages = dense_stages(model)
    found = _budget(stages, requests(stages, layers, None, None), ratio)
    return {s.name: k[:, 0] if k.shape[1] == 1 else k for s, k in zip(stages, found, strict=True)}


def _in_banks(
    stages: tuple[Step, ...], asked: list[Request], pulses: Mapping[str, IntArray]
) -> list[IntArray]:
    """Pulses of rows that are known, (M, G), in multiples of the banks."""
    result = []
    for stage, request in zip(stages, asked, strict=True):
        k = np.asarray(pulses[stage.name], dtype=np.int64).reshape(-1, request.groups)
        if request.multiple > 1:
            k = round_to_multiple(k[:, 0], request.multiple)[:, None]
        result.append(k)
    return result


def _input_spec(
    model: Model, bits: int, data: npt.NDArray[Any] | None, input_scale: float
) -> TensorSpec:
    """Format and scale of the input: the model's own, where it rounds it."""
    rounding = rounded_input(model)
    if rounding is None:
        return input_spec(model.input_name, model.shape, bits, data, input_scale, model.ranges)
    fmt = IntFormat.between(rounding.low, rounding.high)
    return TensorSpec(model.input_name, model.shape, fmt, rounding.scale)


def _calibration(
    model: Model,
    calibration: Any,
    quantizer: str,
    max_frames: int,
    seed: int,
    augment: str | Mapping[str, float] | None,
) -> npt.NDArray[Any] | None:
    """The frames to calibrate with; InputError where there must be some."""
    data = None
    if calibration is not None:
        data = calibration_array(calibration, model.input_shape)
        data = data[calibration_frames(len(data), max_frames, seed)]
        if augment:
            # One axis of the file's may stand for several of the model's; then nothing may move.
            axes = model.input_axes if len(model.shape) == 3 else ()
            data = augmented(data, augment, axes=axes, seed=seed, frames=max_frames)
    elif augment:
        raise InputError("Augmentation must come with calibration data to distort")
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
    return data


def _meta(
    model: Model,
    quantizer: str,
    ratio: float,
    input_scale: float,
    seed: int,
    sweeps: int,
    data: npt.NDArray[Any] | None,
) -> dict[str, Any]:
    """Provenance of the network."""
    return {
        "quantizer": quantizer,
        "ratio": float(ratio),
        "input_scale": float(input_scale),
        "seed": int(seed),
        "sweeps": int(sweeps),
        "source_sha256": model.source_sha256,
        "calibration_frames": 0 if data is None else len(data),
        "dropped": list(model.dropped),
    }


def _network(
    model: Model,
    calibration: Any,
    ratio: float,
    quantizer: str,
    activation_bits: int,
    layers: Mapping[str, Any] | None,
    banks: Mapping[str, int] | None,
    max_gap: Mapping[str, int] | None,
    seed: int,
    input_scale: float,
    max_frames: int,
    augment: str | Mapping[str, float] | None,
    sweeps: int,
    pulses: Mapping[str, IntArray] | None,
    progress: Progress | None,
) -> Network:
    """`quantize` of a model that is not a chain of dense layers."""
    from pvq_hw.quantizer.fused import network_steps
    from pvq_hw.quantizer.graph import Wanted, quantize_steps

    steps = network_steps(model)
    names = [step.name for step in steps if step.weighted]
    for name in (*(layers or {}), *(banks or {}), *(max_gap or {})):
        if name not in names:
            raise InputError(f"Layer {name!r} must be one of {', '.join(names)}")
    for name, option in (layers or {}).items():
        if option.unit not in (None, "row"):
            raise InputError(f"Layer {name!r} must have a gain per row, not per {option.unit}")
    signs = [step.name for step in steps if step.activation.binary]
    if signs:
        raise InputError(f"Layer {signs[0]!r}: signs must be in a chain of dense layers")
    if activation_bits == 1:
        raise InputError("Activations of this network must have 2 to 16 bits, not 1")
    data = _calibration(model, calibration, quantizer, max_frames, seed, augment)
    spec = _input_spec(model, activation_bits, data, input_scale)
    x = None if data is None else model.to_internal(data, input_scale)
    wanted = Wanted(
        ratio,
        activation_bits,
        quantizer,
        layers or {},
        banks or {},
        max_gap or {},
        seed,
        pulses,
        sweeps,
    )
    made = quantize_steps(model, steps, spec, x, wanted, progress)
    meta = _meta(model, quantizer, ratio, input_scale, seed, sweeps, data)
    network = Network(model.name, spec, tuple(made), model.input_shape, model.input_axes, meta)
    network.verify()
    return network


def _check(ratio: float, quantizer: str, max_frames: int, sweeps: int) -> None:
    if not (np.isfinite(ratio) and ratio > 0):
        raise InputError(f"The ratio N/K must be a positive number, not {ratio}")
    if quantizer not in ("calibrated", "plain", "given"):
        raise InputError(f"Quantizer must be calibrated, plain or given, not {quantizer!r}")
    if max_frames < 1:
        raise InputError(f"Calibration frames must be at least 1, not {max_frames}")
    if sweeps < 0:
        raise InputError(f"Sweeps must be at least 0, not {sweeps}")


def calibration_frames(length: int, count: int, seed: int) -> IntArray:
    """Which of ``length`` frames are looked at: all, or ``count`` drawn by ``seed``, in order."""
    if length <= count:
        return np.arange(length)
    return np.sort(np.random.default_rng(seed).choice(length, count, replace=False))


def _budget(stages: tuple[Step, ...], asked: list[Request], ratio: float) -> list[IntArray]:
    """K of every group of every layer, (M, G): as asked, else the same N/K everywhere."""
    result = []
    for stage, request in zip(stages, asked, strict=True):
        m, n = stage.weight.shape
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


def _plain(stage: Step, request: Request, k: IntArray, rule: str = "least-squares") -> Codes:
    """Nearest codewords and their gains; or 8-bit weights."""
    w = stage.weight
    m, n = w.shape
    if request.int8:
        return Codes(*int8_codes(w), stage.bias, "int8")
    if request.shared:
        y = nearest(w.reshape(1, -1), np.array([k.sum()])).reshape(m, n)
    elif request.placement:
        y = balance(w, k[:, 0], request.placement)
    else:
        y = nearest(w.reshape(m * request.groups, -1), k.ravel()).reshape(m, n)
    if request.keep_zeros:
        y = within(y, w != 0, w)
    return Codes(y, _gains(w, y, request, rule), stage.bias)


def _given(stage: Step, request: Request) -> Codes:
    """The codes that the weights are."""
    if request.int8:
        return _plain(stage, request, np.zeros((0, 0), dtype=np.int64))
    if request.shared or request.groups > 1:
        raise InputError(f"Layer {stage.name!r} must have a gain per row where codes are given")
    y, rho = given_codes(stage.weight, stage.name)
    return Codes(y, rho, stage.bias)


def _gains(w: FloatArray, y: IntArray, request: Request, rule: str) -> FloatArray:
    """Gains of the weights, (M, G), not negative."""
    shape = (1, -1) if request.shared else (len(y) * request.groups, -1)
    rho = np.maximum(gain(w.reshape(shape), y.reshape(shape), rule), 0)
    if request.shared:
        return np.full((len(y), 1), rho[0])
    return rho.reshape(len(y), request.groups)
