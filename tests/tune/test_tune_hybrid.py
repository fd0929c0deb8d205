"""The search over encodings, and place and route of its finalists."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from cli_tools import run
from tune_cases import here, write_case

import pvq_hw.tune.search as module
from pvq_hw.data.dataset import load_data
from pvq_hw.errors import CheckError, InputError
from pvq_hw.evaluate.metrics import find_metric
from pvq_hw.flow.options import CompileOptions, LayerChoice, load_options
from pvq_hw.flow.options_toml import options_toml
from pvq_hw.output.accelerator import Accelerator
from pvq_hw.progress import Steps
from pvq_hw.tune.finalists import build_finalist, finalists
from pvq_hw.tune.search import TuneOptions, tune
from pvq_hw.tune.space import Space, SpaceLayer
from pvq_hw.tune.study import Goal, Trial
from pvq_hw.tune.trial import Job, Outcome, Task, evaluate_trial

SPACE = Space((SpaceLayer("a", 8, 64), SpaceLayer("b", 4, 8)))
BASE = CompileOptions(target="hx8k")
GOAL = Goal(find_metric("accuracy", np.array([0]), 2))


def test_choices_of_encodings_become_options(tmp_path):
    params = SPACE.params({"a": 4.0})
    assert params["encoding.b"] == "int8"
    options = SPACE.options(params, BASE)
    assert options.layers == {"a": LayerChoice(ratio=4.0), "b": LayerChoice(encoding="int8")}
    assert options.ratio == 4.0  # of the layers with pulses alone
    everything = SPACE.options(SPACE.params({}), BASE)
    assert {x.encoding for x in everything.layers.values()} == {"int8"}
    assert everything.ratio == BASE.ratio
    (tmp_path / "config.toml").write_text(options_toml(options))
    assert load_options(tmp_path / "config.toml", {}) == options


def test_starts_hold_plain_layers_where_pulses_do_not_pay():
    errors = {"a": [(0.5, 0.001), (4.0, 0.01), (16.0, 0.5)], "b": [(0.125, 0.04), (2.0, 0.3)]}
    starts = SPACE.starts(errors)
    assert SPACE.params({}) in starts
    assert SPACE.params({"a": 4.0}) in starts
    assert SPACE.params({"a": 4.0, "b": 0.125}) in starts


def _trial(number, metric, cycles, luts):
    figures = {"metric": metric, "interval_cycles": cycles, "luts": luts, "code_bits": cycles,
               "energy_nj": luts}  # fmt: skip
    return Trial(number, {}, Outcome(figures=figures))


def test_finalists_are_of_the_fronts_and_differ():
    trials = [
        _trial(0, 98.0, 100, 50),
        _trial(1, 98.0, 100, 50),  # the same circuit in size and speed
        _trial(2, 90.0, 10, 60),
        _trial(3, 89.0, 120, 70),  # on no front
        Trial(4, {}, Outcome(reason="does not fit")),
        _trial(5, 97.0, 50, 90),
    ]
    assert [t.number for t in finalists(trials, GOAL, 3)] == [0, 5, 2]
    assert [t.number for t in finalists(trials, GOAL, 9)] == [0, 5, 2, 3]
    assert finalists(trials, GOAL, 0) == []


BUILT = {
    "clock_mhz": 12, "fmax_mhz": 33.25, "interval_cycles": 100, "inferences_per_second": 120000.0,
    "seeds": [{"seed": s, "fmax_mhz": f, "met": True} for s, f in ((1, 31.5), (2, 33.25))],
    "estimated": {"luts": 900, "brams": 3, "dsps": 0}, "used": {"luts": 912, "brams": 3, "dsps": 0},
    "bitstream": "top.bin",
}  # fmt: skip


def test_finalists_are_built_once_and_failures_are_results(tmp_path, monkeypatch):
    model, data = write_case(tmp_path)
    options = TuneOptions("hx8k", trials=8, seed=3, build_finalists=2, seeds=2)
    calls = []

    def build(model, out, chosen, calibration, evaluation, seeds, steps, metric):
        calls.append((out.name, seeds))
        return dict(BUILT) if len(calls) == 1 else {"reason": "Timing is <b>not</b> met"}

    monkeypatch.setattr(module, "build_finalist", build)
    document = tune(model, data, tmp_path / "out", options, runner=here())
    first, second = document["finalists"]
    assert calls == [(str(first["number"]), 2), (str(second["number"]), 2)]
    assert first["fmax_mhz"] == 33.25
    assert second["reason"] == "Timing is <b>not</b> met"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "33.2 (31.5, 33.2)" in page
    assert "912 (900)" in page
    assert "Timing is &lt;b&gt;not&lt;/b&gt; met" in page
    again = tune(model, data, tmp_path / "out", options, runner=here(), resume=True)
    assert len(calls) == 2
    assert again == document
    assert json.loads((tmp_path / "out" / "trials.json").read_text())["finalists"][0] == first


def test_a_finalist_is_compiled_and_built_with_every_seed(tmp_path, monkeypatch):
    model, data = write_case(tmp_path)
    asked = []

    def build(self, *, seeds, steps, every_seed):
        asked.append((list(seeds), every_seed))
        if len(asked) > 1:
            raise CheckError("Timing must be met")
        attempts = [{"seed": s, "fmax_mhz": 20.0 + s, "met": True, "seconds": 1} for s in seeds]
        return {
            "clock_mhz": 12.0, "fmax_mhz": 23.0, "seeds": attempts, "bitstream": "top.bin",
            "inferences_per_second": 5.0,
            "utilization": {"ICESTORM_LC": {"used": 7, "available": 9}},
        }  # fmt: skip

    monkeypatch.setattr(Accelerator, "build", build)
    options = CompileOptions(target="hx8k", ratio=2)
    common = (options, load_data(data, 1.0), None, 3, Steps())
    found = build_finalist(model, tmp_path / "a", *common)
    assert asked == [([1, 2, 3], True)]
    assert found["fmax_mhz"] == 22.0  # the median
    assert found["used"] == {"luts": 7, "brams": 0, "dsps": 0}
    assert found["estimated"]["luts"] > 0
    assert build_finalist(model, tmp_path / "b", *common) == {"reason": "Timing must be met"}


def test_refusals():
    with pytest.raises(InputError, match="Finalists must be 0 to 100, not -1"):
        TuneOptions("hx8k", build_finalists=-1)
    with pytest.raises(InputError, match="Seeds must be 1 to 100, not 0"):
        TuneOptions("hx8k", seeds=0)
    assert "--build-finalists" in run("tune", "--help").out


def test_layers_are_unrolled_unless_lanes_are_fewer_or_all_are_to_be_folded(tmp_path):
    model, data = write_case(tmp_path)
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (model, data)]
    task = Task(str(model), str(data), *hashes, 1.0, None, 0)
    found = {}
    for engine in ("auto", "folded"):
        base = TuneOptions(target="ulx3s-25f", engine=engine).base
        for share in (1, 2):
            job = Job(task, replace(base, ratio=0.25), share)
            found[engine, share] = evaluate_trial(job).figures["interval_cycles"]
    assert found["auto", 1] < 0.9 * found["folded", 1]
    assert found["auto", 2] == found["folded", 2] > found["folded", 1]
    with pytest.raises(InputError, match="Engine of a search must be auto or folded, not 'wires'"):
        TuneOptions(target="ulx3s-25f", engine="wires")
