"""Source, Sink, Monitor and Watchdog of stream ports, cycle by cycle and without a simulator.

Each agent is told once a cycle what was on the wires at the clock edge (`clock`), and says what
to drive until the next one. The Amaranth bench (`sim.backends.amaranth_runner`) and the cocotb
testbench (`sim.backends.cocotb_tests`) drive the same agents. A wire whose level is unknown (X or
Z) is ``None``.
"""

from collections.abc import Callable, Sequence

from pvq_hw.engine.patterns import NONE, Pattern, draws
from pvq_hw.errors import CheckError

__all__ = ["Monitor", "Sink", "Source", "StreamError", "Watchdog"]


class StreamError(CheckError):
    """A stream broke its protocol, or nothing moves any more."""


class Source:
    """Offers payloads in order: holds ``valid`` and ``payload`` until they are taken.

    ``valid`` never depends on ``ready``: a pause is drawn only while nothing is offered.

    Attributes
    ----------
    valid, payload : int
        To drive until the next clock edge.
    """

    def __init__(self, payloads: Sequence[int], pattern: Pattern = NONE, seed: int = 0) -> None:
        self._payloads = payloads
        self._pauses = draws(pattern, seed)
        self._next = 0
        self.valid = 0
        self.payload = 0
        self._offer()

    def _offer(self) -> None:
        if self.empty or next(self._pauses):
            return
        self.valid, self.payload = 1, int(self._payloads[self._next])

    @property
    def empty(self) -> bool:
        """Whether every payload was taken."""
        return self._next == len(self._payloads)

    def clock(self, ready: int | None) -> None:
        """One clock edge, at which ``ready`` was seen."""
        if self.valid and ready:
            self._next += 1
            self.valid = 0
        if not self.valid:
            self._offer()

    def reset(self) -> None:
        """Starts again with the first payload; the pauses go on."""
        self._next = 0
        self.valid = 0
        self._offer()


class Sink:
    """Drives ``ready``, with the pauses of a pattern.

    Parameters
    ----------
    pattern, seed
        Every cycle draws whether to stall.
    after_valid : bool
        Ready only in the cycle after one that showed ``valid`` without a transfer: a stream whose
        ``valid`` waits for ``ready`` never moves, and the watchdog says so.

    Attributes
    ----------
    ready : int
        To drive until the next clock edge.
    """

    def __init__(self, pattern: Pattern = NONE, seed: int = 0, after_valid: bool = False) -> None:
        self._pauses = draws(pattern, seed)
        self._after_valid = after_valid
        self.ready = 0
        self.clock(0)

    def clock(self, valid: int | None) -> None:
        """One clock edge, at which ``valid`` was seen."""
        waiting = bool(valid) and not self.ready
        self.ready = int(not next(self._pauses) and (waiting or not self._after_valid))


class Monitor:
    """Records a stream's transfers and checks its protocol.

    Checked: ``valid`` and ``ready`` are known levels, so is the payload while valid; once valid, a
    stream stays valid with the same payload until it is ready.

    Attributes
    ----------
    payloads, cycles : list of int
        What was transferred, and at which clock edge.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.payloads: list[int] = []
        self.cycles: list[int] = []
        self._held: int | None = None

    def _fail(self, cycle: int, what: str) -> None:
        raise StreamError(f"Stream {self.name!r}, cycle {cycle}: {what}")

    def clock(self, cycle: int, valid: int | None, ready: int | None, payload: int | None) -> bool:
        """One clock edge. Returns whether there was a transfer; StreamError on a breach."""
        if valid is None or ready is None:
            self._fail(cycle, "valid and ready must be 0 or 1, not unknown")
        if self._held is not None:
            if not valid:
                self._fail(cycle, "valid must hold until ready, but fell")
            if payload != self._held:
                self._fail(
                    cycle, f"payload must hold until ready, but went from {self._held} to {payload}"
                )
        self._held = None
        if not valid:
            return False
        if payload is None:
            self._fail(cycle, "payload must be known while valid")
        assert payload is not None  # the line above raised
        if not ready:
            self._held = payload
            return False
        self.payloads.append(payload)
        self.cycles.append(cycle)
        return True

    def reset(self) -> None:
        """Forgets everything: the circuit was reset."""
        self.payloads.clear()
        self.cycles.clear()
        self._held = None


class Watchdog:
    """Ends a simulation in which nothing moves: a lost handshake would hang it for ever.

    Parameters
    ----------
    limit : int
        Cycles without a transfer on any stream that are still taken for work.
    state : callable
        Gives the words that say how far the streams came.
    """

    def __init__(self, limit: int, state: Callable[[], str] = str) -> None:
        self.limit = limit
        self._state = state
        self._quiet = 0

    def clock(self, moved: bool) -> None:
        """One clock edge; ``moved`` says whether any stream had a transfer."""
        self._quiet = 0 if moved else self._quiet + 1
        if self._quiet > self.limit:
            raise StreamError(f"No stream moved for {self.limit} cycles; {self._state()}")
