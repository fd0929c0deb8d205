"""Exported cores in the flows that they are for, as far as these run here."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from cli_tools import MODEL, refused, run, twin

import pvq_hw
from gateware.export.modules import FOLDER
from pvq_hw.choices import CORE_FLOWS
from pvq_hw.errors import InputError
from pvq_hw.reserved import RESERVED
from pvq_hw.tools import find as tools
from pvq_hw.tools.find import find_tool
from sim.backends.netlist import primitives

BIN = Path(sys.executable).parent
MADE = [("fusesoc", "axis"), ("edalize", "stream"), ("litex", "stream"), ("litex", "axis"),
        ("litex", "csr"), ("apio", "axis"), ("vivado", "axis"), ("fusesoc", "csr")]  # fmt: skip
FOLDERS = {"stream": ("edalize", "stream"), "axis": ("apio", "axis"), "csr": ("fusesoc", "csr")}


@pytest.fixture(scope="module")
def folders(digits, tmp_path_factory):
    """The digits for every flow, by flow and interface."""
    place, made = tmp_path_factory.mktemp("flows"), {}
    accelerator = pvq_hw.load(digits.out)
    for flow, interface in MADE:
        folder = place / f"{flow}-{interface}"
        files = accelerator.export(folder, flow=flow, interface=interface, name="digits")
        assert sorted(p.name for p in folder.iterdir()) == sorted([*files, "pvq-hw-export.json"])
        made[flow, interface] = folder
    assert {flow for flow, _ in made} == set(CORE_FLOWS)
    return made


def call(folder, *args, **env):
    path = os.pathsep.join((str(BIN), os.environ["PATH"]))
    return subprocess.run(
        [str(a) for a in args], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PATH": path} | env,
    )  # fmt: skip


def simulate(folder, place, *plus):
    sources = sorted(folder.glob("*.v"))
    ran = call(
        folder, "iverilog", "-g2005", "-Wall", "-Wno-timescale", "-o", place / "tb", *sources
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return call(folder, "vvp", place / "tb", *plus).stdout.splitlines()[-1]


@pytest.mark.parametrize("interface", ["stream", "axis", "csr"])
def test_the_testbench_passes_and_finds_a_wrong_result(folders, tmp_path, interface):
    folder = twin(folders[FOLDERS[interface]], tmp_path / "copy")
    assert simulate(folder, tmp_path) == "PASS: 80 results"
    assert simulate(folder, tmp_path, "+seed=5") == "PASS: 80 results"
    results = folder / "digits_expected.hex"
    first, rest = results.read_text().split("\n", 1)
    results.write_text(f"{int(first, 16) ^ 1:04x}\n{rest}")
    assert simulate(folder, tmp_path) == "FAIL: 1 of 80 results differ"


def _broken(shipped, place, name, old, new):
    """A copy of what was shipped, with something else in one of its files."""
    folder = twin(shipped, place / "copy")
    file = folder / name
    text = file.read_text()
    assert text.count(old) == 1, text
    file.write_text(text.replace(old, new))
    return folder


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("m_axis_tlast = given == GIVEN - 1", "m_axis_tlast = given == GIVEN - 2"),
        ("s_axis_tlast != last", "s_axis_tlast == last"),
        (".rst(!aresetn)", ".rst(aresetn)"),
        ("m_axis_tvalid = offered & aresetn", "m_axis_tvalid = 1'b1"),
    ],
)
def test_a_broken_shell_is_caught(folders, tmp_path, old, new):
    folder = _broken(folders["apio", "axis"], tmp_path, "digits_axis.v", old, new)
    assert simulate(folder, tmp_path).startswith("FAIL")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0: r_data <= 32'h31515650", "0: r_data <= 32'h31515651"),
        ("6: r_data <= frames_given;", "6: r_data <= frames_taken + 1;"),
    ],
)
def test_the_testbench_reads_registers_over_the_bus(folders, tmp_path, old, new):
    folder = _broken(folders["fusesoc", "csr"], tmp_path, "digits_csr.v", old, new)
    assert simulate(folder, tmp_path) == "FAIL: 1 of 80 results differ"


@pytest.mark.parametrize("interface", ["stream", "axis", "csr"])
def test_verilator_finds_nothing_beyond_the_waivers(folders, interface):
    folder = folders[FOLDERS[interface]]
    tool = find_tool("verilator")
    tops = {"stream": [""], "axis": ["_axis"], "csr": ["_axilite", "_wishbone"]}[interface]
    sources = ["digits.vlt", *(p.name for p in folder.glob("*.v") if p.name != "digits_tb.v")]
    for top in (f"digits{end}" for end in tops):
        used = [
            s for s in sources if s not in {"digits_axilite.v", "digits_wishbone.v"} - {f"{top}.v"}
        ]
        ran = call(folder, *tool.command, "--lint-only", "-Wall", "--top-module", top, *used)
        assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("interface", ["stream", "axis", "csr"])
def test_every_module_has_a_file_of_its_name(folders, interface):
    files = sorted(folders[FOLDERS[interface]].glob("*.v"))
    assert len(files) > 80
    for file in files:
        assert re.findall(r"^module (\w+)", file.read_text(), re.M) == [file.stem]


def test_no_layer_is_called_as_what_is_beside_it(folders):
    core, whole = (
        {p.stem.removeprefix("digits_") for p in folders[FOLDERS[interface]].glob("*.v")}
        for interface in ("stream", "csr")
    )
    assert whole - core == {"axis", "csr", "axilite", "wishbone"}
    assert {*(whole - core), "rom", "tb", FOLDER.lower()} <= RESERVED
    assert len({name.lower() for name in core}) == len(core)


@pytest.mark.parametrize("interface", ["stream", "axis", "csr"])
def test_memory_files_are_found_where_the_parameter_says(folders, tmp_path, interface):
    folder = folders[FOLDERS[interface]]
    told = f'-Pdigits_tb.MEMORY_FOLDER="{folder}/"'
    sources = sorted(folder.glob("*.v"))
    ran = call(
        tmp_path, "iverilog", "-g2005", "-s", "digits_tb", told, "-o", tmp_path / "tb", *sources
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    ran = call(tmp_path, "vvp", tmp_path / "tb")
    assert (ran.stdout.splitlines()[-1], ran.stderr) == ("PASS: 80 results", "")


def test_yosys_finds_nothing_wrong_and_every_memory(folders, tmp_path):
    """A memory file that isn't where it looks is an error of Yosys."""
    folder = twin(folders["fusesoc", "csr"], tmp_path / "memories")
    sources = [f"memories/{p.name}" for p in folder.glob("*.v") if p.name != "digits_tb.v"]
    script = f"""\
        read_verilog -defer {" ".join(sources)}
        chparam -set MEMORY_FOLDER "memories/" digits_wishbone
        hierarchy -check -top digits_wishbone
        proc
        check -assert
    """
    (tmp_path / "check.ys").write_text(script)
    tools.run("yosys", ["-q", "-s", "check.ys"], folder=tmp_path)


@pytest.mark.parametrize(("interface", "top"), [("axis", "digits_axis"), ("csr", "digits_axilite")])
def test_fusesoc_runs_the_core(folders, tmp_path, interface, top):
    folder = folders["fusesoc", interface]
    assert call(tmp_path, "fusesoc", "library", "add", "digits", folder).returncode == 0
    ran = call(tmp_path, "fusesoc", "run", "--target", "sim", "pvq-hw:accelerators:digits")
    assert "PASS: 80 results" in ran.stdout + ran.stderr, ran.stderr
    document = yaml.safe_load((folder / "digits.core").read_text().split("\n", 1)[1])
    assert document["targets"]["default"]["toplevel"] == top


def test_the_readme_says_what_integers_stand_for(folders, digits):
    network = pvq_hw.load(digits.out).network
    text = (folders["apio", "axis"] / "README.txt").read_text()
    assert f"\n1 of the input stands for {network.input.scale:.9g}.\n" in text
    assert f"\n1 of the output stands for {network.output.scale:.9g}.\n" in text


def test_edalize_simulates_and_synthesizes_the_core(folders, tmp_path):
    script = folders["edalize", "stream"] / "digits_edalize.py"
    ran = call(tmp_path, sys.executable, script, "sim", tmp_path / "work")
    assert "PASS: 80 results" in ran.stdout + ran.stderr, ran.stderr


LITEX = """
import sys
sys.path.insert(0, sys.argv[1])
from litex.build.generic_platform import Pins
from litex.build.lattice import LatticePlatform
from litex.soc.integration.soc_core import SoCMini
from migen import ClockDomain
from digits_litex import Accelerator, MEMORIES

platform = LatticePlatform("ice40-up5k-sg48", [
    ("clk", 0, Pins("35")), ("d", 0, Pins(" ".join(f"d{i}" for i in range(8)))),
    ("q", 0, Pins(" ".join(f"q{i}" for i in range(16)))), ("s", 0, Pins("s0 s1 s2 s3")),
], toolchain="icestorm")
soc = SoCMini(platform, int(12e6), ident="test")
soc.cd_sys = ClockDomain()
soc.comb += soc.cd_sys.clk.eq(platform.request("clk"))
soc.submodules.accelerator = core = Accelerator(platform, "memories/")
pins = platform.request("s")
soc.comb += [core.sink.data.eq(platform.request("d")), core.sink.valid.eq(pins[0]),
             pins[1].eq(core.sink.ready), platform.request("q").eq(core.source.data),
             pins[2].eq(core.source.valid), core.source.ready.eq(pins[3])]
soc.finalize()
text = str(platform.get_verilog(soc))
Accelerator.copy_memories(sys.argv[2])
print("INSTANCE", [line.strip() for line in text.splitlines()
                   if line.strip().startswith(("digits", ".MEMORY_FOLDER"))])
print("CSR", sorted(name for name in soc.csr.locs))
print("SOURCES", sorted(source[0].rpartition("/")[2] for source in platform.sources))
"""


@pytest.mark.parametrize("interface", ["stream", "axis", "csr"])
def test_litex_elaborates_the_module(folders, tmp_path, interface):
    folder = folders["litex", interface]
    (tmp_path / "soc.py").write_text(LITEX)
    ran = call(tmp_path, sys.executable, "soc.py", folder, tmp_path, PYTHONWARNINGS="ignore")
    assert ran.returncode == 0, ran.stderr
    top = {"stream": "digits", "axis": "digits_axis", "csr": "digits_wishbone"}[interface]
    assert f"INSTANCE ['{top} #(', '.MEMORY_FOLDER" in ran.stdout
    assert "'accelerator'" in ran.stdout
    assert "digits_rom.v" in ran.stdout
    assert (tmp_path / "digits_h_codes.hex").exists()


def test_a_core_of_wires_has_no_memory_contents(tmp_path):
    rng = np.random.default_rng(0)
    layers = [(rng.laplace(size=(3, 8)), rng.normal(size=3), None)]
    made = pvq_hw.compile(
        layers, tmp_path / "out", target="ulx3s-25f", ratio=2, quantizer="plain",
        calibrate=rng.uniform(0, 1, (20, 8)), engine="unrolled", digit=0, gain_digits=2,
    )  # fmt: skip
    folder = tmp_path / "core"
    made.export(folder, flow="litex", name="digits")
    module = ast.parse((folder / "digits_litex.py").read_text())
    assert "\nMEMORIES = ()\n" in ast.unparse(module)
    assert FOLDER not in ast.unparse(module)
    assert simulate(folder, tmp_path) == "PASS: 24 results"


def test_what_is_never_run_is_well_formed_and_says_so(folders):
    folder = folders["apio", "axis"]
    text = (folder / "apio.ini").read_text()
    parsed = configparser.ConfigParser(comment_prefixes=(";",))
    parsed.read_string(text)
    assert parsed["env:default"]["top-module"] == "digits_axis"
    assert (folder / parsed["env:default"]["default-testbench"]).exists()
    script = folders["vivado", "axis"] / "digits_package.tcl"
    lines = script.read_text()
    for opened, closed in ("[]", "{}"):
        assert lines.count(opened) == lines.count(closed)
    named = set(re.findall(r"\$here (\S+?)\]", lines)) - {"digits_ip"}
    assert named == {p.name for p in script.parent.iterdir() if p.suffix in (".v", ".hex")} - {
        "digits_tb.v", "digits_input.hex", "digits_expected.hex"}  # fmt: skip
    for never in (text, lines):
        assert "never run by the project's tests" in never


@pytest.mark.parametrize(
    ("target", "blocks"),
    [("icebreaker", ("SB_RAM40_4K", "SB_MAC16")), ("ulx3s-25f", ("DP16KD", "MULT18X18D"))],
)
def test_the_devices_blocks_compute_the_same(digits, tmp_path, target, blocks):
    """The testbench that is shipped, with models of the blocks."""
    out, folder = tmp_path / "out", tmp_path / "device"
    asked = ("--target", target, "--quantizer", "plain", "--ratio", 2)
    assert run("compile", MODEL, *asked, "--calibrate", digits.train, "-o", out).code == 0
    command = ("export", out, "--flow", "device", "-o", folder)
    refused(tmp_path, "The device's blocks come with the plain stream: leave out axis",
            *command, "--interface", "axis")  # fmt: skip
    assert run(*command).code == 0
    family = pvq_hw.load(out).plan.target.family
    more = {"carry_chains.py"} if family == "ecp5" else set()
    assert {p.name for p in folder.iterdir()} == {
        "README.txt", "accelerator.v", "pvq-hw-export.json", *more
    }  # fmt: skip
    readme = (folder / "README.txt").read_text()
    assert f"synth_{family} -top TOP" in readme
    assert ("python3 carry_chains.py TOP.json" in readme) == bool(more)
    text = (folder / "accelerator.v").read_text()
    assert all(block in text for block in blocks)
    shutil.rmtree(out / "verilog")
    (out / "verilog").mkdir()
    shutil.copy(folder / "accelerator.v", out / "verilog")
    (out / "verilog" / "cells.v").write_text(primitives(family))
    line = (out / "testbench" / "README.txt").read_text().splitlines()[0].partition(": ")[2]
    defines = "-DNO_ICE40_DEFAULT_ASSIGNMENTS -DNO_INCLUDES"
    line = line.replace("iverilog", f"iverilog -g2012 {defines}", 1)
    line = line.replace("/tmp/tb", str(tmp_path / "tb"))
    ran = subprocess.run(
        f"{line} +only=4", shell=True, cwd=out, capture_output=True, text=True, check=True
    )
    last = ran.stdout.splitlines()[-1]
    assert re.fullmatch(r"PASS: \d+ results compared, 0 mismatches", last), last


def test_two_cores_share_no_module_and_no_file(folders, digits, tmp_path):
    pvq_hw.load(digits.out).export(tmp_path, flow="apio", interface="axis", name="other")
    names = []
    for folder in (tmp_path, folders["apio", "axis"]):
        text = "".join(p.read_text() for p in folder.glob("*.v"))
        names.append(set(re.findall(r"^module (\w+)", text, re.M)))
        names[-1] |= {p.name for p in folder.iterdir()} - {
            "README.txt", "pvq-hw-export.json", "apio.ini"}  # fmt: skip
    assert len(names[0]) > 10
    assert not names[0] & names[1]


def test_the_verb_replaces_its_own_files_only(digits, tmp_path):
    args = ("export", digits.out, "--flow", "vivado", "-o", tmp_path / "core", "--name", "n")
    assert run(*args, "--interface", "axis").code == 0
    assert run(*args).code == 0
    assert not (tmp_path / "core" / "n_axis.v").exists()
    (tmp_path / "else.v").write_text("mine")
    (tmp_path / "core" / "n.v").rename(tmp_path / "n.v")
    (tmp_path / "core" / "n.v").symlink_to(tmp_path / "else.v")
    refused(tmp_path, "holds 'n.v', which is no file; move it away", *args)
    (tmp_path / "core" / "n.v").unlink()
    (tmp_path / "core" / "mine.v").write_text("")
    refused(tmp_path, "holds 'mine.v', which no export wrote; move it away", *args)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    refused(tmp_path, "must be empty, or an earlier export", *args[:-3], tmp_path / "other")
    refused(tmp_path, "Name must be a small letter", *args[:-1], "Top level")
    with pytest.raises(InputError, match="Flow must be one of fusesoc, "):
        pvq_hw.load(digits.out).export(tmp_path / "x", flow="quartus")
    with pytest.raises(InputError, match="Interface must be one of stream, axis, csr"):
        pvq_hw.load(digits.out).export(tmp_path / "x", flow="apio", interface="avalon")
