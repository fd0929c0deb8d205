"""What poolings do with values is proven, and each wrong cell is found."""

from dataclasses import replace

import pytest
from control_mutants import changed, wrong_cell
from proof_cases import ship
from random_graphs import RandomNetwork, build

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import CheckError, PvqError
from sim.proof.netlist import read_units
from sim.proof.pools import check_pool

OTHER = {"$gt": "$lt", "$lt": "$ge", "$or": "$and", "$and": "$or", "$add": "$sub", "$mul": "$add",
         "$not": "$pos", "$ne": "$eq", "$eq": "$ne"}  # fmt: skip
# Not the control, which other proofs are about, and one multiplier of four alike.
CONTROL = ("walk.", "reader.", "queue.", "credits.", "scaler1.", "scaler2.", "scaler3.")


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """Poolings and their netlists: rows in registers, several channels a transfer, means with one
    multiplier and several, signs, and windows from a line buffer."""
    net = RandomNetwork(1, (7, 12, 8), IntFormat(4, True))
    x = net.maxpool(net.input, (2, 2), stride=(2, 2))
    x = net.maxpool(x, (1, 2), stride=(1, 2), pads=((0, 0), (1, 1)))
    x = net.average(x, (2, 2), stride=(2, 2), pads=((1, 0), (0, 0)))
    x = net.maxpool(x, (2, 2), pads=((1, 0), (0, 1)))
    net.average(x, (2, 1), pads=((1, 0), (0, 0)))
    long = RandomNetwork(1, (4, 2, 4), IntFormat(5, False))
    long.maxpool(long.input, (2, 1), stride=(2, 1))
    return pools_of(tmp_path_factory, long) | pools_of(tmp_path_factory, net, ends=(4, 1))


def pools_of(tmp_path_factory, net, **options):
    built = build(net, **options)
    units = {unit.name: unit for unit in built.graph.units if unit.kind == "pool"}
    netlists = read_units(ship(tmp_path_factory.mktemp("pools") / "out", built), units)
    kind = "short" if options else "long"
    return {f"{kind} {name}": (netlists[name], unit) for name, unit in units.items()}


def test_every_result_is_of_its_window(pools):
    found = {name: check_pool(*pair) for name, pair in pools.items()}
    assert found == {name: unit.sizes()[1] for name, (_, unit) in pools.items()}
    kinds = {(unit.window is None and unit.chained, unit.scale is None, unit.window is None)
             for _, unit in pools.values()}  # fmt: skip
    assert kinds == {(False, True, True), (True, True, True), (True, False, True),
                     (False, True, False), (False, False, False)}  # fmt: skip


@pytest.mark.parametrize("number", [0, 1, 3, 4, 5])
def test_every_wrong_cell_is_found(pools, number):
    netlist, unit = list(pools.values())[number]
    count = 0
    for cell in netlist.cells:
        names = [n for n, bits in netlist.nets.items() if bits == cell.output]
        memory = cell.type == "$mem_v2" and not cell.name.startswith("ram.")
        control = any(part in name for name in (cell.name, *names) for part in CONTROL)
        bit = cell.type == "$add" and len(cell.ports["A"]) == 1  # one less is one more
        cleared = cell.type == "$mux" and cell.ports["S"] == netlist.port("rst")
        if memory or control or bit or cleared:
            continue
        other = wrong_cell(cell, OTHER, memory="WR_DATA")
        if other == cell:
            continue
        with pytest.raises(PvqError):
            pytest.fail(f"{cell.name}, {names}: {check_pool(changed(netlist, other), unit)}")
        count += 1
    assert count > 3


def test_other_windows_and_multipliers_are_found(pools):
    _, (first, unit), *_, (last, mean) = pools.values()
    g = unit.geometry
    other = replace(unit, geometry=replace(g, kernel=(1, 2), stride=(1, 2)))
    with pytest.raises(CheckError, match="of a frame must have another"):
        check_pool(first, other)
    low = replace(mean, mult=tuple((count, value - 1) for count, value in mean.mult))
    with pytest.raises(CheckError, match="each position must have its multiplier"):
        check_pool(last, low)
    padded = next(pair for pair in pools.values() if pair[1].window and not pair[1].scale)
    window = replace(padded[1].window, pad=0)
    with pytest.raises(CheckError, match="padding must be no maximum"):
        check_pool(padded[0], replace(padded[1], window=window))
