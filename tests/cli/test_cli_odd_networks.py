"""Networks at the edges of what is possible, through the whole path: file to simulated RTL."""

import json

import numpy as np
import pytest
from cli_tools import run

import pvq_hw
from sim.reference import load_reference, reference_outputs


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def zero_rows(weights, *rows):
    weights[list(rows)] = 0
    return weights


U8, S8, REAL = "uint8", "int8", "float64"
GROUPS = "[layers.fc0]\nunit = 4\nk = 3\n"
SHARED = '[layers.fc0]\nunit = "layer"\n'

# name: (weights of each layer, type of the data, arguments, configuration)
NETWORKS = {
    "one weight": ([normal(0, 1, 1)], U8, ("--ratio", 1), ""),
    "one column": ([normal(1, 3, 1), normal(2, 2, 3)], U8, ("--ratio", 1), ""),
    "one row": ([normal(3, 5, 16), normal(4, 1, 5)], U8, ("--ratio", 2), ""),
    "K > N": ([normal(5, 5, 4), normal(6, 3, 5)], U8, ("--ratio", 0.25), ""),
    "rows of zeros": ([zero_rows(normal(7, 6, 16), 1, 4), normal(8, 3, 6)], U8, (), ""),
    "all zero": ([np.zeros((3, 16)), np.zeros((2, 3))], U8, ("--ratio", 2), ""),
    "one layer, signed": ([normal(9, 7, 16)], S8, ("--ratio", 2), ""),
    "sixteen bits": ([normal(10, 7, 16), normal(11, 3, 7)], REAL, ("--activation-bits", 16), ""),
    "two bits": ([normal(10, 7, 16), normal(11, 3, 7)], REAL, ("--activation-bits", 2), ""),
    "binary": ([normal(12, 7, 16)], REAL, ("--activation-bits", 1), ""),
    "groups": ([normal(14, 7, 16), normal(15, 3, 7)], S8, ("--quantizer", "plain"), GROUPS),
    "one gain": ([normal(16, 7, 16), normal(17, 3, 7)], S8, ("--quantizer", "plain"), SHARED),
    "all lanes": ([normal(18, 4, 13), normal(19, 3, 4)], U8, ("--lanes", "13,4"), ""),
}


def data(kind, columns):
    rng = np.random.default_rng(columns)
    if kind == REAL:
        return rng.standard_normal((200, columns))
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max + 1, (200, columns)).astype(kind)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_whole_path(tmp_path, name):
    matrices, kind, args, config = NETWORKS[name]
    arrays = {f"{i}.weight": w for i, w in enumerate(matrices)}
    biases = {f"{i}.bias": normal(90 + i, len(w)) / 10 for i, w in enumerate(matrices)}
    np.savez(tmp_path / "m.npz", **arrays, **biases)
    x = data(kind, matrices[0].shape[1])
    np.savez(tmp_path / "x.npz", x=x)
    (tmp_path / "c.toml").write_text(f'target = "ulx3s-25f"\nratio = 3\n{config}')
    out = tmp_path / "out"
    ran = run(
        "compile", tmp_path / "m.npz", "--config", tmp_path / "c.toml", "--calibrate",
        tmp_path / "x.npz", *args, "-o", out,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "Warning" not in ran.err
    verified = run("verify", out, "--model", tmp_path / "m.npz")
    assert verified.code == 0, verified.out
    count = 5
    simulate = ("simulate", out, "--data", tmp_path / "x.npz", "--simulator", "amaranth")
    # With stalls there is no interval to wait for: see the test below.
    simulated = run(*simulate, "--count", count, "--stalls", "--json")
    assert simulated.code == 0, simulated.err
    outputs = sum(len(w) for w in matrices)
    assert simulated.json["mismatches"] == 0
    assert simulated.json["outputs_compared"] == count * outputs
    # From the memory files and the plan alone, in plain integers.
    accelerator = pvq_hw.load(out)
    document = json.loads((out / "plan.json").read_text())
    specs = [layer["core"] for layer in document["layers"]]
    frames = accelerator.quantize_input(x[:count]).tolist()
    reference = reference_outputs(document["graph"], load_reference(specs, out / "image"), frames)
    assert reference[specs[-1]["name"]] == accelerator.predict_integers(x[:count]).tolist()


@pytest.mark.parametrize("count", [1, 2])
def test_few_frames_still_tell_the_planned_cycles(tmp_path, count):
    np.savez(tmp_path / "m.npz", **{"0.weight": normal(0, 3, 4)})
    np.savez(tmp_path / "x.npz", x=data(U8, 4))
    out = tmp_path / "out"
    ran = run(
        "compile", tmp_path / "m.npz", "--target", "hx8k", "--calibrate", tmp_path / "x.npz",
        "--ratio", 1, "-o", out, "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    simulate = ("simulate", out, "--data", tmp_path / "x.npz", "--simulator", "amaranth")
    simulated = run(*simulate, "--count", count, "--json")
    assert simulated.code == 0, simulated.err
    for key in ("interval_cycles", "latency_cycles"):
        assert simulated.json[key] == ran.json[key]
