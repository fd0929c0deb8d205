"""From a network and its cores to the graph of units: wires, forks, FIFOs, line buffers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pvq_hw.engine.batch import make_unpack
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.line_buffer import WindowSpec, make_window
from pvq_hw.engine.timing import fifo_needs, with_depths
from pvq_hw.engine.units import CoreUnit, Fifo, Fork, Join, Lookup, Pool, Scale, Unit, can_stream
from pvq_hw.errors import InputError
from pvq_hw.naming import safe_name
from pvq_hw.network.join import Add, Concat, Outputs
from pvq_hw.network.layer import Dense, Layer, TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.network.table import Table
from pvq_hw.network.window import AveragePool, Conv, MaxPool
from pvq_hw.plan.core_layers import core_layers, unit_names
from pvq_hw.target.block_ram import select_registers
from pvq_hw.target.families import Family
from pvq_hw.target.families import family as find_family

__all__ = ["build_graph", "plan_graph"]

_SMALL_BITS = 512  # memories up to this size become logic
_INPUT, _OUTPUT = "i", "o"


def plan_graph(
    network: Network, cores: Sequence[tuple[CoreBase, CoreImage]], engine: str
) -> GraphSpec:
    """The graph of a network, its FIFOs as deep as keeps every unit at its own pace.

    Parameters
    ----------
    network : Network
    cores : sequence of (CoreBase, CoreImage)
        Of its layers with weights, in order.
    engine : str
        Key of `pvq_hw.target.families.FAMILIES`.
    """
    graph = build_graph(network, [spec for spec, _ in cores], engine)
    if not any(isinstance(unit, Fifo) for unit in graph.units):
        return graph
    needs = fifo_needs(graph, {spec.name: image for spec, image in cores})
    return _with_memories(with_depths(graph, needs), find_family(engine))


def build_graph(
    network: Network,
    cores: Sequence[CoreBase],
    engine: str,
    depths: Mapping[str, int] | None = None,
) -> GraphSpec:
    """The graph of a network.

    Parameters
    ----------
    depths : mapping of FIFO name to int, optional
        2 where nothing is said.
    """
    builder = _Builder(network, list(cores), find_family(engine))
    graph = builder.build()
    return _with_memories(with_depths(graph, depths or {}), builder.family)


def _with_memories(graph: GraphSpec, family: Family) -> GraphSpec:
    """Deep FIFOs in block RAM."""
    units = [
        replace(unit, memory=_memory(unit.depth * unit.x.bits, family))
        if isinstance(unit, Fifo)
        else unit
        for unit in graph.units
    ]
    return replace(graph, units=tuple(units))


def _memory(bits: int, family: Family) -> str:
    return "logic" if bits <= (_SMALL_BITS if family.lutram else _SMALL_BITS // 4) else "block"


@dataclass
class _Builder:
    """Walks the layers in order; ``free`` holds the wires of every tensor that are not read."""

    network: Network
    cores: list[CoreBase]
    family: Family
    units: list[Unit] = field(default_factory=list)
    free: dict[str, list[str]] = field(default_factory=dict)

    def build(self) -> GraphSpec:
        network = self.network
        self.tensors = network.tensors()
        self.names = dict(
            zip(network.tensors(), ["input", *unit_names(network.layers)], strict=True)
        )
        self.used = {name.lower() for name in self.names.values()}
        windows = {layer.name: layer.geometry for layer in core_layers(network)}
        cores = iter(self.cores)
        abreast: list[CoreBase] = []
        self._give(network.input, _INPUT)
        for layer in network.layers:
            name = self.names[layer.output.name]
            inputs = tuple(self._take(layer, n) for n in range(len(layer.inputs)))
            last = layer is network.layers[-1]
            output = _OUTPUT if last else f"w_{name}"
            x = self.tensors[layer.inputs[0]]
            if isinstance(layer, Dense | Conv):
                core = next(cores, None)
                abreast = [*abreast, core] if core is not None and core.frames > 1 else []
                if core is None:
                    raise InputError(f"Layer {layer.name!r} must have a core")
                geometry = windows[layer.name]
                window = None
                if geometry is not None:
                    window = self._window(
                        make_window(geometry, core.x, core.lanes, latency=self.family.bank_latency)
                    )
                wire = output
                if last and abreast and abreast[0].flush_cycles:
                    wire = f"w_{name}"
                self.units.append(CoreUnit(name, inputs, (wire,), core, window))
                if wire != output:
                    unpack = self._free_name(f"{name}_unpacker")
                    self.units.append(make_unpack(unpack, (wire, output), abreast))
            elif isinstance(layer, MaxPool | AveragePool):
                self.units.append(self._pool(layer, x, name, inputs, output))
            elif isinstance(layer, Add | Concat):
                self.units.append(self._join(layer, name, inputs, output))
            elif isinstance(layer, Table):
                self.units.append(self._lookup(layer, name, inputs, output))
            else:
                raise InputError(f"Layer {layer.name!r} must be of a known kind, not {layer.kind}")
            if not last:
                self._give(layer.output, output)
        return GraphSpec(tuple(self.units), _INPUT, _OUTPUT)

    def _give(self, tensor: TensorSpec, wire: str) -> None:
        """Registers a tensor's wire, forked when several layers read it."""
        readers = sum(layer.inputs.count(tensor.name) for layer in self.network.layers)
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
        self.units.append(fork)
        self.free[tensor.name] = wires

    def _take(self, layer: Layer, n: int) -> str:
        """The wire of a layer's input, through a FIFO where branches meet."""
        tensor = self.tensors[layer.inputs[n]]
        wire = self.free[tensor.name].pop(0)
        if not isinstance(layer, Add | Concat) or len(layer.inputs) == 1:
            return wire
        name = self.names[layer.output.name]
        out = f"w_{name}.in{n}"
        unit = self._free_name(f"{name}_fifo{n}")
        self.units.append(Fifo(unit, (wire,), (out,), tensor.format, tensor.size, 2))
        return out

    def _free_name(self, text: str) -> str:
        """A name for a unit of no layer, which no other unit has."""
        return safe_name(text, self.used)

    def _window(self, window: WindowSpec) -> WindowSpec:
        bits = window.depth * window.width * window.x.bits
        return replace(window, memory=_memory(bits, self.family))

    def _queue_memory(self) -> str:
        """Of results: without distributed RAM a queue takes about 150 logic cells or a block."""
        return "logic" if self.family.lutram else "block"

    def _multiplier(self) -> str:
        return "logic" if self.family.multiplier == "serial" else self.family.multiplier

    def _pool(
        self,
        layer: MaxPool | AveragePool,
        x: TensorSpec,
        name: str,
        inputs: tuple[str, ...],
        output: str,
    ) -> Pool:
        g, latency = layer.geometry, self.family.bank_latency
        average = layer if isinstance(layer, AveragePool) else None
        window = None
        if not can_stream(g, latency):
            pad = 0 if average else x.format.min
            rows = min(g.input_shape[0], g.span[0]) + g.stride[0]
            window = WindowSpec(g, x.format, 1, rows, "channel", pad, latency=latency)
            window = self._window(window)
        scale = None
        if average is not None:
            taps = g.kernel[0] * g.kernel[1]
            largest = max(m for _, m in average.mult)
            low, high = (limit * taps for limit in x.format.limits)
            scale = Scale.of(
                layer.output.format, average.shift, low, high, (largest,), self._multiplier()
            )
        pool = Pool(
            name,
            inputs,
            (output,),
            g,
            x.format,
            layer.output.format,
            window,
            scale,
            average.mult if average else (),
            average.include_pads if average else False,
            latency=latency,
        )
        memory = _memory(pool.partials * pool.acc_bits, self.family)
        return replace(pool, memory=memory, queue_memory=self._queue_memory())

    def _lookup(self, layer: Table, name: str, inputs: tuple[str, ...], output: str) -> Lookup:
        entries = tuple(map(tuple, layer.entries.tolist()))
        fields = (layer.x, layer.output.format, layer.output.size, entries)
        unit = Lookup(name, inputs, (output,), *fields, queue_memory=self._queue_memory())
        width = unit.out.bits
        memory = _memory(width * unit.words, self.family)
        latency = self.family.bank_latency
        if memory == "block":
            latency += select_registers(width, unit.words, self.family.blocks)
        return replace(unit, memory=memory, latency=latency)

    def _join(self, layer: Add | Concat, name: str, inputs: tuple[str, ...], output: str) -> Join:
        tensors = [self.tensors[t] for t in layer.inputs]
        formats = tuple(t.format for t in tensors)
        low = min(f.limits[0] for f in formats)
        high = max(f.limits[1] for f in formats)
        runs: tuple[int, ...] = ()
        products = layer.mult
        if isinstance(layer, Concat):
            lead = int(np.prod(layer.output.shape[:-1], dtype=np.int64))
            runs = tuple(t.size // lead for t in tensors)
            products = (max(layer.mult),)
        kind = "logic" if isinstance(layer, Outputs) else self._multiplier()
        scale = Scale.of(layer.output.format, layer.shift, low, high, products, kind)
        return Join(
            name,
            inputs,
            (output,),
            formats,
            layer.output.format,
            layer.output.size,
            layer.mult,
            scale,
            runs,
            queue_memory=self._queue_memory(),
        )
