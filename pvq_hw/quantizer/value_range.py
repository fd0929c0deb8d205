"""Powers of two that bring a model's values near 1 while it is quantized.

The quantizer works in float32, whose squares end at 1e19 and vanish below 1e-19, and some of its
thresholds are absolute. Dense, convolutional and pooling layers, sums, ReLU and Clip commute with
a factor: every tensor is divided by a power of two of its own, weights and biases follow, and the
scales of the integer network are multiplied by it again. All of that is exact.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import LARGEST
from pvq_hw.errors import InputError
from pvq_hw.model.model import (
    Add,
    Affine,
    AveragePool,
    Clip,
    Concat,
    Conv,
    Dense,
    Function,
    MaxPool,
    Model,
    Node,
    Part,
    Quantize,
    Relu,
    Sign,
)
from pvq_hw.model.nodes import NODES
from pvq_hw.network.network import Network
from pvq_hw.network.table import Table
from pvq_hw.quantizer.options import QuantizerOptions
from pvq_hw.quantizer.scales import MIN_FRAMES, calibration_array
from pvq_hw.registry import Face

__all__ = ["divided", "near_one"]

_WINDOW = 30  # bits of a magnitude, either way, that need no factor
_MOST = 2.0**40  # of weights, once values are near 1: float32 holds their squares
Progress = Callable[[str, float], None]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Scaling:
    """``exponents``: what is divided by ``2**exponents[t]``, by tensor."""

    exponents: Mapping[str, int]

    def model(self, model: Model) -> Model:
        """The model whose tensors are divided."""
        ranges = {
            t: (float(np.ldexp(a, -self.exponents[t])), float(np.ldexp(b, -self.exponents[t])))
            for t, (a, b) in model.ranges.items()
            if t in self.exponents
        }
        return replace(model, nodes=tuple(map(self._node, model.nodes)), ranges=ranges)

    def _node(self, node: Node) -> Node:
        return divided(node, self.exponents[node.inputs[0]], self.exponents[node.output])

    def restored(self, network: Network, model: Model, input_scale: float) -> Network:
        """The network of the divided model as that of ``model``: the same integers."""
        by = {n.name: self.exponents[n.output] - self.exponents[n.inputs[0]] for n in model.nodes}
        functions = {n.name: str(n.curve) for n in model.nodes if isinstance(n, Function)}
        layers = []
        for layer in network.layers:
            fields: dict[str, Any] = {"output": self._tensor(layer.output)}
            if isinstance(layer, Table):
                fields["function"] = functions[layer.name]
            if hasattr(layer, "gain"):
                fields["gain"] = np.ldexp(layer.gain, by[layer.name])
            layers.append(replace(layer, **fields))  # type: ignore[type-var]
        meta = network.meta | {"input_scale": float(input_scale)}
        return replace(network, input=self._tensor(network.input), layers=tuple(layers), meta=meta)

    def _tensor(self, tensor: Any) -> Any:
        scale = float(np.ldexp(tensor.scale, self.exponents[tensor.name]))
        return replace(tensor, scale=scale)


divided: Face[[int, int], Node] = NODES.face("division")
"""The node where what it reads is divided by ``2**read`` and what it gives by ``2**given``; of
kinds that do not rescale, both are the same."""


@divided.of(MaxPool, AveragePool, Relu, Sign, Add, Concat, Part)
def _same(node: Node, read: int, given: int) -> Node:
    return node


@divided.of(Dense, Conv)
def _weights_by(node: Any, read: int, given: int) -> Node:
    weight, bias = np.ldexp(node.weight, read - given), np.ldexp(node.bias, -given)
    found: Node = replace(node, weight=weight, bias=bias)
    return found


@divided.of(Affine)
def _affine_by(node: Affine, read: int, given: int) -> Node:
    scale, offset = np.ldexp(node.scale, read - given), np.ldexp(node.offset, -given)
    return replace(node, scale=scale, offset=offset)


@divided.of(Function)
def _curve_by(node: Function, read: int, given: int) -> Node:
    return replace(node, curve=node.curve.scaled(2.0**read, 2.0**-given))


@divided.of(Quantize)
def _steps_by(node: Quantize, read: int, given: int) -> Node:
    return replace(node, scale=float(np.ldexp(node.scale, -given)))


@divided.of(Clip)
def _bounds_by(node: Clip, read: int, given: int) -> Node:
    low, high = (float(np.ldexp(bound, -given)) for bound in (node.low, node.high))
    return replace(node, low=low, high=high)


def near_one(
    function: Callable[[Model, Any, QuantizerOptions, Progress | None], T],
) -> Callable[[Model, Any, QuantizerOptions, Progress | None], T]:
    """Decorator of what quantizes a model by calibration data: where values are far from 1, it
    works on the divided model, and a `Network` that it returns is restored."""

    @wraps(function)
    def call(
        model: Model, calibration: Any, options: QuantizerOptions, progress: Progress | None
    ) -> T:
        by = options.input_scale
        if calibration is None or not (np.isfinite(by) and by > 0):
            return function(model, calibration, options, progress)
        data = calibration_array(calibration, model.input_shape)
        scaling = _scaling(model, data, by)
        if scaling is None:
            return function(model, calibration, options, progress)
        exponent = scaling.exponents[model.input_name]
        if data.dtype.kind == "f":
            data = np.ldexp(data.astype(np.float64), -exponent)
        else:
            options = replace(options, input_scale=float(np.ldexp(by, exponent)))
        result = function(scaling.model(model), data, options, progress)
        if not isinstance(result, Network):
            return result
        return scaling.restored(result, model, by)  # type: ignore[return-value]

    return call


def _scaling(model: Model, data: npt.NDArray[Any], input_scale: float) -> _Scaling | None:
    """What brings all tensors near 1; None where they and the weights are near enough, or where
    weights are not finite, which is refused by layer later."""
    weights = [np.abs(w).max(initial=0.0) for n in model.nodes for w in _weights(n)]
    if not np.isfinite(weights).all():
        return None
    magnitudes = _magnitudes(model, data, input_scale)
    groups = _groups(model)
    exponents: dict[str, int] = {}
    for group in groups:
        largest = max(magnitudes[t] for t in group)
        signs = any(isinstance(n, Sign) and n.output in group for n in model.nodes)
        exponent = 0 if signs or not largest else int(np.frexp(largest)[1])
        exponents |= dict.fromkeys(group, exponent)
    bits = [*exponents.values(), *(int(np.frexp(w)[1]) for w in weights if w)]
    if max(map(abs, bits)) <= _WINDOW:
        return None
    scaling = _Scaling(exponents)
    for node in scaling.model(model).nodes:
        if any(np.abs(w).max(initial=0.0) > _MOST for w in _weights(node)):
            raise InputError(
                f"Layer {node.name!r} must have weights of at most {_MOST:.2g} times what it and "
                "the layers that are summed or joined with it give, over what it reads"
            )
    return scaling


def _weights(node: Node) -> list[npt.NDArray[np.float64]]:
    return [node.matrix] if node.weighted else []


def _magnitudes(model: Model, data: npt.NDArray[Any], input_scale: float) -> dict[str, float]:
    """The largest magnitude of every tensor, on a few frames; the input's on all.

    Raises InputError where one is too large even for float64.
    """
    largest = max(abs(float(data.max())), abs(float(data.min())))
    result = {model.input_name: largest if data.dtype.kind == "f" else largest / input_scale}
    some = model.to_internal(data[:: max(1, len(data) // MIN_FRAMES)][:MIN_FRAMES], input_scale)
    with np.errstate(all="ignore"):
        for node, out in model.steps(some):
            result[node.output] = float(np.abs(out).max(initial=0.0))
            if isinstance(node, Function) and not np.isfinite(out).all():
                raise InputError(
                    f"Layer {node.name!r}: {node.curve!s:.80} must have a finite value for every "
                    "input, but has none for some in the calibration data"
                )
            if not result[node.output] <= LARGEST:
                raise InputError(
                    f"Layer {node.name!r} must give values of at most {LARGEST:g} on the "
                    "calibration data; scale its weights or the data"
                )
    return result


def _groups(model: Model) -> list[set[str]]:
    """Tensors that must be divided by the same, since no weights stand between them."""
    group = {t: {t} for t in (model.input_name, *(n.output for n in model.nodes))}
    for node in model.nodes:
        if node.rescales:
            continue
        for name in node.inputs:
            joined = group[name] | group[node.output]
            for tensor in joined:
                group[tensor] = joined
    return list({id(g): g for g in group.values()}.values())
