"""What came after the first cores, synthesized: decisions, a shared engine, wide streams."""

import numpy as np
import pytest
from plan_networks import random_network

from pvq_hw.network.rule import decided
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import plan
from pvq_hw.tools import find as tools
from sim.backends.netlist import run_frames

pytestmark = pytest.mark.skipif(
    not (tools.have_tool("yosys") and tools.have_tool("iverilog")), reason="needs yosys and Icarus"
)

KINDS = {
    "the largest": ("top=2", {}),
    "thresholds": ("above=0.1", {}),
    "a shared engine": ("", {"engine": "shared"}),
    "wide streams": ("", {"engine": "unrolled", "widths": (4, 5)}),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("board", "body"), [("icebreaker", "ice40"), ("ulx3s-25f", "ecp5")])
def test_a_synthesized_netlist_equals_the_golden_model(kind, board, body):
    rule, options = KINDS[kind]
    network = decided(random_network((12, 9, 5), (6, 5))[0], rule)
    made = plan(network, board, **options)
    x = np.random.default_rng(0).integers(0, 256, (3, 12))
    cores = emit(network, made).cores
    run = run_frames(made.graph, cores, x, network.predict(x), body, synthesize=True)
    assert run.compared >= 2 * network.output.size
