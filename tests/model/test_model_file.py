"""Model files that the project writes read back as the same model."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from model_file_cases import branches, chain, image_chain, line

from pvq_hw.errors import InputError
from pvq_hw.model.export import save_model
from pvq_hw.model.load import load_model
from pvq_hw.model.nodes import Conv, Dense


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
