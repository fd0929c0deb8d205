"""Shorter carry chains compute what Yosys's do, whatever comes into them from outside."""

import json

import pytest

from gateware.board.carry_chains import drop_open_outputs, shorten_carries, shorten_file
from pvq_hw.tools import find as tools

WIDTHS = (1, 2, 3, 4, 5, 8, 9)
# Sums, differences, both carries in, comparisons by the carry out, constants, three operands.
TERMS = (
    "{a} + {b}", "{a} - {b}", "{a} + {b} + 1", "{b} - {a} - 1", "{a} < {b}", "{a} <= {b}",
    "$signed({a}) < $signed({b})", "{a} + 1", "{a} - 1", "-{a}", "{a} + (({b}) << 1)",
    "({a} + {b}) >> 2", "({a} + {b}) ^ {{{a} >= {b}, 1'b0}}", "s ? {a} - {b} : {a} + {b}",
    "{a} + {b} + s",
)  # fmt: skip


def _source() -> str:
    """A term of each width, all of bits of their own."""
    ports, lines = ["input s"], ""
    for n in WIDTHS:
        for i, term in enumerate(TERMS):
            a, b, y = (f"{name}{n}_{i}" for name in "aby")
            ports += [f"input [{n - 1}:0] {a}", f"input [{n - 1}:0] {b}", f"output [{n + 1}:0] {y}"]
            lines += f"  assign {y} = {term.format(a=a, b=b)};\n"
    return f"module top({', '.join(ports)});\n{lines}endmodule\n"


@pytest.fixture(scope="module")
def netlists(tmp_path_factory):
    """A folder with ``before.json`` and ``after.json``."""
    folder = tmp_path_factory.mktemp("carries")
    (folder / "top.v").write_text(_source())
    tools.run("yosys", ["-q", "-p", "read_verilog top.v; synth_ecp5 -top top -json before.json"],
              folder=folder)  # fmt: skip
    (folder / "after.json").write_bytes((folder / "before.json").read_bytes())
    shorten_file(folder / "after.json")
    return folder


def cells(netlist):
    return json.loads(netlist.read_text())["modules"]["top"]["cells"].values()


def same(folder, name: str) -> bool:
    """Whether a netlist gives what ``before.json`` does, for all inputs."""
    # Cells as the vendor's functions in Yosys's library have them.
    prepare = "techmap -autoproc -map +/lattice/cells_sim_ecp5.v; techmap -autoproc -map"
    prepare += " +/lattice/cells_sim_ecp5.v; opt_clean; rename top {0}; design -stash {0}"
    script = "; ".join(
        [
            *(f"design -reset; read_json {file}; {prepare.format(kind)}"
              for file, kind in (("before.json", "gold"), (name, "gate"))),
            "design -copy-from gold -as gold gold", "design -copy-from gate -as gate gate",
            "miter -equiv -flatten -make_assert gold gate m",
            "sat -verify -prove-asserts m",
        ]
    )  # fmt: skip
    try:
        tools.run("yosys", ["-q", "-p", script], folder=folder, log=folder / "sat.log")
    except Exception:
        assert "proof did fail" in (folder / "sat.log").read_text()
        return False
    return True


def open_ends(netlist, carry: str):
    """The netlist as a file that Yosys reads, with ``carry`` at the starts of chains."""
    design = json.loads(netlist.read_text())
    drop_open_outputs(design)
    for cell in design["modules"]["top"]["cells"].values():
        for wires in cell["connections"].values():
            if wires == ["x"]:
                wires[:] = [carry]
    found = netlist.with_name(f"open{carry}.json")
    found.write_text(json.dumps(design))
    return found.name


@pytest.mark.parametrize("carry", ["0", "1"])
def test_they_compute_the_same_whatever_is_before_them(netlists, carry):
    assert same(netlists, open_ends(netlists / "after.json", carry))


def test_a_wrong_table_is_found(netlists):
    design = json.loads((netlists / "after.json").read_text())
    first = next(
        cell
        for cell in design["modules"]["top"]["cells"].values()
        if cell["type"] == "CCU2C" and cell["connections"]["CIN"] == ["x"]
    )
    table = int(first["parameters"]["INIT0"], 2) ^ 0xF
    first["parameters"]["INIT0"] = f"{table:016b}"
    (netlists / "wrong.json").write_text(json.dumps(design))
    assert not same(netlists, open_ends(netlists / "wrong.json", "0"))


def test_nothing_is_left_for_nextpnr_to_add(netlists):
    """It has a cell of its own for each carry from outside a chain, and for each one out of it:
    of these, and of the constants, one LUT a chain is left."""
    before, after = (list(cells(netlists / f"{name}.json")) for name in ("before", "after"))
    chains = [cell for cell in after if cell["type"] == "CCU2C"]
    carries = {cell["connections"]["COUT"][0] for cell in chains} | {"x"}
    assert all(cell["connections"]["CIN"][0] in carries for cell in chains)
    taken = {cell["connections"]["CIN"][0] for cell in chains} | {"x"}
    assert {cell["connections"]["COUT"][0] for cell in chains} <= taken

    def luts(netlist):
        kinds = [cell["type"] for cell in netlist]
        return kinds.count("LUT4") + 2 * kinds.count("CCU2C")

    starts = [cell["connections"]["CIN"][0] for cell in before if cell["type"] == "CCU2C"]
    carries = {cell["connections"]["COUT"][0] for cell in before if cell["type"] == "CCU2C"}
    assert luts(after) < luts(before) + sum(start not in carries for start in starts)


def test_a_carry_that_two_read_is_left(netlists):
    """What continues behind it has no end that nobody reads."""

    def cell(**wires):
        ports = {p: "output" if p in ("S0", "S1", "COUT") else "input" for p in wires}
        tables = {f"INIT{i}": "1001011010101010" for i in (0, 1)}
        return {
            "type": "CCU2C", "parameters": tables | {f"INJECT1_{i}": "NO" for i in (0, 1)},
            "port_directions": ports, "connections": {p: [b] for p, b in wires.items()},
        }  # fmt: skip

    inputs = {f"{p}{i}": "1" if p == "D" else "0" for p in "ABCD" for i in (0, 1)}
    made = {
        "first": cell(CIN="0", COUT=6, S0=7, S1=8, **inputs),
        "next": cell(CIN=6, COUT=9, S0=10, S1=11, **inputs),
    }
    ports = {"o": {"bits": [6, 7, 8, 10, 11]}}
    design = {"modules": {"top": {"cells": made, "ports": ports, "netnames": {}}}}
    shorten_carries(design)
    ends = {
        name: (cell["connections"]["CIN"], cell["connections"]["COUT"])
        for name, cell in made.items()
    }
    assert ends == {"first": (["0"], [6]), "next": ([6], ["x"])}
