"""Mutants of exported Verilog: tried against a circuit's testbench, or proven to be the same."""

import json

import pytest

from benchmarks import mutate_verilog as bench
from pvq_hw.errors import InputError
from pvq_hw.tools import find as tools
from sim.proof.formulas import solver_version

pytestmark = pytest.mark.skipif(
    not (tools.have_tool("yosys") and tools.have_tool("iverilog") and solver_version()),
    reason="needs Yosys, Icarus Verilog and Bitwuzla",
)

# Counts to 4; the top bit of a sum that is never above 5 decides nothing that isn't known.
COUNTER = """\
module dut (input clk, input rst, input go, output [2:0] count, output last);
  reg [2:0] count_ = 0;
  wire [3:0] next = count_ + 4'd1;
  assign count = count_;
  assign last = count_ == 3'd4;
  always @(posedge clk)
    if (rst) count_ <= 0;
    else if (go) count_ <= next[3] | last ? 3'd0 : next[2:0];
endmodule
"""
BENCH = """\
module tb;
  reg clk = 0, rst = 0;
  wire [2:0] count;
  wire last;
  integer k, wrong = 0;
  dut dut (.clk(clk), .rst(rst), .go(k % 3 != 2), .count(count), .last(last));
  initial begin
    for (k = 0; k < 40; k = k + 1) begin
      rst = k == 20;
      #5 if (count !== (k <= 20 ? k - k / 3 : k - 21 - (k / 3 - 7)) % 5) wrong = 1;
      if (last !== (count == 4)) wrong = 1;
      clk = 1;
      #5 clk = 0;
    end
    $display("%s", wrong ? "FAIL" : "PASS");
    $finish;
  end
endmodule
"""


@pytest.fixture
def counter(monkeypatch):
    """A circuit of one small module; what it is called may be changed."""
    text = {"dut": COUNTER}

    def write(folder):
        (folder / "dut.v").write_text(text["dut"])
        (folder / "tb.v").write_text(BENCH)

    monkeypatch.setattr(bench, "_circuits", lambda: {"a counter": (write, {}, "")})
    monkeypatch.setattr(bench, "_SECONDS", 2)
    return text


def test_each_mutant_is_found_or_proven_to_be_the_same(tmp_path, counter, monkeypatch):
    path, told = tmp_path / "m.json", []
    args = {"mutants": 60, "seed": 1, "tell": told.append}
    kept = bench.mutate_verilog([], path, **args)["circuits"]["a counter"]["mutants"]
    counts = bench.tally("a counter", kept)
    assert counts == {"tried": 60, "found": counts["found"], "proven": counts["proven"],
                      "known": 0, "left": 0}  # fmt: skip
    assert counts["found"] > 30
    assert counts["proven"] >= 3
    assert told == [f"a counter: {bench._words(counts)}"]
    # What is kept is not tried again, unless the circuit is another one.
    monkeypatch.setattr(bench.Design, "build", None)
    bench.mutate_verilog([], path, **args)
    counter["dut"] = COUNTER.replace("next[3] | last", "last | next[3]")
    with pytest.raises(TypeError):
        bench.mutate_verilog([], path, **args)


def test_nothing_that_a_testbench_finds_is_proven_to_be_the_same(tmp_path, counter):
    bench._circuits()["a counter"][0](tmp_path)
    design = bench.Design(tmp_path)
    mutants = design.mutants(2)[:40]
    design.build(mutants)
    found = [m for m in mutants if design.verdict(m.number)[0] == "found"]
    assert len(found) > 20
    assert not any(design.proven_same(m) for m in found)


def test_what_is_left_is_told_unless_there_is_a_reason(tmp_path, counter, monkeypatch, capsys):
    path = tmp_path / "m.json"
    monkeypatch.setattr(bench.Design, "verdict", lambda self, number: ("left", 0.1))
    monkeypatch.setattr(bench.Design, "proven_same", lambda self, mutant: False)
    args = ["--mutants", "2", "-o", str(path)]
    assert bench.main(args) == 1
    assert "0 of 2 mutants found, 0 proven to be the same circuit, 0 known to be, 2 left" in (
        capsys.readouterr().out
    )
    names = json.loads(path.read_text())["circuits"]["a counter"]["mutants"]
    reasons = {f"a counter: {name}": "says the test" for name in names}
    monkeypatch.setattr(bench, "EQUIVALENT_CELLS", reasons)
    assert bench.main(args) == 0
    assert bench.main(["a clock"]) == 2
    monkeypatch.setattr(bench.Design, "verdict", lambda self, number: ("found", 0.1))
    with pytest.raises(InputError, match="testbench of a counter must pass without a mutant"):
        bench.mutate_verilog([], tmp_path / "n.json", mutants=1)


def test_every_circuit_of_the_table_has_a_testbench(tmp_path):
    circuits = bench._circuits()
    assert len(circuits) == 14
    write, options, spared = circuits["a core"]
    write(tmp_path, **options)
    design = bench.Design(tmp_path, spared)
    assert design.top == "dut"
    assert len(design.mutants(0)) == 400
