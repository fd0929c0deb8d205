"""Checks of an output against the model on data: the figures of its evaluation, its biases, and
its input's scale."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.data.dataset import Data
from pvq_hw.errors import CheckError
from pvq_hw.evaluate.accuracy import evaluate_network, metric_for
from pvq_hw.evaluate.agreement import agreement
from pvq_hw.evaluate.metrics import BUILT_IN
from pvq_hw.model.model import Model
from pvq_hw.network.network import Network
from pvq_hw.output.folder import MANIFEST
from pvq_hw.output.verify_content import Finding
from pvq_hw.output.verify_model import Weights, is_bounded_only, is_equalized, weighted_steps

__all__ = ["MIN_FRAMES", "check_data_figures", "is_evaluated_on", "is_users_metric"]

FloatArray = npt.NDArray[np.float64]

MIN_FRAMES = 16
"""Frames below which means say nothing of biases."""

_FRAMES = 500  # looked at for the biases
_WORK = 2_000_000_000  # multiplications that may be spent on them
_CHUNK = 32
_MOST = 20  # findings of one kind
_ROW, _LAYER = 8.0, 3.0  # mean error of sums over its deviation: of one row, of a layer's rows
_SPREAD = 0.5  # of the sums themselves: what sweeps over all layers may trade between them
_STEPS = 4  # of the output: constant sums, too, are rounded through several layers
_FILE = "network/network.json"


def check_data_figures(
    model: Model, network: Network, manifest: Mapping[str, Any], data: Data
) -> list[Finding]:
    """What is not as the data says.

    - Where it is the data that the network was evaluated on: metric and figures of the manifest.
    - The input's scale: the data must not be rounded to zeros, nor cut to a fraction of itself.
    - What the integers compute: what their codes, scales and the model's operations give.
    - Biases that were fitted to data: the mean error of every row's sums must be small beside
      the error's own deviation, as fitting makes it.
    """
    findings = _accuracy(model, network, manifest, data) + _input(network, data)
    findings += _agreement(model, network, data)
    if is_bounded_only(network) and not is_equalized(network) and len(data) >= MIN_FRAMES:
        findings += _biases(model, network, data)
    return findings


def is_evaluated_on(manifest: Mapping[str, Any], data: Data) -> bool:
    """Whether the manifest's figures are of this data."""
    return _extra(manifest).get("evaluation_sha256") == data.sha256


def is_users_metric(manifest: Mapping[str, Any]) -> bool:
    """Whether the figures are by a function of the user's, whose code no verification runs."""
    accuracy = _extra(manifest).get("accuracy")
    return isinstance(accuracy, Mapping) and ":" in str(accuracy.get("metric"))


def _extra(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    extra = manifest.get("extra")
    return extra if isinstance(extra, Mapping) else {}


def _accuracy(
    model: Model, network: Network, manifest: Mapping[str, Any], data: Data
) -> list[Finding]:
    """The figures of the evaluation, made again. Those of the float model may differ by a frame
    in a thousand, since libraries round its sums differently."""
    if data.y is None or not is_evaluated_on(manifest, data):
        return []
    accuracy = _extra(manifest).get("accuracy")
    stored = accuracy if isinstance(accuracy, Mapping) else {}
    if is_users_metric(manifest):
        return []
    name = stored.get("metric")
    metric = name if name in BUILT_IN and name != metric_for(model, data.y).name else None
    found = evaluate_network(model, network, data, metric).to_json()
    findings = []
    for key, value in found.items():
        old = stored.get(key)
        near = max(1, len(data) // 1000)
        room = 0.0
        if found["metric"] == "accuracy":
            counts = dict.fromkeys(("disagreements", "only_float", "only_pvq"), near)
            percent = dict.fromkeys(("float", "float_interval"), 100 * near / len(data))
            counts["confusion"] = near
            room = (counts | percent).get(key, 0)
        if not _alike(old, value, room):
            text = f"is {old!r:.60}, but must be {value!r:.60}"
            findings.append(Finding(MANIFEST, f"extra.accuracy.{key}", text))
    return findings


def _alike(old: Any, value: Any, room: float) -> bool:
    """Whether a stored figure, or each of a list, is within ``room`` of the right one."""
    if isinstance(value, Mapping) and isinstance(old, Mapping) and old.keys() == value.keys():
        return all(_alike(old[key], value[key], room) for key in value)
    if isinstance(value, list) and isinstance(old, list) and len(old) == len(value):
        return all(_alike(a, b, room) for a, b in zip(old, value, strict=True))
    if not isinstance(value, int | float) or not isinstance(old, int | float):
        return bool(old == value)
    return abs(old - value) <= room + 1e-6 * abs(value)


def _agreement(model: Model, network: Network, data: Data) -> list[Finding]:
    try:
        agreement(model, network, data, "evaluation")
    except CheckError as error:
        return [Finding(_FILE, "", str(error))]
    return []


def _input(network: Network, data: Data) -> list[Finding]:
    """The input's scale, or of several each one's, beside the magnitude of the data."""
    if network.input.format.binary:
        return []
    real, findings = data.real().reshape(len(data), -1), []
    for place, spec in network.taken():
        top = float(np.abs(real[:, place]).max(initial=0.0))
        if top and not spec.scale <= top <= 8 * spec.scale * spec.format.max:
            text = f"has the scale {spec.scale:.3g}, which does not suit data of up to {top:.3g}"
            findings.append(
                Finding(_FILE, f"input {spec.name!r}" if network.inputs else "input", text)
            )
    return findings


def _biases(model: Model, network: Network, data: Data) -> list[Finding]:
    frames = min(len(data), max(MIN_FRAMES, min(_FRAMES, _WORK // max(1, 2 * model.macs))))
    findings = []
    parts = list(weighted_steps(model, network))
    errors = _errors(model, network, parts, data.head(frames))
    for part, (mean, deviation, spread) in zip(parts, errors, strict=True):
        place = f"layer {part.layer.name!r}"
        step = _unit(part) if part.is_threshold else part.layer.output.scale
        room = np.hypot(np.hypot(deviation, _STEPS * step), _SPREAD * spread) * (
            3 if part.is_coarse else 1
        )
        text = "has a bias that moves its sums away from the model's on this data"
        rows = np.flatnonzero(np.abs(mean) > _ROW * room)
        if np.square(mean).sum() > _LAYER**2 * np.square(room).sum():
            findings.append(
                Finding(_FILE, place, text.replace("a bias that moves", "biases that move"))
            )
        findings += [Finding(_FILE, f"{place} row {row}", text) for row in rows[:_MOST]]
    return findings


def _unit(part: Weights) -> FloatArray:
    return np.asarray(part.layer.gain[:, 0] * part.x.scale)


def _errors(
    model: Model, network: Network, parts: list[Weights], data: Data
) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
    """Figures of every layer's rows, in real units, (M,) each: mean and deviation of the integer
    sums less the float ones, and the float sums' deviation."""
    sums = {part.layer.name: np.zeros((4, len(part.layer.bias))) for part in parts}
    count = dict.fromkeys(sums, 0)
    for start in range(0, len(data), _CHUNK):
        x = data.x[start : start + _CHUNK]
        exact = model.trace(x, data.input_scale)
        values = {network.input.name: network.quantize_input(x, data.input_scale)}
        known = {part.layer.name: part for part in parts}
        for layer in network.layers:
            inputs = [values[name] for name in layer.inputs]
            values[layer.output.name] = layer.compute(*inputs)
            if layer.name in known:
                part = known[layer.name]
                z = exact[part.step.node.output].reshape(-1, len(part.layer.bias))
                off = _sums(part, inputs[0]) - z
                moments = (off, np.square(off), z, np.square(z))
                sums[layer.name] += [moment.sum(axis=0) for moment in moments]
                count[layer.name] += len(off)
    found = []
    for name, total in sums.items():
        mean, square, z, z_square = total / max(1, count[name])
        deviation, spread = (
            np.sqrt(np.maximum(b - np.square(a), 0)) for a, b in ((mean, square), (z, z_square))
        )
        found.append((mean, deviation, spread))
    return found


def _sums(part: Weights, x: npt.NDArray[np.int64]) -> FloatArray:
    """The layer's sums with their biases in real units, (positions, M)."""
    layer = part.layer
    total = layer.products(x)
    if part.is_threshold:  # multipliers are 1
        return np.asarray((total.reshape(-1, len(layer.bias)) + layer.bias + 1) * _unit(part))
    half = 1 << layer.shift - 1 if layer.output.format.binary else 0
    scale = layer.output.scale / 2.0**layer.shift
    return np.asarray((total.reshape(-1, len(layer.bias)) + layer.bias + half) * scale)
