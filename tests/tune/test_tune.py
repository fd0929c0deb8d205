"""The search: same result however it runs, resumed or not; the chosen configuration compiles."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import numpy as np
import pytest
import tomli_w
from cli_tools import BUNDLED, MODEL, ROOT, run
from onnx import helper
from onnx_graphs import graph_model, save
from tune_cases import Here, here, write_case

from pvq_hw.errors import InputError, ToolError
from pvq_hw.evaluate.metrics import find_metric
from pvq_hw.flow.options import CompileOptions, LayerChoice, load_options
from pvq_hw.flow.options_toml import options_toml
from pvq_hw.model.load import load_model
from pvq_hw.progress import Steps
from pvq_hw.target.boards import get_target
from pvq_hw.tune.executor import process_runner
from pvq_hw.tune.search import TuneOptions, tune
from pvq_hw.tune.space import Space, SpaceLayer
from pvq_hw.tune.study import Goal, Trial, fronts, ranked, search
from pvq_hw.tune.trial import Job, Outcome, Task, split

FILES = ("config.toml", "report.html", "trials.json")
OPTIONS = TuneOptions("icebreaker", trials=12, min_accuracy=75.0, seed=3)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Model, data, and the folder and document of one search, run in this process."""
    folder = tmp_path_factory.mktemp("tune")
    model, data = write_case(folder)
    executor = Here()
    document = tune(model, data, folder / "out", OPTIONS, runner=here(executor))
    return model, data, folder / "out", document, executor


def test_a_search_writes_its_files(case):
    _, _, out, document, executor = case
    assert sorted(os.listdir(out)) == sorted((*FILES, ".lock", "trials.jsonl"))
    assert json.loads((out / "trials.json").read_text()) == json.loads(json.dumps(document))
    assert [t["number"] for t in document["trials"]] == list(range(12))
    assert document["ok"]
    assert document["frames"] == {"calibration": 120, "validation": 40}
    assert len({job.key for job in executor.jobs}) == len(executor.jobs)  # nothing is tried twice
    assert all(len(points) >= 3 for points in document["sensitivity"].values())


def test_choice_is_the_cheapest_that_meets_the_bound(case):
    document = case[3]
    good = [
        t for t in document["trials"]
        if t["state"] == "COMPLETE" and t["figures"]["metric"] >= 75.0
    ]  # fmt: skip

    def cost(trial):
        """Of equally fast and small ones the better; layers in wires have no code bits."""
        found = trial["figures"]
        return found["interval_cycles"], found["code_bits"], -found["metric"], trial["number"]

    assert document["chosen"] == min(good, key=cost)["number"]


def test_compile_takes_the_chosen_configuration(case, tmp_path):
    model, data, out, document, _ = case
    ran = run(
        "compile", model, "--config", out / "config.toml", "--calibrate", data, "--json", "-o",
        tmp_path / "acc",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    final = document["final"]["figures"]
    for key in ("interval_cycles", "latency_cycles", "bits_per_weight", "inferences_per_second"):
        assert ran.json[key] == final[key]
    assert ran.json["n_over_k"] == pytest.approx(final["n_over_k"], rel=1e-5)
    assert ran.json["energy"]["nj_per_inference"] == final["energy_nj"]
    assert ran.json["resources"]["luts"] == final["luts"]


@pytest.mark.parametrize("after", [2, 13])
def test_resumed_search_gives_the_same_files(case, tmp_path, after):
    model, data, out, _, executor = case
    first = Here(break_after=after)
    with pytest.raises(KeyboardInterrupt, match="--resume goes on from there"):
        tune(model, data, tmp_path / "out", OPTIONS, runner=here(first))
    assert (tmp_path / "out" / "trials.jsonl").read_text().count("\n") == 1 + after
    assert sorted(os.listdir(tmp_path / "out")) == [".lock", "trials.jsonl"]
    with (tmp_path / "out" / "trials.jsonl").open("a") as file:
        file.write('{"job": {"lane')  # cut off by a kill
    again = Here()
    tune(model, data, tmp_path / "out", OPTIONS, runner=here(again), resume=True)
    assert contents(tmp_path / "out") == contents(out)
    assert len(again.jobs) == len(executor.jobs) - after


def test_finished_search_resumes_without_a_trial(case, tmp_path):
    model, data, out, _, _ = case
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "trials.jsonl").write_bytes((out / "trials.jsonl").read_bytes())
    again = Here()
    tune(model, data, tmp_path / "out", OPTIONS, runner=here(again), resume=True)
    assert not again.jobs
    assert contents(tmp_path / "out") == contents(out)


def test_result_does_not_depend_on_workers(case, tmp_path):
    model, data, out, _, _ = case
    ran = run(
        "tune", model, "--data", data, "--target", "icebreaker", "--trials", 12,
        "--min-accuracy", 75, "--seed", 3, "--workers", 2, "--json", "-o", tmp_path / "out",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.json["chosen"] == case[3]["chosen"]
    assert contents(tmp_path / "out") == contents(out)
    assert "12 of 12 best" in ran.err


def test_sampler_follows_the_seed_and_the_figures():
    """Made-up figures: fewer cycles for a higher N/K of the first layer, no accuracy lost."""
    space = Space((SpaceLayer("a", 8, 64), SpaceLayer("b", 8, 64)))
    goal = Goal(find_metric("accuracy", np.array([0]), 2), bound=50.0)

    def figures(params):
        ratio, other = params["ratio.a"], params["ratio.b"]
        if other > 16:
            return Outcome(reason="too high")
        return Outcome(figures={
            "metric": 90.0 - other, "interval_cycles": round(1000 / ratio), "code_bits": 1,
            "luts": 1, "energy_nj": 1,
        })  # fmt: skip

    def params(seed, count=64):
        found = search(space, goal, lambda batch: [figures(p) for p in batch], count=count,
                       seed=seed)  # fmt: skip
        return [dict(trial.params) for trial in found]

    first = params(1)
    assert params(2, 20) != first[:20]
    assert params(1, 20) == first[:20]  # whole batches: more trials go on where fewer ended
    late = np.mean([p["ratio.a"] for p in first[-24:]])
    assert late > 10  # 7.6 without knowledge: even on the log scale from 0.5 to 32
    assert {len(p) for p in first} == {8}  # two encodings, N/K, units; widths, lanes


def test_failures_are_results(case, tmp_path):
    model, data, _, _, _ = case
    options = TuneOptions("icebreaker", trials=3, metric="failing_metric:never")
    (tmp_path / "failing_metric.py").write_text(
        "calls = []\n"
        "def never(values, y):\n"
        "    calls.append(1)\n"
        "    if len(calls) > 1:\n"
        "        raise ZeroDivisionError('of <b>mine</b>')\n"
        "    return 1.0\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        document = tune(model, data, tmp_path / "out", options, runner=here())
    finally:
        sys.path.remove(str(tmp_path))
    assert document["failed"] == 3
    assert document["chosen"] is None
    assert not document["ok"]
    assert {t["state"] for t in document["trials"]} == {"FAIL"}
    assert document["trials"][0]["reason"] == (
        "Metric 'failing_metric:never' fails on the outputs: ZeroDivisionError: of <b>mine</b>"
    )
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>mine" not in page
    assert "of &lt;b&gt;mine&lt;/b&gt;" in page
    assert not (tmp_path / "out" / "config.toml").exists()


def test_page_stands_alone(case):
    page = (case[2] / "report.html").read_text()
    for foreign in ("<script", "http:", "https:", "@import", "<link", "<img", "src="):
        assert foreign not in page
    assert page.count('<div class="panels"') == 3
    ratio = case[3]["trials"][case[3]["chosen"]]["figures"]["n_over_k"]
    # In each of the fronts, and of the curves over N/K where there is one.
    assert page.count('class="chosen"><title>') == (8 if ratio else 4)


def test_names_are_escaped(case, tmp_path):
    from pvq_hw.tune.report import write_page

    document = json.loads((case[2] / "trials.json").read_text())
    bad = "<script>alert(1)</script>"
    document["sensitivity"] = {bad: document["sensitivity"]["fc0"]}
    document["model"] = bad
    document["metric"]["name"] = bad
    write_page(tmp_path / "page.html", document)
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 5


# -- parts ------------------------------------------------------------------------------------


def made(number, metric, cycles, bits=10):
    figures = {"metric": metric, "interval_cycles": cycles, "code_bits": bits, "luts": 1,
               "energy_nj": 1}  # fmt: skip
    return Trial(number, {}, Outcome(figures=figures))


def test_a_board_of_a_file_goes_with_the_search(tmp_path):
    values = {
        "name": "own", "board": "Own", "device": "iCE40HX8K", "package": "CT256",
        "clock_mhz": 48.0, "baud": 115200, "link": "wires", "source": "none",
        "oscillator": {"mhz": 12.0}, "pins": {"clk": "J3", "rx": "B10", "tx": "B12"},
    }  # fmt: skip
    path = tmp_path / "own.toml"
    path.write_text(tomli_w.dumps(values))
    board = get_target(str(path))
    task = Task("m", "d", "0", "1", 1.0, None, 0)
    job = Job(replace(task, board=board.definition), CompileOptions(target=str(path)))
    path.unlink()
    assert job.task.target(job.options.target) == board
    slower = replace(job.task, board=json.dumps(values | {"baud": 9600}))
    assert replace(job, task=slower).key != job.key
    assert "board" not in json.loads(Job(task, CompileOptions(target="hx8k")).key)["task"]


def test_ranking():
    accuracy = find_metric("accuracy", np.array([0]), 2)
    trials = [
        made(0, 99.0, 900), made(1, 97.0, 300), made(2, 97.5, 300, 9), made(3, 90.0, 100),
        Trial(4, {}, Outcome(reason="too large")),
    ]  # fmt: skip

    def order(**goal):
        return [t.number for t in ranked(trials, Goal(accuracy, **goal))]

    assert order() == [0, 2, 1, 3]  # the best metric
    assert order(bound=97.0) == [2, 1, 0, 3]  # fewest cycles, then bits
    assert order(bound=99.5) == [0, 2, 1, 3]  # not met: the best metric
    assert order(budget_cycles=300) == [2, 1, 3, 0]
    assert order(bound=98.0, budget_cycles=300) == [2, 1, 3, 0]
    reckoned = {0: 0.4, 1: 2.0, 2: 0.9, 3: -1.0}
    trials = [
        replace(t, outcome=replace(t.outcome, figures=t.figures | {"reckoned_loss": loss}))
        for t, loss in zip(trials, reckoned.values(), strict=False)
    ]
    assert order(bound=98.0, most_loss=1.0) == [3, 2, 0, 1]  # not by what was counted
    goal = Goal(accuracy, bound=98.0, most_loss=1.0)
    assert goal.met_on_test(97.0, 96.0)  # against the float model on the same data
    assert not goal.met_on_test(99.5, 98.2)
    assert not Goal(accuracy, bound=98.0).met_on_test(97.0, 96.0)
    rmse = find_metric("rmse", np.array([0.0]), 1)
    assert [t.number for t in ranked(trials, Goal(rmse, bound=97.2))] == [3, 1, 2, 0]


def test_fronts():
    accuracy = find_metric("accuracy", np.array([0]), 2)
    trials = [made(0, 99.0, 900), made(1, 97.0, 300), made(2, 97.5, 300), made(3, 96.0, 400)]
    assert fronts(trials, Goal(accuracy))["interval_cycles"] == [2, 0]


def test_split_is_disjoint_and_whole():
    from pvq_hw.data.dataset import Data

    x = np.arange(41)
    first, second = split(Data(x, x), 7)
    assert (len(first), len(second)) == (31, 10)
    assert np.array_equal(np.sort(np.concatenate((first.x, second.x))), x)
    assert not np.array_equal(second.x, split(Data(x, x), 8)[1].x)
    with pytest.raises(InputError, match="at least 8 frames, not 7"):
        split(Data(x[:7], x[:7]), 0)


def test_toml_reads_back(tmp_path):
    options = CompileOptions(
        "hx8k", 3.25, input_scale=255.0, lanes=(4, 2), seed=9,
        layers={
            'a "b"\\\x7f\n': LayerChoice(ratio=2.5, unit=16),
            "ü.c": LayerChoice(k=3, unit="layer", encoding="pvq"),
        },
    )  # fmt: skip
    path = tmp_path / "c.toml"
    path.write_text(options_toml(options), encoding="utf-8")
    assert load_options(path, {}) == options


def test_workers_have_ended_and_their_seconds_count_when_a_runner_stops():
    with process_runner(1) as runner:
        executor = runner.start()
        worker = executor.submit(os.getpid).result()
        runner.stop(executor)
        with pytest.raises(ChildProcessError):  # nobody is left to wait for
            os.waitpid(worker, os.WNOHANG)


def test_dead_workers_are_replaced_then_given_up(case, tmp_path):
    from pvq_hw.tune.executor import Runner

    model, data, out, _, _ = case
    made = []

    def start():
        made.append(Here(break_after=9, error=lambda: BrokenProcessPool("died")))
        return made[-1]

    tune(model, data, tmp_path / "out", OPTIONS, runner=Runner(start))
    assert contents(tmp_path / "out") == contents(out)
    assert len(made) > 2
    with pytest.raises(ToolError, match="must live to its end, but died 3 times"):
        tune(
            model, data, tmp_path / "other", OPTIONS,
            runner=here(Here(break_after=0, error=lambda: BrokenProcessPool("died"))),
        )  # fmt: skip


# -- refusals ---------------------------------------------------------------------------------


def refused(text, *args):
    ran = run("tune", *args)
    assert ran.code == 2, ran
    assert text in ran.complaint


def test_refusals(case, tmp_path):
    model, data, _, _, _ = case
    rest = ("--target", "icebreaker", "-o", tmp_path / "out")
    bare = tmp_path / "bare.npz"
    np.savez(bare, x=np.ones((20, 12)))
    refused("must have labels y", model, "--data", bare, *rest)
    refused("Trials must be at least 1, not 0", model, "--data", data, "--trials", 0, *rest)
    refused("Workers must be at least 1", model, "--data", data, "--workers", 0, *rest)
    refused("Seed must be 0 to 2**32 - 1, not -1", model, "--data", data, "--seed", -1, *rest)
    refused("Input scale must be", model, "--data", data, "--input-scale", "nan", *rest)
    refused("Budget must be at least 1", model, "--data", data, "--budget-cycles", 0, *rest)
    refused("Metric must be accuracy, rmse", model, "--data", data, "--metric", "f1", *rest)
    refused("is unknown", model, "--data", data, "--target", "nexys", "-o", tmp_path / "o")
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    refused("must be empty or a folder of pvq-hw tune", model, "--data", data, "--target",
            "icebreaker", "-o", tmp_path / "full")  # fmt: skip
    assert (tmp_path / "full" / "thesis.tex").exists()


def test_unfinished_search_is_not_thrown_away(case, tmp_path):
    model, data, out, _, _ = case
    place = tmp_path / "out"
    place.mkdir()
    journal = (out / "trials.jsonl").read_bytes()
    (place / "trials.jsonl").write_bytes(journal)
    args = (model, "--data", data, "--target", "icebreaker", "-o", place)
    refused("holds an unfinished search; go on with --resume", *args)
    assert (place / "trials.jsonl").read_bytes() == journal
    for bad, message in (
        (b"[1]\n", "line 1 must be a journal of pvq-hw tune, not [1]"),
        (journal + b'{"job": 1}\n', ": outcome is missing"),
        (b'{"format": "x"}\n', "must be a journal of pvq-hw tune, of format 'pvq-hw tune journal'"),
    ):
        (place / "trials.jsonl").write_bytes(bad)
        refused(message, *args, "--resume")


def test_missing_packages_are_one_line(case, tmp_path, monkeypatch):
    model, data, _, _, _ = case
    args = (model, "--data", data, "--target", "icebreaker", "-o", tmp_path / "out")
    import importlib.util

    find = importlib.util.find_spec
    for name, extra, more in (("optuna", "tune", ()), ("distributed", "dask", ("--dask", "x"))):
        monkeypatch.setattr(
            importlib.util, "find_spec",
            lambda asked, *rest, name=name: None if asked == name else find(asked, *rest),
        )  # fmt: skip
        refused(f"package {name}; pip install 'pvq-hw[{extra}]'", *args, *more)


def test_interrupt_is_one_line_and_resumes(tmp_path):
    """Ctrl-C reaches the whole group of processes, as a terminal sends it."""
    train = tmp_path / "train.npz"
    keys = "x_train,y_train"
    assert run("data", BUNDLED / "digits.npz", "--keys", keys, "-o", train).code == 0
    out = tmp_path / "out"
    argv = [sys.executable, "-m", "pvq_hw", "tune", MODEL, "--data", train, "--target",
            "icebreaker", "--trials", "400", "--workers", "2", "-o", out]  # fmt: skip
    child = subprocess.Popen(
        [str(a) for a in argv], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        journal = out / "trials.jsonl"
        limit = time.monotonic() + 120
        while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
            assert time.monotonic() < limit
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.1)
        os.killpg(child.pid, signal.SIGINT)
        _, err = child.communicate(timeout=600)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    assert child.returncode == 130
    said = [line for line in err.splitlines() if not line.startswith(("==>", "    "))]
    assert len(said) == 1, err
    assert "interrupted; " in said[0]
    assert "trials are kept, --resume goes on from there" in said[0]
    kept = journal.read_bytes()
    assert kept.endswith(b"\n")
    assert kept.count(b"\n") >= 3


@pytest.mark.parametrize("metric", ["rmse", "tune_cases:spread_metric"])
def test_other_metrics_drive_the_search(tmp_path, metric):
    model, data = write_case(tmp_path)
    if metric == "rmse":
        x = np.load(data)["x"]
        np.savez(data, x=x, y=load_model(model).predict(x))
    options = TuneOptions("icebreaker", trials=4, metric=metric)
    document = tune(model, data, tmp_path / "out", options, runner=here(), evaluate=data)
    assert document["metric"] == {"name": metric, "why": "as asked for", "higher_is_better": False}
    values = [t["figures"]["metric"] for t in document["trials"] if t["state"] == "COMPLETE"]
    assert len(set(values)) > 1
    assert document["trials"][document["chosen"]]["figures"]["metric"] == min(values)
    assert document["final"]["evaluation"]["frames"] == 160
    points = document["sensitivity"]["fc0"]
    assert points[0]["output_error"] < points[-1]["output_error"]


def test_integers_that_were_to_be_divided_are_told_of(tmp_path, monkeypatch):
    """`tune` says so before it searches, as `compile` does before it quantizes."""
    notes = []

    class Told(Steps):
        def note(self, text):
            notes.append(text)

    monkeypatch.setattr(
        "pvq_hw.tune.search.scale_warning", lambda model, data: f"warning: {len(data)}"
    )
    monkeypatch.setattr("pvq_hw.tune.search.Journal", lambda *a: pytest.fail(notes[0]))
    model, data = write_case(tmp_path)
    with pytest.raises(pytest.fail.Exception, match="warning: 160"):
        tune(model, data, tmp_path / "o", TuneOptions("hx8k"), runner=here(), steps=Told())


def test_labels_of_one_of_several_outputs_drive_the_search(tmp_path):
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "v"], ["size"]),
        helper.make_node("Gemm", ["r", "u"], ["class"]),
    ]  # fmt: skip
    constants = {name: rng.normal(size=s) for name, s in (("w", (6, 8)), ("v", (8, 3)),
                                                          ("u", (8, 3)))}  # fmt: skip
    proto = graph_model(nodes, constants, ("N", 6), output="size")
    proto.graph.output.append(helper.make_tensor_value_info("class", 11, None))
    path, x = save(tmp_path, proto), rng.normal(size=(120, 6))
    y = load_model(path).predict(x)[:, 3:].argmax(axis=1)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    options = TuneOptions("hx8k", trials=1, workers=1)
    with pytest.raises(InputError, match="one of the outputs 'size', 'class'"):
        tune(path, tmp_path / "d.npz", tmp_path / "o", options, runner=here())
    options = replace(options, output="class")
    found = tune(path, tmp_path / "d.npz", tmp_path / "o", options, runner=here())
    assert (found["float"], found["metric"]["why"]) == (
        100.0, "labels are class numbers, output 'class'",
    )  # fmt: skip
    assert found["trials"][0]["figures"]["metric"] > 50
    assert 'output = "class"' in (tmp_path / "o" / "config.toml").read_text()


def test_a_search_within_a_loss_starts_from_what_compile_chooses(case, tmp_path):
    model, data = case[:2]
    ran = run(
        "tune", model, "--data", data, "--target", "icebreaker", "--trials", 2, "--max-loss", 12,
        "--workers", 1, "--json", "-o", tmp_path / "out",
    )  # fmt: skip
    assert ran.code in (0, 1), ran.err
    document = json.loads((tmp_path / "out" / "trials.json").read_text())
    start = document["start"]
    taken = start["trials"][start["chosen"]]
    assert (start["max_loss"], start["aim"], start["frames"]) == (12, True, 24)
    assert document["options"]["min_accuracy"] == document["float"] - 12
    chosen = document["trials"][document["chosen"]]
    assert document["met"]["validation"] == (chosen["figures"]["reckoned_loss"] <= 12)
    params, second = (trial["params"] for trial in document["trials"])
    plain = {n.split(".")[1] for n, v in params.items() if n[:9] == "encoding." and v == "int8"}
    assert plain == set(taken["int8_layers"])
    pulsed = [v for n, v in params.items() if n[:6] == "ratio." and n[6:] not in plain]
    assert taken["ratio"] is None or min(pulsed) * 0.99 <= taken["ratio"] <= max(pulsed) * 1.01
    assert (params["lanes"], params["activation_bits"]) == ("planned", 8)
    assert second != params
    assert (
        "2 configurations, the first as compile --max-loss 12 chooses,"
        in (tmp_path / "out" / "report.html").read_text()
    )
    with pytest.raises(InputError, match="Either a loss or an accuracy must be given, not both"):
        replace(OPTIONS, max_loss=1.0)
    with pytest.raises(InputError, match="Loss must be 0 to 100, not -1"):
        TuneOptions("icebreaker", max_loss=-1)
    own = TuneOptions("icebreaker", max_loss=1.0, metric="tune_cases:spread_metric")
    with pytest.raises(InputError, match="that are classes, not with tune_cases:spread"):
        tune(model, data, tmp_path / "o", own)
