"""Adder graphs of the same matrices by three ways: ``python -m benchmarks.unrolled``.

Random Laplacian matrices at their nearest codewords become adders, a register behind each level, a
frame a clock: by this project (`pvq_hw.engine.adder_graph`), by da4ml, and as a plain tree for
every row. Each circuit's Verilog is simulated against NumPy with Icarus Verilog and synthesized by
Yosys for the ECP5; LUTs are LUT4 cells and two for each CCU2C, whatever nextpnr packs around them.
da4ml's Verilog is synthesized as it is, and with every ``$add`` and ``$sub`` made ``$alu`` first,
which keeps Yosys from merging them; the smaller counts. The JSON has all figures, versions, seeds.
"""

import argparse
import json
import platform
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.engine_place import DEVICES, place_design
from gateware.arith.adder_graph import AdderNetwork
from gateware.export.export import export_verilog
from pvq_hw.arith.formats import IntFormat, bits_for
from pvq_hw.engine.adder_graph import AdderGraph, make_adder_graph
from pvq_hw.pyramid.nearest import nearest, pulses_for
from pvq_hw.quantizer.sharing import share_sums
from pvq_hw.tools import find as tools

__all__ = ["CASES", "Case", "main", "measure"]

IntArray = npt.NDArray[np.int64]

_HERE = Path(__file__).parent
_X = IntFormat(8, False)
_FRAMES = 40
_SEEDS = (1, 2, 3)  # of place and route
_WAYS = ("pvq-hw", "chosen", "da4ml", "trees")
_LOSS = 0.005  # of the mean cosine to the weights, for codes chosen for sharing
_SHARING = 50_000_000  # see `pvq_hw.quantizer.sharing.share_sums`
_ALU = """\
(* techmap_celltype = "$add $sub" *)
module as_alu (A, B, Y);
  parameter A_SIGNED = 0; parameter B_SIGNED = 0;
  parameter A_WIDTH = 1; parameter B_WIDTH = 1; parameter Y_WIDTH = 1;
  parameter _TECHMAP_CELLTYPE_ = "";
  localparam SUB = _TECHMAP_CELLTYPE_ == "$sub";
  input [A_WIDTH-1:0] A; input [B_WIDTH-1:0] B; output [Y_WIDTH-1:0] Y;
  wire [Y_WIDTH-1:0] x, carry;
  \\$alu #(.A_SIGNED(A_SIGNED), .B_SIGNED(B_SIGNED), .A_WIDTH(A_WIDTH), .B_WIDTH(B_WIDTH),
    .Y_WIDTH(Y_WIDTH)) _TECHMAP_REPLACE_ (.A(A), .B(B), .Y(Y), .CI(SUB), .BI(SUB),
    .X(x), .CO(carry));
endmodule
"""
_AS_ALU = "proc; flatten; opt; techmap -map alu.v; opt"
_HARNESS = """\
module top (input clk, input d, input take, output reg q);
  reg [{x}:0] x; reg [{y}:0] shift; wire [{y}:0] y;
  {top} dut ({ports});
  always @(posedge clk) begin
    x <= {{x, d}};
    shift <= take ? y : shift >> 1;
    q <= shift[0];
  end
endmodule
"""
_BENCH = """\
module tb;
  reg clk = 0; reg [{x}:0] x; wire [{y}:0] y; reg [{x}:0] frames [0:{last}]; integer k;
  {top} dut ({ports});
  initial begin
    $readmemh("x.hex", frames);
    for (k = 0; k <= {last}; k = k + 1) begin
      x = frames[k]; #1; $display("%h", y); clk = 1; #1; clk = 0;
    end
  end
endmodule
"""


@dataclass(frozen=True)
class Case:
    """A layer's matrix: rows x columns of 8-bit activations at N/K."""

    work: str
    rows: int
    n: int
    ratio: float

    def weights(self, seed: int) -> npt.NDArray[np.float64]:
        """Random ones."""
        return np.random.default_rng(seed).laplace(size=(self.rows, self.n))

    def matrix(self, seed: int) -> IntArray:
        """Their codewords."""
        pulses = pulses_for(self.n, self.ratio)
        return np.asarray(nearest(self.weights(seed), pulses), dtype=np.int64)


_JET = ((64, 16), (32, 64), (32, 32), (5, 32))
CASES = (
    *(Case("LHC jet 16-64-32-32-5", m, n, r) for r in (1, 2, 5) for m, n in _JET),
    Case("32 x 32", 32, 32, 2),
)


@dataclass(frozen=True)
class Circuit:
    """Verilog of a matrix.

    Parameters
    ----------
    sources : dict of text by file name
    top : str
    ports : str
        Of an instance with the wires ``clk``, ``x`` and ``y``.
    inputs : list of int
        Bits of each input, the first lowest; 0 of one that no row reads.
    fields : list of (bits, whether signed)
        Of the output, the first row lowest.
    signs : int array (rows,)
        -1 where it is the negative of the row's sum.
    latency : int
    figures : dict
        What the optimizer says of it.
    """

    sources: dict[str, str]
    top: str
    ports: str
    inputs: list[int]
    fields: list[tuple[int, bool]]
    signs: IntArray
    latency: int
    figures: dict[str, int]


def adders_of(y: IntArray, *, share: bool = True) -> tuple[AdderNetwork, AdderGraph]:
    """This project's adders, a register behind each, and their graph."""
    rows, n = y.shape
    graph = make_adder_graph(y, [(_X.min, _X.max)] * n, share=share)
    low, high = np.array([graph.row_span(row) for row in range(rows)]).T
    bits = bits_for(
        min(-1, int(low.min()), -int(high.max())), max(int(high.max()), -int(low.min()))
    )
    return AdderNetwork(graph, _X, bits, balanced=True), graph


def ours(y: IntArray, *, share: bool = True) -> Circuit:
    """This project's adders; ``share`` False: plain trees."""
    rows, n = y.shape
    network, graph = adders_of(y, share=share)
    bits, text = network.bits, export_verilog(network, "adders")
    signs = np.array([-1 if total.negative else 1 for total in graph.sums], dtype=np.int64)
    return Circuit(
        {"adders.v": text},
        "adders",
        ".clk(clk), .rst(1'b0), .frame(x), .sums(y)",
        [_X.bits] * n,
        [(bits, True)] * rows,
        signs,
        graph.depth,
        {"adders": len(graph.adders), "adder_bits": graph.adder_bits, "levels": graph.depth},
    )


def da4ml(y: IntArray) -> Circuit:
    """da4ml's, by its default optimizer."""
    from da4ml.cmvm import solve
    from da4ml.codegen.rtl import RTLModel
    from da4ml.trace import FixedVariable, HWConfig, comb_trace, to_pipeline
    from da4ml.types import minimal_kif

    span = (float(_X.min), float(_X.max), 1.0)
    kernel = np.ascontiguousarray(y.T.astype(np.float32))
    found = solve(kernel, qintervals=[span] * y.shape[1], adder_size=1, carry_size=-1)
    config = HWConfig(1, -1, 1)
    inputs = [FixedVariable(*span, hwconf=config) for _ in range(y.shape[1])]
    logic = comb_trace(inputs, list(found(np.array(inputs))))
    pipeline = to_pipeline(logic, 1, retiming=False, verbose=False)
    with tempfile.TemporaryDirectory() as name:
        RTLModel(pipeline, "model", name).write()
        sources = {f.name: f.read_text() for f in sorted(Path(name, "src").rglob("*.v"))}
    own = "".join(text for file, text in sources.items() if file.startswith("model"))
    sources = {
        file: text
        for file, text in sources.items()
        if file != "model_wrapper.v" and (file.startswith("model") or f"{Path(file).stem} " in own)
    }
    kifs = [minimal_kif(q) for q in pipeline.out_qint]
    adders = sum(op.opcode in (0, 1) for op in logic.ops)
    return Circuit(
        sources,
        "model",
        ".clk(clk), .model_inp(x), .model_out(y)",
        [sum(minimal_kif(q)) for q in pipeline.inp_qint],
        [(sum(kif), bool(kif[0])) for kif in kifs],
        np.ones(len(y), dtype=np.int64),
        len(pipeline.solutions) + 1,
        {"adders": adders, "adder_bits": int(logic.cost), "levels": len(pipeline.solutions)},
    )


def simulate(circuit: Circuit, y: IntArray, seed: int, folder: Path) -> None:
    """Raises AssertionError unless the Verilog gives ``x @ y.T``, a frame a clock."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (_FRAMES, y.shape[1]))
    x[:2] = np.where(y[0] > 0, [[255], [0]], [[0], [255]])
    pad = circuit.latency + 1
    words = [f"{_word(frame, circuit.inputs):x}" for frame in np.pad(x, ((0, pad), (0, 0)))]
    (folder / "x.hex").write_text("\n".join(words) + "\n")
    width = sum(bits for bits, _ in circuit.fields)
    bench = _BENCH.format(
        x=sum(circuit.inputs) - 1, y=width - 1, last=_FRAMES + pad - 1, top=circuit.top,
        ports=circuit.ports,
    )  # fmt: skip
    (folder / "tb.v").write_text(bench)
    names = ["tb.v", *(name for name in circuit.sources)]
    subprocess.run(["iverilog", "-g2012", "-s", "tb", "-o", "tb", *names], cwd=folder, check=True)
    done = subprocess.run(["vvp", "tb"], cwd=folder, check=True, capture_output=True, text=True)
    lines = [line for line in done.stdout.split() if re.fullmatch("[0-9a-f]+", line)]
    got = [_fields(int(line, 16), circuit.fields) for line in lines[-_FRAMES - 1 : -1]]
    if not np.array_equal(np.array(got) * circuit.signs, x @ y.T):
        raise AssertionError(f"{circuit.top} must give the matrix product")


def _word(frame: IntArray, widths: Sequence[int]) -> int:
    word = at = 0
    for value, bits in zip(frame.tolist(), widths, strict=True):
        word |= value % (1 << bits) << at
        at += bits
    return word


def _fields(word: int, fields: Sequence[tuple[int, bool]]) -> list[int]:
    values = []
    for bits, signed in fields:
        value = word & ((1 << bits) - 1)
        word >>= bits
        values.append(value - (1 << bits) if signed and bits and value >> (bits - 1) else value)
    return values


def synthesize(circuit: Circuit, folder: Path, *, as_alu: bool = False) -> dict[str, int]:
    """LUTs and flip-flops after Yosys."""
    first = f"{_AS_ALU};" if as_alu else ""
    (folder / "alu.v").write_text(_ALU)
    script = (
        f"read_verilog -sv {' '.join(circuit.sources)}; hierarchy -top {circuit.top}; {first} "
        f"synth_ecp5 -top {circuit.top} -json out.json"
    )
    tools.run("yosys", ["-q", "-p", script], folder=folder)
    module = json.loads((folder / "out.json").read_text())["modules"][circuit.top]
    cells = Counter(cell["type"] for cell in module["cells"].values())
    return {"luts": cells["LUT4"] + 2 * cells["CCU2C"], "ffs": cells["TRELLIS_FF"]}


def _circuit(name: str, case: Case, seed: int) -> tuple[IntArray, Circuit]:
    """A matrix, and the circuit that a way makes of it."""
    y = case.matrix(seed)
    if name == "chosen":
        y = share_sums(case.weights(seed), y, _LOSS, work=_SHARING, seed=seed)
    return y, da4ml(y) if name == "da4ml" else ours(y, share=name != "trees")


def measure(case: Case, seed: int, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """All circuits of a matrix, simulated and synthesized, but those that are ``known``."""
    pulses = int(np.abs(case.matrix(seed)).sum())
    row: dict[str, Any] = {**vars(case), "seed": seed, "pulses": pulses, **(known or {})}
    for name in _WAYS:
        if name in row:
            continue
        meant, circuit = _circuit(name, case, seed)
        with tempfile.TemporaryDirectory(dir=".", prefix="unrolled-") as place:
            folder = Path(place)
            for file, text in circuit.sources.items():
                (folder / file).write_text(text)
            simulate(circuit, meant, seed, folder)
            counts = synthesize(circuit, folder)
            if name == "da4ml":
                other = synthesize(circuit, folder, as_alu=True)
                counts = min(counts, other, key=lambda c: c["luts"])
        row[name] = circuit.figures | counts
    return row


def placed(case: Case, name: str) -> dict[str, Any]:
    """A way's circuit of a matrix (seed 1) on an LFE5U-25F, between shift registers.

    da4ml's is taken as it is and with every adder mapped by itself; the faster median counts.
    """
    _, circuit = _circuit(name, case, 1)
    bits = sum(circuit.inputs), sum(width for width, _ in circuit.fields)
    files = circuit.sources | {
        "top.v": _HARNESS.format(
            x=bits[0] - 1, y=bits[1] - 1, top=circuit.top, ports=circuit.ports
        ),
        "alu.v": _ALU,
    }
    read = f"read_verilog -sv top.v {' '.join(circuit.sources)}; hierarchy -top top"
    with tempfile.TemporaryDirectory(dir=".", prefix="unrolled-") as place:
        folder = Path(place)
        for file, text in files.items():
            (folder / file).write_text(text)
        reads = [read, f"{read}; {_AS_ALU}"] if name == "da4ml" else [read]
        tried = [place_design(each, DEVICES["LFE5U-25F"], _SEEDS, folder) for each in reads]
    found = max(tried, key=lambda run: median(seed["fmax_mhz"] for seed in run["runs"]))
    size = {"rows": case.rows, "n": case.n, "ratio": case.ratio}
    return size | {"way": name, "output_bits": bits[1]} | found


def _known(path: Path, versions: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """A file's ``"rows"`` or what is ``"placed"``, where the same tools made it."""
    document = json.loads(path.read_text()) if path.exists() else {}
    return document.get(key, []) if document.get("versions") == versions else []


_PAGE = """\
# Unrolled layers: adders of the same matrices

`make bench-unrolled` makes adders of random Laplacian matrices at their nearest codewords (8-bit
unsigned activations, a register behind each adder, a frame a clock, without requantizer): by this
project, by da4ml {da4ml} and as plain trees, one for each row. The Verilog of all is simulated
against NumPy. LUTs are what Yosys ({yosys}) makes for the ECP5: LUT4 cells, and two for each CCU2C.
da4ml's Verilog is taken with every adder mapped by itself where that is smaller. Its outputs are
the sums; of this project's, some are negatives, which a layer inverts in LUTs that it has anyway,
and makes good in the row's bias. da4ml registers its inputs too. *Chosen*: codes of the same K that
share more sub-sums, their mean cosine to the weights at most 0.5 % below that of the nearest
codewords (`compile --share-sums` chooses so, by the sums of calibration inputs). Seeds: {seeds}.

{table}
{placed}
A network's figures are the sums over its layers. Those of every matrix are in
`benchmarks/results/unrolled.json`.
"""
_COLUMNS = (
    ("adders", "adders", ("pvq-hw", "chosen", "da4ml", "trees")),
    ("luts", "LUTs", ("pvq-hw", "chosen", "da4ml", "trees")),
    ("ffs", "flip-flops", ("pvq-hw", "chosen", "da4ml")),
)


def page_of(document: dict[str, Any]) -> str:
    """The page of a run: a row for each network, the mean over the seeds."""
    seeds = document["seeds"]
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in document["rows"]:
        groups.setdefault((row["work"], row["ratio"]), []).append(row)
    heads = ["work", "N/K", *(f"{word}, {n}" for _, word, names in _COLUMNS for n in names)]
    lines = [heads, ["---"] * len(heads)]
    for (work, ratio), rows in groups.items():
        cells = [
            f"{sum(row[name][key] for row in rows) / len(seeds):,.0f}"
            for key, _, names in _COLUMNS
            for name in names
        ]
        lines.append([work, f"{ratio:g}", *cells])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    placed = _placed_table(document.get("placed", ()))
    return _PAGE.format(
        table=table, placed=placed, seeds=", ".join(map(str, seeds)), **document["versions"]
    )


def _placed_table(rows: Sequence[dict[str, Any]]) -> str:
    """What each way's circuit takes between shift registers, and how fast it is."""
    if not rows:
        return ""
    first = rows[0]
    lines = [
        f"\n{first['rows']} x {first['n']} at N/K {first['ratio']:g} (seed 1), between shift "
        "registers, placed and routed on an\nLFE5U-25F of speed grade 6 with nextpnr's seeds 1 to "
        "3; *LUTs* without one for each output bit, which\nis the shift register's. All have the "
        "[shorter carry chains](decisions/carry-chains.md) that `build` makes;\nda4ml's is the "
        "faster of its two mappings.\n\n| circuit | LUTs | flip-flops | MHz |\n|---|---|---|---|\n"
    ]
    for row in rows:
        rates = ", ".join(f"{run['fmax_mhz']:.1f}" for run in row["runs"])
        luts = row["luts"] - row["output_bits"]
        lines.append(f"| {row['way']} | {luts:,} | {row['ffs']:,} | {rates} |\n")
    return "".join(lines)


def main() -> None:
    """Measures, prints, and writes the JSON and the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=1, help="seeds 1 to SEEDS")
    parser.add_argument("--quick", action="store_true", help="the smallest matrix alone")
    parser.add_argument("-o", type=Path, default=_HERE / "results" / "unrolled.json")
    parser.add_argument("--page", type=Path, help="a page to write")
    parser.add_argument(
        "--keep", action="store_true", help="what the JSON has of the same tools is not made again"
    )
    parser.add_argument("--place", action="store_true", help="place and route 32 x 32 too")
    args = parser.parse_args()
    seeds = list(range(1, args.seeds + 1))
    document: dict[str, Any] = {
        "versions": {
            "da4ml": metadata.version("da4ml"),
            "yosys": tools.find_tool("yosys").version,
            "python": platform.python_version(),
        },
        "seeds": seeds,
        "rows": [],
    }
    kept = {
        key: _known(args.o, document["versions"], key) if args.keep else []
        for key in ("rows", "placed")
    }
    known = kept["rows"]
    if kept["placed"]:
        document["placed"] = kept["placed"]
    elif args.place:
        document["placed"] = [placed(CASES[-1], name) for name in _WAYS]
    cases = [min(CASES, key=lambda c: c.rows * c.n / c.ratio)] if args.quick else CASES
    for case in cases:
        for seed in seeds:
            same = {**vars(case), "seed": seed}
            row = measure(case, seed, next((r for r in known if same.items() <= r.items()), None))
            document["rows"].append(row)
            counts = ", ".join(
                f"{name} {row[name]['adders']} adders {row[name]['luts']} LUT" for name in _WAYS
            )
            print(f"{case.work} {case.rows} x {case.n} N/K {case.ratio:g}: {counts}", flush=True)
    args.o.parent.mkdir(parents=True, exist_ok=True)
    args.o.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    if args.page:
        args.page.write_text(page_of(document), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
