"""The page of what results rest on: proofs, mutants, fuzz, and mistakes so far.

Run as ``python -m benchmarks.trust [--add NAME=OUT ...]``; `make docs` does. Writes
``docs/trust.md`` from ``results/proofs.json``, ``mutate.json``, ``mutate-verilog.json``,
``fuzz.json`` and ``mistakes.json`` alone. ``--add`` first takes what `pvq-hw prove` found of an
output into ``proofs.json``, under the name of the network.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.mutate import score
from benchmarks.mutate_checks import CHECKS, EQUIVALENT, EQUIVALENT_CELLS, LEFT_CELLS
from benchmarks.mutate_verilog import tally
from pvq_hw.documents import document_text
from pvq_hw.errors import InputError, PvqError
from pvq_hw.evaluate.metrics import wilson
from pvq_hw.output.proof_record import load_proof

__all__ = ["add_proof", "main", "page"]

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "trust.md"
_ABOUT = """\
# What the results rest on

Figures of what was proven, changed on purpose, damaged and found wrong so far. Made from
`benchmarks/results` by `make docs`; what each of them means is in
[what is proven](proofs.md) and [how it is tested](how-it-is-tested.md).
"""
_PROVEN = """\
## Proven for all inputs

Parts of the exported Verilog, by `pvq-hw prove`. *Shown* is on frames, *open* is not proven; both
are named below. It is taken for granted that Yosys reads Verilog as it is meant, that Bitwuzla is
right, and that the evaluator of `sim/proof`, which each proof holds against the golden model, is.
*netlist* is that what nextpnr is given is the board's design; that place and route keep it is not
proven: `verify --bitstream` compares the memories of a bitstream, and netlists are simulated. The
netlists here were synthesized as `build` does; that of ad01 was placed too.

| network | proven | shown | open | wrong | by |
|---|---|---|---|---|---|"""
_MUTANTS = """\
## Mutants

One thing changed in a source, against the tests of its own file: `make mutate`. Drawn at random,
so the share has an interval: Wilson's, 95 %. Where a mutant was left, tests were added that find
it and those like it, and it was tried again: the share is that of today's tests.

| sources | files | mutants there are | tried | found | the same circuit | left | found, % | 95 % |
|---|---|---|---|---|---|---|---|---|"""
_CELLS = """\
Bits of cells of exported Verilog, inverted, stuck or spoiled by another bit by Yosys's `mutate`,
against the testbench that is shipped, in all its scenarios; of the board's circuits, a talk from
pin to pin. The same circuit are those of which a solver shows that no register, memory or output
ever differs.

| circuit | tried | found | the same circuit | left | found, % | 95 % |
|---|---|---|---|---|---|---|"""
_FUZZ = """\
## Fuzz

What is damaged on purpose, by `make fuzz`. A fault is a traceback, a warning, a message of more
than one line, a change that nothing finds, a wrong answer, or a case that takes over 20 s.

| kind | cases | taken | found or refused | faults |
|---|---|---|---|---|"""
_MISTAKES = """\
## Mistakes so far, by how they were found

Those of the changelog that a user could have met, as far as is recorded.

| found by | how many | |
|---|---|---|"""
_END = """\
What the planner reckons stands beside what was counted in
[the planner's estimates](benchmarks-resources.md).
"""


def page(results: Path = RESULTS) -> str:
    """The page, in Markdown."""
    proofs, mutants, cells, fuzz, mistakes = (
        json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("proofs", "mutate", "mutate-verilog", "fuzz", "mistakes")
    )
    parts = [
        [_PROVEN, *_proven(proofs["networks"])],
        [_MUTANTS, *_mutants(mutants["kinds"])],
        [_CELLS, *_cells(cells["circuits"])],
        [_FUZZ, *_fuzz(fuzz["kinds"])],
        [_MISTAKES, *_mistakes(mistakes)],
    ]
    return "\n".join([_ABOUT, *("\n".join([*lines, ""]) for lines in parts), _END])


def _proven(networks: Mapping[str, Any]) -> Iterator[str]:
    for name, proof in networks.items():
        states = Counter(part["state"] for part in proof["parts"])
        counts = [str(states[state]) for state in ("proven", "shown", "open", "wrong")]
        tools = ", ".join(f"{tool} {version}" for tool, version in proof["tools"].items())
        yield f"| {name} | {' | '.join(counts)} | pvq-hw {proof['pvq_hw_version']}, {tools} |"
    for name, proof in networks.items():
        rest = [p for p in proof["parts"] if p["state"] != "proven"]
        if rest:
            yield ""
            yield f"{name}: " + "; ".join(
                f"*{p['part']}* of {p['unit']} is {p['state']}: {p['says']}" for p in rest
            ) + "."  # fmt: skip


def _mutants(kinds: Mapping[str, Any]) -> Iterator[str]:
    for name, kind in kinds.items():
        counts = score(kind["mutants"])
        yield (
            f"| {name} | {len(CHECKS[name])} | {kind['possible']:,} | {counts['tried']:,} | "
            f"{counts['found']:,} | {counts['equivalent']} | {counts['left']} | "
            f"{_share(counts['found'], counts['left'])} |"
        )
    mutants = {name: m for kind in kinds.values() for name, m in kind["mutants"].items()}
    for name, mutant in sorted(mutants.items()):
        if mutant["what"] == "left":
            yield ""
            yield f"Not found: `{name}`: {EQUIVALENT.get(name, 'a test is missing')}."


def _share(found: int, left: int) -> str:
    """Percent found of those that are another circuit, and Wilson's interval."""
    told = found + left
    low, high = wilson(found, told) if told else (0.0, 100.0)
    return f"{100 * found / told if told else 100:.1f} | {low:.0f} to {high:.0f}"


def _cells(circuits: Mapping[str, Any]) -> Iterator[str]:
    counts = {name: tally(name, held["mutants"]) for name, held in circuits.items()}
    whole = {key: sum(c[key] for c in counts.values()) for key in next(iter(counts.values()))}
    for name, c in (counts | {"all": whole}).items():
        same = c["proven"] + c["known"]
        yield (
            f"| {name} | {c['tried']} | {c['found']} | {same} | {c['left']} | "
            f"{_share(c['found'], c['left'])} |"
        )
    for circuit, held in circuits.items():
        for name, mutant in sorted(held["mutants"].items()):
            if mutant["what"] == "left":
                reasons = EQUIVALENT_CELLS | LEFT_CELLS
                reason = reasons.get(f"{circuit}: {name}", "a test is missing")
                yield ""
                yield f"Not found: {circuit}: `{name}`: {reason}."


def _fuzz(kinds: Mapping[str, Any]) -> Iterator[str]:
    for name, kind in kinds.items():
        found = kind.get("found", 0) + kind.get("refused", 0)
        taken, faults = kind.get("taken", 0), len(kind["faults"])
        yield f"| {name} | {kind['cases']:,} | {taken:,} | {found:,} | {faults} |"


def _mistakes(document: Mapping[str, Any]) -> Iterator[str]:
    counts = Counter(way for way, _ in document["mistakes"])
    if unknown := counts.keys() - document["ways"].keys():
        raise InputError(f"A way must be one of {', '.join(document['ways'])}, not {unknown}")
    for way in sorted(document["ways"], key=lambda way: (-counts[way], way)):
        yield f"| {way} | {counts[way]} | {document['ways'][way]} |"


def add_proof(name: str, out: Path, results: Path = RESULTS) -> None:
    """Takes what was proven of an output into ``proofs.json``.

    Raises
    ------
    InputError
        There is no proof, or it is not whole.
    """
    proof = load_proof(out)
    if not proof["complete"]:
        raise InputError(f"The proof of {out} must be complete: run pvq-hw prove {out}")
    path = results / "proofs.json"
    document = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"networks": {}}
    document["networks"][name] = {
        key: proof[key] for key in ("pvq_hw_version", "prover_sha256", "tools", "parts")
    }
    path.write_text(document_text(document), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.trust", description=__doc__.split("\n")[0])
    parser.add_argument("--add", action="append", default=[], metavar="NAME=OUT")
    args = parser.parse_args(argv)
    try:
        for text in args.add:
            name, equals, out = text.rpartition("=")
            if not equals:
                raise InputError(f"--add must be NAME=OUT, not {text!r}")
            add_proof(name, Path(out))
        PAGE.write_text(page(), encoding="utf-8")
    except PvqError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
