"""Code memories in SPRAM: the behavioral body, the vendor's block and Verilog's RAM alike."""

import random
import subprocess

import numpy as np
import pytest
from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from engine import frames_for, random_layer, tensor
from plan_networks import random_network
from refused_component import refused
from vendor_bench import CYCLES, Part, VectorBench

from gateware.accelerator.accelerator import Accelerator
from gateware.device.spram import SpramBlock, SpramRom
from gateware.export.verilog_text import SPRAM_VERILOG
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.dataflow import chain_graph
from pvq_hw.engine.pulse_core import make_core
from pvq_hw.engine.spram_image import code_file, code_layout, code_writes
from pvq_hw.engine.timing import time_chain
from pvq_hw.errors import InputError
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import plan
from pvq_hw.target.block_ram import SPRAM_DEPTH, spram_blocks
from pvq_hw.tools import find as tools
from sim.agents.streams import StreamError
from sim.backends.netlist import make_netlist, primitives, run_vectors
from sim.run import simulate

needs_yosys = pytest.mark.skipif(
    not (tools.have_tool("yosys") and tools.have_tool("iverilog")), reason="needs yosys and Icarus"
)
U8, S16 = IntFormat(8, False), IntFormat(16, True)
SHAPES = [(37, 20, 1), (16, 9, 0), (5, SPRAM_DEPTH + 9, 1), (17, 300, 2)]


class _Loadable(wiring.Component):
    """A `SpramRom` with plain ports; ``out`` is the word and above it what the loader reads."""

    def __init__(self, width, depth, first, latency, body):
        self.rom = SpramRom(width, depth, first, latency=latency, body=body)
        address = len(self.rom.addr)
        super().__init__(
            {
                "load": In(1),
                "w_en": In(1),
                "c_addr": In(16),
                "w_data": In(16),
                "addr": In(address),
                "out": Out(width + 16),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.rom = rom = self.rom
        m.d.comb += [
            rom.codes.load.eq(self.load),
            rom.codes.w_en.eq(self.w_en),
            rom.codes.addr.eq(self.c_addr),
            rom.codes.w_data.eq(self.w_data),
            rom.addr.eq(self.addr),
            self.out.eq(Cat(rom.data, rom.codes.r_data)),
        ]
        return m


def _part(width, depth, first, latency, body):
    """Loads, reads back, reads words, loads some again, at random; a plain model beside it."""
    label = f"{width} x {depth} from {first}, latency {latency}"
    chance = random.Random(label)
    columns = -(-width // 16)
    used = sorted({0, 1, depth // 2, depth - 1, *(chance.randrange(depth) for _ in range(12))})
    cells = [
        (first + word // SPRAM_DEPTH * columns + column, word % SPRAM_DEPTH)
        for word in used
        for column in range(columns)
    ]
    held, inputs, data, words, backs = {}, [], {}, {}, {}
    todo = list(cells)
    for cycle in range(CYCLES):
        load = bool(todo) or chance.random() < 0.4
        write = load and (bool(todo) or chance.random() < 0.3)
        block, word = todo.pop() if todo else chance.choice(cells)
        value, read = chance.getrandbits(16), chance.choice(used)
        inputs.append(
            {
                "load": load,
                "w_en": write or (not load and chance.random() < 0.2),
                "c_addr": block << 14 | word,
                "w_data": value,
                "addr": read,
            }
        )
        if write:
            held[block, word] = value
        elif load:
            backs[cycle + 2] = held[block, word]
        else:
            low = first + read // SPRAM_DEPTH * columns
            parts = [held[low + c, read % SPRAM_DEPTH] << 16 * c for c in range(columns)]
            words[cycle + latency] = sum(parts) & (1 << width) - 1
        data[cycle] = value
    both = {c: (backs[c] << width) | words[c] for c in words if c in backs and c < CYCLES}
    part = Part(_Loadable(width, depth, first, latency, body), inputs, both)
    part.label, part.words, part.backs, part.width = label, words, backs, width
    return part


def _wrong(part, outs):
    """Cycles in which either half is not the model's; ``outs`` are texts, the loader's first."""
    found = []
    for cycle in range(CYCLES):
        back, word = outs[cycle][:16], outs[cycle][16:]
        for got, want in ((word, part.words), (back, part.backs)):
            if cycle in want and got != f"{want[cycle]:0{len(got)}b}":
                found.append((part.label, cycle, got))
    return found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("latency", [1, 2])
def test_the_behavioral_body_is_its_model(shape, latency):
    part = _part(*shape, latency, "behavioral")
    outs = []

    async def bench(ctx):
        for inputs in part.inputs:
            for name, value in inputs.items():
                ctx.set(getattr(part.circuit, name), int(value))
            _, _, out = await ctx.tick().sample(part.circuit.out)
            outs.append(f"{out:0{part.width + 16}b}")

    simulator = Simulator(part.circuit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert _wrong(part, outs) == []


@needs_yosys
@pytest.mark.parametrize("synthesized", [False, True])
def test_the_vendors_blocks_are_too(synthesized):
    parts = [_part(*shape, 1, "ice40") for shape in SHAPES]
    bench = VectorBench(parts)
    netlist = make_netlist(bench, "ice40", synthesize=synthesized)
    words = run_vectors(netlist, bench.stimulus_words(), bench.stimulus_bits, bench.response_bits)
    end = bench.response_bits
    for part, (_, width) in zip(parts, bench.outs, strict=True):
        assert _wrong(part, [word[end - width : end] for word in words]) == []
        end -= width
    assert netlist.cells["SB_SPRAM256KA"] == sum(spram_blocks(w, d) for w, d, _ in SHAPES)


_TB = """
module tb;
  reg clk = 0, w_en; reg [13:0] addr; reg [15:0] w_data; wire [15:0] data;
  integer seed = 7, i;
  pvq_spram dut(.clk(clk), .w_en(w_en), .addr(addr), .w_data(w_data), .data(data));
  initial for (i = 0; i < 400; i = i + 1) begin
    addr = {14{i[0]}} ^ ($random(seed) & 15);
    w_en = i < 200 | ($random(seed) & 1);
    w_data = $random(seed);
    #5 clk = 1;
    #5 clk = 0;
    $display("%d %b", i, data);
  end
endmodule
"""


@needs_yosys
def test_exported_ram_is_the_vendors_with_and_without_its_macro(tmp_path):
    (tmp_path / "tb.v").write_text("`timescale 1ns / 1ps\n" + _TB + SPRAM_VERILOG)
    (tmp_path / "cells.v").write_text(primitives("ice40"))
    outs = []
    for options in ([], ["-DPVQ_SB_SPRAM256KA", "cells.v"]):
        command = ["iverilog", "-g2012", "-DNO_ICE40_DEFAULT_ASSIGNMENTS", "-DNO_INCLUDES"]
        command += ["-s", "tb", "-o", "tb", *options, "tb.v"]
        subprocess.run(command, cwd=tmp_path, check=True)
        run = subprocess.run(["vvp", "tb"], cwd=tmp_path, check=True, capture_output=True)
        outs.append(run.stdout)
    assert outs[0] == outs[1]
    assert outs[0].count(b"1x") == 0
    assert len(set(outs[0].split(b"\n"))) > 300


def _chain(seed=3, frames=1):
    rng = np.random.default_rng(seed)
    first, second = random_layer(rng, 9, 23, U8, U8), random_layer(rng, 4, 9, U8, S16)
    cores = [
        make_core(
            first, tensor(23, U8), 5, family="up5k", name="a", shift_bits=1, code_memory="spram"
        ),
        make_core(second, tensor(9, U8), 2, family="up5k", name="b"),
    ]
    specs, images = [c[0] for c in cores], [c[1] for c in cores]
    return specs, images, frames_for(rng, 5, 23, U8)


def _golden(specs, images, x):
    for spec, image in zip(specs, images, strict=True):
        x = spec.compute(image, x)
    return x


@pytest.mark.parametrize(
    "simulator",
    [
        "amaranth",
        pytest.param("icarus", marks=needs_yosys),
        pytest.param("compiled", marks=needs_yosys),
    ],
)
def test_cores_are_exact_to_the_value_and_cycle_after_a_load(simulator):
    specs, images, x = _chain()
    result = simulate(chain_graph(specs), images, x, simulator)
    timing = time_chain(specs, images)
    assert np.array_equal(result.outputs["b"], _golden(specs, images, x))
    assert (result.interval_cycles, result.latency_cycles) == (
        timing.interval_cycles,
        timing.latency_cycles,
    )


def test_frames_side_by_side_share_one_loaded_code():
    network, _ = random_network()
    planned = plan(network, "icebreaker", frames=2, code_memory="spram")
    x = np.random.default_rng(0).integers(0, 256, (5, 20))
    result = simulate(planned.graph, emit(network, planned).cores, x, "amaranth")
    assert np.array_equal(list(result.outputs.values())[-1], network.predict(x))
    assert result.interval_cycles == planned.interval_cycles


def test_stalls_and_resets_keep_what_was_loaded():
    specs, images, x = _chain()
    result = simulate(
        chain_graph(specs),
        images,
        x,
        "amaranth",
        idle="random:0.3",
        stall="random:0.3",
        resets=[40, 90],
    )
    assert np.array_equal(result.outputs["b"], _golden(specs, images, x))


def test_nothing_is_right_unless_it_is_loaded(monkeypatch):
    from sim.agents.bench import Bench

    specs, images, x = _chain()
    monkeypatch.setattr(Bench, "load", lambda self, port, writes: None)
    try:
        outputs = simulate(chain_graph(specs), images, x, "amaranth").outputs["b"]
    except StreamError:
        return  # not a row ended
    assert not np.array_equal(outputs, _golden(specs, images, x))


def test_no_activation_is_taken_while_codes_are_loaded():
    specs, images, _ = _chain()
    dut = Accelerator(chain_graph(specs), images)
    writes = code_writes(code_layout(specs), code_file(code_layout(specs), images))

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        for address, word in writes:
            ctx.set(dut.codes.load, 1)
            ctx.set(dut.codes.w_en, 1)
            ctx.set(dut.codes.addr, address)
            ctx.set(dut.codes.w_data, word)
            _, _, ready = await ctx.tick().sample(dut.i.ready)
            assert not ready
        ctx.set(dut.codes.load, 0)
        for expected in (0, 1):
            _, _, ready = await ctx.tick().sample(dut.i.ready)
            assert ready == expected

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_refuses_what_no_block_is_there_for():
    with pytest.raises(ValueError, match="SPRAM must be blocks 0 to 3"):
        refused(SpramRom, 40, 10, 2)
    with pytest.raises(ValueError, match="latency must be 1 or 2"):
        refused(SpramRom, 16, 10, 0, latency=3)
    with pytest.raises(ValueError, match="body must be"):
        refused(SpramBlock, body="ecp5")
    rng = np.random.default_rng(0)
    layer = random_layer(rng, 5, 12, U8, U8)
    with pytest.raises(InputError, match="code_latency must be 1 or 2"):
        make_core(layer, tensor(12, U8), 2, family="up5k", code_memory="spram", code_latency=3)
    with pytest.raises(InputError, match="code_memory must be block or spram"):
        make_core(layer, tensor(12, U8), 2, family="up5k", code_memory="flash")
