"""`compile` and `build` ended at any moment leave OUT usable or absent, and the next run works."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from cli_tools import MODEL, ROOT, run, snapshot, twin

from pvq_hw.output import OutputFolder


def command(digits, out, *more):
    return (
        "compile", MODEL, "--target", "hx8k", "--quantizer", "plain", "--ratio", 2, "--calibrate",
        digits.train, "-o", out, *more,
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
    ("==> Write the files", 0.2),
    ("==> Write the files", 0.6),
]
EXITS = {signal.SIGKILL: {-9}, signal.SIGTERM: {143}, signal.SIGINT: {130, -2}}


@pytest.mark.parametrize("how", list(EXITS), ids=lambda s: s.name)
@pytest.mark.parametrize("earlier", [False, True])
def test_compile_ended_at_any_moment(digits, tmp_path, how, earlier):
    out = tmp_path / "out"
    if earlier:
        twin(digits.out, out)
    before = snapshot(out)
    rng = random.Random(how + earlier)
    for line, delay in rng.sample(MOMENTS, 2):
        process = start(*command(digits, out))
        wait_for(process, line)
        time.sleep(delay)
        process.send_signal(how)
        _, err = process.communicate(timeout=60)
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
    assert run(*command(digits, out)).code == 0
    assert os.listdir(tmp_path) == ["out"]
    assert run("verify", out, "--model", MODEL).code == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT],
                         ids=lambda s: s.name)  # fmt: skip
def test_build_ended_in_synthesis(digits, tmp_path, how):
    out = twin(digits.out, tmp_path / "out")
    before = snapshot(out)
    process = start("build", out)
    wait_for(process, "Synthesis")
    time.sleep(0.5)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    assert process.returncode in EXITS[how], err
    assert "Traceback" not in err
    assert snapshot(out) == before
    assert run("verify", out).code == 0
    assert run("report", out).code == 0  # the next writer tidies up
    assert os.listdir(tmp_path) == ["out"]


def test_two_at_once_in_one_folder(digits, tmp_path):
    """The second is refused in one line, whatever it wants to write; another folder is free."""
    out = twin(digits.out, tmp_path / "out")
    first = start(*command(digits, out))
    wait_for(first, "==> Import the model")
    os.kill(first.pid, signal.SIGSTOP)
    try:
        for args in (command(digits, out), ("report", out), ("build", out)):
            ran = run(*args)
            assert ran.code == 2
            assert "is being written by another pvq-hw; wait for it or" in ran.complaint
        assert run("verify", out).code == 0  # readers need no lock
        assert run(*command(digits, tmp_path / "other")).code == 0
    finally:
        os.kill(first.pid, signal.SIGCONT)
    _, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    assert snapshot(out) == snapshot(tmp_path / "other")
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]


def test_an_interrupted_json_run_still_prints_one_object(digits, tmp_path):
    process = start(*command(digits, tmp_path / "out", "--json"))
    wait_for(process, "==> Quantize")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    line = "interrupted; earlier output is as it was"
    assert out == f'{{"error": "{line}", "exit_code": 130}}\n'
