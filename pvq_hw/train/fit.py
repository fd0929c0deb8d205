"""Training a float model on labels."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError
from pvq_hw.model.model import Model
from pvq_hw.model.nodes import Node
from pvq_hw.train.torch_extra import require_torch
from pvq_hw.train.torch_model import Graph

__all__ = ["Schedule", "batches", "fit", "frames", "shifted", "with_weights"]

Tensor = Any
FloatArray = npt.NDArray[np.float64]


class Schedule:
    """A learning rate that rises over a twentieth of the steps, then falls to 0 as a cosine."""

    def __init__(self, steps: int) -> None:
        self.steps = max(1, steps)
        self.rise = max(1, steps // 20)

    def __call__(self, step: int) -> float:
        if step < self.rise:
            return (step + 1) / self.rise
        part = (step - self.rise) / max(1, self.steps - self.rise)
        return float(0.5 * (1 + np.cos(np.pi * min(1.0, part))))


def frames(model: Model, x: npt.ArrayLike, input_scale: float = 1.0) -> npt.NDArray[np.float32]:
    """Data (frames, ...) as float32 (frames, \\*model.shape)."""
    array = np.asarray(x)
    parts = [
        model.to_internal(array[i : i + 4096], input_scale).astype(np.float32)
        for i in range(0, len(array), 4096)
    ]
    if not parts:
        raise InputError("Training data must have frames")
    return np.concatenate(parts)


def batches(count: int, size: int, rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """The frames in a random order, in batches of ``size``; the rest that makes no whole batch is
    left out."""
    order = rng.permutation(count)
    size = min(size, count)
    return [order[i : i + size] for i in range(0, count - size + 1, size)]


def shifted(x: npt.NDArray[Any], most: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Maps (frames, height, width, channels) moved by up to ``most`` places each way, each by its
    own draw; zeros come in. Sides of length 1 are not moved."""
    if not most:
        return x
    out = np.zeros_like(x)
    reach = [min(most, n - 1) for n in x.shape[1:3]]
    draws = np.stack([rng.integers(-r, r + 1, len(x)) for r in reach], axis=1)
    for dy, dx in np.unique(draws, axis=0):
        some = np.flatnonzero((draws == (dy, dx)).all(axis=1))
        to, since = _cut(int(dy), x.shape[1])
        left, right = _cut(int(dx), x.shape[2])
        out[
            some[:, None, None], np.arange(x.shape[1])[to][:, None], np.arange(x.shape[2])[left]
        ] = x[some][:, since, right]
    return out


def _cut(move: int, size: int) -> tuple[slice, slice]:
    """Where values go and where they come from."""
    return slice(max(0, move), size + min(0, move)), slice(max(0, -move), size - max(0, move))


def with_weights(
    model: Model, weights: dict[str, FloatArray], biases: dict[str, FloatArray], **fields: Any
) -> Model:
    """The model with other weights (M, N) and biases (M,), by the names of its nodes."""
    nodes: list[Node] = []
    for node in model.nodes:
        if node.name in weights and node.weighted:
            node = node.with_weights(weights[node.name], biases[node.name])
        nodes.append(node)
    return replace(model, nodes=tuple(nodes), **fields)


def fit(
    model: Model,
    x: npt.NDArray[np.float32],
    y: npt.NDArray[Any],
    *,
    epochs: int,
    rate: float = 2e-3,
    batch: int = 32,
    decay: float = 1e-3,
    vary: Callable[[npt.NDArray[Any], np.random.Generator], npt.NDArray[Any]] | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Model:
    """Trains every weight and bias by AdamW on cross-entropy; one thread, one seed, so that the
    same machine gives the same weights.

    Parameters
    ----------
    x : float32 array (frames, \\*model.shape)
        See `frames`.
    y : int array (frames,)
        Class numbers.
    vary : function (batch of x, generator) -> batch, optional
        Augmentation.
    """
    torch = require_torch()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        graph, rng = Graph(model), np.random.default_rng(seed)
        leaves = [*graph.weight.values(), *graph.bias.values()]
        optimizer = torch.optim.AdamW(leaves, rate, weight_decay=decay)
        labels = torch.tensor(np.asarray(y).astype(np.int64))
        steps = epochs * (len(x) // min(batch, len(x)))
        curve, step = Schedule(steps), 0
        for epoch in range(epochs):
            for some in batches(len(x), batch, rng):
                for group in optimizer.param_groups:
                    group["lr"] = rate * curve(step)
                part = vary(x[some], rng) if vary else x[some]
                loss = torch.nn.functional.cross_entropy(
                    graph.run(torch.from_numpy(part)), labels[some]
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
            if progress:
                progress((epoch + 1) / epochs)
    finally:
        torch.set_num_threads(threads)
    weights = {n: w.detach().numpy().astype(np.float64) for n, w in graph.weight.items()}
    biases = {n: b.detach().numpy().astype(np.float64) for n, b in graph.bias.items()}
    return with_weights(model, weights, biases)
