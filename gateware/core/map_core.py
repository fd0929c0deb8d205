"""Several layers on one set of lanes, with maps between them in memories of their own."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, flipped

from gateware.arith.activation import activation_layout
from gateware.core.parameters import Strobe, core_rom
from gateware.core.pulse_core import read_codes
from gateware.core.sequencer import ResultFifo, count_credits, credits_taken
from gateware.core.shared_core import (
    ResultTap,
    SharedCore,
    lane_sums,
    layer_steps,
    ring_ports,
    step_layout,
    widened,
)
from gateware.device.memory import Ram
from gateware.device.spram import SpramBlock
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.map_core import MapSpec

__all__ = ["MapCore"]

_MARKS = data.StructLayout({"whole": 1, "final": 1, "below": 3, "edge": 1})
"""Of a window: it is its positions' last, its layer's, which positions below the first count, and
they are the last of their row."""


class MapCore(SharedCore):
    """Computes several layers, convolutions too: `MapSpec.compute` as a circuit.

    As `SharedCore`, but a frame is taken when the one before is through: it takes ``spec.n`` cycles
    and those of the layers, ``spec.frame_cycles`` together.
    """

    spec: MapSpec

    def __init__(self, spec: MapSpec, image: CoreImage, *, body: str = "behavioral") -> None:
        super().__init__(spec, image, body=body)
        self.pools = {k: ResultTap(x.out) for k, x in enumerate(spec.layers) if x.pool}
        for number, tap in self.pools.items():
            setattr(self, f"pool{number}", tap)
        self.wholes = {x.map: ResultTap(spec.layers[x.map].out) for x in spec.wholes}
        for number, tap in self.wholes.items():
            setattr(self, f"whole{number}", tap)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        # The output first, so that it keeps its name in Verilog.
        m.submodules.fifo = fifo = ResultFifo(spec, self.body)
        self._connect(m, fifo.o, flipped(self.o))
        m.submodules.sequencer = sequencer = WindowSequencer(spec, self.image, self.body)
        m.submodules.fetcher = fetcher = WindowFetcher(spec)
        m.submodules.writer = writer = MapWriter(spec)
        step: Any = sequencer.step
        word, word_end, clear = read_codes(self, m, sequencer)
        rows = _Rows(m, spec, word_end, step)
        ends = Strobe(m, "word_end", word_end, spec.code_latency)
        again = Strobe(m, "again", sequencer.again, spec.code_latency)
        marks = [
            Strobe(m, name, flag, spec.code_latency)
            for name, flag in (("position", sequencer.pixel), ("edge", sequencer.edge))
        ]
        starting = Signal(init=1)
        with m.If(sequencer.valid):
            m.d.sync += starting.eq(word_end)
        first = Strobe(m, "group_start", sequencer.valid & starting, spec.code_latency)
        half = Signal(reset_less=True)
        m.d.sync += half.eq(sequencer.half)
        totals = lane_sums(
            m, self, word, clear, sequencer, _banks(fetcher), half, rows.is_signed, spec.side
        )
        mult, bias = (
            _row_words(m, self, role, ends, again, stage, sequencer)
            for role, stage in (("mult", spec.row_stage), ("bias", spec.product_stage))
        )
        acc, start = self._in_turn(m, totals, first, rows)
        finished = self._results(m, acc, start, mult, bias, lambda x: rows.added(m, x))
        result = rows.end(spec.result_stage)
        # Each position's result is a cycle behind that of the one above.
        below: Value = Const(0, 1)
        if spec.side > 1:
            counts = [
                Strobe(m, f"counts{v}", sequencer.below[v - 1], spec.code_latency)
                for v in range(1, spec.side)
            ]
            stages = range(spec.result_stage + 1, spec.result_stage + spec.side)
            below = Cat(rows.end(k) & count(k) for k, count in zip(stages, counts, strict=True))
        value = self._kept(finished, step)
        if spec.tables:
            finished, value = self._looked_up(m, finished, value, step)
        between = self._between(m, sequencer, finished, result | below.any())
        lowest = spec.result_stage + spec.side - 1
        closes: Value = marks[0](spec.result_stage)
        ended: Value = marks[0](lowest)
        moves, behind = between, below
        if spec.pooled:
            later = [mark(spec.result_stage + 2) for mark in marks]
            moves, value = self._pooled(m, sequencer, between, below[0], value, later)
            behind = Mux(step.pools, 0, below)
            closes = Mux(step.pools, later[0], closes)
            ended = Mux(step.pools, marks[0](lowest + 2), ended)
        if spec.params_buffer:
            m.d.comb += m.submodules.codes.params_freed.eq(Mux(sequencer.turn, step.params, 0))
        self._watch_wholes(m, sequencer)
        self._connect(m, flipped(self.i), writer.i)
        self._maps(m, fetcher, writer, step)
        m.d.comb += [
            Value.cast(fetcher.step).eq(Value.cast(step)),
            fetcher.start.eq(sequencer.opens),
            fetcher.release.eq(sequencer.end),
            sequencer.written.eq(fetcher.written),
            sequencer.marks.eq(fetcher.marks),
            sequencer.taken.eq(writer.written),
            sequencer.popped.eq(fifo.popped),
            sequencer.row_end.eq(rows.end(spec.code_latency)),
            writer.opens.eq(sequencer.done),
            writer.result.eq(moves),
            writer.below.eq(behind),
            writer.ends.eq(closes),
            writer.ended.eq(ended),
            writer.edge.eq(marks[1](lowest)),
            writer.value.eq(value),
            writer.starts.eq(sequencer.opens),
            writer.base.eq(step.base),
            writer.line.eq(step.line),
            writer.past.eq(step.past),
            writer.back.eq(step.back),
            writer.stay.eq(step.stay),
            fifo.w_en.eq(result & step.last),
            fifo.w_data.eq(self._given(finished, -1)),
        ]
        return m

    def _in_turn(
        self, m: Module, totals: list[Value], first: Strobe, rows: "_Rows"
    ) -> tuple[Value, Value]:
        """The sums of a row's positions, one a cycle, and the strobe that belongs to them."""
        spec = self.spec
        sums = [
            self._accumulated(m, total, first, str(v) if spec.side > 1 else "")
            for v, total in enumerate(totals)
        ]
        sums = rows.largest(m, sums)
        start = rows.starts(spec.row_stage)
        if spec.side == 1:
            return sums[0], start
        found = sums[0]
        for v, total in enumerate(sums[1:], 1):
            # A row has V words or more: it stays until it is multiplied.
            kept = Signal(signed(spec.acc_bits), name=f"kept{v}", reset_less=True)
            with m.If(rows.starts(spec.row_stage)):
                m.d.sync += kept.eq(total)
            behind = rows.starts(spec.row_stage + v)
            found, start = Mux(behind, kept, found), start | behind
        return found, start

    def _looked_up(
        self, m: Module, finished: list[Value], value: Value, step: Any
    ) -> tuple[list[Value], Value]:
        """What all finishes make of a sum, and what is kept of it, later by the tables' latency,
        and with what a table gives for it in a layer that has one."""
        spec = self.spec
        tables = core_rom(self, "tables", spec.bank_latency, "block")
        m.submodules.tables = tables
        m.d.comb += tables.addr.eq(Cat(value[: spec.index_bits], step.table))
        later = [*finished, value]
        for i in range(spec.bank_latency):
            before, later = later, []
            for k, x in enumerate(before):
                register = Signal(len(x), name=f"untabled{k}_{i}", reset_less=True)
                m.d.sync += register.eq(x)
                later.append(register)
        self._found: Value = tables.data
        return later[:-1], Mux(step.looks, tables.data[: spec.bank_bits], later[-1])

    def _given(self, finished: list[Value], number: int) -> Value:
        """What a layer gives: of a table, what that gives."""
        layer = self.spec.layers[number]
        if layer.table:
            return self._found[: layer.out.bits]
        return super()._given(finished, number)

    def _pooled(
        self, m: Module, sequencer: Any, result: Value, second: Value, value: Value,
        marks: list[Value],
    ) -> tuple[Value, Value]:  # fmt: skip
        """What is written, and when: results, or a cycle later the maxima of a layer that asks for
        them, which pass its tap."""
        spec, step = self.spec, sequencer.step
        m.submodules.pool = pool = ResultPool(spec, self.body)
        # Saturated in one cycle, compared in the next.
        pools, below = Signal(), Signal(reset_less=True)
        compared = Signal(spec.bank_bits, reset_less=True)
        m.d.sync += [pools.eq(result & step.pools), below.eq(second), compared.eq(value)]
        m.d.comb += [
            pool.result.eq(pools),
            pool.second.eq(below),
            pool.value.eq(compared),
            pool.ends.eq(marks[0]),
            pool.edge.eq(marks[1]),
        ]
        if spec.program_fields["negative"]:
            m.d.comb += pool.signed.eq(step.negative)
        taken: Value = Const(0, 1)
        for number, tap in self.pools.items():
            m.submodules[f"pool{number}"] = tap
            m.d.comb += [
                tap.result.eq(pool.largest),
                tap.mine.eq(sequencer.layer == number),
                tap.value.eq(pool.o),
                tap.o.ready.eq(~step.last),
            ]
            taken = taken | tap.taken
        return Mux(step.pools, taken, result), Mux(step.pools, pool.o, value)

    def _watch_wholes(self, m: Module, sequencer: Any) -> None:
        """Taps of the maps that several layers give parts of."""
        for whole, tap in self.wholes.items():
            m.submodules[f"whole{whole}"] = tap
            m.d.comb += tap.o.ready.eq(~sequencer.step.last)
            for number, layer in enumerate(self.spec.layers):
                if layer.beside is None or layer.beside.map != whole:
                    continue
                part: ResultTap = self.pools.get(number, self.taps[number])
                with m.If(sequencer.layer == number):
                    m.d.comb += [
                        tap.mine.eq(1), tap.result.eq(part.taken), tap.value.eq(part.value),
                    ]  # fmt: skip
        if self.wholes:
            # Nobody else reads what is watched, and the Verilog would lose it.
            watched = Signal(reset_less=True, attrs={"keep": 1})
            m.d.sync += watched.eq(Cat(tap.taken for tap in self.wholes.values()).any())

    def _maps(self, m: Module, fetcher: "WindowFetcher", writer: "MapWriter", step: Any) -> None:
        """The two memories: one is read by the fetcher, the other written. While a frame comes in,
        the first is written. Or the ring, which is read and written."""
        spec, words = self.spec, []
        if spec.map_memory == "ring":
            m.submodules.maps = ring = MapRing(spec, self.body)
            m.d.comb += [
                ring.addr.eq(fetcher.addr),
                ring.w_addr.eq(writer.w_addr),
                ring.w_en.eq(writer.w_en),
                ring.w_data.eq(writer.w_data),
                fetcher.data.eq(ring.data),
            ]
            return
        for number in range(2):
            m.submodules[f"map{number}"] = memory = MapMemory(spec, number, self.body)
            reads = ~writer.coming & (step.source == number)
            m.d.comb += [
                memory.addr.eq(Mux(reads, fetcher.addr, writer.w_addr)),
                memory.w_en.eq(writer.w_en & ~reads),
                memory.w_data.eq(writer.w_data),
            ]
            words.append(memory.data)
        m.d.comb += fetcher.data.eq(Mux(step.source[0], words[1], words[0]))


def _banks(fetcher: "WindowFetcher") -> Any:
    """The fetcher as what writes the banks: of lane ``p`` the pair ``p // 2``."""
    lanes = fetcher.spec.lanes

    def ports(p: int, v: int) -> tuple[Value, Value, Value]:
        data = fetcher.w_data.word_select(p % 2, len(fetcher.w_data) // 2)
        address = fetcher.w_addr.word_select(v, fetcher.spec.address_bits + 1)
        return fetcher.w_en[v * lanes + p], address, data

    return ports


def _row_words(
    m: Module, core: Any, which: str, strobe: Strobe, again: Strobe, stage: int, sequencer: Any
) -> Value:
    """As `gateware.core.parameters.row_words`; at the end of a position the layer's rows begin
    anew while there are others. Words stay for V cycles. Where they come from the flash, a layer's
    first row is where the one before ended."""
    spec, depth = core.spec, core.spec.params_buffer or core.spec.all_rows
    address = Signal(max(1, (depth - 1).bit_length()), name=f"{which}_address")
    early = stage - spec.params_latency
    first, data = sequencer.step.row, Value.cast(Const(0))
    if spec.params_buffer:
        data, first = _row_ring(m, core, which, address), Signal(len(address), name=f"{which}_row")
        with m.If(sequencer.turn):
            m.d.sync += first.eq(address)
    else:
        rom = core_rom(core, which, spec.params_latency, spec.params_memory)
        m.submodules[which] = rom
        m.d.comb += rom.addr.eq(address)
        data = rom.data
    following = Mux(address == depth - 1, 0, address + 1)
    following = Mux(again(early + spec.side - 1), first, following)
    with m.If(strobe(early + spec.side - 1)):
        m.d.sync += address.eq(following)
    return data


def _row_ring(m: Module, core: Any, which: str, address: Value) -> Value:
    """The multiplier or bias of the row at an address, of those that came from the flash."""
    spec, ring = core.spec, m.submodules.codes
    width, low = (spec.mult_bits, 0) if which == "mult" else (spec.bias_bits, spec.mult_bits)
    ram = Ram(width, spec.params_buffer, latency=spec.params_latency, body=core.body)
    m.submodules[which] = ram
    m.d.comb += [
        ram.w_en.eq(ring.row_came),
        ram.w_addr.eq(ring.row_place),
        ram.w_data.eq(ring.row[low : low + width]),
        ram.r_addr.eq(address),
    ]
    return ram.r_data


class _Rows:
    """Rows of codes, of which several make one activation: two where maps are added, and those of a
    window where the largest is taken.

    ``end`` are those that give a result, ``starts`` those that are multiplied, ``is_signed`` is the
    sign of what the lanes read.
    """

    def __init__(self, m: Module, spec: MapSpec, word_end: Value, step: Any) -> None:
        self.spec = spec
        self.is_signed: Value = step.signed
        if not spec.program_fields["joins"]:
            self.end = self.starts = Strobe(m, "row_end", word_end, spec.code_latency)
            return
        count, opens, closes = Signal(len(step.joins)), Signal(), Signal()
        m.d.comb += [opens.eq(count == 0), closes.eq(count == step.joins)]
        with m.If(word_end):
            m.d.sync += count.eq(Mux(closes, 0, count + 1))
        most = step.most if spec.chosen else Const(0, 1)

        def strobe(name: str, flag: Value) -> Strobe:
            return Strobe(m, name, flag, spec.code_latency)

        self.end = strobe("row_end", word_end & closes)
        self.starts = strobe("row_start", word_end & (closes | ~most))
        if spec.joined:
            sign = strobe("sign", Mux(opens, step.signed, step.others))
            self.is_signed = sign(spec.code_latency + 1 + spec.bank_latency)
            self._first = strobe("sum_start", word_end & Mux(most, closes, opens))
            self._other = strobe("sum_end", word_end & ~opens & ~most)
        if spec.chosen:
            self._opens = strobe("choice_start", word_end & (opens | ~most))
            self._compared = strobe("choice", word_end & ~opens & most)

    def largest(self, m: Module, sums: list[Value]) -> list[Value]:
        """Of every position the row's sum; of a maximum the largest so far, which is an
        activation. A cycle later, where an engine has maxima."""
        spec = self.spec
        if not spec.chosen:
            return sums
        stage, found = spec.row_stage - 1, list[Value]()
        bits = min(spec.bank_bits + 1, spec.acc_bits)
        for v, total in enumerate(sums):
            best = Signal(signed(spec.acc_bits), name=f"largest{v}", reset_less=True)
            larger = total[:bits].as_signed() > best[:bits].as_signed()
            with m.If(self._opens(stage) | (self._compared(stage) & larger)):
                m.d.sync += best.eq(total)
            found.append(best)
        return found

    def added(self, m: Module, product: Value) -> Value:
        """A product, or that of a row and of the one before that it is added to."""
        spec = self.spec
        if not spec.joined:
            return product
        stage, found = spec.row_stage + spec.multiplier_delay, []
        for v in range(spec.side):
            products = Signal(signed(spec.sum_bits), name=f"products{v}", reset_less=True)
            first, other = self._first(stage + v), self._other(stage + v)
            with m.If(first):
                m.d.sync += products.eq(product)
            with m.Elif(other):
                m.d.sync += products.eq(products + product)
            found.append(products)
        total: Value = found[0]
        for v, products in enumerate(found[1:], 1):
            total = Mux(self.end(stage + 1 + v), products, total)
        return total


class MapMemory(wiring.Component):
    """The first or the second memory: reads or writes a word a cycle; ``data`` is the word of
    ``addr`` a cycle before, if it has so many words."""

    def __init__(self, spec: MapSpec, number: int, body: str) -> None:
        self.spec, self.depth, self.body = spec, spec.map_depths[number], body
        super().__init__(
            {
                "addr": In(spec.map_address_bits),
                "w_en": In(1),
                "w_data": In(spec.map_bits),
                "data": Out(spec.map_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        memory: Any
        if spec.map_memory == "spram":
            m.submodules.spram = memory = SpramBlock(self.body, self.depth)
            m.d.comb += [memory.addr.eq(self.addr), self.data.eq(memory.data)]
        else:
            memory = Ram(spec.map_bits, self.depth, latency=1, body=self.body)
            m.submodules.ram = memory
            m.d.comb += [
                memory.w_addr.eq(self.addr), memory.r_addr.eq(self.addr),
                self.data.eq(memory.r_data),
            ]  # fmt: skip
        m.d.comb += [memory.w_en.eq(self.w_en), memory.w_data.eq(self.w_data)]
        return m


class MapRing(wiring.Component):
    """The one memory of all maps: reads a word and writes one in every cycle; ``data`` is the word
    of ``addr`` two cycles before, and a word is written a cycle after ``w_en``.

    Addresses go on beyond the end, up to twice the words, and mean those from the first word on
    there; see `pvq_hw.engine.map_ring`.
    """

    def __init__(self, spec: MapSpec, body: str) -> None:
        self.spec, self.body = spec, body
        super().__init__(
            {
                "addr": In(spec.map_address_bits),
                "data": Out(spec.map_bits),
                "w_addr": In(spec.map_address_bits),
                "w_en": In(1),
                "w_data": In(spec.map_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        bits = (spec.ring_words - 1).bit_length()
        read, write = Signal(bits, reset_less=True), Signal(bits, reset_less=True)
        w_en, w_data = Signal(), Signal(spec.map_bits, reset_less=True)
        m.d.sync += [
            read.eq(self._wrapped(m, self.addr, "read")),
            write.eq(self._wrapped(m, self.w_addr, "write")),
            w_en.eq(self.w_en),
            w_data.eq(self.w_data),
        ]
        low, rest = spec.map_depths
        upper = Signal(reset_less=True)
        m.d.sync += upper.eq(read >= low)
        words: list[Value] = []
        for number, depth in enumerate((low, rest) if rest else (low,)):
            m.submodules[f"ram{number}"] = ram = Ram(
                spec.map_bits, depth, latency=1, body=self.body
            )
            mine = (write >= low) == number if rest else Const(1, 1)
            m.d.comb += [
                ram.r_addr.eq(read), ram.w_addr.eq(write), ram.w_en.eq(w_en & mine),
                ram.w_data.eq(w_data),
            ]  # fmt: skip
            words.append(ram.r_data)
        m.d.comb += self.data.eq(Mux(upper, words[-1], words[0]) if rest else words[0])
        return m

    def _wrapped(self, m: Module, address: Value, name: str) -> Value:
        """The place in the ring of an address of less than twice its words."""
        beyond = Signal(signed(len(address) + 1), name=f"{name}_beyond")
        m.d.comb += beyond.eq(address - self.spec.ring_words)
        return Mux(beyond < 0, address, beyond.as_unsigned())


class ResultPool(wiring.Component):
    """The largest of results of two by two positions, in the order of the first one's channels.

    Results of two positions one below the other come one a cycle, channel after channel. Of a pair
    of positions on the left the larger ones are kept, and those on the right compared with them: a
    comparison a cycle. What has no partner in its row or column is left out.

    Members
    -------
    result, value : strobe, and a result
    second : the result is of the second position
    ends, edge : with a ``second``: it is its position's last, and its positions are their row's
        last
    signed : whether results are
    largest, o : strobe, with the last of four results, and the largest of them
    """

    def __init__(self, spec: MapSpec, body: str) -> None:
        self.spec, self.body = spec, body
        super().__init__(
            {
                "result": In(1),
                "second": In(1),
                "value": In(spec.bank_bits),
                "ends": In(1),
                "edge": In(1),
                "signed": In(1),
                "largest": Out(1),
                "o": Out(spec.bank_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits, channels = self.spec.bank_bits, self.spec.pooled
        m.submodules.left = left = Ram(bits, channels, latency=1, body=self.body)
        channel, right, closes = Signal(range(channels)), Signal(), Signal()
        upper, following = Signal(bits, reset_less=True), Signal(range(channels))
        m.d.comb += [
            closes.eq(self.result & self.second),
            following.eq(Mux(self.ends, 0, channel + 1)),
            left.r_addr.eq(Mux(closes, following, channel)),
            left.w_addr.eq(channel),
            left.w_data.eq(self.o),
            left.w_en.eq(closes & ~right),
            self.largest.eq(closes & right),
        ]
        other = Mux(self.second, upper, left.r_data)
        sign = self.signed << (bits - 1)
        larger = (self.value ^ sign)[:bits] > (other ^ sign)[:bits]
        alone = ~self.second & ~right
        m.d.comb += self.o.eq(Mux(larger | alone, self.value, other))
        with m.If(self.result & ~self.second):
            m.d.sync += upper.eq(self.o)
        with m.If(closes):
            m.d.sync += channel.eq(following)
            with m.If(self.ends):
                m.d.sync += right.eq(~right & ~self.edge)
        return m


class WindowFetcher(wiring.Component):
    """Copies window after window of a map into the halves of the banks, a word a cycle.

    A layer's windows begin two cycles after ``start``. The last word of a window is asked for with
    ``written``; it is in the banks two cycles later. Between two windows are three cycles, and as
    many as a half is not free.

    Members
    -------
    step : word of the program
    start : strobe, a layer begins
    release : strobe, a half has been read
    addr, data : of the map; ``data`` comes a cycle later
    written, marks : strobe, and with it what the window is, see `_MARKS`; both as much later as
        ``data`` is
    w_en : one bit for each bank
    w_addr, w_data : to the banks of each position, and to all of them
    """

    def __init__(self, spec: MapSpec) -> None:
        self.spec = spec
        super().__init__(
            {
                "step": In(step_layout(spec)),
                "start": In(1),
                "release": In(1),
                "addr": Out(spec.map_address_bits),
                "data": In(spec.map_bits),
                "written": Out(1),
                "marks": Out(_MARKS),
                "w_en": Out(spec.side * spec.lanes),
                "w_addr": Out(spec.side * (spec.address_bits + 1)),
                "w_data": Out(spec.map_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec, step = self.spec, self.step
        fields, bits = spec.program_fields, spec.map_address_bits
        arm, hold, run, after = (Signal(name=n) for n in ("arm", "hold", "run", "after"))
        free = Signal(2, init=2)
        begin = Signal()
        m.d.comb += begin.eq(hold & (free != 0))
        m.d.sync += free.eq(free + self.release - begin)
        # Positions: the place and the address of the window's first pixel.
        column, row = Signal(fields["columns"]), Signal(fields["rows"])
        left, top = Signal(signed(fields["x"])), Signal(signed(fields["y"]))
        line, base = Signal(bits, reset_less=True), Signal(bits, reset_less=True)
        place, part = Signal(bits, reset_less=True), Signal(fields["parts"])
        at_column, at_row, at_part = Signal(), Signal(), Signal()
        m.d.comb += [
            at_column.eq(column == step.columns), at_row.eq(row == step.rows),
            at_part.eq(part == step.parts),
        ]  # fmt: skip
        first_x, first_y = step.x.as_signed(), step.y.as_signed()
        with m.If(self.start):
            m.d.sync += [column.eq(0), row.eq(0), left.eq(first_x), top.eq(first_y)]
            m.d.sync += [line.eq(step.first), base.eq(step.first), place.eq(step.first)]
            m.d.sync += part.eq(0)
        with m.Elif(after):
            m.d.sync += part.eq(Mux(at_part, 0, part + 1))
            with m.If(~at_part):
                m.d.sync += place.eq(place + step.words + 1)
            with m.Elif(~at_column):
                m.d.sync += [column.eq(column + 1), left.eq(left + step.step_x)]
                m.d.sync += [base.eq(base + step.right), place.eq(base + step.right)]
            with m.Else():
                m.d.sync += [column.eq(0), left.eq(first_x), row.eq(row + 1)]
                m.d.sync += [top.eq(top + step.step_y), line.eq(line + step.below)]
                m.d.sync += [base.eq(line + step.below), place.eq(line + step.below)]
        # Fields that no layer needs have no bits.
        far_x, far_y = (step[k] if fields[k] else Const(1) for k in ("far_x", "far_y"))
        # Within a window.
        word, tap, kernel = (Signal(fields[k], name=k) for k in ("words", "taps", "lines"))
        x, y = Signal(signed(fields["x"] + 1)), Signal(signed(fields["y"] + 1))
        addr, start = Signal(bits), Signal(bits, reset_less=True)
        at_word, at_tap, at_kernel = Signal(), Signal(), Signal()
        more = Signal(fields["more"])
        ends, marks = Signal(), Signal(_MARKS)
        m.d.comb += [
            at_word.eq(word == step.words), at_tap.eq(tap == step.taps),
            at_kernel.eq(kernel == step.lines),
            ends.eq(run & at_word & at_tap & at_kernel),
            marks.whole.eq(at_part),
            marks.final.eq(at_column & at_row & at_part),
            more.eq(Mux(at_row, step.left, step.more)),
            marks.below.eq(Cat(more >= v for v in range(1, spec.side))),
            marks.edge.eq(at_column),
            self.addr.eq(addr),
        ]  # fmt: skip
        m.d.sync += [
            arm.eq(self.start | (after & ~marks.final)),
            hold.eq(arm | (hold & ~begin)),
            run.eq(begin | (run & ~ends)),
            after.eq(ends),
        ]
        with m.If(arm):
            m.d.sync += [word.eq(0), tap.eq(0), kernel.eq(0), x.eq(left), y.eq(top)]
            m.d.sync += [addr.eq(place), start.eq(place)]
        with m.Elif(run):
            m.d.sync += [word.eq(word + 1), addr.eq(addr + Mux(at_word, step.across, 1))]
            with m.If(at_word):
                m.d.sync += [word.eq(0), tap.eq(tap + 1), x.eq(x + far_x)]
                with m.If(at_tap):
                    m.d.sync += [tap.eq(0), kernel.eq(kernel + 1), x.eq(left), y.eq(y + far_y)]
                    m.d.sync += [start.eq(start + step.down), addr.eq(start + step.down)]
        inside = (x >= 0) & (x < step.width) & (y >= 0) & (y < step.height)
        takes = [Const(1, 1)]
        if spec.side > 1:
            takes = []
            for v in range(spec.side):
                low = kernel >= step[f"lower{v}"] if v else Const(1, 1)
                high = kernel <= step[f"upper{v}"] if v < spec.side - 1 else Const(1, 1)
                takes.append(Mux(step.sums, tap == v, low & high))
        flags = [run, inside, ends, marks, *takes]
        for i in range(spec.map_latency - 1):
            later = [Signal(len(Value.cast(x)), name=f"flag{k}_{i}") for k, x in enumerate(flags)]
            m.d.sync += [a.eq(b) for a, b in zip(later, flags, strict=True)]
            flags = list(later)
        m.d.comb += [self.written.eq(flags[2]), Value.cast(self.marks).eq(flags[3])]
        self._write(m, flags[0], flags[1], flags[4:])
        return m

    def _write(self, m: Module, run: Value, inside: Value, takes: list[Value]) -> None:
        """Two cycles later: the word, or what lies beyond the map, into the next pair of banks of
        each position that takes it; a word of one activation, which is in both halves of it, into
        one bank of the pair."""
        spec = self.spec
        narrow = self.step.narrow if spec.program_fields["narrow"] else Const(0, 1)
        moves, within, ended = Signal(), Signal(reset_less=True), Signal()
        half, banks, addresses = Signal(), list[Value](), list[Value]()
        m.d.sync += [moves.eq(run), within.eq(inside), ended.eq(self.written)]
        with m.If(ended):
            m.d.sync += half.eq(~half)
        for v, take in enumerate(takes):
            mine = moves
            if spec.side > 1:
                mine = Signal(name=f"takes{v}")
                m.d.sync += mine.eq(run & take)
            pair = Signal(spec.lanes // 2, init=1, name=f"pair{v}")
            address = Signal(spec.address_bits, name=f"address{v}")
            upper = Signal(name=f"upper{v}")
            with m.If(mine):
                m.d.sync += upper.eq(narrow & ~upper)
                with m.If(upper | ~narrow):
                    m.d.sync += pair.eq(pair.rotate_left(1))
                    with m.If(pair[-1]):
                        m.d.sync += address.eq(address + 1)
            with m.If(ended):
                m.d.sync += [pair.eq(1), address.eq(0), upper.eq(0)]
            enables = (mine & ~upper, mine & (upper | ~narrow))
            banks += [pair[p] & enable for p in range(len(pair)) for enable in enables]
            addresses.append(Cat(address, half))
        w_en = Signal(len(self.w_en))
        w_addr = Signal(len(self.w_addr), reset_less=True)
        w_data = Signal(spec.map_bits, reset_less=True)
        beyond: Value = Const(0, spec.map_bits)
        if spec.program_fields["least"]:
            lowest = Cat(Const(0, spec.bank_bits - 1), self.step.least)
            beyond = Cat(lowest, lowest)
        m.d.sync += [
            w_en.eq(Cat(*banks)),
            w_addr.eq(Cat(*addresses)),
            w_data.eq(Mux(within, self.data, beyond)),
        ]
        m.d.comb += [self.w_en.eq(w_en), self.w_addr.eq(w_addr), self.w_data.eq(w_data)]


class WindowSequencer(wiring.Component):
    """Reads a layer's code words for one window after the other, and layer after layer.

    As `gateware.core.shared_core.LayerSequencer`, but what starts a run of words is a window in the
    banks. ``end``, ``pixel`` and ``again`` belong to the word that leaves the code ROM now: it is
    a window's last, a position's, and others of the layer follow. ``edge`` and ``below`` belong to
    all words of a window: it is a row's last, and which positions below its first count.

    Members
    -------
    taken : strobe, a frame is in its map
    written, marks : strobe, a window is in the banks; what it is, see `_MARKS`
    opens : strobe, ``step`` is another layer's, whose windows may be fetched
    done : strobe, a frame's last layer is through
    """

    def __init__(self, spec: MapSpec, image: CoreImage, body: str) -> None:
        self.spec, self.image, self.body = spec, image, body
        super().__init__(
            {
                "taken": In(1),
                "written": In(1),
                "marks": In(_MARKS),
                "row_end": In(1),
                "popped": In(1),
                "addr": Out(spec.code_address_bits),
                "valid": Out(1),
                "valid_next": Out(1),
                "half": Out(1),
                "end": Out(1),
                "pixel": Out(1),
                "again": Out(1),
                "edge": Out(1),
                "below": Out(3),
                "turn": Out(1),
                "opens": Out(1),
                "done": Out(1),
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
        run, half, at_end = Signal(), Signal(), Signal()
        waiting, following, marks = Signal(), Signal(_MARKS), Signal(_MARKS)
        final, whole = marks.final, marks.whole
        count = Signal(len(step.before))
        go, ends, busy, over = Signal(), Signal(), Signal(), Signal()
        addr = Signal(len(self.addr))
        # A layer's words begin anew with a position, or with every window.
        anew = whole | step.again if spec.program_fields["again"] else whole
        streamed = spec.code_memory == "flash"
        there: Value = Const(1, 1)
        if streamed:
            there = self._words(m, addr, go, over)
        m.d.comb += [
            go.eq(run & ~(full & step.last) & there),
            ends.eq(go & at_end),
            busy.eq(run & ~ends),
            over.eq(ends & final),
            self.addr.eq(addr),
        ]
        opens, first = layer_steps(m, self, over)
        frame = Signal()
        m.d.sync += frame.eq(self.taken)
        m.d.comb += [self.opens.eq((opens & ~first) | frame), self.done.eq(opens & first)]
        with m.If(self.written):
            m.d.sync += following.eq(self.marks)
        with m.If(waiting & ~busy):
            m.d.sync += marks.eq(following)
        m.d.sync += [
            run.eq(waiting | busy), waiting.eq(self.written | (waiting & busy)),
            half.eq(half ^ ends),
        ]  # fmt: skip
        with m.If(go):
            m.d.sync += [addr.eq(addr + 1), count.eq(count + 1)]
            m.d.sync += at_end.eq(count == step.before)
        with m.If(ends):
            m.d.sync += [at_end.eq(step.single), count.eq(0)]
            with m.If(anew & ~final):
                m.d.sync += addr.eq(self._start if streamed else step.start)
            if not streamed:
                with m.Elif(whole & step.last):
                    m.d.sync += addr.eq(0)
        with m.Elif(~run):
            m.d.sync += at_end.eq(step.single)
        flags = [go, half, ends, ends & whole, ends & anew & ~final, marks.edge]
        flags.append(marks.below)
        names = ("valid", "half", "end", "pixel", "again", "edge", "below")
        for i in range(spec.code_latency):
            later = [
                Signal(len(flag), name=f"{n}_{i}") for n, flag in zip(names, flags, strict=True)
            ]
            m.d.sync += [a.eq(b) for a, b in zip(later, flags, strict=True)]
            before, flags = flags[0], list(later)
        m.d.comb += [
            self.valid_next.eq(before), self.valid.eq(flags[0]), self.half.eq(flags[1]),
            self.end.eq(flags[2]), self.pixel.eq(flags[3]), self.again.eq(flags[4]),
            self.edge.eq(flags[5]), self.below.eq(flags[6]),
        ]  # fmt: skip
        return m

    def _words(self, m: Module, addr: Signal, go: Signal, over: Signal) -> Signal:
        """Where codes come from the flash: whether all of the layer's words are in the ring, whose
        first is at ``_start``; they are given back once the layer is through."""
        step: Any = self.step
        held = Signal(range(self.spec.code_buffer + 1))
        there, start = Signal(), Signal(len(addr))
        m.d.comb += self.freed.eq(Mux(over, step.codes, 0))
        m.d.sync += [held.eq(held + self.came - self.freed), there.eq(held >= step.codes)]
        with m.If(over):
            m.d.sync += start.eq(addr + 1)
        self._start: Value = start
        return there


class MapWriter(wiring.Component):
    """Puts activations two to a word into a map: a frame that comes in, and results.

    Members
    -------
    i : stream of activations
    opens : strobe, a frame may come in
    coming : a frame comes in, or may
    written : strobe, with the transfer of a frame's last activation
    result, value, ends : strobe, an activation, and whether it is its pixel's last
    below : bit v - 1 with a ``result`` v cycles after another: it is the same channel's of the v-th
        pixel below
    ended, edge : with the lowest pixel's result: it is its pixel's last, which is its row's last
    line, past, back, stay : how far the address moves, see `MapSpec.program_fields`
    starts, base : strobe, a layer begins, and the first word of the map that it gives
    w_en, w_addr, w_data : two cycles after a transfer, one after ``result``
    """

    def __init__(self, spec: MapSpec) -> None:
        self.spec = spec
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(spec.x, 1))),
                "opens": In(1),
                "coming": Out(1),
                "written": Out(1),
                "result": In(1),
                "below": In(max(1, spec.side - 1)),
                "value": In(spec.bank_bits),
                "ends": In(1),
                "ended": In(1),
                "edge": In(1),
                "line": In(spec.program_fields["line"]),
                "past": In(spec.program_fields["past"]),
                "back": In(spec.program_fields["back"]),
                "stay": In(spec.program_fields["stay"]),
                "starts": In(1),
                "base": In(spec.program_fields["base"]),
                "w_en": Out(1),
                "w_addr": Out(spec.map_address_bits),
                "w_data": Out(spec.map_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        channels = spec.layers[0].geometry.input_shape[2]
        open_, coming, take = Signal(init=1), Signal(init=1), Signal()
        count, at_end = Signal(range(spec.n)), Signal(init=int(spec.n == 1))
        channel, at_pixel = Signal(range(channels)), Signal()
        m.d.comb += [
            self.i.ready.eq(open_),
            take.eq(self.i.valid & open_),
            self.written.eq(take & at_end),
            at_pixel.eq(channel == channels - 1),
            self.coming.eq(coming),
        ]
        with m.If(take):
            m.d.sync += [
                count.eq(Mux(at_end, 0, count + 1)),
                channel.eq(Mux(at_pixel, 0, channel + 1)),
            ]
            if spec.n > 1:
                m.d.sync += at_end.eq(count == spec.n - 2)
        m.d.sync += open_.eq(self.opens | (open_ & ~self.written))
        taken, pixel, frame = Signal(), Signal(reset_less=True), Signal()
        given = Signal(spec.bank_bits, reset_less=True)
        m.d.sync += [taken.eq(take), pixel.eq(at_pixel), frame.eq(self.written)]
        m.d.sync += given.eq(widened(Value.cast(self.i.payload), spec.x, spec.bank_bits))
        landed = Signal()  # the frame's last word is at the memory's port
        m.d.sync += [landed.eq(frame), coming.eq(self.opens | (coming & ~landed))]
        moves, value, last = Signal(), Signal(spec.bank_bits), Signal()
        m.d.comb += [
            moves.eq((self.result & ~self.below.any()) | taken),
            value.eq(Mux(taken, given, self.value)),
            last.eq(Mux(self.result, self.ends, pixel)),
        ]
        odd, low = Signal(), Signal(spec.bank_bits, reset_less=True)
        full = Signal()
        m.d.comb += full.eq(moves & (odd | last))
        with m.If(moves):
            m.d.sync += [odd.eq(~(odd | last)), low.eq(value)]
        word = Mux(odd, Cat(low, value), Cat(value, value))
        if spec.side == 1:
            step = Mux(self.result & self.ends, self.past, 1) if len(self.past) else 1
            self._put(m, full, step, full, word)
        else:
            self._below(m, taken, full, odd, word)
        return m

    def _below(self, m: Module, taken: Value, full: Value, odd: Value, word: Value) -> None:
        """Words of a pixel and of those below it, each of which comes a cycle later."""
        spec = self.spec
        whole, was_odd, puts = full & ~taken, odd, full
        moves: Value = full
        for v, counts in enumerate(self.below, 1):
            later, then = Signal(name=f"full{v}"), Signal(name=f"odd{v}", reset_less=True)
            low = Signal(spec.bank_bits, name=f"low{v}", reset_less=True)
            m.d.sync += [later.eq(whole), then.eq(was_odd)]
            whole, was_odd, moves = later, then, moves | later
            with m.If(counts):
                m.d.sync += low.eq(self.value)
            own = Mux(was_odd, Cat(low, self.value), Cat(self.value, self.value))
            word, puts = Mux(counts, own, word), puts | (self.result & counts & whole)
        past: Value | int = self.past if len(self.past) else 1
        stay = self.stay if len(self.stay) else self.back
        last = Mux(self.ended, Mux(self.edge, past, self.back), stay)
        self._put(m, moves, Mux(whole, last, Mux(taken, 1, self.line)), puts, word)

    def _put(
        self,
        m: Module,
        moves: Value,
        step: Value | int,
        puts: Value,
        word: Value,
    ) -> None:
        """Writes a word at the address, and moves that."""
        spec = self.spec
        address = Signal(spec.map_address_bits)
        w_en, w_addr = Signal(), Signal(spec.map_address_bits, reset_less=True)
        w_data = Signal(spec.map_bits, reset_less=True)
        with m.If(moves):
            m.d.sync += address.eq(address + step)
        with m.If(self.starts | self.opens):
            m.d.sync += address.eq(Mux(self.starts, self.base, 0))
        m.d.sync += [w_en.eq(puts), w_addr.eq(address), w_data.eq(word)]
        m.d.comb += [self.w_en.eq(w_en), self.w_addr.eq(w_addr), self.w_data.eq(w_data)]
