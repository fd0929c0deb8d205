"""``OUT`` on a real board: load the bitstream, send data, compare with the golden model."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.choices import SPI
from pvq_hw.engine.code_stream import has_stream
from pvq_hw.engine.spram_image import CODES_FILE, code_crc, code_layout, code_words, has_spram
from pvq_hw.errors import CheckError, InputError
from pvq_hw.evaluate.accuracy import metric_for
from pvq_hw.host.code_link import load_codes, require_codes
from pvq_hw.host.link import Link, connect
from pvq_hw.host.ports import find_port
from pvq_hw.host.programmer import Loader, program
from pvq_hw.host.protocol import Description
from pvq_hw.host.spi_port import is_spi
from pvq_hw.naming import quoted
from pvq_hw.network.network import Network
from pvq_hw.output.accelerator import Accelerator
from pvq_hw.output.build_record import BUILD, read_build
from pvq_hw.output.description import describe
from pvq_hw.progress import Steps

__all__ = ["describe_output", "load_output", "port_of", "program_output", "run_output"]

_TIMEOUT = 2.0  # seconds for a reply
_LONGEST_TIMEOUT = 3600.0


def describe_output(accelerator: Accelerator) -> Description:
    """What the board with this accelerator says of itself; see `pvq_hw.output.description`.

    Raises InputError where its streams carry several frames a transfer: no board has the like.
    """
    vectors = accelerator.plan.graph.vectors
    if vectors != (1, 1):
        raise InputError(
            "Bitstreams must take and give one frame a transfer, not {} and {}; the Verilog "
            "is for a design of your own".format(*vectors)
        )
    return describe(accelerator.plan, accelerator.network, accelerator.manifest)


def port_of(accelerator: Accelerator, port: str | None) -> str:
    """The port of the board that holds an accelerator: as it is given, or found on USB.

    Raises InputError where the port is none of the board's link, or where no board is found; see
    `pvq_hw.host.ports.find_port`.
    """
    spi = accelerator.plan.link == SPI
    if port is None and not spi:
        return find_port(describe_output(accelerator))
    if port is None or is_spi(port) != spi:
        wanted = "an SPI controller's, as in /dev/spidev0.0" if spi else "a serial line's"
        raise InputError(
            f"Port must be {wanted}, since the board was compiled with --link "
            f"{accelerator.plan.link}, not {'left out' if port is None else quoted(port)}"
        )
    return port


def program_output(accelerator: Accelerator, steps: Steps, port: str | None = None) -> Loader:
    """Loads ``OUT/build``'s bitstream and, into the flash or over a serial port, the codes.

    See `pvq_hw.host.programmer.program` and `load_output` for what it raises.
    """
    build = read_build(accelerator.out)
    specs = accelerator.plan.specs
    if port is not None and not has_spram(specs):
        raise InputError("Only accelerators whose codes are loaded take a serial port here")
    if port is not None:
        port_of(accelerator, port)
    loads = has_spram(specs) or has_stream(specs)
    loader = program(
        accelerator.out / BUILD / build["bitstream"],
        accelerator.plan.target,
        codes=accelerator.out / "image" / CODES_FILE if loads and port is None else None,
        on_line=steps.note,
    )
    if port is not None:
        rate = describe_output(accelerator).baud
        with connect(port, rate, timeout=_TIMEOUT) as board:
            load_output(accelerator, board, steps)
    return loader


def load_output(accelerator: Accelerator, board: Link, steps: Steps) -> None:
    """Loads the codes over the serial line; see `pvq_hw.host.code_link.load_codes`.

    Raises InputError where the board holds another network, or none of its codes are loaded.
    """
    specs, images = accelerator.plan.specs, accelerator.image.cores
    if has_stream(specs):
        raise InputError(
            "There are no codes to load: the board reads them from its flash for every frame; "
            "`pvq-hw program` writes them there"
        )
    if not has_spram(specs):
        raise InputError("There are no codes to load: this accelerator has them in its bitstream")
    expected = describe_output(accelerator)
    board.describe().require(expected)
    layout = code_layout(specs)
    with steps.step(f"Load {layout.size:,} bytes of codes"):
        load_codes(
            board,
            code_words(layout, images),
            code_crc(layout, images),
            lambda done, total: steps.progress(done, total, "words"),
        )


def run_output(
    accelerator: Accelerator,
    port: str | None,
    x: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    *,
    timeout: float = 2.0,
    labels: npt.NDArray[Any] | None = None,
    metric: str | None = None,
    output: str | None = None,
    steps: Steps | None = None,
    link: Link | None = None,
    load: bool = False,
) -> dict[str, Any]:
    """Sends data to a programmed board and compares its outputs with the golden model's.

    Without ``port``, the ports on USB are asked for the board, see `port_of`.
    ``output`` is the one of several that the labels belong to, where compiling didn't say.

    Raises
    ------
    InputError
        The port cannot be opened, or the board loads its codes and has none; ``load`` loads them
        first.
    CheckError
        The board holds another network, or says another rate than the line's.
    ToolError
        The board does not answer, or takes no frame.
    """
    tell = steps or Steps()
    if not 0 < timeout <= _LONGEST_TIMEOUT:
        raise InputError(
            f"Timeout must be above 0 and at most {_LONGEST_TIMEOUT:,.0f} seconds, not {timeout:g}"
        )
    integers = accelerator.quantize_input(x)
    outputs, figures = _ran(accelerator, port, integers, timeout, tell, link, load)
    network = accelerator.network
    golden = network.predict(integers).reshape(len(integers), -1)
    document: dict[str, Any] = {
        "frames": len(integers),
        "outputs_compared": int(golden.size),
        "mismatches": int(np.count_nonzero(golden != outputs)),
        **figures,
        "outputs": outputs.tolist(),
    }
    if network.outputs:
        document["parts"] = network.output_documents()
    if labels is not None:
        network = network.for_output(output) if output else network
        scored = _scored(network, outputs, labels, metric)
        if scored is None:
            tell.note("The labels score nothing: the board gives decisions, not scores")
        else:
            document["accuracy"] = scored
    return document


def _ran(
    accelerator: Accelerator,
    port: str | None,
    integers: npt.NDArray[np.int64],
    timeout: float,
    tell: Steps,
    link: Link | None,
    load: bool,
) -> tuple[npt.NDArray[np.int64], dict[str, Any]]:
    """A board's outputs, and how fast they came."""
    expected = describe_output(accelerator)
    if link is None:
        name = port_of(accelerator, port)
        if port is None:
            tell.note(f"The board is at {name}")
        port, link = name, connect(name, expected.baud, timeout=timeout)
    with link as board:
        if load:
            load_output(accelerator, board, tell)
        with tell.step(f"Run {len(integers)} frames on {port or 'the board'}"):
            board.describe().require(expected)
            if has_spram(accelerator.plan.specs) or has_stream(accelerator.plan.specs):
                require_codes(board)
            if accelerator.network.remembers:
                _require_fresh(board)
            started = time.monotonic()
            outputs = board.infer(
                integers, lambda done, total: tell.progress(done, total, "frames")
            )
            seconds = time.monotonic() - started
            counters = board.counters()
    speed = len(integers) / max(seconds, 1e-9)
    return outputs, {"frames_per_second": speed, "overruns": counters.overruns}


def _require_fresh(board: Link) -> None:
    """Raises CheckError where frames have gone before, which the golden model knows nothing of."""
    taken = board.counters().frames
    if taken:
        raise CheckError(
            f"The board must be programmed anew: its decisions go on from {taken} frames before"
        )


def _scored(
    network: Network,
    outputs: npt.NDArray[np.int64],
    labels: npt.NDArray[Any],
    metric: str | None,
) -> dict[str, Any] | None:
    """How well a board's outputs match labels; None where decisions tell nothing of that."""
    real = network.real(outputs)
    judge = metric_for(network, labels, metric)
    if network.undecided is not network:
        if judge.name != "accuracy" or not network.outputs:
            return None
        # Of the scores only the largest is known, which is what the accuracy asks for.
        real = one_hot(outputs[:, 0], network.undecided.output.size)
    return {
        "metric": judge.name,
        "why": judge.why,
        "board": judge.compute(real, labels),
        "frames": len(labels),
    }


def one_hot(places: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.float64]:
    """Rows (frames, size) with a 1 at each frame's place."""
    return np.asarray(np.arange(size) == places[:, None], dtype=np.float64)
