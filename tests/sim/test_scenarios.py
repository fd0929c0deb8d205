"""One list of scenarios: every simulator and the shipped testbenches run the same."""

import itertools
import re
import shutil
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from cli_tools import run
from loaded import Loaded

import pvq_hw
from gateware.export.export import export_accelerator
from gateware.export.package import write_testbench
from pvq_hw.engine.hexfile import hex_text
from pvq_hw.engine.patterns import Pattern, draws
from pvq_hw.engine.scenarios import BURSTS, Pace, pace_of, scenarios
from pvq_hw.engine.timing import time_chain
from pvq_hw.errors import CheckError
from pvq_hw.plan.image import Image
from pvq_hw.tools import find as tools
from sim.agents.streams import StreamError
from sim.agents.wire import pack_frames
from sim.scenarios import run_scenarios

needs_icarus = pytest.mark.skipif(not tools.have_tool("iverilog"), reason="needs Icarus Verilog")
PACE = Pace(columns=7, rows=11, inside=7, ends=(40, 62), interval=20, waiting=11)


@pytest.fixture(scope="module")
def layer(tmp_path_factory):
    """One layer's output folder: rows of one word or two, so that credits limit it."""
    folder = tmp_path_factory.mktemp("scenarios")
    np.save(folder / "w.npy", np.random.default_rng(7).standard_normal((11, 7)))
    np.savez(folder / "x.npz", x=np.random.default_rng(1).integers(0, 256, (16, 7)))
    ran = run("layer", folder / "w.npy", "--k", 2, "--lanes", 3, "-o", folder / "out")
    assert ran.code == 0, ran.err
    return folder


def bench_lines(command: str, folder) -> list[str]:
    done = subprocess.run(
        command, shell=True, cwd=folder, check=True, capture_output=True, text=True, timeout=600
    )
    return done.stdout.splitlines()


def test_scripts_pause_as_long_as_they_say():
    pattern = Pattern.parse("steps:2,3,0,1,1")
    assert list(itertools.islice(draws(pattern, 1), 9)) == [False] * 2 + [True] * 4 + [False] * 3
    assert (pattern.pauses, pattern.longest, str(pattern)) == (True, 3, "steps:2,3,0,1,1")
    assert not Pattern.parse("steps:5").pauses


def test_the_list_blocks_bursts_and_resets_as_documented():
    found = {scenario.name: scenario for scenario in scenarios(PACE)}
    assert len(found) == len(scenarios(PACE))
    assert (min(BURSTS), max(BURSTS)) == (1, 10_000)
    for name, side in (("bursts at the input", "idle"), ("bursts at the output", "stall")):
        assert getattr(found[name], side).steps[1::2] == BURSTS
    blocked = found["output blocked from the start"].stall.longest
    assert blocked > PACE.latency + PACE.inside * PACE.interval
    resets = found["resets while computing"].resets
    assert len(resets) == 72
    assert list(resets) == sorted(set(resets))
    # Late resets come at every phase of the steady state; every other one is followed by an early
    # one, at most of the latency's phases.
    gaps = np.diff((0, *resets))
    assert {*gaps[::3], *gaps[2::3]} == set(range(61, 81))
    assert len(set(gaps[1::3])) >= 18
    # A large network takes fewer.
    large = replace(PACE, ends=(40_000,), interval=20_000)
    assert len(scenarios(large)[1].resets) == 12


@needs_icarus
def test_simulate_and_the_shipped_testbench_take_the_same_cycles(layer):
    out, data = layer / "out", layer / "x.npz"
    ran = run("simulate", out, "--data", data, "--scenarios", "--json")
    assert (ran.code, ran.json["mismatches"]) == (0, 0), ran.err
    lines = bench_lines(
        "iverilog -o tb *.v && vvp tb", shutil.copytree(out / "testbench", layer / "tb")
    )
    assert lines[-1].startswith("PASS: ")
    found = [re.fullmatch(r"\d+ (.*): \d+ results, (\d+) cycles", line) for line in lines[:-1]]
    shipped = [(line[1], int(line[2])) for line in found if line]
    assert shipped == [(each["name"], each["cycles"]) for each in ran.json["scenarios"]]
    assert len(shipped) >= 13
    # The simulators in Python are slow: two scenarios, resets and pauses in both.
    accelerator = pvq_hw.load(out)
    plan, images = accelerator.plan, accelerator.image.cores
    x = np.load(data)["x"]
    trace = accelerator.network.trace(x)
    few = [s for s in scenarios(pace_of(plan.graph, images, plan.interval_cycles))
           if s.name in ("output blocked from the start", "short bursts at both ends")]  # fmt: skip
    few[1] = replace(few[1], rounds=6, resets=(77, 190))
    cycles = {}
    for simulator in ("compiled", "amaranth", "icarus"):
        source = images if simulator == "amaranth" else out
        outcomes = list(run_scenarios(few, plan.graph, source, x, trace, simulator,
                                      names=[plan.specs[0].name]))  # fmt: skip
        assert [outcome.comparison.mismatches for outcome in outcomes] == [0, 0]
        cycles[simulator] = [outcome.result.cycles for outcome in outcomes]
    assert cycles["compiled"] == cycles["amaranth"] == cycles["icarus"]


@needs_icarus
@pytest.mark.parametrize("wrong", [-1, 1])
def test_other_cycles_than_the_plans_fail(layer, tmp_path, wrong):
    folder = shutil.copytree(layer / "out" / "testbench", tmp_path / "tb")
    text = (folder / "tb.v").read_text()
    first = re.search(r"ends_at\((\d+)\);", text)
    changed = f"ends_at({int(first[1]) + wrong});"
    (folder / "tb.v").write_text(text.replace(first[0], changed, 1))
    *_, said, last = bench_lines("iverilog -o tb *.v && vvp tb +only=1", folder)
    assert "FAILED" in said
    assert last.startswith("FAIL: ")
    assert last.endswith(", 1 wrong cycle counts")


def test_the_compiled_check_catches_missing_back_pressure(layer, tmp_path):
    out = shutil.copytree(layer / "out", tmp_path / "out")
    accelerator = pvq_hw.load(out)
    plan, images = accelerator.plan, accelerator.image.cores
    verilog = out / "verilog" / "accelerator.v"
    text, count = re.subn(r"= ~ (taken\[\d\]);", "= 1'h1;", verilog.read_text())
    assert count == 1
    verilog.write_text(text)
    x = np.load(layer / "x.npz")["x"]
    chosen = scenarios(pace_of(plan.graph, images, plan.interval_cycles))
    (blocked,) = (s for s in chosen if s.name == "output blocked from the start")
    names = [accelerator.network.layers[0].name]
    trace = accelerator.network.trace(x)
    with pytest.raises(StreamError, match=r"^Scenario 'output blocked from the start': No stream "):
        list(run_scenarios([blocked], plan.graph, out, x, trace, names=names))


def test_a_slow_simulation_is_one_line(layer):
    accelerator = pvq_hw.load(layer / "out")
    plan, images = accelerator.plan, accelerator.image.cores
    x = np.load(layer / "x.npz")["x"]
    full = scenarios(pace_of(plan.graph, images, plan.interval_cycles))[0]
    wrong = replace(full, rounds=2, ends=(full.ends[0], full.ends[1] - 1))
    text = (
        rf"^Scenario 'full rate': frame 1 must take {full.ends[1] - 1} cycles from the first input "
        rf"to its last result, as planned, not {full.ends[1]}$"
    )
    names = [accelerator.network.layers[0].name]
    trace = accelerator.network.trace(x)
    with pytest.raises(CheckError, match=text):
        list(run_scenarios([wrong], plan.graph, images, x, trace, "amaranth", names=names))


@needs_icarus
def test_compile_ships_a_testbench_for_plain_icarus(digits):
    readme = (digits.out / "testbench" / "README.txt").read_text()
    line, *units = filter(None, readme.splitlines())
    assert len(units) == 2
    for what, unit in zip(("input", "output"), units, strict=True):
        assert re.fullmatch(rf"1 of the {what} stands for \d+(\.\d+)?\.", unit)
    command = line.partition(": ")[2]
    assert "iverilog" in command
    last = bench_lines(f"{command} +only=4", digits.out)[-1]
    assert re.fullmatch(r"PASS: \d+ results compared, 0 mismatches", last)


@needs_icarus
def test_the_testbench_loads_codes(tmp_path):
    made = Loaded()
    for folder in ("verilog", "vectors"):
        (tmp_path / folder).mkdir()
    x = np.random.default_rng(1).integers(0, 256, (6, 10))
    expected = np.array([made.compute(frame) for frame in x])
    image = Image(tuple(made.specs), tuple(made.images))
    image.write(tmp_path)
    for name, text in export_accelerator(made.graph, made.images).items():
        (tmp_path / "verilog" / name).write_text(text)
    for name, values, form in (("input", x, made.input), ("b", expected, made.output)):
        bits = form.format.bits
        text = hex_text(pack_frames(values, form.format, 1), bits)
        (tmp_path / "vectors" / f"{name}.hex").write_text(text)
    interval = time_chain(made.specs, made.images).interval_cycles
    plan = SimpleNamespace(interval_cycles=interval, graph=made.graph)
    write_testbench(tmp_path, image, plan, len(x), "b")
    line = (tmp_path / "testbench" / "README.txt").read_text()
    command = line.partition(": ")[2].strip().replace("/tmp/tb", "../tb")
    for number in (1, 4):
        assert bench_lines(f"{command} +only={number}", tmp_path)[-1].startswith("PASS: ")
