"""Does the integer network still compute what the model file says? Three runs on the same inputs.

The float model, the float model with the weights that the codes stand for, and the integer
network. The first against the second is what the codes cost; the last two differ by rounding
alone, which is taken into account tensor by tensor, so a lost operation shows where there are no
labels too. The model file is also run by a runtime of ONNX, not through this package's importer.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import significant
from pvq_hw.data.dataset import Data
from pvq_hw.engine.core import is_threshold
from pvq_hw.errors import CheckError
from pvq_hw.evaluate.attribution import quantized_node
from pvq_hw.evaluate.metrics import answers
from pvq_hw.model.model import Model
from pvq_hw.model.nodes import Node
from pvq_hw.network.golden_inputs import golden_inputs
from pvq_hw.network.layer import Layer, TensorSpec, Weighted
from pvq_hw.network.network import Network
from pvq_hw.network.window import AveragePool
from pvq_hw.quantizer.quantize import MAX_FRAMES, calibration_frames
from pvq_hw.quantizer.scales import round_to_lattice

__all__ = ["Agreement", "agreement", "agreement_data", "agreement_lines", "with_codes"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_FRAMES = 256
_LEAST_FRAMES = 16
_WORK = 3_000_000_000  # multiplications that may be spent
_RANDOM_FRAMES = 64
_CHUNK = 32
_STEPS = 2.0
"""Steps of a tensor that a layer's integers may be off real arithmetic on the same integers: a
rounding of the output, and of multiplier and bias, which `_room` adds for long rows."""
_SIGNS = 1e-3  # of a tensor's signs may differ: sums at the threshold itself


@dataclass(frozen=True)
class Agreement:
    """How far the integer network is from the float model, and why.

    Parameters
    ----------
    frames : int
    data : str
        Where the frames come from: ``"evaluation"``, ``"held-out calibration"``,
        ``"calibration"`` or ``"random"``.
    codes_error, rounding_error, integer_error : float
        Root mean square differences of the outputs, as parts of the float outputs' standard
        deviation: float model against float model with the weights of the codes; that against
        the same with rounded activations; that against the integer network.
    codes_equal, rounding_equal, integer_equal : float
        Frames with the same answer (index of the largest output), percent, for the same pairs.
    integer_steps : float
        The last difference in steps of the output's scale.
    outputs : mapping
        Of a model of several outputs, by their names: root mean square differences of the float
        model against the integer network, as a part of that output's standard deviation.
    """

    frames: int
    data: str
    codes_error: float
    codes_equal: float
    rounding_error: float
    rounding_equal: float
    integer_error: float
    integer_equal: float
    integer_steps: float
    outputs: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON values, four digits each."""
        pairs = {
            what: {
                "relative_rms_error": significant(getattr(self, f"{what}_error"), 4),
                "equal_answers_percent": significant(getattr(self, f"{what}_equal"), 4),
            }
            for what in ("codes", "rounding", "integer")
        }
        pairs["integer"]["rms_output_steps"] = significant(self.integer_steps, 4)
        found = {"frames": self.frames, "data": self.data, **pairs}
        if self.outputs:
            found["outputs"] = {name: significant(v, 4) for name, v in self.outputs.items()}
        return found


def agreement(model: Model, network: Network, data: Data, source: str) -> Agreement:
    """Runs model and network on the first frames of ``data``.

    Parameters
    ----------
    model : Model
    network : Network
        Its quantization.
    data : Data
        Labels are not looked at.
    source : str
        Where the data comes from.

    Raises
    ------
    CheckError
        Where the integer network is not what its codes, scales and the model's operations give.
    """
    network = network.undecided
    count = _WORK // max(1, 4 * model.macs)
    frames = min(len(data), max(_LEAST_FRAMES, min(_FRAMES, count)))
    x = data.x[:frames]
    coded = with_codes(model, network)
    exact, codes = model.predict(x, data.input_scale), coded.predict(x, data.input_scale)
    integers = network.quantize_input(x, data.input_scale)
    parts = [integers[start : start + _CHUNK] for start in range(0, frames, _CHUNK)]
    golden = np.concatenate([_checked(coded, network, part) for part in parts])
    rounded = np.concatenate([_through(coded, network, part, _nearest) for part in parts])
    spread = np.empty(exact.shape[1])
    for part in model.parts:
        real = exact[:, part]
        spread[part] = float(real.std(axis=0).max()) or float(np.abs(real).max()) or 1.0
    pairs = [(exact, codes), (codes, rounded), (rounded, golden)]
    error = [_rms((b - a) / spread) for a, b in pairs]
    equal = [_equal(model.parts, a, b) for a, b in pairs]
    return Agreement(
        frames, source, error[0], equal[0], error[1], equal[1], error[2], equal[2],
        _rms((golden - rounded) / network.unit()),
        {o.name: _rms(((golden - exact) / spread)[:, o.part]) for o in model.outputs},
    )  # fmt: skip


def _equal(parts: Sequence[slice], a: FloatArray, b: FloatArray) -> float:
    """Percent of frames with the same answer in every part."""
    same = [answers(a[:, part]) == answers(b[:, part]) for part in parts]
    return 100.0 * float(np.mean(np.all(same, axis=0)))


def agreement_data(
    network: Network, evaluation: Data | None, calibration: Data | None
) -> tuple[Data, str]:
    """Frames to compare on, and where they come from.

    Evaluation data where there are some, else calibration frames that the quantizer did not draw,
    else those that it did, else random inputs.
    """
    if evaluation is not None:
        return evaluation, "evaluation"
    if calibration is None:
        return Data(_random_inputs(network)), "random"
    count = int(network.meta.get("calibration_frames") or MAX_FRAMES)
    used = calibration_frames(len(calibration), count, int(network.meta.get("seed", 0)))
    rest = np.setdiff1d(np.arange(len(calibration)), used)
    if len(rest) < _LEAST_FRAMES:
        return calibration, "calibration"
    return replace(calibration, x=calibration.x[rest], y=None), "held-out calibration"


def _random_inputs(network: Network) -> FloatArray:
    """Real inputs in the file's axes, over the range of the network's input."""
    real = golden_inputs(network, frames=_RANDOM_FRAMES) * network.input_unit()
    axes = network.input_axes
    stored = real.reshape(len(real), *(network.input_shape[a] for a in axes))
    return np.asarray(stored.transpose(0, *(1 + np.argsort(axes))), dtype=np.float64)


def with_codes(model: Model, network: Network) -> Model:
    """The float model with the weights that the codes stand for and the integers' biases."""
    layers = {layer.name: layer for layer in network.weighted}
    tensors = network.tensors()
    nodes: dict[str, Node] = {}
    for node in model.nodes:
        layer = layers.get(node.name)
        if layer is None:
            continue
        if layer.output.format.binary:
            nodes[node.name] = _sign_node(node, layer, tensors[layer.input].scale)
        else:
            nodes[node.name] = quantized_node(node, layer)
    return replace(model, nodes=tuple(nodes.get(n.name, n) for n in model.nodes))


def agreement_lines(document: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What an agreement's JSON values say, for people: a name and a text each; [] for None."""
    if document is None:
        return []
    where = f"{document['frames']} {document['data']} frames"
    lines = []
    for what, name in (("codes", "cost of the codes"), ("rounding", "cost of rounding")):
        pair = document[what]
        lines.append(
            (
                name,
                f"{100 * pair['relative_rms_error']:.2g} % of the outputs' deviation, "
                f"{pair['equal_answers_percent']:.1f} % the same answers on {where}",
            )
        )
    for output, error in document.get("outputs", {}).items():
        lines.append((f"output {output}", f"{100 * error:.2g} % of its deviation off in all"))
    steps = document["integer"]["rms_output_steps"]
    lines.append(("integers", f"within {steps:.1f} output steps (rms) of real arithmetic"))
    return lines


def _sign_node(node: Node, layer: Weighted, scale: float) -> Node:
    """A node with the signs of a layer of binary outputs, which reads ``scale`` times integers.

    The sign is that of ``acc * mult + bias + half``, whose 0 counts as positive: a quarter of a
    step keeps it so in real numbers.
    """
    bias = layer.bias + (1 << layer.shift - 1) + 0.25
    if not is_threshold(layer):
        bias = bias * (layer.output.scale / 2.0**layer.shift)
        return replace(quantized_node(node, layer), bias=bias)  # type: ignore[call-arg]
    weight = layer.y.astype(np.float64).reshape(node.weight.shape)  # type: ignore[attr-defined]
    return replace(node, weight=weight, bias=bias * scale)  # type: ignore[call-arg]


def _through(
    model: Model,
    network: Network,
    integers: IntArray,
    settle: Callable[[Layer, FloatArray, Any], IntArray],
) -> FloatArray:
    """Outputs (frames, n) of real arithmetic between the network's tensors: ``settle`` says which
    integers, in which unit, stand for what a layer's nodes give."""
    layers = {layer.output.name: layer for layer in network.layers}
    values: dict[str, FloatArray] = {
        model.input_name: np.asarray(
            integers.reshape(-1, *model.shape) * network.input_unit(), float
        )
    }
    for node in model.nodes:
        out = node.compute(*(values[name] for name in node.inputs))
        layer = layers.get(node.output)
        if layer is not None:
            unit = network.unit(layer)
            out = np.asarray(settle(layer, out, unit).reshape(out.shape) * unit, float)
        values[node.output] = out
    return values[model.output].reshape(len(integers), -1)


def _nearest(layer: Layer, real: FloatArray, unit: Any) -> IntArray:
    return round_to_lattice(real, unit, layer.output.format)


def _checked(model: Model, network: Network, integers: IntArray) -> FloatArray:
    """The integer network's outputs, in real numbers.

    Raises CheckError where a layer's integers are not what its weights, scales and the model's
    operations give on the integers that it read.
    """
    tensors, trace = network.tensors(), network.trace(integers)

    def settle(layer: Layer, real: FloatArray, unit: Any) -> IntArray:
        found = trace[layer.name].reshape(real.shape)
        off = np.abs(_nearest(layer, real, unit) - found)
        _compare(layer, [tensors[name] for name in layer.inputs], off)
        return found

    return _through(model, network, integers, settle)


def _compare(layer: Layer, inputs: list[TensorSpec], off: IntArray) -> None:
    if layer.output.format.binary:
        wrong = float(np.mean(off > 0)) > _SIGNS
    else:
        wrong = float(off.max(initial=0)) > _STEPS + _room(layer, inputs)
    if wrong:
        raise CheckError(
            f"Internal error: the integers of layer {layer.name!r} are up to "
            f"{int(off.max(initial=0)):,} steps off what its weights, scales and operations "
            "give; please report the model"
        )


def _room(layer: Layer, inputs: list[TensorSpec]) -> float:
    """Steps by which rounded multipliers may move a sum: half a unit each, at most."""
    largest = float(sum(x.format.max_abs for x in inputs))
    if layer.weights is not None:
        largest *= float(np.abs(layer.weights).sum(axis=1).max(initial=0))
    elif isinstance(layer, AveragePool):
        largest *= math.prod(layer.geometry.kernel)
    shift = getattr(layer, "shift", None)
    return 0.0 if shift is None else largest / 2.0 ** (shift + 1)


def _rms(difference: FloatArray) -> float:
    return float(np.sqrt(np.mean(np.square(difference))))
