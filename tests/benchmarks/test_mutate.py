"""What `make mutate` does: changes that are real, tests that find them, a run that goes on."""

import ast
import json
import subprocess
import sys

import pytest
from cli_tools import ROOT

from benchmarks import mutate
from benchmarks.mutate_checks import CHECKS, EQUIVALENT, FIXED
from benchmarks.mutations import mutations_of
from pvq_hw.errors import InputError

KEPT = ROOT / "benchmarks" / "results" / "mutate.json"
FORMATS = "pvq_hw/arith/formats.py"

SOURCE = '''
"""A circuit."""
SIZE: int = 3
class Part(Base):
    """Some text."""
    def elaborate(self, platform: int | None) -> Module:
        count, data = Signal(range(4)), Signal(8, reset_less=True)
        with m.If(self.go & ~self.full):
            m.d.sync += [count.eq(count + 1), data.eq(0)]
        m.d.comb += self.o.eq(Mux(self.go, count, data))
        if not count:
            raise ValueError(f"{SIZE + 1} of {1 + 2}")
        m.submodules["part"].use(True)
'''
CHANGES = {
    "module: 3 -> 4",
    "Part.elaborate: Signal(range(4)) -> (Signal(range(4), reset_less=True))",
    "Part.elaborate: 4 -> 5",
    "Part.elaborate: 8 -> 9",
    "Part.elaborate: self.go & ~self.full -> 1",
    "Part.elaborate: self.go & ~self.full -> 0",
    "Part.elaborate: self.go & ~self.full -> (self.go | ~self.full)",
    "Part.elaborate: ~self.full -> (self.full)",
    "Part.elaborate: count.eq(count + 1) -> *[]",
    "Part.elaborate: data.eq(0) -> *[]",
    "Part.elaborate: count + 1 -> (count - 1)",
    "Part.elaborate: 1 -> 0",
    "Part.elaborate: 0 -> 1",
    "Part.elaborate: m.d.comb += self.o.eq(Mux(self.go, count, data)) -> pass",
    "Part.elaborate: Mux(self.go, count, data) -> (Mux(self.go, data, count))",
    "Part.elaborate: not count -> True",
    "Part.elaborate: not count -> False",
    "Part.elaborate: not count -> (count)",
    'Part.elaborate: m.submodules["part"].use(True) -> pass',
    "Part.elaborate: True -> False",
}


def test_operators_constants_conditions_statements_and_resets_are_changed_one_by_one(tmp_path):
    (tmp_path / "part.py").write_text(SOURCE)
    found = mutations_of(tmp_path, "part.py")
    assert {m.name.removeprefix("part.py: ") for m in found} == CHANGES
    assert len(found) == len(CHANGES)
    texts = {m.of(SOURCE.encode()) for m in found}
    assert len(texts) == len(found)
    for text in texts:
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(SOURCE))


def test_every_source_and_test_of_the_table_is_there():
    for kind, files in CHECKS.items():
        names = [m.name for m in mutate.mutants_of(kind)]
        assert len(set(names)) == len(names)
        assert len(names) > 1000
        tests = {test for checks in files.values() for test in checks}
        assert all((ROOT / test).is_file() for test in tests)
    names = {m.name for kind in CHECKS for m in mutate.mutants_of(kind)}
    assert {*EQUIVALENT, *FIXED} <= names
    assert all(EQUIVALENT.values())


@pytest.fixture
def tried(monkeypatch):
    """A run that tries nothing: what each mutant's tests say, and which were asked."""
    asked = []

    class Tree:
        def __init__(self, place):
            pass

        def judged(self, tests, mutation):
            asked.append(mutation.name)
            return mutate.Outcome("found" if len(asked) % 3 else "left", "tests/x.py::y", 30.0)

    monkeypatch.setattr(mutate, "Tree", Tree)
    return asked


def test_a_run_goes_on_where_it_was_and_tries_again_what_is_left(tmp_path, tried):
    path, told = tmp_path / "m.json", []
    mutate.mutate(["python"], path, mutants=6, tell=told.append)
    assert told[-1] == "python: 4 of 6 mutants found, 0 equivalent, 2 left: 66.7 %"
    assert told[0].startswith("left: line ")
    first = list(tried)
    mutate.mutate(["python"], path, mutants=8)
    left = [first[2], first[5]]
    assert tried[6:8] == left
    assert set(tried[8:]).isdisjoint(first)
    assert len(json.loads(path.read_text())["kinds"]["python"]["mutants"]) == 8
    mutate.mutate(["circuits"], path, minutes=1.2)
    assert len(json.loads(path.read_text())["kinds"]["circuits"]["mutants"]) == 3


def test_mutants_of_code_that_is_no_more_are_taken_out(tmp_path, tried, monkeypatch):
    path = tmp_path / "m.json"
    mutate.mutate(["python"], path, mutants=6)
    monkeypatch.setitem(mutate.CHECKS, "python", {FORMATS: CHECKS["python"][FORMATS]})
    kept = mutate.mutate(["python"], path, mutants=0)["kinds"]["python"]["mutants"]
    assert all(name.startswith(FORMATS) for name in kept)


def test_what_is_left_without_a_reason_is_no_success(tmp_path, tried, monkeypatch):
    path = tmp_path / "m.json"
    args = ["python", "--mutants", "3", "-o", str(path)]
    assert mutate.main(args) == 1
    monkeypatch.setitem(mutate.EQUIVALENT, tried[2], "is the same")
    assert mutate.main(args) == 0
    assert len(tried) == 3
    assert mutate.main(["perl", "-o", str(path)]) == 2


def test_a_mutant_is_found_by_the_tests_of_its_own_file(tmp_path):
    path, name = tmp_path / "m.json", f"{FORMATS}: IntFormat.between: 0 -> 1"
    ran = run_bench("python", "--mutants", "1", "--only", name, "-o", path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    ((found, mutant),) = json.loads(path.read_text())["kinds"]["python"]["mutants"].items()
    assert (found, mutant["what"]) == (name, "found")
    assert "test_narrowest_format" in mutant["by"]


def test_twenty_fixed_mutants_are_found_each_by_its_test():
    ran = run_bench("--fixed")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout == "20 of 20 fixed mutants found\n"


def run_bench(*args):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.mutate", *args],
        cwd=ROOT, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


def test_a_test_that_fails_by_itself_finds_nothing(monkeypatch):
    tree = object.__new__(mutate.Tree)
    tree._sound = set()
    failed = mutate.Outcome("found", "tests/x.py::y", 1.0)
    monkeypatch.setattr(mutate.Tree, "run", lambda *args: failed)
    with pytest.raises(InputError, match=r"Test tests/x\.py::y must pass without a mutant"):
        tree.judged(["tests/x.py"], mutations_of(ROOT, FORMATS)[0])
