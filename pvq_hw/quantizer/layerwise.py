"""Calibrated quantization of a chain: measure, allocate, move pulses layer by layer, refine."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith import exact
from pvq_hw.pyramid.nearest import nearest
from pvq_hw.quantizer.banks import balance
from pvq_hw.quantizer.budget import Curve, allocate, round_to_multiple, shared_total
from pvq_hw.quantizer.emit import Codes
from pvq_hw.quantizer.fused import Step
from pvq_hw.quantizer.layer_options import Request
from pvq_hw.quantizer.pulse_moves import improve, moments, output_error, ridge_weights, within
from pvq_hw.quantizer.refine import Link, forward, refine, sensitivity
from pvq_hw.quantizer.scales import error_minimizing_scale, round_to_lattice

__all__ = ["calibrated", "row_pulses"]

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Progress = Callable[[str, float], None]

_MEASURE_FRAMES = 3000
_MEASURE_ROWS = 48
_SWEEP_VALUES = 1 << 24  # frames times units that sweeps see; their memory grows with them
_DAMPING = 0.03  # of the layers' moments: what held-out images ask for at 6,000 frames
_LARGE = 0.25  # part of the network's weights from which a layer's K stays near the mean


def calibrated(
    stages: tuple[Step, ...],
    asked: list[Request],
    fallback: Callable[[Step, Request], Codes],
    x: FloatArray,
    pulses: list[IntArray],
    bits: int,
    sweeps: int,
    progress: Progress | None,
    patience: int = 16,
) -> list[Codes]:
    """Codes of every layer.

    Parameters
    ----------
    fallback : function
        Gives the codes of layers that take no pulses (int8).
    x : float64 array (frames, N)
        Inputs on their lattice.
    pulses : list of int64 array (M, G)
        K of every group of every layer, as `row_pulses` gives them.
    bits : int
        Of the activations between layers.
    sweeps : int
        Of `pvq_hw.quantizer.refine.refine`; 0 leaves it out.
    patience : int
        Of `pvq_hw.quantizer.pulse_moves.improve`.
    """
    first = x.astype(np.float32)
    links, inputs = _float_links(stages, first), first
    for stage, request, link, k in zip(stages, asked, links, pulses, strict=True):
        if request.int8:
            code = fallback(stage, request)
            link.y, link.gain = code.y, code.gain
        else:
            _layer(stage, request, link, k, inputs, progress, patience)
        link.movable = not request.int8 and request.groups == 1 and not request.shared
        link.bias = np.zeros(len(link.bias))
        link.bias = np.asarray(
            (link.reference - link.sums(inputs)).mean(axis=0, dtype=np.float64), dtype=np.float64
        )
        inputs = _activate(stage, link, inputs, bits)
        if progress:
            progress(stage.name, 1.0)
    # What the sweeps expand in has no slope where a sign is.
    signs = any(link.activation.binary for link in links)
    if sweeps and any(link.movable for link in links) and not signs:
        told = (lambda part: progress("all layers", part)) if progress else None
        seen = _seen(len(first), max(len(link.y) for link in links))
        for link in links:
            link.reference = link.reference[seen]
        refine(links, first[seen], sweeps=sweeps, progress=told)
    sums = forward(links, first)
    return [
        Codes(
            link.y, link.gain, link.bias, "int8" if request.int8 else "pvq",
            z.mean(axis=0, dtype=np.float64),
        )
        for link, request, z in zip(links, asked, sums, strict=True)
    ]  # fmt: skip


def _seen(frames: int, units: int) -> IntArray | slice:
    """The frames that the sweeps see, evenly spread."""
    count = max(1, _SWEEP_VALUES // units)
    if frames <= count:
        return slice(None)
    return np.linspace(0, frames - 1, count).astype(np.int64)


def _float_links(stages: tuple[Step, ...], x: Float32Array) -> list[Link]:
    """The float model as links: real weights, gain 1, and its sums as the reference."""
    links, values = [], x
    for stage in stages:
        weight = stage.weight
        y: Any = weight  # real, not yet integer
        z = exact.sums(values, weight, stage.bias)
        gain = np.ones((len(weight), 1))
        links.append(
            Link(
                y,
                gain,
                stage.bias,
                stage.activation,
                z,
                movable=True,
                weight=weight,
            )
        )
        values = stage.activation.compute(z)
    return links


def _activate(
    stage: Step, link: Link, inputs: npt.NDArray[np.float32], bits: int
) -> npt.NDArray[np.float32]:
    """What the next layer will see: the activation on the lattice of its width."""
    values = link.activation.compute(link.sums(inputs)).astype(np.float64)
    if stage.last or stage.activation.binary:
        return values.astype(np.float32)
    fmt = stage.activation.format(bits)
    scale = error_minimizing_scale(values, fmt)
    return (round_to_lattice(values, scale, fmt) * scale).astype(np.float32)


def _layer(
    stage: Step,
    request: Request,
    link: Link,
    k: IntArray,
    inputs: npt.NDArray[np.float32],
    progress: Progress | None,
    patience: int,
) -> None:
    """Codewords of the least output error of one layer on the inputs given."""
    w = stage.weight
    m = moments(inputs, link.reference, w, _DAMPING)
    start = ridge_weights(m)
    if request.keep_zeros:
        link.allowed = w != 0
        start *= link.allowed
    if request.placement:
        y = balance(start, k[:, 0], request.placement)
    elif request.shared:
        y = nearest(start.reshape(1, -1), np.array([k.sum()])).reshape(w.shape)
    else:
        y = nearest(start.reshape(k.size, -1), k.ravel()).reshape(w.shape)
    if link.allowed is not None:
        y = within(y, link.allowed, start)
    link.placement = request.placement
    link.y, link.gain = improve(
        m,
        y,
        groups=request.groups,
        shared=request.shared,
        placement=request.placement,
        allowed=link.allowed,
        patience=patience,
        progress=(lambda part: progress(stage.name, part)) if progress else None,
    )


def row_pulses(
    stages: tuple[Step, ...],
    asked: list[Request],
    x: FloatArray,
    ratio: float,
    progress: Progress | None = None,
) -> list[IntArray]:
    """K of every group of every layer, (M, G): as asked for, the rest from one budget.

    Parameters
    ----------
    x : float64 array (frames, N)
        Inputs on their lattice; the first 3,000 count.
    ratio : float
        Mean N/K of the layers that leave it open.
    """
    first = x[:_MEASURE_FRAMES].astype(np.float32)
    links = _float_links(stages, first)
    open_layers = [i for i, r in enumerate(asked) if not r.int8 and r.k is None]
    pool = [i for i in open_layers if asked[i].total is None]
    weights = {i: stages[i].weight.size for i in open_layers}
    sensitive = sensitivity(links, first) if open_layers else []
    curves: dict[int, Curve] = {}
    for i in open_layers:
        total = asked[i].total
        near = ratio if total is None else weights[i] / total
        large = i not in pool or weights[i] >= _LARGE * sum(weights[j] for j in pool)
        inputs = first if i == 0 else links[i - 1].activation.compute(links[i - 1].reference)
        curves[i] = _measure(stages[i], links[i], inputs, sensitive[i], near, large)
        if progress:
            progress("allocation", (i + 1) / len(stages))
    found = {i: allocate([curves[i]], asked[i].total or 0)[0] for i in open_layers if i not in pool}
    if pool:
        matrices = {stages[i].name: stages[i].weight for i in pool}
        total = shared_total({n: (len(w), w.size) for n, w in matrices.items()}, ratio)
        found |= dict(zip(pool, allocate([curves[i] for i in pool], total), strict=True))
    result = []
    for i, (stage, request) in enumerate(zip(stages, asked, strict=True)):
        if i in found:
            multiple = request.multiple * request.groups
            k = round_to_multiple(found[i], multiple)
            result.append(np.repeat(k[:, None] // request.groups, request.groups, axis=1))
        elif request.k is not None:
            result.append(request.k)
        else:
            result.append(np.zeros((len(stage.weight), 1), dtype=np.int64))
    return result


def _measure(
    stage: Step, link: Link, inputs: Float32Array, sensitive: FloatArray, ratio: float, large: bool
) -> Curve:
    """Errors of a sample of rows at several K, and of every row at the one nearest ``ratio``."""
    w = stage.weight
    rows, n = w.shape
    m = moments(inputs, link.reference, w, _DAMPING)
    start = ridge_weights(m)
    steps = 2.0 ** np.arange(-2, 2.5, 1) if large else 2.0 ** np.arange(-2, 8.5, 1)
    ceiling = int(4 * n * max(1.0, 1 / ratio)) + 1
    grid = np.unique(np.clip(np.rint(n / ratio * steps), 1, ceiling).astype(np.int64))
    if len(grid) == 1:
        grid = np.array([grid[0], grid[0] + 1])
    tried = np.unique(np.linspace(0, rows - 1, min(rows, _MEASURE_ROWS)).astype(np.int64))
    part = m.rows(tried)
    errors = []
    for k in grid:
        y = nearest(start[tried], np.full(len(tried), k))
        errors.append(output_error(part, *improve(part, y, patience=4)))
    error = np.maximum(np.array(errors), 1e-30)
    middle = int(np.abs(exact.log(grid * ratio / n)).argmin()) if large else len(grid) // 2
    y = nearest(start, np.full(rows, grid[middle]))
    own = np.maximum(output_error(m, *improve(m, y, patience=4)), 1e-30)
    scale = own / exact.exp(exact.log(error[middle]).mean()) * sensitive
    return Curve(grid, error, np.maximum(scale, 1e-12 * scale.max(initial=1e-300)))
