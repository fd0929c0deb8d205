"""A board that only a file knows: from the model file to simulated Verilog and constraints."""

import json

import numpy as np
import tomli_w
from cli_tools import run
from some_boards import STICK

from pvq_hw.output.accelerator import load


def test_a_board_file_goes_from_the_model_to_simulated_verilog(tmp_path):
    generator = np.random.default_rng(3)
    np.savez(
        tmp_path / "m.npz",
        **{"0.weight": generator.normal(size=(6, 12)), "1.weight": generator.normal(size=(3, 6))},
    )
    np.savez(tmp_path / "x.npz", x=generator.integers(0, 256, (20, 12)))
    board, out = tmp_path / "stick.toml", tmp_path / "out"
    board.write_text(tomli_w.dumps(STICK))
    ran = run("compile", tmp_path / "m.npz", "--board", board, "--ratio", 2,
              "--calibrate", tmp_path / "x.npz", "-o", out)  # fmt: skip
    assert ran.code == 0, ran.err
    assert "iCE40HX4K is sold with 3,520 LCs; the plan takes about " in ran.err
    board.unlink()  # the folder knows all of it
    ran = run("simulate", out, "--data", tmp_path / "x.npz", "--count", 3, "--json",
              "--simulator", "amaranth")  # fmt: skip
    document = json.loads(ran.out)
    assert (document["frames"], document["mismatches"]) == (3, 0)
    assert run("verify", out).code == 0
    target = load(out).plan.target
    assert (target.name, target.device.name, target.package) == ("my-stick", "iCE40HX4K", "TQ144")


def test_a_device_that_is_too_small_is_one_line(tmp_path):
    np.savez(tmp_path / "m.npz", **{"0.weight": np.eye(12)})
    np.savez(tmp_path / "x.npz", x=np.arange(240).reshape(20, 12))
    board = tmp_path / "stick.toml"
    board.write_text(tomli_w.dumps(STICK | {"device": "iCE40HX1K"}))
    ran = run("compile", tmp_path / "m.npz", "--board", board,
              "--calibrate", tmp_path / "x.npz", "--ratio", 10, "-o", tmp_path / "out")  # fmt: skip
    assert ran.code == 2
    assert "LCs at a pulse a row already, but my-stick has 1,088" in ran.complaint


def test_a_wrong_board_file_is_one_line(tmp_path):
    board = tmp_path / "stick.toml"
    board.write_text(tomli_w.dumps(STICK | {"device": "iCE40HX1"}))
    ran = run("compile", tmp_path / "m.npz", "--target", board, "-o", tmp_path / "out")
    assert ran.code == 2
    assert ran.complaint.startswith("Board file 'stick.toml': Device 'iCE40HX1' is unknown; did ")
    assert not (tmp_path / "out").exists()
