"""One layer's core: banks, lanes, tree, accumulator, requantizer between two streams."""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.arith.activation import activation_layout, stream_ports
from gateware.arith.requantizer import Requantizer
from gateware.arith.tree import Accumulator, AdderTree
from gateware.core.code_ring import CodeRing
from gateware.core.decoder import lane_decoder
from gateware.core.leaf import Leaf
from gateware.core.parameters import Strobe, core_rom, row_words
from gateware.core.sequencer import BankWriter, ResultFifo, Sequencer
from gateware.core.side_loader import SideLoader
from gateware.core.window_loader import WindowLoader
from gateware.device.live import LiveBus
from gateware.device.memory import Ram, Rom
from gateware.device.spram import CODE_PORT, SpramRom
from gateware.link.serial_writer import SerialWriter
from gateware.units.map_order import MapOrderUnit
from pvq_hw.engine.batch import last_frame_format
from pvq_hw.engine.line_buffer import WindowSpec, check_window
from pvq_hw.engine.map_order import map_order
from pvq_hw.engine.pulse_core import CoreImage, CoreSpec

__all__ = ["LayerCore", "RowFlags", "read_codes"]

Writer = BankWriter | WindowLoader | SideLoader | SerialWriter


class LayerCore(wiring.Component):
    """Computes one layer, frame after frame: `CoreSpec.compute` as a circuit.

    Takes the N activations of a frame in order, one a cycle, and gives the rows' results in
    order. A frame takes ``spec.words`` cycles as long as results are taken; a row's result is
    offered ``spec.output_delay`` cycles after its last code word is read. The next frame is
    taken while one is computed. A result depends on its frame alone.

    Back-pressure holds the reading of codes, never the datapath behind it. Reset forgets all
    frames; the first activation after it starts a frame. Results cannot overflow, see
    `CoreSpec.acc_bits`.

    Parameters
    ----------
    spec : CoreSpec
    image : CoreImage
    body : str
        How memories and multipliers are built, see
        `gateware.device.bodies.bodies`.
    window : WindowSpec, optional
        Makes it a convolution: ``i`` takes maps, and each window of a map is a frame of the core.
        With several windows side by side results leave in the order of the map even so.

    Members
    -------
    i, o : streams of V activations, see `gateware.arith.activation`; with ``spec.flush_cycles``
    ``i``
        has one
    batch : stream, only with ``spec.flush_cycles``: see `gateware.link.serial_writer`
    codes : In(`gateware.device.spram.CODE_PORT`), only with ``spec.code_memory == "spram"``
        Fills the code memory. Frames that are under way while it loads come out wrong.

    Attributes
    ----------
    first_block : int
        Number of the code memory's first block on ``codes``; set before elaboration.
    live : LiveBus or None
        Over which its memories are loaded; set before elaboration.
    """

    live: LiveBus | None = None

    def __init__(
        self,
        spec: CoreSpec,
        image: CoreImage,
        *,
        body: str = "behavioral",
        window: WindowSpec | None = None,
    ) -> None:
        self.spec, self.image, self.body, self.window = spec, image, body, window
        if window is not None:
            check_window(spec, window)
        self.first_block = 0
        loaded = {"codes": In(CODE_PORT)} if spec.code_memory == "spram" else {}
        if spec.flush_cycles:
            number = activation_layout(last_frame_format(spec.frames), 1)
            loaded["batch"] = Out(stream.Signature(number))
        taken = spec.input_frames if window is None else window.taken
        given = max(spec.output_frames, spec.out_width)  # one of them is 1
        super().__init__(stream_ports(spec.x, spec.out, taken, given) | loaded)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.writer = writer = self._writer()
        m.submodules.sequencer = sequencer = Sequencer(spec)
        word, group_end, clear = read_codes(self, m, sequencer)
        m.submodules.fifo = fifo = ResultFifo(spec, self.body)
        connect(m, flipped(self.i), writer.i)
        if isinstance(writer, SerialWriter):
            connect(m, writer.batch, flipped(self.batch))
        order = map_order(spec)
        if order is None:
            connect(m, fifo.o, flipped(self.o))
        else:
            # The output first, so that it keeps its name in Verilog.
            m.submodules.order = ordered = MapOrderUnit(order, self.body)
            connect(m, ordered.o, flipped(self.o))
            connect(m, fifo.o, ordered.i)
        row_end, base = self._groups(m, group_end)
        m.d.comb += [
            writer.release.eq(sequencer.end),
            sequencer.written.eq(writer.written),
            sequencer.popped.eq(fifo.popped),
            sequencer.row_end.eq(row_end),
        ]
        sums = self._lanes(m, writer, sequencer, word, clear, base)
        flags = RowFlags(m, spec, sequencer.valid, group_end, row_end)
        results = self._rows(m, sums, flags)
        m.d.comb += [
            fifo.w_en.eq(flags.row_end(spec.product_stage + spec.bias_chunks + 1)),
            fifo.w_data.eq(Cat(*results)),
        ]
        return m

    def _writer(self) -> Writer:
        if self.window is None:
            return SerialWriter(self.spec) if self.spec.flush_cycles else BankWriter(self.spec)
        if self.window.side > 1:
            return SideLoader(self.spec, self.window, self.body)
        return WindowLoader(self.spec, self.window, self.body)

    def _groups(self, m: Module, group_end: Value) -> tuple[Value, Value | None]:
        """Counts the groups of a row: end of row, base of the group that follows."""
        groups = self.spec.groups
        if groups == 1:
            return group_end, None
        group = Signal(range(groups))
        at_last = group == groups - 1
        with m.If(group_end):
            m.d.sync += group.eq(Mux(at_last, 0, group + 1))
        bases = self.spec.code.bases(self.spec.n, groups)
        base = Signal(self.spec.address_bits)
        # A clear without a group's end is that after a reset.
        m.d.comb += base.eq(Mux(group_end, Array([*bases[1:], 0])[group], 0))
        return group_end & at_last, base

    def _lanes(
        self,
        m: Module,
        writer: Writer,
        sequencer: Sequencer,
        word: Value,
        clear: Value,
        base: Value | None,
    ) -> list[Value]:
        """P lanes of decoder, bank and V leaves each, then V adder trees."""
        spec = self.spec
        trees = [AdderTree(spec.lanes, spec.leaf_bits) for _ in range(spec.frames)]
        half = Signal(reset_less=True)
        m.d.sync += half.eq(sequencer.half)
        for p in range(spec.lanes):
            decoder: Any = lane_decoder(spec.code, spec.address_bits, base is not None, self.body)
            m.submodules[f"decoder{p}"] = decoder
            activations = self._bank(m, p, writer, Cat(decoder.address, half))
            m.d.comb += [
                decoder.code.eq(word[p * spec.code.lane_bits : (p + 1) * spec.code.lane_bits]),
                decoder.valid.eq(sequencer.valid),
                decoder.clear.eq(clear),
            ]
            if base is not None:
                m.d.comb += decoder.base.eq(base)
            controls: Value = Cat(decoder.nonzero, decoder.negative, decoder.shift)
            for i in range(spec.bank_latency):
                later = Signal(len(controls), name=f"controls{p}_{i}", reset_less=True)
                m.d.sync += later.eq(controls)
                controls = later
            for v, tree in enumerate(trees):
                leaf = Leaf(spec.x, spec.code.shift_bits)
                m.submodules[f"leaf{p}_{v}"] = leaf
                m.d.comb += [
                    leaf.x.eq(activations.word_select(v, spec.x.bits)),
                    Cat(leaf.nonzero, leaf.negative, leaf.shift).eq(controls),
                    tree.i[p].eq(leaf.value),
                ]
        for v, tree in enumerate(trees):
            m.submodules[f"tree{v}"] = tree
        return [tree.o for tree in trees]

    def _bank(self, m: Module, p: int, writer: Writer, address: Value) -> Value:
        """The bank of a lane; V memories where its V activations are not written together."""
        spec = self.spec
        parts = spec.frames // spec.input_frames
        words = []
        for v in range(parts):
            bank = Ram(
                spec.x.bits * (spec.frames // parts),
                spec.bank_words,
                latency=spec.bank_latency,
                kind=spec.bank_memory,
                body=self.body,
            )
            m.submodules[f"bank{p}" if parts == 1 else f"bank{p}_{v}"] = bank
            enable, w_addr = writer.w_en[p], writer.w_addr
            if isinstance(writer, SerialWriter):
                enable = enable & writer.w_part[v]
            if isinstance(writer, SideLoader):
                enable = writer.w_en[v * spec.lanes + p]
                w_addr = writer.w_addr.word_select(v, len(bank.w_addr))
            m.d.comb += [
                bank.w_en.eq(enable),
                bank.w_addr.eq(w_addr),
                bank.w_data.eq(writer.w_data.word_select(p % writer.width, bank.width)),
                bank.r_addr.eq(address),
            ]
            words.append(bank.r_data)
        return Cat(*words)

    def _rows(
        self, m: Module, sums: list[Value], flags: "RowFlags", *, gated: bool = False
    ) -> list[Value]:
        """V accumulators and requantizers, with the row's multiplier and bias.

        ``gated``: sums of no word are not 0.
        """
        spec = self.spec
        mult: Value = Const(1)
        if spec.multiplies.stored:
            mult = row_words(m, self, "mult", flags.group_end, spec.row_stage)
        bias = row_words(m, self, "bias", flags.row_end, spec.product_stage)
        product = spec.row_stage + spec.multiplier_delay
        results = []
        for v, total in enumerate(sums):
            accumulator = Accumulator(len(total), spec.acc_bits, spec.carry_chunk, gated=gated)
            requantizer = Requantizer(spec, self.body)
            m.submodules[f"accumulator{v}"] = accumulator
            m.submodules[f"requantizer{v}"] = requantizer
            m.d.comb += [
                accumulator.i.eq(total),
                accumulator.first.eq(flags.group_start(spec.sum_stage)),
                requantizer.acc.eq(accumulator.o),
                requantizer.mult.eq(mult),
                requantizer.bias.eq(bias),
                requantizer.start.eq(flags.group_end(spec.row_stage)),
            ]
            if gated:
                m.d.comb += accumulator.valid.eq(flags.valid(spec.sum_stage))
            if spec.groups > 1:
                m.d.comb += [
                    requantizer.add.eq(flags.group_end(product)),
                    requantizer.first.eq(flags.row_start),
                ]
            results.append(requantizer.o)
        if spec.groups > 1:
            flags.follow_rows(m, product)
        return results


def read_codes(core: Any, m: Module, sequencer: Any) -> tuple[Value, Value, Value]:
    """The code word at the decoders, the end of its group, and the decoders' clear strobe.

    The word's last register stands here, so that the strobes come out of registers too.

    Parameters
    ----------
    core : LayerCore or SharedCore
    m : Module
    sequencer : Sequencer or LayerSequencer
    """
    latency = core.spec.code_latency
    m.submodules.codes = codes = _code_memory(core, m, max(1, latency - 1))
    m.d.comb += codes.addr.eq(sequencer.addr)
    if isinstance(codes, CodeRing):
        m.d.comb += [sequencer.came.eq(codes.came), codes.freed.eq(sequencer.freed)]
    end = Signal()
    if latency == 1:
        fresh = Signal(init=1)
        m.d.sync += fresh.eq(0)
        m.d.comb += end.eq(sequencer.valid & codes.data[-1])
        return codes.data, end, end | fresh
    word = Signal(len(codes.data), reset_less=True)
    clear = Signal(init=1)
    last = sequencer.valid_next & codes.data[-1]
    m.d.sync += [word.eq(codes.data), end.eq(last), clear.eq(last)]
    return word, end, clear


def _code_memory(core: Any, m: Module, latency: int) -> Rom | SpramRom | CodeRing:
    spec = core.spec
    if spec.code_memory == "block":
        return core_rom(core, "weights", latency, "block")
    if spec.code_memory == "flash":
        ring = CodeRing(spec, core.image, latency, core.wake_clocks, core.body)
        connect(m, ring.flash, flipped(core.flash))
        m.d.comb += [core.codes_right.eq(ring.right), core.codes_wrong.eq(ring.wrong)]
        return ring
    width, depth = spec.memories[spec.memory_name("weights")]
    codes = SpramRom(width, depth, core.first_block, latency=latency, body=core.body)
    connect(m, flipped(core.codes), codes.codes)
    return codes


class RowFlags:
    """First and last words of groups and rows along the pipeline."""

    def __init__(
        self, m: Module, spec: CoreSpec, valid: Value, group_end: Value, row_end: Value
    ) -> None:
        starting = Signal(init=1)
        with m.If(valid):
            m.d.sync += starting.eq(group_end)
        self.valid = Strobe(m, "word_valid", valid, spec.code_latency)
        self.group_start = Strobe(m, "group_start", valid & starting, spec.code_latency)
        self.group_end = Strobe(m, "group_end", group_end, spec.code_latency)
        self.row_end = (
            self.group_end if spec.groups == 1 else Strobe(m, "row_end", row_end, spec.code_latency)
        )
        self.row_start = Signal(init=1)

    def follow_rows(self, m: Module, stage: int) -> None:
        """Keeps ``row_start``: whether the next product at ``stage`` is of a row's first group."""
        group_end, row_end = self.group_end(stage), self.row_end(stage)
        with m.If(group_end):
            m.d.sync += self.row_start.eq(row_end)
