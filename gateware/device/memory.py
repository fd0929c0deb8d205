"""Memories behind one interface: `Rom` and `Ram`, with a body per device family.

``body`` chooses what is inside and changes nothing that can be seen at the ports:

- ``"behavioral"``: Amaranth's memories; simulates, and synthesizes anywhere.
- ``"verilog"``: a ROM is an instance of ``pvq_rom``, which reads ``<name>.hex`` with
  ``$readmemh``; RAMs are behavioral.
- ``"ice40"``: block memories are cut into pieces of one SB_RAM40_4K each; RAMs are instances.
- ``"ecp5"``: block memories are DP16KD instances with their output register in use.

`pvq_hw.target.block_ram.memory_layout` says what the pieces are; `gateware.device.bodies` lists the
bodies, one of which each architecture has.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Array, Cat, ClockSignal, Const, Instance, Module, Mux, Signal, Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from gateware.device.bodies import bodies, device_of
from gateware.device.ebr import EbrBlock
from gateware.device.ice_ram import IceRam
from gateware.device.live import LiveBus
from pvq_hw.registry import ValueFace
from pvq_hw.target.architectures import ARCHITECTURES, architecture
from pvq_hw.target.block_ram import Piece, memory_layout, select_registers

__all__ = ["Ram", "Rom", "check_contents", "live_block", "ram_block", "rom_block"]


def _address_bits(depth: int) -> int:
    return max(1, (depth - 1).bit_length())


def _check(width: int, depth: int, latency: int, kind: str, body: str) -> None:
    if width < 1 or depth < 1:
        raise ValueError(f"Memory must have 1 bit and 1 word at least, not {width} x {depth}")
    least = 0 if kind == "logic" else 1
    if not least <= latency <= 6:
        raise ValueError(f"Memory latency must be {least} to 6 cycles, not {latency}")
    if kind not in ("block", "logic"):
        raise ValueError(f"Memory kind must be block or logic, not {kind!r}")
    if body not in bodies():
        raise ValueError(f"Memory body must be one of {bodies()}, not {body!r}")


def check_contents(name: str, width: int, depth: int, init: Sequence[int]) -> None:
    """Raises ValueError unless ``init`` is ``depth`` words of ``width`` bits."""
    if depth < 1 or len(init) != depth:
        raise ValueError(f"Memory {name!r} must have {depth} words, not {len(init)}")
    if any(w < 0 or w >> width for w in init):
        raise ValueError(f"Memory {name!r} must have words of {width} bits")


_FEW_BLOCKS = 4


class _Select:
    """Puts a memory together from the read data of its pieces, a column at a time.

    ``delayed(n)`` is the address ``n`` cycles ago. Where a column is cut in depth, the pieces are
    chosen between by the upper bits of the address, a few in each of several steps with a
    register after all but the last; the first steps take most, which costs the fewest registers.
    """

    def __init__(self, m: Module, addr: Value) -> None:
        self._m = m
        self._past = [addr]

    def delayed(self, cycles: int) -> Value:
        while len(self._past) <= cycles:
            self._past.append(_delay(self._m, self._past[-1], 1, f"addr_{len(self._past)}"))
        return self._past[cycles]

    def join(self, pieces: Sequence[tuple[Piece, Value]], cycles: int, registers: int) -> Value:
        """The word whose address came ``cycles`` before ``pieces``, ``registers`` cycles later."""
        columns: dict[int, list[tuple[Piece, Value]]] = {}
        for piece, data in pieces:
            columns.setdefault(piece.bit, []).append((piece, data))
        parts = []
        for bit, column in columns.items():
            low = _address_bits(column[0][0].shape[1])
            parts.append(self._column([v for _, v in column], bit, low, cycles, registers))
        return Cat(*parts)

    def _column(
        self, values: list[Value], bit: int, low: int, cycles: int, registers: int
    ) -> Value:
        for step in range(registers + 1):
            left = (len(values) - 1).bit_length()
            bits = -(-left // (registers + 1 - step))
            if bits:
                which = self.delayed(cycles + step)[low : low + bits]
                groups = [values[k : k + (1 << bits)] for k in range(0, len(values), 1 << bits)]
                values = [Array(g)[which] if len(g) > 1 else g[0] for g in groups]
                low += bits
            if step < registers:
                values = [
                    _delay(self._m, v, 1, f"chosen{bit}_{step}_{k}") for k, v in enumerate(values)
                ]
        return values[0]


def _delay(m: Module, value: Value, cycles: int, name: str) -> Value:
    """``value`` some cycles later."""
    for i in range(cycles):
        now = Signal(len(value), name=f"{name}_d{i + 1}", reset_less=True)
        m.d.sync += now.eq(value)
        value = now
    return value


class Rom(wiring.Component):
    """Read-only memory: ``data`` is the word of ``addr`` from ``latency`` cycles before.

    One read a cycle; no reset; reads beyond ``depth`` are undefined.

    Parameters
    ----------
    name : str
        Content name: the exported Verilog reads ``<name>.hex``.
    width, depth : int
    init : sequence of int
        ``depth`` words.
    latency : int
        1 to 6 cycles. ECP5 block RAM wants 2 at least (its output register), and one more for
        each of `pvq_hw.target.block_ram.select_registers`, where it is cut in depth.
    kind : str
        ``"block"`` or ``"logic"`` (LUTs).
    body : str
        One of `gateware.device.bodies.bodies`.
    live : LiveBus, optional
        Over which its words, then in block RAM, are loaded while the circuit runs; they begin as
        ``init``.
    """

    def __init__(
        self,
        name: str,
        width: int,
        depth: int,
        init: Sequence[int],
        *,
        latency: int = 2,
        kind: str = "block",
        body: str = "behavioral",
        live: LiveBus | None = None,
    ) -> None:
        _check(width, depth, latency, kind, body)
        check_contents(name, width, depth, init)
        if live is not None and (kind, body == "verilog") != ("block", False):
            raise ValueError(f"Memory {name!r} must be block RAM to be loaded, not {kind} {body}")
        self.live = live
        self.name, self.width, self.depth, self.init = name, width, depth, tuple(init)
        self.latency, self.kind, self.body = latency, kind, body
        super().__init__({"addr": In(_address_bits(depth)), "data": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.live is not None:
            self._loaded(m, self.live)
        elif self.body == "verilog":
            self._instance(m)
        elif self.kind == "logic":
            self._logic(m)
        elif self.body == "behavioral":
            self._behavioral(m)
        else:
            self._pieces(m)
        return m

    def _instance(self, m: Module) -> None:
        m.submodules.rom = Instance(
            "pvq_rom",
            p_INIT_FILE=f"{self.name}.hex",
            p_WIDTH=self.width,
            p_DEPTH=self.depth,
            p_ADDR_BITS=len(self.addr),
            p_LATENCY=self.latency,
            p_STYLE=self.kind,
            i_clk=ClockSignal("sync"),
            i_addr=self.addr,
            o_data=self.data,
        )

    def _logic(self, m: Module) -> None:
        word = Signal(self.width)
        with m.Switch(self.addr):
            for address, value in enumerate(self.init):
                with m.Case(address):
                    m.d.comb += word.eq(Const(value, self.width))
        m.d.comb += self.data.eq(_delay(m, word, self.latency, "data"))

    def _behavioral(self, m: Module) -> None:
        m.submodules.mem = mem = memory.Memory(
            shape=self.width, depth=self.depth, init=list(self.init)
        )
        port = mem.read_port()
        m.d.comb += port.addr.eq(self.addr)
        m.d.comb += self.data.eq(_delay(m, port.data, self.latency - 1, "data"))

    def _pieces(self, m: Module) -> None:
        """One block RAM per piece."""

        def piece(number: int, piece: Piece, init: list[int], addr: Value, latency: int) -> Value:
            return rom_block(self.body, m, f"{self.name}_{number}", piece, init, addr, latency)

        word, left = self._joined(m, self.addr, self.body, piece)
        m.d.comb += self.data.eq(_delay(m, word, left, "data"))

    def _joined(
        self, m: Module, addr: Value, family: str, make: Callable[..., Value], name: str = "address"
    ) -> tuple[Value, int]:
        """The word of all pieces, and how many cycles of the latency are left.

        There are registers between the steps of the choice, as far as the latency allows and the
        cuts in depth ask for; one that is left is the address's own where that goes to blocks all
        over the device, or else the word's.
        """
        own = min(self.latency, architecture(family).block_latency)
        layout = memory_layout(self.width, self.depth, family)
        left = self.latency - own
        steps = min(left, select_registers(self.width, self.depth, family))
        early = int(left > steps and len(layout) > _FEW_BLOCKS)
        address = _delay(m, addr, early, name)
        select = _Select(m, address)
        parts: list[tuple[Piece, Value]] = []
        for number, piece in enumerate(layout):
            words = self.init[piece.word : piece.word + piece.words]
            init = [(w >> piece.bit) & ((1 << piece.bits) - 1) for w in words]
            low = address[: _address_bits(piece.shape[1])]
            parts.append((piece, make(number, piece, init, low, own)))
        return select.join(parts, own, steps), left - steps - early

    def _loaded(self, m: Module, live: LiveBus) -> None:
        """One block RAM per piece and bank, which the loader writes and reads back."""
        first = live.layout.first(self.name)
        found: dict[int, list[Value]] = {}
        words = []
        for bank in range(live.banks):
            owned = live.load if live.banks == 1 else live.bank != bank

            def piece(
                number: int, piece: Piece, init: list[int], addr: Value, latency: int,
                bank: int = bank, owned: Value = owned,
            ) -> Value:  # fmt: skip
                here = Signal(name=f"here{bank}_{number}", reset_less=True)
                m.d.sync += here.eq(live.chosen(first + number))
                name = f"{self.name}_{f'spare_{number}' if bank else number}"
                own = m, name, piece, [] if bank else init, addr, latency
                w_en = live.w_en & here & owned
                if self.body == "behavioral":
                    data = _plain_live(*own, w_en, live)
                else:
                    data = live_block(self.body, *own, w_en, live)
                found.setdefault(number, []).append(Mux(here, data, 0))
                return data

            low = live.word[: len(self.addr)] if len(self.addr) < 14 else live.word
            addr = Signal(len(self.addr), name=f"bank{bank}_addr")
            m.d.comb += addr.eq(Mux(owned, low, self.addr))
            word, left = self._joined(m, addr, live.layout.family, piece, f"bank{bank}_address")
            words.append(word)
        answers = [Mux(live.bank, *p) if len(p) > 1 else p[0] for p in found.values()]
        m.d.sync += live.of(self.name).eq(reduce(or_, answers))
        joined = Mux(live.bank, words[1], words[0]) if len(words) > 1 else words[0]
        m.d.comb += self.data.eq(_delay(m, joined, left, "data"))


rom_block: ValueFace[[Module, str, Piece, list[int], Value, int], Value] = ARCHITECTURES.face(
    "ROM block"
)
"""A piece of a ROM as a block RAM: its data for an address, some cycles later."""


@rom_block.of("ecp5")
def _dp16kd_rom(
    family: str, m: Module, name: str, piece: Piece, init: list[int], addr: Value, latency: int
) -> Value:
    block = EbrBlock(piece.shape[0], piece.bits, init=init, registered=latency == 2)
    m.submodules[name] = block
    m.d.comb += block.r_addr.eq(addr)
    return block.r_data


@rom_block.of("ice40")
def _ram40_rom(
    family: str, m: Module, name: str, piece: Piece, init: list[int], addr: Value, latency: int
) -> Value:
    ram = IceRam(piece.shape[0], piece.bits, init=init, writable=False)
    m.submodules[name] = ram
    m.d.comb += ram.r_addr.eq(addr)
    return ram.r_data


live_block: ValueFace[[Module, str, Piece, list[int], Value, int, Value, LiveBus], Value] = (
    ARCHITECTURES.face("loaded block")
)
"""The same with a port to write by over a `LiveBus`, while a bit is high."""


@live_block.of("ecp5")
def _dp16kd_live(
    family: str, m: Module, name: str, piece: Piece, init: list[int], addr: Value, latency: int,
    w_en: Value, live: LiveBus,
) -> Value:  # fmt: skip
    width, registered = piece.shape[0], latency == 2
    block = EbrBlock(width, piece.bits, init=init, writable=True, registered=registered)
    return _written(m, name, block, addr, w_en, live)


@live_block.of("ice40")
def _ram40_live(
    family: str, m: Module, name: str, piece: Piece, init: list[int], addr: Value, latency: int,
    w_en: Value, live: LiveBus,
) -> Value:  # fmt: skip
    return _written(m, name, IceRam(piece.shape[0], piece.bits, init=init), addr, w_en, live)


def _written(m: Module, name: str, block: Any, addr: Value, w_en: Value, live: LiveBus) -> Value:
    m.submodules[name] = block
    m.d.comb += [
        block.w_en.eq(w_en),
        block.w_addr.eq(live.word),
        block.w_data.eq(live.w_data),
        block.r_addr.eq(addr),
    ]
    data: Value = block.r_data
    return data


def _plain_live(
    m: Module, name: str, piece: Piece, init: list[int], addr: Value, latency: int, w_en: Value,
    live: LiveBus,
) -> Value:  # fmt: skip
    """The same of Amaranth's memories."""
    block = memory.Memory(shape=piece.bits, depth=piece.shape[1], init=init)
    m.submodules[name] = block
    write, read = block.write_port(), block.read_port()
    m.d.comb += [
        write.en.eq(w_en),
        write.addr.eq(live.word),
        write.data.eq(live.w_data),
        read.addr.eq(addr),
    ]
    return _delay(m, read.data, latency - 1, name)


class Ram(wiring.Component):
    """Memory with a write and a read port: ``r_data`` is the word of ``r_addr`` ``latency`` before.

    A write is seen by reads whose address comes at least one cycle after it. Reading the address
    that is being written is undefined (the engine never does): asking for old data would cost
    LUTs on ECP5. Contents are undefined before they are written; no reset.

    Parameters
    ----------
    width, depth : int
    latency : int
        1 to 4 cycles, the last ones for registers in the choice among blocks where it is cut in
        depth; also 0 for logic.
    kind : str
        ``"block"``, or ``"logic"``: distributed RAM, or flip-flops where there is none.
    body : str
        One of `gateware.device.bodies.bodies`.
    holds : bool
        Adds ``r_en``: where it is low, ``r_data`` stays as it is, as long as that word is not
        written. Of block memories with a latency of 1 in one piece.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        *,
        latency: int = 2,
        kind: str = "block",
        body: str = "behavioral",
        holds: bool = False,
    ) -> None:
        _check(width, depth, latency, kind, body)
        if holds and (kind, latency) != ("block", 1):
            raise ValueError("Memory that holds its data must be block, with a latency of 1")
        self.holds = holds
        self.width, self.depth = width, depth
        self.latency, self.kind, self.body = latency, kind, body
        bits = _address_bits(depth)
        super().__init__(
            {
                "w_en": In(1),
                "w_addr": In(bits),
                "w_data": In(width),
                "r_addr": In(bits),
                "r_data": Out(width),
                **({"r_en": In(1)} if holds else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.kind == "logic":
            self._logic(m)
        elif device_of(self.body):
            self._pieces(m)
        else:
            self._whole(m)
        return m

    def _logic(self, m: Module) -> None:
        device = device_of(self.body)
        words = device.lutram_words if device else 0
        if words and self.latency and self.depth > words:
            self._ways(m, words)
            return
        # Where there is no distributed RAM, Yosys would take a block RAM for 128 bits and more.
        attrs = {"ram_style": "logic"} if device and not words else {}
        m.submodules.mem = mem = memory.Memory(
            shape=self.width, depth=self.depth, init=[], attrs=attrs
        )
        write, read = mem.write_port(), mem.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self.w_en),
            write.addr.eq(self.w_addr),
            write.data.eq(self.w_data),
            read.addr.eq(self.r_addr),
            self.r_data.eq(_delay(m, read.data, self.latency, "data")),
        ]

    def _ways(self, m: Module, words: int) -> None:
        """Distributed RAM so many words deep, each with a register that is cleared where it is not
        meant: an OR takes a quarter of the LUTs of the multiplexer that Yosys makes."""
        parts: list[Value] = []
        low = _address_bits(words)
        for way in range(-(-self.depth // words)):
            mem = memory.Memory(shape=self.width, depth=words, init=[])
            m.submodules[f"way{way}"] = mem
            write, read = mem.write_port(), mem.read_port(domain="comb")
            part = Signal(self.width, name=f"way{way}_data", reset_less=True)
            m.d.comb += [
                write.en.eq(self.w_en & (self.w_addr[low:] == way)),
                write.addr.eq(self.w_addr[:low]),
                write.data.eq(self.w_data),
                read.addr.eq(self.r_addr[:low]),
            ]
            m.d.sync += part.eq(read.data)
            with m.If(self.r_addr[low:] != way):
                m.d.sync += part.eq(0)
            parts.append(part)
        joined = reduce(or_, parts)
        m.d.comb += self.r_data.eq(_delay(m, joined, self.latency - 1, "data"))

    def _whole(self, m: Module) -> None:
        m.submodules.mem = mem = memory.Memory(shape=self.width, depth=self.depth, init=[])
        write, read = mem.write_port(), mem.read_port()
        m.d.comb += [
            write.en.eq(self.w_en),
            write.addr.eq(self.w_addr),
            write.data.eq(self.w_data),
            read.addr.eq(self.r_addr),
            self.r_data.eq(_delay(m, read.data, self.latency - 1, "data")),
        ]
        if self.holds:
            m.d.comb += read.en.eq(self.r_en)

    def _read_address(self, m: Module) -> Value:
        """Without a read enable the word that is held is read again and again."""
        if not self.holds or architecture(self.body).read_enable:
            return self.r_addr
        last = Signal(len(self.r_addr), reset_less=True)
        with m.If(self.r_en):
            m.d.sync += last.eq(self.r_addr)
        return Mux(self.r_en, self.r_addr, last)

    def _pieces(self, m: Module) -> None:
        family = self.body
        own = min(self.latency, architecture(family).block_latency)
        r_addr = self._read_address(m)
        select = _Select(m, r_addr)
        parts: list[tuple[Piece, Value]] = []
        for i, piece in enumerate(memory_layout(self.width, self.depth, family)):
            low = _address_bits(piece.shape[1])
            enable = self.w_en & (self.w_addr[low:] == piece.word >> low)
            if self.depth <= piece.shape[1]:
                enable = self.w_en
            data = ram_block(family, m, f"piece_{i}", piece, self, enable, r_addr[:low], own)
            parts.append((piece, data))
        left = self.latency - own
        steps = min(left, select_registers(self.width, self.depth, family))
        joined = select.join(parts, own, steps)
        m.d.comb += self.r_data.eq(_delay(m, joined, left - steps, "data"))


ram_block: ValueFace[[Module, str, Piece, Ram, Value, Value, int], Value] = ARCHITECTURES.face(
    "RAM block"
)
"""A piece of a `Ram` as a block RAM that writes where it is enabled: its data for an address, some
cycles later."""


def _connected(
    m: Module, name: str, block: Any, piece: Piece, ram: Ram, enable: Value, r_addr: Value
) -> Value:
    """A block that holds a piece of a `Ram`; gives its data."""
    m.submodules[name] = block
    m.d.comb += [
        block.w_en.eq(enable),
        block.w_addr.eq(ram.w_addr[: len(r_addr)]),
        block.w_data.eq(ram.w_data[piece.bit : piece.bit + piece.bits]),
        block.r_addr.eq(r_addr),
    ]
    return block.r_data


@ram_block.of("ecp5")
def _dp16kd_ram(
    family: str,
    m: Module,
    name: str,
    piece: Piece,
    ram: Ram,
    enable: Value,
    r_addr: Value,
    latency: int,
) -> Value:
    block = EbrBlock(piece.shape[0], piece.bits, writable=True, registered=latency == 2)
    return _connected(m, name, block, piece, ram, enable, r_addr)


@ram_block.of("ice40")
def _ram40_ram(
    family: str,
    m: Module,
    name: str,
    piece: Piece,
    ram: Ram,
    enable: Value,
    r_addr: Value,
    latency: int,
) -> Value:
    block = IceRam(piece.shape[0], piece.bits, holds=ram.holds)
    data = _connected(m, name, block, piece, ram, enable, r_addr)
    if ram.holds:
        m.d.comb += block.r_en.eq(ram.r_en)
    return data
