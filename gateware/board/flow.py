"""From an output folder to a bitstream."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateware.accelerator.accelerator import Accelerator as Circuit
from gateware.board.boards import make_board_top, make_platform
from gateware.board.build import build, rebuild
from gateware.board.clock import MAX, build_at_clock
from gateware.device.live import LiveBus
from pvq_hw.choices import PLACERS, check_choice
from pvq_hw.engine.code_stream import stream_crc, streamed_core
from pvq_hw.engine.live_image import live_contents
from pvq_hw.engine.spram_image import code_crc, code_layout, has_spram
from pvq_hw.flow.board import describe_output
from pvq_hw.flow.live import layout_of
from pvq_hw.host.protocol import WireFormat
from pvq_hw.output.accelerator import Accelerator
from pvq_hw.output.build_record import BUILD
from pvq_hw.progress import Steps

__all__ = ["board_top", "build_figures", "build_output", "live_bus", "rebuild_output"]


def build_output(
    accelerator: Accelerator,
    seeds: Sequence[int],
    steps: Steps,
    *,
    every_seed: bool = False,
    jobs: int = 1,
    clock: float | str | None = None,
    placer: str = PLACERS[0],
) -> dict[str, Any]:
    """Builds ``OUT/build`` and gives the document of ``pvq-hw build``.

    ``clock`` as `gateware.board.clock.build_at_clock` has it; the plan's by default. ``placer`` is
    one of `pvq_hw.choices.PLACERS`.

    Raises
    ------
    InputError
        The board's PLL doesn't come near the clock, or there is no such placer.
    CheckError
        Timing is not met on any seed.
    ToolError
        A tool is missing or failed.
    """
    check_choice("Placer", placer, PLACERS)
    describe_output(accelerator)
    failed = accelerator.out.with_name(accelerator.out.name + ".build-failed")

    def make(made: Accelerator, folder: Path) -> dict[str, Any]:
        report = build(
            board_top(made),
            make_platform(made.plan.target),
            folder,
            clock_mhz=describe_output(made).clock_hz / 1e6,
            seeds=seeds,
            every_seed=every_seed or clock == MAX,
            jobs=jobs,
            failed=failed,
            about={"manifest_sha256": made.manifest["manifest_sha256"], "placer": placer},
            progress=steps.note,
            nextpnr_opts=f"--placer {placer}",
        )
        return report.to_json() | {"placer": placer} | build_figures(made)

    if clock is not None:
        document = build_at_clock(accelerator, clock, make, steps)
        shutil.rmtree(failed, ignore_errors=True)  # of clocks that were too high
        return document
    return accelerator.update(lambda staging: {"build": make(accelerator, staging / BUILD)}, BUILD)[
        "build"
    ]


def build_figures(accelerator: Accelerator) -> dict[str, Any]:
    """What a build's document says of the accelerator: cycles, and inferences a second."""
    plan, board = accelerator.plan, describe_output(accelerator)
    return {
        "target": plan.target.name,
        "link": plan.link,
        "interval_cycles": plan.interval_cycles,
        "latency_cycles": plan.latency_cycles,
        "inferences_per_second": plan.frames * board.clock_hz / plan.interval_cycles,
        "inferences_per_second_over_link": board.frames_per_second(
            -(-plan.interval_cycles // plan.frames), link=plan.link
        ),
    }


def rebuild_output(accelerator: Accelerator, built: Path, folder: Path, steps: Steps) -> None:
    """Fills ``folder`` with the build of an updatable accelerator, by new contents in the placed
    design of ``built``; see `gateware.board.build.rebuild` for what it raises."""
    rebuild(
        board_top(accelerator),
        make_platform(accelerator.plan.target),
        built,
        folder,
        about={"manifest_sha256": accelerator.manifest["manifest_sha256"]},
        progress=steps.note,
    )


def board_top(accelerator: Accelerator) -> Any:
    """The design. Made once nothing can refuse any more: Amaranth complains of circuits left
    unused."""
    plan, network, image = accelerator.plan, accelerator.network, accelerator.image
    live = live_bus(accelerator) if plan.live else None
    circuit = Circuit(plan.graph, image.cores, body=plan.target.family, live=live)
    return make_board_top(
        circuit,
        plan.target,
        plan.clock_mhz,
        plan.baud,
        WireFormat.of(network.input),
        WireFormat.of(network.output),
        describe_output(accelerator).identity,
        _codes_crc(accelerator),
        plan.updatable,
        live,
        None if network.decision is None else network.decision.places,
        plan.measure,
        plan.link,
    )


def _codes_crc(accelerator: Accelerator) -> int | None:
    """Of codes that are loaded, or that come from the flash for every frame; None of others."""
    image = accelerator.image
    if has_spram(image.specs):
        return code_crc(code_layout(image.specs), image.cores)
    streamed = streamed_core(image.specs, image.cores)
    return None if streamed is None else stream_crc(*streamed)


def live_bus(accelerator: Accelerator) -> LiveBus:
    """The wires on which an accelerator's memories are loaded."""
    layout, plan = layout_of(accelerator), accelerator.plan
    contents = live_contents(plan.graph, accelerator.image.cores, layout.family)
    told = layout.told(contents, describe_output(accelerator).encode())
    return LiveBus(layout, plan.live, told)
