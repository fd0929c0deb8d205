"""Place and route of one core alone, for the engine benchmark."""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Cat, Module, Signal

from gateware.board.carry_chains import shorten_file
from gateware.core.pulse_core import LayerCore
from gateware.device.rtlil_text import plain_names
from pvq_hw.errors import CheckError
from pvq_hw.target.devices import find_device
from pvq_hw.tools import find as tools

__all__ = ["DEVICES", "Device", "harness", "place", "place_design"]


@dataclass(frozen=True)
class Device:
    """A chip of the benchmark.

    Parameters
    ----------
    name : str
    family : str
        Key of `pvq_hw.target.families.FAMILIES`.
    body : str
        See `gateware.device.bodies.bodies`.
    synthesis : str
        Yosys's command.
    tool : str
    options : tuple of str
        Of nextpnr.
    goal_mhz : float
        What nextpnr is told to reach; above what it does.
    luts, brams, dsps : int
        What there is.
    cells : dict of str
        nextpnr's names of ``luts``, ``brams`` and ``dsps``.
    """

    name: str
    family: str
    body: str
    synthesis: str
    tool: str
    options: tuple[str, ...]
    goal_mhz: float
    luts: int
    brams: int
    dsps: int
    cells: dict[str, str]


_ICE = {"luts": "ICESTORM_LC", "brams": "ICESTORM_RAM", "dsps": "ICESTORM_DSP"}
_ECP = {"luts": "TRELLIS_COMB", "brams": "DP16KD", "dsps": "MULT18X18D"}


def _placed(name: str, package: str, speed: str = "") -> tuple[str, tuple[str, ...]]:
    tool, *options = find_device(name).nextpnr(package, speed)
    return tool, tuple(options)


def _parts(name: str) -> tuple[int, int, int]:
    device = find_device(name)
    return device.luts, device.brams, device.dsps


DEVICES = {
    device.name: device
    for device in (
        Device(
            "LFE5U-25F", "ecp5", "ecp5", "synth_ecp5", *_placed("LFE5U-25F", "BG381", "6"), 300,
            *_parts("LFE5U-25F"), _ECP,
        ),
        Device(
            "UP5K", "up5k", "ice40", "synth_ice40 -device u", *_placed("iCE40UP5K", "SG48"), 100,
            *_parts("iCE40UP5K"), _ICE,
        ),
        Device(
            "HX8K", "hx8k", "ice40", "synth_ice40 -device hx", *_placed("iCE40HX8K", "CT256"), 250,
            *_parts("iCE40HX8K"), _ICE,
        ),
    )
}  # fmt: skip


def harness(core: LayerCore) -> tuple[Module, list[Signal]]:
    """The core between shift registers: few pins, and no path from pin to register in the way."""
    m = Module()
    m.submodules.core = core
    i, o = core.i.payload.as_value(), core.o.payload.as_value()
    data_in, valid_in, ready_in, data_out = (Signal(name=n) for n in ("d", "v", "r", "q"))
    shift, result = Signal(len(i)), Signal(len(o))
    valid, ready, taken = Signal(), Signal(), Signal()
    m.d.sync += [
        shift.eq(Cat(data_in, shift)),
        valid.eq(valid_in),
        ready.eq(ready_in),
        taken.eq(core.i.ready),
        data_out.eq(result[0] ^ taken),
    ]
    with m.If(core.o.valid & ready):
        m.d.sync += result.eq(o)
    with m.Else():
        m.d.sync += result.eq(result >> 1)
    m.d.comb += [i.eq(shift), core.i.valid.eq(valid), core.o.ready.eq(ready)]
    return m, [data_in, valid_in, ready_in, data_out]


def _check(log: Path) -> None:
    for line in log.read_text(errors="replace").splitlines():
        if re.search(r"warning.*conflict", line, re.IGNORECASE):
            raise CheckError(f"Synthesis must give every net one driver: {line.strip()[:200]}")


def _flip_flops(netlist: Path) -> int:
    modules = json.loads(netlist.read_text())["modules"]
    kinds = Counter(cell["type"] for cell in modules["top"]["cells"].values())
    return sum(n for kind, n in kinds.items() if kind.startswith(("SB_DFF", "TRELLIS_FF")))


def place(core: LayerCore, device: Device, seeds: Sequence[int], work: Path) -> dict[str, Any]:
    """Synthesizes, places and routes a core with every seed.

    Returns
    -------
    dict: ``luts`` (logic cells on iCE40), ``ffs``, ``brams``, ``dsps`` with the harness's few, and
    per seed ``fmax_mhz`` and the ``critical`` path's ends.

    Raises
    ------
    CheckError
        Synthesis met conflicting drivers.
    """
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work, prefix="place-") as name:
        folder = Path(name)
        top, ports = harness(core)
        (folder / "top.il").write_text(
            plain_names(rtlil.convert(top, ports=ports, name="top", emit_src=False))
        )
        return place_design("read_rtlil top.il", device, seeds, folder)


def place_design(
    read: str, device: Device, seeds: Sequence[int], folder: Path, *, plain: bool = False
) -> dict[str, Any]:
    """Synthesizes, places and routes the design ``top`` with every seed.

    ``read`` are Yosys's commands that read it, from files of ``folder``; ``plain`` is the family's
    script alone, with multiplier blocks, without what `build` does besides. Returns and raises as
    `place` does.
    """
    blocks = " -dsp" if plain and device.dsps and device.body == "ice40" else ""
    script = f"{read}; {device.synthesis}{blocks} -top top -json top.json"
    log = folder / "yosys.log"
    tools.run("yosys", ["-p", script], folder=folder, log=log)
    _check(log)
    if device.body == "ecp5" and not plain:
        shorten_file(folder / "top.json")
    runs = [_route(device, seed, folder) for seed in seeds]
    used = runs[0].pop("used")
    for run in runs[1:]:
        run.pop("used")
    counts = {key: used.get(cell, 0) for key, cell in device.cells.items()}
    return counts | {"ffs": _flip_flops(folder / "top.json"), "runs": runs}


def _route(device: Device, seed: int, folder: Path) -> dict[str, Any]:
    args = [*device.options, "--json", "top.json", "--report", "report.json"]
    args += ["--freq", f"{device.goal_mhz:g}", "--seed", str(seed), "--timing-allow-fail"]
    tools.run(device.tool, args, folder=folder, log=folder / "nextpnr.log")
    report = json.loads((folder / "report.json").read_text())
    used = {cell: int(entry["used"]) for cell, entry in report["utilization"].items()}
    fmax = min(clock["achieved"] for clock in report["fmax"].values())
    return {"seed": seed, "fmax_mhz": round(fmax, 2), "critical": _critical(report), "used": used}


def _critical(report: dict[str, Any]) -> str:
    """Where the slowest path starts and ends."""
    inner = [p for p in report.get("critical_paths", []) if "<async>" not in (p["from"] + p["to"])]
    if not inner or not inner[0]["path"]:
        return ""
    steps = inner[0]["path"]
    return f"{steps[0]['from']['cell']} -> {steps[-1]['to']['cell']}"
