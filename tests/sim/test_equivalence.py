"""A netlist is proven to be its design, and one that is not is found."""

import copy
import functools
import json

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from gateware.board.carry_chains import shorten_carries
from gateware.device.memory import Rom
from gateware.device.rtlil_text import plain_names
from pvq_hw.errors import CheckError
from pvq_hw.tools import find as tools
from sim.proof import equivalence
from sim.proof.equivalence import UnprovenError, check_equivalence
from sim.proof.matching import Matching
from sim.proof.synthesis import read_circuits


class Small(wiring.Component):
    """Registers with and without an enable, that begin with ones, that are the same and that stay;
    a memory in logic, one in block RAM, and sums."""

    def __init__(self, family):
        self.family = family
        super().__init__({"x": In(6), "en": In(1), "total": Out(9), "count": Out(5), "old": Out(6),
                          "same": Out(2)})  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.rom = rom = Rom("rom", 6, 32, [5 * i % 64 for i in range(32)],
                                     body=self.family)  # fmt: skip
        m.submodules.mem = mem = memory.Memory(shape=6, depth=4, init=[])
        write, read = mem.write_port(), mem.read_port(domain="comb")
        count = Signal(5, init=31)
        left, right, still = (Signal(name=name) for name in ("left", "right", "still"))
        m.d.comb += [rom.addr.eq(count), write.addr.eq(count), read.addr.eq(count[1:]),
                     write.en.eq(self.en), write.data.eq(self.x), self.count.eq(count)]  # fmt: skip
        m.d.sync += [left.eq(self.x[0] ^ left), right.eq(self.x[0] ^ right), still.eq(still),
                     self.old.eq(read.data), self.same.eq(left + right + still)]  # fmt: skip
        with m.If(self.en):
            m.d.sync += [count.eq(count - 1), self.total.eq(self.total + rom.data + self.x)]
        return m


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """By family the family, the design, and the netlist that place and route would be given."""
    return functools.cache(lambda family: make(family, tmp_path_factory.mktemp(family)))


class Rare(wiring.Component):
    """Registers that begin with ones and become something else for one input of 2^20 each; equal
    ones, one of which is read alone; a memory in registers, whose last words are none."""

    def __init__(self, family):
        super().__init__({"x": In(20), "en": In(1), "rare": Out(2), "one": Out(3), "last": Out(3),
                          "old": Out(8)})  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.mem = mem = memory.Memory(shape=8, depth=5, init=[])
        write, read = mem.write_port(), mem.read_port(domain="comb")
        first, other = (Signal(init=1, name=name) for name in ("first", "other"))
        here, there = (Signal(3, init=-1 % 8, name=name) for name in ("here", "there"))
        m.d.comb += [write.addr.eq(self.x[:3]), read.addr.eq(self.x[3:6]), write.en.eq(self.en),
                     write.data.eq(self.x[8:]), self.rare.eq(Cat(first, other)),
                     self.one.eq(here), self.last.eq(there)]  # fmt: skip
        m.d.sync += [first.eq(self.x != 0xA5C36), other.eq(self.x != 0x36C95),
                     self.old.eq(read.data)]  # fmt: skip
        with m.If(self.en):
            m.d.sync += [here.eq(here + 1), there.eq(there + 1)]
        return m


def make(family, folder, kind=Small):
    text = plain_names(rtlil.convert(kind(family), name="top", emit_src=False))
    (folder / "top.il").write_text(text)
    script = f"read_rtlil top.il; synth_{family} -top top; write_json top.json"
    tools.run("yosys", ["-q", "-p", script], folder=folder)
    netlist = json.loads((folder / "top.json").read_bytes())
    if family == "ecp5":
        shorten_carries(netlist)
    return family, text, netlist


def compare(made, change=lambda cells: None):
    family, design, netlist = made
    netlist = copy.deepcopy(netlist)
    change(netlist["modules"]["top"]["cells"])
    return check_equivalence(*read_circuits(design, netlist, family), lambda done, total: None)


def first(cells, kinds, within=""):
    """A cell whose kind begins so, and whose name has this in it."""
    return next(c for k, c in sorted(cells.items()) if c["type"].startswith(kinds) and within in k)


@pytest.mark.parametrize("family", ["ice40", "ecp5"])
def test_the_netlist_is_the_design(made, family):
    found = compare(made(family))
    assert found.registers >= 5 + 9 + 6 + 2 + 3
    assert found.memories == (4 * 6 if family == "ecp5" else 0)


@pytest.mark.parametrize("family", ["ice40", "ecp5"])
def test_registers_that_random_states_do_not_tell_apart(tmp_path, monkeypatch, family):
    """States in which a guess proved wrong do. What is read behind a memory's last word is
    undefined in the design, so synthesis may take it for anything."""
    made = make(family, tmp_path, Rare)
    assert compare(made).registers >= 2 + 3 + 3 + 8
    if family == "ice40":
        monkeypatch.setattr(equivalence, "_TRIES", 1)
        with pytest.raises((UnprovenError, CheckError)):
            compare(made)


def test_a_wrong_read_is_found_where_some_words_are_undefined(tmp_path):
    with pytest.raises(CheckError, match=r"register old.*: not as in the design"):
        compare(make("ice40", tmp_path, Rare), lambda cells: lut(cells, "old"))


def lut(cells, within="same"):
    """A LUT gives the opposite."""
    found = first(cells, ("SB_LUT4", "LUT4"), within=within)["parameters"]
    invert(found, "LUT_INIT" if "LUT_INIT" in found else "INIT")


def invert(parameters, key):
    parameters[key] = "".join("10"[int(bit)] for bit in parameters[key])


def swap(cells):
    """Two registers take what the other one should."""
    flops = ("SB_DFF", "TRELLIS_FF")
    one, other = (first(cells, flops, within=name)["connections"] for name in ("old", "same"))
    port = "D" if "D" in one else "DI"
    one[port], other[port] = other[port], one[port]


def content(cells):
    """A block RAM begins with another bit."""
    found = first(cells, ("SB_RAM40_4K", "DP16KD"))["parameters"]
    key = "INIT_0" if "INIT_0" in found else "INITVAL_00"
    found[key] = found[key][:-1] + "10"[int(found[key][-1])]


def enable(cells):
    """A register takes a value in every cycle."""
    wires = first(cells, ("SB_DFFE", "TRELLIS_FF"), within="total")["connections"]
    wires["E" if "E" in wires else "CE"] = ["1"]


def start(cells):
    """A register begins with the other value, and is reset to it."""
    names = {"SB_DFFSR": "SB_DFFSS", "SB_DFFESR": "SB_DFFESS"}
    found = first(cells, (*names, "TRELLIS_FF"), within="total")
    if found["type"] in names:
        found["type"] = names[found["type"]]
        found["connections"]["S"] = found["connections"].pop("R")
        found["port_directions"]["S"] = found["port_directions"].pop("R")
    else:
        value = found["parameters"]["REGSET"]
        found["parameters"]["REGSET"] = {"SET": "RESET", "RESET": "SET"}[value]


def carry(cells):
    """A carry is another one."""
    found = first(cells, ("SB_CARRY", "CCU2C"), within="total")
    if found["type"] == "SB_CARRY":
        found["connections"]["I0"] = ["1"]
    else:
        invert(found["parameters"], "INIT1")


MUTANTS = [("ice40", lut, "same"), ("ice40", swap, "old|same"), ("ice40", start, "total"),
           *(("ice40", *case) for case in ((content, "INIT_0 of SB_RAM40_4K rom"),
                                           (enable, "total"), (carry, "total"))),
           *(("ecp5", *case) for case in ((content, "INITVAL_00 of DP16KD rom"),
                                          (enable, "total"), (carry, "total")))]  # fmt: skip


@pytest.mark.parametrize(("family", "change", "named"), MUTANTS)
def test_another_circuit_is_wrong(made, family, change, named):
    with pytest.raises(CheckError, match=f"({named}).*: not as in the design"):
        compare(made(family), change)


def test_what_no_register_is_known_for_is_open(made, monkeypatch):
    """Without a counterpart a register is not proven, nor is what it decides."""
    family, design, netlist = made("ice40")
    gold, gate = read_circuits(design, netlist, family)
    lost = Matching(gold, gate).places()[gold.netlist.nets["count"][0]].bit

    class Fewer(Matching):
        def places(self, told=()):
            return {bit: p for bit, p in super().places(told).items() if p.bit != lost}

    monkeypatch.setattr(equivalence, "Matching", Fewer)
    with pytest.raises(UnprovenError, match="not shown of "):
        compare(made("ice40"))
