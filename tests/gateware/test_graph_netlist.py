"""What bitstreams of graphs are made of: vendor bodies and synthesized netlists on Icarus."""

import numpy as np
import pytest
from random_graphs import Built, RandomNetwork, build

from pvq_hw.engine.timing import fifo_needs, with_depths
from pvq_hw.errors import CheckError
from pvq_hw.tools import find as tools
from sim.backends.netlist import run_frames

pytestmark = pytest.mark.skipif(
    not (tools.have_tool("yosys") and tools.have_tool("iverilog")), reason="needs yosys and Icarus"
)


def built(family: str) -> Built:
    """Line buffers in block RAM, a residual sum, tables, both kinds of pooling."""
    net = RandomNetwork(8, (4, 9, 4))
    joined = net.add(net.input, net.conv(net.input, 4, (3, 3), pads=((1, 1), (1, 1))))
    joined = net.table(joined, tables=4)
    net.dense(net.average(net.maxpool(joined, (2, 2), stride=(2, 2)), (2, 2), stride=(2, 2)), 3)
    # The bench sends them three times; Icarus takes longest for ECP5's models.
    return build(net, family=family, frames=1 if family == "ecp5" else 2)


@pytest.mark.parametrize(
    ("body", "family", "synthesized"),
    [
        ("ecp5", "ecp5", False),
        ("ice40", "up5k", False),
        pytest.param("ecp5", "ecp5", True, marks=pytest.mark.slow),
        pytest.param("ice40", "up5k", True, marks=pytest.mark.slow),
    ],
)
def test_a_graph_equals_the_golden_model(body: str, family: str, synthesized: bool) -> None:
    made = built(family)
    graph = with_depths(made.graph, fifo_needs(made.graph, made.images))
    images = [made.images[spec.name] for spec in graph.cores]
    x = made.x.reshape(len(made.x), -1)
    expected = made.network.predict(made.x).reshape(len(x), -1)
    run = run_frames(graph, images, x, expected, body, synthesize=synthesized)
    assert run.compared >= 2 * expected.size
    blocks = run.cells["DP16KD" if body == "ecp5" else "SB_RAM40_4K"]
    assert blocks >= len(graph.cores)
    if body == "ice40" and not synthesized:
        wrong = expected + (np.arange(expected.shape[1]) == 1)
        with pytest.raises(CheckError, match="golden model"):
            run_frames(graph, images, x, wrong, body, synthesize=False)
