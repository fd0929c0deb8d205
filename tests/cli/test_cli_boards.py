"""`pvq-hw boards`: the table, a board of the user's, a model of the user's, pin files."""

import json

import numpy as np
import pytest
import tomli_w
from cli_tools import ROOT, run

import pvq_hw
from pvq_hw.flow.options import CompileOptions
from pvq_hw.target.boards import TARGETS

OWN = {
    "name": "tiny",
    "board": "Tiny",
    "device": "iCE40HX1K",
    "package": "VQ100",
    "clock_mhz": 12.0,
    "baud": 115200,
    "link": "two wires",
    "source": "none",
    "oscillator": {"mhz": 12.0},
    "pins": {"clk": "15", "rx": "9", "tx": "8"},
}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("board") / "own.toml"
    path.write_text(tomli_w.dumps(OWN))
    return path


def test_boards_in_json_with_what_the_planner_expects(own):
    ran = run("boards", "icebreaker", "ulx3s-12f", own, "--json")
    document = json.loads(ran.out)
    assert (document["model"], document["ratio"]) == ("digits_mlp_64_32_10.onnx", 1.5)
    up5k, small, tiny = document["boards"]
    assert (up5k["luts"], up5k["spram_bits"], up5k["dsps"]) == (5280, 1 << 20, 8)
    assert (small["luts"], small["sold_luts"], small["tested"]) == (24288, 12000, False)
    assert (tiny["name"], tiny["network"]) == ("tiny", {"fits": False})
    network = up5k["network"]
    assert 64 <= network["interval_cycles"] <= 130
    rate = 36e6 / network["interval_cycles"]
    assert network["inferences_per_second"] == pytest.approx(rate, rel=1e-3)
    assert network["inferences_per_second_over_link"] == pytest.approx(1e5 / 72, rel=1e-3)


def test_all_boards_are_a_table_for_people(monkeypatch):
    # One device's planning is as good as another's here.
    folding = pvq_hw.flow.boards.estimate(
        pvq_hw.load_model(pvq_hw.bundled.DIGITS), TARGETS["hx8k"], CompileOptions(ratio=1.5)
    )
    monkeypatch.setattr("pvq_hw.flow.boards.estimate", lambda *_: folding)
    lines = run("boards").out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(TARGETS) + 1]] == list(TARGETS)
    assert max(map(len, lines[: len(TARGETS) + 1])) <= 130
    assert "24,288+" in next(line for line in lines if line.startswith("ulx3s-12f"))
    assert lines[-1] == "No bitstream of this project has run on a real one of these boards yet."


def test_another_model_and_the_python_call(tmp_path, own):
    model = ROOT / "examples" / "japanese_vowels_cnn.onnx"
    ran = run("boards", "ulx3s-25f", "--model", model, "--ratio", 3, "--json")
    document = json.loads(ran.out)
    assert document["boards"][0]["network"]["fits"]
    small = tmp_path / "m.npz"
    np.savez(small, **{"0.weight": np.eye(4)})
    assert run("boards", own, "--model", small).out.splitlines()[1].endswith("does not fit")
    document = json.loads(run("boards", own, "hx8k", "--model", small, "--json").out)
    assert pvq_hw.boards(str(own), "hx8k", model=small) == document
    assert document["boards"][1]["network"]["fits"]


def test_pin_files_of_shipped_and_own_boards(tmp_path, own):
    ran = run("boards", "colorlight-i9", own, "--constraints", tmp_path / "pins", "--json")
    assert [path.rsplit("/", 1)[1] for path in json.loads(ran.out)["constraints"]] == [
        "colorlight-i9.lpf", "tiny.pcf",
    ]  # fmt: skip
    assert (tmp_path / "pins" / "tiny.pcf").read_text().splitlines()[2] == "set_io clk 15"


def test_unknown_boards_and_models_are_one_line(tmp_path):
    for args, text in (
        (("ulx3s",), "Target 'ulx3s' is unknown; did you mean ulx3s-"),
        (("hx8k", "--model", tmp_path / "none.onnx"), "none.onnx"),
        (("hx8k", "--ratio", "0"), "N/K must be a number above 0"),
    ):
        ran = run("boards", *args)
        assert (ran.code, ran.out) == (2, "")
        assert text in ran.complaint
