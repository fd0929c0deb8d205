"""The bundled digits network, compiled once for every test of a process that reads it."""

import fcntl
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_tools import BUNDLED, MODEL, run

# A job in the background is started with SIGINT ignored, which its children inherit: the tests
# that interrupt commands need it as a person at a terminal has it.
signal.signal(signal.SIGINT, signal.default_int_handler)

_BUDGET = 850
"""Processor seconds that all tests of `make test` may take: watched, never asserted, since
machines are noisy."""

_SECONDS = "processor seconds"
_BEFORE = pytest.StashKey[tuple[float, ...]]()


@dataclass(frozen=True)
class Digits:
    """Data files of the digits, and an output folder that tests must not change."""

    train: Path
    test: Path
    out: Path
    document: dict


@pytest.fixture
def toys():
    """The toys of `tests/test_extension.py`, whose operator is known while a test runs."""
    import toy_circuit
    import toy_node

    from pvq_hw.model.onnx import lowering

    lowering.handles("CumSum")(toy_node.lower)
    yield toy_circuit
    lowering.forget("CumSum")


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
    """The digits compiled for the iCEBreaker, as the demo does it; once for all workers."""
    train, test = digits_data
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / "digits-of-all"
    folder.mkdir(exist_ok=True)
    out, document = folder / "out", folder / "digits.json"
    with (folder / "digits.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not document.exists():
            ran = run(
                "compile", MODEL, "--target", "icebreaker", "--ratio", "1.5", "--calibrate",
                train, "--evaluate", test, "--min-accuracy", "95", "--json", "-o", out,
            )  # fmt: skip
            assert ran.code == 0, ran.err
            document.write_text(ran.out)
    return Digits(train, test, out, json.loads(document.read_text()))


# -- what the summary says besides pass and fail ------------------------------------------------


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Processor seconds of a test with its fixtures and its children, for the summary."""
    before = os.times()
    item.stash[_BEFORE] = before
    yield


def pytest_runtest_teardown(item):
    spent = sum(os.times()[:4]) - sum(item.stash[_BEFORE][:4])
    item.user_properties.append((_SECONDS, spent))


def pytest_terminal_summary(terminalreporter):
    """Processor seconds of each test file against the budget, and what this machine left out."""
    spent: dict[str, float] = {}
    left_out = set()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) != "teardown":
                continue
            for name, value in report.user_properties:
                if name == _SECONDS:
                    file = report.nodeid.partition("::")[0]
                    spent[file] = spent.get(file, 0.0) + value
                elif name.startswith("kernels ") and value:
                    left_out.add(f"{name}: {value}")
    if not spent:
        return
    terminalreporter.section("processor seconds")
    total = sum(spent.values())
    terminalreporter.write_line(f"{total:.0f} in all; the budget is {_BUDGET}")
    for file, seconds in sorted(spent.items(), key=lambda pair: -pair[1])[:15]:
        terminalreporter.write_line(f"{seconds:7.1f}  {file}")
    for line in sorted(left_out):
        terminalreporter.write_line(line)
