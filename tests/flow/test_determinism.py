"""Same inputs, same bytes: whatever folder, hash seed, locale, threads or working folder."""

import datetime
import os
import subprocess
import sys

import numpy as np
import pytest
from cli_tools import MODEL, ROOT, run, snapshot, twin
from processor import environments

ENVIRONMENTS = [
    {"PYTHONHASHSEED": "1", "LC_ALL": "C"},
    {"PYTHONHASHSEED": "77", "LANG": "de_DE.UTF-8", "TZ": "Asia/Tokyo", "COLUMNS": "40",
     "PYTHONUTF8": "0"},
]  # fmt: skip


def elsewhere(environment, cwd, *args):
    """Runs a verb in another process, with only this much of an environment."""
    kept = ("PATH", "HOME", "YOWASP_CACHE_DIR", "XDG_CACHE_HOME", "VIRTUAL_ENV")
    blas = ("OMP_", "OPENBLAS_", "NPY_DISABLE")  # kernels and threads: see below
    env = {n: v for n, v in os.environ.items() if n in kept or n.startswith(blas)}
    ran = subprocess.run(
        [sys.executable, "-m", "pvq_hw", *map(str, args)],
        cwd=cwd, env={**env, "PYTHONPATH": str(ROOT), **environment}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("number", range(len(ENVIRONMENTS)))
def test_compile_gives_the_same_bytes(digits, tmp_path, number):
    """Also with kernels and threads of the library of matrices that round sums in another order."""
    here = tmp_path / f"a folder {number}"
    here.mkdir()
    model = here / MODEL.name
    model.write_bytes(MODEL.read_bytes())
    elsewhere(
        ENVIRONMENTS[number] | environments()[number], here, "compile", model.name, "--target",
        "icebreaker", "--ratio", "1.5", "--calibrate", digits.train, "--evaluate", digits.test,
        "-o", "sub/out",
    )  # fmt: skip
    assert snapshot(here / "sub" / "out") == snapshot(digits.out)


@pytest.mark.slow
def test_the_library_of_matrices_does_not_change_plain_codes(digits, tmp_path):
    found = []
    for number, environment in enumerate(environments()):
        elsewhere(
            environment, tmp_path, "compile", MODEL, "--target", "icebreaker", "--ratio", 2,
            "--quantizer", "plain", "--calibrate", digits.train, "-o", str(number),
        )  # fmt: skip
        found.append(snapshot(tmp_path / str(number)))
    assert found[0] == found[1]


def test_layer_gives_the_same_bytes(tmp_path):
    np.save(tmp_path / "w.npy", np.random.default_rng(0).standard_normal((9, 40)))
    args = ("layer", tmp_path / "w.npy", "--k", 16, "--lanes", 4, "--x-signed")
    assert run(*args, "-o", tmp_path / "one").code == 0
    first = snapshot(tmp_path / "one")
    assert {"testbench/tb.v", "image/layer_codes.hex", "manifest.json"} <= first.keys()
    (tmp_path / "x").mkdir()
    elsewhere(ENVIRONMENTS[1], tmp_path / "x", *args, "-o", "../two")
    assert snapshot(tmp_path / "two") == first


def test_a_seed_changes_what_it_names_and_nothing_else(tmp_path):
    np.save(tmp_path / "w.npy", np.random.default_rng(0).standard_normal((9, 40)))
    args = ("layer", tmp_path / "w.npy", "--k", 16, "--lanes", 4)
    found = []
    for seed in (0, 1):
        assert run(*args, "--seed", seed, "-o", tmp_path / str(seed)).code == 0
        found.append(snapshot(tmp_path / str(seed)))
    changed = {name for name in found[0] if found[0][name] != found[1][name]}
    assert {"vectors/input.hex", "testbench/input.hex"} <= changed
    assert not any(name.startswith(("image/", "verilog/")) for name in changed)


def test_nothing_in_an_output_names_a_folder_or_a_time(digits):
    year = str(datetime.datetime.now(datetime.UTC).year)
    for path in sorted(digits.out.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            for text in (str(digits.out), str(ROOT), os.path.expanduser("~"), f"{year}-"):
                if len(text) > 1:
                    assert text.encode() not in content, (path.name, text)
            assert b"\r" not in content or path.suffix == ".pvq"


@pytest.mark.slow
@pytest.mark.build
def test_two_builds_give_the_same_bitstream(digits, tmp_path):
    bits = []
    for number, environment in enumerate(ENVIRONMENTS):
        out = twin(digits.out, tmp_path / str(number) / "out")
        elsewhere(environment, tmp_path, "build", out)
        bits.append((out / "build" / "top.bin").read_bytes())
    assert bits[0] == bits[1]
