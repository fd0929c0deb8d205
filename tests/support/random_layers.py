"""Random layers and chains of them: sizes, formats, groups and extremes, for the simulators."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.dataflow import GraphSpec, chain_graph
from pvq_hw.engine.kinds import make_layer_core
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.network.network import Network

__all__ = ["Case", "Chain", "extreme_frames", "make_chain"]


@dataclass(frozen=True)
class Case:
    """One layer of a chain: rows, pulses per row, lanes and what else is out of the ordinary."""

    rows: int
    k: int
    lanes: int
    out: IntFormat = field(default_factory=lambda: IntFormat(8, False))
    groups: int = 1
    zero_rows: tuple[int, ...] = ()
    shift: int = 8
    strong: bool = False
    encoding: str = "pvq"
    threshold: bool = False  # multipliers of 1, whose sums are compared with the bias
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Chain:
    """A network of dense layers, its cores, and frames for it."""

    network: Network
    specs: list[CoreBase]
    images: list[CoreImage]
    x: np.ndarray

    @property
    def graph(self) -> GraphSpec:
        """The cores joined."""
        return chain_graph(self.specs)


def _weights(rng: np.random.Generator, case: Case, n: int) -> np.ndarray:
    y = np.zeros((case.rows, n), dtype=np.int64)
    if case.encoding == "int8":
        y = rng.integers(-128, 128, (case.rows, n))
        y[list(case.zero_rows)] = 0
    for row in range(case.rows):
        if row in case.zero_rows or case.encoding == "int8":
            continue
        sign = rng.choice([-1, 1], size=n)
        np.add.at(y[row], at := rng.integers(0, n, case.k), sign[at])
    if case.strong:  # the first rows reach both ends of the accumulator: all pulses of one sign
        y[0] = np.abs(y[0])
        y[-1] = -np.abs(y[-1])
    return y


def _layer(rng: np.random.Generator, case: Case, name: str, x: TensorSpec, source: str) -> Dense:
    y = _weights(rng, case, x.size)
    largest = (
        np.sqrt(np.square(y).sum(axis=1).max()) if case.encoding == "int8" else np.sqrt(case.k)
    )
    scale = (1 << case.shift) * case.out.max_abs / max(1.0, x.format.max_abs * largest / 2)
    if case.strong:
        scale *= 4
    mult = rng.integers(1, max(2, min(int(scale * 2), 1 << 15)), size=(case.rows, case.groups))
    width = x.size // case.groups
    mult[np.abs(y).reshape(case.rows, case.groups, width).sum(axis=2) == 0] = 0
    if case.threshold:
        mult[:] = 1
    span = (1 << case.shift) * case.out.max_abs // 3 + 1
    return Dense(
        name=name,
        input=source,
        output=TensorSpec(f"{name}_out", (case.rows,), case.out, 1.0),
        y=y,
        mult=mult,
        bias=rng.integers(-span, span + 1, size=case.rows),
        shift=case.shift,
        gain=np.ones((case.rows, case.groups)),
        encoding=case.encoding,
    )


def extreme_frames(layer: Dense, form: IntFormat) -> np.ndarray:
    """Frames that drive the first and last rows' accumulators to ``+-K * max|x|``."""
    y = layer.y[[0, -1]]
    top, low = form.max, form.min
    return np.concatenate(
        [
            np.where(y > 0, top, low),
            np.where(y > 0, low, top),
            np.full((1, y.shape[1]), top),
            np.full((1, y.shape[1]), low),
        ]
    ).astype(np.int64)


def make_chain(seed: int, n: int, form: IntFormat, *cases: Case, frames: int = 4) -> Chain:
    """Dense layers in a row with their cores; the frames hold the extremes of the first layer."""
    rng = np.random.default_rng(seed)
    tensor = first = TensorSpec("x", (n,), form, 1.0)
    layers, specs, images = [], [], []
    for index, case in enumerate(cases):
        layer = _layer(rng, case, f"fc{index}", tensor, tensor.name)
        spec, image = make_layer_core(layer, tensor, case.lanes, **case.options)
        layers.append(layer)
        specs.append(spec)
        images.append(image)
        tensor = layer.output
    network = Network("chain", first, tuple(layers), (n,), (0,))
    network.verify()
    if form.binary:
        x = rng.choice([-1, 1], size=(frames, n))
    else:
        x = rng.integers(form.min, form.max + 1, size=(frames, n))
    x = np.concatenate([x, extreme_frames(layers[0], form)])
    return Chain(network, specs, images, x.astype(np.int64))
