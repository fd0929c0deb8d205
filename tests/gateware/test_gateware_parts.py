"""Decoder, leaf, tree, accumulator, multipliers and memories by themselves."""

import re
from collections import deque

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Signal
from amaranth.lib import data
from amaranth.sim import Simulator
from engine import random_layer, tensor

from gateware.arith.multiplier import DspMultiplier, PipelinedMultiplier, SerialMultiplier
from gateware.arith.requantizer import Saturate
from gateware.arith.tree import Accumulator, AdderTree, ChunkedAdder
from gateware.core.leaf import Leaf
from gateware.device.ebr import init_values
from gateware.device.memory import Ram, Rom, check_contents
from gateware.device.rtlil_text import plain_names
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.pulse_core import make_core
from pvq_hw.target.block_ram import memory_layout, select_registers


def _simulate(dut, bench):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(
    ("kind", "bits", "delay"),
    [
        *((DspMultiplier, b, d) for b, d in (((18, 17, 18), 3), ((30, 12, 18), 4))),
        (DspMultiplier, (40, 16, 16), 5),
        *((PipelinedMultiplier, b, d) for b, d in (((9, 1), 1), ((2, 2), 2), ((12, 15), 5))),
        *((PipelinedMultiplier, b, 4) for b in ((17, 5), (1, 6))),
    ],
)
def test_multipliers_give_a_product_every_cycle(kind, bits, delay):
    dut = kind(*bits)
    rng = np.random.default_rng(1)
    low, most = -(1 << (dut.a_bits - 1)), (1 << dut.b_bits) - 1
    pairs = [(a, b) for a in (low, -low - 1, -1, 0) for b in (0, 1, most // 2 + 1, most)]
    pairs += [(int(rng.integers(low, -low)), int(rng.integers(0, most + 1))) for _ in range(40)]
    seen = []

    async def bench(ctx):
        for a, b in [*pairs, *[(0, 0)] * dut.delay]:
            ctx.set(dut.a, a)
            ctx.set(dut.b, b)
            _, _, product = await ctx.tick().sample(dut.product)
            seen.append(product)

    _simulate(dut, bench)
    assert dut.delay == delay
    assert seen[delay:] == [a * b for a, b in pairs]


@pytest.mark.parametrize(("a_bits", "b_bits", "interval"), [(9, 1, 1), (12, 7, 3), (17, 12, 12)])
def test_serial_multiplier_at_its_interval(a_bits, b_bits, interval):
    rng = np.random.default_rng(2)
    dut = SerialMultiplier(a_bits, b_bits, interval)
    low = -(1 << (a_bits - 1))
    pairs = [(low, (1 << b_bits) - 1), (-low - 1, (1 << b_bits) - 1), (-1, 1)]
    pairs += [(int(rng.integers(low, -low)), int(rng.integers(0, 1 << b_bits))) for _ in range(20)]
    gaps = [interval + int(g) for g in rng.integers(0, 3, len(pairs))]
    wanted: deque[tuple[int, int]] = deque()

    async def bench(ctx):
        cycle = 0
        for (a, b), gap in zip(pairs, gaps, strict=True):
            wanted.append((cycle + dut.delay, a * b))
            for i in range(gap):
                ctx.set(dut.start, i == 0)
                ctx.set(dut.a, a if i == 0 else 0)
                ctx.set(dut.b, b if i == 0 else 0)
                _, _, product = await ctx.tick().sample(dut.product)
                if wanted and wanted[0][0] == cycle:
                    assert product == wanted.popleft()[1]
                cycle += 1

    _simulate(dut, bench)
    assert len(wanted) < len(pairs)


@pytest.mark.parametrize("chunk", [0, 5, 7])
def test_accumulator_gives_the_sum_of_each_run(chunk):
    rng = np.random.default_rng(3)
    dut = Accumulator(6, 17, chunk)
    runs = [[int(v) for v in rng.integers(-32, 32, int(rng.integers(1, 9)))] for _ in range(30)]
    runs += [[-32] * 40, [31] * 40]
    wanted = {}
    seen = []

    async def bench(ctx):
        for values in runs:
            for i, value in enumerate(values):
                ctx.set(dut.i, value)
                ctx.set(dut.first, i == 0)
                _, _, total = await ctx.tick().sample(dut.o)
                seen.append(total)
            wanted[len(seen) - 1] = sum(values)
        ctx.set(dut.i, 0)
        for _ in range(9):
            _, _, total = await ctx.tick().sample(dut.o)
            seen.append(total)

    _simulate(dut, bench)
    for cycle, total in wanted.items():
        assert seen[cycle + dut.chunks + 1] == total


@pytest.mark.parametrize("count", [2, 5, 16])
def test_adder_tree(count):
    rng = np.random.default_rng(4)
    dut = AdderTree(count, 5)
    vectors = [[-16] * count, [15] * count]
    vectors += [[int(v) for v in rng.integers(-16, 16, count)] for _ in range(10)]
    seen = []

    async def bench(ctx):
        for vector in [*vectors, *[[0] * count] * dut.levels]:
            for k, value in enumerate(vector):
                ctx.set(dut.i[k], value)
            _, _, total = await ctx.tick().sample(dut.o)
            seen.append(total)

    _simulate(dut, bench)
    assert seen[dut.levels :] == [sum(v) for v in vectors]


@pytest.mark.parametrize("chunk", [0, 4, 9])
def test_chunked_adder(chunk):
    dut = ChunkedAdder(11, chunk)
    rng = np.random.default_rng(5)
    pairs = [
        (2047, 1),
        (2047, 2047),
        *((int(a), int(b)) for a, b in rng.integers(0, 2048, (20, 2))),
    ]
    seen = []

    async def bench(ctx):
        for a, b in [*pairs, *[(0, 0)] * dut.chunks]:
            ctx.set(dut.a, a)
            ctx.set(dut.b, b)
            _, _, total = await ctx.tick().sample(dut.o)
            seen.append(total)

    _simulate(dut, bench)
    assert seen[dut.chunks :] == [(a + b) % 2048 for a, b in pairs]


@pytest.mark.parametrize("fmt", [IntFormat(4, False), IntFormat(4, True), IntFormat(1, True)])
@pytest.mark.parametrize("shift_bits", [0, 2])
def test_leaf(fmt, shift_bits):
    dut = Leaf(fmt, shift_bits)
    values = [-1, 1] if fmt.binary else range(fmt.min, fmt.max + 1)

    async def bench(ctx):
        for value in values:
            for negative in (0, 1):
                for shift in range(1 << shift_bits):
                    for nonzero in (0, 1):
                        ctx.set(dut.x, int(value < 0) if fmt.binary else value % (1 << fmt.bits))
                        ctx.set(dut.nonzero, nonzero)
                        ctx.set(dut.negative, negative & nonzero)
                        if shift_bits:
                            ctx.set(dut.shift, shift)
                        await ctx.tick().repeat(dut.delay)
                        turned = -value if fmt.binary else ~value
                        want = (turned if negative else value) << shift if nonzero else 0
                        assert ctx.get(dut.value) == want

    _simulate(dut, bench)


@pytest.mark.parametrize(
    "out",
    [
        IntFormat(8, False),
        IntFormat(5, True),
        IntFormat(1, True),
        IntFormat.between(-125, 130),
        IntFormat.between(-8, 3),
        IntFormat.between(0, 100),
        IntFormat.between(-9, 0),
    ],
    ids=lambda form: f"{form.min}..{form.max}",
)
def test_saturate(out):
    rng = np.random.default_rng(6)
    layer = random_layer(rng, 4, 20, IntFormat(8, False), out)
    spec, _ = make_core(layer, tensor(20, IntFormat(8, False)), 4)
    dut = Saturate(spec)
    top = 1 << (dut.bits - 1)

    async def bench(ctx):
        for value in [-top, top - 1, *range(max(-top, -300), min(top, 300))]:
            ctx.set(dut.i, value)
            await ctx.tick()
            got = ctx.get(dut.o)
            want = int(out.clamp(value))
            assert got == (int(want < 0) if out.binary else want % (1 << out.bits))

    _simulate(dut, bench)


@pytest.mark.parametrize("latency", [1, 2, 3])
@pytest.mark.parametrize("kind", ["logic", "block"])
def test_rom(latency, kind):
    rng = np.random.default_rng(7)
    words = [int(w) for w in rng.integers(0, 1 << 21, 700)]
    dut = Rom("words", 21, 700, words, latency=latency, kind=kind)
    addresses = [0, 699, *(int(a) for a in rng.integers(0, 700, 60))]
    seen = []

    async def bench(ctx):
        for address in [*addresses, *[0] * latency]:
            ctx.set(dut.addr, address)
            _, _, word = await ctx.tick().sample(dut.data)
            seen.append(word)

    _simulate(dut, bench)
    assert seen[latency:] == [words[a] for a in addresses]


@pytest.mark.parametrize("latency", [1, 2])
@pytest.mark.parametrize(
    ("kind", "body"),
    [("logic", "behavioral"), ("logic", "ecp5"), ("block", "behavioral")],
)
def test_ram(latency, kind, body):
    rng = np.random.default_rng(8)
    dut = Ram(19, 600, latency=latency, kind=kind, body=body)
    words = [int(w) for w in rng.integers(0, 1 << 19, 600)]

    async def bench(ctx):
        for address, word in enumerate(words):
            ctx.set(dut.w_en, 1)
            ctx.set(dut.w_addr, address)
            ctx.set(dut.w_data, word)
            await ctx.tick()
        ctx.set(dut.w_en, 0)
        for address in (int(a) for a in rng.permutation(600)[:50]):
            ctx.set(dut.r_addr, address)
            for _ in range(latency):
                await ctx.tick()
            assert ctx.get(dut.r_data) == words[address]

    _simulate(dut, bench)


@pytest.mark.parametrize(("width", "depth"), [(1, 3), (9, 0), (8, 2)])
def test_wrong_contents_are_refused(width, depth):
    with pytest.raises(ValueError, match="Memory"):
        check_contents("words", width, depth, [256] * 2)


def test_block_ram_contents_follow_the_vendors_order():
    # 18 bits: 16 words a row in steps of 20; 9 bits: two words in each of those steps.
    rows = init_values([1, 2, 3], 18)
    assert rows["INITVAL_00"].value == 1 | 2 << 20 | 3 << 40
    assert init_values([1, 2, 3], 9)["INITVAL_00"].value == 1 | 2 << 9 | 3 << 20
    assert init_values([1, 2, 3], 4)["INITVAL_00"].value == 1 | 2 << 4 | 3 << 9
    assert init_values([1 << 18, 5], 36)["INITVAL_00"].value == 1 << 20 | 5 << 40


@pytest.mark.parametrize(("depth", "ways", "registers"), [(2048, 1, 0), (4000, 2, 1), (9000, 5, 2)])
def test_a_deep_rom_wants_registers_for_its_choices(depth, ways, registers):
    assert len(memory_layout(9, depth, "ecp5")) == ways
    assert select_registers(9, depth, "ecp5") == registers


def test_no_name_looks_like_a_bit_of_another():
    """Fields of arrays, which Amaranth names with brackets; bits of wires stay what they are."""
    m = Module()
    pairs = Signal(data.ArrayLayout(4, 2), name="pairs")
    m.d.sync += pairs[0].eq(pairs[1])
    text = rtlil.convert(m, ports=[pairs.as_value()], name="top", emit_src=False)
    assert re.search(r"wire width 4 \\pairs\[1\]", text)
    plain = plain_names(text)
    assert not re.search(r"\\\S+\[", plain)
    assert re.search(r"wire width 4 \\pairs\(1\)", plain)
    assert len(re.findall(r" \[\d", plain)) == len(re.findall(r" \[\d", text)) > 0
