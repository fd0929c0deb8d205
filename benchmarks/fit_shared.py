"""Counts engines that several layers share beside the planner's estimates.

Run as ``python -m benchmarks.fit_shared --family up5k``: synthesizes and packs a few engines of
random layers, as `benchmarks.fit_resources` does cores of one layer, and prints LUTs and block RAMs
beside what `pvq_hw.plan.shared_resources` adds to the estimate of a core of pulses. Circuits that
the results file holds are not synthesized again; ``--check`` synthesizes nothing.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.fit_resources import counts_of
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.map_core import make_map_core, window_layer
from pvq_hw.engine.shared_core import SharedSpec, make_shared_core
from pvq_hw.geometry import Geometry
from pvq_hw.network.join import Add, Concat
from pvq_hw.network.layer import Dense, Layer, TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.network.window import AveragePool, Conv, MaxPool
from pvq_hw.plan.resources import core_resources
from pvq_hw.plan.shared_steps import network_chain
from pvq_hw.pyramid.nearest import nearest
from pvq_hw.target.families import FAMILIES, family

HERE = Path(__file__).parent

U8, S8, S16 = IntFormat(8, False), IntFormat(8, True), IntFormat(16, True)

# Input, its format, rows and formats of the layers, N/K, lanes, and the shift of every layer.
ENGINES: tuple[tuple[int, IntFormat, tuple[tuple[int, IntFormat], ...], float, int], ...] = (
    (64, U8, ((32, U8), (10, S16)), 5, 5),
    (64, U8, ((32, U8), (10, S16)), 2, 8),
    (128, S8, ((64, U8), (32, S8), (64, U8), (128, S8)), 5, 4),
    (640, U8, (*((128, U8),) * 4, (8, U8), *((128, U8),) * 4, (640, S8)), 20, 8),
    (256, U8, ((64, U8), (32, U8), (10, S16)), 10, 12),
    (96, U8, ((24, U8), (12, S8)), 3, 2),
)


@dataclass(frozen=True)
class Maps:
    """An engine with maps: a first convolution, then depthwise ones with points behind them,
    residual blocks, or two convolutions beside each other, an average and a dense layer.

    Parameters
    ----------
    shape : (height, width, channels)
        Of the frame.
    channels : int
        Of the convolutions.
    blocks : int
    residual : bool
    lanes, side : int
        P and V.
    pooled : bool
        Whether there is a maximum of 2 x 2 behind the first convolution.
    beside : bool
        Whether blocks have two convolutions whose channels lie side by side.
    """

    shape: tuple[int, int, int]
    channels: int
    blocks: int
    residual: bool
    lanes: int
    side: int
    pooled: bool = False
    beside: bool = False


MAPS = (
    Maps((25, 5, 1), 32, 2, False, 6, 1),
    Maps((25, 5, 1), 32, 2, False, 6, 2),
    Maps((32, 32, 3), 16, 2, True, 6, 2),
    Maps((16, 16, 3), 16, 1, True, 4, 1),
    Maps((14, 14, 1), 16, 1, False, 12, 2),
    Maps((28, 28, 1), 16, 1, False, 6, 2, pooled=True),
    Maps((16, 16, 3), 16, 2, False, 6, 2, beside=True),
    Maps((25, 5, 1), 32, 2, False, 4, 4),
    Maps((32, 32, 3), 16, 2, True, 4, 3),
)


def make_maps(maps: Maps, engine: str) -> tuple[SharedSpec, CoreImage]:
    """An engine of the list with random weights; on UP5K with codes and maps in SPRAM."""
    side = 1 if family(engine).multiplier == "serial" else maps.side
    memories = {"code_memory": "spram", "map_memory": "spram"} if engine == "up5k" else {}
    chain, _ = network_chain(_map_network(maps))
    windows = [window_layer(part) for part in chain]
    return make_map_core(windows, maps.lanes, family=engine, side=side, gap_bits=4, **memories)


def _map_network(maps: Maps) -> Network:
    rng, c = np.random.default_rng(1), maps.channels
    x = TensorSpec("x", maps.shape, U8, 1.0)
    first, layers = x, list[Layer]()

    def numbers(y: npt.NDArray[np.int64]) -> dict[str, Any]:
        rows = len(y)
        return {
            "y": y, "mult": rng.integers(1 << 13, 1 << 15, size=(rows, 1)), "shift": 22,
            "bias": rng.integers(-(1 << 26), 1 << 26, size=rows), "gain": np.ones((rows, 1)),
        }  # fmt: skip

    def conv(x: TensorSpec, rows: int, size: int, groups: int, out: IntFormat) -> TensorSpec:
        h, w, channels = x.shape
        pad = ((size // 2, size // 2),) * 2
        g = Geometry((h, w, channels), (size, size), pads=(pad[0], pad[1]))
        n = size * size * channels // groups
        y = nearest(rng.laplace(size=(rows, n)), max(1, n // 3))
        name = f"conv{len(layers)}"
        to = TensorSpec(f"{name} o", (*g.output_size, rows), out, 1.0)
        layers.append(Conv(name, x.name, to, geometry=g, groups=groups, **numbers(y)))
        return to

    x = conv(x, c, 3, 1, U8)
    if maps.pooled:
        g = Geometry(x.shape, (2, 2), (2, 2))
        to = TensorSpec("pool o", (*g.output_size, c), U8, 1.0)
        layers.append(MaxPool("pool", x.name, to, g))
        x = to
    for number in range(maps.blocks):
        if maps.residual:
            y = conv(conv(x, c, 3, 1, U8), c, 3, 1, S8)
            to = TensorSpec(f"sum{number} o", x.shape, U8, 1.0)
            layers.append(Add(f"sum{number}", (x.name, y.name), to, (12000, 9000), 14))
            x = to
        elif maps.beside:
            parts = conv(x, c // 2, 1, 1, U8), conv(x, c // 2, 3, 1, U8)
            to = TensorSpec(f"cat{number} o", x.shape, U8, 1.0)
            names = (parts[0].name, parts[1].name)
            layers.append(Concat(f"cat{number}", names, to, (256, 300 - 44 * number), 8))
            x = to
        else:
            x = conv(conv(x, c, 3, c, U8), c, 1, 1, U8)
    whole, mean = Geometry(x.shape, x.shape[:2]), TensorSpec("mean o", (1, 1, c), U8, 1.0)
    count = x.size // c
    layers.append(AveragePool("mean", x.name, mean, whole, False, ((count, 12000),), 20))
    x = mean
    y = nearest(rng.laplace(size=(10, x.size)), x.size // 5)
    layers.append(Dense("fc", x.name, TensorSpec("o", (10,), S16, 1.0), **numbers(y)))
    return Network("maps", first, tuple(layers), first.shape, (0, 1, 2))


def make(number: int, engine: str) -> tuple[SharedSpec, CoreImage]:
    """An engine of the lists with random weights."""
    if number >= len(ENGINES):
        return make_maps(MAPS[number - len(ENGINES)], engine)
    n, form, rows, ratio, lanes = ENGINES[number]
    rng = np.random.default_rng(number)
    x, layers = TensorSpec("x", (n,), form, 1.0), []
    for index, (count, out) in enumerate(rows):
        k = max(1, round(x.size / ratio))
        layer = Dense(
            name=f"fc{index}",
            input=x.name,
            output=TensorSpec(f"t{index}", (count,), out, 1.0),
            y=nearest(rng.laplace(size=(count, x.size)), k),
            mult=rng.integers(1 << 13, 1 << 15, size=(count, 1)),
            bias=rng.integers(-(1 << 26), 1 << 26, size=count),
            shift=22 + index % 2,
            gain=np.ones((count, 1)),
        )
        layers.append((layer, x))
        x = layer.output
    return make_shared_core(layers, lanes, family=engine)


def main() -> None:
    """Prints counts and estimates."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--family", choices=sorted(FAMILIES.kinds()), action="append")
    parser.add_argument("-o", type=Path, default=HERE / "results" / "shared.json")
    parser.add_argument("--check", action="store_true", help="synthesize nothing")
    args = parser.parse_args()
    for engine in args.family or sorted(FAMILIES.kinds()):
        for number in range(len(ENGINES) + len(MAPS)):
            spec, image = make(number, engine)
            found = counts_of(f"{engine} shared {number}", spec, image, engine, args.o, args.check)
            if found is None:
                continue
            own = core_resources(spec, engine)
            print(
                f"{engine} {number}: {len(spec.layers)} layers, P={spec.lanes}, "
                f"V={getattr(spec, 'side', 1)}, "
                f"{len(spec.finishes)} finishes: LUT {own.luts} / {found['luts']} "
                f"({own.luts / found['luts'] - 1:+.1%}), FF {own.ffs} / {found['ffs']}, "
                f"BRAM {own.brams} / {found['brams']}, DSP {own.dsps} / {found['dsps']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
