"""``--junit`` and ``init``: what continuous integration is given, run as it would."""

import shutil
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
import tomli_w
import yaml
from cli_tools import MODEL, ROOT, refused, run, twin
from some_boards import STICK

from pvq_hw.cli.junit import write_junit
from pvq_hw.data.dataset import load_data
from pvq_hw.flow.options import load_options
from pvq_hw.model.load import load_model
from pvq_hw.target.boards import get_target


def case(path):
    """(suite's counts, test case) of a file."""
    root = ElementTree.parse(path).getroot()
    (suite,) = root
    (test,) = suite
    return {k: int(root.get(k)) for k in ("tests", "failures", "errors")}, test


def test_a_check_that_passes_and_one_that_fails(digits, tmp_path):
    out, junit = twin(digits.out, tmp_path / "out"), tmp_path / "j.xml"
    assert run("verify", out, "--junit", junit).code == 0
    counts, test = case(junit)
    assert counts == {"tests": 1, "failures": 0, "errors": 0}
    assert (test.get("classname"), test.get("name"), list(test)) == ("pvq-hw.verify", str(out), [])
    assert float(test.get("time")) > 0
    (out / "vectors" / "input.hex").write_text("00\n")
    assert run("verify", out, "--junit", junit).code == 1
    counts, test = case(junit)
    assert counts["failures"] == 1
    assert "vectors/input.hex" in test[0].get("message")
    assert run("report", tmp_path / "none", "--junit", junit).code == 2
    counts, test = case(junit)
    assert (counts["errors"], test[0].tag) == (1, "error")
    assert "must exist; run pvq-hw compile first" in test[0].text


def test_a_file_that_can_not_be_written_is_said_before_the_work(digits, tmp_path):
    refused(tmp_path, "must be a file in a folder that exists", "compile", MODEL, "--target",
            "icebreaker", "-o", tmp_path / "out", "--junit", tmp_path / "no" / "j.xml")  # fmt: skip
    refused(tmp_path, "must be a file in a folder that exists", "report", digits.out, "--junit",
            tmp_path)  # fmt: skip
    refused(tmp_path, "can't be written: File name too long", "report", digits.out, "--junit",
            "a" * 5000)  # fmt: skip


def test_what_xml_can_not_say_is_replaced(tmp_path):
    path = tmp_path / "j.xml"
    write_junit(path, "verify", 'a\x00b\ud800<&">', 1, 0.0, {"findings": ["\x1b[31m\ufffe]]>"]})
    _, test = case(path)
    assert test.get("name") == 'a?b?<&">'
    assert test[0].text == "?[31m?]]>"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ci") / "project"
    ran = run("init", folder)
    assert ran.code == 0, ran.err
    return folder


def make(folder, *targets):
    args = ["make", "-C", str(folder), f"PVQ={sys.executable} -m pvq_hw", "COUNT=2", *targets]
    env = {"PATH": f"{ROOT / '.venv' / 'bin'}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        args, capture_output=True, text=True, env={**__import__("os").environ, **env}
    )


def test_the_project_runs_its_own_steps(project):
    ran = make(project, "check")
    assert ran.returncode == 0, ran.stderr
    for name in ("compile", "simulate", "verify"):
        counts, _ = case(project / "results" / f"{name}.xml")
        assert counts == {"tests": 1, "failures": 0, "errors": 0}
    assert (project / "out" / "report.html").exists()
    made = ran.stdout
    assert "2 frames" in made


def test_a_network_below_the_threshold_stops_it(project, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("out", "results"))
    text = (folder / "pvq.toml").read_text()
    assert "min_accuracy = 95.0" in text
    text = text.replace("min_accuracy = 95.0", "min_accuracy = 99.9")
    (folder / "pvq.toml").write_text(text.replace("ratio = 1.5", "ratio = 30.0"))
    assert make(folder, "check").returncode != 0
    counts, test = case(folder / "results" / "compile.xml")
    assert counts["failures"] == 1
    assert "Accuracy must be at least 99.9 %" in test[0].get("message")
    assert not (folder / "out").exists()


def test_a_full_disk_leaves_no_half_project(tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pvq_hw.flow.project.shutil.copyfile", full)
    refused(tmp_path, "can't be written into: No space left", "init", tmp_path / "new")
    (tmp_path / "empty").mkdir()
    refused(tmp_path, "can't be written into: No space left", "init", tmp_path / "empty")


def test_the_workflows_call_steps_that_exist(project):
    github = yaml.safe_load((project / ".github" / "workflows" / "pvq.yml").read_text())
    gitlab = yaml.safe_load((project / ".gitlab-ci.yml").read_text())
    steps = [s["run"] for s in github["jobs"]["accelerator"]["steps"] if "run" in s]
    for commands in (steps, gitlab["accelerator"]["script"]):
        (called,) = [c for c in commands if c.startswith("make")]
        for target in called.split()[1:]:
            ran = make(project, "-n", target)
            assert ran.returncode == 0, ran.stderr
    assert gitlab["accelerator"]["artifacts"]["reports"]["junit"] == "results/*.xml"


def test_init_refuses_what_would_fail_later(project, digits, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("")
    refused(tmp_path, "must be a new or an empty folder", "init", full)
    new = tmp_path / "new"
    refused(tmp_path, "needs --model, --train and --test, or none", "init", new, "--model", MODEL)
    all_of_it = ("--model", MODEL, "--train", digits.train, "--test", digits.test)
    refused(tmp_path, "unknown", "init", new, *all_of_it, "--target", "icebreakr")
    refused(tmp_path, "Accuracy must be 0 to 100", "init", new, *all_of_it, "--min-accuracy", 120)
    refused(tmp_path, "N/K must be", "init", new, *all_of_it, "--ratio", 0)
    assert not new.exists()
    assert run("init", new, *all_of_it, "--target", "hx8k", "--ratio", 2).code == 0
    assert "min_accuracy =" not in (new / "pvq.toml").read_text()


def test_a_project_has_all_of_its_model_and_its_board(digits, tmp_path):
    """Weights that lie beside a model file, and a board called as a file of the project."""
    model, board, new = tmp_path / "m.onnx", tmp_path / "stick.toml", tmp_path / "new"
    onnx.save(onnx.load(MODEL), model, save_as_external_data=True, size_threshold=0)
    assert len(list(tmp_path.iterdir())) > 1
    board.write_text(tomli_w.dumps(STICK | {"name": "pvq"}))
    ran = run("init", new, "--model", model, "--train", digits.train, "--test", digits.test,
              "--target", board, "--min-accuracy", 90)  # fmt: skip
    assert ran.code == 0, ran.err
    options = load_options(new / "pvq.toml", {})
    assert get_target(str(new / options.target)).name == "pvq"
    assert options.min_accuracy == 90
    x = load_data(digits.test).x[:20]
    made, given = load_model(new / "model.onnx"), load_model(MODEL)
    assert np.array_equal(made.predict(x), given.predict(x))
