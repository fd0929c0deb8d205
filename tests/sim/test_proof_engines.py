"""Blocks of shared engines are proven, and each wrong cell of them is found."""

import pytest
from control_mutants import changed, wrong_cell
from engine_cases import chain_of, engine_of
from random_graphs import RandomNetwork

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import InputError, PvqError
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import plan
from sim.proof.engines import EngineBlocks

U5, S8 = IntFormat(5, False), IntFormat(8, True)
BLOCKS = ("leaf", "tree", "accumulator", "multiplier", "adder", "saturate")
OTHER = {"$add": "$sub", "$sub": "$add", "$mul": "$add", "$and": "$or", "$or": "$and",
         "$xor": "$and", "$not": "$pos", "$reduce_and": "$reduce_or", "$reduce_or": "$reduce_and",
         "$reduce_bool": "$reduce_and"}  # fmt: skip


def maps_of(folder):
    """Several positions side by side, and a sum of maps."""
    net = RandomNetwork(11, (4, 4, 2))
    x = net.conv(net.input, 3, (3, 3), pads=((1, 1), (1, 1)), k=4)
    net.dense(net.average(net.add(x, net.conv(x, 3, (1, 1), out=S8, k=2)), (4, 4)), 5)
    network = net.network()
    planned = plan(network, "ulx3s-25f", engine="shared", lanes=[2] * 4)
    (image,) = emit(network, planned).cores
    return engine_of(folder, planned.graph, {planned.specs[0].name: image})


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    return {"chain": chain_of(folder / "chain", "up5k"), "maps": maps_of(folder / "maps")}


def blocks_of(netlist, spec):
    found = EngineBlocks(netlist, spec)
    return found.leaves(), found.trees(), found.accumulators(), found.finishes()


def test_blocks_are_those_of_every_layer(engines):
    (_, chain), (_, maps) = engines.values()
    assert (chain.mixed, maps.side > 1, maps.joined) == (True, True, True)
    for netlist, spec in engines.values():
        side, x = getattr(spec, "side", 1), spec.lane_x.bits
        found = blocks_of(netlist, spec)
        assert found == (
            (3 << x) * side * spec.lanes, side * (spec.lanes - 1), side * spec.acc_chunks,
            len(spec.finishes),
        )  # fmt: skip


def test_an_engine_without_dsp_blocks_is_named(tmp_path):
    found = EngineBlocks(*chain_of(tmp_path, "hx8k"))
    with pytest.raises(InputError, match="the multiplier of an engine without DSP blocks"):
        found.finishes()


@pytest.mark.parametrize("name", ["chain", pytest.param("maps", marks=pytest.mark.slow)])
def test_every_wrong_cell_of_a_block_is_found(engines, name):
    netlist, spec = engines[name]
    count = 0
    for cell in netlist.cells:
        if not cell.name.removeprefix("$flatten\\").startswith(BLOCKS):
            continue
        other = wrong_cell(cell, OTHER)
        if other == cell:
            continue
        with pytest.raises(PvqError):
            pytest.fail(f"{cell.name}: {blocks_of(changed(netlist, other), spec)}")
        count += 1
    assert count > 60
