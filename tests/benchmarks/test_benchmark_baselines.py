"""The page of two revisions' figures."""

import json

from benchmarks import baselines
from benchmarks.baselines import ROWS, figures, main, table


def side(digits, **more):
    found = figures(digits.out)
    built = {"fmax_mhz": [50.0, 52.0, 51.0], "placed_luts": 100, "placed_brams": 3}
    return {row.key: found | (built if row.build else {}) | more for row in ROWS}


def test_figures_come_from_an_output(digits):
    found = figures(digits.out)
    planned = json.loads((digits.out / "plan.json").read_text())
    assert found["interval_cycles"] == planned["interval_cycles"]
    assert found["estimated_luts"] == planned["resources"]["luts"]
    assert found["accuracy_percent"] == digits.document["accuracy"]["pvq"]


def test_rows_show_both_sides_where_they_differ(digits):
    old, new = side(digits, code_bits=1000), side(digits, code_bits=900)
    text = table({"old": old, "new": new})
    lines = [line for line in text.splitlines() if "1,000 → 900" in line]
    assert len(lines) == len(ROWS)
    assert text.count("| 50.0, 52.0, 51.0 | 51.0 |") == sum(row.build for row in ROWS)
    assert "→" not in lines[0].replace("1,000 → 900", "")
    del new[ROWS[0].key]
    assert len(table({"old": old, "new": new}).splitlines()) < len(text.splitlines())


def test_rows_are_of_every_kind_and_each_is_one_of_a_kind():
    assert len({row.key for row in ROWS}) == len(ROWS) >= 14
    assert sum(row.build for row in ROWS) == 5
    assert len({row.target for row in ROWS}) == 5


def test_the_page_is_renewed_between_its_marks(digits, tmp_path, monkeypatch):
    page, results = tmp_path / "page.md", tmp_path / "results.json"
    begin, end = baselines.MARKS
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    results.write_text(json.dumps({"old": side(digits), "new": side(digits)}))
    monkeypatch.setattr("sys.argv", ["baselines", "-o", str(results), "--page", str(page)])
    main()
    text = page.read_text()
    assert text.startswith(f"before\n{begin}\n| network |")
    assert text.endswith(f"{end}\nafter\n")
    assert "\nold\n" not in text
