"""Trains the networks that the project ships and writes their files.

One seed, a fixed number of epochs, one thread: the same machine and version of PyTorch give the
same bytes. Layers, rates and epochs were chosen by cross-validation on the training data; the
test data only gives the accuracy that is printed.

Run as ``python -m pvq_hw.train.networks [NAME ...] -o FOLDER [--data FOLDER]``.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.data.dataset import Data, load_data, make_data
from pvq_hw.errors import InputError
from pvq_hw.model.export import save_model
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Model
from pvq_hw.model.nodes import Conv, Dense
from pvq_hw.train.builder import Builder
from pvq_hw.train.fit import fit, frames, shifted, with_weights

__all__ = ["NETWORKS", "Recipe", "main", "train_network"]

Floats = npt.NDArray[np.float32]
Varied = Callable[[npt.NDArray[Any], np.random.Generator], npt.NDArray[Any]]


@dataclass(frozen=True)
class Recipe:
    """How one network is made.

    Parameters
    ----------
    data : function (folder) -> (train, test)
    build : function (name, seed) -> Model
        The network with random weights.
    epochs, batch, rate :
        As `pvq_hw.train.fit.fit` takes them.
    vary : function (batch, generator) -> batch, optional
        Augmentation of the training data.
    """

    data: Callable[[Path], tuple[Data, Data]]
    build: Callable[[str, int], Model]
    epochs: int
    batch: int
    rate: float
    vary: Varied | None = None
    seed: int = 0


def _digits(folder: Path) -> tuple[Data, Data]:
    path = folder / "digits.npz"
    train, test = (make_data([path], keys=[f"x_{p}", f"y_{p}"]) for p in ("train", "test"))
    return train, test


def _series(name: str) -> Callable[[Path], tuple[Data, Data]]:
    def read(folder: Path) -> tuple[Data, Data]:
        return load_data(folder / f"{name}_train.npz"), load_data(folder / f"{name}_test.npz")

    return read


def _mlp(name: str, seed: int) -> Model:
    return Builder(name, (64,), seed).dense(32).relu().dense(10).model()


def _cnn(name: str, seed: int) -> Model:
    net = Builder(name, (12, 29), seed).conv(24, (1, 5)).relu().max_pool((1, 2))
    return net.conv(32, (1, 3)).relu().max_pool((1, 2)).dense(9).model()


def _separable(name: str, seed: int) -> Model:
    net = Builder(name, (6, 100), seed).conv(16, (1, 5), (1, 2)).relu()
    for _ in range(2):
        net = net.depthwise((1, 5), (1, 2)).relu().conv(32, (1, 1)).relu()
    return net.average().dense(4).model()


def _noisy(x: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    """Up to 3 places sooner or later, and noise where the utterance is."""
    moved = shifted(x, 3, rng)
    spoken = np.abs(moved).sum(axis=3, keepdims=True) > 0
    return (moved + spoken * rng.normal(0, 0.1, x.shape)).astype(np.float32)


def _swayed(x: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    """Up to 8 samples sooner or later, and a tenth stronger or weaker."""
    strength = rng.normal(1, 0.1, (len(x), 1, 1, 1))
    return (shifted(x, 8, rng) * strength).astype(np.float32)


def _moved(x: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    """8x8 images, up to 1 pixel each way."""
    return shifted(x.reshape(-1, 8, 8, 1), 1, rng).reshape(x.shape)


NETWORKS: Mapping[str, Recipe] = {
    "digits_mlp_64_32_10": Recipe(_digits, _mlp, 60, 32, 3e-3),
    "japanese_vowels_cnn": Recipe(_series("japanese_vowels"), _cnn, 100, 32, 5e-3, _noisy),
    "basic_motions_dscnn": Recipe(_series("basic_motions"), _separable, 100, 16, 5e-3, _swayed),
}
"""The networks by the names of their files."""


def train_network(
    name: str, folder: Path, progress: Callable[[float], None] | None = None
) -> tuple[Model, Data]:
    """Trains one of `NETWORKS` on the data in ``folder``; gives it and the test data."""
    if name not in NETWORKS:
        raise InputError(f"A network must be one of {', '.join(NETWORKS)}, not {name!r}")
    recipe = NETWORKS[name]
    train, test = recipe.data(folder)
    if train.y is None:
        raise InputError("Training data must have labels y")
    model = recipe.build(name, recipe.seed)
    x = frames(model, train.x)
    trained = fit(
        _at_scale(model, x),
        x,
        train.y,
        epochs=recipe.epochs,
        rate=recipe.rate,
        batch=recipe.batch,
        vary=recipe.vary,
        seed=recipe.seed,
        progress=progress,
    )
    return trained, test


def _at_scale(model: Model, x: Floats) -> Model:
    """First weights that see every input channel with a variance of 1; frames that are all 0
    (the fill of short series) don't count."""
    node = model.nodes[0]
    assert isinstance(node, Conv | Dense)
    flat = x.reshape(-1, x.shape[-1])
    std = flat[np.abs(flat).sum(axis=1) > 0].std(axis=0) if isinstance(node, Conv) else flat.std()
    return with_weights(model, {node.name: node.weight / std}, {node.name: node.bias})


def main(argv: Sequence[str] | None = None) -> None:
    """Trains and writes the networks asked for, all of them by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--data", type=Path, help="folder of the data, by default OUT")
    args = parser.parse_args(argv)
    for name in args.names or NETWORKS:
        trained, test = train_network(name, args.data or args.out)
        path = args.out / f"{name}.onnx"
        save_model(trained, path)
        model = load_model(path)
        right = model.predict(test.x).argmax(axis=1) == test.y
        print(
            f"{path}: {model.parameters:,} parameters, "
            f"{100 * right.mean():.2f} % of {len(test)} test frames",
            flush=True,
        )


if __name__ == "__main__":
    main()
