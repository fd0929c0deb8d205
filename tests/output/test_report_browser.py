"""The reports in a real browser without a window: nothing too wide, too faint or not drawn."""

import json
import shutil

import browser
import numpy as np
import pytest
from cli_tools import MODEL, run
from onnx import helper
from onnx_graphs import graph_model

import pvq_hw
from pvq_hw.output.report import write_report

WIDTHS = (400, 800, 1400)
PLACED = {
    "fmax_mhz": 63.1, "clock_mhz": 36.0, "inferences_per_second": 507_042.0, "seed": 1,
    "utilization": {"ICESTORM_LC": {"used": 3119, "available": 5280},
                    "ICESTORM_RAM": {"used": 30, "available": 30}},
    "slowest_path": {"from": "layer_h", "to": "link", "cells": 3, "logic_ns": 5.1,
                     "routing_ns": 10.3},
    "floorplan": {"owners": ["layer_h", "layer_logits", "link"],
                  "tiles": ["- 0:9 0:4 1:9", "2:1 - 1:5 1:9", "2:9 2:9 - 0:1"]},
}  # fmt: skip
SIMULATED = {"mismatches": 0, "outputs_compared": 420, "frames": 10, "simulator": "icarus"}
WRONG = SIMULATED | {"mismatches": 3}


def tried(ratio, loss, cycles, full):
    return {"ratio": ratio, "int8_layers": ["h"] if full else [], "full": full, "fits": True,
            "interval_cycles": cycles, "loss": loss, "reckoned_loss": 1.2 * loss, "luts": 2_751,
            "inferences_per_second": 36e6 / cycles, "energy_nj": 19.2}  # fmt: skip


CHOICE = {
    "max_loss": 1.0, "unit": "points of accuracy", "frames": 260, "objective": "speed", "goal": "",
    "aim": False, "chosen": 2, "config": "ratio = 1.5\n", "trials": [
        tried(3.0, 2.5, 70, False), tried(2.0, 1.4, 80, False), tried(1.5, 0.4, 99, True),
        {"ratio": 40.0, "int8_layers": [], "full": False, "fits": False},
    ],
}  # fmt: skip


def branches():
    """A convolution, a function by a table, a sum of branches and a mean."""
    rng = np.random.default_rng(0)
    constants = {f"w{i}": rng.laplace(size=(4, c, 3, 3)) for i, c in enumerate((2, 4))}
    constants |= {"w2": rng.laplace(size=(3, 16))}
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["first_with_a_name_that_is_very_long"], **same),
        helper.make_node("Sigmoid", ["first_with_a_name_that_is_very_long"], ["r"]),
        helper.make_node("Conv", ["r", "w1"], ["c"], **same),
        helper.make_node("Add", ["c", "r"], ["s"]),
        helper.make_node("AveragePool", ["s"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Gemm", ["f", "w2"], ["out"], transB=1),
    ]
    return graph_model(nodes, constants, ("n", 2, 4, 4))


@pytest.fixture(scope="module")
def pages(digits, tmp_path_factory):
    """Reports that together have every section, and a search's."""
    place = tmp_path_factory.mktemp("pages")
    options = {"quantizer": "plain", "ratio": 2}
    x = np.random.default_rng(1).uniform(0, 1, (20, 2, 4, 4))
    pvq_hw.compile(branches(), place / "graph", target="ulx3s-25f", calibrate=x, **options)
    with np.load(MODEL.parent / "digits.npz") as data:
        np.savez(place / "data.npz", x=data["x_test"], y=data["y_test"])
        pvq_hw.compile(
            MODEL, place / "shared", target="icebreaker", calibrate=data["x_train"],
            engine="shared", **options,
        )  # fmt: skip
    (place / "whole").mkdir()
    parts = json.loads((digits.out / "report.json").read_text())
    parts = {"compile": parts["compile"] | {"choice": CHOICE}, "build": PLACED}
    write_report(place / "whole", parts | {"simulate": SIMULATED})
    (place / "wrong").mkdir()
    failed = PLACED | {"fmax_mhz": 30.0}
    write_report(place / "wrong", parts | {"build": failed, "simulate": WRONG})
    asked = ("tune", MODEL, "--data", place / "data.npz", "--target", "icebreaker", "--trials", 4)
    assert run(*asked, "-o", place / "search").code == 0
    return {path.name: path / "report.html" for path in place.iterdir() if path.is_dir()}


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["graph", "search", "shared", "whole", "wrong"])
def test_a_page_is_whole_and_readable_at_every_width(pages, name, dark, tmp_path):
    for found in browser.look(pages[name], tmp_path, WIDTHS, dark=dark):
        where = f"{name} at {found['width']} pixels"
        assert found["scroll"] <= found["width"], where
        assert not found["overflowing"], where
        assert not found["clipped"], where
        assert (sum(found["paper"][:3]) < 3 * 64) == dark, where
        assert len(found["texts"]) > 50
        faint = {
            text["text"]: round(text["contrast"], 2)
            for text in found["texts"]
            if text["contrast"] < (3 if text["large"] else 4.5)  # WCAG 2.2, AA
        }
        assert not faint, where
        assert not {text["text"] for text in found["texts"] if text["pixels"] < 9}, where
        assert found["pictures"]
        for picture in found["pictures"]:
            assert min(picture["width"], picture["height"]) > 3, (where, picture)
            assert picture["seen"], (where, picture)


SPOILED = {
    "overflowing": ("<h2>Checks", '<div style="width:500px">a wide part</div><h2>Checks'),
    "clipped": ('<text class="name" x="', '<text class="name" x="9'),
    "texts": ("--faint: #5f6a7d", "--faint: #a0a0a0"),
    "pictures": (".lane i {", ".lane i { display: none;"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", SPOILED)
def test_what_is_wrong_with_a_page_is_seen(pages, what, tmp_path):
    old, new = SPOILED[what]
    page = tmp_path / "report.html"
    text = pages["whole"].read_text()
    assert old in text
    page.write_text(text.replace(old, new))
    (found,) = browser.look(page, tmp_path, (400,), dark=False)
    assert {
        "overflowing": found["scroll"] > 400 and found["overflowing"],
        "clipped": found["clipped"],
        "texts": [text for text in found["texts"] if text["contrast"] < 3],
        "pictures": [picture for picture in found["pictures"] if not picture["seen"]],
    }[what]


def test_an_absent_browser_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (tmp_path / "report.html").write_text("<p>a page</p>")
    with pytest.raises(FileNotFoundError, match=r"^The report's look needs Chromium: apt-get"):
        browser.look(tmp_path / "report.html", tmp_path, (400,), dark=False)
