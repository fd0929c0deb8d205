"""From an output folder to a bitstream."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateware.accelerator.accelerator import Accelerator as Circuit
from gateware.board.boards import make_board_top, make_platform
from gateware.board.build import build
from pvq_hw.engine.spram_image import code_crc, code_layout, has_spram
from pvq_hw.errors import InputError
from pvq_hw.flow.board import describe_output
from pvq_hw.host.protocol import WireFormat
from pvq_hw.output.accelerator import Accelerator
from pvq_hw.output.build_record import BUILD
from pvq_hw.progress import Steps

__all__ = ["build_output"]


def build_output(
    accelerator: Accelerator,
    seeds: Sequence[int],
    steps: Steps,
    *,
    every_seed: bool = False,
    jobs: int = 1,
) -> dict[str, Any]:
    """Builds ``OUT/build`` and gives the document of ``pvq-hw build``.

    Raises
    ------
    CheckError
        Timing is not met on any seed.
    ToolError
        A tool is missing or failed.
    """
    plan, network = accelerator.plan, accelerator.network
    wires = WireFormat.of(network.input), WireFormat.of(network.output)
    if plan.graph.together != (1, 1):
        raise InputError(
            "Bitstreams must take and give one activation a transfer, not {} and {}; the Verilog "
            "is for a design of your own".format(*plan.graph.together)
        )
    board = describe_output(accelerator)
    image = accelerator.image

    def fill(staging: Path) -> dict[str, Any]:
        # Made once nothing can refuse any more: Amaranth complains of circuits left unused.
        platform = make_platform(plan.target)
        circuit = Circuit(plan.graph, image.cores, body=plan.target.family)
        loaded = has_spram(image.specs)
        top = make_board_top(
            circuit,
            plan.target,
            plan.clock_mhz,
            plan.baud,
            *wires,
            board.identity,
            code_crc(code_layout(image.specs), image.cores) if loaded else None,
        )
        report = build(
            top,
            platform,
            staging / BUILD,
            clock_mhz=board.clock_hz / 1e6,
            seeds=seeds,
            every_seed=every_seed,
            jobs=jobs,
            failed=accelerator.out.with_name(accelerator.out.name + ".build-failed"),
            about={"manifest_sha256": accelerator.manifest["manifest_sha256"]},
            progress=steps.note,
        )
        document = report.to_json() | {
            "target": plan.target.name,
            "interval_cycles": plan.interval_cycles,
            "latency_cycles": plan.latency_cycles,
            "inferences_per_second": plan.frames * report.clock_mhz * 1e6 / plan.interval_cycles,
            "inferences_per_second_over_link": board.frames_per_second(
                -(-plan.interval_cycles // plan.frames)
            ),
        }
        return {"build": document}

    return accelerator.update(fill, BUILD)["build"]
