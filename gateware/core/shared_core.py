"""Several layers on one set of lanes, whose banks hold the activations between them."""

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.arith.activation import activation_layout
from gateware.arith.requantizer import Saturate, make_multiplier
from gateware.arith.tree import Accumulator, AdderTree, ChunkedAdder
from gateware.core.code_ring import words_at_hand
from gateware.core.decoder import lane_decoder
from gateware.core.leaf import Leaf
from gateware.core.parameters import Strobe, core_rom, row_words
from gateware.core.pulse_core import read_codes
from gateware.core.sequencer import ResultFifo, count_credits, credits_taken
from gateware.device.memory import Ram
from gateware.device.spram import CODE_PORT
from gateware.link.flash import flash_pins
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.code_stream import WAKE_CYCLES
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.shared_core import Finish, SharedSpec

__all__ = [
    "ResultTap",
    "SharedCore",
    "finish_of",
    "lane_sums",
    "layer_steps",
    "ring_ports",
    "step_layout",
    "widened",
]


class SharedCore(wiring.Component):
    """Computes several layers, one after the other: `SharedSpec.compute` as a circuit.

    Takes the N activations of a frame in order and gives the last layer's results in order. A frame
    takes ``spec.frame_cycles`` as long as results are taken. The next frame is taken from when the
    first layer is through, one activation a cycle but where a result between layers is written. A
    result depends on its frame alone.

    Back-pressure holds the reading of the last layer's codes, never the datapath behind it. Reset
    forgets all frames; the first activation after it starts a frame.

    Parameters
    ----------
    spec : SharedSpec
    image : CoreImage
    body : str
        How memories and multipliers are built, see
        `gateware.device.bodies.bodies`.

    Members
    -------
    i, o : streams of activations, see `gateware.arith.activation`
    codes : In(`gateware.device.spram.CODE_PORT`), only with ``spec.code_memory == "spram"``
        Fills the code memory. Frames that are under way while it loads come out wrong.
    flash : Out(`gateware.link.flash.flash_pins`), only with ``spec.code_memory == "flash"``
        Codes are read anew for every frame.
    codes_right, codes_wrong : Out(1), as ``flash``
        What was read has the right CRC-32; it hasn't. Nothing is taken before it has, and nothing
        is given any more once it hasn't: the last result of a frame of wrong codes never leaves.

    Attributes
    ----------
    first_block : int
        Number of the code memory's first block on ``codes``; set before elaboration.
    wake_clocks : int
        Pause before and after the flash is woken up; set before elaboration.
    layer0, layer1, ... : ResultTap
        What the layers before the last give, to be watched.
    """

    def __init__(self, spec: SharedSpec, image: CoreImage, *, body: str = "behavioral") -> None:
        self.spec, self.image, self.body = spec, image, body
        self.first_block, self.wake_clocks = 0, WAKE_CYCLES
        self.taps = [ResultTap(layer.out) for layer in spec.layers[:-1]]
        for number, tap in enumerate(self.taps):
            setattr(self, f"layer{number}", tap)
        loaded: dict[str, Any] = {"codes": In(CODE_PORT)} if spec.code_memory == "spram" else {}
        if spec.code_memory == "flash":
            pins = flash_pins(spec.flash_bits)
            loaded = {"flash": Out(pins), "codes_right": Out(1), "codes_wrong": Out(1)}
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(spec.x, 1))),
                "o": Out(stream.Signature(activation_layout(spec.out, 1))),
                **loaded,
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        # The output first, so that it keeps its name in Verilog.
        m.submodules.fifo = fifo = ResultFifo(spec, self.body)
        self._connect(m, fifo.o, flipped(self.o))
        m.submodules.sequencer = sequencer = LayerSequencer(spec, self.image, self.body)
        m.submodules.writer = writer = RegionWriter(spec)
        step = sequencer.step
        word, group_end, clear = read_codes(self, m, sequencer)
        row_end = Strobe(m, "row_end", group_end, spec.code_latency)
        (total,) = lane_sums(
            m, self, word, clear, sequencer, writer.ports, step.source, step.signed
        )
        start = Signal(init=1)
        with m.If(sequencer.valid):
            m.d.sync += start.eq(group_end)
        first = Strobe(m, "group_start", sequencer.valid & start, spec.code_latency)
        bias = row_words(m, self, "bias", row_end, spec.product_stage)
        mult = row_words(m, self, "mult", row_end, spec.row_stage)
        acc = self._accumulated(m, total, first)
        finished = self._results(m, acc, row_end(spec.row_stage), mult, bias)
        result = row_end(spec.result_stage)
        between = self._between(m, sequencer, finished, result)
        self._connect(m, flipped(self.i), writer.i)
        m.d.comb += [
            sequencer.written.eq(writer.written),
            sequencer.popped.eq(fifo.popped),
            sequencer.row_end.eq(group_end),
            writer.release.eq(sequencer.release),
            writer.blocked.eq(row_end(spec.result_stage - 1) & ~step.last),
            writer.result.eq(between),
            writer.value.eq(self._kept(finished, step)),
            writer.target.eq(step.target),
            writer.turn.eq(sequencer.turn),
            fifo.w_en.eq(result & step.last),
            fifo.w_data.eq(self._given(finished, -1)),
        ]
        return m

    def _connect(self, m: Module, giver: Any, taker: Any) -> None:
        """Joins two streams; where codes come from the flash, while they are right."""
        if self.spec.code_memory != "flash":
            connect(m, giver, taker)
            return
        m.d.comb += [
            taker.valid.eq(giver.valid & self.codes_right),
            taker.payload.eq(giver.payload),
            giver.ready.eq(taker.ready & self.codes_right),
        ]

    def _accumulated(self, m: Module, total: Value, first: Strobe, name: str = "") -> Value:
        """The sum of a row's words."""
        spec = self.spec
        accumulator = Accumulator(len(total), spec.acc_bits, spec.carry_chunk)
        m.submodules[f"accumulator{name}"] = accumulator
        m.d.comb += [accumulator.i.eq(total), accumulator.first.eq(first(spec.sum_stage))]
        return accumulator.o

    def _results(
        self,
        m: Module,
        acc: Value,
        start: Value,
        mult: Value,
        bias: Value,
        added: Callable[[Value], Value] = lambda product: product,
    ) -> list[Value]:
        """The product and the bias; what each of the finishes makes of their sum.

        ``added`` makes of products what the bias is added to.
        """
        spec = self.spec
        m.submodules.adder = adder = ChunkedAdder(spec.sum_bits, spec.carry_chunk)
        multiplier: Any = make_multiplier(spec, self.body)
        m.submodules.multiplier = multiplier
        wide = Signal(signed(spec.sum_bits))
        m.d.comb += [
            multiplier.a.eq(acc),
            multiplier.b.eq(mult),
            multiplier.start.eq(start),
            wide.eq(bias.as_signed()),
            adder.a.eq(added(multiplier.product)),
            adder.b.eq(wide),
        ]
        results: list[Value] = []
        for number, finish in enumerate(spec.finishes):
            m.submodules[f"saturate{number}"] = saturate = Saturate(finish)
            m.d.comb += saturate.i.eq(adder.o[finish.shift :])
            results.append(saturate.o)
        return results

    def _between(
        self, m: Module, sequencer: "LayerSequencer", finished: list[Value], result: Value
    ) -> Value:
        """Whether there is a result of a layer before the last; it passes that layer's tap."""
        found: Value = Const(0, 1)
        for number, tap in enumerate(self.taps):
            m.submodules[f"layer{number}"] = tap
            m.d.comb += [
                tap.result.eq(result),
                tap.mine.eq(sequencer.layer == number),
                tap.value.eq(self._given(finished, number)),
                tap.o.ready.eq(~sequencer.step.last),
            ]
            found = found | tap.taken
        return found

    def _given(self, finished: list[Value], number: int) -> Value:
        """What a layer gives, of what all finishes make of a sum."""
        return finished[self.spec.finishes.index(finish_of(self.spec, number))]

    def _kept(self, finished: list[Value], step: Any) -> Value:
        """The activation that a bank keeps, as wide as that is."""
        spec = self.spec
        used = {spec.finishes.index(finish_of(spec, k)) for k in range(len(self.taps))}
        wide = [
            widened(value, finish.out, spec.bank_bits)
            for value, finish in zip(finished, spec.finishes, strict=True)
        ]
        if len(used) < 2:
            return wide[min(used, default=0)]
        return Array(wide)[step.finish]


def finish_of(spec: SharedSpec, number: int) -> Finish:
    """How a layer's sums become activations."""
    layer = spec.layers[number]
    return next(f for f in spec.finishes if (f.out, f.shift) == (layer.sum_out, layer.shift))


def widened(value: Value, form: IntFormat, bits: int) -> Value:
    """An activation's bits with as many more as make ``bits``; without those above them."""
    more = bits - form.bits
    if more <= 0:
        return value[:bits]
    return Cat(value, (value[-1] if form.signed else Const(0, 1)).replicate(more))


def lane_sums(
    m: Module,
    core: Any,
    word: Value,
    clear: Value,
    sequencer: Any,
    ports: Callable[[int, int], tuple[Value, Value, Value]],
    upper: Value,
    is_signed: Value,
    side: int = 1,
) -> list[Value]:
    """P lanes of a decoder and V banks and leaves, and the sums of V trees.

    ``ports`` gives enable, address and data of the writes of a lane's bank, ``upper`` is the upper
    part of the addresses that are read, ``is_signed`` whether what has been read is.
    """
    spec = core.spec
    bits = spec.code.lane_bits
    trees = [AdderTree(spec.lanes, spec.leaf_bits) for _ in range(side)]
    for v, tree in enumerate(trees):
        m.submodules[f"tree{v}" if side > 1 else "tree"] = tree
    for p in range(spec.lanes):
        decoder: Any = lane_decoder(spec.code, spec.address_bits, False, core.body)
        m.submodules[f"decoder{p}"] = decoder
        controls: Value = Cat(decoder.nonzero, decoder.negative, decoder.shift)
        for i in range(spec.bank_latency):
            later = Signal(len(controls), name=f"controls{p}_{i}", reset_less=True)
            m.d.sync += later.eq(controls)
            controls = later
        m.d.comb += [
            decoder.code.eq(word[p * bits : (p + 1) * bits]),
            decoder.valid.eq(sequencer.valid),
            decoder.clear.eq(clear),
        ]
        for v, tree in enumerate(trees):
            bank = Ram(spec.bank_bits, spec.bank_words, latency=spec.bank_latency, body=core.body)
            leaf = Leaf(spec.lane_x, spec.code.shift_bits)
            m.submodules[f"bank{p}_{v}" if side > 1 else f"bank{p}"] = bank
            m.submodules[f"leaf{p}_{v}" if side > 1 else f"leaf{p}"] = leaf
            w_en, w_addr, w_data = ports(p, v)
            sign = bank.r_data[-1] & is_signed
            m.d.comb += [
                bank.w_en.eq(w_en),
                bank.w_addr.eq(w_addr),
                bank.w_data.eq(w_data),
                bank.r_addr.eq(Cat(decoder.address, upper)),
                leaf.x.eq(Cat(bank.r_data, sign) if spec.mixed else bank.r_data),
                Cat(leaf.nonzero, leaf.negative, leaf.shift).eq(controls),
                tree.i[p].eq(leaf.value),
            ]
    return [tree.o for tree in trees]


def layer_turn(m: Module, spec: SharedSpec, ends: Value) -> tuple[Signal, Signal]:
    """Strobes after a layer's last word is read: when its last result is there, and two cycles
    later, when the next layer's word of the program is."""
    stage = spec.last_result_stage
    turning, count, turn = Signal(), Signal(range(stage)), Signal()
    m.d.comb += turn.eq(turning & (count == stage - 1))
    m.d.sync += turning.eq(ends | (turning & ~turn))
    with m.If(turning):
        m.d.sync += count.eq(Mux(turn, 0, count + 1))
    read, opens = Signal(), Signal()
    m.d.sync += [read.eq(turn), opens.eq(read)]
    return turn, opens


def layer_steps(m: Module, sequencer: Any, ends: Value) -> tuple[Signal, Signal]:
    """Reads the program into a sequencer's ``step``, its ``layer`` and ``turn`` with it: the word
    of a layer until all results of the one that ``ends`` are there. Gives the strobe with which
    the next word comes, and whether it is the first layer's."""
    spec, step = sequencer.spec, sequencer.step
    m.submodules.program = program = core_rom(sequencer, "program", 1, spec.program_memory)
    layer, first = Signal(range(max(2, len(spec.layers)))), Signal(init=1)
    turn, opens = layer_turn(m, spec, ends)
    m.d.comb += [
        program.addr.eq(layer),
        Value.cast(step).eq(program.data),
        sequencer.layer.eq(layer),
        sequencer.turn.eq(turn),
    ]
    with m.If(turn):
        m.d.sync += [layer.eq(Mux(step.last, 0, layer + 1)), first.eq(step.last)]
    return opens, first


class ResultTap(wiring.Component):
    """Where a layer's results go to the banks: a stream that is always ready when there is one.

    Parameters
    ----------
    out : IntFormat

    Members
    -------
    result : strobe, ``value`` is a result
    mine : whether it is of this layer
    value : In(out.bits)
    o : stream of activations
    taken : strobe, a result of this layer is written
    """

    def __init__(self, out: IntFormat) -> None:
        super().__init__(
            {
                "result": In(1),
                "mine": In(1),
                "value": In(out.bits),
                "taken": Out(1),
                "o": Out(stream.Signature(activation_layout(out, 1))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += [
            self.o.valid.eq(self.result & self.mine),
            self.o.payload.eq(self.value),
            self.taken.eq(self.o.valid & self.o.ready),
        ]
        return m


def step_layout(spec: SharedSpec) -> data.StructLayout:
    """Layout of a word of the program; see `SharedSpec.program_fields`."""
    return data.StructLayout(spec.program_fields)


def ring_ports(spec: SharedSpec) -> dict[str, Any]:
    """What a sequencer has besides where codes come from the flash: a word came, and how many words
    are through."""
    if spec.code_memory != "flash":
        return {}
    return {"came": In(1), "freed": Out(spec.freed_bits)}


class LayerSequencer(wiring.Component):
    """Reads the code words of one layer after the other, as the program says.

    ``addr`` is the word to read while a layer runs. ``valid`` and ``valid_next`` belong to the word
    that leaves the code ROM now and next, as `gateware.core.sequencer.Sequencer` has them. After a
    layer's last word nothing is read for ``spec.turn_cycles - 1`` cycles: then all results of the
    layer are in the banks, and ``step``, which does not change while any part of the pipeline works
    on a layer, is the next layer's. The first layer waits for a frame. Words of the last layer are
    read as far as its results have places.

    Members
    -------
    written : strobe, a frame is in the banks
    row_end : strobe, a row's last word leaves the code ROM
    popped : strobe, a result has left
    release : strobe, the first layer's last word leaves the code ROM
    turn : strobe, a layer's last result is written in this cycle
    layer : number of the layer
    step : word of the program
    came, freed : see `ring_ports`; words are read as far as they have come
    """

    def __init__(self, spec: SharedSpec, image: CoreImage, body: str) -> None:
        self.spec, self.image, self.body = spec, image, body
        super().__init__(
            {
                "written": In(1),
                "row_end": In(1),
                "popped": In(1),
                "addr": Out(spec.code_address_bits),
                "valid": Out(1),
                "valid_next": Out(1),
                "release": Out(1),
                "turn": Out(1),
                "layer": Out(range(max(2, len(spec.layers)))),
                "step": Out(step_layout(spec)),
                **ring_ports(spec),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        step: Any = self.step
        taken = credits_taken(spec)
        full = taken[-1]
        count_credits(m, taken, self.row_end & step.last, self.popped)
        run, at_end, idle = Signal(), Signal(), Signal(init=1)
        go, ends = Signal(), Signal()
        addr = Signal(range(max(2, spec.words)))
        there: Value = Const(1, 1)
        place = addr
        if spec.code_memory == "flash":
            there = words_at_hand(m, self.came, go, spec.code_buffer)
            place = Signal(len(self.addr))
            m.d.comb += self.freed.eq(go)
            m.d.sync += place.eq(place + go)
        m.d.comb += [
            go.eq(run & ~(full & step.last) & there), ends.eq(go & at_end), self.addr.eq(place),
        ]  # fmt: skip
        opens, first = layer_steps(m, self, ends)
        # A frame is in the banks and not started: never two, since its region is free only when
        # the first layer has read it.
        waiting, starts = Signal(), Signal()
        m.d.comb += starts.eq((opens | idle) & (waiting | ~first))
        m.d.sync += [
            waiting.eq(self.written | (waiting & ~(starts & first))),
            idle.eq((opens | idle) & ~starts),
            run.eq(starts | (run & ~ends)),
        ]
        with m.If(opens | idle):
            m.d.sync += at_end.eq(step.single)
        with m.If(go):
            m.d.sync += [addr.eq(addr + 1), at_end.eq(addr == step.before)]
            with m.If(at_end & step.last):
                m.d.sync += addr.eq(0)
        flags = [go, ends & first]
        for i in range(spec.code_latency):
            later = [Signal(name=f"{n}_{i}") for n in ("valid", "release")]
            m.d.sync += [a.eq(b) for a, b in zip(later, flags, strict=True)]
            before, flags = flags[0], list(later)
        m.d.comb += [
            self.valid_next.eq(before), self.valid.eq(flags[0]), self.release.eq(flags[1]),
        ]  # fmt: skip
        return m


class RegionWriter(wiring.Component):
    """Spreads activations over the banks, column n to bank ``n mod P``: those of a frame that come
    in, and those between layers.

    Takes one activation a cycle while the input's region is free, but none while ``blocked``. The
    write is on the outputs two cycles after the transfer, and one after ``result``.

    Members
    -------
    i : stream of activations
    release : strobe, the input's region has been read
    written : strobe, with the transfer of a frame's last activation
    blocked : strobe, a result comes in the next cycle
    result, value : strobe, and the activation that goes to region ``target``
    turn : strobe, with or after a layer's last result
    w_en : one bit per bank
    w_addr, w_data : to all banks
    """

    def __init__(self, spec: SharedSpec) -> None:
        self.spec = spec
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(spec.x, 1))),
                "release": In(1),
                "written": Out(1),
                "blocked": In(1),
                "result": In(1),
                "value": In(spec.bank_bits),
                "target": In(spec.region_bits),
                "turn": In(1),
                "w_en": Out(spec.lanes),
                "w_addr": Out(spec.address_bits + spec.region_bits),
                "w_data": Out(spec.bank_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        taken, ended = self._take(m)
        given = Signal(spec.bank_bits, reset_less=True)
        m.d.sync += given.eq(widened(Value.cast(self.i.payload), spec.x, spec.bank_bits))
        bank, address = self._place(m, taken, ended, "input")
        to_bank, to_address = self._place(m, self.result, self.turn, "result")
        here = Cat(address, Const(0, spec.region_bits))
        there = Cat(to_address, self.target)
        w_en = Signal(spec.lanes)
        w_addr = Signal(len(self.w_addr), reset_less=True)
        w_data = Signal(spec.bank_bits, reset_less=True)
        m.d.sync += [
            w_en.eq(Mux(self.result, to_bank, Mux(taken, bank, 0))),
            w_addr.eq(Mux(self.result, there, here)),
            w_data.eq(Mux(self.result, self.value, given)),
        ]
        m.d.comb += [self.w_en.eq(w_en), self.w_addr.eq(w_addr), self.w_data.eq(w_data)]
        return m

    def ports(self, p: int, v: int) -> tuple[Value, Value, Value]:
        """Enable, address and data of the writes of lane ``p``'s bank."""
        return self.w_en[p], self.w_addr, self.w_data

    def _take(self, m: Module) -> tuple[Signal, Signal]:
        """Handshake of the input; a cycle later, whether there was a transfer, and whether it was
        its frame's last."""
        n = self.spec.n
        free, take = Signal(init=1), Signal()
        count, at_end = Signal(range(n)), Signal(init=int(n == 1))
        m.d.comb += [
            self.i.ready.eq(free & ~self.blocked),
            take.eq(self.i.valid & self.i.ready),
            self.written.eq(take & at_end),
        ]
        m.d.sync += free.eq(self.release | (free & ~self.written))
        with m.If(take):
            m.d.sync += count.eq(Mux(at_end, 0, count + 1))
            if n > 1:
                m.d.sync += at_end.eq(count == n - 2)
        taken, ended = Signal(), Signal(reset_less=True)
        m.d.sync += [taken.eq(take), ended.eq(at_end)]
        return taken, ended

    def _place(self, m: Module, moves: Value, ends: Value, name: str) -> tuple[Signal, Signal]:
        """The bank (one bit each) and the address of the next activation; the first ones after an
        end."""
        bank = Signal(self.spec.lanes, init=1, name=f"{name}_bank")
        address = Signal(self.spec.address_bits, name=f"{name}_address")
        done = Signal(name=f"{name}_done")
        m.d.comb += done.eq(ends if name == "result" else moves & ends)
        with m.If(moves):
            m.d.sync += bank.eq(bank.rotate_left(1))
            with m.If(bank[-1]):
                m.d.sync += address.eq(address + 1)
        with m.If(done):
            m.d.sync += [bank.eq(1), address.eq(0)]
        return bank, address
