"""``pvq-hw demo`` from end to end: the digits are placed and routed, once."""

import gzip
import json
import os
import sys

import pytest
from cli_tools import MODEL, run, snapshot, twin

import pvq_hw
import sim.prove
from pvq_hw.output.build_record import write_build
from pvq_hw.tools import find

pytestmark = pytest.mark.build


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """(folder, JSON document) of the demo."""
    out = tmp_path_factory.mktemp("demo") / "demo-out"
    ran = run("demo", "-o", out, "--json")
    assert ran.code == 0, ran.err
    for step in ("Import the model", "Quantize to the pyramid", "Simulate 500 frames (compiled)",
                 "Synthesis, place and route, bitstream"):  # fmt: skip
        assert f"==> {step}\n" in ran.err
    return out, ran.json


def test_the_demo_shows_what_it_promises(demo):
    out, document = demo
    accuracy = document["compile"]["accuracy"]
    assert accuracy["frames"] == 500
    assert abs(accuracy["float"] - accuracy["pvq"]) <= 1.0 + 1e-9
    simulated = document["simulate"]
    assert (simulated["frames"], simulated["mismatches"]) == (500, 0)
    assert simulated["outputs_compared"] == 500 * 42
    assert simulated["accuracy"]["simulated"] == pytest.approx(accuracy["pvq"])
    for key in ("interval_cycles", "latency_cycles"):
        assert simulated[key] == document["compile"][key]
    assert document["verify"] == {"ok": True, "findings": []}
    assert document["out"] == str(out)
    assert sum(document["seconds"].values()) > 0


def test_the_build_meets_its_clock_and_fits(demo):
    out, document = demo
    built, plan = document["build"], json.loads((out / "plan.json").read_text())
    assert built["fmax_mhz"] >= built["clock_mhz"]
    assert built["clock_mhz"] == pytest.approx(plan["clock_mhz"])
    rate = built["clock_mhz"] * 1e6 / document["compile"]["interval_cycles"]
    assert built["inferences_per_second"] == pytest.approx(rate)
    assert 0 < built["inferences_per_second_over_link"] < rate
    for name in ("ICESTORM_LC", "ICESTORM_RAM", "ICESTORM_DSP"):
        part = built["utilization"][name]
        assert 0 < part["used"] <= part["available"]
    assert built["bitstream"] == "top.bin"
    # What was planned is what was built, as far as nextpnr counts it.
    used = {name: part["used"] for name, part in built["utilization"].items()}
    assert used["ICESTORM_DSP"] == document["compile"]["resources"]["dsps"]
    assert (out / "build" / "top.bin").read_bytes()[:4] == b"\xff\x00\x00\xff"


def test_the_outputs_report_holds_every_part(demo):
    out, document = demo
    report = json.loads((out / "report.json").read_text())
    for part in ("compile", "simulate", "build"):
        told = {key: v for key, v in document[part].items() if key != "model_file"}
        assert report[part] == told
    page = (out / "report.html").read_text()
    for text in ("digits_mlp_64_32_10 on icebreaker", "0 mismatches in 21,000 outputs",
                 f"{document['build']['fmax_mhz']:.1f}", "ICESTORM_RAM"):  # fmt: skip
        assert text in page
    again = run("report", out, "--json").json
    assert again == {part: report[part] for part in ("compile", "simulate", "build")}


def test_a_built_output_verifies(demo):
    out, _ = demo
    document = run("verify", out, "--model", MODEL, "--json").json
    assert (document["ok"], document["findings"]) == (True, [])
    assert "the bitstream beyond its hash: give --bitstream" in document["unchecked"]
    assert pvq_hw.load(out).require("build/top.bin").is_file()


def test_the_netlist_is_the_design(demo, tmp_path, monkeypatch):
    """Of all that is proven only that: the rest has tests of its own."""
    monkeypatch.setattr(sim.prove, "prove_unit", lambda *args: [])
    out = twin(demo[0], tmp_path / "out")
    ran = run("prove", out)
    assert "proven for all inputs: netlist (whole)" in ran.out, ran.out
    assert "proof.json" not in run("verify", out).out
    # Another build, and one that is none.
    packed = out / "build" / "netlist.json.gz"
    packed.write_bytes(gzip.compress(b"{}"))
    write_build(out / "build", json.loads((out / "build" / "build.json").read_text()))
    assert "proof.json: is a proof of another build; run pvq-hw prove" in run("verify", out).out
    ran = run("prove", out)
    assert "netlist.json.gz must hold a netlist; run pvq-hw build again" in ran.out, ran.out


def test_the_bitstream_holds_the_codes_and_nothing_else(demo, tmp_path):
    """One bit of a code changed in the bitstream is found, though every hash is right."""
    document = run("verify", demo[0], "--bitstream", "--json").json
    assert document["ok"], document["findings"]
    assert document["bitstream"] == "6,305 bits of codes, parameters and tables in block RAM"
    out = twin(demo[0], tmp_path / "out")
    build = out / "build"
    heading = json.loads((build / "memories.json").read_text())["memories"]
    heading = next(place for cell, place in heading.items() if "logits_codes_0" in cell)
    lines = (build / "top.asc").read_text().split("\n")
    at = lines.index(heading) + 1
    # The lowest bit of the first 16: bit 0 of word 0.
    lines[at] = f"{int(lines[at], 16) ^ 1:064x}"
    (build / "top.asc").write_text("\n".join(lines))
    find.run("icepack", ["top.asc", "top.bin"], folder=build)
    report = json.loads((build / "build.json").read_text())
    write_build(build, report)
    ran = run("verify", out, "--bitstream")
    assert ran.code == 1
    assert ran.out.startswith(
        "build/top.bin (layer 'logits' row 0 logits_codes word 0 bit 0): is "
    ), ran.out
    assert "1 finding" not in ran.out
    # The bitstream alone, from before the change: two files that do not belong together.
    (build / "top.bin").write_bytes((demo[0] / "build" / "top.bin").read_bytes())
    write_build(build, report)
    ran = run("verify", out, "--bitstream")
    assert ran.out.startswith("build/top.bin: is not what top.asc beside it packs to\n")
    (build / "top.bin").write_bytes(b"no bitstream")
    ran = run("verify", out, "--bitstream")
    assert "build/top.bin: can't be unpacked: it is damaged\n" in ran.out


def test_the_bitstream_reaches_the_loader(demo, tmp_path, monkeypatch):
    out, _ = demo
    before = snapshot(out)
    loader = tmp_path / "iceprog"
    loader.write_text(
        f"#!{sys.executable}\nimport shutil, sys\nshutil.copy(sys.argv[1], {str(tmp_path)!r})\n"
    )
    loader.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run("program", out).code == 0
    assert (tmp_path / "top.bin").read_bytes() == (out / "build" / "top.bin").read_bytes()
    assert snapshot(out) == before


def test_the_demo_speaks_to_people_and_takes_the_old_bitstream_away(demo, tmp_path, monkeypatch):
    """A bitstream never lies beside files that it was not made from."""
    out = twin(demo[0], tmp_path / "demo-out")
    monkeypatch.chdir(tmp_path)
    ran = run("demo", "--no-build")
    assert ran.code == 0, ran.err
    assert not (out / "build").exists()
    assert set(json.loads((out / "report.json").read_text())) == {
        "compile", "format", "pvq_hw_version", "simulate",
    }  # fmt: skip
    for text in ("A digit, and what the networks say of it:", "float says 4", "PVQ says   4",
                 "Float and PVQ disagree on", "0 mismatches in 21,000 outputs of all layers",
                 "as planned", "verify: 0 findings", "in all\n",
                 "All of it is in demo-out; look at demo-out/report.html."):  # fmt: skip
        assert text in ran.out
    assert "pvq-hw program" not in ran.out
    assert os.listdir(tmp_path) == ["demo-out"]
