"""A board on the desk as a Python object: ``pvq_hw.Board``."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.code_stream import has_stream
from pvq_hw.engine.spram_image import has_spram
from pvq_hw.errors import InputError
from pvq_hw.flow.board import describe_output, port_of
from pvq_hw.flow.live import LiveWeights, load_weights
from pvq_hw.flow.measure import Measured, measure
from pvq_hw.host.code_link import require_codes
from pvq_hw.host.link import Link
from pvq_hw.host.protocol import Counters, Description
from pvq_hw.host.serial_port import Port, open_port
from pvq_hw.output.accelerator import Accelerator, load
from pvq_hw.outputs import split_outputs

__all__ = ["Board", "Measured", "Profile"]

_TIMEOUT = 2.0
_BAUD = 1_000_000
_PROFILED = 200  # frames that a profile repeats


@dataclass(frozen=True)
class Profile:
    """How long a board took, measured at the host: link and driver included.

    Attributes
    ----------
    frames : int
    seconds : float
        Of all frames, several under way at once.
    latency_seconds : float
        Of one frame alone, the median of up to 5: from the first byte sent to the last received.
    measured : Measured, optional
        The accelerator's own speed, of a board that was compiled with ``measure``.
    """

    frames: int
    seconds: float
    latency_seconds: float
    measured: Measured | None = None

    @property
    def frames_per_second(self) -> float:
        """Frames over seconds."""
        return self.frames / max(self.seconds, 1e-9)


class Board:
    """A programmed board; a context manager, which closes the port.

    Every method may be called from any thread: requests take turns.

    Parameters
    ----------
    port : str or Port, optional
        A serial port's name, that of an SPI controller (``/dev/spidev0.0``), or an open `Port`.
        Without it, the ports on USB are asked for a board that holds the accelerator.
    accelerator : Accelerator or path, optional
        The output folder that the board was programmed from. It gives the scales with which
        `predict` reads and gives real values; without it only integers can be run.
    baud : int, optional
        Bits a second of the line; the accelerator's, or 1,000,000.
    timeout : float
        Seconds to wait for a reply, the time on the line apart.
    retries : int
        How often a request is sent again.

    Attributes
    ----------
    description : Description
        What the board said of itself.
    link : Link

    Raises
    ------
    InputError
        The port cannot be opened, no board was found, or the board's codes are not loaded.
    CheckError
        The board holds another network than the accelerator's.
    ToolError
        Nothing answers.
    """

    def __init__(
        self,
        port: str | Port | None = None,
        accelerator: Accelerator | str | os.PathLike[str] | None = None,
        *,
        baud: int | None = None,
        timeout: float = _TIMEOUT,
        retries: int = 5,
    ) -> None:
        if accelerator is not None and not isinstance(accelerator, Accelerator):
            accelerator = load(accelerator)
        self.accelerator = self._placed = accelerator
        expected = describe_output(accelerator) if accelerator is not None else None
        if port is None:
            if expected is None:
                raise InputError("A board must be given by its port, or by its accelerator")
            port = port_of(self._known(), None)
        elif isinstance(port, str) and accelerator is not None:
            port = port_of(accelerator, port)
        rate = baud or (expected.baud if expected else _BAUD)
        opened = open_port(port, rate) if isinstance(port, str) else port
        self.link = Link(opened, timeout=timeout, retries=retries, baud=rate)
        self._lock = threading.RLock()
        self._pool: ThreadPoolExecutor | None = None
        try:
            self.description: Description = self.link.describe()
            if expected is not None:
                self.description.require(expected)
            specs = accelerator.plan.specs if accelerator is not None else []
            if has_spram(specs) or has_stream(specs):
                require_codes(self.link)
        except BaseException:
            self.link.close()
            raise

    @classmethod
    @contextmanager
    def simulated(
        cls, accelerator: Accelerator | str | os.PathLike[str], *, timeout: float = 60.0
    ) -> Iterator["Board"]:
        """The same against the simulated pins of the board's top: no board is needed.

        Amaranth simulates the whole circuit, so a frame takes seconds rather than microseconds;
        the clock is lowered to that of the line, which changes nothing else. Of a
        serial line it needs a system with pseudo-terminals.
        """
        from sim.board import simulated_port

        accelerator = accelerator if isinstance(accelerator, Accelerator) else load(accelerator)
        with simulated_port(accelerator) as port, cls(port, accelerator, timeout=timeout) as board:
            yield board

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for what was submitted, then closes the port."""
        if self._pool is not None:
            self._pool.shutdown()
        with self._lock:
            self.link.close()

    def __repr__(self) -> str:
        said = self.description
        return (
            f"<Board {said.identity.hex()}: {said.input.count} -> {said.output.count}, "
            f"{said.clock_hz / 1e6:g} MHz, {said.baud:,} baud>"
        )

    # -- frames ---------------------------------------------------------------------------------

    def predict(self, x: npt.ArrayLike, *, profile: bool = False) -> Any:
        """What the board says of data (frames, ...), as `Accelerator.predict` does.

        With ``profile``, a pair: the results and a `Profile`.

        Raises
        ------
        InputError
            The data is not the network's, or the board was opened without its accelerator.
        """
        network = self._known().network
        integers = self._known().quantize_input(x)
        outputs, measured = self._run(integers, profile)
        real: Any = network.real(outputs)
        if network.outputs:
            real = split_outputs(network.outputs, real)
        else:
            real = real.reshape(len(outputs), *network.output.shape)
        return (real, measured) if profile else real

    def predict_integers(self, frames: npt.ArrayLike, *, profile: bool = False) -> Any:
        """The board's integers for frames of integers, int64 (frames, outputs).

        With ``profile``, a pair: the results and a `Profile`.
        """
        outputs, measured = self._run(np.asarray(frames), profile)
        return (outputs, measured) if profile else outputs

    def classify(self, x: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Index of the largest output of each frame, (frames,): the board itself compares, so that
        few bytes come back. Takes data with an accelerator, else integers."""
        known = self.accelerator
        integers = known.quantize_input(x) if known is not None else np.asarray(x)
        with self._lock:
            return self.link.classify(integers)[0]

    def submit(self, x: npt.ArrayLike) -> "Future[Any]":
        """`predict` in the background: a future of its results; first come, first served."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, "pvq-hw-board")
            return self._pool.submit(self.predict, x)

    def counters(self) -> Counters:
        """What the board counted since its reset."""
        with self._lock:
            return self.link.counters()

    def measure(self, x: npt.ArrayLike, *, frames: int = 1000) -> Measured:
        """Speed by the board's own clock: it runs the first frame of data ``frames`` times without
        the link. Takes data with an accelerator, else integers.

        Raises InputError unless the board was compiled with ``measure``; see
        `pvq_hw.flow.measure.measure`.
        """
        known = self.accelerator
        integers = known.quantize_input(x) if known is not None else np.asarray(x)
        with self._lock:
            return self._measure(integers, frames)

    def load(
        self, weights: Accelerator | str | os.PathLike[str], *, keep: bool = False
    ) -> dict[str, Any]:
        """Gives the board other weights while it runs; see `pvq_hw.flow.live.load_weights`.

        ``weights`` is an output folder, which is the board's accelerator from then on, or a file of
        ``pvq-hw load --pack``, which says nothing of scales: then only integers can be run.
        """
        with self._lock:
            if self._placed is None:
                raise InputError(
                    "Weights need the board's accelerator: give it as Board(port, OUT)"
                )
            if isinstance(weights, Accelerator) or Path(weights).is_dir():
                known = weights if isinstance(weights, Accelerator) else load(weights)
                new = LiveWeights.of(known)
            else:
                known, new = None, LiveWeights.read(Path(weights), self._placed)
            document = load_weights(self._placed, self.link, new, keep=keep)
            self.accelerator, self.description = known, self.link.describe()
        return document

    def _known(self) -> Accelerator:
        if self.accelerator is None:
            raise InputError("Real values need the accelerator: give it as Board(port, OUT)")
        return self.accelerator

    def _measure(self, integers: npt.NDArray[Any], frames: int) -> Measured:
        side_by_side = 1 if self.accelerator is None else self.accelerator.plan.frames
        return measure(self.link, integers[0], frames=frames, side_by_side=side_by_side)

    def _run(
        self, integers: npt.NDArray[Any], profile: bool
    ) -> tuple[npt.NDArray[np.int64], Profile | None]:
        with self._lock:
            outputs, seconds = _timed(lambda: self.link.infer(integers))
            if not profile:
                return outputs, None
            single = [_timed(lambda i=i: self.link.infer(integers[i : i + 1]))[1]  # type: ignore[misc]
                      for i in range(min(len(integers), 5))]  # fmt: skip
            measured = None
            if self.description.measures and len(integers):
                measured = self._measure(integers, _PROFILED)
        latency = float(np.median(single)) if single else float("nan")
        return outputs, Profile(len(integers), seconds, latency, measured)


def _timed(work: Callable[[], npt.NDArray[np.int64]]) -> tuple[npt.NDArray[np.int64], float]:
    started = time.monotonic()
    return work(), time.monotonic() - started
