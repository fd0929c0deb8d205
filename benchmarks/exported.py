"""Exported cores beside the same cores as `build` makes them: clock and size after place and route.

Run as ``python -m benchmarks.exported --models FOLDER --page docs/benchmarks-exported.md``. Each
core stands between the same shift registers, with nextpnr's same seeds: as `pvq-hw build` and
``export --flow board`` have it; as the Verilog of the device's own blocks, as ``export --flow
device`` writes them, read by the plain Yosys script of a user; and as the portable Verilog that
`pvq-hw layer` writes, read by that. What the results hold already is
not measured again, so the run may be stopped at any time.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.back import rtlil
from amaranth.hdl import ClockSignal, Elaboratable, Instance, Module, ResetSignal
from amaranth.lib import wiring

from benchmarks.engine import versions
from benchmarks.engine_convolutions import CASES, make_conv, network_of, unit_of
from benchmarks.engine_place import DEVICES, Device, harness, place, place_design
from gateware.accelerator.circuits import core_component
from gateware.device.rtlil_text import plain_names
from gateware.export.export import ROM_FILE, export_verilog
from gateware.export.verilog_text import ROM_VERILOG
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.hexfile import hex_text
from pvq_hw.engine.kinds import make_layer_core
from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Conv as ConvNode
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.plan.core_layers import core_layers
from pvq_hw.quantizer.banks import Placement, balance

__all__ = ["ROWS", "Core", "main", "measure", "page"]

_HERE = Path(__file__).parent
RESULTS = _HERE / "results" / "exported.json"
_U8, _S16 = IntFormat(8, False), IntFormat(16, True)


@dataclass(frozen=True)
class Core:
    """A core, what its memories hold, and its line buffer where it has one."""

    spec: CoreBase
    image: CoreImage
    window: WindowSpec | None = None

    def circuit(self, body: str) -> Any:
        """Not yet elaborated."""
        return core_component(self.spec, self.image, body=body, window=self.window)


class _Exported(wiring.Component):
    """A core that another file describes, by the names that its ports have there."""

    def __init__(self, signature: wiring.Signature) -> None:
        super().__init__(signature)

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.core = Instance(
            "exported",
            i_clk=ClockSignal(),
            i_rst=ResetSignal(),
            i_i__payload=self.i.payload.as_value(),
            i_i__valid=self.i.valid,
            o_i__ready=self.i.ready,
            o_o__payload=self.o.payload.as_value(),
            o_o__valid=self.o.valid,
            i_o__ready=self.o.ready,
        )
        return m


def _dense(rows: int, columns: int, ratio: float | None, lanes: int, family: str) -> Core:
    """A layer of Laplacian weights, at N/K = ``ratio`` or with 8-bit ones."""
    rng = np.random.default_rng(0)
    w = rng.laplace(size=(rows, columns))
    if ratio is None:
        y = np.rint(w / np.abs(w).max() * 127).astype(np.int64)
    else:
        k = round(columns / ratio / lanes) * lanes
        y = np.asarray(balance(w, np.full(rows, k), Placement(lanes)), dtype=np.int64)
    layer = Dense(
        name="layer",
        input="x",
        output=TensorSpec("y", (rows,), _S16, 1.0),
        y=y,
        mult=rng.integers(2000, 4000, (rows, 1)),
        bias=rng.integers(-30000, 30000, rows),
        shift=12,
        gain=np.ones((rows, 1)),
        encoding="int8" if ratio is None else "pvq",
    )
    x = TensorSpec("x", (columns,), _U8, 1.0)
    return Core(*make_layer_core(layer, x, lanes, family=family, name="layer"))


def _convolution(ratio: float, family: str, models: Path) -> Core:
    case = CASES[0]
    nodes = [n for n in load_model(models / f"{case.model}.onnx").nodes if isinstance(n, ConvNode)]
    network = network_of(make_conv(nodes[case.index], ratio, case.lanes))
    unit, image = unit_of(core_layers(network)[0], case.lanes, family)
    return Core(unit.core, image, unit.window)


Maker = Callable[[str, Path], Core]
KINDS: Mapping[str, Maker] = {
    "512 x 512, N/K 5, 16 lanes": lambda family, _: _dense(512, 512, 5, 16, family),
    "128 x 256, N/K 5, 8 lanes": lambda family, _: _dense(128, 256, 5, 8, family),
    "64 x 128, 8-bit weights, 4 lanes": lambda family, _: _dense(64, 128, None, 4, family),
    f"{CASES[0].name}, N/K 2, 8 lanes": lambda family, models: _convolution(2, family, models),
}
FORMS = ("build", "device", "exported")
ROWS = (
    *((kind, "LFE5U-25F") for kind in KINDS),
    *((kind, "UP5K") for kind in tuple(KINDS)[1:]),
)
"""(kind of core, device)."""


def _place_exported(
    core: Core, body: str, device: Device, seeds: Sequence[int], work: Path
) -> dict[str, Any]:
    """`benchmarks.engine_place.place` of the core's Verilog, read by Yosys's own script for the
    family, without what `build` does besides."""
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work, prefix="place-") as name:
        folder = Path(name)
        circuit = core.circuit(body)
        (folder / "exported.v").write_text(export_verilog(circuit, "exported"))
        (folder / ROM_FILE).write_text(ROM_VERILOG)
        for memory, words in core.spec.contents(core.image).items():
            bits = core.spec.memories[memory][0]
            (folder / f"{memory}.hex").write_text(hex_text(words, bits))
        top, ports = harness(_Exported(circuit.signature))
        text = rtlil.convert(top, ports=ports, name="top", emit_src=False)
        (folder / "top.il").write_text(plain_names(text))
        read = f"read_verilog exported.v {ROM_FILE}; read_rtlil top.il"
        return place_design(read, device, seeds, folder, plain=True)


def measure(
    kind: str, device: Device, seeds: Sequence[int], models: Path, missing: Sequence[str] = FORMS
) -> dict[str, Any]:
    """A core in all forms that are ``missing``."""
    core = KINDS[kind](device.family, models)
    work = _HERE / "cache" / "exported"
    forms = {
        "build": lambda: place(core.circuit(device.body), device, seeds, work),
        "device": lambda: _place_exported(core, device.body, device, seeds, work),
        "exported": lambda: _place_exported(core, "verilog", device, seeds, work),
    }
    return {form: forms[form]() for form in missing}


_ABOUT = """\
# Exported cores: the clock they reach

The same cores three times, between the same shift registers, placed and routed with nextpnr's
seeds 1 to {seeds}: *build*, as `pvq-hw build` and `pvq-hw export --flow board` make them; *device*,
in the device's own blocks as `export --flow device` writes them, and *portable*, the Verilog of
`pvq-hw layer` and the other flows, both by a user's own script: `{script}`, nothing else. Medians,
and of *build*'s in brackets. Made by

    python -m benchmarks.exported --models FOLDER --page docs/benchmarks-exported.md

| core | on | build, MHz | device, MHz | portable, MHz | LUTs, build | device | portable |
|---|---|---:|---:|---:|---:|---:|---:|
"""


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page, in Markdown."""
    lines, most = [], 1
    for kind, name in ROWS:
        found = results.get(f"{kind}, {name}", {})
        if set(FORMS) - set(found):
            continue
        made = [found[form] for form in FORMS]
        clocks = [statistics.median(r["fmax_mhz"] for r in form["runs"]) for form in made]
        most = max(most, len(made[0]["runs"]))
        others = " | ".join(f"{c:.1f} ({100 * c / clocks[0]:.0f} %)" for c in clocks[1:])
        luts = " | ".join(f"{form['luts']:,}" for form in made)
        lines.append(f"| {kind} | {name} | {clocks[0]:.1f} | {others} | {luts} |")
    script = "synth_ecp5`, `synth_ice40 -dsp -device u"
    return _ABOUT.format(seeds=most, script=script) + "\n".join(lines) + "\n"


def main(words: Sequence[str] | None = None) -> None:
    """Measures what the results lack and writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--models", type=Path, required=True, help="folder of the ONNX files")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, help="results, JSON")
    parser.add_argument("--only", default="", help="only rows whose key has this in it")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--page", type=Path, help="page to write")
    args = parser.parse_args(words)
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    for kind, name in ROWS:
        key = f"{kind}, {name}"
        known = results.get(key, {})
        missing = [form for form in FORMS if form not in known]
        if args.only in key and missing:
            print(f"{key} ...", flush=True)
            found = measure(kind, DEVICES[name], args.seeds, args.models, missing)
            results[key] = known | found | {"versions": versions()}
            args.output.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    if args.page:
        args.page.write_text(page(results))


if __name__ == "__main__":
    main()
