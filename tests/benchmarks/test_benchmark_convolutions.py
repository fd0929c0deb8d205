"""The benchmark of convolutions: what it compares, and its section of the page."""

import json

import numpy as np
import pytest

from benchmarks import engine_convolutions as bench
from pvq_hw.model.model import Conv as ConvNode
from pvq_hw.plan.core_layers import core_layers


def node() -> ConvNode:
    rng = np.random.default_rng(3)
    return ConvNode(
        "conv", ("x",), "y", (4, 4, 6), (4, 4, 4), (3, 3), pads=((1, 1), (1, 1)),
        weight=rng.standard_normal((6, 3, 3, 4)), bias=rng.standard_normal(6),
    )  # fmt: skip


@pytest.mark.parametrize("ratio", [None, 2.0])
def test_both_engines_compute_the_convolution_in_the_cycles_of_the_model(ratio):
    conv = bench.make_conv(node(), ratio, 4)
    network = bench.network_of(conv)
    unit, image = bench.unit_of(core_layers(network)[0], 4, "ecp5")
    found = bench.cycles_of(network, unit, image)
    assert found["mismatches"] == 0
    assert found["outputs_compared"] == 3 * 96
    assert found["interval_cycles"] == found["timing_cycles"]
    if ratio is not None:  # as many pulses in every bank: lanes never wait
        assert unit.core.words == conv.k.sum() // 4
        broken = image.__class__(image.codes, image.mult, (image.bias[0] + 99999, *image.bias[1:]))
        assert bench.cycles_of(network, unit, broken)["mismatches"] > 0


def _point(ratio, gmacs):
    numbers = {"luts": 1000, "ffs": 900, "brams": 4, "dsps": 1, "fmax_mhz": 200.0}
    return numbers | {
        "device": "UP5K", "layer": "small", "lanes": 8, "n_over_k_asked": ratio,
        "n_over_k": ratio, "interval_cycles": 1234, "gmacs": gmacs,
    }  # fmt: skip


def test_the_section_is_put_before_the_slowest_paths_once(tmp_path):
    page, results = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text("# Title\n\ntext\n\n## Slowest paths\n\npaths\n")
    bench.put_section(page, results)
    assert "Convolutions" not in page.read_text()
    points = {"a": _point(None, 2.0), "b": _point(5.0, 9.0)}
    results.write_text(json.dumps({"points": points, "seeds": [1, 2], "versions": {}}))
    bench.put_section(page, results)
    once = page.read_text()
    bench.put_section(page, results)
    assert page.read_text() == once
    headings = [line for line in once.splitlines() if line.startswith("#")]
    assert headings == ["# Title", "## Convolutions", "## Slowest paths"]
    row = next(line for line in once.splitlines() if "pulses, P=8" in line)
    assert [cell.strip() for cell in row.split("|")][-2] == "4.50"
