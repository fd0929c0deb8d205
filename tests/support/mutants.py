"""Mutants of exported Verilog: one design holds them all, and the testbench chooses one.

Exported modules are lists of plain assignments. A mutant changes one of them, where the variable
``mutant`` of the testbench has its number.
"""

import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gateware.export.export import export_accelerator
from gateware.export.testbench import testbench
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.hexfile import hex_text
from pvq_hw.engine.scenarios import Pace, Scenario, pace_of
from pvq_hw.engine.timing import time_graph
from pvq_hw.plan.image import Image
from sim.agents.wire import pack_frames

__all__ = ["Mutant", "mutants_of", "pace", "ship", "survivors"]

_NET = r"(?:\w+(?:\[[\d:]+\])?|\{ [^?]*? \})"
_CONSTANT = r"\d+'h[0-9a-f]+"
_ANY = rf"(?:{_CONSTANT}|{_NET})"


@dataclass(frozen=True)
class Mutant:
    """A changed assignment.

    ``name`` says what was changed in terms of registers and ports: module, register, kind.
    """

    number: int
    name: str


def _changed(right: str) -> list[tuple[str, str]]:
    """What may go wrong in an assignment: kind and expression."""
    if found := re.fullmatch(rf"rst \? ({_CONSTANT}) : ({_ANY})", right):
        value, rest = found.groups()
        kinds = [("not reset", rest)]
        if not value.startswith("1'"):
            kinds += [(f"reset to {d:+d}", f"rst ? {_moved(value, d)} : {rest}") for d in (1, -1)]
        return kinds
    if found := re.fullmatch(rf"({_NET}) \? ({_ANY}) : ({_ANY})", right):
        return [("always", found[2]), ("never", found[3])]
    if found := re.fullmatch(rf"({_NET}) ([&|]) ({_NET})", right):
        return [(f"only {found[1]}", found[1]), (f"only {found[3]}", found[3])]
    if found := re.fullmatch(rf"({_NET}) == ({_CONSTANT})", right):
        return [(f"at {d:+d}", f"{found[1]} == {_moved(found[2], d)}") for d in (1, -1)]
    if found := re.fullmatch(r"~ (\w+(?:\[\d+\])?)", right):
        return [("stuck at 1", "~0"), ("stuck at 0", "0")]
    if found := re.fullmatch(rf"\| ({_NET})", right):
        return [("stuck at 1", "1'h1"), ("stuck at 0", "1'h0")]
    if found := re.fullmatch(rf"({_NET}) \+ ({_ANY})", right):
        return [("not counted", found[1])]
    return []


def _moved(constant: str, by: int) -> str:
    bits, _, digits = constant.partition("'h")
    return f"{bits}'h{(int(digits, 16) + by) % (1 << int(bits)):x}"


def mutate(verilog: str, modules: str, kinds: str = ".*") -> tuple[str, list[Mutant]]:
    """Verilog with a choice in every assignment of the modules that match and that may go wrong.

    Parameters
    ----------
    verilog : str
    modules : str
        Regular expression, for the end of a module's name.
    kinds : str
        Regular expression, for the kind of change.
    """
    mutants: list[Mutant] = []

    def module(found: re.Match[str]) -> str:
        text, name = found[0], found[1]
        if not re.search(rf"(?:{modules})$", name):
            return text
        # A register's next value is a wire of no name of its own.
        named = {
            wire: register for register, wire in re.findall(r"^    (\w+) <= (_\w+_);", text, re.M)
        }

        def assignment(line: re.Match[str]) -> str:
            left, right = line.groups()
            arms = ""
            for kind, changed in _changed(right):
                if not re.fullmatch(kinds, kind):
                    continue
                shown = named.get(left, left if not left.startswith("_") else f"{left} = {right}")
                mutants.append(Mutant(len(mutants) + 1, f"{name}: {shown}, {kind}"))
                arms += f"tb.mutant == {len(mutants)} ? {changed} : "
            return f"  assign {left} = {arms}{right};"

        return re.sub(r"^  assign (\w+) = ([^;]*);", assignment, text, flags=re.M)

    text = re.sub(r"^module (\w+)\(.*?^endmodule", module, verilog, flags=re.M | re.S)
    return text, mutants


def pace(graph: GraphSpec, images: Sequence[CoreImage]) -> Pace:
    """The pace of a circuit that was never planned."""
    return pace_of(graph, images, time_graph(graph, graph.named(images)).interval_cycles)


def ship(
    folder: Path,
    graph: GraphSpec,
    images: Sequence[CoreImage],
    x: np.ndarray,
    expected: np.ndarray,
    chosen: Sequence[Scenario],
) -> None:
    """Writes a circuit of one frame a transfer and its testbench into one folder."""
    (n, form), (rows, out) = graph.x, graph.out
    files = dict(export_accelerator(graph, images, "dut"))
    files |= Image(tuple(graph.cores), tuple(images)).files()
    for name, values, shape in (("input", x, form), ("expected", expected, out)):
        payloads = pack_frames(values.reshape(len(x), -1), shape, 1)
        files[f"{name}.hex"] = hex_text(payloads, shape.bits)
    files["tb.v"] = testbench(
        "dut",
        pace(graph, images),
        chosen,
        stimuli=len(x) * n,
        expected=len(x) * rows,
        bits=(form.bits, out.bits),
        frame_rows=rows,
        files=("input.hex", "expected.hex"),
        command="iverilog -o tb *.v && vvp tb",
        layout=None,
    )
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def mutants_of(folder: Path, modules: str, kinds: str = ".*") -> list[Mutant]:
    """Puts mutants into a shipped folder's circuit and compiles it with Icarus; see `mutate`."""
    text, mutants = mutate((folder / "dut.v").read_text(encoding="utf-8"), modules, kinds)
    (folder / "dut.v").write_text(text, encoding="utf-8")
    bench = (folder / "tb.v").read_text(encoding="utf-8")
    before, found, after = bench.partition("  integer number = 0,")
    assert found
    choice = '  integer mutant = 0;\n  initial if ($value$plusargs("mutant=%d", mutant)) ;\n\n'
    (folder / "tb.v").write_text(before + choice + found + after, encoding="utf-8")
    sources = sorted(path.name for path in folder.glob("*.v"))
    subprocess.run(["iverilog", "-o", "tb", *sources], cwd=folder, check=True, timeout=600)
    return mutants


def verdict(folder: Path, number: int) -> str:
    """The testbench's last line for a mutant; 0 is the circuit as it is."""
    done = subprocess.run(
        ["vvp", "-n", "tb", f"+mutant={number}"], cwd=folder, check=True, timeout=1200,
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.splitlines()[-1]


def survivors(folder: Path, mutants: Sequence[Mutant]) -> list[str]:
    """Names of the mutants that pass."""
    assert verdict(folder, 0).startswith("PASS"), verdict(folder, 0)
    with ThreadPoolExecutor(2) as pool:
        verdicts = pool.map(lambda mutant: verdict(folder, mutant.number), mutants)
    found = []
    for mutant, line in zip(mutants, verdicts, strict=True):
        assert line.startswith(("PASS", "FAIL")), line
        if line.startswith("PASS"):
            found.append(mutant.name)
    return found
