"""Proofs hold on circuits as they are, and each part finds what it is there to find."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from control_mutants import changed, wrong_cell
from proof_cases import core_parts, many_units, ship
from random_graphs import RandomNetwork, build
from random_layers import Case, make_chain

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.int8_core import Int8Spec
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.engine.units import Join, Lookup
from pvq_hw.errors import CheckError, InputError
from sim.proof import requantizers
from sim.proof.accumulators import check_accumulators
from sim.proof.blocks import check_leaves, check_trees, leaf_values
from sim.proof.codes import check_codes, writer_places
from sim.proof.frames import check_frames
from sim.proof.moves import check_moves, leaf_activations
from sim.proof.netlist import Cell, read_units
from sim.proof.requantizers import check_requantizers
from sim.proof.structure import check_structure, check_wiring, control_ports
from sim.proof.sums import RowSums
from sim.proof.units import check_sum, check_table

OTHER = {"$add": "$sub", "$mul": "$add", "$and": "$or", "$or": "$and", "$not": "$pos",
         "$reduce_and": "$reduce_or", "$reduce_or": "$reduce_and",
         "$reduce_bool": "$reduce_and"}  # fmt: skip


def nothing(done, total):
    """No progress."""


@pytest.fixture(scope="module", params=["ecp5", "hx8k"])
def case(request, tmp_path_factory):
    """Netlists of every kind of unit, of a family with and one without multipliers."""
    built = many_units(request.param)
    folder = ship(tmp_path_factory.mktemp("proof") / "out", built)
    units = [unit.name for unit in built.graph.units]
    return SimpleNamespace(built=built, netlists=read_units(folder, units), parts=core_parts(built))


def core(case, number=0):
    """Netlist, unit, layer, contents and sums of a core."""
    layer, unit = case.parts[number]
    image = case.built.images[unit.core.name]
    return SimpleNamespace(
        netlist=case.netlists[unit.name],
        unit=unit,
        spec=unit.core,
        layer=layer,
        image=image,
        sums=RowSums.of(layer, unit.core, image),
    )


def rewired(netlist, net, port, change, index=0):
    """The netlist with a bit of a cell changed: the one that gives ``net``.

    ``change`` is the new bit, or a function of the port's bits.
    """
    first = netlist.net(net)[index]
    cells = []
    for cell in netlist.cells:
        if first in cell.output:
            bits = list(cell.ports[port])
            bits = change(bits) if callable(change) else [change, *bits[1:]]
            assert bits != cell.ports[port]
            cell = replace(cell, ports={**cell.ports, port: bits})
        cells.append(cell)
    return replace(netlist, cells=cells)


def behind(netlist, name):
    """What a register takes: the net before it."""
    bit = netlist.net(name)[0]
    cell = next(c for c in netlist.cells if c.type == "$dff" and bit in c.output)
    bits = cell.ports["D"]
    return next(n for n, found in netlist.nets.items() if found == bits)


# -- what holds ------------------------------------------------------------------------------------


def test_circuits_as_they_are_are_proven(case):
    tables = tuple(f"{u.name}.table" for u in case.built.graph.units if isinstance(u, Lookup))
    whole = check_structure(case.netlists[""], tables)
    assert (whole.leaks, whole.tables) == ([], 1)
    assert min(whole.control, whole.data, whole.memories) > 0
    assert check_wiring(case.netlists[""], case.built.graph) == 11
    for unit in case.built.graph.units:
        found = ("table",) if isinstance(unit, Lookup) else ()
        assert check_structure(case.netlists[unit.name], found).leaks == []
        if isinstance(unit, Lookup):
            assert check_table(case.netlists[unit.name], unit) == 3 << 5
        if isinstance(unit, Join):
            assert check_sum(case.netlists[unit.name], unit) == 1 << 10
    for number in range(len(case.parts)):
        c = core(case, number)
        assert check_codes(c.layer, c.spec, c.image).rows == c.spec.rows
        c.sums.check_widths()
        assert check_moves(c.netlist, c.spec, leaf_activations(c.netlist, c.spec)) > 0
        assert check_leaves(c.netlist, c.spec) > 0
        values = leaf_values(c.netlist, c.spec)
        assert check_trees(c.netlist, c.spec, values) == c.spec.lanes - 1
        assert check_accumulators(c.netlist, c.spec, gated=False) == c.spec.acc_chunks
        assert check_frames(c.netlist, c.unit, c.sums, nothing).sums > 0
        values, left = check_requantizers(c.netlist, c.sums, nothing)
        low, high = c.sums.bounds
        assert (values, left) == (int((high - low + 1).sum()), [])
    assert [unit.core.groups for _, unit in case.parts] == [1, 1, 2]


def test_a_single_table_is_read_by_what_comes_in(tmp_path):
    """Verilog calls its payload by the table's address, which it is."""
    net = RandomNetwork(1, (4,), IntFormat(4, True))
    net.table(net.dense(net.table(net.input, out=IntFormat(4, True)), 3))
    built = build(net)
    units = [unit for unit in built.graph.units if isinstance(unit, Lookup)]
    tables = [unit.name for unit in units]
    netlists = read_units(ship(tmp_path / "out", built), tables)
    assert check_wiring(netlists[""], built.graph) == 4
    for name, bits in zip(tables, (4, 8), strict=True):
        assert len(netlists[name].payloads) == bits
        assert check_structure(netlists[name], ("table",)).leaks == []
    for unit in units:
        assert check_table(netlists[unit.name], unit) == 1 << unit.x.bits


def test_places_of_a_writer_are_those_of_the_code():
    spec = SimpleNamespace(n=7, lanes=3)
    whole = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    assert writer_places.find(CoreSpec)(spec) == [*whole, (0, 2)]
    assert writer_places.find(Int8Spec)(spec) == [*whole, (2, 2)]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Batches of three frames through cores whose codes are loaded."""
    both = {"frames": 3, "family": "up5k", "code_memory": "spram"}
    first = Case(6, 5, 3, options=both | {"flush_cycles": 40})
    made = make_chain(3, 8, IntFormat(6, False), first, Case(4, 3, 2, options=both))
    images = dict(zip((spec.name for spec in made.specs), made.images, strict=True))
    folder = ship(
        tmp_path_factory.mktemp("loaded") / "out", SimpleNamespace(graph=made.graph, images=images)
    )
    names = [unit.name for unit in made.graph.units]
    return SimpleNamespace(graph=made.graph, netlists=read_units(folder, names))


def test_loaded_codes_and_batches_are_proven(loaded):
    assert check_wiring(loaded.netlists[""], loaded.graph) == 5
    for unit in loaded.graph.units:
        netlist = loaded.netlists[unit.name]
        found = check_structure(netlist, control=control_ports(netlist, unit))
        assert found.leaks == []
        assert min(found.control, found.data) > 0
    assert check_structure(loaded.netlists[""]).leaks == []


# -- mutants: each part finds one ------------------------------------------------------------------


def test_payload_that_reaches_control_is_found(case):
    c = core(case, 1)
    payload = c.netlist.net("i__payload")[0]
    registers = [tuple(cell.output) for cell in c.netlist.cells if cell.type == "$dff"]
    names = [n for n, bits in c.netlist.nets.items() if tuple(bits) in registers]
    for module in ("sequencer.", "decoder0.", "group_end_", "fifo.some", "writer.ready"):
        name = next((n for n in names if n.startswith(module)), None)
        if name is not None:
            leaks = check_structure(rewired(c.netlist, name, "D", payload)).leaks
            assert any("depends on a payload" in leak for leak in leaks), name


def test_payload_that_says_how_large_a_batch_is_or_what_an_unpacker_reads_is_found(loaded):
    maker, *_, unpacker = loaded.graph.units
    netlist = loaded.netlists[maker.name]
    last = rewired(netlist, "batch__payload", "D", netlist.net("i__payload")[0])
    assert "batch__payload depends on a payload" in check_structure(last).leaks
    netlist = loaded.netlists[unpacker.name]
    (number,) = control_ports(netlist, unpacker)
    others = set(netlist.payloads) - set(netlist.port(number))
    row = rewired(netlist, "write_row", "D", min(others))
    assert check_structure(row, control=(number,)).leaks


def test_stream_that_passes_its_gate_is_found(loaded):
    whole = loaded.netlists[""]
    maker, *_, unpacker = loaded.graph.units
    changes = (
        (f"{maker.name}.i__valid", "A", "1", "valid of i at its reader"),
        (f"{maker.name}.i__valid", "B", whole.net("o__ready")[0], "valid of i at its reader"),
        ("i__ready", "A", whole.net(f"{maker.name}.i__ready")[0], "ready of i at its reader"),
        ("i__ready", "B", "1", "ready of i at its reader"),
        ("batch__valid", None, unpacker.name, "Unpacker .* must have the valid of"),
        ("batch__payload", "turned", None, "Unpacker .* must have the payload of"),
    )
    for net, port, new, line in changes:
        if port is None:
            there = {n: b[::-1] if len(b) > 1 else [9**9] for n, b in whole.nets.items()
                     if n.startswith(new) and b == whole.net(net)}  # fmt: skip
            other = replace(whole, nets={**whole.nets, **there})
        elif new is None:
            written = next(c for c in whole.cells if c.type == "$mux"
                           and c.ports["B"] == whole.net(net) and "x" in c.ports["A"])  # fmt: skip
            ports = {**written.ports, "B": written.ports["B"][::-1]}
            other = changed(whole, replace(written, ports=ports))
        else:
            other = rewired(whole, net, port, new)
        with pytest.raises(CheckError, match=line):
            check_wiring(other, loaded.graph)


def test_payload_that_reaches_an_address_is_found(case):
    c = core(case, 1)
    bank = next(cell for cell in c.netlist.cells if cell.name == "bank0.mem")
    ports = {**bank.ports, "RD_ADDR": [bank.output[0], *bank.ports["RD_ADDR"][1:]]}
    cells = [replace(x, ports=ports) if x is bank else x for x in c.netlist.cells]
    leaks = check_structure(replace(c.netlist, cells=cells)).leaks
    assert "memory bank0.mem has a RD_ADDR that depends on a payload" in leaks


@pytest.mark.parametrize("number", [0, 1, 2])
def test_every_changed_bit_of_a_code_is_found(case, number):
    c = core(case, number)
    for word in range(c.spec.words):
        for bit in range(c.spec.word_bits):
            codes = list(c.image.codes)
            codes[word] ^= 1 << bit
            with pytest.raises(CheckError, match="Codes of"):
                check_codes(c.layer, c.spec, replace(c.image, codes=tuple(codes)))


def test_changed_parameters_are_found(case):
    c = core(case)
    for change in (
        {"bias": (c.image.bias[0] + 1, *c.image.bias[1:])},
        {"mult": (*c.image.mult[:-1], c.image.mult[-1] + 1)},
    ):
        with pytest.raises(CheckError, match=r"^Parameters of layer .* row"):
            check_codes(c.layer, c.spec, replace(c.image, **change))


def test_sums_that_do_not_fit_are_found(case):
    c = core(case)
    bits = int(c.sums.bounds[1].max()).bit_length()
    narrow = replace(c.sums, spec=replace(c.spec, acc_bits=bits))
    with pytest.raises(CheckError, match=f"which {bits} bits do not hold"):
        narrow.check_widths()


def test_wrong_addresses_are_found(case):
    c = core(case)
    swapped = rewired(c.netlist, "w_addr", "D", lambda d: [d[1], d[0], *d[2:]])
    with pytest.raises(CheckError, match="Sums of layer"):
        check_frames(swapped, c.unit, c.sums, nothing)


def test_what_is_computed_with_on_its_way_is_found(case):
    c = core(case)
    bank = next(cell for cell in c.netlist.cells if cell.name == "bank0.mem")
    ports = {**bank.ports, "WR_DATA": bank.ports["WR_DATA"][::-1]}
    cells = [replace(x, ports=ports) if x is bank else x for x in c.netlist.cells]
    swapped = replace(c.netlist, cells=cells)
    with pytest.raises(CheckError, match="must come to its leaves as they are"):
        check_moves(swapped, c.spec, leaf_activations(swapped, c.spec))
    result = c.netlist.either("requantizer0.saturate.o", "fifo.w_data")
    xor = Cell("mixed", "$xor", {"A": result[:1], "B": result[1:2], "Y": [10**9]}, {})
    mixed = replace(c.netlist, cells=[*c.netlist.cells, xor])
    with pytest.raises(CheckError, match=r"as \$xor does"):
        check_moves(mixed, c.spec, leaf_activations(mixed, c.spec))


def test_parameters_of_another_row_are_found(case):
    c = core(case)
    other = replace(c.sums, bias=(*c.sums.bias[1:], c.sums.bias[0]))
    with pytest.raises(CheckError, match="must meet their rows' sums"):
        check_frames(c.netlist, c.unit, other, nothing)


def test_stream_that_comes_from_elsewhere_is_found(case):
    netlist, graph = case.netlists[""], case.built.graph
    nets = {**netlist.nets, "fc4.i__valid": netlist.net("conv0.o__valid")}
    with pytest.raises(CheckError, match=r"must have the valid of pool3\.o at its reader"):
        check_wiring(replace(netlist, nets=nets), graph)


def test_wrong_leaf_is_found(case):
    c = core(case)
    with pytest.raises(CheckError, match="Leaf 1 of core"):
        check_leaves(rewired(c.netlist, "leaf1_0.unit", "D", "0"), c.spec)


def test_tree_that_adds_a_leaf_twice_or_too_narrow_is_found(case):
    c = core(case)
    inner = behind(c.netlist, "tree0.sum0_0")
    cell = next(x for x in c.netlist.cells if c.netlist.net(inner)[0] in x.output)
    twice = rewired(c.netlist, inner, "A", lambda a: list(cell.ports["B"]))
    with pytest.raises(CheckError, match="must add every leaf once"):
        check_trees(twice, c.spec, leaf_values(twice, c.spec))
    late = rewired(c.netlist, "tree0.sum0_0", "D", lambda d: c.netlist.net("leaf0_0.unit"))
    with pytest.raises(CheckError, match="must"):
        check_trees(late, c.spec, leaf_values(late, c.spec))


@pytest.mark.parametrize("port", ["A", "B"])
@pytest.mark.parametrize("name", ["acc0", "difference0", "kept0"])
def test_wrong_cells_of_an_accumulator_are_found(case, name, port):
    c = core(case)
    names = ("accumulator0.o", "accumulator0.difference0")
    register = f"accumulator0.{name}" if f"accumulator0.{name}" in c.netlist.nets else names[0]
    bit = c.netlist.net(register)[0]
    before = next(x for x in c.netlist.cells if x.type == "$dff" and bit in x.output).ports["D"][0]
    name = next(n for n, bits in c.netlist.nets.items() if bits[0] == before)
    with pytest.raises(CheckError, match="of a sum in chunk 0"):
        check_accumulators(rewired(c.netlist, name, port, "1"), c.spec, gated=False)


def test_requantizer_that_is_off_by_one_or_does_not_clamp_is_found(case):
    c = core(case)
    line = "^Requantizer of layer .* must add its bias, round, shift and clamp"
    bias = next(n for n in c.netlist.nets if re.fullmatch(r"bias(_\d+)?\.(rom\.)?pipe", n))
    low = c.netlist.net(bias)[-c.spec.bias_bits :]
    # What is read of the bias is without the lowest bit of results, or with it set.
    said = ""
    for new in "01":
        cells = [
            replace(x, ports={k: _instead(b, low[c.spec.shift], new) for k, b in x.ports.items()})
            if low[c.spec.shift] not in x.output
            else x
            for x in c.netlist.cells
        ]
        said += _complaint(replace(c.netlist, cells=cells), c.sums)
    assert re.match(line, said)
    # The lower bits as they come, whatever is above them.
    name = "requantizer0.saturate.o"
    wide = next(b for n, b in c.netlist.nets.items() if n.startswith("requantizer0.adder.total"))
    bare = rewired(c.netlist, name, "D", lambda d: wide[: len(d)])
    with pytest.raises(CheckError, match=line):
        check_requantizers(bare, c.sums, nothing)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_every_wrong_cell_of_a_requantizer_is_found(case, number):
    """A multiplier in blocks or of adders, none, products of several gains."""
    c = core(case, number)
    count = 0
    for cell in c.netlist.cells:
        if not cell.name.startswith("$flatten\\requantizer"):
            continue
        other = wrong_cell(cell, OTHER)
        if other == cell:
            continue
        with pytest.raises(CheckError, match="Requantizer"):
            pytest.fail(f"{cell.name}: {_values(c, changed(c.netlist, other))}")
        count += 1
    assert count > 1


def _values(c, netlist):
    try:
        return check_requantizers(netlist, c.sums, nothing)
    except InputError as reason:  # it is built in another way, so nothing is proven
        raise CheckError(f"Requantizer: {reason}") from None


def test_rows_of_too_many_sums_for_a_multiplier_of_adders_are_left(case, monkeypatch):
    c = core(case)
    low, high = c.sums.bounds
    sizes = (high - low + 1).ravel()
    whole = c.spec.multiplies.blocks
    with monkeypatch.context() as patch:
        patch.setattr(requantizers, "MOST_VALUES", int(sizes.max()) - 1)
        values, left = check_requantizers(c.netlist, c.sums, nothing)
        rows = [] if whole else [int(row) for row in np.flatnonzero(sizes == sizes.max())]
        assert (values, left) == (int(sizes.sum() - sizes[rows].sum()), rows)
    monkeypatch.setattr(requantizers, "_MOST_CYCLES", 0)
    values, left = check_requantizers(c.netlist, c.sums, nothing)
    assert (values, left) == ((sizes.sum(), []) if whole else (0, [0, 1, 2]))


def _complaint(netlist, sums):
    try:
        check_requantizers(netlist, sums, nothing)
    except CheckError as error:
        return str(error)
    return ""


def _instead(bits, old, new):
    return [new if bit == old else bit for bit in bits]


def test_wrong_table_and_wrong_sum_are_found(case):
    units = {type(unit): unit for unit in case.built.graph.units}
    table, total = units[Lookup], units[Join]
    last = (*table.entries[-1][:-1], table.entries[-1][-1] ^ 1)
    other = replace(table, entries=(*table.entries[:-1], last))
    with pytest.raises(CheckError, match=f"Table '{table.name}' must give"):
        check_table(case.netlists[table.name], other)
    with pytest.raises(CheckError, match=f"Sum '{total.name}' must give"):
        check_sum(
            case.netlists[total.name], replace(total, mult=(total.mult[0] + 1, *total.mult[1:]))
        )
