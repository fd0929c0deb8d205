"""Random integer networks of every layer kind, with cores and graphs, for the simulators."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.kinds import make_layer_core
from pvq_hw.geometry import Geometry
from pvq_hw.inputs import Input
from pvq_hw.network.join import Add, Concat
from pvq_hw.network.layer import Dense, Layer, TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.network.part import Part
from pvq_hw.network.table import Table
from pvq_hw.network.window import AveragePool, Conv, MaxPool
from pvq_hw.plan.core_layers import core_layers, unit_names
from pvq_hw.plan.lowering import build_graph

__all__ = [
    "Built",
    "RandomNetwork",
    "build",
    "make_cores",
    "random_network",
    "random_pool",
    "random_window",
]


@dataclass(frozen=True)
class Built:
    """A network with its graph and the cores' contents."""

    network: Network
    graph: GraphSpec
    images: dict[str, CoreImage]
    x: np.ndarray


class RandomNetwork:
    """Adds layers to a network; every method gives the new layer's tensor."""

    def __init__(self, seed: int, shape: tuple[int, ...], form: IntFormat | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.input = TensorSpec("x", shape, form or IntFormat(8, False), 1.0)
        self.layers: list[Layer] = []

    def _tensor(self, shape: tuple[int, ...], form: IntFormat) -> TensorSpec:
        return TensorSpec(f"t{len(self.layers)}", shape, form, 1.0)

    def _add(self, layer: Layer) -> TensorSpec:
        self.layers.append(layer)
        return layer.output

    def _weights(self, rows: int, columns: int, k: int) -> np.ndarray:
        y = np.zeros((rows, columns), dtype=np.int64)
        for row in range(rows):
            np.add.at(y[row], self.rng.integers(0, columns, k), self.rng.choice([-1, 1], k))
        return y

    def _numbers(self, y: np.ndarray) -> dict[str, np.ndarray]:
        rows = len(y)
        return {
            "mult": self.rng.integers(20, 120, (rows, 1)) * (np.abs(y).sum(1) > 0)[:, None],
            "bias": self.rng.integers(-2000, 4000, rows),
            "gain": np.ones((rows, 1)),
        }

    def conv(
        self,
        x: TensorSpec,
        rows: int,
        kernel: tuple[int, int],
        *,
        k: int = 5,
        groups: int = 1,
        out: IntFormat | None = None,
        **geometry: object,
    ) -> TensorSpec:
        g = Geometry(_map(x.shape), kernel, **geometry)
        columns = kernel[0] * kernel[1] * g.input_shape[2] // groups
        y = self._weights(rows, columns, k)
        tensor = self._tensor((*g.output_size, rows), out or IntFormat(8, False))
        return self._add(
            Conv(
                name=f"conv{len(self.layers)}",
                input=x.name,
                output=tensor,
                geometry=g,
                groups=groups,
                y=y,
                shift=7,
                **self._numbers(y),
            )
        )

    def dense(
        self,
        x: TensorSpec,
        rows: int,
        k: int = 6,
        *,
        groups: int = 1,
        sign: bool = False,
        shift: int = 8,
    ) -> TensorSpec:
        y = self._weights(rows, x.size, k)
        tensor = self._tensor((rows,), IntFormat(1 if sign else 8, True))
        numbers = self._numbers(y)
        numbers["bias"] >>= 8 - shift
        if groups > 1:
            taken = np.abs(y).reshape(rows, groups, -1).sum(2) > 0
            numbers["mult"] = self.rng.integers(20, 120, (rows, groups)) * taken
            numbers["gain"] = np.ones((rows, groups))
        if sign:
            numbers |= {"mult": np.ones_like(numbers["mult"]), "bias": numbers["bias"] - 1000}
        return self._add(
            Dense(
                name=f"fc{len(self.layers)}",
                input=x.name,
                output=tensor,
                y=y,
                shift=1 if sign else shift,
                **numbers,
            )
        )

    def maxpool(self, x: TensorSpec, kernel: tuple[int, int], **geometry: object) -> TensorSpec:
        g = Geometry(_map(x.shape), kernel, **geometry)
        tensor = self._tensor((*g.output_size, g.input_shape[2]), x.format)
        return self._add(MaxPool(f"pool{len(self.layers)}", x.name, tensor, g))

    def average(
        self, x: TensorSpec, kernel: tuple[int, int], *, include: bool = False, **geometry: object
    ) -> TensorSpec:
        g = Geometry(_map(x.shape), kernel, **geometry)
        counts = sorted({int(c) for c in g.counts(include_pads=include).ravel()})
        mult = tuple((c, round(2**13 / max(1, c))) for c in counts)
        tensor = self._tensor((*g.output_size, g.input_shape[2]), x.format)
        name = f"mean{len(self.layers)}"
        return self._add(AveragePool(name, x.name, tensor, g, include, mult, 13))

    def add(self, *x: TensorSpec, out: IntFormat | None = None) -> TensorSpec:
        tensor = self._tensor(x[0].shape, out or IntFormat(8, False))
        mult = tuple(int(m) for m in self.rng.integers(50, 300, len(x)))
        names = tuple(t.name for t in x)
        return self._add(Add(f"add{len(self.layers)}", names, tensor, mult, 8))

    def concat(
        self, *x: TensorSpec, shape: tuple[int, ...] = (), out: IntFormat | None = None, same=()
    ) -> TensorSpec:
        """Channels side by side; those of the inputs of the numbers ``same`` as they are."""
        channels = sum(t.shape[-1] for t in x)
        tensor = self._tensor(shape or (*x[0].shape[:-1], channels), out or IntFormat(8, True))
        mult = tuple(int(m) for m in self.rng.integers(50, 256, len(x)))
        mult = tuple(256 if k in same else m for k, m in enumerate(mult))
        names = tuple(t.name for t in x)
        return self._add(Concat(f"cat{len(self.layers)}", names, tensor, mult, 8))

    def table(self, x: TensorSpec, *, tables: int = 1, out: IntFormat | None = None) -> TensorSpec:
        form = out or IntFormat(8, False)
        tensor = self._tensor(x.shape, form)
        entries = self.rng.integers(form.min, form.max + 1, (tables, 1 << x.format.bits))
        name = f"table{len(self.layers)}"
        return self._add(Table(name, x.name, x.format, tensor, entries, "random"))

    def parts(self, *shapes: tuple[int, ...]) -> list[TensorSpec]:
        """The input as several, one after the other."""
        start, found = 0, []
        for shape in shapes:
            tensor = self._tensor(shape, self.input.format)
            place = (start, tensor.size, self.input.size)
            found.append(self._add(Part(f"input{len(found)}", self.input.name, tensor, *place)))
            start += tensor.size
        return found

    def slice(self, x: TensorSpec, axis: int, start: int, count: int) -> TensorSpec:
        """A part of one axis."""
        inner = int(np.prod(x.shape[axis + 1 :]))
        shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
        tensor = self._tensor(shape, x.format)
        place = (start * inner, count * inner, x.shape[axis] * inner)
        return self._add(Part(f"part{len(self.layers)}", x.name, tensor, *place))

    def network(self) -> Network:
        network = Network(
            "random",
            self.input,
            tuple(self.layers),
            self.input.shape,
            (0, 1, 2)[: len(self.input.shape)],
            inputs=tuple(
                Input(
                    part.name, part.output.shape, tuple(range(len(part.output.shape))), part.start
                )
                for part in self.layers
                if isinstance(part, Part) and part.name.startswith("input")
            ),
        )
        network.verify()
        return network


def _map(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return (1, 1, shape[0]) if len(shape) == 1 else (*(1,) * (3 - len(shape)), *shape)


def make_cores(
    network: Network,
    family: str,
    lanes: dict[str, int] | None = None,
    unrolled: Collection[str] = (),
    sides: dict[str, int] | None = None,
    depthwise: Collection[str] = (),
    widths: dict[str, int] | None = None,
    digits: dict[str, int] | None = None,
    by_pixel: Collection[str] = (),
    gains: Collection[str] = (),
) -> list[tuple[CoreBase, CoreImage]]:
    """Cores of the layers with weights, pipelined where the width is negative, unrolled where it is
    said how many bits their adders take a cycle or that windows come by the pixel; lanes that suit
    the channels unless they are given, windows of a map one at a time unless it is said how many
    side by side; multipliers in wires where ``gains`` says so."""
    names = dict(zip((x.name for x in network.layers), unit_names(network.layers), strict=True))
    cores = []
    for layer in core_layers(network):
        p = (lanes or {}).get(layer.name, min(4, layer.dense.y.shape[1]))
        digit = (digits or {}).get(layer.name, 0)
        wired = {*unrolled, *by_pixel}
        engine = "unrolled" if layer.name in wired or digit else "folded"
        engine = "depthwise" if layer.name in depthwise else engine
        options = {"family": family, "name": names[layer.name], "engine": engine}
        options["geometry"] = layer.geometry
        if side := (sides or {}).get(layer.name):
            options |= {"frames": side, "row_windows": layer.geometry.output_size[1]}
        options |= {"digit": digit} if digit else {}
        options |= {"by_pixel": True} if layer.name in by_pixel else {}
        options |= {"multiplier": "wires"} if layer.name in gains else {}
        if width := (widths or {}).get(layer.name):
            options["out_width"] = abs(width)
            options |= {"pipelined": True} if width < 0 else {}
        cores.append(make_layer_core(layer.dense, layer.x, p, **options))
    return cores


def build(
    source: RandomNetwork,
    *,
    family: str = "ecp5",
    lanes: dict[str, int] | None = None,
    depths: dict[str, int] | None = None,
    frames: int = 3,
    unrolled: Collection[str] = (),
    sides: dict[str, int] | None = None,
    depthwise: Collection[str] = (),
    widths: dict[str, int] | None = None,
    digits: dict[str, int] | None = None,
    by_pixel: Collection[str] = (),
    gains: Collection[str] = (),
    ends: tuple[int, int] = (1, 1),
) -> Built:
    """The network with its graph, and random frames."""
    network = source.network()
    ways = (lanes, unrolled, sides, depthwise, widths, digits, by_pixel, gains)
    cores = make_cores(network, family, *ways)
    graph = build_graph(network, [spec for spec, _ in cores], family, depths, ends)
    form = network.input.format
    x = source.rng.integers(form.min, form.max + 1, (frames, *network.input.shape))
    if form.binary:
        x = np.where(x < 0, -1, 1)
    return Built(network, graph, {spec.name: image for spec, image in cores}, x)


def random_network(seed: int) -> RandomNetwork:
    """A small network of branches that part and meet again."""
    rng = np.random.default_rng([seed, 77])
    height = int(rng.integers(4, 8)) if rng.random() < 0.8 else 1
    net = RandomNetwork(seed, (height, int(rng.integers(4, 8)), int(rng.integers(1, 5))))
    x = net.input
    for _ in range(int(rng.integers(1, 4))):
        x = _random_step(net, rng, x)
    if rng.random() < 0.5:
        x = net.dense(x, int(rng.integers(1, 5)))
    return net


def _random_step(net: RandomNetwork, rng: np.random.Generator, x: TensorSpec) -> TensorSpec:
    kind = rng.choice(["conv", "pool", "residual", "concat", "depthwise"])
    height, _, channels = x.shape
    if kind == "conv":
        return net.conv(x, int(rng.integers(1, 5)), **random_window(rng, x.shape))
    if kind == "depthwise":
        same = {"pads": ((0, 0), (1, 1))}
        return net.conv(x, 2 * channels, (1, 3), groups=channels, k=2, **same)
    if kind == "pool":
        return random_pool(net, rng, x)
    kernel = (3 if height >= 3 else 1, 3)
    pads = ((kernel[0] // 2,) * 2, (1, 1))
    branch = x
    for _ in range(int(rng.integers(1, 3))):
        branch = net.conv(branch, channels, kernel, pads=pads)
    other = x if rng.random() < 0.6 else net.conv(x, channels, (1, 1))
    pair = (branch, other) if rng.random() < 0.5 else (other, branch)
    return net.add(*pair) if kind == "residual" else net.concat(*pair)


def random_window(rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, object]:
    """Kernel, stride, padding and dilation that leave at least one position."""
    axes = []
    for size in shape[:2]:
        kernel = int(rng.integers(1, min(4, size + 1)))
        dilation = int(rng.integers(1, 3)) if (kernel - 1) * 2 + 1 <= size else 1
        pads = tuple(int(p) for p in rng.integers(0, 2, 2)) if size > 1 else (0, 0)
        axes.append((kernel, int(rng.integers(1, 3)), pads, dilation))
    kernel, stride, pads, dilation = zip(*axes, strict=True)
    return {"kernel": kernel, "stride": stride, "pads": pads, "dilation": dilation}


def random_pool(net: RandomNetwork, rng: np.random.Generator, x: TensorSpec) -> TensorSpec:
    """A pooling of any geometry that has at least one activation in every window."""
    g = random_window(rng, x.shape)
    kernel = g.pop("kernel")
    g.pop("dilation")
    if rng.random() < 0.3:
        kernel, g = x.shape[:2], {}
    counts = Geometry(x.shape, kernel, **g).counts(include_pads=False)
    if counts.min() == 0 or any(
        p >= k for k, pad in zip(kernel, g.get("pads", ()), strict=False) for p in pad
    ):
        g.pop("pads", None)
    if rng.random() < 0.5:
        return net.maxpool(x, kernel, **g)
    return net.average(x, kernel, include=bool(rng.random() < 0.5), **g)
