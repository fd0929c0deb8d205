"""Small networks for the tests of plan, image and verification: random, but real codes."""

import numpy as np

from pvq_hw.arith.formats import IntFormat
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.pyramid.nearest import nearest

U8, S16 = IntFormat(8, False), IntFormat(16, True)


def random_dense(rng, name, x, rows, k, out, output="", groups=1):
    """A layer of Laplacian weights with its original weights."""
    w = rng.laplace(size=(rows, x.size))
    part = w.reshape(rows * groups, -1)
    y = nearest(part, k)
    gain = np.maximum((part * y).sum(axis=1) / np.maximum((y * y).sum(axis=1), 1), 0)
    gain, y = gain.reshape(rows, groups), y.reshape(rows, x.size)
    scale = 4.0 * float(np.abs(w).sum(axis=1).max()) * x.scale * x.format.max / out.max
    shift = 1
    while shift < 30 and gain.max() * x.scale / scale * 2 ** (shift + 1) < 2**15 - 1:
        shift += 1
    layer = Dense(
        name=name,
        input=x.name,
        output=TensorSpec(output or f"{name}_out", (rows,), out, scale),
        y=y,
        mult=np.floor(gain * (x.scale / scale) * 2.0**shift + 0.5).astype(np.int64),
        bias=rng.integers(-1 << shift, 1 << shift, size=rows),
        shift=shift,
        gain=gain,
    )
    return layer, w


def random_network(sizes=(20, 12, 5), k=(8, 6), seed=0, x=U8, name="net", groups=1, names=None):
    """A chain of dense layers; returns the network and its original weights by layer."""
    rng = np.random.default_rng(seed)
    spec = TensorSpec("x", (sizes[0],), x, 1 / x.max)
    layers, weights = [], {}
    source = spec
    for index, (rows, pulses) in enumerate(zip(sizes[1:], k, strict=True)):
        last = index == len(k) - 1
        title = names[index] if names else f"fc{index + 1}"
        layer, w = random_dense(
            rng, title, source, rows, pulses, S16 if last else U8, groups=groups
        )
        weights[title] = w
        layers.append(layer)
        source = layer.output
    meta = {"source_sha256": "ab" * 32, "quantizer": "plain", "seed": seed}
    network = Network(name, spec, tuple(layers), (sizes[0],), (0,), meta)
    network.verify()
    return network, weights
