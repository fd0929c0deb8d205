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


def test_a_layer_may_be_on_an_engine_of_its_own(tmp_path, data):
    """From the command line, and the same from a file of options."""
    asked = ("compile", MODEL, "--target", "icebreaker", "--quantizer", "plain", "--ratio", "3",
             "--input-scale", "16", "--calibrate", data)  # fmt: skip
    out, again = tmp_path / "out", tmp_path / "again"
    done = run(*asked, "--engine", "h=folded,logits=shared", "-o", out)
    assert done.code == 0, done.err
    plan = json.loads((out / "plan.json").read_text())
    assert [layer["core"]["kind"] for layer in plan["layers"]] == ["pulses", "shared"]
    assert done.out.count("1 layer on ") == 1
    config = tmp_path / "options.toml"
    config.write_text('[layers.h]\nengine = "folded"\n[layers.logits]\nengine = "shared"\n')
    assert run(*asked, "--config", config, "-o", again).code == 0
    assert (again / "plan.json").read_text() == (out / "plan.json").read_text()
    assert run("verify", out, "--model", MODEL).code == 0
    assert "Program of the shared engine" in (out / "report.html").read_text()
    done = run(*asked, "--engine", "logits=shared", "--frames", "2", "-o", tmp_path / "no")
    assert (done.code, done.complaint) == (
        2, "A shared engine takes one frame at a time, and new weights of it need synthesis",
    )  # fmt: skip
