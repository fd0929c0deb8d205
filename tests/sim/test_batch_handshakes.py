"""Frames gathered into batches and given one after the other again: control and values are proven,
and no mutant of them is."""

from dataclasses import replace

import pytest
from control_mutants import changed, mutants, netlists, refuse_all, unit_mutants, wrong_cell
from random_layers import Case, make_chain

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import CheckError, InputError, PvqError
from sim.proof.batch_handshakes import check_batch_handshakes
from sim.proof.frames import check_frames
from sim.proof.handshakes import check_handshakes, most_owed
from sim.proof.sums import RowSums
from sim.proof.unit_handshakes import check_unit_handshakes
from sim.proof.unpackers import check_places, check_unpacked

OTHER = {"$add": "$sub", "$sub": "$add", "$and": "$or", "$or": "$and", "$eq": "$ne",
         "$not": "$pos", "$xor": "$or", "$reduce_or": "$reduce_and"}  # fmt: skip
# What is changed of which cell of a writer, and the claim that breaks.
FIXED = {
    ("writer._022_", "only A"): "a batch's frames are counted",
    ("writer._033_", "another number"): "the end of a pause is known",
    ("writer._001_", "not inverted"): "pauses are between frames of a batch",
    ("writer._049_", "never"): "a batch that has begun has its half",
    ("writer._051_", "never"): "a pause has its length",
}
# What changes nothing: the cycles of a pause are only looked at within one.
SAME = {("writer._050_", "never"), ("writer._016_", "not reset")}


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """Two cores of three frames, of which the first gathers them, and the unpacker."""
    both = {"frames": 3}
    first = Case(5, 2, 3, IntFormat(8, True), options=both | {"flush_cycles": 5})
    second = Case(4, 3, 2, options=both | {"bank_memory": "logic"})
    made = make_chain(3, 7, IntFormat(8, False), first, second)
    return made, netlists(tmp_path_factory.mktemp("batches"), made)


def test_no_frame_is_lost_or_made_and_each_batch_is_told(batches):
    made, found = batches
    *cores, unpacker = made.graph.units
    first, second = ((found[unit.name], unit.core) for unit in cores)
    assert check_batch_handshakes(*first) == 127
    assert check_handshakes(*second) == 98
    assert unpacked(found[unpacker.name], unpacker) == (90, 45)
    with pytest.raises(InputError, match="frames that are gathered into batches is not followed"):
        check_handshakes(*first)


def test_sums_of_each_frame_of_a_batch_are_its_rows(batches):
    made, found = batches
    unit, layer = made.graph.units[0], made.network.layers[0]
    sums = RowSums.of(layer, unit.core, made.images[0])
    frames = check_frames(found[unit.name], unit, sums, lambda *_: None)
    assert frames.sums == 3 * 3 * frames.frames * unit.core.rows
    netlist = found[unit.name]
    part = netlist.makers[netlist.net("writer.w_part")[0]]
    turned = replace(part, ports={**part.ports, "D": part.ports["D"][1:] + part.ports["D"][:1]})
    with pytest.raises(CheckError, match="row 0"):
        check_frames(changed(netlist, turned), unit, sums, lambda *_: None)


def test_lost_parts_pauses_and_halves_break_the_claim_that_is_about_them(batches):
    made, found = batches
    unit = made.graph.units[0]
    netlist = found[unit.name]
    cells = {(name, kind): cell for name, kind, cell in mutants(netlist)}
    for key, claim in FIXED.items():
        with pytest.raises(PvqError, match=claim):
            check_batch_handshakes(changed(netlist, cells[key]), unit.core)
    bank = next(c for c in netlist.cells if c.output == netlist.net("bank1_2.w_en"))
    alone = replace(bank, type="$pos", ports={"A": bank.ports["A"], "Y": bank.output},
                    parameters={"A_SIGNED": "0"})  # fmt: skip
    with pytest.raises(CheckError, match="each part of the banks is written"):
        check_batch_handshakes(changed(netlist, alone), unit.core)


@pytest.mark.slow
def test_no_mutant_of_a_core_that_gathers_frames_is_proven(batches):
    made, found = batches
    unit = made.graph.units[0]
    netlist = found[unit.name]
    count = refuse_all(
        netlist, mutants(netlist), lambda other: check_batch_handshakes(other, unit.core), SAME
    )
    assert count > 100


def unpacked(netlist, unit):
    return check_unit_handshakes(unit, netlist), check_unpacked(netlist, unit)


def test_no_wrong_cell_of_an_unpacker_is_proven(batches):
    made, found = batches
    unit, count = made.graph.units[-1], 0
    netlist = found[unit.name]
    values = [netlist.net(name) for name in ("value", "r_data", "frame_0")]
    for cell in netlist.cells:
        counts = cell.type in ("$sub", "$xor", "$eq") and "queue" not in cell.name
        if counts or cell.output in values:
            with pytest.raises(PvqError):
                pytest.fail(f"{cell}: {unpacked(changed(netlist, wrong_cell(cell, OTHER)), unit)}")
            count += 1
    assert count >= 14


@pytest.mark.slow
def test_no_mutant_of_an_unpacker_is_proven(batches):
    made, found = batches
    unit = made.graph.units[-1]
    netlist = found[unit.name]
    cells = [cell for _, _, cell in unit_mutants(netlist)]
    wrong = ((cell, wrong_cell(cell, OTHER)) for cell in netlist.cells)
    cells += [other for cell, other in wrong if other != cell]
    for cell in cells:
        with pytest.raises(PvqError):
            pytest.fail(f"{cell}: {unpacked(changed(netlist, cell), unit)}")
    assert len(cells) > 100


def test_fewer_places_than_batches_under_way_are_found(batches):
    made, _ = batches
    unpacker, cores = made.graph.units[-1], made.specs
    owed = [-(-most_owed(core) // core.rows) for core in cores]
    assert check_places(unpacker, cores) == 2 + sum(owed) == 14 <= unpacker.places
    with pytest.raises(CheckError, match="places for the numbers of 14 batches, not 13"):
        check_places(replace(unpacker, places=13), cores)
