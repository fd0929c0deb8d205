"""A board tested against the golden vectors of its output folder, with evidence to send on."""

import json
import platform
import time
import zipfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import pvq_hw
from pvq_hw.errors import InputError, PvqError
from pvq_hw.files import check_writable, whole_file
from pvq_hw.flow.board import describe_output, port_of
from pvq_hw.flow.driver import Board
from pvq_hw.flow.measure import Measured
from pvq_hw.host.serial_port import Port, open_port
from pvq_hw.output.accelerator import Accelerator
from pvq_hw.output.build_record import BUILD, read_build
from pvq_hw.output.golden_vectors import load_vectors
from pvq_hw.progress import Steps

__all__ = ["TracedPort", "selftest"]

_TRACE_BYTES = 1 << 20
_MOST_FRAMES = 1_000_000


@dataclass(frozen=True)
class _Chunk:
    seconds: float
    sent: bool
    data: bytes


class TracedPort:
    """A port that keeps what goes over it, up to 1 MiB.

    Parameters
    ----------
    port : Port
    """

    def __init__(self, port: Port) -> None:
        self._port = port
        self._started = time.monotonic()
        self._chunks: list[_Chunk] = []
        self._left = _TRACE_BYTES

    def read(self, seconds: float) -> bytes:
        """Reads, see `Port.read`."""
        data = self._port.read(seconds)
        self._keep(False, data)
        return data

    def write(self, data: bytes) -> None:
        """Writes, see `Port.write`."""
        self._keep(True, data)
        self._port.write(data)

    def close(self) -> None:
        """Closes, see `Port.close`."""
        self._port.close()

    def text(self) -> str:
        """A line for each piece: seconds since the start, ``>`` for sent or ``<`` for received,
        and the bytes in hexadecimal; then whether more was left out."""
        lines = [
            f"{chunk.seconds:.6f} {'>' if chunk.sent else '<'} {chunk.data.hex()}"
            for chunk in self._chunks
        ]
        return "\n".join(lines + ["..."] * (self._left == 0)) + "\n"

    def _keep(self, sent: bool, data: bytes) -> None:
        kept = bytes(data[: self._left])
        if kept:
            self._left -= len(kept)
            self._chunks.append(_Chunk(time.monotonic() - self._started, sent, kept))


def selftest(
    accelerator: Accelerator,
    port: str | Port | None = None,
    *,
    frames: int = 100,
    timeout: float = 2.0,
    bundle: Path | None = None,
    steps: Steps | None = None,
) -> dict[str, Any]:
    """Runs golden vectors of ``OUT/vectors`` through a board and judges what comes back.

    The vectors are repeated until there are ``frames``. The board's counters must count exactly
    these frames, and no damaged packet. A board that was compiled with ``measure`` must also take
    the planned cycles.

    Parameters
    ----------
    accelerator : Accelerator
    port : str or Port, optional
        By default the ports on USB are asked.
    frames : int
    timeout : float
        Seconds for a reply.
    bundle : Path, optional
        A zip file to write for whoever is to look at it: the document, versions, hashes, and all
        bytes of the line with their times. It is written when the test fails, too.

    Returns
    -------
    dict
        ``ok``, ``verdict`` (one line), ``frames``, ``mismatches``, ``outputs_compared``,
        ``counters`` (before and after), ``frames_per_second``, ``latency_seconds``, ``link``, and
        ``measured`` (`pvq_hw.flow.measure.Measured`; None of a board that does not measure).

    Raises
    ------
    InputError
        The port cannot be opened, or ``bundle`` cannot be written.
    CheckError, ToolError
        As `Board`; the bundle is written first.
    """
    told = steps or Steps()
    if not 1 <= frames <= _MOST_FRAMES:
        raise InputError(f"There must be 1 to {_MOST_FRAMES:,} frames, not {frames:,}")
    if bundle is not None:
        check_writable(bundle)
    if port is None or isinstance(port, str):
        port = port_of(accelerator, port)
    if accelerator.network.remembers:
        raise InputError(
            "A self-test must have answers that depend on no earlier frame, unlike those of "
            "--decide smoothed; compare these with run"
        )
    name = port if isinstance(port, str) else "the port"
    baud = describe_output(accelerator).baud
    traced = TracedPort(open_port(port, baud) if isinstance(port, str) else port)
    document: dict[str, Any] = {"ok": False, "frames": frames, "versions": _versions(accelerator)}
    try:
        with told.step(f"Run {frames} golden vectors on {name}"):
            document |= _run(accelerator, traced, frames, timeout, told)
    except PvqError as error:
        document["verdict"] = str(error)
        raise
    finally:
        _write_bundle(bundle, document, traced)
    return document


def _run(
    accelerator: Accelerator, port: Port, frames: int, timeout: float, steps: Steps
) -> dict[str, Any]:
    x, outputs = load_vectors(accelerator.out, accelerator.network)
    turns = np.arange(frames) % len(x)
    golden = outputs[-1].reshape(len(x), -1)[turns]
    with Board(port, accelerator, timeout=timeout) as board:
        before = board.counters()
        started = time.monotonic()
        found = board.link.infer(
            x[turns], lambda done, total: steps.progress(done, total, "frames")
        )
        seconds = time.monotonic() - started
        after = board.counters()
        _, profile = board.predict_integers(x[:5], profile=True)
        measured = profile.measured
        statistics = board.link.statistics
    mismatches = int(np.count_nonzero(found != golden))
    counted = (after.frames - before.frames) % (1 << 16)
    faults = [f"{mismatches} of {golden.size} outputs differ"] * (mismatches > 0)
    # A frame that was sent again after a lost reply is computed twice.
    if counted != frames % (1 << 16) and not statistics.retries:
        faults.append(f"the board counted {counted} of {frames} frames")
    damaged = {
        "packets with a wrong CRC": after.bad_crc - before.bad_crc,
        "packets that broke off": after.truncated - before.truncated,
        "bytes without a stop bit": after.framing_errors - before.framing_errors,
    }
    faults += [f"{count % (1 << 16)} {what}" for what, count in damaged.items() if count]
    if statistics.timeouts or statistics.damaged:
        faults.append(f"{statistics.timeouts} replies lost, {statistics.damaged} damaged")
    if measured is not None and (fault := measured.against(accelerator.plan)):
        faults.append(fault)
    rate = frames / max(seconds, 1e-9)
    verdict = "; ".join(faults) or (
        f"{frames} golden vectors, {golden.size:,} outputs: all as computed; "
        f"{rate:,.0f} frames a second, {1e3 * profile.latency_seconds:.2f} ms for one"
        + _own(measured)
    )
    return {
        "ok": not faults,
        "verdict": verdict,
        "outputs_compared": int(golden.size),
        "mismatches": mismatches,
        "counters": {"before": asdict(before), "after": asdict(after)},
        "frames_per_second": rate,
        "latency_seconds": profile.latency_seconds,
        "link": asdict(statistics),
        "measured": measured and asdict(measured),
    }


def _own(measured: Measured | None) -> str:
    """The accelerator's own speed, in words."""
    if measured is None:
        return ""
    return (
        f"; by itself {measured.interval_cycles:,.0f} cycles a frame as planned, "
        f"{measured.frames_per_second:,.0f} a second at {measured.clock_hz / 1e6:g} MHz"
    )


def _versions(accelerator: Accelerator) -> dict[str, Any]:
    """What the bundle says of the software, the network and the bitstream."""
    plan, found = accelerator.plan, {}
    if (accelerator.out / BUILD).is_dir():
        found = read_build(accelerator.out)
    return {
        "pvq_hw": pvq_hw.__version__,
        "pyserial": version("pyserial"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "board": plan.target.name,
        "device": plan.target.device.name,
        "network": accelerator.network.name,
        "manifest_sha256": accelerator.manifest["manifest_sha256"],
        "build": {key: value for key, value in found.items() if not isinstance(value, dict | list)},
    }


def _write_bundle(bundle: Path | None, document: dict[str, Any], port: TracedPort) -> None:
    if bundle is None:
        return
    with whole_file(bundle) as new, zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("selftest.json", json.dumps(document, indent=1, sort_keys=True) + "\n")
        archive.writestr("wire.txt", port.text())
