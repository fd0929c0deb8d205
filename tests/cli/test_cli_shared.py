"""``--engine shared``: from a model file to simulated Verilog, and what is said of it."""

import json

import numpy as np
import pytest
from cli_tools import BUNDLED, MODEL, run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    place = tmp_path_factory.mktemp("shared") / "data.npz"
    source = np.load(BUNDLED / "digits.npz")
    np.savez(place, x=source["x_test"][:40], y=source["y_test"][:40])
    return place


def test_a_model_s_layers_share_an_engine(tmp_path, data):
    out = tmp_path / "out"
    asked = ("compile", MODEL, "--target", "icebreaker", "--quantizer", "plain", "--ratio", "3")
    more = ("--input-scale", "16", "--calibrate", data, "--engine", "shared", "-o", out)
    more += ("--decide", "argmax")
    done = run(*asked, *more)
    assert done.code == 0, done.err
    assert "shared, " in done.out
    plan = json.loads((out / "plan.json").read_text())
    (layer,) = plan["layers"]
    assert layer["core"]["kind"] == "shared"
    assert [x["name"] for x in layer["core"]["layers"]] == ["h", "logits"]
    assert [unit["kind"] for unit in plan["graph"]["units"]] == ["core", "largest"]
    assert (out / "image" / "engine_program.hex").exists()
    assert "Program of the shared engine" in (out / "report.html").read_text()
    assert run("verify", out, "--model", MODEL).code == 0
    simulated = run("simulate", out, "--data", data, "--simulator", "amaranth", "--count", "3")
    assert "0 mismatches" in simulated.out
    assert "as planned" in simulated.out


def test_single_layers_are_refused(tmp_path, data):
    asked = (
        "compile",
        MODEL,
        "--target",
        "icebreaker",
        "--quantizer",
        "plain",
        "--calibrate",
        data,
    )
    done = run(*asked, "--engine", "h=shared", "-o", tmp_path / "out")
    assert (done.code, done.complaint) == (
        2, "Engine shared must be asked of all layers, not of single ones",
    )  # fmt: skip
