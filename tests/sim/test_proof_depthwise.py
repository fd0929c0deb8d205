"""What depthwise cores compute is proven, and each wrong cell and word is found."""

from dataclasses import replace

import pytest
from control_mutants import changed, passes, wrong_cell
from proof_cases import core_parts, ship
from random_graphs import RandomNetwork, build

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import CheckError, PvqError
from sim.proof.depthwise import check_planes, check_taps, check_words
from sim.proof.moves import check_results
from sim.proof.netlist import read_units
from sim.proof.raster_handshakes import check_depthwise_handshakes
from sim.proof.requantizers import check_requantizers
from sim.proof.roms import read_rom
from sim.proof.sums import RowSums

OTHER = {"$add": "$sub", "$and": "$or", "$xor": "$and", "$mux": "$mux"}


@pytest.fixture(scope="module", params=["ecp5", "up5k"])
def core(request, tmp_path_factory):
    """Netlist, specification, contents and sums: signed activations with several planes, and
    unsigned ones with two rows a channel."""
    signed = request.param == "ecp5"
    net = RandomNetwork(8, (3, 4, 2), IntFormat(4, signed))
    pads = ((1, 1), (1, 1)) if signed else ((0, 1), (0, 0))
    net.conv(net.input, 2 if signed else 4, (3, 3) if signed else (2, 2), pads=pads, groups=2, k=19)
    built = build(net, depthwise={"conv0"}, family=request.param)
    ((layer, unit),) = core_parts(built)
    image = built.images[unit.core.name]
    folder = ship(tmp_path_factory.mktemp("depthwise") / "out", built)
    netlist = read_units(folder, [unit.name])[unit.name]
    return netlist, unit.core, image, RowSums.of(layer, unit.core, image)


def nothing(done, total):
    """No progress."""


def test_every_sum_is_its_weights_and_every_result_the_layers(core):
    netlist, spec, image, sums = core
    sums.check_widths()
    assert sums.bias == tuple(image.bias)
    assert spec.planes > 1
    assert check_taps(netlist, spec) == sum(spec.magnitudes)
    assert check_planes(netlist, spec) == sum(spec.magnitudes) - 1
    assert check_words(netlist, spec, image) == 3 * spec.rows
    assert check_results(netlist, spec) == spec.out.bits
    values, left = check_requantizers(netlist, sums, nothing)
    low, high = sums.bounds
    assert (values, left) == (int((high - low + 1).sum()), [])


def test_every_wrong_cell_of_a_sum_is_found(core):
    netlist, spec, *_ = core
    count = 0
    for cell in netlist.cells:
        if not cell.name.startswith("$flatten\\sums."):
            continue
        other = wrong_cell(cell, OTHER)
        if other == cell:
            continue
        wrong = changed(netlist, other)
        with pytest.raises(PvqError):
            pytest.fail(f"{cell.name}: {check_taps(wrong, spec)}, {check_planes(wrong, spec)}")
        count += 1
    assert count > 3 * sum(spec.magnitudes)


def test_words_of_another_row_are_found(core):
    netlist, spec, image, _ = core
    for name in ("codes", "bias", "mult"):
        words = getattr(image, name)
        other = replace(image, **{name: (words[0] + 1, *words[1:])})
        with pytest.raises(CheckError, match="must be its image's"):
            check_words(netlist, spec, other)
    row = {**netlist.nets, "walk.row": read_rom(netlist, "bias", spec.params_latency).address}
    with pytest.raises(CheckError, match="words of weights must be"):
        check_words(replace(netlist, nets=row), spec, image)
    # Multipliers and biases that do not follow the rows: not counted, or not reset.
    counters = [cell for cell in netlist.cells if cell.type == "$add"
                and cell.name.startswith("$add$")]  # fmt: skip
    found = [cell for cell in counters if len(cell.ports["A"]) == len(netlist.net("walk.row"))]
    assert len(found) >= 2
    for cell in found[:2]:
        wrong = changed(netlist, passes(cell, cell.ports["A"]))
        with pytest.raises(CheckError, match=r"words of (mult|bias) follow the rows"):
            check_depthwise_handshakes(wrong, spec)


def test_results_that_do_not_leave_as_they_are_are_found(core):
    netlist, spec, *_ = core
    output = netlist.net("o__payload")
    turned = replace(netlist, nets={**netlist.nets, "o__payload": output[::-1]})
    with pytest.raises(CheckError, match="must leave as they are"):
        check_results(turned, spec)
