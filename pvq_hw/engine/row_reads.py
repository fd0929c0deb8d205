"""When a sequencer reads rows of code words while their results have places."""

from collections.abc import Callable, Generator, Iterable
from typing import Protocol

from pvq_hw.engine.core import CoreBase

__all__ = ["RowReads", "Stream"]


class Stream(Protocol):
    """The part of `pvq_hw.engine.timing.Wire` that is used here."""

    offers: list[int]
    readies: list[int]
    moved: list[int]

    def settle(self) -> None: ...


class RowReads:
    """Rows whose results are given on a stream, as `gateware.core.sequencer.Sequencer` reads them.

    Parameters
    ----------
    spec : CoreBase
        Its ``credits`` are the places that may be promised.
    o : Stream
        Gets every result's offer.
    take : callable, optional
        Where words come one by one: given a cycle, the one in which the next word is read, that or
        a later one. Asked for again, with that cycle, until it is the same: the word is read then.
    """

    def __init__(self, spec: CoreBase, o: Stream, take: Callable[[int], int] | None = None) -> None:
        self.spec, self.o, self._take = spec, o, take
        self._strobes: list[int] = []  # rows' ends at the output of the code ROM
        self._counted = 0

    def rows(self, now: int, lengths: Iterable[int]) -> Generator[None, None, int]:
        """Reads rows of so many words from cycle ``now`` on, or later; returns the cycle after the
        last word's read. Yields while what it needs to know isn't known."""
        spec, o, strobes, counted = self.spec, self.o, self._strobes, self._counted
        limit, pops = spec.credits, o.moved
        strobed, given = spec.code_latency, spec.output_delay
        for length in lengths:
            left = length
            while left:
                seen = now - 1  # the credit counter registers its strobes first
                while counted < len(strobes) and strobes[counted] < seen:
                    counted += 1
                if counted >= limit:
                    while len(pops) <= counted - limit:
                        yield
                    if pops[counted - limit] >= seen:
                        now = pops[counted - limit] + 2
                        continue
                if self._take is not None:
                    at = self._take(now)
                    if at == now:
                        now, left = now + 1, left - 1
                    else:
                        now = at
                    continue
                # Nothing changes until the next row under way ends.
                step = left
                if counted < len(strobes):
                    step = min(left, strobes[counted] + 2 - now)
                now += step
                left -= step
            strobes.append(now - 1 + strobed)
            o.offers.append(now - 1 + given)
        self._counted = counted
        o.settle()
        return now
