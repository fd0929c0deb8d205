"""The host's end of the link: frames to a board, results back."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError, ToolError
from pvq_hw.host.protocol import (
    MOST_REPEATS,
    OVERHEAD,
    REPEAT_BYTES,
    TOP_BYTES,
    Counters,
    Description,
    ErrorCode,
    Kind,
    Measurement,
    Packet,
    PacketDecoder,
    WireFormat,
)
from pvq_hw.host.serial_port import Port, open_port

__all__ = ["Link", "LinkStatistics", "connect"]

IntArray = npt.NDArray[np.int64]

# Errors that go away when the request is sent again.
_PASSING = tuple(
    bytes((code,)) for code in (ErrorCode.BAD_CRC, ErrorCode.TRUNCATED, ErrorCode.OVERRUN)
)

# After an overrun with nothing under way: so many pauses make a time-out.
_PAUSES = 8


@dataclass
class LinkStatistics:
    """What a `Link` met so far.

    Attributes
    ----------
    sent, retries : int
        Requests sent, and how many of them again.
    overruns, errors : int
        Frames that the board had no room for; other refusals.
    timeouts, damaged : int
        Replies that did not come in time; replies with a wrong CRC.
    """

    sent: int = 0
    retries: int = 0
    overruns: int = 0
    errors: int = 0
    timeouts: int = 0
    damaged: int = 0


@dataclass
class _Pending:
    index: int
    tries: int
    deadline: float


class Link:
    """Talks to one board; a context manager, which closes the port.

    Parameters
    ----------
    port : Port
    timeout : float
        Seconds to wait for a reply, the time on the line apart. It must exceed the board's idle
        time-out (50 to 100 ms), after which a broken request is forgotten.
    retries : int
        How often a request is sent again before the board is given up. One that takes no frame is
        given up after the time that as many lost replies would take.
    baud : int, optional
        Of the line, for the time on it; by default what the board says of itself.

    Attributes
    ----------
    statistics : LinkStatistics
    """

    def __init__(
        self, port: Port, *, timeout: float = 0.5, retries: int = 5, baud: int | None = None
    ) -> None:
        self.port = port
        self._timeout = timeout
        self._retries = retries
        self._baud = baud
        self._decoder = PacketDecoder()
        self._tag = 0
        self._description: Description | None = None
        self.statistics = LinkStatistics()

    def __enter__(self) -> "Link":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the port."""
        self.port.close()

    def describe(self) -> Description:
        """What the board is; asked once.

        Raises
        ------
        ToolError
            Nothing answers.
        InputError
            What answers speaks another version of the protocol.
        """
        if self._description is None:
            reply = self.ask(Kind.DESCRIBE, Kind.DESCRIPTION)
            self._description = Description.decode(reply)
        return self._description

    def forget(self) -> None:
        """Asks anew what the board is, the next time: it may hold another network."""
        self._description = None

    def counters(self) -> Counters:
        """What the board counted since its reset."""
        return Counters.decode(self.ask(Kind.STATUS, Kind.COUNTERS))

    def repeat(self, frame: npt.ArrayLike, frames: int, *, seconds: float = 0.0) -> Measurement:
        """Lets the board run a frame ``frames`` times, as fast as the accelerator takes it.

        ``seconds`` is about how long that takes. Raises InputError for a frame that is not the
        input's, and where the board does not measure; else as `ask`.
        """
        if not 1 <= frames <= MOST_REPEATS:
            raise InputError(f"Repeated frames must be 1 to {MOST_REPEATS:,}, not {frames:,}")
        payload = self.describe().input.encode(frame)
        payload += (frames - 1).to_bytes(REPEAT_BYTES, "little")
        return Measurement.decode(
            self.ask(Kind.REPEAT, Kind.MEASURED, payload, seconds=2 * seconds)
        )

    def ask(self, kind: Kind, answer: Kind, payload: bytes = b"", *, seconds: float = 0.0) -> bytes:
        """Sends a request whose reply comes by itself and gives the reply's payload; ``seconds``
        is how long the board needs for it.

        Raises
        ------
        ToolError
            Nothing answers.
        InputError
            The board refuses the request.
        """
        seconds += self._timeout
        baud = self._baud or (self._description and self._description.baud)
        if baud:
            seconds += (OVERHEAD + len(payload)) * 10 / baud
        for attempt in range(self._retries + 1):
            tag = self._next_tag()
            self._send(Packet(kind, tag, payload).encode(), again=attempt > 0)
            reply = self._reply(answer, tag, time.monotonic() + seconds)
            if reply is None:
                self._missed()
            elif reply.kind == answer:
                return reply.payload
            elif reply.payload[:1] not in _PASSING:
                raise _refused(kind, reply.payload)
        raise ToolError(
            "Board must answer, but nothing came; is it programmed, and is this its port and rate?"
        )

    def infer(
        self, frames: npt.ArrayLike, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> IntArray:
        """Runs frames through the board; several are under way at once.

        Parameters
        ----------
        frames : integers (frames, ...)
            Within the input's format, channels last.
        progress : callable
            Is told the frames done and their total.

        Returns
        -------
        int64 (frames, outputs)

        Raises
        ------
        InputError
            The frames' shape or values are not the board's.
        ToolError
            The board no longer answers, or answers OVERRUN only.
        """
        output = self.describe().output
        payloads = self._run(frames, Kind.INFER, Kind.RESULTS, output.frame_bytes, progress)
        rows = [output.decode(payload) for payload in payloads]
        return np.array(rows, dtype=np.int64).reshape(len(rows), output.count)

    def classify(
        self, frames: npt.ArrayLike, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> tuple[IntArray, IntArray]:
        """Index and value of the largest output of each frame, (frames,) both; else as `infer`."""
        output = self.describe().output
        form = output.format
        payloads = self._run(frames, Kind.CLASSIFY, Kind.TOP, TOP_BYTES, progress)
        wide = WireFormat(1, form)
        values = [int(wide.decode(p[2 : 2 + wide.value_bytes])[0]) for p in payloads]
        index = [int.from_bytes(p[:2], "little") for p in payloads]
        if wrong := [place for place in index if place >= output.count]:
            raise ToolError(f"Board's largest must be one of {output.count}, not number {wrong[0]}")
        return np.array(index, dtype=np.int64), np.array(values, dtype=np.int64)

    # -- one request ----------------------------------------------------------------------------

    def _next_tag(self) -> int:
        self._tag = (self._tag + 1) % 256
        return self._tag

    def _reply(self, answer: Kind, tag: int, deadline: float) -> Packet | None:
        """The answer, or the error, with a tag."""
        while (left := deadline - time.monotonic()) > 0:
            for packet in self._receive(left):
                if packet.tag == tag and packet.kind in (answer, Kind.ERROR):
                    return packet
        return None

    def _send(self, data: bytes, *, again: bool) -> None:
        self.port.write(data)
        self.statistics.sent += 1
        self.statistics.retries += again

    def _receive(self, seconds: float) -> list[Packet]:
        packets = self._decoder.feed(self.port.read(seconds))
        self.statistics.damaged += len(self._decoder.bad)
        self._decoder.bad.clear()
        return packets

    def _missed(self) -> None:
        self.statistics.timeouts += 1
        # Half a reply would swallow the next ones.
        self._decoder.idle()

    # -- many frames ----------------------------------------------------------------------------

    def _run(
        self,
        frames: npt.ArrayLike,
        kind: Kind,
        answer: Kind,
        answer_bytes: int,
        progress: Callable[[int, int], None],
    ) -> list[bytes]:
        board = self.describe()
        requests = _encode(board.input, frames)
        replies: list[bytes | None] = [None] * len(requests)
        queue = deque((index, 0) for index in range(len(requests)))
        pending: dict[int, _Pending] = {}
        window, done = board.window, 0
        size = 2 * OVERHEAD + board.input.frame_bytes + answer_bytes
        line = window * size * 10 / (self._baud or board.baud)
        patience = (self._retries + 1) * (self._timeout + line)
        give_up = time.monotonic() + patience
        while done < len(requests):
            while queue and len(pending) < window:
                index, tries = queue.popleft()
                tag = self._next_tag()
                self._send(Packet(kind, tag, requests[index]).encode(), again=tries > 0)
                deadline = time.monotonic() + self._timeout + line
                pending[tag] = _Pending(index, tries, deadline)
            for packet in self._receive(self._patience(pending)):
                sent = pending.get(packet.tag)
                if sent is None:
                    continue  # late, twice, or a tag that the line spoiled
                if packet.kind == Kind.ERROR:
                    del pending[packet.tag]
                    if packet.payload[:1] == bytes((ErrorCode.OVERRUN,)):
                        self.statistics.overruns += 1
                        window = max(1, window - 1)
                        if time.monotonic() > give_up:
                            raise ToolError(
                                f"The board had no room for frame {sent.index} in {patience:.3g} s"
                            )
                        if not pending:
                            # No reply is to come that would say that there is room now.
                            time.sleep(self._timeout / _PAUSES)
                        # Room will come: this is no failure of the frame.
                        queue.appendleft((sent.index, max(sent.tries, 1)))
                    elif packet.payload[:1] == bytes((ErrorCode.NOT_READY,)):
                        raise _refused(kind, packet.payload)
                    else:
                        self.statistics.errors += 1
                        queue.appendleft(self._again(sent))
                elif packet.kind == answer and len(packet.payload) == answer_bytes:
                    del pending[packet.tag]
                    replies[sent.index] = packet.payload
                    done += 1
                    give_up = time.monotonic() + patience
                    progress(done, len(requests))
            self._expire(pending, queue)
        return [reply for reply in replies if reply is not None]

    def _patience(self, pending: dict[int, _Pending]) -> float:
        return max(0.0, min(p.deadline for p in pending.values()) - time.monotonic())

    def _expire(self, pending: dict[int, _Pending], queue: deque[tuple[int, int]]) -> None:
        now = time.monotonic()
        late = [tag for tag, p in pending.items() if p.deadline <= now]
        if late:
            self._missed()
        # The first one sent is the first to go again.
        queue.extendleft(reversed([self._again(pending.pop(tag)) for tag in late]))

    def _again(self, sent: _Pending) -> tuple[int, int]:
        if sent.tries >= self._retries:
            raise ToolError(
                f"Board must answer frame {sent.index}, but did not in {sent.tries + 1} tries"
            )
        return sent.index, sent.tries + 1


def _refused(kind: Kind, payload: bytes) -> InputError:
    """What a board's error says, in words."""
    code = payload[0] if payload else 0
    known = ErrorCode(code).name if code in set(ErrorCode) else str(code)
    if code == ErrorCode.NOT_READY:
        return InputError(
            f"Board must have its codes before {kind.name}; write them with `pvq-hw program`, or "
            "use `pvq-hw run --load` or `pvq-hw load`"
        )
    return InputError(f"Board must take {kind.name}, but refuses it: {known}")


def _encode(wire: WireFormat, frames: npt.ArrayLike) -> list[bytes]:
    array: Any = np.asarray(frames)
    if array.dtype.kind not in "iu" or array.ndim < 2 or array[:1].size not in (0, wire.count):
        raise InputError(
            f"Frames must be integers of shape (frames, {wire.count}), "
            f"not {array.dtype} {array.shape}"
        )
    return [wire.encode(frame) for frame in array]


def connect(path: str, baud: int, *, timeout: float = 0.5, retries: int = 5) -> Link:
    """Opens a serial port as a `Link`; see `pvq_hw.host.serial_port.open_port` for what it
    raises."""
    return Link(open_port(path, baud), timeout=timeout, retries=retries, baud=baud)
