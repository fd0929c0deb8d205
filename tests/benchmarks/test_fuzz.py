"""A slice of what `make fuzz` tries; it goes on where it was, and tells a fault where one is."""

import json
import math
from dataclasses import replace

import pytest
import random_graphs

from benchmarks import fuzz
from pvq_hw.errors import InputError
from pvq_hw.host import protocol

pytest.importorskip("ai_edge_litert")

SLICE = {"model files": 60, "output folders": 18, "errors of a frame": 300,
         "thousands of random bytes": 20, "whole networks": 3}  # fmt: skip


def test_nothing_damaged_is_taken_for_whole(tmp_path):
    for name, cases in SLICE.items():
        kinds = fuzz.fuzz([name], tmp_path / "f.json", cases=cases, seed=3, limit=math.inf)
        found = kinds["kinds"][name]
        assert found["faults"] == []
        assert found["cases"] == cases
        assert cases == sum(found.get(k, 0) for k in ("taken", "found", "refused"))
    assert fuzz.fuzz([], tmp_path / "f.json", seed=3)["kinds"].keys() == SLICE.keys()
    assert fuzz.fuzz([], tmp_path / "f.json", seed=2)["kinds"] == {}


def test_what_was_tried_is_not_tried_again(tmp_path, monkeypatch):
    tried = []
    name = "errors of a frame"
    kind = replace(fuzz.KINDS[name], case=lambda number, *_: tried.append(number) or "refused")
    monkeypatch.setitem(fuzz.KINDS, name, kind)
    for cases in (3, 5, 5, None):
        fuzz.fuzz([name], tmp_path / "f.json", cases=cases)
    assert tried == list(range(4656))
    assert fuzz.main([name, "-o", str(tmp_path / "f.json")]) == 0
    assert len(tried) == 4656


@pytest.mark.parametrize(
    ("wrong", "text"),
    [(RuntimeError("gone\n"), "RuntimeError: gone"), (InputError("two\nlines"), "a message of 9"),
     (RuntimeWarning("odd"), "RuntimeWarning: odd")],
)  # fmt: skip
def test_faults_are_told_and_kept(tmp_path, monkeypatch, capsys, wrong, text):
    def case(number, rng, place):
        if number == 1:
            raise wrong
        return "refused"

    kind = replace(fuzz.KINDS["model files"], case=case)
    monkeypatch.setitem(fuzz.KINDS, "model files", kind)
    path = tmp_path / "f.json"
    assert fuzz.main(["model files", "--cases", "3", "-o", str(path)]) == 1
    assert text in capsys.readouterr().out
    ((number, said),) = json.loads(path.read_text())["kinds"]["model files"]["faults"]
    assert number == 1
    assert said.startswith(text)


def test_what_takes_too_long_twice_is_a_fault(tmp_path, monkeypatch):
    now, takes = [0.0], iter([9, 1, 9, 9, 1])

    def case(number, rng, place):
        now[0] += next(takes)
        return "taken"

    kind = replace(fuzz.KINDS["model files"], case=case)
    monkeypatch.setitem(fuzz.KINDS, "model files", kind)
    monkeypatch.setattr(fuzz.time, "process_time", lambda: now[0])
    found = fuzz.fuzz(["model files"], tmp_path / "f.json", cases=3, limit=8)["kinds"]
    assert found["model files"]["faults"] == [[1, "took 9 s"]]


def test_a_receiver_that_overlooks_an_error_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "crc16", lambda body: 0)
    found = fuzz.fuzz(["errors of a frame"], tmp_path / "f.json", cases=96)["kinds"]
    faults = found["errors of a frame"]["faults"]
    assert any("a wrong frame was computed" in said for _, said in faults)


def test_a_verifier_that_overlooks_a_change_is_a_fault(tmp_path, monkeypatch):
    class Blind:
        findings = ()

    monkeypatch.setattr(fuzz, "examine_output", lambda out: Blind)
    found = fuzz.fuzz(["output folders"], tmp_path / "f.json", cases=2)["kinds"]
    assert len(found["output folders"]["faults"]) == 2


def test_a_circuit_that_is_wrong_is_a_fault(tmp_path, monkeypatch):
    def wrong(*args, **options):
        made = build(*args, **options)
        images = {
            name: replace(image, bias=tuple(~b for b in image.bias))
            for name, image in made.images.items()
        }
        return replace(made, images=images)

    build = random_graphs.build
    monkeypatch.setattr(random_graphs, "build", wrong)
    found = fuzz.fuzz(["whole networks"], tmp_path / "f.json", cases=2)["kinds"]
    said = found["whole networks"]["faults"][0][1]
    assert said.startswith("AssertionError")


def test_a_kind_that_is_not_known_is_one_line(tmp_path, capsys):
    assert fuzz.main(["models", "-o", str(tmp_path / "f.json")]) == 2
    assert "A kind must be one of model files, output folders" in capsys.readouterr().err
