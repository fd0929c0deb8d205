"""What tests of several folders take from those of `test_model_file`."""

from dataclasses import replace

import numpy as np

from pvq_hw.model.nodes import Add, Affine, AveragePool, Clip, Concat, Conv, Dense, MaxPool
from pvq_hw.train.builder import Builder

PADS = ((1, 1), (1, 1))


def chain():
    return Builder("mlp", (20,), 1).dense(12).relu().dense(5).model()


def image_chain():
    """Dense layers that read an image: the file's axes are others than the columns'."""
    return Builder("image", (2, 5, 4), 2).dense(12).relu().dense(3).model()


def line():
    net = Builder("line", (6, 20), 3).conv(8, (1, 5), (1, 2)).relu().depthwise((1, 3)).relu()
    return net.conv(4, (1, 1)).relu().max_pool((1, 2)).dense(3).model()


def branches():
    """Sums, concatenations, affine steps, clips and averages on maps and on vectors."""
    rng = np.random.default_rng(4)
    model = Builder("net", (3, 8, 8), 4).conv(4, (3, 3)).model()
    size, c = (8, 8, 4), "conv1_out"
    nodes = [
        *model.nodes,
        Affine("norm", (c,), "n", size, rng.normal(size=4), rng.normal(size=4)),
        Clip("clip", ("n",), "k", size, 0.0, 1.5),
        Conv("side", (c,), "s", size, size, (3, 3), (1, 1), PADS,
             weight=rng.normal(size=(4, 3, 3, 2)), bias=rng.normal(size=4), groups=2),
        Add("sum", ("k", "s"), "a", size),
        Concat("join", ("a", "k"), "j", (8, 8, 8)),
        MaxPool("most", ("j",), "m", (4, 4, 8), (8, 8, 8), (3, 3), (2, 2), PADS),
        AveragePool("mean", ("m",), "v", (2, 2, 8), (4, 4, 8), (2, 2), (2, 2)),
        Dense("fc", ("v",), "d", (5,), rng.normal(size=(5, 32)), rng.normal(size=5)),
        Dense("other", ("v",), "o", (5,), rng.normal(size=(5, 32)), rng.normal(size=5)),
        Concat("both", ("d", "o"), "b", (10,)),
        Add("end", ("b", "b"), "e", (10,)),
    ]  # fmt: skip
    return replace(model, nodes=tuple(nodes))
