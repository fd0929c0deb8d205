"""Quantization: a float model becomes the integer network that everything else must meet."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.data.augment import augmented
from pvq_hw.errors import InputError
from pvq_hw.model.model import Conv, Dense, MaxPool, Model, Sign
from pvq_hw.network.layer import Layer, TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.quantizer.autodiff import Lattice, Tape
from pvq_hw.quantizer.expansion import Rows
from pvq_hw.quantizer.fused import Step, network_steps
from pvq_hw.quantizer.layer_options import LayerOptions, Request, even_pulses, requests
from pvq_hw.quantizer.layerwise import LayerBuilder, integers
from pvq_hw.quantizer.learning import learn
from pvq_hw.quantizer.mend import drawn_inputs, equalized
from pvq_hw.quantizer.options import MAX_FRAMES, QuantizerOptions
from pvq_hw.quantizer.refine import refine
from pvq_hw.quantizer.requantization import MULT_BITS, few_digits
from pvq_hw.quantizer.scales import GIVE_DATA, calibration_array
from pvq_hw.quantizer.sensitivity import measured_pulses
from pvq_hw.quantizer.sharing import share_rows
from pvq_hw.quantizer.source import model_source
from pvq_hw.quantizer.value_range import near_one

__all__ = [
    "MAX_FRAMES",
    "LayerOptions",
    "QuantizerOptions",
    "calibration_frames",
    "layer_pulses",
    "quantize",
    "row_budget",
]

_VALUES = 1 << 27  # of the inputs that are looked at: 1 GiB as they are read
_LEAST_FRAMES = 256

IntArray = npt.NDArray[np.int64]
Progress = Callable[[str, float], None]

_SWEPT = 0.75  # of the time of a refinement that ends with learning
_SHARED = 0.25  # the same, of one that goes on with codes that share sums


def quantize(
    model: Model,
    options: QuantizerOptions | None = None,
    *,
    calibration: Any = None,
    progress: Progress | None = None,
    **changes: Any,
) -> Network:
    """Quantizes a model to pyramid codewords and integer activations.

    Parameters
    ----------
    model : Model
        Any graph: a chain of dense layers is the simplest.
    options : QuantizerOptions, optional
    calibration : array (frames, ...) or an object with such an ``x``, optional
        Inputs like those of later use (no labels): floats as the model expects them, or
        integers that ``input_scale`` divides. Needed unless the quantizer is plain and the
        model carries ranges.
    progress : function (name of a layer or step, part done), optional
    **changes
        Single fields of the options, in the place of those.

    Raises
    ------
    InputError
        In one line, for options or data that cannot be used; what a layer cannot do, by its name.
    """
    return _quantize(
        model, calibration, replace(options or QuantizerOptions(), **changes), progress
    )


def row_budget(
    model: Model,
    calibration: Any,
    options: QuantizerOptions | None = None,
    *,
    progress: Progress | None = None,
    **changes: Any,
) -> dict[str, IntArray]:
    """Pulses of every row of the layers, (M,), or (M, G) where rows have groups: the first part of
    calibrated quantization, which banks do not change. Parameters as of `quantize`."""
    asked = replace(options or QuantizerOptions(), **changes)
    return _row_budget(model, calibration, replace(asked, quantizer="calibrated"), progress)


def layer_pulses(
    model: Model, options: QuantizerOptions, emphasis: Mapping[str, float] | None = None
) -> dict[str, int]:
    """Pulses of the layers, by name, as far as they are known without data; ``emphasis``
    multiplies the shares of layers."""
    steps = network_steps(model)
    found = even_pulses(steps, requests(steps, options), options.ratio, emphasis)
    return {name: int(k.sum()) for name, k in found.items()}


@near_one
def _quantize(
    model: Model, calibration: Any, options: QuantizerOptions, progress: Progress | None
) -> Network:
    steps = network_steps(model)
    asked = requests(steps, options)
    _check_bits(steps, options.activation_bits)
    data = _calibration(model, calibration, options)
    source = model_source(model, options.activation_bits, data, options.input_scale)
    if source.spec.name in (options.scales or {}):
        scale = (options.scales or {})[source.spec.name]
        source = replace(source, spec=replace(source.spec, scale=scale))
    x = None if data is None else model.to_internal(data, options.input_scale)
    if x is not None:
        _refuse_signs_of_zero(model, x)
    ranges, pulses = model.ranges, {}
    if options.mend != "none" and x is None:
        x = drawn_inputs(model, options.seed)
    if options.mends_scales and x is not None:
        steps, ranges = equalized(steps, x, ranges)
    if options.pulses is not None:
        pulses = dict(options.pulses)
    elif options.calibrated and x is not None:
        inputs = x.astype(np.float32)
        pulses = measured_pulses(steps, inputs, options.ratio, asked, options.seed, progress)
    elif options.quantizer != "given":
        pulses = even_pulses(steps, asked, options.ratio)
    builder = LayerBuilder(
        steps, source, x, asked, pulses, ranges, options, measured=data is not None,
        progress=progress,
    )  # fmt: skip
    builder.run()
    layers = builder.layers
    if options.calibrated and options.sweeps and x is not None:
        layers = _refined(builder, asked, x, options, progress)
    layers = [_rounded(layer, options) for layer in layers]
    meta = _meta(model, options, data)
    network = Network(
        model.name, source.spec, tuple(layers), model.input_shape, model.input_axes, meta,
        model.outputs, model.inputs,
    )  # fmt: skip
    network.verify()
    return network


@near_one
def _row_budget(
    model: Model, calibration: Any, options: QuantizerOptions, progress: Progress | None
) -> dict[str, IntArray]:
    steps = network_steps(model)
    asked = requests(steps, options)
    data = _calibration(model, calibration, options)
    assert data is not None
    x = model.to_internal(data, options.input_scale).astype(np.float32)
    return measured_pulses(steps, x, options.ratio, asked, options.seed, progress)


def _refined(
    builder: LayerBuilder,
    asked: Mapping[str, Request],
    x: npt.NDArray[Any],
    options: QuantizerOptions,
    progress: Progress | None,
) -> list[Layer]:
    """The layers with their pulses moved, and gains and biases learned, against the network's
    outputs; formats stay."""
    layers, steps, spec = builder.layers, builder.steps, builder.source.spec
    tape = Tape(steps, spec.name)
    inputs, parts = x.astype(np.float32), builder.source.parts
    if not parts:  # several inputs are rounded where they are taken
        tape.lattices[spec.name] = Lattice.of(spec)
        inputs = tape.lattices[spec.name].round(inputs)
    for step, layer in zip(steps, layers, strict=True):
        rounds = not step.node.keeps or step.output in parts
        if rounds and layer is not layers[-1]:
            tape.lattices[layer.output.name] = Lattice.of(layer.output)
    for name, rows in builder.rows.items():
        rows.put(tape, name)
    movable = {n: r for n, r in builder.rows.items() if asked[n].movable}
    for name in _before_signs(steps):
        movable.pop(name, None)
    if not movable:
        return layers
    maps = any(step.node.size != step.node.shape[-1] for step in steps)
    learns = maps or bool(options.shared_sums)
    swept = (_SHARED if options.shared_sums else _SWEPT) if learns else 1
    found, _ = refine(
        tape, movable, inputs, sweeps=options.sweeps, seed=options.seed,
        progress=_within(progress, 0, swept),
    )  # fmt: skip
    if options.shared_sums:
        found = share_rows(
            tape, found, inputs, options.shared_sums, seed=options.seed,
            progress=_within(progress, _SHARED, _SWEPT),
        )  # fmt: skip
    if learns:  # networks of vectors alone gain a hundredth of their error
        found, _ = learn(
            tape, found, inputs, seed=options.seed, progress=_within(progress, _SWEPT, 1)
        )
    wide = {step.name: options.multipliers(step.name, step.mult_bits) for step in steps}
    specs = {spec.name: spec} | {layer.output.name: layer.output for layer in layers}
    return [
        _again(layer, found[layer.name], specs[layer.inputs[0]], *wide[layer.name])
        if layer.name in found
        else layer
        for layer in layers
    ]


def _within(progress: Progress | None, low: float, high: float) -> Progress | None:
    """Reports the parts of a step as parts between ``low`` and ``high``."""
    if progress is None:
        return None
    return lambda name, part: progress(name, low + (high - low) * part)


def _before_signs(steps: tuple[Step, ...]) -> set[str]:
    """Steps whose outputs go through a sign, which has no slope to expand in."""
    blocked: set[str] = set()  # tensors
    found = set()
    for step in reversed(steps):
        if step.activation.binary or step.output in blocked:
            found.add(step.name)
            blocked |= set(step.inputs)
    return found


def _again(layer: Any, rows: Rows, x: TensorSpec, bits: int, shift: int | None) -> Layer:
    """The layer with other codes, and the same output."""
    # See `feasible_scale`.
    most = ((1 << bits) - 1) / (1 << (shift or 1)) * layer.output.scale / x.scale
    rows = replace(rows, gain=np.minimum(rows.gain, most))
    numbers = integers(rows, x, layer.output, bits, shift)
    return replace(  # type: ignore[no-any-return]
        layer, y=rows.y, gain=rows.gain, mult=numbers.mult, bias=numbers.bias, shift=numbers.shift
    )


def _rounded(layer: Any, options: QuantizerOptions) -> Layer:
    """The layer with gains of which the multipliers have as few digits as are asked for."""
    digits = (options.gain_digits or {}).get(layer.name)
    if digits is None or layer.output.format.binary:
        return layer  # type: ignore[no-any-return]
    limit = (1 << max(int(layer.mult.max()).bit_length(), MULT_BITS)) - 1
    mult = few_digits(layer.mult, digits, limit)
    scale = np.divide(mult, layer.mult, out=np.ones(mult.shape), where=layer.mult > 0)
    return replace(layer, mult=mult, gain=layer.gain * scale)  # type: ignore[no-any-return]


def _check_bits(steps: tuple[Step, ...], bits: int) -> None:
    """Raises InputError, by layer, for what activations of one bit cannot go through."""
    signs = {step.output: step.name for step in steps if step.activation.binary}
    for step in steps:
        where = f"Layer {step.name!r}"
        dense = isinstance(step.node, Dense)
        for name in step.inputs:
            if name not in signs:
                continue
            if not isinstance(step.node, Dense | Conv | MaxPool):
                raise InputError(
                    f"{where} must not read signs, here of {signs[name]!r}: layers with weights "
                    f"and largest values of windows do, and it has kind {step.node.op}"
                )
            if isinstance(step.node, Conv) and any(map(any, step.node.geometry.pads)):
                raise InputError(
                    f"{where} must not pad signs, here of {signs[name]!r}, with 0, which one bit "
                    "doesn't hold; pad before the sign, or not at all"
                )
            if isinstance(step.node, MaxPool):
                signs[step.output] = signs[name]
        if bits == 1 and step.activation.bounded:
            raise InputError(
                f"Activations must have 2 to 16 bits after layer {step.name!r}, not 1: "
                "Relu and Clip give values, not signs"
            )
        if bits == 1 and not dense:
            raise InputError(
                f"Activations must have 2 to 16 bits, not 1, since layer {step.name!r} has kind "
                f"{step.node.op}: only dense layers read one bit"
            )


def _refuse_signs_of_zero(model: Model, x: npt.NDArray[Any]) -> None:
    """Raises InputError, by node, where a Sign reads a sum of exactly 0 in a frame of ``x``: its
    sign is 0, which one bit doesn't hold."""
    signs = {node.inputs[0]: node for node in model.nodes if isinstance(node, Sign)}
    if not signs:
        return
    for node, out in model.steps(x):
        if node.output in signs and not out.all():
            frame, unit = np.argwhere(out.reshape(len(out), -1) == 0)[0]
            raise InputError(
                f"Layer {signs[node.output].name!r} must not take the sign of 0, which is 0 and "
                f"not -1 or +1: output {unit} of layer {node.name!r} is exactly 0 in calibration "
                f"frame {frame}; give the layer biases that rule it out, 0.5 where weights and "
                "inputs are whole numbers"
            )


def _calibration(
    model: Model, calibration: Any, options: QuantizerOptions
) -> npt.NDArray[Any] | None:
    """The frames to calibrate with; InputError where there must be some."""
    if calibration is not None:
        data = calibration_array(calibration, model.input_shape)
        most = max(_LEAST_FRAMES, _VALUES // math.prod(model.shape))
        data = data[calibration_frames(len(data), min(options.max_frames, most), options.seed)]
        if options.augment:
            # One axis of the file's may stand for several of the model's; then nothing may move.
            axes = model.input_axes if len(model.shape) == 3 else ()
            data = augmented(
                data, options.augment, axes=axes, seed=options.seed, frames=options.max_frames
            )
        return data
    if options.augment:
        raise InputError("Augmentation must come with calibration data to distort")
    if options.calibrated and not model.ranges:
        raise InputError(
            "Quantization must have calibration data, since the model carries no ranges; "
            f"{GIVE_DATA}"
        )
    if options.calibrated:
        raise InputError(
            f"Calibrated quantization must have calibration data; {GIVE_DATA} "
            "or choose the plain quantizer"
        )
    return None


def calibration_frames(length: int, count: int, seed: int) -> IntArray:
    """Indices of the frames to calibrate with: all ``length``, or ``count`` drawn by ``seed``, in
    order."""
    if length <= count:
        return np.arange(length)
    return np.sort(np.random.default_rng(seed).choice(length, count, replace=False))


def _meta(model: Model, options: QuantizerOptions, data: npt.NDArray[Any] | None) -> dict[str, Any]:
    """Provenance of the network."""
    return {
        "quantizer": options.quantizer,
        "ratio": float(options.ratio),
        "input_scale": float(options.input_scale),
        "seed": int(options.seed),
        "sweeps": int(options.sweeps),
        "source_sha256": model.source_sha256,
        "calibration_frames": 0 if data is None else len(data),
        "dropped": list(model.dropped),
        **({"scored_output": model.scored} if model.scored else {}),
        "gain_rule": options.gain_rule,
        "mend": options.mend,
        **({"placed": sorted(options.placed)} if options.placed else {}),
    }
