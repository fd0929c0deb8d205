"""Control of unrolled cores is proven for any pauses and no mutant of it, requantizers for every
sum."""

import re
from dataclasses import replace

import pytest
from control_mutants import changed, unit_mutants
from proof_cases import core_parts, ship
from random_graphs import RandomNetwork, build

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import CheckError, InputError
from sim.proof.netlist import read_units
from sim.proof.requantizers import check_requantizers
from sim.proof.sums import RowSums
from sim.proof.unrolled_handshakes import check_unrolled_handshakes

# What is the same circuit: counters of two go on to 0 by themselves, a pause that reset leaves is
# over some cycles later, and a count of sums is not looked at where there are none. Where rows have
# several gains, strobes tell which product is a row's first, which decides values, as requantizers
# do.
EQUAL = re.compile(
    r"fc0 shifter\._06_ not reset"
    r"|fc3 (_1[68]_ never|collector\._\d+_ never|shifter\._\d+_ always)"
    r"|fc3 pacer\._\d+_ (never|not reset)"
    r"|fc2 _0(01_ never|33_|(2\d|3[01])_ not reset)"
    r"|.*requantizer"
)


@pytest.fixture(scope="module")
def cores(tmp_path_factory):
    """Netlist, core, layer and contents of layers that hold frames, with one activation a transfer
    and several, signs and several gains; of pipelined ones, whose sums leave in turn or at once,
    and one that adds two bits a cycle."""
    net = RandomNetwork(3, (12,), IntFormat(4, False))
    x = net.dense(net.dense(net.dense(net.input, 6, k=12), 6, k=20, sign=True), 4, groups=3)
    for rows in (6, 6, 4, 4):
        x = net.dense(x, rows, k=7)
    widths = {"fc0": 2, "fc1": 1, "fc3": -3, "fc4": -1, "fc5": -4, "fc6": -4}
    names = {layer.name for layer in net.layers}
    built = build(net, unrolled=names, widths=widths, digits={"fc4": 2}, gains=("fc5", "fc6"),
                  family="hx8k")  # fmt: skip
    netlists = read_units(ship(tmp_path_factory.mktemp("unrolled") / "out", built), names)
    return {
        unit.name: (netlists[unit.name], unit.core, layer, built.images[unit.core.name])
        for layer, unit in core_parts(built)
    }


def test_no_frame_is_lost_or_made_whatever_the_pauses(cores):
    found = {name: check_unrolled_handshakes(*case[:2]) for name, case in cores.items()}
    assert found == {
        "fc0": 62, "fc1": 55, "fc2": 58, "fc3": 71, "fc4": 92, "fc5": 52, "fc6": 50,
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["fc5", "fc6", *(pytest.param(f"fc{k}", marks=pytest.mark.slow) for k in (0, 1, 2, 3))],
)
def test_no_mutant_of_the_control_is_proven(cores, name):
    netlist, spec, *_ = cores[name]
    count = 0
    for cell, kind, instead in unit_mutants(netlist):
        if EQUAL.match(f"{name} {cell} {kind} {instead.name}"):
            continue
        with pytest.raises((CheckError, InputError)):
            pytest.fail(
                f"{cell}, {kind}: {check_unrolled_handshakes(changed(netlist, instead), spec)}"
            )
        count += 1
    assert count > 30


def test_every_sum_of_every_row_gives_its_activation(cores):
    for name in ("fc0", "fc1", "fc3", "fc4", "fc5", "fc6"):
        netlist, spec, layer, image = cores[name]
        sums = RowSums.of(layer, spec, image)
        values, left = check_requantizers(netlist, sums, lambda done, total: None)
        low, high = sums.bounds
        most = int((high - low + 1).sum())
        assert left == []
        # An operand of wires can be no other values than its bits allow.
        assert values == most if not spec.direct else most / 8 < values <= most


@pytest.mark.parametrize("name", ["fc0", "fc3", "fc5"])
def test_another_multiplier_or_bias_is_found(cores, name):
    netlist, spec, layer, image = cores[name]
    row = spec.rows - 1
    for field in ("mult", "bias"):
        wrong = getattr(layer, field).copy()
        wrong[row] += 64
        changed_layer = replace(layer, **{field: wrong})
        sums = RowSums.of(layer, spec, image)
        sums = replace(sums, layer=changed_layer)
        with pytest.raises(CheckError, match=f"row {row} is wrong for a sum of"):
            check_requantizers(netlist, sums, lambda done, total: None)


def test_sums_in_another_order_are_found(cores):
    netlist, spec, *_ = cores["fc0"]
    with pytest.raises(CheckError, match="sums leave as they were added, in order"):
        check_unrolled_handshakes(netlist, replace(spec, inverted=(1,)))
