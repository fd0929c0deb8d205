"""Memories and multipliers side by side in one circuit, with vectors and what they must give."""

import random
from collections.abc import Sequence

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Shape
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gateware.arith.multiplier import DspMultiplier
from gateware.device.ebr import EbrBlock
from gateware.device.memory import Ram, Rom

__all__ = ["Part", "VectorBench", "controlled_ram", "multiplier", "ram", "ram_block", "rom"]

CYCLES = 320


class Part:
    """A circuit, the values of its inputs in each cycle, and its output in some of them.

    Parameters
    ----------
    circuit : Component
        With one output.
    inputs : list of dict
        By port, per cycle.
    wanted : dict
        By cycle.
    """

    def __init__(
        self, circuit: wiring.Component, inputs: list[dict[str, int]], wanted: dict[int, int]
    ) -> None:
        self.circuit, self.inputs, self.wanted = circuit, inputs, wanted


class VectorBench(wiring.Component):
    """The parts with their ports in one vector each way, in order, lowest first."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.ins: list[list[tuple[str, int]]] = []
        self.outs: list[tuple[str, int]] = []
        for part in parts:
            members = part.circuit.signature.members.items()
            widths = [(n, Shape.cast(m.shape).width, m.flow) for n, m in members]
            self.ins.append([(name, width) for name, width, flow in widths if flow == In])
            self.outs += [(name, width) for name, width, flow in widths if flow == Out]
        self.stimulus_bits = sum(width for ports in self.ins for _, width in ports)
        self.response_bits = sum(width for _, width in self.outs)
        super().__init__({"stimulus": In(self.stimulus_bits), "response": Out(self.response_bits)})

    def elaborate(self, platform):
        m = Module()
        position, outs = 0, []
        for k, (part, ports) in enumerate(zip(self.parts, self.ins, strict=True)):
            m.submodules[f"part{k}"] = part.circuit
            for name, width in ports:
                m.d.comb += getattr(part.circuit, name).eq(self.stimulus[position:][:width])
                position += width
            outs.append(getattr(part.circuit, self.outs[k][0]))
        m.d.comb += self.response.eq(Cat(*outs))
        return m

    def stimulus_words(self) -> list[int]:
        """A value of ``stimulus`` per cycle."""
        words = []
        for cycle in range(CYCLES):
            word = position = 0
            for part, ports in zip(self.parts, self.ins, strict=True):
                for name, width in ports:
                    word |= (part.inputs[cycle][name] & ((1 << width) - 1)) << position
                    position += width
            words.append(word)
        return words

    def wrong(self, responses: Sequence[str]) -> list[str]:
        """What the simulated responses have wrong, a line for each part; unknown bits are."""
        found, end = [], self.response_bits
        for part, (_, width) in zip(self.parts, self.outs, strict=True):
            start = end - width
            for cycle, value in part.wanted.items():
                got, want = responses[cycle][start:end], f"{value % (1 << width):0{width}b}"
                if got != want:
                    label = getattr(part, "label", type(part.circuit).__name__)
                    found.append(f"{label}, cycle {cycle}: {got}, not {want}")
                    break
            end = start
        return found


def _labeled(part: Part, label: str) -> Part:
    part.label = label
    return part


def _words(chance: random.Random, width: int, depth: int) -> list[int]:
    return [chance.getrandbits(width) for _ in range(depth)]


def rom(width: int, depth: int, latency: int, body: str) -> Part:
    """Random contents; reads of both ends and at random, one a cycle."""
    label = f"Rom {width} x {depth}, latency {latency}, {body}"
    chance = random.Random(label)
    words = _words(chance, width, depth)
    circuit = Rom("words", width, depth, words, latency=latency, body=body)
    reads = [0, depth - 1, *(chance.randrange(depth) for _ in range(CYCLES - 2))]
    wanted = {c: words[reads[c - latency]] for c in range(latency, CYCLES)}
    return _labeled(Part(circuit, [{"addr": a} for a in reads], wanted), label)


def _accesses(chance: random.Random, width: int, depth: int, latency: int):
    """Writes and, at the same time, reads of what was written before: inputs and wanted."""
    held: dict[int, int] = {}
    inputs, wanted = [], {}
    for cycle in range(CYCLES):
        at = {0: 0, 1: depth - 1}.get(cycle, chance.randrange(depth))
        # An address comes with data even where nothing is written.
        writes = cycle < 20 or chance.random() < 0.5
        data = chance.getrandbits(width)
        known = [a for a in held if not (writes and a == at)]
        read = chance.choice(known[-20:]) if known else (at + 1) % depth
        if known and cycle + latency < CYCLES:
            wanted[cycle + latency] = held[read]
        if writes:
            held.pop(at, None)
            held[at] = data
        inputs.append({"w_en": writes, "w_addr": at, "w_data": data, "r_addr": read})
    return inputs, wanted


def ram(width: int, depth: int, latency: int, body: str, kind: str = "block") -> Part:
    """Writes and reads at random, never of one address at a time."""
    label = f"Ram {width} x {depth}, latency {latency}, {body}, {kind}"
    inputs, wanted = _accesses(random.Random(label), width, depth, latency)
    circuit = Ram(width, depth, latency=latency, kind=kind, body=body)
    return _labeled(Part(circuit, inputs, wanted), label)


def ram_block(width: int, bits: int, registered: bool) -> Part:
    """One DP16KD of any width, with contents, written and read."""
    label = f"EbrBlock {width}, {bits} bits, registered {registered}"
    chance = random.Random(label)
    depth = {36: 512, 18: 1024}.get(width, 16384 // (8 if width == 9 else width))
    init = _words(chance, bits, depth)
    inputs, wanted = _accesses(chance, bits, depth, 1 + registered)
    # Reads of what only the contents hold.
    touched = {i["w_addr"] for i in inputs}
    for cycle in range(40, CYCLES - 2, 3):
        read = chance.choice([a for a in range(depth) if a not in touched])
        inputs[cycle]["r_addr"] = read
        wanted[cycle + 1 + registered] = init[read]
    circuit = EbrBlock(width, bits, init=init, writable=True, registered=registered)
    return _labeled(Part(circuit, inputs, wanted), label)


def multiplier(a_bits: int, b_bits: int, size: int, body: str) -> Part:
    """All pairs of extremes, then random ones."""
    label = f"DspMultiplier {a_bits} x {b_bits}, {body}"
    chance = random.Random(label)
    low, high = -(1 << (a_bits - 1)), (1 << (a_bits - 1)) - 1
    pairs = [
        (a, b)
        for a in (low, low + 1, -1, 0, 1, high)
        for b in (0, 1, (1 << (b_bits - 1)), (1 << b_bits) - 1)
    ]
    while len(pairs) < CYCLES:
        pairs.append((chance.randint(low, high), chance.getrandbits(b_bits)))
    circuit = DspMultiplier(a_bits, b_bits, size, body)
    inputs = [{"a": a, "b": b, "start": 1} for a, b in pairs]
    wanted = {c + circuit.delay: a * b for c, (a, b) in enumerate(pairs[: CYCLES - circuit.delay])}
    return _labeled(Part(circuit, inputs, wanted), label)


class _TrueDualPort(wiring.Component):
    """A DP16KD of 9 bits with both ports' controls; ``data`` is {DOB, DOA}."""

    _CONTROLS = ("ce", "oce", "we", "rst")

    def __init__(self, mode: str) -> None:
        self.mode = mode
        ports = {f"{name}_{p}": In(1) for p in "ab" for name in self._CONTROLS}
        ports |= {f"{name}_{p}": In(bits) for p in "ab" for name, bits in (("ad", 11), ("di", 9))}
        super().__init__({**ports, "data": Out(18)})

    def elaborate(self, platform):
        m = Module()
        wires = {}
        for i, p in enumerate("ab"):
            for name in self._CONTROLS:
                wires[f"i_{name.upper()}{p.upper()}"] = getattr(self, f"{name}_{p}")
            address, data = getattr(self, f"ad_{p}"), getattr(self, f"di_{p}")
            for k in range(14):
                wires[f"i_AD{p.upper()}{k}"] = address[k - 3] if k > 2 else Const(0, 1)
            for k in range(18):
                wires[f"i_DI{p.upper()}{k}"] = data[k] if k < 9 else Const(0, 1)
            for k in range(9):
                wires[f"o_DO{p.upper()}{k}"] = self.data[9 * i + k]
            wires |= {f"i_CS{p.upper()}{k}": Const(k == 0, 1) for k in range(3)}
            wires[f"i_CLK{p.upper()}"] = ClockSignal("sync")
            wires |= {
                f"p_DATA_WIDTH_{p.upper()}": 9,
                f"p_REGMODE_{p.upper()}": "OUTREG",
                f"p_WRITEMODE_{p.upper()}": self.mode,
                f"p_CSDECODE_{p.upper()}": "0b001",
            }
        m.submodules.ebr = Instance("DP16KD", **wires)
        return m


def controlled_ram(mode: str) -> Part:
    """Both ports of a block RAM read and write, with pauses and resets, beside a plain model."""
    chance = random.Random(mode)
    memory = [0] * 2048
    latch, register = [0, 0], [0, 0]
    inputs, wanted = [], {}
    for cycle in range(CYCLES):
        if cycle > 2:
            wanted[cycle] = register[1] << 9 | register[0]
        now: dict[str, int] = {}
        places = chance.sample(range(16), 2)  # never one place twice
        for p, place in zip("ab", places, strict=True):
            likely = {"ce": 0.8, "oce": 0.7, "we": 0.5, "rst": 0.04}
            now |= {f"{n}_{p}": int(chance.random() < chances) for n, chances in likely.items()}
            now |= {f"ad_{p}": place * 131, f"di_{p}": chance.getrandbits(9)}
            if cycle < 2:
                now |= {f"rst_{p}": 1}
        inputs.append(now)
        for i, p in enumerate("ab"):
            ce, oce, we, rst, ad, di = (
                now[f"{n}_{p}"] for n in ("ce", "oce", "we", "rst", "ad", "di")
            )
            register[i] = 0 if rst else latch[i] if oce else register[i]
            old = memory[ad]
            if ce and we and not rst:
                memory[ad] = di
            if rst:
                latch[i] = 0
            elif ce and not (we and mode == "NORMAL"):
                latch[i] = di if we and mode == "WRITETHROUGH" else old
    return _labeled(Part(_TrueDualPort(mode), inputs, wanted), f"DP16KD, {mode}")
