"""The wires of unrolled layers are proven, and each wrong one is found."""

from dataclasses import replace

import numpy as np
import pytest
from proof_cases import core_parts, ship
from random_graphs import RandomNetwork, build

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import CheckError
from sim.proof.netlist import read_units
from sim.proof.wires import check_wires


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Netlist, core and weights of layers of every input: a convolution of unsigned activations,
    signs, rows of several gains; the convolution has a row of zeros."""
    net = RandomNetwork(3, (4, 4, 2), IntFormat(4, False))
    x = net.conv(net.input, 4, (2, 2), k=9, out=IntFormat(5, True))
    net.layers[0].y[2] = 0
    x = net.dense(net.dense(x, 6, k=40, sign=True), 4, groups=3)
    net.dense(x, 3, k=7)
    names = {layer.name for layer in net.layers}
    built = build(net, unrolled=names, widths={"fc3": -3})  # the last one pipelined
    folder = ship(tmp_path_factory.mktemp("wires") / "out", built)
    netlists = read_units(folder, [unit.name for unit in built.graph.units])
    return [(netlists[unit.name], unit.core, layer.y) for layer, unit in core_parts(built)]


def test_every_adder_of_every_layer_is_followed(parts):
    for netlist, spec, y in parts:
        assert check_wires(netlist, spec, y) == spec.adders


def test_other_weights_than_the_wires_are_found(parts):
    for netlist, spec, y in parts:
        wrong = y.copy()
        row, column = (int(k[0]) for k in np.nonzero(y))
        wrong[row, column] += 1
        with pytest.raises(CheckError, match=f"row {row} must have the layer's weight of column"):
            check_wires(netlist, spec, wrong)
    netlist, spec, y = parts[0]
    with pytest.raises(CheckError, match="cycles at most, not"):
        check_wires(netlist, replace(spec, levels=1), y)
    netlist, spec, y = parts[-1]
    with pytest.raises(CheckError, match=f"must take {spec.levels + 1} cycles, not"):
        check_wires(netlist, replace(spec, levels=spec.levels + 1), y)
    # A held frame's adders have no registers in which an operand waits for its partner.
    netlist, spec, y = parts[2]
    with pytest.raises(CheckError):
        check_wires(netlist, replace(spec, pipelined=True), y)


def test_wrong_adders_and_narrow_widths_are_found(parts):
    netlist, spec, y = parts[0]
    adders = [k for k, cell in enumerate(netlist.cells) if "adders." in cell.name
              and cell.type in ("$add", "$sub")]  # fmt: skip
    assert len(adders) >= spec.adders

    def changed(at, **ports):
        cell = netlist.cells[at]
        cells = list(netlist.cells)
        kind = ports.pop("type", cell.type)
        cells[at] = replace(cell, type=kind, ports={**cell.ports, **ports})
        return replace(netlist, cells=cells)

    for at in adders:
        cell = netlist.cells[at]
        other = "$sub" if cell.type == "$add" else "$add"
        with pytest.raises(CheckError):
            check_wires(changed(at, type=other), spec, y)
        low = ["0", *cell.ports["B"][1:]]
        with pytest.raises(CheckError, match="must add activations in widths"):
            check_wires(changed(at, B=low), spec, y)
        narrow = [*cell.ports["B"][:2], *["0"] * (len(cell.ports["B"]) - 2)]
        with pytest.raises(CheckError, match="must add activations in widths"):
            check_wires(changed(at, B=narrow), spec, y)
