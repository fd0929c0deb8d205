"""Documents: every reader refuses the same damages in the same form, and values come back."""

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
import pytest
import tomli_w
from cli_tools import twin
from plan_networks import random_network

from pvq_hw.documents import (
    HEX,
    OPEN,
    Document,
    Place,
    integer_range,
    line,
    load_toml,
    number_range,
    one_of,
    read,
    read_json,
    text_like,
    write,
)
from pvq_hw.errors import InputError
from pvq_hw.flow.options import CompileOptions, LayerChoice, load_options
from pvq_hw.network.network import Network
from pvq_hw.output.build_record import load_build, load_memories, write_build
from pvq_hw.output.golden_vectors import load_index
from pvq_hw.output.manifest import load_manifest
from pvq_hw.output.proof_record import load_proof, write_proof
from pvq_hw.output.report import load_report, write_report
from pvq_hw.plan.plan import Plan, plan
from pvq_hw.target.board_file import load_board
from pvq_hw.tune.journal import JOURNAL, Journal

# -- every document -------------------------------------------------------------------------------

BOARD = Path(__file__).parents[1] / "pvq_hw" / "target" / "board_files" / "icebreaker.toml"
TRIED = {"job": {"planned": False}, "outcome": {"state": "FAIL", "reason": "no"}}


@dataclass(frozen=True)
class Case:
    """A document: its file below an output, its reader, a text, a number and a table in it."""

    file: str
    read: Any
    text: tuple[Any, ...]
    number: tuple[Any, ...]
    table: tuple[Any, ...]
    where: str = ""


def _journal(out):
    with Journal(out, resume=True):
        pass


CASES = {
    "network": Case("network/network.json", lambda out: Network.load(out / "network"),
                    ("input", "name"), ("layers", 0, "shift"), ("layers", 1, "output")),
    "plan": Case("plan.json", lambda out: Plan.load(out / "plan.json"), ("network",),
                 ("layers", 0, "core", "rows"), ("graph", "units", 0, "core", "code")),
    "manifest": Case("manifest.json", load_manifest, ("network",), ("n_over_k",),
                     ("files", "plan.json")),
    "build": Case("build/build.json", lambda out: load_build(out / "build"), ("bitstream",),
                  ("files", "top.bin", "bytes"), ("files", "top.bin")),
    "memories": Case("build/memories.json", lambda out: load_memories(out / "build/memories.json"),
                     ("netlist",), (), ("memories",)),
    "proof": Case("proof.json", load_proof, ("parts", 0, "unit"), (), ("parts", 0)),
    "vectors": Case("vectors/vectors.json", lambda out: load_index(out / "vectors/vectors.json"),
                    ("files", "input.hex", "tensor"), ("frames",), ("files", "input.hex")),
    "report": Case("report.json", load_report, ("pvq_hw_version",), ("build", "seed"),
                   ("prove", "parts", 0)),
    "journal": Case(JOURNAL, _journal, ("outcome", "reason"), (), ("outcome",), ", line 2"),
    "configuration": Case("c.toml", lambda out: load_options(out / "c.toml", {}), ("target",),
                          ("layers", "h", "lanes"), ("layers", "h")),
    "board": Case("b.toml", lambda out: load_board(out / "b.toml"), ("board",), ("clock_mhz",),
                  ("oscillator",)),
}  # fmt: skip
"""Every file of a document that another machine may have written."""


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    """An output with one of each."""
    out = twin(digits.out, tmp_path_factory.mktemp("documents") / "out")
    (out / "build").mkdir()
    (out / "build" / "top.bin").write_bytes(b"bits")
    (out / "build" / "memories.json").write_text('{"netlist": "", "memories": {"a": "b"}}')
    write_build(out / "build", {"bitstream": "top.bin"})
    part = {"part": "codes", "unit": "h", "state": "proven", "says": "all"}
    write_proof(out, {"manifest_sha256": "", "complete": True, "parts": [part]})
    built = {"fmax_mhz": 2.0, "clock_mhz": 1, "inferences_per_second": 3.0, "seed": 1,
             "utilization": {"LC": {"used": 1, "available": 2}}}  # fmt: skip
    write_report(out, json.loads((out / "report.json").read_text()) | {
        "build": built, "prove": {"complete": True, "parts": [part]},
    })  # fmt: skip
    header = {"format": "pvq-hw tune journal", "format_version": 2}
    (out / JOURNAL).write_text(json.dumps(header) + "\n" + json.dumps(TRIED) + "\n")
    options = {"target": "hx8k", "layers": {"h": {"lanes": 2}}}
    (out / "c.toml").write_text(tomli_w.dumps(options))
    text = BOARD.read_text().replace('name = "icebreaker"', 'name = "toy"')
    (out / "b.toml").write_text(text)
    return out


def _values(path):
    if path.suffix == ".toml":
        return load_toml(path, "TOML")
    text = path.read_text()
    return json.loads(text.splitlines()[1] if path.name == JOURNAL else text)


def _put(path, value):
    text = tomli_w.dumps(value) if path.suffix == ".toml" else json.dumps(value)
    if path.name == JOURNAL:
        text = path.read_text().splitlines()[0] + "\n" + text + "\n"
    path.write_text(text)


def _at(value, path):
    for key in path:
        value = value[key]
    return value


def _told(path):
    """A place as messages have it."""
    place = Place("")
    for key in path:
        place = place.item(key) if isinstance(key, int) else place.key(key)
    return place.path


def _unknown(value, case):
    _at(value, case.table)["wings"] = 2
    return f"{_told(case.table)} has an unknown key 'wings'"


def _another_type(value, case):
    _at(value, case.text[:-1])[case.text[-1]] = 3
    return f"{_told(case.text)} must be text"


def _no_number(value, case):
    _at(value, case.number[:-1])[case.number[-1]] = "3"
    return f"{_told(case.number)} must be a"


def _truth(value, case):
    _at(value, case.number[:-1])[case.number[-1]] = True
    return f"{_told(case.number)} must be a"


def _infinite(value, case):
    _at(value, case.number[:-1])[case.number[-1]] = float("inf")
    return f"{_told(case.number)} must be "


def _hundreds_of_digits(value, case):
    _at(value, case.number[:-1])[case.number[-1]] = 10**400
    return f"{_told(case.number)} must be .*not an integer of 1,329 bits"


def _no_table(value, case):
    _at(value, case.table[:-1])[case.table[-1]] = [1]
    return f"{_told(case.table)} must be a table, not [1]"


def _missing(value, case):
    del _at(value, case.text[:-1])[case.text[-1]]
    return f"{_told(case.text)} is missing"


DAMAGES = (_unknown, _another_type, _no_number, _truth, _infinite, _hundreds_of_digits, _no_table,
           _missing)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_document_refuses_the_same_damages_in_the_same_form(whole, tmp_path, name):
    case = CASES[name]
    out = shutil.copytree(whole, tmp_path / "out")
    if name != "board":  # another name than the file's last one is shipped
        case.read(out)
    path = out / case.file
    good = path.read_text()
    for damage in DAMAGES:
        if damage in (_no_number, _truth, _infinite, _hundreds_of_digits) and not case.number:
            continue
        if (name, damage) in {("configuration", _missing), ("memories", _unknown),
                              ("memories", _no_table)}:  # fmt: skip
            continue  # none of its keys is needed; its table holds texts by any name
        path.write_text(good)
        value = _values(path)
        rule = damage(value, case)
        _put(path, value)
        with pytest.raises(InputError) as caught:
            case.read(out)
        found = str(caught.value)
        rule = re.escape(rule).replace(r"\.\*", ".*")
        told = f"[^:]*{re.escape(Path(case.file).name)}'?{case.where}: {rule}"
        assert re.match(told, found), (damage.__name__, told, found)
        assert "\n" not in found
        assert len(found) < len(str(path)) + 300


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"{", b"[" * 100_000, b'{"a": 1, "a": 2}', b"3"], ids=range(6)
)
def test_files_that_are_no_documents_are_refused_in_one_line(whole, tmp_path, name, data):
    case = CASES[name]
    out = shutil.copytree(whole, tmp_path / "out")
    if case.where:
        data = (out / case.file).read_bytes().splitlines()[0] + b"\n" + (data or b" ") + b"\n"
    (out / case.file).write_bytes(data)
    if name == "configuration" and not data:
        return
    with pytest.raises(InputError) as caught:
        case.read(out)
    assert Path(case.file).name in str(caught.value)
    assert "\n" not in str(caught.value)


# -- values ---------------------------------------------------------------------------------------


class Base(Document):
    """What a kind tells apart."""

    kind: ClassVar[str] = ""


@dataclass(frozen=True)
class Round(Base):
    kind: ClassVar[str] = "round"

    size: Annotated[float, HEX]


@dataclass(frozen=True)
class Square(Base):
    kind: ClassVar[str] = "square"
    derived: ClassVar[tuple[str, ...]] = ("area",)
    keys: ClassVar[dict[str, str]] = {"name": "title"}

    side: Annotated[int, integer_range(1, 9)]
    name: Annotated[str, line(5)] = ""

    def to_json(self):
        return super().to_json() | {"area": self.side**2}


class Told(TypedDict):
    shape: Base
    more: NotRequired[tuple[int | None, ...]]


@dataclass(frozen=True, eq=False)
class Matrix:
    y: npt.NDArray[np.int64]
    gain: Annotated[npt.NDArray[np.float64], HEX]


def test_values_come_back():
    for shape in (Round(0.1), Square(3, "a")):
        written = json.loads(json.dumps(write(shape)))
        assert read(Base, written) == shape
        assert read(Told, {"shape": written, "more": [1, None]}) == {
            "shape": shape, "more": (1, None),
        }  # fmt: skip
    assert write(Square(3, "a")) == {"kind": "square", "side": 3, "title": "a", "area": 9}
    matrix = Matrix(np.arange(6).reshape(2, 3), np.array([[0.1], [1e-9]]))
    again = read(Matrix, json.loads(json.dumps(write(matrix))))
    assert np.array_equal(again.y, matrix.y)
    assert np.array_equal(again.gain, matrix.gain)


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (Base, {"size": "0x1p+0"}, "x: kind is missing"),
        (Base, {"kind": "squar"}, "x: kind must be round or square, not 'squar'; did you mean"),
        (Base, {"kind": ["round"]}, "x: kind must be round or square, not ['round']"),
        (Base, {"kind": "round", "size": "inf"}, "x: size must be a finite number in hexadecimal"),
        (Base, {"kind": "round", "size": 1.0}, "x: size must be text, not 1.0"),
        (Base, {"kind": "square", "side": 10}, "x: side must be an integer from 1 to 9, not 10"),
        (Base, {"kind": "square"}, "x: side is missing"),
        (Base, {"kind": "square", "side": 1, "title": "a\nb"}, "title must be a line of at most 5"),
        (Base, {"kind": "square", "side": 1, "name": ""}, "x has an unknown key 'name'; known are"),
        (Matrix, {"y": [[1], [1, 2]], "gain": []}, "x: y must be lists of one length"),
        (Matrix, {"y": [[1], [1.5]], "gain": []}, "x: y[1][0] must be an integer, not 1.5"),
        (tuple[int, int], [1], "x must be a list of 2, not [1]"),
        (dict[str, int], {"a b": "c"}, "x: ['a b'] must be an integer, not 'c'"),
        (list[int] | dict[str, int], {"a": None}, "x: a must be an integer, not None"),
        (int | str, None, "x must be an integer or text, not None"),
        (Any, {"a": [float("nan")]}, "x: a[0] must be a finite number, not nan"),
        (Any, [1 << 63], "x: [0] must be of 64 bits at most, not 9223372036854775808"),
        (Annotated[str, one_of("a", "b")], "c", "x must be a or b, not 'c'"),
        (Annotated[str, text_like("a+")], "b", "x must be text like a+, not 'b'"),
        (Annotated[float, number_range(0, 1)], 2, "x must be a number from 0 to 1, not 2"),
        (Annotated[Told, OPEN], {"wings": 1}, "x: shape is missing"),
    ],
)
def test_what_a_value_is_refused_for(hint, value, message):
    with pytest.raises(InputError) as caught:
        read(hint, value, "x")
    assert str(caught.value).startswith(message) or message in str(caught.value)


def test_keys_that_stand_twice_are_refused():
    with pytest.raises(InputError, match="x must be JSON: key 'a' is there twice"):
        read_json('{"a": 1, "a": 2}', Place("x"))


def test_what_is_added_to_an_open_table_is_kept():
    told = {"shape": write(Round(1.0)), "wings": {"a": [1]}}
    assert read(Annotated[Told, OPEN], told)["wings"] == {"a": [1]}
    with pytest.raises(InputError, match="unknown key 'wings'"):
        read(Told, told)


def test_options_are_checked_where_they_come_from(tmp_path):
    (tmp_path / "c.toml").write_text("[layers.h]\nk = 0\n")
    with pytest.raises(InputError, match=r"c.toml: layers.h: K must be at least 1, not 0"):
        load_options(tmp_path / "c.toml", {})
    options = CompileOptions(target="hx8k", layers={"h": LayerChoice(k=3)}, lanes=(1, 2))
    assert read(CompileOptions, write(options)) == options
    assert replace(options, lanes=None) != options


def test_the_same_plan_is_the_same_text(tmp_path):
    planned = plan(random_network()[0], "hx8k")
    planned.save(tmp_path / "a")
    Plan.load(tmp_path / "a").save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
