"""The page of networks of unrolled layers."""

import json
from pathlib import Path

from benchmarks import unrolled_networks
from benchmarks.unrolled_networks import ROWS, page

ROOT = Path(__file__).parents[2]


def test_the_page_has_a_line_for_each_way_that_a_network_was_placed():
    simulated = {"frames": 500, "mismatches": 0, "interval": 2, "latency": 20, "planned_luts": 9000}
    found = {"accuracy": {"pvq": 96.2, "float": 96.6}, "simulated": simulated}
    run = {"luts": 7000, "dsps": 3}
    runs = {str(k): run | {"fmax_mhz": rate} for k, rate in enumerate((150.04, 130.0, 160.0))}
    text = page({ROWS[0].key: found | {"alone": runs}, ROWS[1].key: found})
    start = "| 96.2 % of 96.6 % | 2, 20 | 500, 0 |"
    rates = "150.0, 130.0, 160.0"
    assert f"{start} alone | {rates} | 75,020,000 | 133 | 7,000 | 3 |" in text
    assert f"{start} not placed |" in text
    assert "9,000 planned" in text
    assert f"Not measured: {ROWS[2].network} on {ROWS[2].board}" in text


def test_the_published_page_is_that_of_the_results():
    stored = json.loads(unrolled_networks.RESULTS.read_text())
    published = ROOT / "docs" / "benchmarks-unrolled-networks.md"
    assert published.read_text() == page(stored)
