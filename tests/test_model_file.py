"""Model files that the project writes read back as the same model."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from pvq_hw.errors import InputError
from pvq_hw.model import load_model
from pvq_hw.model_file import save_model
from pvq_hw.nodes import Add, Affine, AveragePool, Clip, Concat, Conv, Dense, MaxPool
from pvq_hw.train.layers import Builder

PADS = ((1, 1), (1, 1))


def chain():
    return Builder("mlp", (20,), 1).dense(12).relu().dense(5).model()


def image_chain():
    """Dense layers that read an image: the file's axes are others than the columns'."""
    return Builder("image", (2, 5, 4), 2).dense(12).relu().dense(3).model()


def line():
    net = Builder("line", (6, 20), 3).conv(8, (1, 5), (1, 2)).relu().depthwise((1, 3)).relu()
    return net.conv(4, (1, 1)).max_pool((1, 2)).relu().dense(3).model()


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


@pytest.mark.parametrize("make", [chain, image_chain, line, branches])
def test_an_onnx_file_computes_the_same(make, tmp_path):
    model, path = make(), tmp_path / "net.onnx"
    save_model(model, path)
    onnx.checker.check_model(str(path), full_check=True)
    loaded = load_model(path)
    assert (loaded.input_shape, loaded.output_shape) == (model.input_shape, model.output_shape)
    x = np.random.default_rng(5).normal(size=(7, *model.input_shape))
    np.testing.assert_allclose(loaded.predict(x), model.predict(x), rtol=1e-5, atol=1e-5)
    weighted = [n.name for n in model.nodes if isinstance(n, Dense | Conv)]
    assert [n.name for n in loaded.nodes if n.name in weighted] == weighted


@pytest.mark.parametrize("make", [chain, line])
def test_names_and_bytes_stay(make, tmp_path):
    save_model(make(), tmp_path / "net.onnx")
    loaded = load_model(tmp_path / "net.onnx")
    assert [n.name for n in loaded.nodes] == [n.name for n in make().nodes]
    assert [n.output for n in loaded.nodes] == [n.output for n in make().nodes]
    save_model(replace(loaded, name=make().name), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "net.onnx").read_bytes()


def test_a_chain_as_npz(tmp_path):
    save_model(chain(), tmp_path / "net.npz")
    x = np.random.default_rng(6).normal(size=(7, 20))
    found = load_model(tmp_path / "net.npz").predict(x)
    np.testing.assert_allclose(found, chain().predict(x), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r"must end in \.onnx or \.npz, not 'net\.pt'"):
        save_model(chain(), tmp_path / "net.pt")
    for model in (line(), image_chain()):
        with pytest.raises(InputError, match="Only dense layers with ReLU between"):
            save_model(model, tmp_path / "net.npz")
    assert list(tmp_path.iterdir()) == []
