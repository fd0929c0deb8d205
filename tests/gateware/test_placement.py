"""What a build says of its placement, read from the files of place and route."""

import json

from gateware.board.placement import floorplan, owner, slowest_path
from pvq_hw.output.pictures import floorplan_shapes


def step(kind, delay, cell="top.results.count"):
    return {"type": kind, "delay": delay, "from": {"cell": cell}, "to": {"cell": cell}}


def test_cells_belong_to_the_accelerators_units_or_to_the_link():
    assert owner("top.accelerator.h.bank0.piece_0.ram_RAM") == "h"
    assert owner("top.accelerator.h_SB_DFF_Q") == "h"
    assert owner("top.results.count_SB_DFF_Q") == "link"
    assert owner("accelerator") == "link"


def test_the_slowest_path_from_clock_to_clock_is_told_in_parts():
    slow = [step("clk-to-q", 1, "top.accelerator.a.x"), step("routing", 2.5), step("logic", 0.5),
            step("setup", 0.25, "top.accelerator.b.y")]  # fmt: skip
    paths = [("posedge clk", "posedge clk", [step("routing", 1)]), ("p", "p", slow),
             ("<async>", "posedge clk", [step("routing", 99)])]  # fmt: skip
    report = {"critical_paths": [{"from": a, "to": b, "path": path} for a, b, path in paths]}
    assert slowest_path(report) == {
        "from": "a", "to": "b", "cells": 1, "logic_ns": 1.75, "routing_ns": 2.5,
    }  # fmt: skip
    assert slowest_path({"critical_paths": report["critical_paths"][2:]}) is None


def test_a_tile_is_that_of_most_of_its_cells_and_is_drawn_in_its_units_color(tmp_path):
    places = {"top.accelerator.b.x": "X2/Y0/lc0", "top.accelerator.b.y": "X1/Y0/lc0",
              "top.rx": "X2/Y0/lc1", "top.accelerator.b.z": "X2/Y0/lc2",
              "top.accelerator.a.x": "X0/Y1/lc0", "top.nowhere": ""}  # fmt: skip
    cells = {name: {"attributes": {"NEXTPNR_BEL": bel}} for name, bel in places.items()}
    (tmp_path / "routed.json").write_text(json.dumps({"modules": {"top": {"cells": cells}}}))
    plan = floorplan(tmp_path / "routed.json")
    assert plan == {"owners": ["b", "a", "link"], "tiles": ["1:1 - -", "- 0:1 0:3"]}
    pictures = {"units": [{"name": "a"}, {"name": "b"}]}
    drawn = floorplan_shapes({"floorplan": plan}, pictures)
    assert (drawn["width"], drawn["height"]) == (3, 2)
    assert [(shape["hue"], shape["path"]) for shape in drawn["shapes"]] == [
        (0, "M0 0h1v1h-1z"), (1, "M1 1h1v1h-1zM2 1h1v1h-1z"),
    ]  # fmt: skip
    spoilt = {"owners": ["a"], "tiles": ["x:1 7:1 0:1 <b>"]}
    assert [s["path"] for s in floorplan_shapes({"floorplan": spoilt}, pictures)["shapes"]] == [
        "M2 0h1v1h-1z"
    ]
    assert floorplan_shapes(None, pictures) is None
