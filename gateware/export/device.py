"""An accelerator in its device's own blocks, as Verilog for Yosys and nextpnr."""

from pathlib import Path

from gateware.board import carry_chains
from gateware.export.export import export_accelerator, unit_lines
from pvq_hw.output.accelerator import Accelerator

__all__ = ["device_files"]

_CHAINS = Path(carry_chains.__file__).name

_USE = (
    "Memories and multipliers are the device's blocks, with contents: for Yosys and nextpnr.",
    "To simulate it, add models of the blocks; the portable form computes the same.",
)

_README = """\
{name}: an accelerator made by pvq-hw, in the blocks of {device}.

The module to use is {name}, in {name}.v; its ports, formats, latency and throughput are at the top
of the file. It holds its memory contents: other weights are another file.

{units}

With a top of your own, TOP.v (as pvq-hw build does it, but for the top):
    yosys -p "read_verilog {name}.v TOP.v; {synthesis} -top TOP -json TOP.json"{shorten}
    {nextpnr} --json TOP.json ...

Block RAM of an iCE40 reads zero for some microseconds after configuration: hold rst for 15 us.
"""


def device_files(accelerator: Accelerator, name: str) -> dict[str, str]:
    """The files, text by name; ``name`` is a plain Verilog identifier."""
    plan, network = accelerator.plan, accelerator.network
    board = plan.target
    files = export_accelerator(
        plan.graph, accelerator.image.cores, name,
        cycles=(plan.interval_cycles, plan.latency_cycles),
        outputs=network.outputs, use=_USE, body=board.family,
    )  # fmt: skip
    ice = board.family == "ice40"
    files["README.txt"] = _README.format(
        name=name, device=board.device.name, units="\n".join(unit_lines(network)),
        synthesis="synth_ice40" if ice else "synth_ecp5",
        shorten="" if ice else f"\n    python3 {_CHAINS} TOP.json",
        nextpnr=" ".join(board.device.nextpnr(board.package, board.speed)),
    )  # fmt: skip
    if not ice:
        files[_CHAINS] = Path(carry_chains.__file__).read_text(encoding="utf-8")
    return files
