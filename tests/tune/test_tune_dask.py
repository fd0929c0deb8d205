"""The search on a Dask cluster: a scheduler and two worker processes on loopback, one of which is
killed in mid-search."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from cli_tools import ROOT, run
from tune_cases import here, write_case

from pvq_hw.tune.search import TuneOptions, tune

pytest.importorskip("distributed")

FILES = ("config.toml", "report.html", "trials.json")
OPTIONS = TuneOptions("icebreaker", trials=12, min_accuracy=75.0, seed=3)
_QUIET = {"DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "0", "OMP_NUM_THREADS": "1",
          "OPENBLAS_NUM_THREADS": "1"}  # fmt: skip


@contextlib.contextmanager
def process(*argv):
    """A child that is dead when the context ends, and its standard error, line by line."""
    child = subprocess.Popen(
        [sys.executable, "-m", *argv], cwd=ROOT, env=os.environ | _QUIET,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def scheduler_address(child):
    """From what the scheduler says when it is ready."""
    for line in child.stderr:
        if "Scheduler at:" in line:
            threading.Thread(target=child.stderr.read, daemon=True).start()
            return line.split("Scheduler at:")[1].strip()
    raise AssertionError("the scheduler ended")


@contextlib.contextmanager
def worker(address, name):
    argv = ("distributed.cli.dask_worker", address, "--host", "127.0.0.1", "--nthreads", "1",
            "--no-nanny", "--no-dashboard", "--name", name)  # fmt: skip
    with process(*argv) as child:
        threading.Thread(target=child.stderr.read, daemon=True).start()
        yield child


def test_a_killed_worker_changes_nothing(tmp_path):
    model, data = write_case(tmp_path)
    tune(model, data, tmp_path / "alone", OPTIONS, runner=here())
    out, killed = tmp_path / "cluster", []
    argv = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
            "--no-dashboard", "--no-show")  # fmt: skip
    with process(*argv) as scheduler:
        address = scheduler_address(scheduler)
        with worker(address, "a") as first, worker(address, "b"):

            def kill_in_mid_search():
                limit = time.monotonic() + 120
                while time.monotonic() < limit:
                    with contextlib.suppress(OSError):
                        if (out / "trials.jsonl").read_bytes().count(b"\n") > 4:
                            first.kill()
                            killed.append((out / "trials.json").exists())
                            return
                    time.sleep(0.02)

            killer = threading.Thread(target=kill_in_mid_search)
            killer.start()
            ran = run(
                "tune", model, "--data", data, "--target", "icebreaker", "--trials", 12,
                "--min-accuracy", 75, "--seed", 3, "--dask", address, "--json", "-o", out,
            )  # fmt: skip
            killer.join()
    assert ran.code == 0, ran.err
    assert killed == [False]
    for name in FILES:
        assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_an_absent_scheduler_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("pvq_hw.tune.executor.PATIENCE", 1)
    model, data = write_case(tmp_path)
    ran = run(
        "tune", model, "--data", data, "--target", "icebreaker", "--dask", "tcp://127.0.0.1:9",
        "-o", tmp_path / "out",
    )  # fmt: skip
    assert ran.code == 2
    assert "--dask must name a scheduler with workers, not 'tcp://127.0.0.1:9'" in ran.complaint
