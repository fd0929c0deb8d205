"""Shared engines whose codes come from the flash for every frame: outputs, cycles, damaged codes,
and the board's top around them."""

import re
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from amaranth.hdl import Cat, Module
from amaranth.sim import Simulator
from random_layers import Case, make_chain
from stand_in import IDENTITY
from test_map_core import NETWORKS, traced

import sim
from gateware.accelerator.accelerator import Accelerator
from gateware.core.code_ring import StreamRuns
from gateware.export.verilog_text import flash_verilog
from gateware.link.flash import FlashStream
from gateware.link.top import Top
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.code_stream import STREAM_START, stream_crc, stream_cycles, stream_file
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.hexfile import hex_text
from pvq_hw.engine.map_core import MapSpec
from pvq_hw.engine.shared_core import make_shared_core
from pvq_hw.engine.spram_image import FLASH_OFFSET
from pvq_hw.engine.timing import time_graph
from pvq_hw.engine.units import CoreUnit
from pvq_hw.errors import CheckError, InputError
from pvq_hw.host.code_state import CodeState, CodeStatus
from pvq_hw.host.protocol import Description, ErrorCode, Kind, Packet, PacketDecoder, WireFormat
from pvq_hw.output.verify_codes import check_codes
from pvq_hw.output.verify_content import check_image, check_plan
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import Plan, plan
from sim import prove
from sim.agents.bench import Bench
from sim.agents.pins import PinSimulation
from sim.agents.spi_flash import SpiFlash, seen_pins
from sim.agents.streams import Sink, Source
from sim.agents.wire import pack_frames
from sim.backends.netlist import run_frames

U8, S8 = IntFormat(8, False), IntFormat(8, True)


class Small:
    """Two dense layers on one engine whose ring holds fewer words than either has.

    Attributes
    ----------
    chain, spec, image, graph, file
    """

    def __init__(self, code_buffer=4, seed=2, flash_bits=1):
        self.chain = make_chain(seed, 7, U8, Case(6, 6, 2), Case(3, 4, 2, S8), frames=3)
        tensors = self.chain.network.tensors()
        layers = [(layer, tensors[layer.input]) for layer in self.chain.network.layers]
        self.spec, self.image = make_shared_core(
            layers,
            2,
            family="hx8k",
            code_memory="flash",
            code_buffer=code_buffer,
            flash_bits=flash_bits,
        )
        self.graph = GraphSpec((CoreUnit(layers[-1][0].name, ("i",), ("o",), self.spec),))
        self.file = stream_file(self.spec, self.image.codes)

    @property
    def expected(self):
        return self.spec.compute(self.image, self.chain.x)

    def accelerator(self, wake_clocks=16):
        made = Accelerator(self.graph, [self.image])
        for unit in made.units.values():
            unit.wake_clocks = wake_clocks
        return made


class Damaged(SpiFlash):
    """A flash that turns a bit of one byte in some of the passes, counted from 1."""

    def __init__(self, file, passes, byte=0, bit=0, quad=True):
        super().__init__({FLASH_OFFSET: file}, 12, delay=0, quad=quad)
        self._passes, self._byte, self._bit = passes, STREAM_START + byte, bit

    def byte(self, address):
        wrong = address == self._byte and len(self.commands) - 1 in self._passes
        return super().byte(address) ^ wrong << self._bit


def read_words(widths, bits, room):
    """What a `FlashStream` of words of so many bits gives in two passes, and the cycles in which
    words begin and come; it has room for the next word ``room`` cycles after one began."""
    words = [int(x) % (1 << widths) for x in np.random.default_rng(widths).integers(1, 1 << 40, 5)]
    spec = SimpleNamespace(word_bits=widths, stream_words=5, flash_bits=bits)
    reader = FlashStream(STREAM_START, widths, 5, stream_crc(spec, words), 16, bits)
    chip = SpiFlash({FLASH_OFFSET: stream_file(spec, words)}, 12, delay=0)
    module = Module()
    module.submodules.reader = reader
    simulator = Simulator(module)
    simulator.add_clock(1e-6)
    begins, comes, given = [], [], []

    async def testbench(ctx):
        wires = Cat(*seen_pins(reader.pins))
        cycle = 0
        while len(given) < 10:
            ctx.set(reader.pins.cipo, chip.level)
            ctx.set(reader.room, not begins or cycle - begins[-1] >= room)
            _, _, levels, begun, valid, payload, right = await ctx.tick().sample(
                wires, reader.begins, reader.o.valid, reader.o.payload, reader.right
            )
            chip.clock(*(levels >> k & 1 for k in range(len(wires))))
            begins.extend([cycle] * begun)
            comes.extend([cycle] * valid)
            given.extend([payload] * valid)
            assert right or not valid
            cycle += 1
            assert cycle < 2000

    simulator.add_testbench(testbench)
    simulator.run()
    assert chip.commands[1] == {1: 0x03, 2: 0x3B, 4: 0x6B}[bits]
    return words, given, begins, comes


# Words of a clock and of several, a multiple of the bits and not, and one that has to wait.
@pytest.mark.parametrize(
    ("width", "bits", "clocks"),
    [(3, 1, 3), (2, 2, 1), (5, 2, 3), (4, 4, 1), (3, 4, 1), (13, 4, 4)],
)
def test_words_come_whole_whatever_the_bits_of_a_clock(width, bits, clocks):
    for room in (0, 2 * clocks + 5):
        words, given, begins, comes = read_words(width, bits, room)
        assert given == words * 2
        assert [b - a for a, b in zip(begins, comes, strict=False)] == [2 * clocks + 2] * 10
        steps = {b - a for a, b in pairwise(begins[:5])}
        assert steps == {max(2 * clocks, room)}
        assert begins[5] - begins[4] == 2 * clocks + (72 if bits == 1 else 88)


def test_runs_of_words_that_come_every_other_cycle_are_told_apart():
    runs = [1, 3, 2, 1]
    module = Module()
    module.submodules.runs = counter = StreamRuns(runs)
    simulator = Simulator(module)
    simulator.add_clock(1e-6)
    found = []

    async def testbench(ctx):
        for cycle in range(4 * sum(runs)):
            ctx.set(counter.begins, cycle % 2)
            _, _, odd = await ctx.tick().sample(counter.odd)
            found.extend([odd] * (cycle % 2))

    simulator.add_testbench(testbench)
    simulator.run()
    assert found == [k % 2 for k, n in enumerate(runs) for _ in range(n)] * 2


def test_the_flash_of_tests_is_alone_on_its_data_pins_and_asked_over_one_that_is_driven():
    def asked(command, turned):
        chip = SpiFlash({}, asleep=False)
        text = f"{command:08b}{0:032b}00"
        chip.clock(0, 0, 0, 1)
        for k, bit in enumerate(text):
            for clk in (1, 0):
                chip.clock(0, clk, int(bit), int(k < turned))

    asked(0x3B, 32)
    asked(0x6B, 39)
    with pytest.raises(CheckError, match="alone on the pins that it gives data on"):
        asked(0x3B, 41)
    with pytest.raises(CheckError, match="its command and address on a pin that is driven"):
        asked(0x6B, 30)


# The flash takes most of the cycles; a ring of two words stands still between layers.
DENSE = [(2, 1, 0), (2, 4, 19), (64, 1, 0), (64, 4, 0), (2, 2, 11)]


@pytest.mark.parametrize(
    ("code_buffer", "bits", "stands"),
    [*DENSE[:2], *(pytest.param(*x, marks=pytest.mark.slow) for x in DENSE[2:])],
)
def test_outputs_of_dense_layers_and_cycles(code_buffer, bits, stands):
    small = Small(code_buffer, flash_bits=bits)
    assert small.spec.layers[0].words > 2
    trace = small.chain.network.trace(small.chain.x)
    result = sim.simulate(small.graph, [small.image], small.chain.x, "amaranth")
    assert sim.compare(result, trace).mismatches == 0
    timing = time_graph(small.graph, {small.spec.name: small.image})
    assert (result.interval_cycles, result.latency_cycles) == (
        timing.interval_cycles, timing.latency_cycles,
    )  # fmt: skip
    assert timing.interval_cycles == stream_cycles(small.spec) + stands


@pytest.mark.slow
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_outputs_of_the_netlist_with_the_exported_flash(tmp_path, bits):
    small = Small(flash_bits=bits)
    words, stem = small.image.codes, small.spec.stream_memory
    file = tmp_path / f"{stem}.hex"
    file.write_text(hex_text(words, small.spec.word_bits))

    def with_flash(netlist):
        flash = flash_verilog(
            "core", "top", "dut", str(file), small.spec.memories[stem], STREAM_START, (8, 8), bits
        )
        return re.sub(r"\bmodule top\b", "module core", netlist) + flash

    x = np.resize(small.chain.x, (6, 7))
    expected = small.spec.compute(small.image, x)
    run = run_frames(small.graph, [small.image], x, expected, "ice40", edit=with_flash)
    assert run.compared == 3 * expected.size  # with pauses and after resets, too


def test_outputs_under_stalls_and_resets():
    # Results have no place for so long that the ring is full.
    small = Small()
    x = np.resize(small.chain.x, (12, 7))
    result = sim.simulate(
        small.graph, [small.image], x, "amaranth", idle="random:0.4", stall="steps:2000,5000",
        seed=5, resets=(30, 1500, 1501),
    )  # fmt: skip
    assert sim.compare(result, small.chain.network.trace(x)).mismatches == 0


# A ring that holds a layer's words alone, so that the next one's wait; and one that holds two.
# Multipliers and biases of so many rows from the flash, too, or all stored.
MAPS = [
    ("pooled", 16, 8, "ring", 2, 3279),
    ("pooled", 16, 8, "ring", 1, 5243), ("pooled", 16, 0, "spram", 1, 2946),
    ("pooled", 64, 0, "spram", 1, 2214), ("residual", 16, 0, "spram", 1, 3800),
    ("residual", 16, 8, "ring", 4, 2726), ("depthwise", 64, 32, "spram", 2, 5082),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "code_buffer", "rows", "maps", "bits", "cycles"),
    [*MAPS[:1], *(pytest.param(*x, marks=pytest.mark.slow) for x in MAPS[1:])],
)
def test_outputs_of_layers_with_maps_and_cycles(name, code_buffer, rows, maps, bits, cycles):
    network = NETWORKS[name]()
    options = {"code_memory": "flash", "code_buffer": code_buffer, "map_memory": maps, "side": 2,
               "params_buffer": rows, "flash_bits": bits}  # fmt: skip
    made = plan(network, "icebreaker", engine="shared", lanes=[4] * 19, gap_bits=[3] * 19,
                **options)  # fmt: skip
    assert made.specs[0].code_buffer == code_buffer
    form = network.input.format
    x = np.random.default_rng(1).integers(form.min, form.max + 1, (2, network.input.size))
    names = [layer.name for layer in network.layers]
    images = emit(network, made).cores
    result = sim.simulate(made.graph, images, x, "compiled", names=names)
    assert sim.compare(result, traced(network, x)).mismatches == 0
    assert (result.interval_cycles, result.latency_cycles) == (
        made.interval_cycles, made.latency_cycles,
    )  # fmt: skip
    assert made.interval_cycles == cycles >= made.specs[0].frame_cycles
    paused = sim.simulate(
        made.graph, images, x, "compiled", names=names, idle="random:0.4", stall="bursts:90",
        seed=5, resets=(30, 20_000, 24_000),
    )  # fmt: skip
    assert sim.compare(paused, traced(network, x)).mismatches == 0


def test_files_of_multipliers_and_biases_from_the_flash(tmp_path, monkeypatch):
    network = NETWORKS["depthwise"]()
    made = plan(network, "hx8k", engine="shared", lanes=[4] * 9, code_memory="flash",
                map_memory="ring", params_buffer=32)  # fmt: skip
    spec = made.shared
    assert isinstance(spec, MapSpec)
    assert Plan.from_json(made.to_json()) == made
    sent = spec.word_bits + 1
    assert (spec.flash_bits, spec.word_bits % 2) == (2, 1)
    assert made.stream.bits == sent * (spec.words + spec.all_rows * spec.row_words)
    image = emit(network, made)
    image.write(tmp_path)
    made.save(tmp_path / "plan.json")

    def found():
        findings = []
        cores = check_plan(tmp_path, network, made, findings)
        check_image(tmp_path, network, made, cores, findings)
        check_codes(tmp_path, made, [core for _, core in cores], findings)
        return findings

    assert found() == []
    # A bit of the second layer's first bias, and one of the first layer's last code word.
    first = sum(spec.stream_runs[0])
    for word, layer in ((first + 1, spec.layers[1]), (first - 1, spec.layers[0])):
        file = tmp_path / "image/codes.bin"
        right = file.read_bytes()
        wrong, at = bytearray(right), word * sent
        wrong[16 + at // 8] ^= 0x80 >> at % 8
        file.write_bytes(wrong)
        (one,) = found()
        assert (one.file, one.where) == ("image/codes.bin", f"layer {layer.name!r} word {word}")
        file.write_bytes(right)
    # `prove` looks for ROMs of multipliers and biases: there are none.
    monkeypatch.setattr(prove, "EngineBlocks", lambda netlist, core: None)
    for core, level in ((spec, "open"), (replace(spec, params_buffer=0), "proven")):
        levels = {name: found for name, found, _ in prove._engine_blocks(None, core)}
        assert (levels["leaves"], levels["requantizers"]) == ("proven", level)
    with pytest.raises(InputError, match="params_buffer must be a power of two from 20 on, not 16"):
        replace(spec, params_buffer=16)
    with pytest.raises(InputError, match="params_buffer must be 0 unless codes come from the fl"):
        replace(spec, code_memory="block", code_buffer=0, flash_bits=1)


LINES = [(2, 0), (2, 1), (4, 0), (4, 1), (4, 3)]  # bits a clock, and the data pin that is wrong


def _given(small, flash, cycles):
    """What leaves within so many cycles, and the pins' states then: right, wrong."""
    accelerator = small.accelerator()
    bench = Bench(accelerator, quiet=cycles + 1)
    bench.flash(accelerator.flash, lambda: flash)
    payloads = pack_frames(small.chain.x, U8, 1, 1)
    bench.source(accelerator.i, Source(payloads))
    sink = bench.sink(accelerator.o, Sink())
    bench.run(lambda: bench.cycle >= cycles)
    return sink.payloads


@pytest.mark.parametrize(
    ("bits", "bit"), [(1, 0), (4, 2), *(pytest.param(*x, marks=pytest.mark.slow) for x in LINES)]
)
def test_wrong_codes_never_give_a_whole_frame(bits, bit):
    small = Small(flash_bits=bits)
    length, rows = stream_cycles(small.spec), small.spec.rows
    right = pack_frames(small.expected, S8, 1, 1)
    several = 6 * length
    assert _given(small, Damaged(small.file, ()), several)[: 2 * rows] == right[: 2 * rows]
    # At first the codes are read again until they are right.
    wrong = Damaged(small.file, (1, 2), bit=bit)
    assert _given(small, wrong, several)[: 2 * rows] == right[: 2 * rows]
    # The third pass computes the second frame; a bit of the last word, another of the first.
    for byte in (len(small.file) - 18, 0):
        found = _given(small, Damaged(small.file, (3,), byte, bit), several)
        assert rows <= len(found) < 2 * rows
        assert found[:rows] == right[:rows]
    # A flash whose quad-enable bit isn't set doesn't answer.
    if bits == 4:
        assert _given(small, Damaged(small.file, (), quad=False), 3 * length) == []


def test_the_board_tells_of_its_codes_and_takes_no_frame_before_they_are_right():
    small = Small()
    wires = WireFormat(7, U8), WireFormat(3, S8)
    description = Description(*wires, 4_000_000, 10**6, 4, IDENTITY)
    crc = stream_crc(small.spec, small.image.codes)
    frame = Packet(Kind.INFER, 2, wires[0].encode(small.chain.x[0])).encode()
    status = Packet(Kind.CODES_STATUS, 1).encode()
    refused = (Kind.ERROR, bytes((ErrorCode.NOT_READY, Kind.INFER)))

    def replies(passes, wake):
        """To a status and a frame at once, and to the same when the codes have been read."""
        top = Top(small.accelerator(wake), description, 512, codes_crc=crc)
        pins = PinSimulation(top, flash=Damaged(small.file, passes))
        decoder, found, sent, seen = PacketDecoder(), [], 0, 0

        def done():
            nonlocal sent, seen
            if seen < len(pins.line.received):
                found.extend(decoder.feed(bytes(pins.line.received[seen:])))
                seen = len(pins.line.received)
            if sent < 4 and len(found) == sent and pins.cycle >= 2000 * sent:
                pins.line.send(status + frame)
                sent += 2
            return len(found) == 4

        pins.run(done)
        return [(packet.kind, packet.payload) for packet in found]

    def told(state):
        return Kind.CODES, CodeStatus(state, crc if state is CodeState.READY else 0).encode()

    results = (Kind.RESULTS, wires[1].encode(small.expected[0]))
    assert replies((), 1024) == [told(CodeState.READING), refused, told(CodeState.READY), results]
    wrong = told(CodeState.WRONG)
    assert replies(range(1, 99), 1024) == [told(CodeState.READING), refused, wrong, refused]


def test_a_buffer_must_hold_what_is_read_several_times():
    small = Small()
    with pytest.raises(InputError, match="code_buffer must be a power of two from 2 on, not 3"):
        replace(small.spec, code_buffer=3)
    with pytest.raises(InputError, match="code_buffer must be 0 unless codes come from the flash"):
        replace(small.spec, code_memory="block")
    with pytest.raises(InputError, match="flash_bits must be 1, 2 or 4, not 3"):
        replace(small.spec, flash_bits=3)
    with pytest.raises(InputError, match="flash_bits must be 1, not 2"):
        replace(small.spec, code_memory="block", code_buffer=0, flash_bits=2)
    made = plan(NETWORKS["flat"](), "icebreaker", engine="shared", code_memory="flash")
    with pytest.raises(InputError, match="code_buffer must be 40 words or more, not 16"):
        replace(made.specs[0], code_buffer=16)
