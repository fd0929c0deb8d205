"""Our engine beside an int8 engine: cycles, Fmax, resources and code bits, measured in one run.

Run as ``python -m benchmarks.engine --model NETA.onnx --mnist FOLDER [--quick] [-o RESULTS.json]``.
Cycles are simulated on network A's complete layers fc1 (784 x 512) and fc2 (512 x 512) and the
outputs compared with the golden model. Placed and routed is the same engine with a tile of rows,
equal for both engines: the largest for which both, at every N/K, find block RAM in the device.
GMAC/s counts the multiplications that the dense layer would take.

Every finished point is written at once and not measured again while versions and engine stay the
same, so the run may be stopped at any time. ``--quick`` measures fc2 alone with the plain
quantizer, which takes about 20 minutes on two free cores; pulses lie where the calibrated
quantizer would let them lie, so cycles, codes and circuits are as many.
"""

import argparse
import hashlib
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import engine_convolutions as convolutions
from benchmarks.engine_page import write_page
from benchmarks.engine_place import DEVICES, Device, place
from benchmarks.engine_points import (
    LAYERS,
    RATIOS,
    Engine,
    Sources,
    largest_tile,
    measure_codes,
    simulate,
)
from pvq_hw.tools import find as tools

LANES = {"LFE5U-25F": 16, "UP5K": 8, "HX8K": 16}
INT8_LANES = 16
SEEDS = (1, 2, 3)
_HERE = Path(__file__).parent


def versions() -> dict[str, str]:
    """Of everything that decides a figure."""
    named = {name: tools.find_tool(name).version for name in ("yosys", "nextpnr-ecp5")}
    named["nextpnr-ice40"] = tools.find_tool("nextpnr-ice40").version
    return named | {"amaranth": metadata.version("amaranth")}


def _engines(device: Device, layer: str, ratios: Sequence[int]) -> list[Engine]:
    family = device.family
    ours = [Engine(layer, ratio, LANES[device.name], family) for ratio in ratios]
    return [Engine(layer, None, INT8_LANES, family), *ours]


def points(
    devices: Sequence[str], layers: Sequence[str], ratios: Sequence[int]
) -> Iterator[tuple[Device, Engine, list[Engine]]]:
    """What to measure, N/K = 5 on every device first; with the engines that share its tile."""
    for part in (ratios[:1], ratios[1:]):
        for layer in reversed(layers):
            for name in devices:
                device = DEVICES[name]
                together = _engines(device, layer, RATIOS)
                for engine in together:
                    if engine.ratio in part or (engine.ratio is None and part == ratios[:1]):
                        yield device, engine, together


def same_engine(engine: Engine, sources: Sources, rows: int) -> str:
    """A digest of the circuit as it is synthesized: new where gateware or codes are."""
    from amaranth.back import rtlil

    body = {"ecp5": "ecp5"}.get(engine.family, "ice40")
    text = rtlil.convert(engine.circuit(sources, body, rows), name="core", emit_src=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def measure(
    device: Device, engine: Engine, rows: int, sources: Sources, seeds: Sequence[int]
) -> dict[str, Any]:
    """One point of the benchmark."""
    with tempfile.TemporaryDirectory(prefix="pvq-hw-") as folder:
        result = measure_codes(engine, sources) | simulate(engine, sources, Path(folder))
    if result["mismatches"] or result["interval_cycles"] != result["timing_cycles"]:
        raise SystemExit(f"{engine.name}: simulation and model must agree: {result}")
    if engine.ratio is not None:
        slots = result["lanes"] * result["interval_cycles"]
        result["slots_used"] = result["codes"] / slots
    placed = place(engine.circuit(sources, device.body, rows), device, seeds, sources.work)
    fmax = statistics.median(run["fmax_mhz"] for run in placed["runs"])
    gmacs = result["weights"] / result["interval_cycles"] * fmax / 1000
    return result | placed | {"fmax_mhz": fmax, "gmacs": gmacs, "tile_rows": rows}


def run(
    sources: Sources,
    output: Path,
    devices: Sequence[str],
    layers: Sequence[str],
    ratios: Sequence[int],
    seeds: Sequence[int] = SEEDS,
) -> dict[str, Any]:
    """Measures what is missing in ``output``; gives all of it."""
    document: dict[str, Any] = {"points": {}}
    if output.exists():
        document = json.loads(output.read_text())
    document |= {"quantizer": sources.quantizer, "seeds": list(seeds), "versions": versions()}
    tiles: dict[tuple[str, str], int] = {}
    for device, engine, together in points(devices, layers, ratios):
        key = (device.name, engine.layer)
        if key not in tiles:
            tiles[key] = largest_tile(together, sources, device.body, device.brams)
        rows = tiles[key]
        digest = same_engine(engine, sources, rows)
        name = f"{device.name} {engine.name}"
        known = document["points"].get(name, {})
        stamp = {"circuit": digest, "seeds": list(seeds), "versions": document["versions"]}
        if all(known.get(k) == v for k, v in stamp.items()):
            continue
        print(f"{name}, tile of {rows} rows", flush=True)
        point = measure(device, engine, rows, sources, seeds)
        place_of = {"device": device.name, "layer": engine.layer, "n_over_k_asked": engine.ratio}
        document["points"][name] = place_of | point | stamp
        text = json.dumps(document, indent=1, sort_keys=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n", encoding="utf-8", newline="\n")
        print(f"  {point['fmax_mhz']:.1f} MHz, {point['gmacs']:.2f} GMAC/s, {point['luts']} LUT")
    return document


def main() -> None:
    """Measures and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="network A as ONNX")
    parser.add_argument("--mnist", type=Path, required=True, help="folder of MNIST's idx files")
    parser.add_argument("--quick", action="store_true", help="fc2 alone, plain quantizer")
    parser.add_argument("--device", choices=sorted(DEVICES), action="append")
    parser.add_argument("--ratio", type=int, choices=sorted(RATIOS), action="append")
    parser.add_argument("-o", type=Path, default=None)
    parser.add_argument("--page", type=Path, default=_HERE.parent / "docs" / "benchmarks.md")
    parser.add_argument("--report", action="store_true", help="write the page, measure nothing")
    args = parser.parse_args()
    name = "engine-quick.json" if args.quick else "engine.json"
    output = args.o or _HERE / "results" / name
    work = _HERE / "cache" / "engine"
    quantizer = "plain" if args.quick else "calibrated"
    sources = Sources(args.model, args.mnist, quantizer, work)
    if not args.report:
        layers = LAYERS[1:] if args.quick else LAYERS
        run(sources, output, args.device or list(DEVICES), layers, args.ratio or RATIOS)
    write_page(json.loads(output.read_text()), args.page)
    results, models = _HERE / "results" / "engine-convolutions.json", args.model.parent
    if not args.report and all((models / f"{c.model}.onnx").exists() for c in convolutions.CASES):
        convolutions.run(models, results, ("LFE5U-25F",), SEEDS[:1] if args.quick else SEEDS)
    convolutions.put_section(args.page, results)


if __name__ == "__main__":
    main()
