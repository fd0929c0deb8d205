"""The exported Verilog and the layer package, on Icarus Verilog alone."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateware.export import ROM_FILE, export_accelerator, export_layer, export_verilog
from gateware.package import layer_package, package_vectors, write_layer_package
from pvq_hw import tools
from pvq_hw.core import make_core
from pvq_hw.errors import CheckError, InputError
from pvq_hw.layers import Dense, TensorSpec
from pvq_hw.numeric import IntFormat
from sim.netlist import primitives

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
    subprocess.run(["iverilog", "-o", "tb", *sources], cwd=folder, check=True, timeout=60)
    done = subprocess.run(
        ["vvp", "tb", *plusargs], cwd=folder, check=True, timeout=60, capture_output=True, text=True
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
    compared = 3 * len(vectors) * spec.rows // spec.frames
    assert f"PASS: {compared} results compared, 0 mismatches" in out.splitlines()
    assert "PASS" in _simulate(tmp_path, "+seed=11")


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
        # A valid that falls before its transfer; results that never come; one input sent always.
        ("o__valid(o_valid)", "wire v; assign o_valid = v & (cycles % 5 != 0);", "protocol viol"),
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


@pytest.mark.parametrize(
    ("family", "flags"), [("ice40", ""), ("ice40", " -dsp"), ("ecp5", ""), ("ecp5", " -nodsp")]
)
def test_plain_yosys_scripts_synthesize_the_core_and_its_netlist_passes(tmp_path, family, flags):
    if not (tools.have_tool("yosys") and tools.have_tool("iverilog")):
        pytest.skip("needs yosys and Icarus Verilog")
    layer, x = _layer(8, 3, 4, U8, S8)
    options = {"family": "up5k" if family == "ice40" else "ecp5", "params_memory": "logic"}
    write_layer_package(tmp_path, *_package(layer, x, 2, **options))
    script = f"read_verilog fc_core.v {ROM_FILE}\nsynth_{family} -top fc_core{flags}\n"
    (tmp_path / "run.ys").write_text(script + "write_verilog -noattr out.v\n")
    tools.run("yosys", ["-q", "-s", "run.ys"], folder=tmp_path)
    (tmp_path / "cells.v").write_text(primitives(family))
    command = ["-g2012", "-DNO_ICE40_DEFAULT_ASSIGNMENTS", "-DNO_INCLUDES", "-s", "tb", "-o", "t"]
    tools.run("iverilog", [*command, "tb.v", "out.v", "cells.v"], folder=tmp_path)
    lines = []
    tools.run("vvp", ["t"], folder=tmp_path, on_line=lines.append)
    assert any(line.startswith("PASS: 72 results compared") for line in lines), lines


def test_weights_are_in_the_memory_files_only():
    layer, x = _layer(16, 6, 10, out=S16)
    turned = replace(layer, y=layer.y[::-1], mult=layer.mult[::-1], bias=layer.bias[::-1])
    specs, images = zip(*(make_core(each, x, 4) for each in (layer, turned)), strict=True)
    assert specs[0] == specs[1]
    assert images[0].codes != images[1].codes
    assert export_layer(specs[0], images[0]) == export_layer(specs[1], images[1])


def test_the_text_is_plain_and_says_nothing_of_this_machine():
    layer, x = _layer(16, 6, 10)
    spec, image = make_core(layer, x, 4)
    files = export_accelerator([spec], [image], "digits")
    assert set(files) == {"digits.v", ROM_FILE}
    text = files["digits.v"]
    assert re.search(r"^module digits\(", text, re.MULTILINE)
    assert "pvq_rom" in text
    for word in ("\\", "$auto", "src =", "/home", "Yosys", ".py", "initial begin"):
        assert word not in text
    assert files == export_accelerator([spec], [image], "digits")


def test_the_text_does_not_depend_on_the_hash_seed(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_export import _layer, make_core, export_layer\n"
        "layer, x = _layer(16, 6, 10)\n"
        "sys.stdout.write(export_layer(*make_core(layer, x, 4))['fc_core.v'])\n"
    )
    root = Path(__file__).parent.parent
    texts = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        ).stdout
        for seed in ("0", "1234")
    ]
    assert texts[0] == texts[1]
    assert "endmodule" in texts[0]


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
