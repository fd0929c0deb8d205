"""Convolutions on our engine and on the int8 engine, behind the same line buffer, in one run.

Run as ``python -m benchmarks.engine_convolutions --models FOLDER``. Layers of real networks, their
8-bit inputs random: cycles are simulated and the outputs compared with the golden model; then the
whole layer, line buffer included, is placed and routed. Pulses lie where the plain quantizer puts
them with as many in every bank. GMAC/s counts the multiplications that the convolution would take.
"""

import argparse
import hashlib
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth.back import rtlil

from benchmarks.engine_place import DEVICES, Device, place
from gateware.accelerator.circuits import core_component
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.kinds import make_layer_core
from pvq_hw.engine.line_buffer import make_window
from pvq_hw.engine.timing import time_graph
from pvq_hw.engine.units import CoreUnit
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Conv as ConvNode
from pvq_hw.network.layer import TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.network.window import Conv
from pvq_hw.plan.core_layers import CoreLayer, core_layers
from pvq_hw.quantizer.banks import Placement, balance
from pvq_hw.quantizer.requantization import int8_codes, requantization
from pvq_hw.target.families import family
from pvq_hw.tools import find as tools
from sim.run import simulate

__all__ = ["CASES", "Case", "make_conv", "measure", "put_section", "section"]

_HERE = Path(__file__).parent
_FRAMES = 3
_LOGIC_WORDS = 32  # of a bank that is distributed RAM
_HEADING = "## Convolutions"
_ABOUT = """\
Layers of two convolutional networks as `make bench-engine` measures them: the same core behind a
line buffer, pulses and 8-bit weights on as many lanes, in one run. The whole layer is placed and
routed, its cycles are simulated at full rate and its outputs equalled the golden model's."""
_COLUMNS = (
    "device", "layer", "engine", "N/K", "LUT", "FF", "BRAM", "DSP", "Fmax MHz", "cycles a frame",
    "GMAC/s", "MMAC/s per LUT", "to int8",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A convolution of a model file.

    Parameters
    ----------
    name : str
    model : str
        Stem of the file.
    index : int
        Of the convolution among the model's.
    lanes : int
    """

    name: str
    model: str
    index: int
    lanes: int


CASES = (
    Case("8 to 16 channels, 3 x 3, 14 x 14", "mnist_tinycnn_8_16_bn", 1, 8),
    Case("64 to 64 channels, 3 x 3, 8 x 8", "pretrainedResnet", 7, 16),
)
RATIOS: tuple[float | None, ...] = (None, 2.0, 5.0)


def make_conv(node: ConvNode, ratio: float | None, lanes: int) -> Conv:
    """The integer layer: pulses at N/K = ``ratio``, or 8-bit weights."""
    w = node.matrix
    rows, n = w.shape
    x, out = IntFormat(8, False), IntFormat(8, False)
    if ratio is None:
        y, gain = int8_codes(w)
    else:
        k = np.full(rows, max(1, round(n / ratio / lanes)) * lanes, dtype=np.int64)
        y = np.asarray(balance(w, k, Placement(lanes)), dtype=np.int64)
        gain = np.maximum((w * y).sum(axis=1), 0)[:, None] / np.square(y).sum(axis=1)[:, None]
    pulses = np.abs(y).sum(axis=1, keepdims=True)
    scale = float(np.abs(w).sum(axis=1).max()) / 4
    numbers = requantization(gain, node.bias, pulses, x, 1 / 255, out, scale / 255)
    return Conv(
        name="conv",
        input="x",
        output=TensorSpec("y", (*node.geometry.output_size, rows), out, scale / 255),
        geometry=node.geometry,
        groups=1,
        y=y,
        mult=numbers.mult,
        bias=numbers.bias,
        shift=numbers.shift,
        gain=gain,
        encoding="int8" if ratio is None else "pvq",
    )


def network_of(conv: Conv) -> Network:
    shape = conv.geometry.input_shape
    x = TensorSpec("x", shape, IntFormat(8, False), 1 / 255)
    network = Network("convolution", x, (conv,), shape, (0, 1, 2))
    network.verify()
    return network


def unit_of(layer: CoreLayer, lanes: int, engine: str) -> tuple[CoreUnit, CoreImage]:
    """The core behind its line buffer, as the plan makes it."""
    options: dict[str, Any] = {}
    spec, image = make_layer_core(layer.dense, layer.x, lanes, family=engine, name="conv")
    if layer.dense.encoding != "int8":
        small = family(engine).lutram and spec.bank_words <= _LOGIC_WORDS
        options["bank_memory"] = "logic" if small else "block"
        spec, image = make_layer_core(
            layer.dense, layer.x, lanes, family=engine, name="conv", **options
        )
    assert layer.geometry is not None
    window = make_window(layer.geometry, spec.x, lanes, latency=family(engine).bank_latency)
    return CoreUnit("conv", ("i",), ("o",), spec, window), image


def cycles_of(network: Network, unit: CoreUnit, image: CoreImage) -> dict[str, Any]:
    graph = GraphSpec((unit,))
    spec: CoreBase = unit.core
    x = np.random.default_rng(1).integers(0, 256, (_FRAMES, *network.input.shape))
    result = simulate(graph, [image], x, names=["conv"])
    expected: npt.NDArray[np.int64] = network.trace(x)["conv"].reshape(_FRAMES, -1)
    timing = time_graph(graph, {spec.name: image})
    return {
        "interval_cycles": result.interval_cycles,
        "timing_cycles": timing.interval_cycles,
        "outputs_compared": int(expected.size),
        "mismatches": int((result.outputs["conv"] != expected).sum()),
    }


def _built(
    case: Case, ratio: float | None, device: Device, models: Path
) -> tuple[Network, CoreUnit, CoreImage]:
    """The layer alone as a network, its core behind a line buffer, and what that holds."""
    nodes = [n for n in load_model(models / f"{case.model}.onnx").nodes if isinstance(n, ConvNode)]
    network = network_of(make_conv(nodes[case.index], ratio, case.lanes))
    return network, *unit_of(core_layers(network)[0], case.lanes, device.family)


def _digest(unit: CoreUnit, image: CoreImage, device: Device) -> str:
    """Of the circuit as it is synthesized: new where gateware or codes are."""
    circuit = core_component(unit.core, image, body=device.body, window=unit.window)
    text = rtlil.convert(circuit, name="core", emit_src=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def measure(
    case: Case, ratio: float | None, device: Device, models: Path, seeds: tuple[int, ...]
) -> dict[str, Any]:
    """One row of the table."""
    network, unit, image = _built(case, ratio, device, models)
    (conv,) = network.layers
    assert isinstance(conv, Conv)
    result = cycles_of(network, unit, image)
    if result["mismatches"] or result["interval_cycles"] != result["timing_cycles"]:
        raise SystemExit(f"{case.name}: simulation and model must agree: {result}")
    circuit = core_component(unit.core, image, body=device.body, window=unit.window)
    placed = place(circuit, device, seeds, _HERE / "cache" / "engine")
    fmax = statistics.median(run["fmax_mhz"] for run in placed["runs"])
    macs = conv.y.size * int(np.prod(conv.geometry.output_size))
    return result | placed | {
        "device": device.name,
        "layer": case.name,
        "lanes": case.lanes,
        "n_over_k_asked": ratio,
        "n_over_k": None if ratio is None else conv.y.size / int(np.abs(conv.y).sum()),
        "multiplications": macs,
        "fmax_mhz": fmax,
        "gmacs": macs / result["interval_cycles"] * fmax / 1000,
    }  # fmt: skip


def run(
    models: Path, output: Path, devices: tuple[str, ...], seeds: tuple[int, ...]
) -> dict[str, Any]:
    """Measures every case that ``output`` lacks, or has of another circuit; gives all of it."""
    document: dict[str, Any] = json.loads(output.read_text()) if output.exists() else {"points": {}}
    document |= {"seeds": list(seeds), "versions": _versions()}
    for name in devices:
        for case in CASES:
            for ratio in RATIOS:
                key = f"{name}, {case.name}, {ratio or 'int8'}"
                known = document["points"].get(key, {})
                _, unit, image = _built(case, ratio, DEVICES[name], models)
                digest = _digest(unit, image, DEVICES[name])
                stamp = {"seeds": list(seeds), "circuit": digest, "versions": _versions()}
                if all(known.get(k) == v for k, v in stamp.items()):
                    continue
                print(key, flush=True)
                point = measure(case, ratio, DEVICES[name], models, seeds)
                document["points"][key] = point | stamp
                text = json.dumps(document, indent=1, sort_keys=True)
                output.write_text(text + "\n", encoding="utf-8", newline="\n")
                print(f"  {point['fmax_mhz']:.1f} MHz, {point['gmacs']:.2f} GMAC/s", flush=True)
    return document


def _versions() -> dict[str, str]:
    return {n: tools.find_tool(n).version for n in ("yosys", "nextpnr-ecp5", "nextpnr-ice40")}


# -- the page -----------------------------------------------------------------------------------


def section(document: dict[str, Any]) -> list[str]:
    """The lines of the page's section."""
    points = list(document["points"].values())
    seeds = ", ".join(map(str, document["seeds"]))
    table = [_COLUMNS, ("---",) * len(_COLUMNS), *(_row(points, p) for p in points)]
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return [_HEADING, "", _ABOUT, "", f"Seeds: {seeds}.", "", *lines]


def _row(points: list[dict[str, Any]], p: dict[str, Any]) -> tuple[str, ...]:
    ours = p["n_over_k_asked"] is not None
    base = next(
        q
        for q in points
        if q["n_over_k_asked"] is None and all(q[k] == p[k] for k in ("device", "layer"))
    )
    return (
        p["device"],
        p["layer"],
        f"{'pulses' if ours else 'int8'}, P={p['lanes']}",
        f"{p['n_over_k']:.2f}" if ours else "",
        *(f"{p[key]:,}" for key in ("luts", "ffs", "brams", "dsps")),
        f"{p['fmax_mhz']:.1f}",
        f"{p['interval_cycles']:,}",
        f"{p['gmacs']:.2f}",
        f"{1000 * p['gmacs'] / p['luts']:.1f}",
        f"{p['gmacs'] / base['gmacs']:.2f}" if ours else "",
    )


def put_section(page: Path, results: Path = _HERE / "results" / "engine-convolutions.json") -> None:
    """Puts the section into the page, in the place of an earlier one or before the slowest paths;
    nothing without results."""
    if not results.exists():
        return
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    parts = text.split("\n## ")
    kept = [part for part in parts if not part.startswith(_HEADING[3:])]
    at = next((n for n, part in enumerate(kept) if part.startswith("Slowest paths")), len(kept))
    new = "\n".join(section(json.loads(results.read_text())))[3:] + "\n"
    kept.insert(at, new)
    page.write_text("\n## ".join(kept).rstrip("\n") + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    """Measures and writes the page's section."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", type=Path, required=True, help="folder of the ONNX files")
    parser.add_argument("--device", choices=sorted(DEVICES), action="append")
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--page", type=Path, default=_HERE.parent / "docs" / "benchmarks.md")
    parser.add_argument("--report", action="store_true", help="write the page, measure nothing")
    args = parser.parse_args()
    output = _HERE / "results" / "engine-convolutions.json"
    if not args.report:
        run(args.models, output, tuple(args.device or ["LFE5U-25F"]), tuple(args.seed or (1, 2, 3)))
    put_section(args.page, output)


if __name__ == "__main__":
    main()
