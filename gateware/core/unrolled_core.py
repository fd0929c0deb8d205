"""An unrolled layer between two streams: frames collected, all rows at once, requantizers."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.arith.activation import activation_layout, stream_ports
from gateware.arith.adder_graph import AdderNetwork
from gateware.arith.digit_adders import DigitNetwork
from gateware.arith.requantizer import Requantizer
from gateware.core.parameters import Strobe, row_words
from gateware.core.sequencer import ResultFifo
from gateware.core.window_collector import WindowCollector
from gateware.units.queue import Credits, delayed
from gateware.units.raster import RasterWalk, WaitingQueue, WindowMemories, later
from pvq_hw.engine.adder_graph import AdderGraph
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.line_buffer import WindowSpec, check_window
from pvq_hw.engine.raster import Raster
from pvq_hw.engine.unrolled_core import UnrolledSpec, window_raster

__all__ = ["UnrolledCore"]


class FrameCollector(wiring.Component):
    """Collects a frame, some activations a transfer, and holds it while the next one comes.

    Members
    -------
    i : stream of activations
    frame : the frame that is held
    settled : it has been held for ``spec.levels`` cycles; if pipelined, it is held
    release : strobe, only with ``settled``; it is not needed after this cycle

    Pipelined adders take a frame from where it comes in, and digit-serial ones into registers of
    their own: none holds it here.
    """

    def __init__(self, spec: UnrolledSpec) -> None:
        self.spec = spec
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(spec.x, spec.in_width))),
                "frame": Out(spec.n * spec.x.bits),
                "settled": Out(1),
                "release": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        n, bits = spec.n // spec.in_width, spec.x.bits * spec.in_width
        coming = Signal(n * bits, reset_less=True)
        count, at_end = Signal(range(n)), Signal(init=int(n == 1))
        # ``whole``: all of a frame has come, and it is not held yet.
        whole, held, hold, take = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(~whole | hold),
            take.eq(self.i.valid & self.i.ready),
        ]
        m.d.sync += whole.eq((take & at_end) | (whole & ~hold))
        with m.If(take):
            m.d.sync += [
                coming.eq(Cat(coming, self.i.payload.as_value())[bits:]),
                count.eq(Mux(at_end, 0, count + 1)),
            ]
            if n > 1:
                m.d.sync += at_end.eq(count == n - 2)
        if spec.pipelined:
            m.d.comb += [hold.eq(self.release), self.frame.eq(coming), self.settled.eq(whole)]
            return m
        frame = Signal(n * bits, reset_less=True)
        wait = Signal(range(spec.levels + 1), reset_less=True)
        m.d.comb += [
            hold.eq(whole & (~held | self.release)),
            self.frame.eq(frame),
            self.settled.eq(held & (wait == 0)),
        ]
        m.d.sync += held.eq(hold | (held & ~self.release))
        with m.If(hold):
            m.d.sync += [frame.eq(coming), wait.eq(spec.levels)]
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        return m


class WholeFrames(wiring.Component):
    """Frames that come in one transfer each, out of the stream into pipelined adders.

    Members
    -------
    i : stream of frames
    frame : the one on offer
    settled : there is one
    release : strobe, only with ``settled``; it is taken
    """

    def __init__(self, spec: UnrolledSpec) -> None:
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(spec.x, spec.n))),
                "frame": Out(spec.n * spec.x.bits),
                "settled": Out(1),
                "release": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += [
            self.frame.eq(self.i.payload.as_value()),
            self.settled.eq(self.i.valid),
            self.i.ready.eq(self.release),
        ]
        return m


class RasterCollector(wiring.Component):
    """Windows as their pixels come.

    Members
    -------
    i : stream of pixels
    frame : a window, ``raster.latency`` cycles after its release
    settled : a window may be read
    release : strobe, only with ``settled``; it is read
    """

    def __init__(self, raster: Raster, body: str) -> None:
        self.raster, self.body = raster, body
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(raster.x, raster.width))),
                "frame": Out(raster.taps * raster.bits),
                "settled": Out(1),
                "release": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        raster = self.raster
        m.submodules.queue = queue = WaitingQueue(raster, self.body)
        m.submodules.walk = walk = RasterWalk(raster)
        m.submodules.window = window = WindowMemories(raster, self.body)
        connect(m, flipped(self.i), queue.i)
        inside = later(m, walk.inside, raster.latency, "inside")
        m.d.comb += [
            walk.some.eq(queue.some),
            walk.enough.eq(queue.enough),
            walk.place.eq(self.release),
            queue.used.eq(walk.used),
            window.column.eq(walk.column),
            window.channel.eq(walk.channel),
            window.advance.eq(walk.advance),
            window.data.eq(queue.data),
            self.settled.eq(walk.wants),
            self.frame.eq(
                Cat(
                    window.window.word_select(tap, raster.bits) & inside[tap].replicate(raster.bits)
                    for tap in range(raster.taps)
                )
            ),
        ]
        return m


class FramePacer(wiring.Component):
    """Lets a frame into pipelined adders when its sums and its results will find places.

    Members
    -------
    settled : a frame is held
    popped : strobe, a transfer of results has left
    start : strobe, the frame goes into the adders
    """

    def __init__(self, spec: UnrolledSpec) -> None:
        self.spec = spec
        super().__init__({"settled": In(1), "popped": In(1), "start": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        places, words = self.spec.frame_places, self.spec.sum_cycles
        m.submodules.credits = credits = Credits(self.spec.credits // places)
        m.d.comb += [
            self.start.eq(self.settled & credits.some),
            credits.claim.eq(self.start),
            credits.returned.eq(self.popped),
        ]
        if words > 1:
            # A flag, since many registers hang on the start.
            pause = Signal(range(words))
            rested = Signal(init=1)
            m.d.comb += self.start.eq(self.settled & credits.some & rested)
            with m.If(self.start):
                m.d.sync += [pause.eq(words - 1), rested.eq(0)]
            with m.Elif(~rested):
                m.d.sync += [pause.eq(pause - 1), rested.eq(pause == 1)]
        if places > 1:
            left = Signal(range(places))
            at_end = left == places - 1
            m.d.comb += credits.returned.eq(self.popped & at_end)
            with m.If(self.popped):
                m.d.sync += left.eq(Mux(at_end, 0, left + 1))
        return m


class SumShifter(wiring.Component):
    """Takes all sums of a frame at once and gives W after the other; if ``spec.direct``, all of
    them as they come.

    Members
    -------
    sums : of a frame, those that leave first lowest
    settled : they are right
    load : they are taken in this cycle
    go : whether sums may leave
    o : the W sums that leave with ``step``
    step, row_end : strobes, sums leave; they are their rows' last
    """

    def __init__(self, spec: UnrolledSpec) -> None:
        self.spec = spec
        super().__init__(
            {
                "sums": In(spec.sums * spec.acc_bits),
                "settled": In(1),
                "load": Out(1),
                "go": In(1),
                "o": Out(data.ArrayLayout(signed(spec.acc_bits), spec.out_width)),
                "step": Out(1),
                "row_end": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        if spec.direct:
            m.d.comb += [
                self.o.eq(self.sums),
                self.load.eq(self.settled),
                self.step.eq(self.settled),
                self.row_end.eq(self.settled),
            ]
            return m
        kept = Signal(len(self.sums), reset_less=True)
        left, busy, last = Signal(range(spec.steps + 1), reset_less=True), Signal(), Signal()
        together = spec.out_width * spec.acc_bits
        m.d.comb += [
            self.step.eq(busy & self.go & self._paced(m)),
            last.eq(self.step & (left == 1)),
            self.load.eq(self.settled & (~busy | last)),
            self.o.eq(kept[:together]),
            self.row_end.eq(self.step & self._last_group(m)),
        ]
        m.d.sync += busy.eq(self.load | (busy & ~last))
        # One enable and one choice, or Yosys takes two LUTs for a bit.
        with m.If(self.load | self.step):
            m.d.sync += [
                kept.eq(Mux(self.load, self.sums, kept >> together)),
                left.eq(Mux(self.load, spec.steps, left - 1)),
            ]
        return m

    def _paced(self, m: Module) -> Value:
        """Whether the multiplier takes the next operand."""
        interval = self.spec.multiplier_interval
        if interval == 1:
            return Const(1, 1)
        pause = Signal(range(interval))
        with m.If(self.step):
            m.d.sync += pause.eq(interval - 1)
        with m.Elif(pause != 0):
            m.d.sync += pause.eq(pause - 1)
        return pause == 0

    def _last_group(self, m: Module) -> Value:
        groups = self.spec.groups
        if groups == 1:
            return Const(1, 1)
        group = Signal(range(groups))
        with m.If(self.step):
            m.d.sync += group.eq(Mux(group == groups - 1, 0, group + 1))
        return group == groups - 1


class UnrolledCore(wiring.Component):
    """Computes one layer, frame after frame: `UnrolledSpec.compute` as a circuit.

    Takes the N activations of a frame in order, a transfer a cycle, and gives the rows' results in
    order. A frame takes ``spec.frame_cycles`` cycles as long as results are taken; the first result
    is offered ``spec.levels + 3 + spec.output_delay`` cycles after the transfer of the frame's last
    activation; of a pipelined core, ``spec.sum_delay + 2 + spec.output_delay``, a cycle less where
    ``spec.direct``, and another one where ``spec.straight``.

    Back-pressure holds the sums of a frame where they are taken one after the other, then the next
    frame, and then the input; never the adders or the requantizer. In a pipelined core it holds the
    frame before the adders. Reset forgets all frames.

    Parameters
    ----------
    spec : UnrolledSpec
    image : CoreImage
        Its weights become wires.
    body : str
        How memories and multipliers are built, see
        `gateware.device.bodies.bodies`.
    window : WindowSpec, optional
        Makes it a convolution: ``i`` takes maps, and each window of a map is a frame of the core.
        How long one takes then: `pvq_hw.engine.sliding_window.SlidingWindow`.

    Members
    -------
    i, o : streams of activations, see `gateware.arith.activation`
    """

    def __init__(
        self,
        spec: UnrolledSpec,
        image: CoreImage,
        *,
        body: str = "behavioral",
        window: WindowSpec | None = None,
    ) -> None:
        self.spec, self.image, self.body, self.window = spec, image, body, window
        if window is not None:
            check_window(spec, window)
        taken = spec.in_width if window is None else window.taken
        # Cycles from a frame's release to the frame.
        self.delay = spec.bank_latency if spec.by_pixel and window is not None else 0
        super().__init__(stream_ports(spec.x, spec.out, taken, spec.out_width))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.collector = collector = self._collector()
        m.submodules.adders = adders = self._adders()
        m.submodules.shifter = shifter = SumShifter(spec)
        m.submodules.fifo = fifo = ResultFifo(spec, self.body)
        connect(m, flipped(self.i), collector.i)
        connect(m, fifo.o, flipped(self.o))
        step = Strobe(m, "step", shifter.step, 0)
        row_end = Strobe(m, "row_end", shifter.row_end, 0) if spec.groups > 1 else step
        m.d.comb += [
            adders.frame.eq(collector.frame),
            shifter.sums.eq(
                Cat(
                    ~adders.sums[k] if k in spec.inverted else adders.sums[k]
                    for k in spec.sum_order
                )
            ),
            fifo.w_en.eq(row_end(spec.product_stage + spec.bias_chunks + 1)),
            fifo.w_data.eq(self._results(m, Value.cast(shifter.o), step, row_end)),
        ]
        if spec.pipelined:
            m.submodules.pacer = pacer = FramePacer(spec)
            m.d.comb += [
                pacer.settled.eq(collector.settled),
                pacer.popped.eq(fifo.popped),
                collector.release.eq(pacer.start),
                shifter.settled.eq(delayed(m, pacer.start, self.delay + spec.sum_delay)),
                shifter.go.eq(1),
            ]
            if isinstance(adders, DigitNetwork):
                m.d.comb += adders.start.eq(delayed(m, pacer.start, self.delay))
        else:
            m.submodules.credits = credits = Credits(spec.credits)
            m.d.comb += [
                shifter.settled.eq(collector.settled),
                collector.release.eq(shifter.load),
                shifter.go.eq(credits.some),
                credits.claim.eq(shifter.row_end),
                credits.returned.eq(fifo.popped),
            ]
        return m

    def _adders(self) -> AdderNetwork | DigitNetwork:
        spec, graph = self.spec, self.spec.graph(self.image)
        if spec.digit:
            return DigitNetwork(graph, spec.x, spec.acc_bits, spec.digit)
        return AdderNetwork(graph, spec.x, spec.acc_bits, balanced=spec.pipelined)

    def _collector(self) -> FrameCollector | WholeFrames | WindowCollector | RasterCollector:
        if self.window is None:
            return (WholeFrames if self.spec.straight else FrameCollector)(self.spec)
        if self.spec.by_pixel:
            return RasterCollector(window_raster(self.spec, self.window), self.body)
        return WindowCollector(self.spec, self.window, self.body)

    def _results(self, m: Module, sums: Value, step: Strobe, row_end: Strobe) -> Value:
        """W requantizers, with multipliers and biases out of their ROMs."""
        spec = self.spec
        for k in range(spec.row_stage):
            later = Signal(len(sums), name=f"total_{k}", reset_less=True)
            m.d.sync += later.eq(sums)
            sums = later
        mult: Value = Const(1, spec.out_width)
        gains: Sequence[AdderGraph] = ()
        if spec.multiplies.wired:
            gains = spec.gain_graphs(self.image)
            bias = self._wired_biases(gains)
        else:
            bias = row_words(m, self, "bias", row_end, spec.product_stage)
            if spec.multiplies.stored:
                mult = row_words(m, self, "mult", step, spec.row_stage)
        bias_bits = len(bias) // spec.out_width
        row_start = Signal(init=1)
        product = spec.row_stage + spec.multiplier_delay
        if spec.groups > 1:
            with m.If(step(product)):
                m.d.sync += row_start.eq(row_end(product))
        results = []
        for k in range(spec.out_width):
            requantizer = Requantizer(spec, self.body, gains[k] if gains else None)
            m.submodules[f"requantizer{k or ''}"] = requantizer
            m.d.comb += [
                requantizer.acc.eq(sums.word_select(k, spec.acc_bits)),
                requantizer.mult.eq(mult.word_select(k, spec.mult_bits) if len(mult) > 1 else 1),
                requantizer.bias.eq(bias.word_select(k, bias_bits)),
                requantizer.start.eq(step(spec.row_stage)),
            ]
            if spec.groups > 1:
                m.d.comb += [requantizer.add.eq(step(product)), requantizer.first.eq(row_start)]
            results.append(requantizer.o)
        return Cat(*results)

    def _wired_biases(self, gains: Sequence[AdderGraph]) -> Value:
        """Every row's constant, which makes an inverted product good."""
        shape = signed(self.spec.bias_bits + 1)
        words = zip(self.image.bias, gains, strict=True)
        return Cat(Const(bias + gain.sums[0].negative, shape) for bias, gain in words)
