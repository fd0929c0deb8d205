"""A speed asked for: the smallest plan that reaches it, or one line that says what is possible."""

import json
import re

import numpy as np
import pytest
from cli_tools import MODEL, refused, run
from plan_networks import random_network

from pvq_hw import CheckError, InputError
from pvq_hw.bundled import DIGITS_DATA
from pvq_hw.data.dataset import Data
from pvq_hw.engine.pulse_code import PulseCode
from pvq_hw.flow.compile import plan_for
from pvq_hw.flow.options import CompileOptions
from pvq_hw.flow.options_toml import options_toml
from pvq_hw.flow.reach import reach
from pvq_hw.model.load import load_model
from pvq_hw.plan.folding import known_layers
from pvq_hw.plan.goal import SpeedGoal, microseconds
from pvq_hw.plan.plan import Plan, plan
from pvq_hw.plan.resources import Resources
from pvq_hw.plan.sharing import fold_network
from pvq_hw.target.boards import get_target

BOARD = "icebreaker"


@pytest.fixture(scope="module")
def planned():
    """The plan of the digits with what is asked for; 36 MHz."""
    model, data = load_model(MODEL), Data(np.load(DIGITS_DATA)["x_train"][:60])

    def made(**asked):
        options = CompileOptions(target=BOARD, ratio=5, quantizer="plain", **asked)
        return reach(model, get_target(BOARD), options, data, plan_for).plan

    return made


def test_plans_of_one_network_at_several_paces_share_what_its_codes_take(monkeypatch):
    network, board = random_network((64, 32, 10), k=(40, 20))[0], get_target(BOARD)
    encode, made = PulseCode.encode, []

    def counted(self, *args, **more):
        made.append(self)
        return encode(self, *args, **more)

    monkeypatch.setattr(PulseCode, "encode", counted)
    plans, counts = [], []
    for goal in (2000, 200, 400):
        plans.append(plan(network, board, goal=goal))
        counts.append(len(made))
    assert counts[1] - counts[0] < counts[0] / 2
    assert counts[2] - counts[1] < counts[0] / 4
    cycles = [found.interval_cycles for found in plans]
    assert cycles[1] < cycles[2] <= 400 < cycles[0] <= 2000


def test_the_slower_the_speed_asked_for_the_smaller_the_plan(planned):
    fastest = planned()
    assert not fastest.goal
    rates = [part * fastest.inferences_per_second for part in (0.5, 0.1)]
    plans = [planned(inferences_per_second=rate) for rate in rates]
    for rate, found in zip(rates, plans, strict=True):
        assert found.inferences_per_second >= rate
        assert found.goal == SpeedGoal(rate)
        assert found.limit == "no more was asked for"
    luts = [found.resources.luts for found in (fastest, *plans)]
    brams = [found.resources.brams for found in (fastest, *plans)]
    assert luts == sorted(luts, reverse=True)
    assert brams[0] > brams[-1]
    time = 1.5 * fastest.latency_us
    both = planned(inferences_per_second=rates[1], max_latency=time)
    assert both.inferences_per_second >= rates[1]
    assert 0.7 * time < both.latency_us <= time
    assert luts[0] > both.resources.luts > luts[-1]


def test_what_no_plan_reaches_is_refused_with_the_best_that_does(planned):
    with pytest.raises(CheckError) as caught:
        planned(inferences_per_second=1e7)
    text = str(caught.value)
    assert "must have 10,000,000 inferences a second at 36 MHz, but the best found has" in text
    assert re.search(r"but the best found has 5\d\d,\d\d\d inferences a second, since \S.*\d", text)
    assert "\n" not in text


def test_one_engine_is_shared_where_that_is_fast_enough_and_much_smaller():
    sizes = (24, 24, 24, 24, 24, 8)
    layers = known_layers(random_network(sizes, (12,) * 5)[0], {})
    asked = {"reserve": Resources(), "may_share": True}
    board = get_target("ulx3s-25f")
    assert not fold_network(layers, board, **asked).shared
    slow = fold_network(layers, board, goal=20_000, **asked)
    assert slow.shared
    assert slow.interval_cycles <= 20_000
    assert "as fast as asked, and much smaller" in slow.engine_reasons["fc1"]
    assert not fold_network(layers, board, goal=30, **asked).shared
    network, _ = random_network(sizes, (12,) * 5)
    fast, small = (plan(network, board, engine="shared", goal=g) for g in (0, 20_000))
    assert small.resources.luts < fast.resources.luts
    assert small.limit == "no more was asked for"


def test_a_speed_from_the_command_line_is_in_plan_report_and_terminal(digits, tmp_path):
    out = tmp_path / "out"
    common = ("compile", MODEL, "--target", BOARD, "--calibrate", digits.train, "--ratio", 5)
    common += ("--quantizer", "plain", "-o", out)
    ran = run(*common, "--inferences-per-second", 50_000, "--max-latency", "0.03ms")
    assert ran.code == 0, ran.err
    text = "50,000 inferences a second and a latency of at most 30 us"
    assert f"asked for             {text}: the smallest plan" in ran.out
    assert text in (out / "report.html").read_text()
    document = json.loads((out / "plan.json").read_text())
    assert document["goal"] == {"inferences_per_second": 50_000.0, "max_latency_us": 30.0}
    assert document["latency_us"] <= 30
    loaded = Plan.load(out / "plan.json")
    assert loaded.goal == SpeedGoal(50_000, 30)
    assert text in loaded.summary()
    assert run("verify", out).code == 0
    document["goal"]["inferences_per_second"] = 1e9
    slow = Plan.from_json(document)
    with pytest.raises(InputError, match="The plan must have 1,000,000,000 inferences a second"):
        slow.verify()
    document["goal"]["inferences_per_second"] = -1
    with pytest.raises(InputError, match="Inferences a second must be 1e-06 to 1e\\+12, not -1"):
        Plan.from_json(document)
    ran = run(*common, "--max-latency", "100ns")
    assert ran.code == 1
    assert "latency of at most 0.1 us at 36 MHz, but the best" in ran.err.splitlines()[-1]
    for args, line in (
        (("--inferences-per-second", 0), "Inferences a second must be a number above 0, not 0"),
        (("--max-latency", "soon"), "Latency must be a time such as 50us, 1.5ms or 50"),
        (("--max-latency", "5us", "--lanes", "2,1"), "Lanes of all layers must not be given"),
    ):
        refused(out, line, *common, *args)


def test_times_and_options_are_read_and_written():
    assert [microseconds(t) for t in ("50", "50us", "1.5 ms", "800ns", "2S")] == [
        50, 50, 1500, pytest.approx(0.8), 2e6]  # fmt: skip
    for text in ("", "us", "1..2", "5 min", "-3us", "inf"):
        with pytest.raises(InputError, match="Latency must be a time"):
            microseconds(text)
    options = CompileOptions(target=BOARD, inferences_per_second=2000.0, max_latency=40.0)
    assert "inferences_per_second = 2000.0\nmax_latency = 40.0" in options_toml(options)
