"""The engine benchmark: what it measures once, what its page says, and the tile it chooses."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from engine import tensor

from benchmarks import engine as bench
from benchmarks.engine_page import picture, write_page
from benchmarks.engine_place import DEVICES
from benchmarks.engine_points import Engine, gap_bits, largest_tile, measure_codes
from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import InputError
from pvq_hw.network.layer import Dense
from pvq_hw.quantizer.banks import Placement, balance

U8 = IntFormat(8, False)


def _point(device, ratio, gmacs, **more):
    common = {
        "device": device, "layer": "fc2", "n_over_k_asked": ratio, "lanes": 16, "tile_rows": 9,
        "luts": 1000, "ffs": 900, "brams": 20, "dsps": 1, "fmax_mhz": 200.0, "words": 3000,
        "interval_cycles": 3000, "gmacs": gmacs, "bits_per_weight": 8.0 if ratio is None else 1.0,
        "runs": [{"seed": 1, "fmax_mhz": 200.0, "critical": "a -> b"}],
    }  # fmt: skip
    if ratio is not None:
        common |= {"n_over_k": float(ratio), "slots_used": 0.99, "bits_per_weight_limit": 0.95}
    return common | more


def _document(*points):
    return {
        "points": {str(k): p for k, p in enumerate(points)},
        "quantizer": "plain",
        "seeds": [1],
        "versions": {"yosys": "0.7"},
    }


def test_the_page_gives_ratios_to_the_int8_engine_of_the_same_tile(tmp_path):
    points = [
        _point("UP5K", 5, 3.0),
        _point("UP5K", None, 1.0),
        _point("HX8K", 5, 3.0),
        _point("HX8K", None, 1.0),
        _point("LFE5U-25F", 5, 18.0),
        _point("LFE5U-25F", None, 4.0, tile_rows=8),
    ]
    write_page(_document(*points), tmp_path / "page.md")
    rows = [line.split(" | ") for line in (tmp_path / "page.md").read_text().splitlines()]
    ratios = {row[0].strip("| "): row[13] for row in rows if len(row) > 13 and row[3] == "5.00"}
    assert ratios == {"UP5K": "3.00", "HX8K": "3.00 (does not count)", "LFE5U-25F": ""}
    assert (tmp_path / "engine.svg").read_text() == picture(points)


def test_points_are_measured_once(tmp_path, monkeypatch):
    calls = []

    def measure(device, engine, rows, sources, seeds):
        calls.append(engine.name)
        return _point(device.name, engine.ratio, 2.0)

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(bench, "largest_tile", lambda *args: 9)
    monkeypatch.setattr(bench, "same_engine", lambda engine, sources, rows: engine.name)
    sources = bench.Sources(tmp_path, tmp_path, "plain", tmp_path)
    args = (sources, tmp_path / "results.json", ["UP5K"], ["fc2"])
    bench.run(*args, [5])
    assert calls == ["up5k fc2 P=16 int8", "up5k fc2 P=8 pvq N/K=5"]
    bench.run(*args, [5, 20])
    assert calls[2:] == ["up5k fc2 P=8 pvq N/K=20"]
    bench.run(*args, [5], seeds=(4,))
    assert calls[3:] == calls[:2]
    assert len(json.loads((tmp_path / "results.json").read_text())["points"]) == 3


@dataclass(frozen=True)
class _Sources:
    """A small layer in place of the network's."""

    rows: int
    n: int

    def layer(self, ratio, lanes):
        rng = np.random.default_rng(3)
        w = rng.laplace(size=(self.rows, self.n))
        k = np.full(self.rows, self.n // (ratio or 1))
        y = np.rint(w * 8).clip(-127, 127).astype(np.int64)
        if ratio:
            y = balance(w, k, Placement(lanes, (1 << gap_bits(ratio)) - 2))
        one = np.ones((self.rows, 1), dtype=np.int64)
        bias = np.zeros(self.rows, dtype=np.int64)
        out, name = tensor(self.rows, U8), "int8" if ratio is None else "pvq"
        return Dense("fc2", "x", out, y, one, bias, 4, one.astype(float), name)


@pytest.fixture
def small(monkeypatch):
    sources = _Sources(60, 80)
    monkeypatch.setattr(
        Engine, "parts", lambda self, s: (s.layer(self.ratio, self.lanes), tensor(s.n, U8))
    )
    return sources


def test_balanced_codes_cost_what_is_stored(small):
    figures = measure_codes(Engine("fc2", 5, 8, "hx8k"), small)
    assert figures["pulses"] == figures["codes"] == 60 * 16 == figures["words"] * 8
    assert figures["bits_per_weight"] == 120 * (8 * 5 + 1) / 4800
    assert measure_codes(Engine("fc2", None, 8, "hx8k"), small)["bits_per_weight"] == 8.0


def test_the_tile_is_the_largest_that_fits_all(small):
    engines = [Engine("fc2", ratio, 8, "hx8k") for ratio in (None, 5)]
    # 64-bit weights take 4 block RAMs for each 256 words, 10 to a row; all else takes 7. The
    # engine of pulses takes 14, whatever the rows.
    assert largest_tile(engines, small, "ice40", 14) == 25
    assert largest_tile(engines, small, "ice40", 15) == 51
    assert largest_tile(engines, small, "ice40", 100) == 60
    with pytest.raises(InputError, match="must have 14 block RAMs, not 13"):
        largest_tile(engines, small, "ice40", 13)


@pytest.mark.parametrize(("ratio", "bits"), [(1, 3), (2, 3), (5, 4), (10, 5), (20, 6)])
def test_gaps_reach_far_enough(ratio, bits):
    assert gap_bits(ratio) == bits
    assert (1 << bits) - 2 >= 2.75 * ratio > (1 << (bits - 1)) - 2


def test_devices_name_their_own_cells():
    assert {d.cells["luts"] for d in DEVICES.values()} == {"TRELLIS_COMB", "ICESTORM_LC"}


def test_dense_pulses_are_shifted_and_counted_as_codes(small):
    spec, _ = Engine("fc2", 1, 8, "hx8k").core(small)
    figures = measure_codes(Engine("fc2", 1, 8, "hx8k"), small)
    assert figures["shift_bits"] == spec.code.shift_bits > 0
    assert figures["n_over_k"] == 1
    assert figures["codes"] < figures["pulses"] == 60 * 80
    tile, _ = Engine("fc2", 1, 8, "hx8k").core(small, 7)
    assert tile.code == spec.code
