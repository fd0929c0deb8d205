"""Blocks of shared engines are proven, and each wrong cell of them is found."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from control_mutants import changed, wrong_cell
from engine_cases import chain_of, engine_of, layers_of
from random_graphs import RandomNetwork

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import CheckError, InputError, PvqError
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import plan
from sim.proof.engine_handshakes import check_engine_handshakes
from sim.proof.engine_sums import EngineLayers, check_engine_moves, check_engine_sums
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


def sums_of(netlist, layers):
    found = EngineBlocks(netlist, layers.spec).activations()
    return (
        check_engine_moves(netlist, layers.spec, found),
        check_engine_sums(netlist, layers, lambda done, total: None),
    )


def test_sums_are_those_of_every_layer(engines, tmp_path):
    netlist, _ = engines["chain"]
    layers = layers_of("up5k")
    low, high = layers.check_widths()
    assert -(1 << (layers.spec.acc_bits - 1)) <= low < high < 1 << (layers.spec.acc_bits - 1)
    # Bits of two lanes' leaves, of results kept and of those that leave; 9 rows, three times.
    bits, ran = sums_of(netlist, layers)
    assert (bits, ran.frames, ran.sums) == (2 * 8 + 8 + 5, 23, 3 * 9 * 23)
    other, _ = chain_of(tmp_path, "hx8k")
    assert sums_of(other, layers_of("hx8k"))[0] == bits


def test_leaves_are_found_where_loading_codes_resets_them(tmp_path):
    netlist, spec = chain_of(tmp_path, "up5k", code_memory="spram")
    found = EngineBlocks(netlist, spec)
    assert [len(bits) for bits in found.activations()] == [9, 9]
    assert found.leaves() == (3 << 9) * spec.lanes


@pytest.mark.parametrize("what", ["code", "mult", "bias"])
def test_other_words_of_a_memory_are_found(engines, what):
    netlist, _ = engines["chain"]
    name = {"code": "codes.", "mult": "mult.", "bias": "bias."}[what]
    memory = next(c for c in netlist.cells if c.type == "$mem_v2" and c.name.startswith(name))
    text = {"code": "Sums of layer 'fc0'", "mult": "Mult", "bias": "Mult"}[what]
    init = memory.parameters["INIT"]
    turned = init[:-1] + ("1" if init[-1] == "0" else "0")
    wrong = replace(memory, parameters={**memory.parameters, "INIT": turned})
    with pytest.raises(CheckError, match=text):
        sums_of(changed(netlist, wrong), layers_of("up5k"))


def test_layers_that_would_not_fit_are_found():
    layers = layers_of("up5k")
    narrow = replace(layers, spec=replace(layers.spec, acc_bits=layers.spec.acc_bits - 2))
    with pytest.raises(CheckError, match="has sums of"):
        narrow.check_widths()


def test_activations_of_several_widths_are_not_followed():
    layers = layers_of("up5k")
    wide = replace(layers.spec.layers[0], x=U5)
    spec = SimpleNamespace(layers=(wide, *layers.spec.layers[1:]), bank_bits=8)
    with pytest.raises(InputError, match="activations of several widths"):
        EngineLayers(spec, layers.layers, layers.image)


@pytest.mark.slow
def test_every_wrong_cell_of_an_engine_is_found(engines):
    """By its blocks, its sums or its control: but one, a bank's address that is never another."""
    netlist, spec = engines["chain"]
    layers, count = layers_of("up5k"), 0

    def claims(other):
        return sums_of(other, layers), blocks_of(other, spec), check_engine_handshakes(other, spec)

    for cell in netlist.cells:
        for memory in ("RD_ADDR", "WR_ADDR", "WR_DATA") if cell.type == "$mem_v2" else (None,):
            other = wrong_cell(cell, OTHER, memory)
            if other == cell or cell.output == netlist.net("decoder1.walk"):
                continue
            with pytest.raises(PvqError):
                pytest.fail(f"{cell.name}: {claims(changed(netlist, other))}")
            count += 1
    assert count > 280
