"""A depthwise convolution's core: rows above and columns to the left in memories, one window a
cycle, all taps at once."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.arith.activation import stream_ports
from gateware.arith.requantizer import Requantizer
from gateware.arith.tree import AdderTree
from gateware.core.parameters import Strobe, core_rom, row_words
from gateware.core.sequencer import ResultFifo
from gateware.units.raster import Level, RasterWalk, WaitingQueue, WindowMemories, later
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.depthwise_core import DepthwiseSpec

__all__ = ["DepthwiseCore"]


class TapSums(wiring.Component):
    """``o = sum over taps of |y| * (x ^ sign)``: a tree for each bit of the magnitudes, and the
    sum of these. What lies outside of the map is 0.

    Latency ``1 + spec.tree_levels + spec.plane_levels`` cycles, one sum a cycle.
    """

    def __init__(self, spec: DepthwiseSpec) -> None:
        self.spec = spec
        super().__init__(
            {
                "x": In(data.ArrayLayout(spec.x.bits, spec.taps)),
                "inside": In(spec.taps),
                "word": In(spec.word_bits),
                "o": Out(signed(spec.acc_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        leaves: list[list[Value]] = [[] for _ in range(spec.planes)]
        place = 0
        for tap, bits in enumerate(spec.magnitudes):
            if not bits:
                continue
            size, negative = self.word[place : place + bits], self.word[place + bits]
            place += bits + 1
            x = Value.cast(self.x[tap]) & self.inside[tap].replicate(spec.x.bits)
            value = x ^ negative.replicate(spec.x.bits)
            if not spec.x.signed:
                value = Cat(value, negative)
            for k in range(bits):
                leaf = Signal(signed(spec.leaf_bits), name=f"leaf{tap}_{k}", reset_less=True)
                m.d.sync += leaf.eq(value & size[k].replicate(spec.leaf_bits))
                leaves[k].append(leaf)
        m.d.comb += self.o.eq(self._sum(m, [self._tree(m, k, p) for k, p in enumerate(leaves)]))
        return m

    def _tree(self, m: Module, plane: int, leaves: Sequence[Value]) -> Value:
        m.submodules[f"tree{plane}"] = tree = AdderTree(len(leaves), self.spec.leaf_bits)
        m.d.comb += [tree.i[k].eq(leaf) for k, leaf in enumerate(leaves)]
        late = self.spec.tree_levels - tree.levels
        return later(m, tree.o, late, f"plane{plane}").as_signed()

    def _sum(self, m: Module, values: list[Value]) -> Value:
        """Planes, each worth twice the one before, added by pairs with a register after each."""
        weight = 1
        while len(values) > 1:
            sums: list[Value] = []
            for low, high in zip(values[::2], [*values[1::2], None], strict=False):
                value: Value = low
                if high is not None:
                    # The lowest bits of the lower value pass by the carry chain.
                    value = Cat(low[:weight], (low >> weight) + high).as_signed()
                total = Signal(value.shape(), name=f"sum{weight}_{len(sums)}", reset_less=True)
                m.d.sync += total.eq(value)
                sums.append(total)
            values, weight = sums, 2 * weight
        return values[0] if values else Const(0, signed(2))


class DepthwiseCore(wiring.Component):
    """Computes a depthwise convolution, map after map: `DepthwiseSpec.compute` as a circuit.

    Takes the activations of a map in order, channels fastest, and gives the rows' results of one
    position after the other. A map takes ``spec.frame_cycles`` cycles as long as activations come
    and results are taken; a result is offered ``spec.output_delay`` cycles after its window is
    read, which is at the earliest in the cycle after the transfer of its last activation.

    Back-pressure holds the reading of windows, then the input; never the adders or the requantizer.
    Reset forgets all maps.

    Parameters
    ----------
    spec : DepthwiseSpec
    image : CoreImage
    body : str
        How memories and multipliers are built, see
        `gateware.device.bodies.bodies`.

    Members
    -------
    i, o : streams of activations, see `gateware.arith.activation`
    """

    def __init__(self, spec: DepthwiseSpec, image: CoreImage, *, body: str = "behavioral") -> None:
        self.spec, self.image, self.body = spec, image, body
        super().__init__(stream_ports(spec.x, spec.out))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.queue = queue = WaitingQueue(spec.raster, self.body)
        m.submodules.walk = walk = RasterWalk(spec.raster)
        m.submodules.window = window = WindowMemories(spec.raster, self.body)
        m.submodules.fifo = fifo = ResultFifo(spec, self.body)
        connect(m, flipped(self.i), queue.i)
        connect(m, fifo.o, flipped(self.o))
        places = Level(m, "places", spec.credits - 1, spec.credits - 1, fifo.popped, walk.emit)
        emit = Strobe(m, "emit", walk.emit, 0)
        m.d.comb += [
            walk.some.eq(queue.some),
            walk.enough.eq(queue.enough),
            walk.place.eq(places.reached),
            queue.used.eq(walk.used),
            window.column.eq(walk.column),
            window.channel.eq(walk.channel),
            window.advance.eq(walk.advance),
            window.data.eq(queue.data),
            fifo.w_en.eq(emit(spec.product_stage + spec.bias_chunks + 1)),
            fifo.w_data.eq(self._result(m, self._sums(m, walk, window.window), emit)),
        ]
        return m

    def _sums(self, m: Module, walk: RasterWalk, window: Value) -> Value:
        spec = self.spec
        m.submodules.weights = weights = core_rom(self, "weights", spec.code_latency, "block")
        m.submodules.sums = sums = TapSums(spec)
        m.d.comb += [
            weights.addr.eq(walk.row),
            sums.word.eq(weights.data),
            sums.x.eq(window),
            sums.inside.eq(later(m, walk.inside, spec.bank_latency, "inside")),
        ]
        return later(m, sums.o, spec.row_stage - spec.sum_stage, "total").as_signed()

    def _result(self, m: Module, total: Value, emit: Strobe) -> Value:
        """The requantizer, with multipliers and biases out of their ROMs."""
        spec = self.spec
        m.submodules.requantizer = requantizer = Requantizer(spec, self.body)
        mult: Value = Const(1)
        if spec.multiplies.stored:
            mult = row_words(m, self, "mult", emit, spec.row_stage)
        bias = row_words(m, self, "bias", emit, spec.product_stage)
        m.d.comb += [
            requantizer.acc.eq(total),
            requantizer.mult.eq(mult),
            requantizer.bias.eq(bias),
            requantizer.start.eq(emit(spec.row_stage)),
        ]
        return requantizer.o
