"""The cocotb testbench on Icarus Verilog, against a small module and mutants of it."""

import pytest
from verilog_stage import TABLE, stage_design

from pvq_hw.engine.patterns import Pattern
from pvq_hw.errors import ToolError
from sim.agents.streams import StreamError
from sim.backends import icarus

ITEMS = [(i * 91 + 3) % 256 for i in range(120)]
ONCE = [TABLE[i] for i in ITEMS]
TWICE = [TABLE[i] for i in ONCE]


def run(folder, mutant="", **options):
    return icarus.run_icarus(
        stage_design(folder, mutant), ITEMS, len(ITEMS), quiet=60, timeout=600, **options
    )


def test_every_stream_is_recorded(tmp_path):
    i, o, first, second = run(tmp_path)
    assert (i.payloads, first.payloads, second.payloads) == (ITEMS, ONCE, TWICE)
    assert o.payloads == TWICE
    assert i.cycles.tolist() == list(range(120))
    assert o.cycles.tolist() == list(range(2, 122))


def test_stalls_and_resets_in_mid_frame(tmp_path):
    stall, idle = Pattern.parse("random:0.5"), Pattern.parse("bursts:6")
    options = {"stall": stall, "idle": idle, "seed": 4, "resets": [1, 50, 51, 99]}
    i, o, first, second = run(tmp_path, **options)
    assert (i.payloads[:120], first.payloads[:120], second.payloads) == (ITEMS, ONCE, TWICE)
    assert int(o.cycles[0]) > 99


@pytest.mark.parametrize(
    ("mutant", "message"),
    [
        ("valid falls", "valid must hold until ready, but fell"),
        ("payload moves", "payload must hold until ready, but went from"),
        ("unknown valid", "valid and ready must be 0 or 1, not unknown"),
        ("unknown payload", "payload must be known while valid"),
        ("sleeps", "No stream moved for 60 cycles; transfers so far: i 0, o 0, first 0"),
        ("valid waits", "No stream moved for 60 cycles; transfers so far: i 2, o 0"),
    ],
)
def test_checker_catches_mutants(tmp_path, mutant, message):
    with pytest.raises(StreamError, match=message):
        run(tmp_path, mutant, stall=Pattern.parse("random:0.7"), after_valid=mutant[-1] == "s")


def test_missing_tools_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolError, match="iverilog is missing: apt-get install iverilog"):
        run(tmp_path)
    monkeypatch.setattr(icarus.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolError, match=r"^cocotb is missing: pip install 'pvq-hw\[sim\]'$"):
        run(tmp_path)


def test_verilog_that_does_not_compile_is_a_tool_error(tmp_path):
    design = stage_design(tmp_path)
    design.sources[0].write_text("module top(; endmodule\n")
    with pytest.raises(ToolError, match="Icarus Verilog with cocotb failed"):
        icarus.run_icarus(design, ITEMS, 1)
