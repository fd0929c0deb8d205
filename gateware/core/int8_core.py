"""A layer's core with plain 8-bit weights: P multipliers where the core of pulses has P leaves."""

from collections.abc import Sequence
from typing import Any, cast

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.arith.tree import AdderTree
from gateware.core.int8_products import LaneProducts
from gateware.core.int8_window import WideLoader, wide_ports
from gateware.core.pulse_core import LayerCore, RowFlags
from gateware.core.sequencer import ResultFifo, Sequencer, take_frames
from gateware.device.bodies import device_of
from gateware.device.live import LiveBus
from gateware.device.memory import Ram, Rom
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.int8_core import Int8Spec, weight_segments
from pvq_hw.engine.line_buffer import WindowSpec

__all__ = ["Int8Core", "WeightRom", "WideWriter"]


class WideWriter(wiring.Component):
    """Gathers a stream of activations into words of P, the last of which may be short.

    Takes one activation a cycle as long as a half of the memory is free; the halves are used in
    turn. The write is on the outputs two cycles after the transfer of a word's last activation.
    Signed activations leave with their top bit inverted, which makes them unsigned ones.

    Members
    -------
    i : stream of activations
    release : strobe, a half has been read
    written : strobe, with the transfer of a frame's last activation
    w_en, w_addr, w_data : to the memory
    """

    def __init__(self, spec: Int8Spec) -> None:
        self.spec = spec
        super().__init__(wide_ports(spec))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        taken, ended = take_frames(m, self, spec.n)
        payload = Signal(spec.x.bits, reset_less=True)
        m.d.sync += payload.eq(self.i.payload.as_value() ^ spec.flipped)
        self._gather(m, taken, ended, payload)
        return m

    def _gather(self, m: Module, taken: Value, ended: Value, payload: Value) -> None:
        """A cycle after the transfer: words, their addresses, and the halves in turn."""
        spec = self.spec
        lane, full = Signal(range(spec.lanes)), Signal(init=int(spec.lanes == 1))
        address, half = Signal(spec.address_bits), Signal()
        word = Signal(len(self.w_data), reset_less=True)
        with m.If(taken):
            m.d.sync += [
                word.eq(Cat(word, payload)[spec.x.bits :]),
                lane.eq(Mux(full | ended, 0, lane + 1)),
            ]
            if spec.lanes > 1:
                m.d.sync += full.eq((lane == spec.lanes - 2) & ~ended)
        done = taken & (full | ended)
        w_en = Signal()
        w_addr = Signal(spec.address_bits + 1, reset_less=True)
        m.d.sync += [w_en.eq(done), w_addr.eq(Cat(address, half))]
        with m.If(done):
            m.d.sync += [address.eq(Mux(ended, 0, address + 1)), half.eq(half ^ ended)]
        m.d.comb += [self.w_en.eq(w_en), self.w_addr.eq(w_addr), self.w_data.eq(word)]


class WeightRom(wiring.Component):
    """ROM of the weights: ``data`` is the word of ``addr`` from ``weight_latency`` cycles before.

    On a device it is several ROMs, chosen between by the upper bits of the address, with a
    register after each choice. With more than two cycles for that, the address has a register
    here: it goes to block RAMs all over the device.

    Parameters
    ----------
    spec : Int8Spec
    words : sequence of int
    body : str
        See `gateware.device.bodies.bodies`.
    live : LiveBus, optional
        Over which they are loaded.
    """

    def __init__(
        self, spec: Int8Spec, words: Sequence[int], body: str, live: LiveBus | None = None
    ) -> None:
        self.spec, self.words, self.body, self.live = spec, words, body, live
        self.name = spec.memory_name("weights")
        width, depth = spec.memories[self.name]
        super().__init__({"addr": In(max(1, (depth - 1).bit_length())), "data": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        blocks = self.body if self.live is None else self.live.layout.family
        device = device_of(blocks)
        own = device.block_latency if device else 2
        depths = weight_segments(len(self.words), blocks) if device else (len(self.words),)
        step = (depths[0] - 1).bit_length()
        spare = self.spec.weight_latency - own
        stages = min(2, spare)
        addr: Value = self.addr
        for i in range(min(1, spare - stages)):
            addr = _register(m, addr, f"addr_{i}")
        upper = addr[step:]
        # Block RAMs are all over the device: what is left goes between them and the choice.
        far = max(0, spare - stages - 1)
        for i in range(own + far):
            upper = _register(m, upper, f"upper_{i}")
        values = [
            self._segment(m, addr, k, sum(depths[:k]), depths[k], own) for k in range(len(depths))
        ]
        for i in range(far):
            values = [_register(m, v, f"far{i}_{k}") for k, v in enumerate(values)]
        for stage in range(stages):
            # The last stage chooses between all that are left.
            chosen = 1 if stage < stages - 1 else len(values).bit_length()
            group = 1 << min(chosen, len(upper))
            groups = [values[k : k + group] for k in range(0, len(values), group)]
            which = upper[:chosen]
            picked = [Array(g)[which] if len(g) > 1 else g[0] for g in groups]
            values = [_register(m, v, f"chosen{stage}_{k}") for k, v in enumerate(picked)]
            upper = _register(m, upper[chosen:], f"upper_{own + far + stage}")
        m.d.comb += self.data.eq(values[0])
        return m

    def _segment(
        self, m: Module, addr: Value, k: int, start: int, depth: int, latency: int
    ) -> Value:
        name = self.name if depth == len(self.words) else f"{self.name}_{k}"
        words = self.words[start : start + depth]
        rom = Rom(
            name, len(self.data), depth, words, latency=latency, body=self.body, live=self.live
        )
        m.submodules[f"segment{k}"] = rom
        m.d.comb += rom.addr.eq(addr)
        return rom.data


def _register(m: Module, value: Value, name: str) -> Value:
    later = Signal(len(value), name=name, reset_less=True)
    m.d.sync += later.eq(value)
    return later


class Int8Core(LayerCore):
    """Computes one layer, frame after frame: `Int8Spec.compute` as a circuit.

    Streams, stalls, reset and requantizer are those of `gateware.core.pulse_core.LayerCore`. A
    frame takes ``spec.words`` cycles as long as results are taken.

    Parameters
    ----------
    spec : Int8Spec
    image : CoreImage
    body : str
        How memories and multipliers are built, see
        `gateware.device.bodies.bodies`.
    window : WindowSpec, optional
        Makes it a convolution, see `gateware.core.pulse_core.LayerCore`.

    Members
    -------
    i, o : streams of activations, see `gateware.arith.activation`
    """

    # The base reads of a specification what both kinds have.
    spec: Any

    def __init__(
        self,
        spec: Int8Spec,
        image: CoreImage,
        *,
        body: str = "behavioral",
        window: WindowSpec | None = None,
    ) -> None:
        super().__init__(cast(Any, spec), image, body=body, window=window)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.writer = writer = self._wide_writer()
        m.submodules.sequencer = sequencer = Sequencer(spec)
        words = spec.contents(self.image)[spec.memory_name("weights")]
        m.submodules.weights = weights = WeightRom(spec, words, self.body, self.live)
        m.submodules.fifo = fifo = ResultFifo(spec, self.body)
        connect(m, flipped(self.i), writer.i)
        connect(m, fifo.o, flipped(self.o))
        position, row_end = self._position(m, sequencer.valid)
        m.d.comb += [
            weights.addr.eq(sequencer.addr),
            writer.release.eq(sequencer.end),
            sequencer.written.eq(writer.written),
            sequencer.popped.eq(fifo.popped),
            sequencer.row_end.eq(row_end),
        ]
        address: Value = Cat(position, sequencer.half)
        for i in range(spec.wait):
            address = _register(m, address, f"address_{i}")
        total = self._sum(m, writer, address, weights.data)
        flags = RowFlags(m, spec, sequencer.valid, row_end, row_end)
        # Nothing says that a word is none: while reading is held, the ROM repeats a word.
        results = self._rows(m, [total], flags, gated=True)
        m.d.comb += [
            fifo.w_en.eq(flags.row_end(spec.product_stage + spec.bias_chunks + 1)),
            fifo.w_data.eq(Cat(*results)),
        ]
        return m

    def _wide_writer(self) -> WideWriter | WideLoader:
        if self.window is None:
            return WideWriter(self.spec)
        return WideLoader(self.spec, self.window, self.body)

    def _position(self, m: Module, valid: Value) -> tuple[Value, Value]:
        """Counts the words of a row: address of the activations, and the row's end."""
        words = self.spec.row_words
        position = Signal(self.spec.address_bits)
        at_end = Signal(init=int(words == 1))
        if words > 1:
            with m.If(valid):
                m.d.sync += [
                    position.eq(Mux(at_end, 0, position + 1)),
                    at_end.eq(position == words - 2),
                ]
        return position, valid & at_end

    def _sum(
        self, m: Module, writer: WideWriter | WideLoader, address: Value, weights: Value
    ) -> Value:
        """Memory of activations, P multipliers and an adder tree."""
        spec = self.spec
        m.submodules.bank = bank = Ram(
            spec.x.bits * spec.lanes,
            spec.bank_words,
            latency=spec.bank_latency,
            kind=spec.bank_memory,
            body=self.body,
        )
        m.submodules.products = products = LaneProducts(spec, self.body)
        m.submodules.tree = tree = AdderTree(spec.lanes, spec.product_bits)
        m.d.comb += [
            bank.w_en.eq(writer.w_en),
            bank.w_addr.eq(writer.w_addr),
            bank.w_data.eq(writer.w_data),
            bank.r_addr.eq(address),
            products.w.eq(weights),
            products.x.eq(bank.r_data),
            tree.i.eq(products.o),
        ]
        return tree.o
