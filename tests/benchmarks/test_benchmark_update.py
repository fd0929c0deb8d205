"""Networks trained again go into one placed design."""

import numpy as np
import pytest
from onnx_graphs import DATA

import pvq_hw
from benchmarks import update
from pvq_hw.model.load import load_model
from pvq_hw.tools import find as tools


def mnist():
    return update.images(DATA / "models" / "mnist_mlp_784_64_32_10.onnx", DATA / "mnist")


def test_networks_are_trained_from_other_weights(tmp_path):
    task, outputs = update.digits(), []
    for seed in (0, 1):
        update.retrained(task, tmp_path / "model.onnx", seed)
        outputs.append(load_model(tmp_path / "model.onnx").predict(task.test.real()))
        assert (outputs[-1].argmax(axis=1) == task.test.y).mean() > 0.96
    assert not np.allclose(*outputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (update.digits, {"target": "icebreaker", "ratio": 1.5}),
        pytest.param(
            mnist,
            {"target": "ulx3s-25f", "ratio": 5, "lanes": (8, 4, 1), "input_scale": 255},
            marks=pytest.mark.skipif(not DATA.exists(), reason="the shared data set isn't here"),
        ),
    ],
    ids=["digits", "mnist"],
)
def test_ten_networks_go_into_one_placed_design(tmp_path, make, options):
    """No layer gives up a pulse, and every block RAM of every bitstream holds its network."""
    if not tools.have_tool("yosys"):
        pytest.skip("needs the tools")
    task, out = make(), tmp_path / "out"
    pvq_hw.compile(
        task.model, out, calibrate=task.train, updatable=True, spare=5, **options
    ).build(seeds=(1,))  # fmt: skip
    seen = {next((out / "build").glob("top.bi[nt]")).read_bytes()}
    for number, found in enumerate(update.updates(task, out, 10)):
        assert not found.get("refused")
        assert not found["given_up"]
        assert found["accuracy"]["pvq"] > found["accuracy"]["float"] - 1, number
        assert not pvq_hw.load(out).verify(bitstream=True)
        seen.add((out / found["bitstream"]).read_bytes())
    assert len(seen) == 11
