"""Pulses of the rows of a network of any shape, by what rounding them does to its outputs.

Each layer is quantized at a few K; the error of each row's sums, at every position of the map, is
carried to the outputs by the float model's derivatives. Positions add up before they are squared,
so that errors which a pooling averages out count for little.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from pvq_hw.arith import exact
from pvq_hw.pyramid.nearest import nearest
from pvq_hw.quantizer.autodiff import Columns, Tape, derivatives, node_groups
from pvq_hw.quantizer.budget import MOST_PULSES, Curve, allocate, layer_shares, shared_total, spread
from pvq_hw.quantizer.fused import Step
from pvq_hw.quantizer.layer_options import Request
from pvq_hw.quantizer.metric import Metric, PartMetric, output_metric
from pvq_hw.quantizer.pulse_moves import column_means, improve, moments, ridge_weights

__all__ = ["measured_pulses"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_FRAMES = 256
_SAMPLES = 16_000  # window positions that the trial codes are fitted to
_DRAWS = 4  # random combinations of the outputs of a frame whose derivatives are taken
_STEPS = 2.0 ** np.arange(-2, 3.5, 1)
_CHUNK = 16


def measured_pulses(
    steps: tuple[Step, ...],
    x: FloatArray,
    ratio: float,
    asked: Mapping[str, Request],
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, IntArray]:
    """K of every row, (M,), or (M, G) where rows have groups, of the layers with pulses, by name.

    Parameters
    ----------
    steps : tuple of Step
    x : float32 array (frames, \\*shape)
        The float model's inputs; at most 256 frames are looked at.
    ratio : float
        Mean N/K of the layers that have neither pulses nor a total of their own in ``asked``.

    Raises
    ------
    InputError
        Where the ratio leaves rows without a pulse.
    """
    x = x[:: max(1, len(x) // _FRAMES)][:_FRAMES].astype(np.float32)
    tape = Tape(steps, steps[0].inputs[0])
    if any(step.node.size != step.node.shape[-1] for step in steps):  # one with maps
        tape.in_single()
    pulsed = {s.name: s for s in steps if s.weighted and not asked[s.name].int8}
    given = {n: asked[n].k for n in pulsed}
    result = {n: k if k.shape[1] > 1 else k[:, 0] for n, k in given.items() if k is not None}
    sizes = {n: step.weight.size for n, step in pulsed.items() if n not in result}
    own = {n: total for n in sizes if (total := asked[n].total) is not None}
    shapes = {n: (len(pulsed[n].weight), size) for n, size in sizes.items() if n not in own}
    wide = {n for n in sizes if asked[n].wide}
    shares = own | layer_shares(shapes, ratio) if wide else own
    for name in wide:  # their plain codes have errors that say nothing of more pulses
        even = spread(np.ones(len(pulsed[name].weight) * asked[name].groups), shares[name])
        result[name] = even if asked[name].groups == 1 else even.reshape(-1, asked[name].groups)
        del sizes[name]
    if not sizes:
        return result
    own = {n: total for n, total in own.items() if n in sizes}
    ratios = {n: size / own[n] if n in own else ratio for n, size in sizes.items()}
    grids = {n: _grid(pulsed[n], ratios[n]) for n in sizes}
    samples, outputs = _sample(tape, x, list(grids), np.random.default_rng(seed))
    changes = {}
    for name in grids:
        changes[name] = _trials(pulsed[name], *samples.pop(name), grids[name])
        if progress:
            progress("allocation", len(changes) / (len(grids) + 2))
    curves = _curves(tape, x, grids, changes, output_metric(tape.steps[-1], outputs, x), seed)
    found = {n: allocate([curves[n]], max(len(curves[n].scale), own[n]))[0] for n in own}
    pool = [n for n in grids if n not in own]
    if pool:
        total = shared_total(shapes, ratio) - sum(shares[n] for n in wide & shapes.keys())
        found |= dict(zip(pool, allocate([curves[n] for n in pool], total), strict=True))
    for name, k in found.items():
        groups = asked[name].groups
        result[name] = k if groups == 1 else asked[name].by_group(k)
    if progress:
        progress("allocation", 1.0)
    return result


def _grid(step: Step, ratio: float) -> IntArray:
    """The K that are tried for a layer's rows."""
    n = step.weight.shape[1]
    most = int(MOST_PULSES * n * max(1.0, 1 / ratio)) + 1
    grid = np.unique(np.clip(np.rint(n / ratio * _STEPS), 1, most).astype(np.int64))
    return grid if len(grid) > 1 else np.array([grid[0], grid[0] + 1])


def _sample(
    tape: Tape, x: FloatArray, names: list[str], rng: np.random.Generator
) -> tuple[dict[str, tuple[FloatArray, FloatArray]], FloatArray]:
    """What the rows of each layer multiply, (groups, positions, N), and their sums; and the
    network's outputs, (frames, C)."""
    found: dict[str, list[tuple[FloatArray, FloatArray]]] = {name: [] for name in names}
    steps = [step for step in tape.steps if step.name in found]
    outputs = []
    for start in range(0, len(x), _CHUNK):
        values = tape.forward(x[start : start + _CHUNK])
        outputs.append(values[tape.output])
        for step in steps:
            columns = tape.columns(step, values[step.inputs[0]])
            positions = columns.values.shape[1]
            count = max(1, min(positions, _SAMPLES * _CHUNK // max(len(x), _CHUNK)))
            part = columns.at(np.sort(rng.choice(positions, count, replace=False)))
            found[step.name].append((part.values * part.unit, tape.products(step, part)))
    joined = {
        name: (np.concatenate([c for c, _ in parts], axis=1), np.concatenate([t for _, t in parts]))
        for name, parts in found.items()
    }
    return joined, np.concatenate(outputs).reshape(len(x), -1)


def _trials(step: Step, columns: FloatArray, sums: FloatArray, grid: IntArray) -> FloatArray:
    """What each K of the grid changes of the weights, (J, M, N), and of the mean: it is centered
    by its bias, the last of N + 1 columns."""
    w = step.weight
    groups = node_groups(step.node)
    size = len(w) // groups
    parts = [slice(g * size, (g + 1) * size) for g in range(groups)]
    change = np.empty((len(grid), len(w), w.shape[1] + 1), dtype=np.float32)
    found = [moments(columns[g], sums[:, part], w[part]) for g, part in enumerate(parts)]
    start = np.concatenate([ridge_weights(m) for m in found])
    means = [column_means(values, np.float64) for values in columns]
    for j, k in enumerate(grid):
        nearby = nearest(start, np.full(len(w), k))
        for part, m, mean in zip(parts, found, means, strict=True):
            y, gain = improve(m, nearby[part], patience=4)
            change[j, part, :-1] = y * gain - w[part]
            change[j, part, -1] = -(change[j, part, :-1] * mean).sum(axis=1)
    return change


def _curves(
    tape: Tape,
    x: FloatArray,
    grids: Mapping[str, IntArray],
    changes: Mapping[str, FloatArray],
    metric_of: Callable[[FloatArray], Metric | PartMetric],
    seed: int,
) -> dict[str, Curve]:
    """Effect on the outputs of every row at every K of its grid."""
    rng = np.random.default_rng(seed + 1)
    steps = [step for step in tape.steps if step.name in grids]
    effect = {name: np.zeros(change.shape[:2]) for name, change in changes.items()}
    for start in range(0, len(x), _CHUNK):
        values = tape.forward(x[start : start + _CHUNK], keep=True)
        outputs = values[tape.output].reshape(len(values[tape.output]), -1)
        metric = metric_of(outputs)
        drawn = []
        for _ in range(_DRAWS):
            signs = rng.choice(np.array([-1, 1], dtype=np.float32), outputs.shape)
            seeds = metric.weigh_back(signs).reshape(values[tape.output].shape)
            drawn.append(tape.backward(values, {tape.output: seeds}))
        for step in steps:
            slopes = np.stack([sums[step.name] for sums in drawn])
            effect[step.name] += _effect(
                changes[step.name], slopes, tape.columns(step, values[step.inputs[0]])
            )
    return {name: _curve(grids[name], effect[name] / (len(x) * _DRAWS)) for name in grids}


def _effect(change: FloatArray, slopes: FloatArray, columns: Columns) -> npt.NDArray[np.float64]:
    """Squares of what changes (J, M, N + 1) of the rows do to scalars of frames whose gradients by
    the sums are ``slopes`` (scalars, frames, ..., M), added up: (J, M)."""
    groups = len(columns.values)
    rows, n = change.shape[1:]
    if groups == 1 and slopes[0, 0].size == rows:  # one position: sums that change, times slopes
        inputs = columns.values[0] * columns.unit
        sums = exact.product(inputs, change[:, :, :-1].reshape(-1, n - 1).T)
        sums = sums.reshape(len(inputs), -1, rows) + change[:, :, -1]
        weights = np.square(slopes, dtype=np.float64).sum(axis=0).reshape(len(inputs), 1, rows)
        return np.asarray((np.square(sums) * weights).sum(axis=0))
    split = slopes.reshape(*slopes.shape[:2], -1, groups, rows // groups).transpose(3, 1, 0, 2, 4)
    bits = exact.grid_bits(n)
    by_weight = exact.grid(derivatives(split, columns).reshape(rows, -1, n), bits)
    moved = np.matmul(by_weight, exact.grid(change, bits).transpose(1, 2, 0))
    return np.asarray(np.square(moved).sum(axis=1).T)


def _curve(grid: IntArray, effect: npt.NDArray[np.float64]) -> Curve:
    """Common shape of the rows' errors, and each row's own height."""
    floor = 1e-9 * effect.max(initial=1e-30)
    logs = exact.log(np.maximum(effect, floor))
    # Single rows are noisy: their heights are the mean over the grid, the shape is the mean row's.
    height = logs.mean(axis=0)
    shape = (logs - height).mean(axis=1, keepdims=True)
    return Curve(grid, exact.exp(shape), exact.exp(height))
