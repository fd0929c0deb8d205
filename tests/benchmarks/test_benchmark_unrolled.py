"""The benchmark of adder graphs: its circuits are simulated, and its page adds up."""

import numpy as np
import pytest

from benchmarks.unrolled import CASES, Case, ours, page_of, simulate
from pvq_hw.tools import find as tools


@pytest.mark.skipif(not tools.have_tool("iverilog"), reason="needs Icarus Verilog")
def test_a_circuit_of_other_weights_is_found(tmp_path):
    y = Case("small", 4, 6, 1).matrix(1)
    circuit = ours(y)
    for name, text in circuit.sources.items():
        (tmp_path / name).write_text(text)
    simulate(circuit, y, 1, tmp_path)
    other = y.copy()
    other[3, 5] += 1
    with pytest.raises(AssertionError, match="must give the matrix product"):
        simulate(circuit, other, 1, tmp_path)


def test_the_page_has_the_mean_of_the_seeds_of_a_networks_layers():
    counts = {"adders": 1000, "luts": 3000, "ffs": 500}
    rows = [
        {**vars(case), "seed": seed} | dict.fromkeys(("pvq-hw", "chosen", "da4ml", "trees"), counts)
        for case in CASES[:4]
        for seed in (1, 2)
    ]
    versions = {"da4ml": "0.6.0", "yosys": "0.70", "python": "3.11"}
    page = page_of({"versions": versions, "seeds": [1, 2], "rows": rows})
    assert (
        "| LHC jet 16-64-32-32-5 | 1 | 4,000 | 4,000 | 4,000 | 4,000 | 12,000 | 12,000 | 12,000 "
        "| 12,000 | 2,000 | 2,000 | 2,000 |"
    ) in page
    assert "Seeds: 1, 2." in page
    placed = {"rows": 4, "n": 6, "ratio": 2, "way": "chosen", "output_bits": 34}
    placed |= {"luts": 1234, "ffs": 1500, "runs": [{"fmax_mhz": 240.06}, {"fmax_mhz": 199}]}
    page = page_of({"versions": versions, "seeds": [1], "rows": rows, "placed": [placed]})
    assert "4 x 6 at N/K 2 (seed 1), between shift" in page
    assert "| chosen | 1,200 | 1,500 | 240.1, 199.0 |" in page


def test_matrices_are_codewords_of_their_ratio():
    for case in CASES:
        y = case.matrix(1)
        assert y.shape == (case.rows, case.n)
        assert set(np.abs(y).sum(axis=1)) == {round(case.n / case.ratio)}
