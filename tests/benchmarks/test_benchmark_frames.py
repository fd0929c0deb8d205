"""The benchmarks of frames and of estimates: their pages, and estimates beside kept counts."""

import json

import pytest

from benchmarks import fit_depthwise, fit_int8, fit_resources, frames
from pvq_hw.plan.resources import core_resources

RESULTS = fit_resources.HERE / "results" / "resources.json"


def test_page_of_frames_has_the_figures(tmp_path):
    point = {
        "lanes": 32, "frames": 10, "n_over_k": 5.0, "luts": 16731, "ffs": 13000, "brams": 20,
        "dsps": 10, "interval_cycles": 1638, "macs_per_cycle": 1600.4, "gmacs": 203.8,
        "runs": [{"seed": 1, "fmax_mhz": 127.37}, {"seed": 2, "fmax_mhz": 129.0}],
        "bits_per_weight": 1.006, "bits_per_weight_limit": 0.931, "slots_used": 1.0,
        "accuracy": 98.39, "seeds": [1, 2], "versions": {"yosys": "0.7"},
    }  # fmt: skip
    frames.write_page({"points": {"a": point}}, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "| 32 | 10 | 5.00 | 16,731 | 13,000 | 20 | 10 | 127.4, 129.0 | 1,638 | 1600 |" in text
    assert "| 203.8 | 32.6 |" in text
    assert "Seeds: 1, 2. yosys 0.7." in text
    assert "98.39 %" in text


def test_page_of_estimates_counts_what_is_close_and_exact(tmp_path):
    exact = {"brams": [3, 3], "dsps": [1, 1]}
    rows = [
        {"engine": "ecp5", "what": "core: a", "luts": [109, 100], **exact},
        {"engine": "up5k", "what": "core: b", "luts": [80, 100], "brams": [3, 4], "dsps": [1, 1]},
        {"engine": "up5k", "what": "held out: c", "luts": [98, 100], **exact},
        {
            "engine": "ecp5",
            "what": "net on a board",
            "luts": [100, 100],
            "interval": [7, 7],
            **exact,
        },
    ]
    fit_resources.write_page(rows, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "| cores that were fitted to | 2 | 1 | 20.0 % | 20.0 % | 1 | 2 |" in text
    assert "| cores held out | 1 | 1 | 2.0 % | 2.0 % | 1 | 1 |" in text
    assert "| whole boards | 1 | 1 | 0.0 % | 0.0 % | 1 | 1 |" in text
    assert "of 1 whole boards those of 1 are" in text
    assert "| up5k | core: b | 80 | 100 | -20.0 % | 3 | 4 | 1 | 1 |" in text


def test_fit_finds_the_coefficients_of_made_up_counts():
    rows = [{"a": 1.0, "b": float(i), "c": float(i * i % 7)} for i in range(1, 12)]
    counts = [round(50 + 3 * row["b"] + 2 * row["c"]) for row in rows]
    found = fit_resources.fit(rows, counts)
    for row, count in zip(rows, counts, strict=True):
        assert abs(fit_resources.estimate(found, row) / count - 1) < 0.05


@pytest.mark.parametrize(
    ("kind", "least", "over", "most"),
    [(fit_resources, 12, 1, 0.15), (fit_depthwise, 14, 1, 0.17), (fit_int8, 9, 2, 0.15)],
)
@pytest.mark.parametrize("engine", ["ecp5", "up5k", "hx8k"])
def test_estimates_are_close_to_the_counts_that_are_kept(engine, kind, least, over, most):
    kept = json.loads(RESULTS.read_text())
    errors = []
    for key in kind.cores_of(engine):
        counts = kept.get(key)
        if counts is None:
            continue
        used = core_resources(kind.make(key, engine)[0], engine)
        assert (used.brams, used.dsps) == (counts["brams"], counts["dsps"]), key
        errors.append(abs(used.luts / counts["luts"] - 1))
    assert len(errors) >= least
    assert sum(error > 0.1 for error in errors) <= over
    assert max(errors) < most


def test_whole_boards_are_within_a_tenth():
    for row in json.loads(RESULTS.read_text())["boards"]:
        assert abs(row["luts"][0] / row["luts"][1] - 1) < 0.1, row["what"]
        assert row["brams"][0] == row["brams"][1], row["what"]
