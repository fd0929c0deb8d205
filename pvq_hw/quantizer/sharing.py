"""Codes chosen for what their rows have in common: layers that become wires need fewer adders.

Of moves of single pulses, those are taken with which `pvq_hw.engine.adder_graph` finds fewer
adders, while the sums keep to what they were but for a given part.
The search is a walk: what is as good is taken too, so that it gets on where no move alone helps.
All that moves are judged by is whole numbers and quotients of them, the same on every machine.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.adder_graph import MOST_PAIRS, make_adder_graph, pairs_of_digits
from pvq_hw.quantizer.autodiff import Tape, node_groups
from pvq_hw.quantizer.expansion import Rows
from pvq_hw.quantizer.fused import Step

__all__ = ["TRIES", "WORK", "adder_count", "share_rows", "share_sums"]

IntArray = npt.NDArray[np.int64]
RealArray = npt.NDArray[np.float64]

TRIES = 40_000
"""Moves of a layer that are thought of at most."""

WORK = 12_000_000
"""Pairs of digits of all graphs that are tried for a layer: about half a minute."""

_POSITIONS = 1024  # of a layer's inputs by which its sums are compared
_BITS = 12  # of a weight, for the same
_SPAN = ((0, 255),)  # of an input; counts of adders do not depend on it
_CHUNK = 64


def adder_count(y: IntArray) -> int:
    """Adders of ``y @ x``."""
    return len(make_adder_graph(y, _SPAN * y.shape[1], keep=False).adders)


def share_sums(
    w: npt.ArrayLike,
    y: npt.ArrayLike,
    loss: float,
    gram: npt.ArrayLike | None = None,
    *,
    allowed: npt.NDArray[np.bool_] | None = None,
    tries: int = TRIES,
    work: int = WORK,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> IntArray:
    """Codewords of the same K whose rows share more sub-sums.

    Parameters
    ----------
    w : array (M, N)
        Weights whose sums are meant: the original ones, or codes that are fitted to the outputs.
    y : int array (M, N)
        Codewords.
    loss : float
        Part of the mean cosine between a row's sums and those of its weights that may be lost.
    gram : int array (N, N), optional
        Sums of products of the inputs, less those of their means: at most ``2**36``. Without it
        inputs are independent and alike.
    allowed : bool array (M, N), optional
        Where pulses may be.
    tries : int
        Moves that are thought of at most.
    work : int
        Pairs of digits of all graphs that are tried.
    seed : int
    progress : function (part done), optional

    Returns
    -------
    int64 array (M, N); ``y`` where no move helps, or where too few graphs could be tried.
    """
    codes = np.array(y, dtype=np.int64)
    pairs = pairs_of_digits(codes)
    tries = min(tries, work * 8 // max(1, pairs))
    graphs = work // max(1, pairs)
    if pairs > MOST_PAIRS or graphs < len(codes) or codes.shape[1] < 2:
        return codes
    walk = _Walk(np.asarray(w, dtype=np.float64), codes, gram, allowed, loss, seed)
    for done in range(tries):
        if not walk.step():
            continue
        graphs -= 1
        if not graphs:
            break
        if progress:
            progress(done / tries)
    return walk.y


def _whole(w: RealArray) -> IntArray:
    """Weights as whole numbers, each row's largest one alike."""
    most = np.abs(w).max(axis=1, keepdims=True)
    return np.rint(w / np.where(most > 0, most, 1) * (1 << _BITS)).astype(np.int64)


class _Walk:
    """Codes on their way."""

    def __init__(
        self,
        w: RealArray,
        y: IntArray,
        gram: npt.ArrayLike | None,
        allowed: npt.NDArray[np.bool_] | None,
        loss: float,
        seed: int,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.w = _whole(w)
        n = y.shape[1]
        self.gram = np.eye(n, dtype=np.int64) if gram is None else np.asarray(gram, dtype=np.int64)
        self.allowed = np.ones(y.shape, dtype=bool) if allowed is None else allowed
        self.y, self.adders = y, adder_count(y)
        self.wanted = self.w @ self.gram  # what a pulse adds to the product with the weights' sums
        self.product = (self.wanted * y).sum(axis=1)
        self.square = (y @ self.gram * y).sum(axis=1)
        self.size = np.sqrt((self.wanted * self.w).sum(axis=1).astype(np.float64))
        self.cosines = self._cosines(self.product, self.square, self.size)
        self.least = float(self.cosines.sum()) * (1 - loss)

    @staticmethod
    def _cosines(product: IntArray, square: IntArray, size: RealArray) -> RealArray:
        length = np.sqrt(square.astype(np.float64)) * size
        found = product.astype(np.float64) / np.where(length > 0, length, 1)
        return np.asarray(np.where(length > 0, found, 0.0))

    def step(self) -> bool:
        """Tries a move; whether a graph was made for it."""
        row = int(self.rng.integers(len(self.y)))
        own = self.y[row]
        used = np.flatnonzero(own)
        if not used.size or self.size[row] == 0:
            return False
        source, target = int(self.rng.choice(used)), int(self.rng.integers(len(own)))
        up = int(np.sign(own[target]) or np.sign(self.wanted[row, target]))
        down = -int(np.sign(own[source]))
        if source == target or not up or not self.allowed[row, target]:
            return False
        found = self._moved(row, source, down, target, up)
        if float(self.cosines.sum() - self.cosines[row] + found[2]) < self.least:
            return False
        codes = self.y.copy()
        codes[row, source] += down
        codes[row, target] += up
        adders = adder_count(codes)
        if adders <= self.adders:
            self.y, self.adders = codes, adders
            self.product[row], self.square[row], self.cosines[row] = found
        return True

    def _moved(
        self, row: int, source: int, down: int, target: int, up: int
    ) -> tuple[int, int, float]:
        """Product, square and cosine of a row after a move."""
        gram, own = self.gram, self.y[row]
        product = (
            self.product[row] + down * self.wanted[row, source] + up * self.wanted[row, target]
        )
        along = int(gram[source] @ own) * down + int(gram[target] @ own) * up
        square = self.square[row] + 2 * along + gram[source, source] + gram[target, target]
        square += 2 * down * up * gram[source, target]
        cosine = self._cosines(*(np.array([v]) for v in (product, square, self.size[row])))
        return int(product), int(square), float(cosine[0])


def share_rows(
    tape: Tape,
    rows: Mapping[str, Rows],
    x: npt.NDArray[np.float32],
    loss: Mapping[str, float],
    *,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Rows]:
    """The layers, first to last, with the codes of those in ``loss`` chosen for sharing, their
    gains and biases such that sums stay as near as they can; see `share_sums`.

    Sums are held against those of the codes as they come, which make good one another's errors:
    held against those of the weights, a network of digits lost 2 points of its answers instead of
    none. Layers whose rows see different channels share nothing between their groups: they are as
    they came.
    """
    found = dict(rows)
    asked = {*rows} & {*loss}
    chosen = [s for s in tape.steps if s.name in asked and node_groups(s.node) == 1]
    for count, step in enumerate(chosen):
        layer = found[step.name]
        gram, mean = _inputs(tape, step, x, seed)
        y = share_sums(
            layer.y.astype(np.float64), layer.y, loss[step.name], gram, allowed=layer.allowed,
            seed=seed, progress=_among(progress, count, len(chosen)),
        )  # fmt: skip
        found[step.name] = _fitted(layer, y, gram, mean)
        found[step.name].put(tape, step.name)
    return found


def _among(
    progress: Callable[[str, float], None] | None, done: int, count: int
) -> Callable[[float], None] | None:
    """Reports parts of one of some layers as parts of all."""
    if progress is None:
        return None
    return lambda part: progress("all layers", (done + part) / count)


def _inputs(
    tape: Tape, step: Step, x: npt.NDArray[np.float32], seed: int
) -> tuple[IntArray, RealArray]:
    """Sums of products of a layer's inputs, as whole numbers, less those of their means; and these
    means, as they are."""
    frames = np.sort(np.random.default_rng(seed).permutation(len(x))[:_POSITIONS])
    parts, unit = [], 1.0
    for start in range(0, len(frames), _CHUNK):
        values = {tape.source: x[frames[start : start + _CHUNK]]}
        values = tape.resume(values, tape.steps[0].name, until=step.name)
        columns = tape.columns(step, values[step.inputs[0]])
        parts.append(columns.values[0])
        unit = columns.unit
    every = np.concatenate(parts)
    every = every[np.linspace(0, len(every) - 1, min(_POSITIONS, len(every))).astype(np.int64)]
    some = np.rint(every * (255 / max(1.0, float(np.abs(every).max())))).astype(np.int64)
    total = some.sum(axis=0)
    gram = len(some) * (some.T @ some) - np.outer(total, total)
    return gram, every.mean(axis=0, dtype=np.float64) * unit


def _fitted(layer: Rows, y: IntArray, gram: IntArray, mean: RealArray) -> Rows:
    """The layer with other codes: gains of the sums nearest to those of before, and biases of their
    means."""
    square, product = ((codes @ gram * y).sum(axis=1) for codes in (y, layer.y))
    part = np.where((square > 0) & (product > 0), product / np.maximum(square, 1), 1.0)
    gain = layer.gain * part[:, None]
    return replace(
        layer, y=y, gain=gain, bias=layer.bias + (layer.y * layer.gain - y * gain) @ mean
    )
