"""Graphs of units in the exported Verilog: Icarus with cocotb and the compiled model."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from random_graphs import Built, RandomNetwork, build

from pvq_hw.engine.timing import fifo_needs, time_graph, with_depths
from pvq_hw.plan.image import Image
from pvq_hw.tools import find as tools
from sim.flow import settled
from sim.result import SimResult, compare
from sim.run import exported, simulate


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


@pytest.fixture(scope="module")
def folder(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph as `compile` lays it out."""
    specs = built.graph.cores
    kept = tmp_path_factory.mktemp("graph") / "out"
    with exported(built.graph, [built.images[spec.name] for spec in specs]) as design:
        shutil.copytree(design.sources[0].parent.parent, kept)
    return kept


def test_the_compiled_graph_computes_what_the_golden_model_does(
    built: Built, folder: Path, tmp_path: Path
):
    """In as many cycles as are reckoned; and not where a bias is another."""
    specs = built.graph.cores
    names = [layer.name for layer in built.network.layers]
    graph = built.graph
    result = simulate(graph, folder, built.x, "compiled", names=names)
    _same(built, result)
    timing = time_graph(graph, built.images)
    found = (result.interval_cycles, result.latency_cycles)
    assert found == (timing.interval_cycles, timing.latency_cycles)
    images = [built.images[spec.name] for spec in specs]
    _rounds_settle_what_intervals_do_not(graph, images, result)
    bias = images[0].bias
    images[0] = replace(images[0], bias=(bias[0] + 5000, *bias[1:]))
    spoiled = shutil.copytree(folder, tmp_path / "out")
    Image(tuple(specs), tuple(images)).write(spoiled)
    wrong = simulate(graph, spoiled, built.x, "compiled", names=names, settle=False)
    assert compare(wrong, built.network.trace(built.x)).mismatches > 0


@pytest.mark.skipif(not tools.have_tool("iverilog"), reason="needs Icarus Verilog")
def test_icarus_takes_the_same_cycles(built: Built, folder: Path):
    names = [layer.name for layer in built.network.layers]
    compiled, icarus = (
        simulate(built.graph, folder, built.x, simulator, names=names, settle=False)
        for simulator in ("compiled", "icarus")
    )
    _same(built, icarus)
    assert icarus.starts.tolist() == compiled.starts.tolist()
    assert icarus.ends.tolist() == compiled.ends.tolist()


def _rounds_settle_what_intervals_do_not(graph, images, result: SimResult) -> None:
    """Patterns may be longer than what is simulated: then each round counts."""
    plan = SimpleNamespace(graph=graph, interval_cycles=result.interval_cycles + 2)
    accelerator = SimpleNamespace(plan=plan, image=SimpleNamespace(cores=images))
    assert len(result.rounds) >= 7
    assert settled(accelerator, result).interval_cycles == plan.interval_cycles
    late = replace(result, rounds=result.rounds + (np.arange(len(result.rounds)) == 3))
    assert settled(accelerator, late).interval_cycles == result.interval_cycles
    few = replace(result, rounds=result.rounds[:6])
    assert settled(accelerator, few).interval_cycles == result.interval_cycles


def _same(built: Built, result: SimResult) -> None:
    compared = compare(result, built.network.trace(built.x))
    assert (compared.mismatches, compared.frames) == (0, 2)
    sizes = sum(layer.output.size for layer in built.network.layers)
    assert compared.outputs_compared == 2 * sizes
