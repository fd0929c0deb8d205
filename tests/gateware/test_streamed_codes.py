"""Shared engines whose codes come from the flash for every frame: outputs, cycles, damaged codes,
and the board's top around them."""

from dataclasses import replace

import numpy as np
import pytest
from random_layers import Case, make_chain
from stand_in import IDENTITY
from test_map_core import NETWORKS, traced

import sim
from gateware.accelerator.accelerator import Accelerator
from gateware.link.top import Top
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.code_stream import STREAM_START, stream_crc, stream_cycles, stream_file
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.map_core import MapSpec
from pvq_hw.engine.shared_core import make_shared_core
from pvq_hw.engine.spram_image import FLASH_OFFSET
from pvq_hw.engine.timing import time_graph
from pvq_hw.engine.units import CoreUnit
from pvq_hw.errors import InputError
from pvq_hw.host.code_state import CodeState, CodeStatus
from pvq_hw.host.protocol import Description, ErrorCode, Kind, Packet, PacketDecoder, WireFormat
from pvq_hw.output.verify_codes import check_codes
from pvq_hw.output.verify_content import check_image, check_plan
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import Plan, plan
from sim import prove
from sim.agents.bench import Bench
from sim.agents.pins import PinSimulation
from sim.agents.spi_flash import SpiFlash
from sim.agents.streams import Sink, Source
from sim.agents.wire import pack_frames

U8, S8 = IntFormat(8, False), IntFormat(8, True)


class Small:
    """Two dense layers on one engine whose ring holds fewer words than either has.

    Attributes
    ----------
    chain, spec, image, graph, file
    """

    def __init__(self, code_buffer=4, seed=2):
        self.chain = make_chain(seed, 7, U8, Case(6, 6, 2), Case(3, 4, 2, S8), frames=3)
        tensors = self.chain.network.tensors()
        layers = [(layer, tensors[layer.input]) for layer in self.chain.network.layers]
        self.spec, self.image = make_shared_core(
            layers, 2, family="hx8k", code_memory="flash", code_buffer=code_buffer
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

    def __init__(self, file, passes, byte=0):
        super().__init__({FLASH_OFFSET: file}, 12, delay=0)
        self._passes, self._byte = passes, STREAM_START + byte

    def byte(self, address):
        wrong = address == self._byte and self.commands.count(0x03) in self._passes
        return super().byte(address) ^ wrong


@pytest.mark.parametrize("code_buffer", [2, pytest.param(64, marks=pytest.mark.slow)])
def test_outputs_of_dense_layers_and_cycles(code_buffer):
    small = Small(code_buffer)
    assert small.spec.layers[0].words > 2
    trace = small.chain.network.trace(small.chain.x)
    result = sim.simulate(small.graph, [small.image], small.chain.x, "amaranth")
    assert sim.compare(result, trace).mismatches == 0
    timing = time_graph(small.graph, {small.spec.name: small.image})
    assert (result.interval_cycles, result.latency_cycles) == (
        timing.interval_cycles, timing.latency_cycles,
    )  # fmt: skip
    assert timing.interval_cycles == stream_cycles(small.spec)


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
    ("pooled", 16, 8, "ring", 5243), ("pooled", 16, 0, "spram", 2946),
    ("pooled", 64, 0, "spram", 2214), ("residual", 16, 0, "spram", 3800),
    ("residual", 16, 8, "ring", 8651), ("depthwise", 64, 32, "spram", 7790),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "code_buffer", "rows", "maps", "cycles"),
    [*MAPS[:1], *(pytest.param(*x, marks=pytest.mark.slow) for x in MAPS[1:])],
)
def test_outputs_of_layers_with_maps_and_cycles(name, code_buffer, rows, maps, cycles):
    network = NETWORKS[name]()
    options = {"code_memory": "flash", "code_buffer": code_buffer, "map_memory": maps, "side": 2,
               "params_buffer": rows}  # fmt: skip
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
    assert made.stream.bits == spec.word_bits * (spec.words + spec.all_rows * spec.row_words)
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
        wrong, at = bytearray(right), word * spec.word_bits
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
        replace(spec, code_memory="block", code_buffer=0)


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


def test_wrong_codes_never_give_a_whole_frame():
    small = Small()
    length, rows = stream_cycles(small.spec), small.spec.rows
    right = pack_frames(small.expected, S8, 1, 1)
    several = 6 * length
    assert _given(small, Damaged(small.file, ()), several)[: 2 * rows] == right[: 2 * rows]
    # At first the codes are read again until they are right.
    assert _given(small, Damaged(small.file, (1, 2)), several)[: 2 * rows] == right[: 2 * rows]
    # The third pass computes the second frame; a bit of the last word, another of the first.
    for byte in (len(small.file) - 18, 0):
        found = _given(small, Damaged(small.file, (3,), byte), several)
        assert rows <= len(found) < 2 * rows
        assert found[:rows] == right[:rows]


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
    made = plan(NETWORKS["flat"](), "icebreaker", engine="shared", code_memory="flash")
    with pytest.raises(InputError, match="code_buffer must be 40 words or more, not 16"):
        replace(made.specs[0], code_buffer=16)
