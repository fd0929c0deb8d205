"""Standard streams that are closed, full or of another encoding: one line, and the right status."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from cli_tools import refused, run, twin

from pvq_hw.cli.streams import printable

FULL = "pvq-hw: Standard output can't be written: No space left on device\n"
PIPE = "pvq-hw: Standard output can't be written: Broken pipe\n"


@pytest.fixture
def frames(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(12).reshape(3, 4))
    return tmp_path / "x.npy"


def shell(text, *args, **env):
    """Runs ``pvq-hw ARGS`` with what ``text`` makes of its streams."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {text}', "sh", sys.executable, "-m", "pvq_hw", *map(str, args)],
        capture_output=True, env=os.environ | env,
    )  # fmt: skip


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_full_device_is_one_line_and_no_finding(frames, tmp_path, more):
    ran = shell(">/dev/full", "data", frames, "-o", tmp_path / "made.npz", *more)
    assert (ran.returncode, ran.stderr.decode()) == (2, FULL)
    assert (tmp_path / "made.npz").exists()  # done before it was to be said


def test_a_full_device_takes_no_help_either():
    ran = shell(">/dev/full", "--help")
    assert (ran.returncode, ran.stderr.decode()) == (2, FULL)


def test_an_error_that_nobody_can_read_keeps_its_status(tmp_path):
    ran = shell(">/dev/full", "data", tmp_path / "none.npz", "-o", tmp_path / "o.npz", "--json")
    assert ran.returncode == 2
    assert ran.stderr.count(b"\n") == 1
    assert b"none.npz" in ran.stderr


def test_a_closed_pipe_is_one_line(frames, tmp_path):
    read, write = os.pipe()
    os.close(read)
    args = [sys.executable, "-m", "pvq_hw", "data", frames, "-o", tmp_path / "o.npz", "--json"]
    ran = subprocess.run(args, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (ran.returncode, ran.stderr) == (2, PIPE)


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_work_is_done_where_nobody_hears_of_it(frames, tmp_path, closed):
    ran = shell(closed, "data", frames, "-o", tmp_path / "made.npz", "--json")
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["frames"] == 3
    assert np.load(tmp_path / "made.npz")["x"].shape == (3, 4)
    ran = shell(closed, "data", tmp_path / "none", "-o", tmp_path / "o.npz")
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, b"", b"")


def test_a_closed_output_leads_nowhere(frames, tmp_path):
    ran = shell(">&-", "data", frames, "-o", tmp_path / "made.npz")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    assert np.load(tmp_path / "made.npz")["x"].shape == (3, 4)


def test_names_that_an_encoding_lacks_are_shown_as_escapes(digits, tmp_path):
    """A sound output is no finding, whatever its folder is called."""
    out = twin(digits.out, tmp_path / "b\u00fcro-\u6f22\udcff")
    ran = shell("", "verify", out, PYTHONIOENCODING="latin-1:strict")
    assert ran.returncode == 0, ran.stderr
    assert b"b\xfcro-\\u6f22\\udcff: files and codes are right" in ran.stdout


def test_what_a_terminal_would_obey_is_shown_instead(tmp_path):
    evil = tmp_path / "gpj\u202excod\u200b\x1b[31m\u2028\x9b.npz"
    text = "gpj\\u202excod\\u200b\\x1b[31m\\x9b.npz can't be read"
    said = refused(tmp_path, "can't be read", "data", evil, "-o", tmp_path / "o.npz")
    assert text.replace("[31m", "[31m ") in said
    ran = run("data", "--count", "\u202e1", "x", "-o", "y")
    assert ran.complaint.startswith("argument --count: invalid int value: '\\u202e1'")
    np.save(evil.with_suffix(".npy"), np.ones((2, 2)))
    ran = run("data", evil.with_suffix(".npy"), "-o", evil)
    assert ran.code == 0, ran
    assert ran.out.rstrip("\n").isprintable()
    assert printable("caf\u00e9 \u6f22\nline") == "caf\u00e9 \u6f22\nline"


@pytest.mark.parametrize("option", ["--seed", "--activation-bits", "--ratio", "--clock-mhz"])
@pytest.mark.parametrize("value", ["9" * 400, "9" * 5000, "1e-320", "1e300", "-" + "9" * 30])
def test_numbers_that_nothing_can_be_worked_out_with(tmp_path, option, value):
    args = ("compile", "m.onnx", "--target", "hx8k", "-o", tmp_path / "out", option, value)
    said = refused(tmp_path, "", *args)
    assert len(said) < 400
    if "e" in value or option in ("--seed", "--activation-bits"):
        assert said.startswith(f"argument {option}: invalid "), said
