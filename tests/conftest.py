"""The bundled digits network, compiled once for every test of a process that reads it."""

import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_tools import BUNDLED, MODEL, run

# A job in the background is started with SIGINT ignored, which its children inherit: the tests
# that interrupt commands need it as a person at a terminal has it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Digits:
    """Data files of the digits, and an output folder that tests must not change."""

    train: Path
    test: Path
    out: Path
    document: dict


@pytest.fixture(scope="session")
def digits_data(tmp_path_factory):
    """``(TRAIN.npz, TEST.npz)`` of the digits."""
    folder = tmp_path_factory.mktemp("digits_data")
    paths = []
    for part in ("train", "test"):
        paths.append(folder / f"{part}.npz")
        keys = f"x_{part},y_{part}"
        assert run("data", BUNDLED / "digits.npz", "--keys", keys, "-o", paths[-1]).code == 0
    return tuple(paths)


@pytest.fixture(scope="session")
def digits(tmp_path_factory, digits_data):
    """The digits compiled for the iCEBreaker, as the demo does it."""
    train, test = digits_data
    out = tmp_path_factory.mktemp("digits") / "out"
    ran = run(
        "compile", MODEL, "--target", "icebreaker", "--ratio", "1.5", "--calibrate", train,
        "--evaluate", test, "--min-accuracy", "95", "--json", "-o", out,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    return Digits(train, test, out, ran.json)
