"""Graphs of units in the exported Verilog: Icarus with cocotb and the compiled model."""

from dataclasses import replace

import pytest
from random_graphs import Built, RandomNetwork, build

from pvq_hw import tools
from pvq_hw.timing import fifo_needs, time_graph, with_depths
from sim.entry import simulate
from sim.result import compare


@pytest.fixture(scope="module")
def built() -> Built:
    """A residual block with a depthwise convolution in it, poolings of both kinds, an output."""
    net = RandomNetwork(8, (6, 6, 2))
    branch = net.conv(net.input, 2, (3, 3), groups=2, pads=((1, 1), (1, 1)))
    joined = net.add(net.input, net.conv(branch, 2, (1, 1)))
    pooled = net.maxpool(joined, (3, 3), stride=(2, 2), pads=((1, 1), (1, 1)))
    net.dense(net.average(pooled, (3, 3)), 3)
    made = build(net, family="up5k", lanes={"conv0": 2}, frames=2)
    return replace(made, graph=with_depths(made.graph, fifo_needs(made.graph, made.images)))


@pytest.mark.skipif(not tools.have_tool("iverilog"), reason="needs Icarus Verilog")
@pytest.mark.parametrize("simulator", ["icarus", "compiled"])
def test_the_exported_graph_computes_what_the_golden_model_does(built: Built, simulator: str):
    specs = built.graph.cores
    images = [built.images[spec.name] for spec in specs]
    names = [layer.name for layer in built.network.layers]
    graph = built.graph
    result = simulate(specs, images, built.x, simulator, names=names, graph=graph)
    compared = compare(result, built.network.trace(built.x))
    assert (compared.mismatches, compared.frames) == (0, 2)
    sizes = sum(layer.output.size for layer in built.network.layers)
    assert compared.outputs_compared == 2 * sizes
    timing = time_graph(graph, built.images)
    found = (result.interval_cycles, result.latency_cycles)
    assert found == (timing.interval_cycles, timing.latency_cycles)
    bias = images[0].bias
    images[0] = replace(images[0], bias=(bias[0] + 5000, *bias[1:]))
    wrong = simulate(specs, images, built.x, simulator, names=names, graph=graph, settle=False)
    assert compare(wrong, built.network.trace(built.x)).mismatches > 0
