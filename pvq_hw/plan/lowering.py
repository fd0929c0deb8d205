"""From a network and its cores to the graph of units: wires, forks, FIFOs, line buffers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import gcd

import numpy as np

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.batch import make_unpack
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.decision import AboveUnit, LargestUnit, SmoothedUnit
from pvq_hw.engine.line_buffer import WindowSpec, make_window
from pvq_hw.engine.lines import LINES_DELAY
from pvq_hw.engine.timing import fifo_needs, with_depths
from pvq_hw.engine.units import (
    CoreUnit,
    Fifo,
    Fork,
    Join,
    Lookup,
    Pick,
    Pool,
    Scale,
    Unit,
    Wide,
    WidthConverter,
    can_stream,
)
from pvq_hw.errors import InputError
from pvq_hw.geometry import Geometry
from pvq_hw.naming import Names, safe_name
from pvq_hw.network.decision import Above, Largest, Smoothed
from pvq_hw.network.join import Add, Concat, Outputs
from pvq_hw.network.layer import LAYERS, Layer, TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.network.part import Part
from pvq_hw.network.table import Table
from pvq_hw.network.window import AveragePool, MaxPool
from pvq_hw.plan.core_layers import CoreLayer, unit_names
from pvq_hw.plan.core_parts import CorePart, core_parts
from pvq_hw.plan.resources import Resources
from pvq_hw.plan.unit_resources import unit_cost
from pvq_hw.registry import Face
from pvq_hw.reserved import RESERVED
from pvq_hw.target.architectures import architecture
from pvq_hw.target.block_ram import memory_blocks, select_registers
from pvq_hw.target.families import Family
from pvq_hw.target.families import family as find_family

__all__ = ["Site", "build_graph", "frame_fifo", "layer_unit", "memory_kind", "plan_graph"]

_SMALL_BITS = 512  # memories up to this size become logic
# LUTs that a chip has for each block RAM: 402 to 433 of ECP5, 80 to 240 of iCE40.
_BLOCK_LUTS = {True: 400, False: 100}  # by whether LUTs can be RAM
_INPUT, _OUTPUT = "i", "o"


def plan_graph(
    network: Network,
    cores: Sequence[tuple[CoreBase, CoreImage]],
    engine: str,
    widths: tuple[int, int] = (1, 1),
) -> GraphSpec:
    """The graph of a network, its FIFOs as deep as keeps every unit at its own pace.

    Parameters
    ----------
    network : Network
    cores : sequence of (CoreBase, CoreImage)
        Of its layers with weights, in order; an engine of several layers for these.
    engine : str
        Key of `pvq_hw.target.families.FAMILIES`.
    widths : (int, int)
        Activations in a transfer of the input, and of the output.
    """
    graph = build_graph(network, [spec for spec, _ in cores], engine, widths=widths)
    if not any(isinstance(unit, Fifo) for unit in graph.units):
        return graph
    needs = fifo_needs(graph, {spec.name: image for spec, image in cores})
    needs = {name: min(depth, _most_places(graph, name)) for name, depth in needs.items()}
    family = find_family(engine)
    graph = _with_memories(with_depths(graph, needs), family)
    # What is read ahead comes later than the needs were told with, by no more than all together.
    later = sum(unit.delay - 2 for unit in graph.units if isinstance(unit, Fifo))
    if not later:
        return graph
    return _with_memories(
        with_depths(graph, {name: depth + later for name, depth in needs.items()}), family
    )


def _most_places(graph: GraphSpec, name: str) -> int:
    """Places of a FIFO that are worth having: a frame's before a core, which holds up what is
    faster than itself in any case."""
    fifo = graph.unit(name)
    before_core = any(unit.cores and fifo.outputs[0] in unit.inputs for unit in graph.units)
    return fifo.transfers[1] if before_core else 1 << 40


def build_graph(
    network: Network,
    cores: Sequence[CoreBase],
    engine: str,
    depths: Mapping[str, int] | None = None,
    widths: tuple[int, int] = (1, 1),
) -> GraphSpec:
    """The graph of a network. Streams are as wide as the unit that gives them, and what reads them
    takes as much where it can; converters stand where it can't.

    Parameters
    ----------
    depths : mapping of FIFO name to int, optional
        2 where nothing is said.
    widths : (int, int)
        Activations in a transfer of the input, and of the output.
    """
    builder = _Builder(network, list(cores), find_family(engine), widths)
    graph = builder.build()
    return _with_memories(with_depths(graph, depths or {}), builder.family)


def _with_memories(graph: GraphSpec, family: Family) -> GraphSpec:
    """Deep FIFOs in block RAM, read ahead where its data have registers behind them: those of the
    blocks, and those of the choice among several in depth."""
    units = [_stored(unit, family) if isinstance(unit, Fifo) else unit for unit in graph.units]
    return replace(graph, units=tuple(units))


def _stored(fifo: Fifo, family: Family) -> Fifo:
    width = fifo.x.bits * fifo.width
    memory = memory_kind(fifo.depth * width, family)
    latency = 1
    if memory == "block":
        latency = architecture(family.blocks).block_latency
        latency += select_registers(width, fifo.depth, family.blocks)
    return replace(fifo, memory=memory, latency=latency)


def frame_fifo(x: IntFormat, size: int, family: Family) -> Fifo:
    """A FIFO of a whole frame, as it stands before an engine that takes frames one by one."""
    return _stored(Fifo("fifo", ("a",), ("b",), x, size, size), family)


def memory_kind(bits: int, family: Family) -> str:
    """Logic for small memories, else block RAM."""
    return "logic" if bits <= (_SMALL_BITS if family.lutram else _SMALL_BITS // 4) else "block"


@dataclass(frozen=True)
class Site:
    """Where the unit of a layer goes.

    Parameters
    ----------
    name : str
        The unit's.
    inputs, outputs : tuple of str
        Wires.
    x : tuple of TensorSpec
        What it reads.
    family : Family
    updatable : bool
        Whether other weights are to go into the same circuit; see `CoreBase`.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    x: tuple[TensorSpec, ...]
    family: Family
    updatable: bool = False

    @property
    def queue_memory(self) -> str:
        """Where results wait: a queue without distributed RAM is 150 logic cells or a block."""
        return "logic" if self.family.lutram else "block"

    @property
    def multiplier(self) -> str:
        """What a unit scales by: DSP blocks where the family has them."""
        return self.family.multiplier if self.family.blocks_multiply else "logic"


layer_unit: Face[[Site], Unit] = LAYERS.face("unit")
"""The unit that computes a layer without weights."""


@layer_unit.of(MaxPool, AveragePool)
def _pool(layer: MaxPool | AveragePool, site: Site) -> Pool:
    g, latency, x = _apart(layer.geometry), site.family.bank_latency, site.x[0]
    average = layer if isinstance(layer, AveragePool) else None
    window = None
    if not can_stream(g, latency):
        pad = 0 if average else x.format.min
        rows = min(g.input_shape[0], g.span[0]) + g.stride[0]
        window = WindowSpec(g, x.format, 1, rows, "channel", pad, latency=latency)
        window = _placed(window, site.family)
    scale = None
    if average is not None:
        taps = g.kernel[0] * g.kernel[1]
        largest = max(m for _, m in average.mult)
        low, high = (limit * taps for limit in x.format.limits)
        scale = Scale.of(layer.output.format, average.shift, low, high, (largest,), site.multiplier)
    pool = Pool(
        site.name,
        site.inputs,
        site.outputs,
        g,
        x.format,
        layer.output.format,
        window,
        scale,
        average.mult if average else (),
        average.include_pads if average else False,
        latency=latency,
    )
    memory = memory_kind(pool.partials * pool.acc_bits, site.family)
    return replace(pool, memory=memory, queue_memory=site.queue_memory)


@layer_unit.of(Part)
def _pick(layer: Part, site: Site) -> Pick:
    (x,) = site.x
    numbers = (x.format, x.size, layer.start, layer.count, layer.period)
    return Pick(site.name, site.inputs, site.outputs, *numbers)


@layer_unit.of(Table)
def _lookup(layer: Table, site: Site) -> Lookup:
    entries = tuple(map(tuple, layer.entries.tolist()))
    numbers = (layer.x, layer.output.format, layer.output.size, entries)
    unit = Lookup(site.name, site.inputs, site.outputs, *numbers, queue_memory=site.queue_memory)
    width, family = unit.out.bits, site.family
    memory = "block" if site.updatable else memory_kind(width * unit.words, family)
    latency = family.bank_latency
    if memory == "block":
        latency += select_registers(width, unit.words, family.blocks)
    table = replace(unit, memory=memory, latency=latency)
    if unit.lines is None or site.updatable:
        return table
    lines = replace(unit, memory="lines", latency=LINES_DELAY)
    return min((table, lines), key=lambda choice: _weight(unit_cost(choice, family), family))


def _weight(taken: Resources, family: Family) -> int:
    """LUTs, with block RAM counted as some."""
    return taken.luts + _BLOCK_LUTS[family.lutram] * taken.brams


@layer_unit.of(Largest)
def _largest(layer: Largest, site: Site) -> LargestUnit:
    (x,) = site.x
    return LargestUnit(site.name, site.inputs, site.outputs, x.format, x.size, layer.count)


@layer_unit.of(Smoothed)
def _smoothed(layer: Smoothed, site: Site) -> SmoothedUnit:
    (x,) = site.x
    numbers = (x.format, x.size, layer.shift, layer.margin)
    return SmoothedUnit(site.name, site.inputs, site.outputs, *numbers)


@layer_unit.of(Above)
def _above(layer: Above, site: Site) -> AboveUnit:
    numbers = (site.x[0].format, layer.thresholds)
    return AboveUnit(
        site.name, site.inputs, site.outputs, *numbers, queue_memory=site.queue_memory
    )  # fmt: skip


@layer_unit.of(Add, Concat)
def _join(layer: Add | Concat, site: Site) -> Join:
    formats = tuple(t.format for t in site.x)
    low = min(f.limits[0] for f in formats)
    high = max(f.limits[1] for f in formats)
    runs: tuple[int, ...] = ()
    products = layer.mult
    if isinstance(layer, Concat):
        lead = int(np.prod(layer.output.shape[:-1], dtype=np.int64))
        runs = tuple(t.size // lead for t in site.x)
        products = (max(layer.mult),)
    kind = "logic" if isinstance(layer, Outputs) else site.multiplier
    scale = Scale.of(layer.output.format, layer.shift, low, high, products, kind)
    return Join(
        site.name,
        site.inputs,
        site.outputs,
        formats,
        layer.output.format,
        layer.output.size,
        layer.mult,
        scale,
        runs,
        queue_memory=site.queue_memory,
    )


def _placed(window: WindowSpec, family: Family, by_pixel: bool = False) -> WindowSpec:
    """A line buffer in the memory that suits its size; with more rows where its block RAM has room,
    so that the next map comes in while the last windows of the one before are read. Of windows by
    the pixel it is the memory of the rows above."""
    word = window.width * window.x.bits
    if by_pixel:
        g = window.geometry
        bits = (g.kernel[0] - 1) * g.input_shape[1] * g.input_shape[2] * window.x.bits
        return replace(window, memory=memory_kind(bits, family))
    window = replace(window, memory=memory_kind(window.depth * word, family))
    if window.memory == "logic":
        return window
    blocks = memory_blocks(word, window.depth, family.blocks)
    for more in range(window.geometry.stride[0], 0, -1):
        deeper = replace(window, rows=window.rows + more)
        if memory_blocks(word, deeper.depth, family.blocks) == blocks:
            return deeper
    return window


def _apart(g: Geometry) -> Geometry:
    """The same windows; along an axis with one of them with a stride of no less than the kernel: a
    pooling of the whole map has no overlaps."""
    axes = zip(g.kernel, g.stride, g.output_size, strict=True)
    high, wide = (max(k, s) if count == 1 else s for k, s, count in axes)
    return replace(g, stride=(high, wide))


def _widened(unit: Wide, given: Sequence[int]) -> Unit:
    """The unit with transfers as wide as those that it reads, as far as it can: a sum is no faster
    than its narrowest input."""
    if isinstance(unit, Pool) and unit.window is not None:
        return unit
    counts = [*unit.sizes()[0], unit.sizes()[1]]
    if isinstance(unit, Pool):
        counts.append(unit.geometry.input_shape[2])
    if isinstance(unit, Lookup) and len(unit.entries) > 1:
        counts.append(len(unit.entries))
    if isinstance(unit, Join):
        counts += unit.runs
    width = max(given) if isinstance(unit, Join) and unit.runs else min(given)
    width = gcd(width, *counts)
    while isinstance(unit, Pool) and not can_stream(unit.geometry, unit.latency, width):
        width = max(w for w in range(1, width) if width % w == 0)
    return unit.with_width(width)


def _last_of(part: CorePart) -> str:
    """The layer whose results a part gives."""
    return part.layers[-1].name if isinstance(part, Network) else part.name


@dataclass
class _Builder:
    """Walks the layers in order; ``free`` holds the wires of every tensor that are not read, and
    ``wide`` the activations in a transfer of each wire."""

    network: Network
    cores: list[CoreBase]
    family: Family
    widths: tuple[int, int] = (1, 1)
    units: list[Unit] = field(default_factory=list)
    free: dict[str, list[str]] = field(default_factory=dict)
    wide: dict[str, int] = field(default_factory=dict)
    last: str = ""

    def build(self) -> GraphSpec:
        network = self.network
        self.tensors = network.tensors()
        self.names = dict(
            zip(network.tensors(), ["input", *unit_names(network.layers)], strict=True)
        )
        self.unit_names = Names({*RESERVED, *self.names.values()})
        self.waiting: dict[str, tuple[CorePart, CoreBase]] = {}
        self.parts: list[Network] = []
        for part, core in zip(core_parts(network, self.cores), self.cores, strict=True):
            self.waiting[_last_of(part)] = part, core
            self.parts += [part] if isinstance(part, Network) else []
        self.inner = {layer.name for part in self.parts for layer in part.layers}
        self.abreast: list[CoreBase] = []
        for tensor, width in zip((network.input, network.output), self.widths, strict=True):
            if width < 1 or tensor.size % width:
                raise InputError(
                    f"Activations a transfer must divide the {tensor.size:,} of "
                    f"{tensor.name!r}, not {width}"
                )
        self.wide[_INPUT] = self.widths[0]
        self._give(network.input, _INPUT)
        for layer in network.layers:
            if layer.name in self.inner and layer.name not in self.waiting:
                continue
            output = f"w_{self.names[layer.output.name]}"
            self._place(layer, output)
            if layer is not self.network.layers[-1]:
                self._give(layer.output, output)
        self._leave(self.last or output)
        return GraphSpec(tuple(self.units), _INPUT, _OUTPUT)

    def _place(self, layer: Layer, output: str) -> None:
        """The units of a layer, or of an engine that ends with it."""
        name = self.names[layer.output.name]
        part, core = self.waiting.get(layer.name, (None, None))
        if isinstance(part, Network) and core is not None:
            self._engine(name, part, core, output)
            return
        inputs = tuple(self._take(layer, n) for n in range(len(layer.inputs)))
        if isinstance(part, CoreLayer) and core is not None:
            self._core(name, part, core, inputs, output)
            return
        x = tuple(self.tensors[tensor] for tensor in layer.inputs)
        fixed = any(core.updatable for core in self.cores)
        self._add(layer_unit(layer, Site(name, inputs, (output,), x, self.family, fixed)))

    def _engine(self, name: str, part: Network, core: CoreBase, output: str) -> None:
        """An engine of several layers, behind a FIFO of a frame where it takes the next one only
        when it is through with one."""
        wire = self.free[part.input.name].pop(0)
        if core.alternates and wire != _INPUT:
            unit, out = self._free_name(f"{name}_fifo"), f"w_{name}.in"
            self._add(Fifo(unit, (wire,), (out,), part.input.format, part.input.size, 2))
            wire = out
        self._add(CoreUnit(name, (wire,), (output,), core))

    def _leave(self, wire: str) -> None:
        """Makes a wire the output, as wide as it is to be."""
        wire = self._converted(wire, self.widths[1])
        self.units = [
            replace(unit, outputs=tuple(_OUTPUT if w == wire else w for w in unit.outputs))
            for unit in self.units
        ]

    def _add(self, unit: Unit) -> None:
        """A unit behind wires of some width: as wide as they are where it can be."""
        given = [self.wide[wire] for wire in unit.inputs]
        if isinstance(unit, Wide):
            unit = _widened(unit, given)
        wires = tuple(self._converted(wire, unit.widths[0]) for wire in unit.inputs)
        self.units.append(replace(unit, inputs=wires))
        for wire in unit.outputs:
            self.wide[wire] = unit.widths[1]

    def _converted(self, wire: str, width: int) -> str:
        """The wire, through converters where its transfers aren't so wide."""
        at = self.wide[wire]
        steps = [] if at == width else [width]
        if steps and at % width and width % at:
            steps.insert(0, gcd(at, width))
        for step in steps:
            giver = next((u for u in self.units if wire in u.outputs), None)
            if giver is not None:
                size, form = giver.sizes()[1], giver.formats()[1]
            else:
                size, form = self.network.input.size, self.network.input.format
            name = self._free_name(f"{giver.name if giver else 'input'}_width")
            unit = WidthConverter(name, (wire,), (f"w_{name}",), form, size, self.wide[wire], step)
            self.units.append(unit)
            wire = f"w_{name}"
            self.wide[wire] = step
        return wire

    def _core(
        self, name: str, layer: CoreLayer, core: CoreBase, inputs: tuple[str, ...], output: str
    ) -> None:
        """A layer's core, its line buffer, and at the end of a batch its unpacker."""
        (wire,) = inputs
        wide = self.wide[wire]
        self.abreast = [*self.abreast, core] if core.output_frames > 1 else []
        window = None
        if core.maps not in (None, layer.geometry):
            raise InputError(f"Layer {layer.name!r} must have a core of its own maps")
        if layer.geometry is not None and core.maps is None:
            latency, side = self.family.bank_latency, core.frames if core.row_windows else 1
            wide = layer.geometry.input_shape[2] if core.by_pixel else wide
            window = make_window(
                layer.geometry, core.x, core.lanes, latency=latency, side=side, taken=wide
            )
            window = _placed(window, self.family, core.by_pixel)
        elif core.takes_wide:
            core = replace(core, in_width=gcd(wide, core.n))
        self._add(CoreUnit(name, inputs, (output,), core, window))
        last = layer.source is self.network.layers[-1]
        if last and self.abreast and self.abreast[0].flush_cycles:
            unpack = self._free_name(f"{name}_unpacker")
            self._add(make_unpack(unpack, (output, f"w_{unpack}"), self.abreast))
            self.last = f"w_{unpack}"

    def _give(self, tensor: TensorSpec, wire: str) -> None:
        """Registers a tensor's wire, forked when several layers read it."""
        layers = [layer for layer in self.network.layers if layer.name not in self.inner]
        readers = sum(layer.inputs.count(tensor.name) for layer in layers)
        readers += sum(part.input.name == tensor.name for part in self.parts)
        name = self.names[tensor.name]
        if readers == 0:
            raise InputError(f"Tensor {tensor.name!r} must be read by a layer")
        if readers == 1:
            self.free[tensor.name] = [wire]
            return
        # A dot keeps these wires apart from any layer's own: no layer's name has one.
        wires = [f"w_{name}.{k}" for k in range(readers)]
        fork = Fork(
            self._free_name(f"{name}_fork"), (wire,), tuple(wires), tensor.format, tensor.size
        )
        self._add(fork)
        self.free[tensor.name] = wires

    def _take(self, layer: Layer, n: int) -> str:
        """The wire of a layer's input, through a FIFO where branches meet."""
        tensor = self.tensors[layer.inputs[n]]
        wire = self.free[tensor.name].pop(0)
        if len(layer.inputs) == 1:
            return wire
        name = self.names[layer.output.name]
        out = f"w_{name}.in{n}"
        unit = self._free_name(f"{name}_fifo{n}")
        self._add(Fifo(unit, (wire,), (out,), tensor.format, tensor.size, 2))
        return out

    def _free_name(self, text: str) -> str:
        """A name for a unit of no layer, which no other unit has."""
        return safe_name(text, self.unit_names)
