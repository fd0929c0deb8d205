"""What a search may choose: encoding, N/K and groups of every layer, activation width, lanes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pvq_hw.errors import InputError
from pvq_hw.flow.options import CompileOptions, LayerChoice
from pvq_hw.model.model import Model

__all__ = ["ENCODINGS", "LANE_SHARES", "Space", "SpaceLayer", "make_space"]

LANE_SHARES = {"planned": 1, "half": 2, "quarter": 4}
ENCODINGS = ("pvq", "int8")
_GROUPS = (2, 4)  # gains of a row, besides one
_SMALLEST_GROUP = 32  # columns; a gain costs more than it brings below
_LOWEST, _HIGHEST = 1.0, 40.0  # N/K; below, 8-bit weights are better
_MOST_PULSES = 128  # of a short row: 8 bits a weight are the end
_BITS = 8  # of activations, where nothing is searched
_MANY_LAYERS = 12  # beyond, the sensitivity is taken at fewer points

Params = Mapping[str, Any]


@dataclass(frozen=True)
class SpaceLayer:
    """A layer that is to be quantized.

    Parameters
    ----------
    name : str
    rows, columns : int
    start : float
        N/K that a search starts from.
    """

    name: str
    rows: int
    columns: int
    start: float = math.inf

    @property
    def low(self) -> float:
        """Least N/K: 1, or less for rows so short that K = 2 N is few, and where a search starts
        from less; a lone column has one."""
        if self.columns == 1:
            return 1.0
        return min(_LOWEST, max(0.125, min(self.start, self.columns / _MOST_PULSES)))

    @property
    def high(self) -> float:
        """Most N/K: 40, or as leaves two pulses to a row."""
        return min(_HIGHEST, max(1.0, self.columns / 2))

    @property
    def units(self) -> tuple[str, ...]:
        """What may have one gain: the row, or equal parts of it."""
        parts = [
            f"1/{g}"
            for g in _GROUPS
            if self.columns % g == 0 and self.columns // g >= _SMALLEST_GROUP
        ]
        return ("row", *parts)

    def clipped(self, ratio: float) -> float:
        """The nearest N/K that the layer may have."""
        return min(self.high, max(self.low, ratio))

    def unit(self, name: str) -> str | int:
        """``"row"``, or the columns of a group."""
        return name if name == "row" else self.columns // int(name.removeprefix("1/"))


@dataclass(frozen=True)
class Space:
    """All configurations of a search.

    Parameters
    ----------
    layers : tuple of SpaceLayer
    bits : (int, int)
        Least and most activation bits.
    lanes : tuple of str
        Keys of `LANE_SHARES`.
    """

    layers: tuple[SpaceLayer, ...]
    bits: tuple[int, int] = (2, 16)
    lanes: tuple[str, ...] = tuple(LANE_SHARES)

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Asks an Optuna trial for every choice."""
        params: dict[str, Any] = {}
        for layer in self.layers:
            key = f"encoding.{layer.name}"
            params[key] = trial.suggest_categorical(key, ENCODINGS)
        for layer in self.layers:
            key = f"ratio.{layer.name}"
            params[key] = trial.suggest_float(key, layer.low, layer.high, log=True)
        for layer in self.layers:
            if len(layer.units) > 1:
                key = f"unit.{layer.name}"
                params[key] = trial.suggest_categorical(key, layer.units)
        params["activation_bits"] = trial.suggest_int("activation_bits", *self.bits)
        params["lanes"] = trial.suggest_categorical("lanes", self.lanes)
        return params

    def options(self, params: Params, base: CompileOptions) -> CompileOptions:
        """What `compile` is told for a choice; the share of lanes not yet."""
        choices, pulses, weights = {}, 0.0, 0
        for layer in self.layers:
            if params.get(f"encoding.{layer.name}") == "int8":
                choices[layer.name] = LayerChoice(encoding="int8")
                continue
            ratio = float(f"{params[f'ratio.{layer.name}']:.3g}")
            unit = layer.unit(params.get(f"unit.{layer.name}", "row"))
            choices[layer.name] = LayerChoice(ratio=ratio, unit=None if unit == "row" else unit)
            weights += layer.rows * layer.columns
            pulses += layer.rows * layer.columns / ratio
        mean = float(f"{weights / pulses:.4g}") if pulses else base.ratio
        bits = int(params["activation_bits"])
        return replace(base, ratio=mean, activation_bits=bits, layers=choices)

    def params(self, ratios: Mapping[str, float]) -> dict[str, Any]:
        """The choice with these N/K, 8-bit weights in layers that have none, and otherwise the
        defaults of `compile`."""
        chosen: dict[str, Any] = {}
        for layer in self.layers:
            plain = layer.name not in ratios
            chosen[f"encoding.{layer.name}"] = "int8" if plain else "pvq"
            chosen[f"ratio.{layer.name}"] = layer.clipped(ratios.get(layer.name, 1.0))
            if len(layer.units) > 1:
                chosen[f"unit.{layer.name}"] = "row"
        return chosen | {"activation_bits": _BITS, "lanes": self.lanes[0]}

    def holding(self, ratios: Mapping[str, float]) -> "Space":
        """The same, with room for these N/K."""
        layers = (replace(x, start=ratios.get(x.name, x.start)) for x in self.layers)
        return replace(self, layers=tuple(layers))

    def alone(self, layer: SpaceLayer, ratio: float, base: CompileOptions) -> CompileOptions:
        """Only this layer at N/K, the others at plain 8-bit weights."""
        choices = {other.name: LayerChoice(encoding="int8") for other in self.layers}
        choices[layer.name] = LayerChoice(ratio=ratio)
        return replace(base, ratio=ratio, activation_bits=_BITS, layers=choices)

    def levels(self, layer: SpaceLayer) -> list[float]:
        """The N/K at which a layer's sensitivity is taken, evenly on the log scale."""
        count = 5 if len(self.layers) <= _MANY_LAYERS else 3
        step = math.log(layer.high / layer.low) / (count - 1)
        points = {
            float(f"{layer.clipped(layer.low * math.exp(step * i)):.2g}") for i in range(count)
        }
        return sorted(points)

    def starts(
        self, sensitivity: Mapping[str, Sequence[tuple[float, float]]]
    ) -> list[dict[str, Any]]:
        """Choices to try before the sampler's own.

        The same N/K everywhere, 8-bit weights everywhere, and in each layer the highest N/K at
        which it alone stays below an error, with 8-bit weights where that would be below 1.
        ``sensitivity`` holds (N/K, output error) of the layers.
        """

        def below(error: float) -> dict[str, Any]:
            ratios = {}
            for layer in self.layers:
                good = [r for r, e in sensitivity.get(layer.name, ()) if e <= error]
                ratios[layer.name] = max(good, default=layer.low)
            return self.params(ratios)

        def hybrid(error: float) -> dict[str, Any]:
            good = {
                layer.name: [r for r, e in sensitivity.get(layer.name, ()) if e <= error and r >= 1]
                for layer in self.layers
            }
            return self.params({name: max(found) for name, found in good.items() if found})

        def even(ratio: float) -> dict[str, Any]:
            return self.params({layer.name: ratio for layer in self.layers})

        found = [below(0.05), below(0.1), even(2), hybrid(0.05), even(5), self.params({})]
        found += [below(0.2), hybrid(0.1), even(1), below(0.02), hybrid(0.02)]
        found += [below(0.4), even(0.01), even(10)]  # 0.01: the least that each may have
        unique: list[dict[str, Any]] = []
        for params in found:
            if params not in unique:
                unique.append(params)
        return unique


def make_space(model: Model) -> Space:
    """The space of a model: every node with weights is a layer."""
    layers = []
    for node in model.nodes:
        weight = getattr(node, "weight", None)
        if weight is not None and weight.ndim >= 2:
            layers.append(SpaceLayer(node.name, len(weight), int(weight[0].size)))
    if not layers:
        raise InputError("A model to tune must have layers with weights")
    return Space(tuple(layers))
