"""``OUT`` on a real board: load the bitstream, send data, compare with the golden model."""

import json
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.api import Accelerator
from pvq_hw.board import describe_board
from pvq_hw.errors import InputError
from pvq_hw.link import Link, connect
from pvq_hw.metrics import score
from pvq_hw.program import Loader, program
from pvq_hw.protocol import Description, WireFormat
from pvq_hw.steps import Steps

__all__ = ["describe_output", "program_output", "run_output"]


def describe_output(accelerator: Accelerator) -> Description:
    """What the board with this accelerator says of itself.

    Its identity is the first 8 bytes of the manifest's own hash.
    """
    plan, network = accelerator.plan, accelerator.network
    return describe_board(
        plan.target.name,
        plan.clock_mhz,
        plan.baud,
        WireFormat.of(network.input),
        WireFormat.of(network.output),
        bytes.fromhex(accelerator.manifest["manifest_sha256"])[:8],
    )


def program_output(accelerator: Accelerator, steps: Steps) -> Loader:
    """Loads ``OUT/build``'s bitstream; see `pvq_hw.program.program` for what it raises."""
    build = read_build(accelerator)
    target = accelerator.plan.target.name
    return program(accelerator.out / "build" / build["bitstream"], target, on_line=steps.note)


def read_build(accelerator: Accelerator) -> dict[str, Any]:
    """The report of the last build; raises InputError when there is none."""
    path = accelerator.require("build/build.json")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        name = str(value["bitstream"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} must be the report of a build: {error}") from None
    if "/" in name or name.startswith("."):
        raise InputError(f"{path} must name a file beside it, not {name!r}")
    return dict(value)


def run_output(
    accelerator: Accelerator,
    port: str,
    x: npt.ArrayLike,
    *,
    timeout: float = 2.0,
    labels: npt.NDArray[Any] | None = None,
    steps: Steps | None = None,
    link: Link | None = None,
) -> dict[str, Any]:
    """Sends data to a programmed board and compares its outputs with the golden model's.

    Raises
    ------
    InputError
        The port cannot be opened, or the board holds another network.
    ToolError
        The board does not answer.
    """
    tell = steps or Steps()
    if not 0 < timeout < float("inf"):
        raise InputError(f"Timeout must be a number of seconds above 0, not {timeout}")
    integers = accelerator.quantize_input(x)
    expected = describe_output(accelerator)
    with tell.step(f"Run {len(integers)} frames on {port}"):
        board = link or connect(port, expected.baud, timeout=timeout)
        with board:
            board.describe().require(expected.input, expected.output, expected.identity)
            started = time.monotonic()
            outputs = board.infer(
                integers, lambda done, total: tell.progress(done, total, "frames")
            )
            seconds = time.monotonic() - started
            counters = board.counters()
    golden = accelerator.network.predict(integers).reshape(len(integers), -1)
    document: dict[str, Any] = {
        "frames": len(integers),
        "outputs_compared": int(golden.size),
        "mismatches": int(np.count_nonzero(golden != outputs)),
        "frames_per_second": len(integers) / max(seconds, 1e-9),
        "overruns": counters.overruns,
        "outputs": outputs.tolist(),
    }
    if labels is not None:
        metric, value = score(outputs * accelerator.network.output.scale, labels)
        document["accuracy"] = {"metric": metric, "board": value}
    return document
