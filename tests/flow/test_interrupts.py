"""`compile` and `build` ended at any moment leave OUT usable or absent, and the next run works."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cli_tools import ROOT, run, snapshot, twin
from onnx import helper
from onnx_graphs import graph_model, save

from pvq_hw.output.folder import OutputFolder


@dataclass(frozen=True)
class Small:
    """A small network, its calibration data, and an output folder for another board."""

    model: Path
    train: Path
    out: Path


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("Gemm", ["x", "w"], ["a"], name="fc1"),
             helper.make_node("Relu", ["a"], ["r"], name="relu"),
             helper.make_node("Gemm", ["r", "v"], ["out"], name="fc2")]  # fmt: skip
    weights = {"w": rng.standard_normal((24, 16)), "v": rng.standard_normal((16, 5))}
    model = save(folder, graph_model(nodes, weights, ("N", 24)))
    np.savez(folder / "train.npz", x=rng.integers(0, 17, (50, 24)))
    made = Small(model, folder / "train.npz", folder / "out")
    args = ("compile", model, "--target", "icebreaker", "--quantizer", "plain", "--ratio", 3)
    ran = run(*args, "--calibrate", made.train, "-o", made.out)
    assert ran.code == 0, ran.err
    return made


def command(small, out, *more):
    return (
        "compile", small.model, "--target", "hx8k", "--quantizer", "plain", "--ratio", 2,
        "--calibrate", small.train, "-o", out, *more,
    )  # fmt: skip


def start(*args):
    return subprocess.Popen(
        [sys.executable, "-m", "pvq_hw", *map(str, args)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(process, line):
    """Reads stderr up to a line that starts like this."""
    for said in process.stderr:
        if said.startswith(line):
            return
    raise AssertionError(f"{line!r} was never said")


# What `compile` says at the start of its steps, and how much later it is ended, in seconds.
MOMENTS = [
    ("==> Import the model", 0.0),
    ("==> Quantize to the pyramid", 0.0),
    ("==> Plan the cores", 0.0),
    ("==> Write the files", 0.0),
    ("==> Write the files", 0.1),
    ("==> Write the files", 0.3),
]
EXITS = {signal.SIGKILL: {-9}, signal.SIGTERM: {143}, signal.SIGINT: {130, -2}}


# (with an earlier output, signal, moments): each signal once and at one moment; more in the long
# run.
ENDS = [
    (True, signal.SIGKILL, 1), (True, signal.SIGTERM, 1), (False, signal.SIGINT, 1),
    *[pytest.param(earlier, how, 3, marks=pytest.mark.slow)
      for earlier in (False, True) for how in EXITS],
]  # fmt: skip


@pytest.mark.parametrize(("earlier", "how", "times"), ENDS)
def test_compile_ended_at_any_moment(small, tmp_path, how, earlier, times):
    out = tmp_path / "out"
    if earlier:
        twin(small.out, out)
    before = snapshot(out)
    rng = random.Random(how + earlier)
    for line, delay in rng.sample(MOMENTS, times):
        process = start(*command(small, out))
        wait_for(process, line)
        time.sleep(delay)
        process.send_signal(how)
        _, err = process.communicate(timeout=600)
        assert process.returncode in EXITS[how] | {0}, err
        assert "Traceback" not in err
        if process.returncode == 0:
            before = snapshot(out)  # it was done before the signal came
        if how != signal.SIGKILL:
            assert set(os.listdir(tmp_path)) <= {"out"}  # nothing lies about
        if how == signal.SIGINT and process.returncode == 130:
            assert err.splitlines()[-1] == "pvq-hw: interrupted; earlier output is as it was"
        assert snapshot(out) == before
        if out.exists():
            OutputFolder(out).check()
            assert run("verify", out).code == 0
    assert run(*command(small, out)).code == 0
    assert os.listdir(tmp_path) == ["out"]
    assert run("verify", out, "--model", small.model).code == 0


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGTERM,
        *(pytest.param(how, marks=pytest.mark.slow) for how in (signal.SIGKILL, signal.SIGINT)),
    ],
    ids=lambda s: s.name,
)
def test_build_ended_in_synthesis(small, tmp_path, how):
    out = twin(small.out, tmp_path / "out")
    before = snapshot(out)
    process = start("build", out)
    wait_for(process, "Synthesis")
    time.sleep(0.5)
    process.send_signal(how)
    _, err = process.communicate(timeout=600)
    assert process.returncode in EXITS[how], err
    assert "Traceback" not in err
    assert snapshot(out) == before
    assert run("verify", out).code == 0
    assert run("report", out).code == 0  # the next writer tidies up
    assert os.listdir(tmp_path) == ["out"]


def test_two_at_once_in_one_folder(small, tmp_path):
    """The second is refused in one line, whatever it wants to write; another folder is free."""
    out = twin(small.out, tmp_path / "out")
    first = start(*command(small, out))
    wait_for(first, "==> Import the model")
    os.kill(first.pid, signal.SIGSTOP)
    try:
        for args in (command(small, out), ("report", out), ("build", out)):
            ran = run(*args)
            assert ran.code == 2
            assert "is being written by another pvq-hw; wait for it or" in ran.complaint
        assert run("verify", out).code == 0  # readers need no lock
        assert run(*command(small, tmp_path / "other")).code == 0
    finally:
        os.kill(first.pid, signal.SIGCONT)
    _, err = first.communicate(timeout=600)
    assert first.returncode == 0, err
    assert snapshot(out) == snapshot(tmp_path / "other")
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]


def test_an_interrupted_json_run_still_prints_one_object(small, tmp_path):
    process = start(*command(small, tmp_path / "out", "--json"))
    wait_for(process, "==> Quantize")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    line = "interrupted; earlier output is as it was"
    assert out == f'{{"error": "{line}", "exit_code": 130}}\n'
