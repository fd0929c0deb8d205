"""``--max-loss``: the choice keeps its word on inputs held out, and says what it tried."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from cli_tools import MODEL, refused, run
from onnx import helper
from onnx_graphs import graph_model, save

import pvq_hw
from pvq_hw import CheckError, Data, InputError
from pvq_hw.flow import choose as choosing
from pvq_hw.flow import reach as reaching
from pvq_hw.flow.compile import plan_for, quantize_for
from pvq_hw.flow.options import CompileOptions, load_options
from pvq_hw.model.load import load_model
from pvq_hw.target.boards import get_target


@pytest.fixture(scope="module")
def chosen(digits, tmp_path_factory):
    """The digits within a point, from the command line."""
    folder = tmp_path_factory.mktemp("chosen")
    ran = run("compile", MODEL, "--target", "icebreaker", "--calibrate", digits.train,
              "--max-loss", 1, "--json", "-o", folder / "out")  # fmt: skip
    assert ran.code == 0, ran.err
    return folder / "out", ran.json


def test_the_choice_loses_no_more_than_asked_and_is_the_best_that_does(chosen):
    _, document = chosen
    choice = document["choice"]
    assert (choice["unit"], choice["frames"], choice["calibration_frames"]) == (
        "points of accuracy", 259, 1038)  # fmt: skip
    taken = choice["trials"][choice["chosen"]]
    assert taken["full"]
    assert taken["reckoned_loss"] <= 1
    assert choice["trials"][0]["int8_layers"] == ["h", "logits"]
    assert taken["inferences_per_second"] > choice["trials"][0]["inferences_per_second"]
    for trial in choice["trials"]:
        if trial["full"] and trial["reckoned_loss"] <= 1:
            assert trial["inferences_per_second"] <= taken["inferences_per_second"]
    assert document["interval_cycles"] == taken["interval_cycles"]
    assert document["n_over_k"] >= taken["ratio"]


def choice_of(out):
    """The choice as the manifest keeps it."""
    return json.loads((out / "manifest.json").read_text())["extra"]["choice"]


def test_what_was_chosen_can_be_compiled_again_and_is_in_the_report(chosen, digits, tmp_path):
    out, document = chosen
    text = (out / "options.toml").read_text()
    assert text.startswith("# Chosen within --max-loss: ")
    options = load_options(out / "options.toml", {})
    assert options.max_loss is None
    assert options.ratio == document["choice"]["trials"][document["choice"]["chosen"]]["ratio"]
    page = (out / "report.html").read_text()
    assert "How it was chosen" in page
    assert "At most 1 points of accuracy on 259 calibration frames" in page
    assert '<svg class="chart"' in page
    assert 'class="point">1 8-bit</text>' in page
    assert page.count('class="point"') == len(choice_of(out)["trials"])
    assert run("verify", out).code == 0
    with (out / "options.toml").open("a") as file:
        file.write("# changed\n")
    ran = run("verify", out)
    assert (ran.code, "options.toml" in ran.out) == (1, True)


def _regression(tmp_path, head=None):
    rng = np.random.default_rng(4)
    shapes = {"a": (12, 8), "b": (8, 3)}
    constants = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["s"], name="first"),
        helper.make_node("Relu", ["s"], ["h"]),
        helper.make_node("MatMul", ["h", "b"], ["raw" if head else "out"], name="second"),
    ]
    if head:
        nodes.append(helper.make_node(head, ["raw"], ["out"]))
    model = graph_model(nodes, constants, (None, 12))
    onnx.checker.check_model(model)
    return load_model(save(tmp_path, model)), Data(rng.uniform(-1, 1, size=(100, 12)))


def _choose(model, data, **options):
    asked = CompileOptions(target="ulx3s-25f", **options)
    target = get_target(asked.target)
    return choosing.choose(model, target, asked, data, plan_for)


def test_without_labels_outputs_or_answers_are_compared(tmp_path):
    model, data = _regression(tmp_path)
    found = _choose(model, data, max_loss=4.0, objective="size")
    assert found.document["unit"] == "% output error"
    held = np.sort(np.random.default_rng([0, 0xC105E]).permutation(100)[:20])
    exact = model.predict(data.x[held])
    network = found.made.network
    real = network.real(network.predict(network.quantize_input(data.x[held])))
    error = np.sqrt(np.square(real.reshape(20, -1) - exact.reshape(20, -1)).mean())
    spread = np.sqrt(np.square(exact - exact.mean(axis=0)).mean())
    taken = found.document["trials"][found.document["chosen"]]
    assert taken["loss"] == pytest.approx(100 * error / spread, rel=1e-3)
    assert taken["loss"] <= 4
    within = [t for t in found.document["trials"] if t["full"] and t["loss"] <= 4]
    assert taken["luts"] == min(t["luts"] for t in within)
    model, data = _regression(tmp_path, "Softmax")
    assert _choose(model, data, max_loss=10.0).document["unit"] == "% of answers"


@pytest.mark.parametrize("asked", [
    {},
    {"engine": "shared"},
    {"layers": {"first": {"engine": "unrolled", "digit": 2}}},
    {"inferences_per_second": 1e6, "frames": "auto"},
    {"balanced": False, "keep_zeros": True},
])  # fmt: skip
def test_the_configuration_gives_the_same_engines_again(tmp_path, asked):
    model, data = _regression(tmp_path)
    options = load_options(None, {"target": "ulx3s-25f", "max_loss": 30.0, **asked})
    target = get_target(options.target)
    found = choosing.choose(model, target, options, data, plan_for)
    (tmp_path / "options.toml").write_text(found.document["config"])
    again = load_options(tmp_path / "options.toml", {}, calibrated=True)
    assert again == replace(found.options, objective="speed")
    held = np.sort(np.random.default_rng([0, 0xC105E]).permutation(100)[:20])
    made = reaching.reach(model, target, again, Data(np.delete(data.x, held, axis=0)), plan_for)
    assert made.plan.to_json() == found.made.plan.to_json()
    kinds = {(part.unrolled, getattr(part.spec, "digit", 0)) for part in made.plan.layers}
    assert ((True, 2) in kinds) == ("layers" in asked)
    assert (made.plan.shared is not None) == ("engine" in asked)


def test_inputs_held_out_calibrate_nothing(tmp_path, monkeypatch):
    model, data = _regression(tmp_path)
    seen = []

    def spy(model, target, options, calibration, progress=None, **more):
        seen.append(calibration.x)
        return quantize_for(model, target, options, calibration, progress, **more)

    monkeypatch.setattr(reaching, "quantize_for", spy)
    monkeypatch.setattr(choosing, "quantize_for", spy)
    _choose(model, data, max_loss=20.0)
    held = np.sort(np.random.default_rng([0, 0xC105E]).permutation(100)[:20])
    assert len(seen) > 3
    assert all(np.array_equal(x, np.delete(data.x, held, axis=0)) for x in seen)


def test_layers_of_the_users_choice_stay_as_they_are(tmp_path):
    model, data = _regression(tmp_path)
    asked = load_options(None, {"target": "ulx3s-25f", "max_loss": 50.0,
                                "layers": {"second": {"ratio": 1.0}}})  # fmt: skip
    found = choosing.choose(model, get_target("ulx3s-25f"), asked, data, plan_for)
    assert found.made.network.layers[-1].k.sum() == 24
    assert all("second" not in t["int8_layers"] for t in found.document["trials"])


@pytest.mark.parametrize("asked", [
    {"keep_zeros": True}, {"balanced": False}, {"layers": {"second": {"lanes": 2}}},
])  # fmt: skip
def test_layers_that_say_nothing_of_their_weights_are_chosen_for(tmp_path, asked):
    model, data = _regression(tmp_path)
    wanted = load_options(None, {"target": "ulx3s-25f", "max_loss": 50.0, **asked})
    found = choosing.choose(model, get_target("ulx3s-25f"), wanted, data, plan_for)
    plain, *others = found.document["trials"]
    assert plain["int8_layers"] == ["first", "second"]
    assert all(trial["ratio"] for trial in others if not trial["int8_layers"])
    assert len({trial["ratio"] for trial in others}) > 1


def test_what_can_not_be_reached_is_said_and_nothing_is_written(digits, tmp_path):
    model, data = _regression(tmp_path)
    with pytest.raises(CheckError, match=r"Loss must be at most 0\.001 % output error, but the "
                       r"least found on ulx3s-25f is "):  # fmt: skip
        _choose(model, data, max_loss=0.001)
    base = ("compile", MODEL, "--target", "icebreaker", "-o", tmp_path / "out", "--max-loss")
    refused(tmp_path, "--max-loss must come with --calibrate and at least 20 inputs to choose by, "
            "not 0; with fewer, give --ratio", *base, 1)  # fmt: skip
    refused(tmp_path, "Either a ratio or a loss must be given, not both", *base, 1, "--ratio", 2)
    refused(tmp_path, "Loss must be 0 to 100, not -1.0", *base, -1)
    refused(tmp_path, "must come with the calibrated quantizer", *base, 1, "--quantizer", "plain")
    with pytest.raises(InputError, match="Objective must be speed, latency, size or energy"):
        CompileOptions(objective="beauty")
    assert not (tmp_path / "out").exists()


def test_a_choice_that_fails_with_full_effort_is_passed_over(tmp_path, monkeypatch):
    """The loss of full quantizations is measured, not taken from the quick ones."""
    model, data = _regression(tmp_path)
    real = choosing.Search.trial
    full_ones = []

    def worse(self, ratio, int8, full):
        trial = real(self, ratio, int8, full)
        full_ones.extend([(ratio, int8)] * full)
        return replace(trial, reckoned=99.0) if full and len(full_ones) == 1 else trial

    monkeypatch.setattr(choosing.Search, "trial", worse)
    found = _choose(model, data, max_loss=90.0)
    taken = found.document["trials"][found.document["chosen"]]
    assert len(full_ones) > 1
    assert taken["loss"] <= 90
    assert (taken["ratio"] or 0.0, tuple(taken["int8_layers"])) == full_ones[-1] != full_ones[0]


def test_quick_trials_of_large_networks_are_reckoned_and_the_choice_is_planned(
    tmp_path, monkeypatch
):
    model, data = _regression(tmp_path)
    planned = _choose(model, data, max_loss=30.0).document
    monkeypatch.setattr(choosing, "LARGE", 0)
    reckoned = _choose(model, data, max_loss=30.0).document
    for trial in reckoned["trials"]:
        assert ("energy_nj" in trial) == bool(trial["full"] or not trial["ratio"])
    taken = reckoned["trials"][reckoned["chosen"]]
    assert (taken["full"], taken["loss"] <= 30) == (True, True)
    exact = {(t["ratio"], tuple(t["int8_layers"])): t for t in planned["trials"]}
    for trial in reckoned["trials"]:
        key = trial["ratio"], tuple(trial["int8_layers"])
        if key in exact and "energy_nj" not in trial:
            cycles = exact[key]["interval_cycles"]
            assert abs(trial["interval_cycles"] - cycles) <= max(8, 0.25 * cycles)
    real = choosing.Search.trial

    def slower(self, ratio, int8, full):
        """Pulses are slower than was reckoned."""
        trial = real(self, ratio, int8, full)
        rate = trial.figures["inferences_per_second"]
        if ratio:
            rate *= 1e-3 if full else 1e3
        return replace(trial, figures=trial.figures | {"inferences_per_second": rate})

    monkeypatch.setattr(choosing.Search, "trial", slower)
    found = _choose(model, data, max_loss=30.0).document
    taken = found["trials"][found["chosen"]]
    assert (taken["ratio"], taken["full"]) == (None, True)
    assert any(trial["full"] and trial["ratio"] for trial in found["trials"])


def test_pulses_are_added_until_they_are_enough(tmp_path, monkeypatch):
    """Full effort may lose far more than a quick trial says, and 8-bit weights may not fit."""
    model, data = _regression(tmp_path)
    monkeypatch.setattr(choosing, "LARGE", 0)
    real, too_dense = choosing.Search.trial, []

    def hard(self, ratio, int8, full):
        trial = real(self, ratio, int8, full)
        if not ratio or int8 or ratio in too_dense:
            return replace(trial, figures={}, why="too large")
        return replace(trial, reckoned=(100 if full else 10) * ratio)

    monkeypatch.setattr(choosing.Search, "trial", hard)
    found = _choose(model, data, max_loss=60.0).document
    taken = found["trials"][found["chosen"]]
    assert (taken["ratio"], taken["full"]) == (0.442, True)
    assert sum(trial["full"] for trial in found["trials"]) < 8
    too_dense.extend([0.312, 0.442])
    with pytest.raises(CheckError, match=r"the least found on ulx3s-25f is 62\.50 \(N/K 0\.625\)"):
        _choose(model, data, max_loss=60.0)


def test_what_nearly_passes_of_a_large_network_is_next_with_full_effort(tmp_path, monkeypatch):
    model, data = _regression(tmp_path)
    monkeypatch.setattr(choosing, "LARGE", 0)
    real, full_ones = choosing.Search.trial, []

    def near(self, ratio, int8, full):
        """Losses as N/K, and with full effort what is tried first fails."""
        trial = real(self, ratio, int8, full)
        full_ones.extend([ratio] * full)
        failed = full and len(full_ones) == 1
        loss, rate = (10 * ratio, 1e6 * ratio) if ratio else (0.0, 1e5)
        figures = trial.figures | {"inferences_per_second": rate}
        return replace(trial, reckoned=9.0 if failed else loss, figures=figures)

    monkeypatch.setattr(choosing.Search, "trial", near)
    found = _choose(model, data, max_loss=8.0).document
    quick = [t["ratio"] for t in found["trials"] if not t["full"]]
    assert quick[-1] == 0.884  # 8.84 is near enough
    assert full_ones == [0.884, 0.625]
    taken = found["trials"][found["chosen"]]
    assert (taken["ratio"], taken["full"]) == (0.625, True)


def test_a_speed_is_reached_within_the_loss_by_the_smallest(tmp_path):
    model, data = _regression(tmp_path)
    found = _choose(model, data, max_loss=30.0, inferences_per_second=1e6)
    trials = found.document["trials"]
    taken = trials[found.document["chosen"]]
    assert found.document["goal"] == "1,000,000 inferences a second"
    assert found.made.plan.goal.inferences_per_second == 1e6
    passed = [t for t in trials if t["full"] and t["fits"] and t["loss"] <= 30]
    assert all(t["inferences_per_second"] >= 1e6 for t in trials if t["fits"])
    assert taken["luts"] == min(t["luts"] for t in passed)
    assert taken["luts"] < min(t["luts"] for t in _choose(model, data, max_loss=30.0).document[
        "trials"] if t["full"])  # fmt: skip
    with pytest.raises(CheckError, match=r"must have 1,000,000,000 inferences a second at 120 MHz, "
                       r"but the best found has \d"):  # fmt: skip
        _choose(model, data, max_loss=30.0, inferences_per_second=1e9)


def test_without_a_ratio_half_a_point_is_aimed_at(tmp_path):
    given = {"target": "icebreaker"}
    for more in ({"ratio": 3.0}, {"quantizer": "plain"}, {"int8": ("all",)}):
        assert load_options(None, given | more, calibrated=True).max_loss is None
    assert load_options(None, given).max_loss is None
    asked = load_options(None, given, calibrated=True)
    assert (asked.max_loss, asked.aim) == (0.5, True)
    assert not load_options(None, given | {"max_loss": 2.0}, calibrated=True).aim
    model, data = _regression(tmp_path)
    found = _choose(model, data, max_loss=0.001, aim=True)  # less than anything loses
    trials = found.document["trials"]
    taken = trials[found.document["chosen"]]
    assert taken["loss"] > 0.001
    assert taken["loss"] == min(t["loss"] for t in trials if t["full"])
    out = tmp_path / "out"
    np.savez(tmp_path / "d.npz", x=data.x)
    ran = run("compile", next(tmp_path.glob("*.onnx")), "--target", "ulx3s-25f", "--calibrate",
              tmp_path / "d.npz", "-o", out)  # fmt: skip
    assert ran.code == 0, ran.err
    assert "Aims at a loss of at most 0.5 % output error on 20 inputs held out" in ran.err
    assert "reckoned with (aimed at 0.5), best for speed" in ran.out
    assert "Aimed at a loss of at most 0.5 % output error" in (out / "report.html").read_text()
    assert "aim" not in (out / "options.toml").read_text().replace("aimed", "")
    assert run("verify", out).code == 0


@pytest.mark.slow
def test_python_gives_the_same(chosen, digits, tmp_path):
    out, _ = chosen
    made = pvq_hw.compile(MODEL, tmp_path / "out", target="icebreaker", max_loss=1.0,
                          calibrate=pvq_hw.load_data(digits.train))  # fmt: skip
    first = json.loads((out / "manifest.json").read_text())
    assert made.manifest["extra"]["choice"] == first["extra"]["choice"]
