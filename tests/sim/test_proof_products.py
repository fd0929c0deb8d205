"""Lanes of 8-bit weights are proven for all inputs as they are; what is wrong in them is found."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from proof_cases import ship
from random_graphs import RandomNetwork, build
from random_layers import Case, make_chain

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import CheckError, InputError
from sim.proof.accumulators import check_accumulators
from sim.proof.blocks import check_trees
from sim.proof.moves import check_moves
from sim.proof.netlist import read_units
from sim.proof.products import check_products, lane_activations, lane_products

S8, U4, BIT = IntFormat(8, True), IntFormat(4, False), IntFormat(1, True)


def _netlists(folder, built):
    found = read_units(ship(folder / "out", built), [unit.name for unit in built.graph.units])
    return [(found[unit.name], unit.core) for unit in built.graph.units]


@pytest.fixture(scope="module")
def cores(tmp_path_factory):
    """Multipliers of every kind, of activations of every kind, one lane and several."""
    made = make_chain(
        3, 7, S8,
        Case(5, 0, 3, S8, encoding="int8"),
        Case(6, 0, 1, U4, encoding="int8", options={"family": "up5k"}),
        Case(5, 0, 4, BIT, encoding="int8", options={"family": "hx8k"}),
        Case(4, 0, 5, encoding="int8", options={"family": "hx8k"}),
        Case(3, 0, 2, encoding="int8", options={"family": "up5k"}),
    )  # fmt: skip
    images = {spec.name: image for spec, image in zip(made.specs, made.images, strict=True)}
    folder = tmp_path_factory.mktemp("products")
    return _netlists(folder, SimpleNamespace(graph=made.graph, images=images))


def _check(netlist, spec):
    """Moves, products, adders and carry chains."""
    moved = check_moves(netlist, spec, lane_activations(netlist, spec), spec.flipped)
    assert moved == spec.lanes * spec.x.bits + spec.out.bits
    products = check_products(netlist, spec)
    assert products == spec.lanes << (8 + spec.x.bits)
    assert check_trees(netlist, spec, lane_products(netlist, spec)) == spec.lanes - 1
    assert check_accumulators(netlist, spec, gated=True) == spec.acc_chunks


def test_every_product_and_sum_of_the_lanes_is_right(cores):
    assert [spec.products for _, spec in cores] == ["mult18", "mac16", "logic", "logic", "mac16"]
    for netlist, spec in cores:
        _check(netlist, spec)


def test_windows_come_to_the_lanes_with_their_signs_turned(tmp_path):
    net = RandomNetwork(3, (4, 4, 2), S8)
    net.conv(net.input, 3, (2, 2), pads=((0, 1), (1, 0)))
    net.layers[-1] = replace(net.layers[-1], encoding="int8")
    ((netlist, spec),) = _netlists(tmp_path, build(net, lanes={"conv0": 4}, frames=1))
    _check(netlist, spec)


def _changed(netlist, net, port, change):
    """The cell that gives a net's first bit, with other bits at a port."""
    first = netlist.net(net)[0]
    cells = []
    for cell in netlist.cells:
        if first in cell.output:
            cell = replace(cell, ports={**cell.ports, port: change(list(cell.ports[port]))})
        cells.append(cell)
    return replace(netlist, cells=cells)


def test_wrong_operands_and_late_products_are_found(cores):
    netlist, spec = cores[0]
    other = _changed(netlist, "products.lane1.a0", "D", lambda d: [*d[:7], d[6]])
    with pytest.raises(CheckError, match="Lane 1 of core 'fc0' must give weight times activation"):
        check_products(other, spec)
    neighbor = netlist.net("products.lane0.b")
    with pytest.raises(CheckError, match="Lane 1"):
        check_products(_changed(netlist, "products.lane1.b0", "D", lambda d: neighbor), spec)
    early = netlist.net("products.lane2.first0")
    with pytest.raises(CheckError, match="Lane 2"):
        check_products(_changed(netlist, "products.product2", "D", lambda d: early), spec)


def test_a_sign_that_is_not_turned_is_found(cores):
    netlist, spec = cores[0]
    ends = lane_activations(netlist, spec)
    with pytest.raises(CheckError, match="must come to its leaves as they are"):
        check_moves(netlist, spec, ends, 0)
    plain = [replace(c, type="$pos") if c.type == "$not" and c.output[0] in turned(netlist) else c
             for c in netlist.cells]  # fmt: skip
    with pytest.raises(CheckError, match=r"as \$pos does"):
        check_moves(replace(netlist, cells=plain), spec, ends, spec.flipped)


def turned(netlist):
    """Bits that are the payload's sign turned."""
    top = netlist.net("i__payload")[-1]
    return {c.output[0] for c in netlist.cells if c.type == "$not" and c.ports["A"] == [top]}


def test_a_product_that_is_added_twice_is_found(cores):
    netlist, spec = cores[0]
    twice = _changed(netlist, "tree._0_", "A", lambda a: list(netlist.net("products.product1")))
    with pytest.raises(CheckError, match="must"):
        check_trees(twice, spec, lane_products(twice, spec))


def test_wide_activations_are_named(cores):
    netlist, spec = cores[0]
    wide = replace(spec, x=IntFormat(12, False))
    with pytest.raises(InputError, match="activations of 12 bits have too many products to run"):
        check_products(netlist, wide)
