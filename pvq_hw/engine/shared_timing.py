"""Exact cycles of an engine of several layers; see `gateware.core.shared_core`."""

from collections.abc import Generator, Sequence

from pvq_hw.engine.code_stream import Arrivals
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.map_core import MapSpec
from pvq_hw.engine.row_reads import RowReads, Stream
from pvq_hw.engine.shared_core import SharedLayer, SharedSpec

__all__ = ["compute_layers", "map_layers", "take_frames"]


def take_frames(
    spec: SharedSpec,
    i: Stream,
    written: list[int],
    released: list[int],
    blocked: Sequence[set[int]],
    frames: int,
) -> Generator[None, None, None]:
    """Takes frames: each when the first layer has read the one before, and nothing in the cycles
    in which a result between layers takes the banks' way in.

    ``blocked`` has those cycles by frame, known before the frame's ``released``.
    """
    for frame in range(frames):
        while len(released) < frame:
            yield
        free = released[frame - 1] + 1 if frame else 0
        shut = blocked[frame - 1] if frame else set()
        for k in range(frame * spec.n, (frame + 1) * spec.n):
            while len(i.offers) <= k:
                yield
            now = max(free, i.offers[k], i.moved[-1] + 1 if i.moved else 0)
            while now in shut:
                now += 1
            i.readies.append(now)
            i.settle()
        written.append(i.moved[-1])


def compute_layers(
    spec: SharedSpec,
    image: CoreImage,
    o: Stream,
    written: Sequence[int],
    released: list[int],
    blocked: list[set[int]],
    frames: int,
) -> Generator[None, None, None]:
    """Reads code words, layer after layer; those of the last one while results have places."""
    slots, lengths = spec.row_slots(image), []
    for layer in spec.layers:
        lengths.append(slots[: layer.rows])
        slots = slots[layer.rows :]
    arrivals = Arrivals(spec) if spec.code_memory == "flash" else None
    reads, now = RowReads(spec, o, arrivals.take if arrivals else None), 0
    for frame in range(frames):
        while len(written) <= frame:
            yield
        now = max(now, written[frame] + 2)
        shut: set[int] = set()
        blocked.append(shut)
        first = 0
        for number, rows in enumerate(lengths[:-1]):
            for length in rows:
                now = _read(arrivals, now, length)
                shut.add(now - 1 + spec.result_stage - 1)
            first = first if number else now
            now += spec.turn_cycles - 1
        if len(lengths) > 1:
            released.append(first - 1 + spec.code_latency)
        now = yield from reads.rows(now, lengths[-1])
        if len(lengths) == 1:
            released.append(now - 1 + spec.code_latency)
        now += spec.turn_cycles - 1


def _read(arrivals: Arrivals | None, now: int, words: int) -> int:
    """The cycle after the last of some words is read, the first one from ``now`` on."""
    if arrivals is None:
        return now + words
    for _ in range(words):
        now = max(now, arrivals.ready())
        arrivals.free(now)
        now += 1
    return now


def map_layers(
    spec: MapSpec, image: CoreImage, i: Stream, o: Stream, frames: int
) -> Generator[None, None, None]:
    """Takes a frame, then fetches and computes window after window; see
    `gateware.core.map_core`."""
    last = spec.layers[-1]
    lengths = spec.row_slots(image)[-last.rows :]
    reads, free = RowReads(spec, o), 0
    arrivals = Arrivals(spec) if spec.code_memory == "flash" else None

    def ready(layer: SharedLayer) -> int:
        """When all of a layer's words are known to be there."""
        return 0 if arrivals is None else arrivals.ready(layer.words) + 1

    def give_back(layer: SharedLayer, end: int) -> None:
        """After a layer's last word, the places of its words, and later those of its rows."""
        if arrivals is not None:
            arrivals.free(end, layer.words)
        if arrivals is not None and spec.params_buffer:
            arrivals.free_params(end + spec.last_result_stage, layer.rows * spec.row_words)

    for frame in range(frames):
        i.readies += [free] * spec.n
        i.settle()
        while len(i.moved) < (frame + 1) * spec.n:
            yield
        start = i.moved[-1] + 1
        for layer in spec.layers[:-1]:
            end = spec.last_word(layer, start, ready(layer))
            give_back(layer, end)
            start = end + spec.turn_cycles
        start = max(spec.first_word(last, start), ready(last))
        end = yield from reads.rows(start, lengths)
        give_back(last, end - 1)
        free = end + spec.turn_cycles
