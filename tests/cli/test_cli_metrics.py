"""What verbs say of labels: the metric by its name, why it is that one, and what was asked for."""

import io
import os
import sys
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import pytest
from cli_tools import MODEL, refused, run, twin
from onnx import helper
from onnx_graphs import graph_model, save

import pvq_hw
from pvq_hw.cli.scores import tell_scores
from pvq_hw.cli.ui import Ui


def test_simulate_names_the_metric_of_targets(digits, tmp_path):
    out, test = twin(digits.out, tmp_path / "out"), pvq_hw.load_data(digits.test)
    np.savez(tmp_path / "targets.npz", x=test.x[:2], y=np.zeros((2, 10)))
    args = ("--data", tmp_path / "targets.npz", "--simulator", "amaranth", "--stalls")
    ran = run("simulate", out, *args)  # with stalls there is no interval to wait for
    assert ran.code == 0, ran
    line, why = ran.out.splitlines()[-2:]
    assert line.split()[0] == "rmse"
    assert "%" not in line
    assert why.strip() == "(labels are values)"


def test_simulate_checks_labels_beyond_count(digits, tmp_path):
    out, test = twin(digits.out, tmp_path / "out"), pvq_hw.load_data(digits.test)
    y = test.y[:9].astype(int)
    y[-1] = 10
    np.savez(tmp_path / "late.npz", x=test.x[:9], y=y)
    text = "late.npz: Labels must be 0 to 9, the network's outputs"
    refused(tmp_path, text, "simulate", out, "--data", tmp_path / "late.npz", "--count", 1)


def test_dropped_operations_are_names_whatever_the_file_says(digits):
    network = pvq_hw.load(digits.out).network
    assert replace(network, meta={"dropped": ["Sigmoid"]}).dropped == ("Sigmoid",)
    assert replace(network, meta={"dropped": 5}).dropped == ()


def test_scores_are_said_alike_whichever_verb_says_them():
    found = {"metric": "auc", "why": "as asked for", "float": 0.98765, "pvq": 0.9, "frames": 1500}
    said = io.StringIO()
    with redirect_stdout(said):
        tell_scores(Ui(), found, {"float": "float", "pvq": "PVQ"})
        tell_scores(
            Ui(), found | {"metric": "accuracy", "reference": "given weights", "disagreements": 9,
                           "float": 98.0, "pvq": 97.6, "only_float": 7, "only_pvq": 1},
            {"float": "float", "pvq": "PVQ"}, "test frames",
        )  # fmt: skip
    assert said.getvalue().splitlines() == [
        "  auc                   float 0.9877, PVQ 0.9 on 1,500 frames",
        "                        (as asked for)",
        "  accuracy              given weights 98.00 % (1,470 right, 97.2 to 98.6), "
        "PVQ 97.60 % (1,464 right, 96.7 to 98.3) on 1,500 test frames; answers differ on 9",
        "                        right only in given weights on 7, only in PVQ on 1",
        "                        (as asked for; intervals of 95 %)",
    ]


@pytest.mark.parametrize("verb", ["compile", "simulate", "verify"])
def test_a_metric_is_asked_for_by_name(digits, tmp_path, verb):
    out, metric = tmp_path / "out", ("--metric", "auc")
    if verb == "compile":
        given = (MODEL, "--target", "icebreaker", "--quantizer", "plain", "--ratio", 1.5,
                 "--calibrate", digits.train, "--evaluate", digits.test, "-o", out)  # fmt: skip
    else:
        given = (twin(digits.out, out), "--data", digits.test)
        given += ("--simulator", "amaranth", "--count", 40) if verb == "simulate" else ()
        given += ("--model", MODEL) if verb == "verify" else ()
    ran = run(verb, *given, *metric)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    place = next(i for i, line in enumerate(lines) if line.split()[:1] == ["auc"])
    assert " 0.9" in lines[place]
    assert "%" not in lines[place]
    assert lines[place + 1].strip() == "(as asked for)"


def test_a_metric_needs_what_it_judges(digits, tmp_path):
    compiled = ("compile", MODEL, "--target", "icebreaker", "--calibrate", digits.train)
    text = "--metric must come with --evaluate TEST.npz"
    refused(tmp_path, text, *compiled, "-o", tmp_path / "out", "--metric", "auc")
    text = "--metric must come with --data DATA.npz"
    refused(tmp_path, text, "verify", digits.out, "--model", MODEL, "--metric", "auc")
    text = "Evaluation data: Metric must be accuracy, rmse, auc or module:function, not 'f1'"
    refused(tmp_path, text, *compiled, "-o", tmp_path / "out", "--evaluate", digits.test,
            "--metric", "f1")  # fmt: skip
    text = "test.npz: Metric must be accuracy"
    refused(tmp_path, text, "simulate", digits.out, "--data", digits.test, "--metric", "f1")
    test = pvq_hw.load_data(digits.test)
    order = np.argsort(test.y)
    np.savez(tmp_path / "sorted.npz", x=test.x[order], y=test.y[order])
    text = "sorted.npz: AUC must have frames of at least two classes"
    refused(tmp_path, text, "simulate", digits.out, "--data", tmp_path / "sorted.npz",
            "--metric", "auc", "--count", 5)  # fmt: skip


def test_an_autoencoder_with_class_labels_is_asked_for_targets(tmp_path):
    """The file's last operation is a Sigmoid, whose outputs the targets are compared with."""
    rng, node = np.random.default_rng(0), helper.make_node
    nodes = [node("Gemm", ["x", "w"], ["h"]), node("Relu", ["h"], ["r"]),
             node("Gemm", ["r", "v"], ["z"]), node("Sigmoid", ["z"], ["out"])]  # fmt: skip
    w = {"w": rng.normal(size=(24, 6)) / 4, "v": rng.normal(size=(6, 24)) / 2}
    model = save(tmp_path, graph_model(nodes, w, ("N", 24)))
    x = rng.random((40, 24))
    z = np.maximum(x @ w["w"].astype(np.float32), 0) @ w["v"].astype(np.float32)
    np.savez(tmp_path / "classes.npz", x=x, y=rng.integers(0, 10, 40))
    np.savez(tmp_path / "targets.npz", x=x, y=1 / (1 + np.exp(-z)))
    args = ("compile", model, "--target", "icebreaker", "--quantizer", "plain", "--ratio", 1,
            "-o", tmp_path / "out", "--calibrate", tmp_path / "classes.npz")  # fmt: skip
    text = "the network has 24 outputs, as many as inputs: give its targets as y"
    refused(tmp_path, text, *args, "--evaluate", tmp_path / "classes.npz")
    ran = run(*args, "--evaluate", tmp_path / "targets.npz", "--json")
    assert ran.code == 0, ran.err
    found = ran.json["accuracy"]
    assert (found["metric"], found["disagreements"]) == ("rmse", None)
    assert found["float"] < 1e-6
    assert 0 < found["pvq"] < 0.2


def test_float_is_the_trained_networks_figure(digits, tmp_path):
    """Weights that are codes already are called given, not float."""
    out = tmp_path / "out"
    network = pvq_hw.load(digits.out).network
    layers = [layer.gain * layer.y for layer in network.layers]
    biases = [x.bias / (1 << x.shift) * x.output.scale for x in network.layers]
    named = {f"{i}.weight": w for i, w in enumerate(layers)}
    np.savez(tmp_path / "tuned.npz", **named, **{f"{i}.bias": b for i, b in enumerate(biases)})
    ran = run(
        "compile", tmp_path / "tuned.npz", "--target", "icebreaker", "--quantizer", "given",
        "--calibrate", digits.train, "--evaluate", digits.test, "-o", out,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "  accuracy              given weights 9" in ran.out
    assert "float 9" not in ran.out
    page = (out / "report.html").read_text()
    assert "given weights 9" in page
    assert "float 9" not in page
    ran = run("verify", out, "--model", tmp_path / "tuned.npz", "--data", digits.test)
    assert "given weights 9" in ran.out, ran


def test_verify_judges_by_the_metric_that_was_asked_for_and_runs_no_code(digits, tmp_path):
    (tmp_path / "own.py").write_text("def judge(outputs, labels):\n    return 0.5\n")
    compiled = ("compile", MODEL, "--target", "icebreaker", "--quantizer", "plain", "--ratio",
                "1.5", "--calibrate", digits.train, "--evaluate", digits.test)  # fmt: skip
    checked = ("--model", MODEL, "--data", digits.test, "--json")
    out = tmp_path / "auc"
    assert run(*compiled, "--metric", "auc", "-o", out).code == 0
    ran = run("verify", out, *checked)
    assert (ran.code, ran.json["findings"]) == (0, [])
    out = tmp_path / "own"
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        assert run(*compiled, "--metric", "own:judge", "-o", out).code == 0
    finally:
        os.chdir(before)
        sys.modules.pop("own", None)
    ran = run("verify", out, *checked)
    assert (ran.code, ran.json["findings"]) == (0, [])
    assert "accuracy and losses, by a metric whose code is not run here" in ran.json["unchecked"]
    assert "own" not in sys.modules
