"""The exported Verilog and the layer package, on Icarus Verilog alone."""

import gc
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from amaranth.back import rtlil
from random_graphs import RandomNetwork, build
from random_layers import Case, make_chain

from gateware.export.export import ROM_FILE, export_accelerator, export_layer, export_verilog
from gateware.export.package import layer_package, package_vectors, write_layer_package
from gateware.export.testbench import testbench as make_testbench
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.dataflow import chain_graph
from pvq_hw.engine.hexfile import hex_text
from pvq_hw.engine.kinds import make_layer_core
from pvq_hw.engine.pulse_core import make_core
from pvq_hw.engine.scenarios import pace_of, scenarios, short_scenarios
from pvq_hw.engine.timing import fifo_needs, time_chain, time_graph, with_depths
from pvq_hw.errors import CheckError, InputError, ToolError
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.plan.image import Image
from pvq_hw.tools import find as tools
from sim.agents.wire import pack_frames
from sim.backends.netlist import primitives

U8, S8, S16, BINARY = (
    IntFormat(8, False),
    IntFormat(8, True),
    IntFormat(16, True),
    IntFormat(1, True),
)


def _layer(n, rows, k, x=U8, out=U8, groups=1, seed=0, name="fc"):
    """A layer with random codewords; its last row is zero."""
    rng = np.random.default_rng(seed)
    y = np.zeros((rows, n), dtype=np.int64)
    for row in y[:-1] if rows > 1 else y:
        columns = rng.integers(0, n, k)
        np.add.at(row, columns, np.where(np.arange(n) % 2, 1, -1)[columns])
    mult = rng.integers(100, 255, (rows, groups))
    return Dense(
        name=name,
        input="x",
        output=TensorSpec(name, (rows,), out, 1.0),
        y=y,
        mult=mult,
        bias=rng.integers(-3000, 3000, rows),
        shift=7,
        gain=np.ones((rows, groups)),
    ), TensorSpec("x", (n,), x, 1.0)


def _package(layer, x, lanes, frames=8, **options):
    spec, image = make_core(layer, x, lanes, **options)
    vectors = package_vectors(spec, frames)
    return spec, image, vectors, layer.compute(vectors)


def _simulate(folder: Path, *plusargs: str) -> str:
    for program in ("iverilog", "vvp"):
        if not tools.have_tool(program):
            pytest.skip(f"{program} is missing")
    sources = sorted(path.name for path in folder.glob("*.v"))
    if not (folder / "tb").exists():
        subprocess.run(["iverilog", "-o", "tb", *sources], cwd=folder, check=True, timeout=600)
    done = subprocess.run(
        ["vvp", "tb", *plusargs],
        cwd=folder,
        check=True,
        timeout=600,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("shape", "lanes", "formats", "options"),
    [
        ((16, 6, 10), 4, (U8, U8), {}),
        ((20, 5, 9), 3, (S8, S16), {"family": "hx8k"}),
        ((12, 4, 6), 1, (S8, S8), {"groups": 2}),
        ((1, 1, 2), 1, (U8, S16), {}),
        ((16, 4, 8), 8, (BINARY, S8), {"family": "up5k"}),
        ((16, 4, 8), 2, (U8, S8), {"frames": 2}),
    ],
)
def test_a_stranger_sees_pass(tmp_path, shape, lanes, formats, options):
    options = dict(options)
    groups = options.pop("groups", 1)
    layer, x = _layer(*shape, *formats, groups=groups)
    spec, image, vectors, expected = _package(layer, x, lanes, **options)
    write_layer_package(tmp_path, spec, image, vectors, expected)
    out = _simulate(tmp_path)
    pace = pace_of(chain_graph([spec]), [image], time_chain([spec], [image]).interval_cycles)
    compared = sum(scenario.rounds for scenario in scenarios(pace)) * spec.rows
    assert f"PASS: {compared} results compared, 0 mismatches" in out.splitlines()


def test_a_scenario_runs_alone_and_with_other_pauses(tmp_path):
    layer, x = _layer(16, 6, 10)
    write_layer_package(tmp_path, *_package(layer, x, 4))
    assert "PASS" in _simulate(tmp_path, "+seed=11", "+only=3")
    nothing = _simulate(tmp_path, "+only=0").splitlines()
    assert any("nothing was compared: scenarios are numbered 1 to 1" in line for line in nothing)
    assert nothing[-1].startswith("FAIL: 0 results compared")


@pytest.mark.parametrize("memory", ["codes", "mult", "bias"])
def test_the_testbench_catches_one_changed_bit(tmp_path, memory):
    layer, x = _layer(16, 6, 10, U8, S16)
    write_layer_package(tmp_path, *_package(layer, x, 4))
    file = tmp_path / f"fc_{memory}.hex"
    words = file.read_text().split()
    words[0] = f"{int(words[0], 16) ^ 128:0{len(words[0])}x}"
    file.write_text("\n".join(words) + "\n")
    out = _simulate(tmp_path)
    assert "FAIL: " in out
    assert "PASS" not in out
    assert re.search(r"frame \d+ row 0: got ", out)


@pytest.mark.parametrize(
    ("port", "wire", "sign"),
    [
        # A valid that falls while it waits; results that never come; one input sent always.
        (
            "o__valid(o_valid)",
            "wire v; assign o_valid = v & (o_ready | cycle % 2);",
            "protocol viol",
        ),
        ("o__valid(o_valid)", "wire v; assign o_valid = 0;", "time-outs"),
        ("i__ready(i_ready)", "wire v; assign i_ready = 0;", "mismatches"),
    ],
)
def test_the_testbench_catches_broken_streams(tmp_path, port, wire, sign):
    layer, x = _layer(16, 6, 10)
    write_layer_package(tmp_path, *_package(layer, x, 4))
    text = (tmp_path / "tb.v").read_text()
    text = text.replace(port, port.partition("(")[0] + "(v)")
    (tmp_path / "tb.v").write_text(text.replace("  fc_core dut", f"  {wire}\n  fc_core dut", 1))
    out = _simulate(tmp_path)
    (line,) = (line for line in out.splitlines() if line.startswith("FAIL"))
    assert re.search(rf"[1-9]\d* {sign}", line), out


def test_the_header_documents_the_core():
    layer, x = _layer(16, 6, 10, S8, S16)
    spec, image = make_core(layer, x, 4)
    text = export_layer(spec, image)["fc_core.v"]
    header = text.partition("\nmodule ")[0]
    assert all(line.startswith("//") or not line for line in header.splitlines())
    for phrase in (
        "8 bits, signed (two's complement), -128 to 127",
        "16 bits, signed (two's complement), -32768 to 32767",
        "frames of 16 transfers",
        "6 x 16 weights; lanes: 4",
        f"fc_codes.hex ({spec.code.word_bits} x {spec.words})",
        "Throughput: ",
        "iverilog",
    ):
        assert phrase in header


def _chain(folder, family, seed=3):
    """Two layers: 8-bit weights, then pulses; as export_accelerator writes them."""
    options = {"family": family}
    cases = (
        Case(4, 0, 2, shift=12, encoding="int8", options=options),
        Case(3, 6, 2, S16, options=options),
    )
    made = make_chain(seed, 6, U8, *cases, frames=2)
    return _accelerator(folder, made.network, made.graph, made.images, made.x)


def _graph(folder, family, seed=8, mean=False):
    """A convolution, a residual sum, pooling, and a dense layer with 8-bit weights."""
    net = RandomNetwork(seed, (4, 4, 2))
    joined = net.add(net.input, net.conv(net.input, 2, (3, 3), pads=((1, 1), (1, 1))))
    pool = net.average if mean else net.maxpool
    net.dense(pool(joined, (2, 2), stride=(2, 2)), 3)
    net.layers[-1] = replace(net.layers[-1], encoding="int8")
    made = build(net, family=family, frames=2)
    graph = with_depths(made.graph, fifo_needs(made.graph, made.images))
    images = [made.images[spec.name] for spec in graph.cores]
    return _accelerator(folder, made.network, graph, images, made.x)


def _accelerator(folder, network, graph, images, x):
    """Writes what an output folder has of an accelerator, and the testbench of the netlists."""
    files = export_accelerator(graph, images) | Image(tuple(graph.cores), images).files()
    columns, rows = x[0].size, network.output.size
    expected = network.predict(x).reshape(len(x), -1)
    forms = network.input.format, network.output.format
    for name, values, form in zip(("input", "expected"), (x, expected), forms, strict=True):
        words = pack_frames(values.reshape(len(x), -1), form, 1)
        files[f"{name}.hex"] = hex_text(list(words), form.bits)
    timed = time_graph(graph, graph.named(images))
    pace = pace_of(graph, images, timed.interval_cycles)
    files["tb.v"] = make_testbench(
        "accelerator", pace, short_scenarios(pace, 3), stimuli=len(x) * columns,
        expected=len(x) * rows, bits=(forms[0].bits, forms[1].bits), frame_rows=rows,
        files=("input.hex", "expected.hex"), command="vvp t", layout=None,
    )  # fmt: skip
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return Exported(folder, "accelerator", columns, rows, len(x), forms[0].bits, forms[1].bits)


@dataclass(frozen=True)
class Exported:
    """A folder with exported Verilog, its memory files, vectors and testbench."""

    folder: Path
    top: str
    columns: int
    rows: int
    frames: int
    input_bits: int
    output_bits: int


def _core(folder, name, layer, x, make=make_core, **options):
    spec, image = make(layer, x, 2, **options)
    vectors = package_vectors(spec, 4)
    write_layer_package(folder, spec, image, vectors, layer.compute(vectors))
    return Exported(folder, f"{name}_core", spec.n, spec.rows, 4, spec.x.bits, spec.out.bits)


def _pulse_core(folder, family):
    layer, x = _layer(16, 6, 10, U8, S16, name="pulse")
    layer = replace(layer, mult=layer.mult * 60, shift=12)
    return _core(folder, "pulse", layer, x, family=family, params_memory="logic")


def _narrow_core(folder, family):
    """Its products take few logic cells."""
    layer, x = _layer(6, 3, 4, IntFormat(4, False), S16, name="narrow")
    layer = replace(layer, mult=layer.mult >> 4, shift=3)
    return _core(folder, "narrow", layer, x, family=family)


def _wide_core(folder, family):
    """Its products take two multiplier blocks."""
    layer, x = _layer(12, 3, 300, U8, S16, name="wide")
    return _core(folder, "wide", replace(layer, mult=layer.mult * 100, shift=16), x, family=family)


def _int8_core(folder, family):
    case = Case(4, 0, 2, S16, shift=12, encoding="int8")
    made = make_chain(5, 7, U8, case)
    layer = replace(made.network.layers[0], name="plain")
    return _core(folder, "plain", layer, made.network.input, make_layer_core, family=family)


EXPORTS = {
    "pulse core": _pulse_core,
    "narrow core": _narrow_core,
    "wide core": _wide_core,
    "8-bit core": _int8_core,
    "chain": _chain,
    "graph with a window core": _graph,
    "graph with an average": partial(_graph, mean=True),
}
SCRIPTS = [("ice40", ""), ("ice40", " -dsp"), ("ecp5", ""), ("ecp5", " -nodsp")]
SMALL = ("pulse core", "8-bit core")
LARGE = [("wide core", "chain"), ("graph with a window core",)]
# Multipliers in logic cells take longest to synthesize: those of 8-bit weights are slow tests.
WITH_BLOCKS = [("ice40", " -dsp"), ("ecp5", "")]
NARROW = ("narrow core",)
QUICK = [(*script, SMALL if script in WITH_BLOCKS else NARROW) for script in SCRIPTS]
SLOW = [(*script, SMALL) for script in SCRIPTS if script not in WITH_BLOCKS]
SLOW += [(*script, names) for script in SCRIPTS for names in LARGE]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Puts a copy of an export, by its name and device, into a folder; each is made once."""
    made = {}

    def copy(name, device, folder):
        if (name, device) not in made:
            place = tmp_path_factory.mktemp("exported") / "e"
            made[name, device] = EXPORTS[name](place, device)
        shutil.copytree(made[name, device].folder, folder)
        return replace(made[name, device], folder=folder)

    return copy


@pytest.mark.parametrize(
    ("family", "flags", "names"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
)
def test_plain_yosys_scripts_synthesize_every_core_and_its_netlist_passes(
    tmp_path, exported, family, flags, names
):
    """Products of the small core are as wide as those that `synth_ice40 -dsp` once made constants
    of: exactly two registers followed."""
    if not (tools.have_tool("yosys") and tools.have_tool("iverilog")):
        pytest.skip("needs yosys and Icarus Verilog")
    device = "up5k" if family == "ice40" else "ecp5"
    exports = [exported(name, device, tmp_path / f"e{i}") for i, name in enumerate(names)]
    for e in exports:
        _all_in(tmp_path, e)
    (tmp_path / "together.v").write_text(_together(exports))
    sources = " ".join([*(f"{e.folder.name}_{e.top}.v" for e in exports), ROM_FILE])
    script = f"read_verilog together.v {sources}\nsynth_{family} -top together{flags}\n"
    (tmp_path / "run.ys").write_text(f"{script}write_verilog -noattr out.v\n")
    said = []
    tools.run("yosys", ["-q", "-s", "run.ys"], folder=tmp_path, on_line=said.append)
    assert not [line for line in said if "conflict" in line]
    for e in exports:
        (e.folder / "cells.v").write_text(primitives(family))
        (e.folder / "alone.v").write_text(_alone(e, exports))
        shutil.copy(tmp_path / "out.v", e.folder)
        for file in tmp_path.glob("*.hex"):
            shutil.copy(file, e.folder)
        # At full rate, and of the large ones with pauses too: netlists are slow to simulate.
        only = -1 if e.top == "accelerator" else 3 if "wide core" in names else 1
        lines = _run(e.folder, "tb.v", "alone.v", "out.v", "cells.v", only=only)
        assert any(line.startswith("PASS: ") for line in lines), (e.top, lines)
    netlist = (tmp_path / "out.v").read_text()
    found = re.search("^ *(SB_MAC16|MULT18X18D) ", netlist, re.M)
    assert bool(found) == ((family, flags) in WITH_BLOCKS)


def _together(exports):
    """A design with all of them side by side, each with streams of its own: one synthesis."""
    ports, body = ["input clk, rst"], []
    for e in exports:
        ports += [f"input {e.top}_v, {e.top}_or, output {e.top}_r, {e.top}_ov"]
        ports += [f"input [{e.input_bits - 1}:0] {e.top}_p"]
        ports += [f"output [{e.output_bits - 1}:0] {e.top}_op"]
        body += [
            f"{e.top} {e.top}_(.clk(clk), .rst(rst), .i__valid({e.top}_v), "
            f".i__ready({e.top}_r), .i__payload({e.top}_p), .o__valid({e.top}_ov), "
            f".o__ready({e.top}_or), .o__payload({e.top}_op));"
        ]
    return f"module together({', '.join(ports)});\n" + "\n".join(body) + "\nendmodule\n"


def _alone(e, exports):
    """A module called as one of them was, which is that part of the design's netlist."""
    idle = "".join(f", .{o.top}_v(1'b0), .{o.top}_or(1'b0)" for o in exports if o is not e)
    return (
        f"module {e.top}(input clk, rst, i__valid, o__ready, output i__ready, o__valid,\n"
        f"  input [{e.input_bits - 1}:0] i__payload, "
        f"output [{e.output_bits - 1}:0] o__payload);\n"
        f"  together all(.clk(clk), .rst(rst), .{e.top}_v(i__valid), .{e.top}_r(i__ready), "
        f".{e.top}_p(i__payload), .{e.top}_ov(o__valid), .{e.top}_or(o__ready), "
        f".{e.top}_op(o__payload){idle});\nendmodule\n"
    )


@pytest.mark.parametrize("family", ["up5k", pytest.param("hx8k", marks=pytest.mark.slow), "ecp5"])
def test_no_product_of_exported_verilog_may_leave_its_register(tmp_path, exported, family):
    """Each product, also of poolings and joins, goes into one register that is kept."""
    products = 0
    for i, name in enumerate(("wide core", "8-bit core", "graph with an average")):
        e = exported(name, family, tmp_path / f"e{i}")
        for module in (e.folder / f"{e.top}.v").read_text().split("\nmodule ")[1:]:
            found = set(re.findall(r"assign (\w+) = .* \* ", module))
            kept = re.findall(r"\(\* keep = 32'd1 \*\)\n +reg [^;=]*?(\w+)(?: =.*)?;", module)
            taken = {wire for name in kept for wire in re.findall(rf"{name} <= (\w+);", module)}
            assert found <= taken, module
            products += len(found)
    assert products >= 5 if family != "hx8k" else products


def _all_in(folder, e):
    """What Yosys reads beside its script: Verilog and memory files."""
    shutil.copy(e.folder / ROM_FILE, folder)
    shutil.copy(e.folder / f"{e.top}.v", folder / f"{e.folder.name}_{e.top}.v")
    for file in set(e.folder.glob("*.hex")) - {e.folder / "input.hex", e.folder / "expected.hex"}:
        shutil.copy(file, folder)


def _run(folder, *sources, only=-1):
    options = ["-g2012", "-DNO_ICE40_DEFAULT_ASSIGNMENTS", "-DNO_INCLUDES", "-s", "tb", "-o", "t"]
    tools.run("iverilog", [*options, *sources], folder=folder)
    lines = []
    tools.run("vvp", ["t", f"+only={only}"], folder=folder, on_line=lines.append)
    return lines


_RESET_TB = """
module tb;
  reg clk = 0, rst = 1;
  reg [{input_top}:0] stimulus [0:{inputs} - 1];
  reg [{output_top}:0] expected [0:{results} - 1];
  wire i_ready, o_valid;
  wire [{output_top}:0] o_payload;
  integer cycle, at = 0, got = 0, taken_in_reset = 0, wrong = 0;
  {top} dut(
    .clk(clk), .rst(rst), .i__valid(at < {inputs}), .i__ready(i_ready),
    .i__payload(stimulus[at < {inputs} ? at : 0]),
    .o__valid(o_valid), .o__ready(1'b1), .o__payload(o_payload)
  );
  // A source that knows nothing of the reset: what was taken is never offered again.
  always @(posedge clk) begin
    if (rst && i_ready !== 0) taken_in_reset = taken_in_reset + 1;
    if (at < {inputs} && i_ready) at <= at + 1;
    if (!rst && o_valid) begin
      if (o_payload !== expected[got]) wrong = wrong + 1;
      got = got + 1;
    end
  end
  initial begin
    $readmemh("input.hex", stimulus);
    $readmemh("expected.hex", expected);
    repeat (2) begin
      #1 rst = 1; at = 0;
      repeat (5) #5 clk = !clk;
      rst = 0; got = 0;
      for (cycle = 0; cycle < 5000 && got < {results}; cycle = cycle + 1) begin
        #5 clk = 1; #5 clk = 0;
      end
      if (got != {results}) wrong = wrong + 1;
      // The next reset comes while the core has room.
      repeat (60) #5 clk = !clk;
    end
    $display("%0d taken in reset, %0d wrong", taken_in_reset, wrong);
    $finish;
  end
endmodule
"""


@pytest.mark.parametrize("name", ["pulse core", "8-bit core", "chain", "graph with an average"])
def test_nothing_is_taken_in_reset(tmp_path, exported, name):
    if not tools.have_tool("iverilog"):
        pytest.skip("needs Icarus Verilog")
    e = exported(name, "ecp5", tmp_path / "e")
    bench = _RESET_TB.format(
        top=e.top,
        input_top=e.input_bits - 1,
        output_top=e.output_bits - 1,
        inputs=e.columns * e.frames,
        results=e.rows * e.frames,
    )
    (e.folder / "tb.v").write_text(bench)
    lines = _run(e.folder, "tb.v", f"{e.top}.v", ROM_FILE)
    assert "0 taken in reset, 0 wrong" in lines


def test_weights_are_in_the_memory_files_only(monkeypatch):
    """So yosys writes the Verilog of both once, and again where yosys is another."""
    layer, x = _layer(16, 6, 10, out=S16)
    turned = replace(layer, y=layer.y[::-1], mult=layer.mult[::-1], bias=layer.bias[::-1])
    specs, images = zip(*(make_core(each, x, 4) for each in (layer, turned)), strict=True)
    assert specs[0] == specs[1]
    assert images[0].codes != images[1].codes
    calls, ran = [], tools.run
    monkeypatch.setattr(tools, "run", lambda *a, **k: (calls.append(a[0]), ran(*a, **k)))
    files = export_layer(specs[0], images[0], "of_these_weights")
    assert files == export_layer(specs[1], images[1], "of_these_weights")
    assert calls == ["yosys"]
    other = replace(tools.find_tool("yosys"), version="0.1")
    monkeypatch.setattr(tools, "find_tool", lambda name: other)
    assert files == export_layer(specs[0], images[0], "of_these_weights")
    assert calls == ["yosys"] * 2


def test_garbage_is_looked_for_seldom_while_a_circuit_is_made_and_as_before_after_it(monkeypatch):
    layer, x = _layer(8, 2, 4)
    before, seen, made = gc.get_threshold(), [], rtlil.convert

    def convert(*args, **options):
        seen.append(gc.get_threshold())
        made(*args, **options)
        raise ToolError("no text")

    monkeypatch.setattr(rtlil, "convert", convert)
    with pytest.raises(ToolError):
        export_layer(*make_core(layer, x, 2))
    assert seen[0] > (50_000, 0, 0)
    assert gc.get_threshold() == before


def test_the_text_is_plain_and_says_nothing_of_this_machine():
    layer, x = _layer(16, 6, 10)
    spec, image = make_core(layer, x, 4)
    files = export_accelerator(chain_graph([spec]), [image], "digits")
    assert set(files) == {"digits.v", ROM_FILE}
    text = files["digits.v"]
    assert re.search(r"^module digits\(", text, re.MULTILINE)
    assert "pvq_rom" in text
    for word in ("\\", "$auto", "src =", "/home", "Yosys", ".py", "initial begin"):
        assert word not in text
    assert files == export_accelerator(chain_graph([spec]), [image], "digits")


def test_the_text_does_not_depend_on_the_hash_seed(tmp_path):
    code = (
        "import sys; sys.path += ['tests/gateware', 'tests/support']\n"
        "from test_export import _layer, make_core, export_layer\n"
        "layer, x = _layer(16, 6, 10)\n"
        "sys.stdout.write(export_layer(*make_core(layer, x, 4))['fc_core.v'])\n"
    )
    root = Path(__file__).parents[2]
    seed = "0" if os.environ.get("PYTHONHASHSEED") != "0" else "1234"  # another than here
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        check=True,
        text=True,
        timeout=600,
    )
    assert "endmodule" in done.stdout
    layer, x = _layer(16, 6, 10)
    assert done.stdout == export_layer(*make_core(layer, x, 4))["fc_core.v"]


@pytest.mark.parametrize("name", ["1st", "a b", "a;", "pvq_rom", "", "x" * 200, "ä"])
def test_module_names_are_checked(name):
    with pytest.raises(InputError, match=r"^Module name must be letters, digits and underscores"):
        export_verilog(None, name)


@pytest.mark.parametrize("name", ["reg", "module", "final", "logic"])
def test_modules_are_not_called_as_words_of_verilog(name):
    with pytest.raises(InputError, match=rf"^Module name must not be a word of Verilog: '{name}'$"):
        export_verilog(None, name)


def test_vectors_must_suit_the_core():
    layer, x = _layer(16, 6, 10)
    spec, image, vectors, expected = _package(layer, x, 4)
    with pytest.raises(InputError, match=r"^Vectors must be \(frames, 16\), not \(8, 15\)"):
        layer_package(spec, image, vectors[:, :15], expected)
    with pytest.raises(InputError, match=r"^Vectors must be within 0\.\.255"):
        layer_package(spec, image, vectors - 1, expected)
    with pytest.raises(InputError, match=r"^Results must be \(8, 6\)"):
        layer_package(spec, image, vectors, expected[:4])
    expected[3, 2] ^= 1
    with pytest.raises(CheckError, match=r"^The image must compute the expected .* 1 differ$"):
        layer_package(spec, image, vectors, expected)
