"""A whole layer at V frames a bank word: fc2 of network A, 512 x 512, its codes on an LFE5U-25F.

Run as ``python -m benchmarks.frames --model NETA.onnx --calibrate TRAIN.npz --evaluate TEST.npz
[--frames V] [-o RESULTS.json]``. The layer is quantized at N/K = 5 with its pulses balanced over
the lanes, simulated whole with test images (outputs equal the golden model's, cycles the timing
model's), and placed and routed whole, all of its codes in block RAM, with each seed. GMAC/s are
dense-equivalent: weights x V / cycles x Fmax.

What is finished is written at once and not measured again while circuit and versions stay the same.
"""

import argparse
import hashlib
import json
import statistics
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine_place import DEVICES, place
from gateware.core.pulse_core import LayerCore
from pvq_hw.data.dataset import load_data
from pvq_hw.engine.dataflow import chain_graph
from pvq_hw.engine.pulse_core import CoreImage, CoreSpec, make_core
from pvq_hw.engine.timing import time_chain
from pvq_hw.model.load import load_model
from pvq_hw.network.layer import Dense
from pvq_hw.network.network import Network
from pvq_hw.pyramid.enumeration import log2_volume
from pvq_hw.quantizer.quantize import LayerOptions, quantize
from pvq_hw.tools import find as tools

__all__ = ["run", "write_page"]

RATIO, LANES, GAP_BITS, SEEDS = 5.0, (27, 32), 4, (1, 2, 3)
# 28 multipliers, one 8-bit product each a cycle at 223 MHz: 100 GMAC/s are 16 times that.
INT8_CEILING = 6.25
_HERE = Path(__file__).parent


def quantized(model: Path, calibration: Path, work: Path) -> Network:
    """Network A with fc1 and fc2 at N/K = 5, pulses balanced over their lanes; kept in ``work``."""
    kept = work / "network"
    if not kept.exists():
        loaded = load_model(model)
        names = [node.name for node in loaded.nodes if type(node).__name__ == "Dense"][:2]
        network = quantize(
            loaded,
            calibration=load_data(calibration, 255.0).x,
            input_scale=255.0,
            max_frames=2000,
            quantizer="calibrated",
            ratio=2.0,
            layers={name: LayerOptions(ratio=RATIO) for name in names},
            banks=dict(zip(names, LANES, strict=True)),
            max_gap=dict.fromkeys(names, (1 << GAP_BITS) - 2),
        )
        kept.mkdir(parents=True)
        network.save(kept)
    return Network.load(kept)


def core(network: Network, frames: int) -> tuple[CoreSpec, CoreImage]:
    """Fc2's core: its banks are distributed RAM, whose two halves meet in the leaves' LUTs."""
    layer = network.layers[1]
    assert isinstance(layer, Dense)
    return make_core(
        layer,
        network.tensors()[layer.input],
        LANES[1],
        gap_bits=GAP_BITS,
        frames=frames,
        bank_memory="logic",
        bank_latency=1,
        name="fc2",
    )


def simulated(network: Network, spec: CoreSpec, image: CoreImage, test: Path) -> dict[str, Any]:
    """Cycles and outputs of the whole layer, as a compiled model of its Verilog."""
    from sim.run import simulate

    data = load_data(test, 255.0)
    x = network.quantize_input(data.x[: 12 * spec.frames], 255.0)
    trace = network.trace(x)
    before, layer = network.layers[0].name, network.layers[1].name
    result = simulate(chain_graph([spec]), [image], trace[before], "compiled")
    return {
        "interval_cycles": result.interval_cycles,
        "timing_cycles": time_chain([spec], [image]).interval_cycles,
        "outputs_compared": int(trace[layer].size),
        "mismatches": int((result.outputs["fc2"] != trace[layer]).sum()),
    }


def codes(network: Network, spec: CoreSpec) -> dict[str, Any]:
    """Figures of the layer's codes, and the network's accuracy."""
    layer = network.layers[1]
    assert isinstance(layer, Dense)
    limit = sum(log2_volume(layer.y.shape[1], int(k)) for k in layer.k)
    pulses = int(np.abs(layer.y).sum())
    return {
        "lanes": spec.lanes,
        "frames": spec.frames,
        "words": spec.words,
        "n_over_k": layer.y.size / pulses,
        "slots_used": pulses / (spec.lanes * spec.words),
        "bits_per_weight": spec.weight_bits / layer.y.size,
        "bits_per_weight_limit": limit / layer.y.size,
    }


def accuracy(network: Network, test: Path) -> float:
    """Percent of the test images that the golden model gets right."""
    data = load_data(test, 255.0)
    scores = network.predict(network.quantize_input(data.x, 255.0))
    return float(100 * (scores.argmax(axis=1) == data.y).mean())


def stamp(spec: CoreSpec, image: CoreImage, seeds: Sequence[int]) -> dict[str, Any]:
    """What a measurement belongs to."""
    from amaranth.back import rtlil

    text = rtlil.convert(LayerCore(spec, image, body="ecp5"), name="core", emit_src=False)
    named = {name: tools.find_tool(name).version for name in ("yosys", "nextpnr-ecp5")}
    return {
        "circuit": hashlib.sha256(text.encode()).hexdigest()[:16],
        "seeds": list(seeds),
        "versions": named | {"amaranth": metadata.version("amaranth")},
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures what ``args.o`` does not have yet; gives all of it."""
    document: dict[str, Any] = json.loads(args.o.read_text()) if args.o.exists() else {"points": {}}
    work = _HERE / "cache" / "frames"
    network = quantized(args.model, args.calibrate, work)
    device = DEVICES["LFE5U-25F"]
    for frames in args.frames or [10]:
        spec, image = core(network, frames)
        key = f"LFE5U-25F fc2 P={spec.lanes} V={frames}"
        now = stamp(spec, image, args.seed or SEEDS)
        if all(document["points"].get(key, {}).get(k) == v for k, v in now.items()):
            continue
        point = codes(network, spec) | simulated(network, spec, image, args.evaluate)
        if point["mismatches"] or point["interval_cycles"] != point["timing_cycles"]:
            raise SystemExit(f"{key}: simulation and model must agree: {point}")
        placed = place(LayerCore(spec, image, body=device.body), device, now["seeds"], work)
        point |= placed | now
        point["accuracy"] = accuracy(network, args.evaluate)
        point["fmax_mhz"] = statistics.median(run["fmax_mhz"] for run in placed["runs"])
        macs = spec.n * spec.rows * frames / point["interval_cycles"]
        point |= {"macs_per_cycle": macs, "gmacs": macs * point["fmax_mhz"] / 1000}
        document["points"][key] = point
        args.o.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, indent=1, sort_keys=True)
        args.o.write_text(text + "\n", encoding="utf-8", newline="\n")
        print(f"{key}: {point['gmacs']:.1f} GMAC/s", flush=True)
    return document


def write_page(document: dict[str, Any], page: Path) -> None:
    """The table of ``docs/benchmarks-frames.md``, from the JSON document."""
    columns = (
        ("lanes P", lambda p: str(p["lanes"])),
        ("frames V", lambda p: str(p["frames"])),
        ("N/K", lambda p: f"{p['n_over_k']:.2f}"),
        ("LUT", lambda p: f"{p['luts']:,}"),
        ("FF", lambda p: f"{p['ffs']:,}"),
        ("BRAM", lambda p: str(p["brams"])),
        ("DSP", lambda p: str(p["dsps"])),
        ("Fmax MHz", lambda p: ", ".join(f"{r['fmax_mhz']:.1f}" for r in p["runs"])),
        ("cycles for V", lambda p: f"{p['interval_cycles']:,}"),
        ("MAC/cycle", lambda p: f"{p['macs_per_cycle']:.0f}"),
        ("GMAC/s (median)", lambda p: f"{p['gmacs']:.1f}"),
        ("to 28 int8 DSPs", lambda p: f"{p['gmacs'] / INT8_CEILING:.1f}"),
        ("bits/weight", lambda p: f"{p['bits_per_weight']:.3f}"),
        ("limit", lambda p: f"{p['bits_per_weight_limit']:.3f}"),
        ("slots used", lambda p: f"{100 * p['slots_used']:.1f} %"),
    )
    points = sorted(document["points"].values(), key=lambda p: (p["lanes"], p["frames"]))
    rows = [[show(point) for _, show in columns] for point in points]
    table = [[name for name, _ in columns], ["---"] * len(columns), *rows]
    lines = "\n".join("| " + " | ".join(row) + " |" for row in table)
    some = points[0]
    page.write_text(
        _PAGE.format(
            table=lines,
            seeds=", ".join(map(str, some["seeds"])),
            versions=", ".join(f"{k} {v}" for k, v in sorted(some["versions"].items())),
            accuracy=some["accuracy"],
        ),
        encoding="utf-8",
        newline="\n",
    )


_PAGE = """\
# Benchmarks: V frames a bank word

`python -m benchmarks.frames` measures one complete layer, fc2 (512 x 512) of a 784-512-512-10
network, at N/K = 5 on an LFE5U-25F (speed 6), all of its codes in block RAM. V frames lie side by
side in a bank word: one code, one decoder and one address serve V leaves. Banks are distributed
RAM. Cycles are simulated on the whole layer with test images, outputs equal the golden model's, and
the whole layer is placed and routed with each seed (its streams in shift registers, about 200 LUTs
and flip-flops, since the package has too few pins). GMAC/s are dense-equivalent: weights x V /
cycles x the seeds' median Fmax. 28 int8 DSPs are the chip's multipliers with one product a cycle
each at 223 MHz, 6.25 GMAC/s. Code bits are all stored bits of the codes.

Seeds: {seeds}. {versions}.
The quantized network classifies {accuracy:.2f} % of the MNIST test images right.

{table}

V activations must come each clock to keep the core busy: 512 transfers in and 512 out in the cycles
of a batch. Behind a stream of one activation a clock the frames' transfers are the limit (N cycles
a frame), which `pvq-hw compile --frames V` reaches with V times fewer lanes and code words.
"""


def main() -> None:
    """Measures and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=Path, help="network A as ONNX")
    parser.add_argument("--calibrate", type=Path, help="training images as NPZ, 0 to 255")
    parser.add_argument("--evaluate", type=Path, help="test images and labels as NPZ")
    parser.add_argument("--frames", type=int, action="append", help="V, default 10")
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("-o", type=Path, default=_HERE / "results" / "frames.json")
    parser.add_argument("--page", type=Path, default=_HERE.parent / "docs/benchmarks-frames.md")
    parser.add_argument("--report", action="store_true", help="write the page, measure nothing")
    args = parser.parse_args()
    if not args.report and not (args.model and args.calibrate and args.evaluate):
        parser.error("--model, --calibrate and --evaluate must be given")
    document = json.loads(args.o.read_text()) if args.report else run(args)
    write_page(document, args.page)


if __name__ == "__main__":
    main()
