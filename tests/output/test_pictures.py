"""The report's pictures: their numbers are the plan's, the network's and the timing's."""

import json
from dataclasses import replace

import numpy as np
import pytest
from cli_tools import MODEL, reseal, twin
from random_graphs import random_network

import pvq_hw
from pvq_hw.engine.spans import unit_spans
from pvq_hw.errors import InputError
from pvq_hw.evaluate.accuracy import Evaluation
from pvq_hw.output.pictures import (
    choice_chart,
    code_bars,
    confusion,
    diagram,
    picture_data,
    schedule_rows,
)
from pvq_hw.plan.plan import core_images, plan


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The digits, compiled with labels."""
    data = np.load(MODEL.parent / "digits.npz")
    train, test = ((data[f"x_{part}"], data[f"y_{part}"]) for part in ("train", "test"))
    out = tmp_path_factory.mktemp("pictures") / "out"
    options = {"target": "icebreaker", "ratio": 2, "quantizer": "plain"}
    with pytest.raises(InputError, match=r"calibrate must be an array \(frames, ...\) or Data"):
        pvq_hw.compile(MODEL, out=out, calibrate=train, **options)
    with pytest.raises(InputError, match=r"evaluate must be Data\(x, y\)"):
        pvq_hw.compile(MODEL, out=out, calibrate=train[0], evaluate=test, **options)
    judged = pvq_hw.Data(*test)
    return pvq_hw.compile(MODEL, out=out, calibrate=train[0], evaluate=judged, **options)


def test_units_take_together_what_the_plan_takes(made):
    pictures, taken = picture_data(made.network, made.plan), made.plan.resources
    for key, rest in pictures["others"].items():
        assert sum(unit[key] for unit in pictures["units"]) + rest == getattr(taken, key)
        assert rest >= 0
    for codes, layer in zip(pictures["codes"], made.network.layers, strict=True):
        assert sum(codes["counts"]) == layer.weights.size
        assert codes["counts"][4] == (layer.weights == 0).sum()
        assert codes["counts"][8] == (layer.weights >= 4).sum()
    assert [len(layer["bars"]) for layer in code_bars(pictures)] == [9, 9]


def test_the_strips_end_when_the_frames_do(made):
    spans = made.manifest["extra"]["schedule"]
    last = [span for span in spans if span["unit"] == made.plan.graph.last.name]
    assert last[0]["end"] == made.plan.latency_cycles
    rows = schedule_rows(spans, picture_data(made.network, made.plan))["rows"]
    bar = rows[-1]["bars"][-1]
    assert bar["left"] + bar["wait"] + bar["give"] == pytest.approx(100, abs=0.1)


def test_branches_lie_side_by_side_below_what_they_read():
    found = 0
    for seed in range(6):
        net = random_network(seed)
        network = net.network()
        made = plan(network, "ulx3s-25f")
        graph, images = made.graph, made.graph.named(core_images(network, made))
        spans = unit_spans(graph, images, 1)
        assert max(s.end for s in spans if s.unit == graph.last.name) == made.latency_cycles
        assert all(s.start <= s.first <= s.end for s in spans)
        drawn = diagram(picture_data(network, made))
        assert len({(box["x"], box["y"]) for box in drawn["boxes"]}) == len(drawn["boxes"])
        assert all(0 <= b["x"] <= drawn["width"] - drawn["wide"] for b in drawn["boxes"])
        assert all(line["from"][1] < line["to"][1] for line in drawn["lines"])
        found += len({box["x"] for box in drawn["boxes"]}) > 1
    assert found


def test_answers_are_counted_by_the_right_class(made):
    data = np.load(MODEL.parent / "digits.npz")
    answers = made.predict(data["x_test"]).argmax(axis=1)
    table = made.manifest["extra"]["accuracy"]["confusion"]["pvq"]
    assert np.sum(table) == 500
    assert table[8][1] == ((data["y_test"] == 8) & (answers == 1)).sum()
    rows = confusion(made.manifest["extra"]["accuracy"])["rows"]
    assert [row["frames"] for row in rows] == np.bincount(data["y_test"]).tolist()
    y = np.arange(30)
    many = Evaluation("accuracy", "", "float", 100, 100, 30, y[:0], y, y, 0, 0, y)
    assert "confusion" not in many.to_json()
    assert "confusion" in replace(many, labels=y % 4, float_answers=y % 4,
                                  pvq_answers=y % 5).to_json()  # fmt: skip


def test_a_schedule_that_is_not_the_plans_is_found(made, tmp_path):
    out = twin(made.out, tmp_path / "out")
    path = out / "manifest.json"
    document = json.loads(path.read_text())
    document["extra"]["schedule"][0]["end"] += 1
    path.write_text(json.dumps(document))
    reseal(out)
    assert "extra.schedule" in str(pvq_hw.load(out).verify())


def test_the_page_draws_all_of_it(made):
    page = (made.out / "report.html").read_text()
    assert page.count('<text class="name"') == page.count('<div class="histogram">') == 2
    assert page.count('<b class="give f1"') == 2
    assert page.count('<td class="cell') == 100
    kinds = [kind for kind in ("luts", "brams", "dsps") if getattr(made.plan.resources, kind)]
    assert page.count('<div class="lane"><i class="h0"') == len(kinds) == 3


def _tried(ratio, int8, cycles, loss, full=False):
    return {"ratio": ratio, "int8_layers": int8, "full": full, "fits": True,
            "interval_cycles": cycles, "reckoned_loss": loss}  # fmt: skip


def test_every_choice_that_fits_has_its_place_and_name():
    trials = [
        _tried(None, ["a", "b"], 900, 0.0),
        {"ratio": 40.0, "int8_layers": [], "full": False, "fits": False},
        _tried(5.0, [], 100, 40.0),
        _tried(2.5, [], 101, 39.0),
        _tried(1.25, ["a"], 300, 1.5),
        _tried(1.25, [], 200, 0.8, full=True),
    ]
    choice = {"unit": "points", "max_loss": 1.0, "chosen": 5, "trials": trials}
    chart = choice_chart(choice)
    named = [name["text"] for name in chart.names]
    assert named == ["1 8-bit", "3 N/K 5", "4 N/K 2.5", "5 N/K 1.25 + 1 in 8-bit", "6 N/K 1.25"]
    places = [(point["x"], point["y"]) for point in chart.points]
    assert [point["kind"] for point in chart.points] == [*4 * ["quick"], "full", "chosen"]
    assert places[5] == places[4]
    x, y = zip(*places[:5], strict=True)
    assert np.argsort(x).tolist() == [1, 2, 4, 3, 0]  # by cycles
    assert y[0] > y[4] > y[3] > y[1] == y[2] == 0  # up is more loss; far beyond: on the border
    (bound,) = chart.lines
    level = float(bound["path"].rpartition(",")[2])
    assert y[4] > level > y[3]
    boxes = []
    for name in chart.names:
        wide = 6.2 * len(name["text"])
        left = name["x"] - {"start": 0, "middle": wide / 2, "end": wide}[name["anchor"]]
        boxes.append((left, name["y"] - 10, left + wide, name["y"] + 2))
        assert left >= 0
        assert left + wide <= chart.width
    for n, a in enumerate(boxes):
        for b in boxes[:n]:
            assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3], (a, b)
    assert choice_chart(None) is None
    assert choice_chart(choice | {"trials": trials[:2], "chosen": 0}) is None
