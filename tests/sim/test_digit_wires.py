"""Digit-serial adders are proven, and each wrong one is found."""

from dataclasses import replace

import pytest
from control_mutants import changed, wrong_cell
from proof_cases import core_parts, ship
from random_graphs import RandomNetwork, build

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import CheckError, PvqError
from sim.proof.digit_wires import check_digit_wires
from sim.proof.netlist import read_units
from sim.proof.unrolled_handshakes import check_unrolled_handshakes

OTHER = {"$xor": "$or", "$or": "$and", "$and": "$or", "$not": "$pos", "$add": "$sub"}


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    """Netlist, core, adders and weights of layers that add 1, 2, 4 and 8 bits a cycle, of unsigned
    and signed activations and of signs, the last one with several gains a row."""
    net = RandomNetwork(3, (7,), IntFormat(4, True))
    x = net.dense(net.input, 5, k=9)
    x = net.dense(net.dense(x, 6, k=8, sign=True), 4, k=9)
    net.dense(x, 3, k=6, groups=2)
    digits = {f"fc{k}": 1 << k for k in range(4)}
    built = build(net, unrolled=set(digits), digits=digits)
    netlists = read_units(ship(tmp_path_factory.mktemp("digits") / "out", built), digits)
    return [
        (netlists[unit.name], unit.core, unit.core.graph(built.images[unit.name]), layer.y)
        for layer, unit in core_parts(built)
    ]


def test_every_adder_of_every_digit_is_followed(layers):
    for netlist, spec, graph, y in layers:
        assert check_digit_wires(netlist, spec, graph, y) == spec.adders > 1


def test_other_weights_than_the_adders_are_found(layers):
    for netlist, spec, graph, y in layers:
        wrong = y.copy()
        wrong[2, 1] += 1
        with pytest.raises(CheckError, match="the adders of row 2 must have its weights"):
            check_digit_wires(netlist, spec, graph, wrong)
        # The netlist of other adders, where the graph has the weights.
        adder = graph.adders[-1]
        other = replace(graph, adders=(*graph.adders[:-1], replace(adder, a=adder.b, b=adder.a)))
        if adder.a != adder.b and (adder.shift or adder.subtract):
            with pytest.raises(CheckError, match="must"):
                check_digit_wires(netlist, spec, other, y)


@pytest.mark.parametrize("number", [1, 2])
def test_every_wrong_cell_is_found(layers, number):
    netlist, spec, graph, y = layers[number]
    count = 0
    for cell in netlist.cells:
        if "adders." not in cell.name:
            continue
        other = wrong_cell(cell, OTHER)
        if other == cell:
            continue
        with pytest.raises(PvqError):
            pytest.fail(
                f"{cell.name}: {check_digit_wires(changed(netlist, other), spec, graph, y)}"
            )
        count += 1
    assert count > 20


def test_sums_that_are_taken_too_soon_are_found(layers):
    netlist, spec, graph, y = layers[1]
    with pytest.raises(CheckError, match="row 0 must be there in time"):
        check_digit_wires(netlist, replace(spec, levels=spec.levels - 1), graph, y)
    with pytest.raises(CheckError, match="sums must be taken when the adders have them"):
        check_unrolled_handshakes(netlist, replace(spec, levels=spec.levels - 1))
