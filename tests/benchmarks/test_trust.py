"""The page of what results rest on is that of its results, and is made by `make docs`."""

import json
import shutil

import pytest
from cli_tools import ROOT

from benchmarks import trust
from pvq_hw.errors import InputError
from pvq_hw.output.proof_record import write_proof


def test_the_page_is_that_of_the_results():
    assert trust.PAGE.read_text() == trust.page(), "run python -m benchmarks.trust"
    assert "-m benchmarks.trust" in (ROOT / "Makefile").read_text().split("\ndocs: ")[1]


@pytest.fixture
def results(tmp_path):
    for name in ("proofs", "mutate", "mutate-verilog", "fuzz", "mistakes"):
        shutil.copy(trust.RESULTS / f"{name}.json", tmp_path)
    return tmp_path


def _edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_each_figure_follows_from_its_file(results):
    before = trust.page(results)
    left = {"what": "left", "by": "", "seconds": 1.0}
    _edit(results / "mutate.json", lambda d: d["kinds"]["python"]["mutants"].update(x=left))
    assert "Not found: `x`: a test is missing." in trust.page(results)
    more = {"what": "left", "seconds": 1.0}
    _edit(
        results / "mutate-verilog.json",
        lambda d: d["circuits"]["a loader"]["mutants"].update(inv=more),
    )
    assert "Not found: a loader: `inv`: a test is missing." in trust.page(results)
    _edit(results / "fuzz.json", lambda d: d["kinds"]["model files"]["faults"].append([1, "slow"]))
    assert "| 8,708 | 1 |" in trust.page(results)
    counts = before.split("| hostile input | ")[1].split(" | ")[0]
    _edit(results / "mistakes.json", lambda d: d["mistakes"].append(["hostile input", "more"]))
    assert f"| hostile input | {int(counts) + 1} |" in trust.page(results)
    _edit(results / "mistakes.json", lambda d: d["mistakes"].append(["luck", "more"]))
    with pytest.raises(InputError, match="A way must be one of comparison"):
        trust.page(results)


def test_a_proof_is_taken_as_it_is_and_what_it_leaves_is_named(results, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    part = {"part": "sums", "unit": "fc1", "state": "open", "says": "not run"}
    head = {"pvq_hw_version": "1", "prover_sha256": "0", "manifest_sha256": "0",
            "tools": {"yosys": "0.9"}, "parts": [part]}  # fmt: skip
    write_proof(out, head | {"complete": False})
    with pytest.raises(InputError, match="must be complete"):
        trust.add_proof("some", out, results)
    write_proof(out, head | {"complete": True})
    trust.add_proof("some", out, results)
    page = trust.page(results)
    assert "| some | 0 | 0 | 1 | 0 | pvq-hw 1, yosys 0.9 |" in page
    assert "some: *sums* of fc1 is open: not run." in page
    assert trust.main(["--add", "some"]) == 2
