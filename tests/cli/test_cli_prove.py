"""``pvq-hw prove`` and what verify and the report say of a proof."""

import json
import shutil

import numpy as np
import pytest
from cli_tools import refused, reseal, run
from plan_networks import random_network
from proof_cases import ship_output

import sim.prove
from pvq_hw.errors import InputError
from pvq_hw.network.rule import decided
from pvq_hw.output.accelerator import load
from pvq_hw.output.build_record import write_build
from pvq_hw.output.report import read_report


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    out = tmp_path_factory.mktemp("prove") / "out"
    ship_output(out, random_network()[0], "icebreaker")
    ran = run("prove", out, "--quiet")
    return out, ran


@pytest.fixture
def out(original, tmp_path):
    shutil.copytree(original[0], tmp_path / "out")
    return tmp_path / "out"


def states(document):
    return {(part["part"], part["unit"]): part["state"] for part in document["parts"]}


def test_prove_says_what_is_proven_and_what_is_not(original):
    out, ran = original
    assert ran.code == 0
    assert "proven for all inputs: sums (fc1, fc2)" in ran.out
    assert "proven for all inputs: handshakes (fc1, fc2)" in ran.out
    assert "not proven: bitstream (whole)" in ran.out
    document = json.loads((out / "proof.json").read_text())
    assert document["complete"]
    assert document["manifest_sha256"] == load(out).manifest["manifest_sha256"]
    found = states(document)
    assert found["structure", "whole"] == found["requantizers", "fc2"] == "proven"
    assert {unit for (_, unit), state in found.items() if state == "open"} == {"whole"}


def test_what_is_proven_is_kept_and_what_was_interrupted_goes_on(out, monkeypatch):
    before = (out / "proof.json").read_bytes()
    real = sim.prove.read_units
    monkeypatch.setattr(sim.prove, "read_units", lambda *a: pytest.fail("read again"))
    assert run("prove", out, "--quiet").code == 0
    assert (out / "proof.json").read_bytes() == before

    calls = []

    def stops(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return []

    monkeypatch.setattr(sim.prove, "read_units", real)
    with monkeypatch.context() as patch:
        patch.setattr(sim.prove, "prove_unit", stops)
        assert run("prove", out, "--quiet", "--fresh").code == 130
    assert not json.loads((out / "proof.json").read_text())["complete"]
    assert run("prove", out, "--quiet").code == 0
    assert (out / "proof.json").read_bytes() == before


def test_verify_and_report_say_what_is_proven(out):
    ran = run("verify", out, "--quiet")
    assert ran.code == 0
    assert "proven for all inputs: sums (fc1, fc2)" in ran.out
    assert "the Verilog beyond its hashes" not in ran.out
    assert read_report(out)["prove"]["complete"]
    page = (out / "report.html").read_text()
    assert "proven for all inputs" in page
    assert "not proven" in page


def test_proof_of_other_files_or_changed_by_hand_counts_for_nothing(out):
    text = (out / "proof.json").read_text()
    (out / "proof.json").write_text(text.replace('"open"', '"proven"'))
    ran = run("verify", out, "--quiet")
    assert (ran.code, ran.out.splitlines()[0]) == (
        1,
        "proof.json: is not as pvq-hw prove wrote it; run pvq-hw prove again",
    )
    (out / "proof.json").write_text(text)
    file = next((out / "image").glob("*_bias.hex"))
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:-1], f"{int(lines[-1], 16) ^ 1:0{len(lines[-1])}x}"]) + "\n")
    refused(out, "differs from its hash", "prove", out)
    reseal(out)
    ran = run("verify", out, "--quiet")
    assert ran.code == 1
    assert "proof.json: is a proof of another output; run pvq-hw prove again" in ran.out
    assert "proven for all inputs" not in ran.out
    ran = run("prove", out, "--quiet")
    assert ran.code == 1
    assert "WRONG: codes (fc" in ran.out


def test_a_build_of_another_design_proves_nothing(out, monkeypatch):
    monkeypatch.setattr(sim.prove, "prove_unit", lambda *args: [])
    assert "not proven: netlist (whole): that synthesis keeps" in run("prove", out).out
    (out / "build").mkdir()
    (out / "build" / "top.il").write_text("another")
    (out / "build" / "top.bin").write_bytes(b"bits")
    (out / "build" / "netlist.json.gz").write_bytes(b"{}")
    manifest = load(out).manifest["manifest_sha256"]
    write_build(out / "build", {"bitstream": "top.bin", "manifest_sha256": manifest})
    ran = run("prove", out)
    assert "not proven: netlist (whole): the build is not what this version makes" in ran.out


def test_wrong_verilog_is_found_and_named(out):
    """A leaf takes its activation where it must not."""
    file = out / "verilog" / "accelerator.v"
    text = file.read_text()
    head, name, module = text.partition("module accelerator_fc1_leaf0_0(")
    assert name
    changed = module.replace("= x & {", "= x | {", 1)
    assert changed != module
    file.write_text(head + name + changed)
    reseal(out)
    document = run("prove", out, "--quiet", "--json").json
    found = states(document)
    assert found["leaves", "fc1"] == found["sums", "fc1"] == "wrong"
    assert found["leaves", "fc2"] == "proven"
    assert found["codes", "fc1"] == "proven"


@pytest.mark.parametrize(
    ("decide", "frames", "unit"),
    [("", 2, "fc2_unpacker"),
     pytest.param("smoothed=4,0.5", 1, "decision", marks=pytest.mark.slow)],
)  # fmt: skip
def test_batches_and_averages_over_frames_are_proven(tmp_path, decide, frames, unit):
    network = decided(random_network((6, 4, 3), (4, 4))[0], decide)
    ship_output(tmp_path / "out", network, "icebreaker", frames=frames)
    ran = run("prove", tmp_path / "out", "--quiet")
    found = states(json.loads((tmp_path / "out" / "proof.json").read_text()))
    assert ran.code == 0
    assert {where for (_, where), state in found.items() if state != "proven"} == {"whole"}
    assert found["wiring", "whole"] == "proven"
    for part, units in (
        ("handshakes", f"fc1, fc2, {unit}"), ("sums", "fc1, fc2"), ("values", unit),
    ):  # fmt: skip
        assert f"proven for all inputs: {part} ({units})" in ran.out


@pytest.mark.parametrize("digit", [0, 2])
def test_unrolled_layers_are_proven(tmp_path, digit):
    """With adders of whole sums, and with those that take some bits a cycle."""
    network, _ = random_network((6, 4, 3), (4, 4))
    ship_output(tmp_path / "out", network, "icebreaker", engine="unrolled", digit=digit)
    ran = run("prove", tmp_path / "out", "--quiet")
    found = states(json.loads((tmp_path / "out" / "proof.json").read_text()))
    assert ran.code == 0
    assert {unit for (_, unit), state in found.items() if state != "proven"} == {"whole"}
    for part in ("handshakes", "adders", "requantizers", "sums"):
        assert f"proven for all inputs: {part} (fc1, fc2)" in ran.out


def test_refusals_are_one_line(tmp_path):
    refused(tmp_path, "must exist", "prove", tmp_path / "none")
    with pytest.raises(InputError):
        load(np.str_(tmp_path / "none")).prove()


def test_sums_of_layers_that_share_an_engine_are_proven(tmp_path):
    ship_output(tmp_path / "out", random_network()[0], "icebreaker", engine="shared")
    ran = run("prove", tmp_path / "out")
    assert ran.code == 0, ran.err
    for part in ("handshakes", "codes", "widths", "moves", "requantizers", "sums"):
        assert f"proven for all inputs: {part} (fc" in ran.out
    assert [line.split()[2] for line in ran.out.splitlines() if "not proven: " in line] == [
        "netlist", "bitstream",
    ]  # fmt: skip
