"""The tables of built networks come from output folders alone and keep their place in the page."""

import json

import pytest

from benchmarks.graphs_hardware import figures, into_page, tables
from pvq_hw.errors import InputError


def write(out, **build):
    out.mkdir()
    used = {"ICESTORM_LC": 3576, "ICESTORM_RAM": 29, "ICESTORM_DSP": 5}
    report = {
        "compile": {
            "network": "pretrainedResnet", "target": "icebreaker", "n_over_k": 3.01,
            "accuracy": {"float": 77.2, "pvq": 76.5}, "layers": [{"lanes": 2}, {"lanes": 3}],
        },
        "simulate": {"frames": 5, "outputs_compared": 1000, "mismatches": 0},
        "build": {
            "interval_cycles": 50_000, "latency_cycles": 60_000, "fmax_mhz": 38.6,
            "clock_mhz": 36.0, "seed": 1, "inferences_per_second": 720.0,
            "utilization": {k: {"used": v, "available": 5280} for k, v in used.items()},
        },
    }  # fmt: skip
    (out / "report.json").write_text(json.dumps(report | build))


def test_figures_come_from_the_report(tmp_path):
    write(tmp_path / "out")
    row = figures(tmp_path / "out")
    assert (row["luts"], row["brams"], row["dsps"], row["lanes"]) == (3576, 29, 5, [2, 3])
    text = tables({"a": row})
    assert "3,576 (68 %)" in text
    assert "| this project | icebreaker | 720 | not measured |" in text
    assert "| FINN (published) | Zynq 7020 | 661 |" in text
    assert "published" not in tables({"a": row | {"network": "other"}})


def test_a_folder_that_was_not_built_is_refused(tmp_path):
    write(tmp_path / "out", build=None)
    (tmp_path / "out" / "report.json").write_text(json.dumps({"compile": {}}))
    with pytest.raises(InputError, match="must be compiled, simulated and built"):
        figures(tmp_path / "out")


def test_the_page_keeps_what_is_around_the_tables(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\ntext\n")
    into_page(page, "one\n")
    page.write_text(page.read_text() + "\nafter\n")
    into_page(page, "two\n")
    text = page.read_text()
    assert text.startswith("# Title\n\ntext\n\n## Bitstreams\n")
    assert text.endswith("-->\n\nafter\n")
    assert "two" in text
    assert "one" not in text
