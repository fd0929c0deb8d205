"""Mutants of exported Verilog, as Yosys makes them, against the testbench of their circuit.

Run as ``make mutate``, or ``python -m benchmarks.mutate_verilog [NAME ...] [--mutants N]
[--minutes M] [--seed S]`` with ``tests/support`` on the path, where the circuits are. Yosys's
``mutate`` lists bits of cells' ports that are inverted, stuck or spoiled by another one; all those
of a circuit are in one netlist, whose testbench chooses one and stops at the first difference. One
that passes is given to a solver, which may prove that it is the same circuit, see
`benchmarks.redundant`. What was tried is kept in ``results/mutate-verilog.json`` for as long as
the circuit's Verilog is the same.
"""

import argparse
import hashlib
import json
import math
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.mutate_checks import EQUIVALENT_CELLS, LEFT_CELLS
from benchmarks.redundant import Spoiled, never_shows
from pvq_hw import __version__
from pvq_hw.documents import document_text
from pvq_hw.errors import InputError, PvqError
from pvq_hw.tools import find as tools
from sim.proof.netlist import Netlist

__all__ = ["CellMutant", "Design", "main", "mutate_verilog", "tally"]

RESULTS = Path(__file__).parent / "results" / "mutate-verilog.json"
_LISTED = 400  # mutants of a circuit, of which the first ones are tried
_SECONDS = 20  # of the processor, for one mutant
_READ = (
    "read_verilog {files}\nhierarchy -top {top}\nproc\nflatten\nmemory_collect\n"
    "opt_expr -mux_undef\nopt_clean\n"
)
_CHOICE = """\
  integer mutant = 0;
  initial if ($value$plusargs("mutant=%d", mutant)) ;
"""


@dataclass(frozen=True)
class CellMutant:
    """One line of Yosys's list.

    ``number`` is the one by which the testbench chooses it.
    """

    number: int
    mode: str
    cell: str
    port: str
    place: str  # the options -portbit and -ctrlbit
    wire: str

    @property
    def name(self) -> str:
        """Tells it from the circuit's others."""
        bits = " ".join(re.findall(r"\d+", self.place))
        return f"{self.mode} {self.cell} {self.port} {bits}"

    def command(self, module: str, options: str = "") -> str:
        """Yosys's command for it."""
        return (
            f"mutate -mode {self.mode} {options} -module {module} -cell {self.cell} "
            f"-port {self.port} {self.place}"
        )


class Design:
    """A folder with a circuit and its testbench ``tb``, whose last line is PASS or FAIL.

    Parameters
    ----------
    folder : Path
        With ``tb.v``, which has ``TOP dut (``, and the circuit's sources.
    spared : str
        Regular expression of cells that are no part of what is looked at.
    """

    def __init__(self, folder: Path, spared: str = "") -> None:
        self.folder, self.spared = folder, spared
        self.sources = sorted(p.name for p in folder.glob("*.v") if p.name != "tb.v")
        self.bench = (folder / "tb.v").read_text(encoding="utf-8")
        found = re.search(r"^ +(\w+) dut \(", self.bench, re.M)
        if not found:
            raise InputError(f"The testbench in {folder} must have a circuit that is called dut")
        self.top = found[1]
        self._read: Netlist | None = None

    @property
    def sha256(self) -> str:
        """Of the circuit's sources."""
        texts = [(self.folder / name).read_bytes() for name in self.sources]
        return hashlib.sha256(b"\0".join(texts)).hexdigest()

    def mutants(self, seed: int) -> list[CellMutant]:
        """What Yosys draws, but for clocks, of which a mutant is a race in a simulator, and outputs
        of registers, whose initial value would be lost with the net: their inputs are changed."""
        self._yosys(f"mutate -list {2 * _LISTED} -seed {seed} -o list.txt\n", "list")
        found = []
        for line in (self.folder / "list.txt").read_text(encoding="utf-8").splitlines():
            options = dict(re.findall(r"-(mode|cell|port|wire) (\S+)", line))
            place = " ".join(re.findall(r"-(?:port|ctrl)bit \d+", line))
            cell = options["cell"]
            if "CLK" in options["port"].upper() or options["port"] == "Q":
                continue
            if self.spared and re.search(self.spared, cell + " " + options.get("wire", "")):
                continue
            found.append(
                CellMutant(
                    len(found) + 1, options["mode"], cell, options["port"], place,
                    options.get("wire", ""),
                )
            )  # fmt: skip
        return found[:_LISTED]

    def build(self, mutants: Sequence[CellMutant]) -> None:
        """Puts mutants into the circuit and compiles it with its testbench."""
        lines = [m.command(self.top, f"-ctrl mutant 16 {m.number}") for m in mutants]
        self._yosys("\n".join([*lines, "write_verilog -noattr mutated.net", ""]), "mutate")
        bench = self.bench.replace("module tb;\n", f"module tb;\n{_CHOICE}", 1)
        bench = re.sub(
            rf"^( +{self.top} dut \()", r"\1.mutant(tb.mutant[15:0]), ", bench, flags=re.M
        )
        (self.folder / "mutated_tb.net").write_text(bench, encoding="utf-8")
        self._run(["iverilog", "-s", "tb", "-o", "mutated", "mutated.net", "mutated_tb.net"], 120)

    def verdict(self, number: int) -> tuple[str, float]:
        """``found``, ``left`` or ``hangs``, and the processor's seconds."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        code, text = self._run(["vvp", "-n", "mutated", f"+mutant={number}"], _SECONDS)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        last = text.splitlines()[-1] if text else ""
        what = {"PASS": "left", "FAIL": "found"}.get(last[:4], "hangs" if code else "found")
        return what, round(seconds, 2)

    def proven_same(self, mutant: CellMutant) -> bool:
        """Whether induction shows that no register, memory or output ever differs."""
        places = {k: int(v) for k, v in re.findall(r"-(portbit|ctrlbit) (\d+)", mutant.place)}
        spoiled = Spoiled(
            mutant.cell.removeprefix("\\"), mutant.port, places["portbit"], mutant.mode,
            places.get("ctrlbit", places["portbit"]),
        )  # fmt: skip
        return never_shows(self._netlist(), spoiled)

    def _netlist(self) -> Netlist:
        if self._read is None:
            self._yosys("write_json plain.json\n", "plain")
            document = json.loads((self.folder / "plain.json").read_text(encoding="utf-8"))
            self._read = Netlist.from_json(self.top, document["modules"][self.top])
        return self._read

    def _yosys(self, script: str, name: str) -> None:
        head = _READ.format(files=" ".join(self.sources), top=self.top)
        (self.folder / f"{name}.ys").write_text(head + script, encoding="utf-8")
        tools.run("yosys", ["-q", "-s", f"{name}.ys"], folder=self.folder)

    def _run(self, command: Sequence[str], seconds: int) -> tuple[int, str]:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))

        done = subprocess.run(
            command, cwd=self.folder, preexec_fn=limit, capture_output=True, text=True, check=False
        )
        if command[0] == "iverilog" and done.returncode:
            raise InputError(f"Icarus Verilog refused mutants of {self.folder.name}: {done.stderr}")
        return done.returncode, done.stdout


def _circuits() -> Mapping[str, tuple[Callable[..., None], Mapping[str, Any], str]]:
    """What is tried: how a circuit is written into a folder, and the cells that are none of it."""
    import small_circuits

    return small_circuits.CIRCUITS  # type: ignore[no-any-return]


def mutate_verilog(
    names: Sequence[str],
    results: Path,
    *,
    mutants: int,
    seed: int = 0,
    minutes: float = math.inf,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Tries the mutants that ``results`` doesn't hold yet; gives, and keeps, what it holds then.

    Parameters
    ----------
    names : sequence of str
        Of circuits; none means all.
    results : Path
        Made where there is none; begun anew for another seed.
    mutants : int
        Of all circuits together, as many of each.
    seed : int
    minutes : float
        Of the processor, for simulation; the mutant that is tried then is the last.
    tell : function of str
        Is told each mutant that is left, and how far it is.

    Returns
    -------
    dict
        ``pvq_hw_version``, ``seed`` and ``circuits``: the hash of each one's Verilog, and of each
        mutant by its name ``what`` (``found``, ``hangs``, ``equivalent``: proven, or ``left``) and
        ``seconds``.

    Raises
    ------
    InputError
        A circuit that isn't known, or that fails without a mutant.
    """
    circuits = _circuits()
    for name in names:
        if name not in circuits:
            raise InputError(f"A circuit must be one of {', '.join(circuits)}, not {name!r}")
    document: dict[str, Any] = {"pvq_hw_version": __version__, "seed": seed, "circuits": {}}
    if results.is_file():
        earlier = json.loads(results.read_text(encoding="utf-8"))
        if earlier["seed"] == seed:
            document |= {"circuits": earlier["circuits"]}
    each, left = math.ceil(mutants / len(circuits)), 60 * minutes
    for name in names or circuits:
        with tempfile.TemporaryDirectory(prefix="pvq_hw_") as folder:
            write, options, spared = circuits[name]
            write(Path(folder), **options)
            design = Design(Path(folder), spared)
            held = document["circuits"].get(name, {})
            if held.get("sha256") != design.sha256:
                held = {"sha256": design.sha256, "mutants": {}}
            document["circuits"][name] = held

            def keep() -> None:
                results.write_text(document_text(document), encoding="utf-8")

            left -= _try(name, design, held["mutants"], each, seed, left, keep, tell)
        tell(f"{name}: {_words(tally(name, held['mutants']))}")
    return document


def _try(
    name: str, design: Design, kept: dict[str, Any], each: int, seed: int, most: float,
    keep: Callable[[], None], tell: Callable[[str], None],
) -> float:  # fmt: skip
    """The first mutants of a circuit that were not tried; gives the seconds that it took."""
    new = [m for m in design.mutants(seed)[:each] if _untold(name, m.name, kept)]
    if not new or most <= 0:
        return 0.0
    design.build(new)
    what, spent = design.verdict(0)
    if what != "left":
        raise InputError(f"The testbench of {name} must pass without a mutant")
    for mutant in new:
        if spent > most:
            break
        what, seconds = design.verdict(mutant.number)
        spent += seconds
        if what == "left" and design.proven_same(mutant):
            what = "equivalent"
        kept[mutant.name] = {"what": what, "seconds": seconds}
        keep()
        if _untold(name, mutant.name, kept):
            tell(f"left: {name}: {mutant.name} ({mutant.wire})")
    return spent


def _untold(circuit: str, name: str, kept: Mapping[str, Any]) -> bool:
    """Whether a mutant has to be tried."""
    known = f"{circuit}: {name}" in EQUIVALENT_CELLS | LEFT_CELLS
    return name not in kept or (kept[name]["what"] == "left" and not known)


def tally(circuit: str, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Of a circuit's mutants: ``tried``, ``found`` (with those that never end), ``proven`` the
    same, ``known`` to be, ``left``."""
    whats = [mutant["what"] for mutant in kept.values()]
    same = (n for n in kept if f"{circuit}: {n}" in EQUIVALENT_CELLS)
    known = sum(kept[name]["what"] == "left" for name in same)
    found = whats.count("found") + whats.count("hangs")
    left = whats.count("left") - known
    proven = whats.count("equivalent")
    return {"tried": len(whats), "found": found, "proven": proven, "known": known, "left": left}


def _words(counts: Mapping[str, Any]) -> str:
    return (
        f"{counts['found']} of {counts['tried']} mutants found, {counts['proven']} proven to be "
        f"the same circuit, {counts['known']} known to be, {counts['left']} left"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit status 1 where a mutant is left that nobody gave a reason for."""
    about = __doc__.split("\n")[0]
    parser = argparse.ArgumentParser(prog="benchmarks.mutate_verilog", description=about)
    parser.add_argument("circuits", nargs="*", metavar="NAME", help="all by default")
    parser.add_argument("--mutants", type=int, default=500, help="of all circuits together")
    parser.add_argument("--minutes", type=float, default=math.inf, help="of the processor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--results", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    try:
        document = mutate_verilog(
            args.circuits, args.results, mutants=args.mutants, seed=args.seed,
            minutes=args.minutes, tell=lambda line: print(line, flush=True),
        )  # fmt: skip
    except PvqError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return int(
        any(
            _untold(circuit, name, held["mutants"])
            for circuit, held in document["circuits"].items()
            for name in held["mutants"]
        )
    )


if __name__ == "__main__":
    sys.exit(main())
