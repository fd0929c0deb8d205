"""Cores whose codes are loaded are proven with the words that are, and so is the loading."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from control_mutants import changed, passes
from proof_cases import ship
from random_layers import Case, make_chain

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.spram_image import code_layout
from pvq_hw.errors import CheckError, InputError
from pvq_hw.plan.core_layers import core_layers
from sim.proof.frames import check_frames
from sim.proof.handshakes import check_handshakes
from sim.proof.loaded import check_loading, with_codes
from sim.proof.netlist import each_reset, read_units
from sim.proof.sums import RowSums


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Words of two blocks, and of one: the first and the last of three."""
    options = {"family": "up5k", "code_memory": "spram"}
    first = Case(3, 5, 7, options=options)
    made = make_chain(3, 9, IntFormat(6, False), first, Case(4, 3, 2, options=options))
    images = dict(zip((spec.name for spec in made.specs), made.images, strict=True))
    graph = SimpleNamespace(graph=made.graph, images=images)
    out = ship(tmp_path_factory.mktemp("loaded") / "out", graph)
    netlists = read_units(out, [unit.name for unit in made.graph.units])
    return SimpleNamespace(made=made, layout=code_layout(made.specs), netlists=netlists)


def core(chain, number):
    """Netlist, unit and sums of a core."""
    unit, image = chain.made.graph.units[number], chain.made.images[number]
    layer = core_layers(chain.made.network)[number].dense
    return chain.netlists[unit.name], unit, RowSums.of(layer, unit.core, image)


def nothing(done, total):
    """No progress."""


def test_loaded_codes_give_the_sums_and_no_frame_is_lost(chain):
    assert [block.core for block in chain.layout.blocks] == [0, 0, 1]
    for number in range(2):
        netlist, unit, sums = core(chain, number)
        blocks = sum(block.core == number for block in chain.layout.blocks)
        words = check_loading(netlist, unit.core, chain.layout, number)
        assert words == blocks * unit.core.words
        loaded = with_codes(netlist, chain.layout, chain.made.images, number)
        assert check_frames(loaded, unit, sums, nothing).sums > 0
    assert [check_handshakes(view, unit.core) for view in each_reset(loaded)] == [91, 91]
    with pytest.raises(InputError, match="control is not built as expected"):
        check_handshakes(each_reset(netlist)[0], unit.core)


def test_a_changed_word_is_found(chain):
    netlist, unit, sums = core(chain, 0)
    first, *rest = chain.made.images
    codes = (*first.codes[:-1], first.codes[-1] ^ 1 << 16)  # in the second block
    images = [replace(first, codes=codes), *rest]
    with pytest.raises(CheckError, match="Sums of layer"):
        check_frames(with_codes(netlist, chain.layout, images, 0), unit, sums, nothing)


def test_words_that_are_written_elsewhere_or_at_other_times_are_found(chain):
    netlist, unit, _ = core(chain, 0)
    for number, what in ((0, "block 0"), (1, "block 1")):
        memory = next(c for c in netlist.cells if c.type == "$mem_v2"
                      and c.name.startswith(f"codes.block{number}."))  # fmt: skip
        for port, line in (
            ("WR_ADDR", "go to their places"),
            ("WR_DATA", "go to their places"),
        ):
            turned = replace(memory, ports={**memory.ports, port: memory.ports[port][::-1]})
            with pytest.raises(CheckError, match=f"words of {what} {line}"):
                check_loading(changed(netlist, turned), unit.core, chain.layout, 0)
        enable = netlist.makers[netlist.net(f"codes.block{number}.w_en")[0]]
        for port in "AB":  # whatever the block, or whether codes are loaded
            wrong = changed(netlist, passes(enable, enable.ports[port]))
            with pytest.raises(CheckError, match=f"words of {what} are written when"):
                check_loading(wrong, unit.core, chain.layout, 0)
