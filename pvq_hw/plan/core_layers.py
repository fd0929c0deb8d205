"""The layers of a network that run on cores, as the cores see them: dense, window by window."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pvq_hw.geometry import Geometry
from pvq_hw.naming import identifiers
from pvq_hw.network.layer import Dense, IntArray, Layer, TensorSpec, Weighted
from pvq_hw.network.network import Network
from pvq_hw.network.window import Conv
from pvq_hw.registry import Face

__all__ = ["CoreLayer", "core_layer", "core_layers", "unit_names", "window_weights"]


@dataclass(frozen=True, eq=False)
class CoreLayer:
    """A dense layer or a convolution.

    Parameters
    ----------
    source : Weighted
        The network's layer.
    dense : Dense
        What the core computes of one frame: the layer, or one window position of it. Columns
        are in the order (kernel row, kernel column, channel), those of other groups zero.
    x : TensorSpec
        The core's input: the tensor, or one window of it.
    geometry : Geometry, optional
        How the window of a convolution slides; None for a dense layer.
    conv_groups : int
        Groups of a convolution's channels; 1 of a dense layer.
    """

    source: Weighted
    dense: Dense
    x: TensorSpec
    geometry: Geometry | None
    conv_groups: int = 1

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.source.name

    @property
    def positions(self) -> int:
        """Frames of the core in one of the network."""
        return int(np.prod(self.geometry.output_size)) if self.geometry else 1


def window_weights(y: IntArray, geometry: Geometry, groups: int) -> IntArray:
    """A convolution's weights (M, kh * kw * C): those of other groups than the row's are 0."""
    if groups == 1:
        return y
    rows, _ = y.shape
    taps = geometry.kernel[0] * geometry.kernel[1]
    width = geometry.input_shape[2] // groups
    full = np.zeros((rows, taps, groups, width), dtype=np.int64)
    group = np.arange(rows) // (rows // groups)
    full[np.arange(rows)[:, None], np.arange(taps), group[:, None]] = y.reshape(rows, taps, width)
    return full.reshape(rows, -1)


def core_layers(network: Network) -> list[CoreLayer]:
    """The layers with weights, in order."""
    tensors = network.tensors()
    return [core_layer(layer, tensors[layer.input]) for layer in network.weighted]


core_layer: Face[[TensorSpec], CoreLayer] = Face("layer", "way onto a core")
"""What a core computes of a layer with weights, given the layer's input."""


@core_layer.of(Dense)
def _dense(layer: Dense, x: TensorSpec) -> CoreLayer:
    return CoreLayer(layer, layer, x, None)


@core_layer.of(Conv)
@lru_cache(maxsize=64)
def _convolution(layer: Conv, x: TensorSpec) -> CoreLayer:
    """The same core for the same layer, so that what was found out about it is known again."""
    y = window_weights(layer.y, layer.geometry, layer.groups)
    rows, columns = y.shape
    dense = Dense(
        name=layer.name,
        input=layer.input,
        output=TensorSpec(layer.output.name, (rows,), layer.output.format, layer.output.scale),
        y=y,
        mult=layer.mult,
        bias=layer.bias,
        shift=layer.shift,
        gain=layer.gain,
        encoding=layer.encoding,
    )
    window = TensorSpec(x.name, (columns,), x.format, x.scale)
    return CoreLayer(layer, dense, window, layer.geometry, layer.groups)


def unit_names(layers: tuple[Layer, ...] | list[Layer]) -> list[str]:
    """A Verilog identifier and file stem for every layer, all different."""
    return identifiers(layer.name for layer in layers)
