"""The accuracy benchmark of graphs: its table and its page, from results already there."""

import argparse
import json

import numpy as np
import pytest

from benchmarks import graphs
from pvq_hw.data.dataset import Data
from pvq_hw.model.export import save_model
from pvq_hw.model.model import Conv, Dense, Model, Relu


def result(row: graphs.Row, accuracy: float) -> dict[str, object]:
    return {
        "n_over_k": row.ratio + 0.004,
        "float_percent": 99.0,
        "accuracy_percent": accuracy,
        "agreement_percent": 98.5,
        "processor_seconds": 12.3,
    }


def test_the_table_takes_the_median_of_the_seeds() -> None:
    row, resnet = graphs.ROWS[2], graphs.ROWS[4]
    results = {row.key(s): result(row, a) for s, a in enumerate((98.1, 98.9, 98.7))}
    results[resnet.key(0)] = result(resnet, 70.0)
    lines = graphs.table(results).splitlines()
    assert lines[2] == (
        "| LeNet-5 | no | ulx3s-25f | 5.00 | 99.00 % | 98.70 % | 98.80 | 98.50 % | 3 | 12 s |"
    )
    assert "98.00, 93 % the same" in lines[3]
    assert len(lines) == 4


def test_the_page_gets_the_table_between_its_marks(tmp_path, monkeypatch, capsys) -> None:
    page, results = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text("before\n{}\nold\n{}\nafter\n".format(*graphs.MARKS))
    row = graphs.ROWS[0]
    results.write_text(json.dumps({row.key(0): result(row, 98.0)}))
    monkeypatch.setattr("sys.argv", ["graphs", "-o", str(results), "--page", str(page)])
    graphs.main()
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| tiny CNN | no | ulx3s-25f |" in text
    assert "tiny CNN" in capsys.readouterr().out


def test_fine_tuned_rows_say_so_and_wait_for_their_images(tmp_path) -> None:
    rows = [row for row in graphs.ROWS if row.training]
    assert {row.name for row in rows} == {"mnist-8", "ResNet8"}
    lines = graphs.table({row.key(0): result(row, 98.0) for row in rows}).splitlines()[2:]
    assert ["fine-tuned" in line for line in lines] == [True, True]
    assert len({row.key(0) for row in graphs.ROWS}) == len(graphs.ROWS)
    file = tmp_path / "cifar.npz"
    np.savez(file, x=np.zeros((2, 4)), y=np.zeros(2, np.int64), x_calibration=np.zeros((3, 4)))
    args = argparse.Namespace(mnist=None, cifar=file, cifar_train=None)
    assert graphs.bundled_data(rows[-1], args) is None
    train, _ = graphs.bundled_data(next(r for r in graphs.ROWS if r.name == "ResNet8"), args)
    assert len(train) == 3


@pytest.mark.slow
def test_a_row_goes_through_the_ordinary_path(tmp_path) -> None:
    rng = np.random.default_rng(0)
    nodes = (
        Conv("c", ("x",), "a", (4, 4, 4), (6, 6, 1), (3, 3),
             weight=rng.normal(size=(4, 3, 3, 1)), bias=rng.normal(size=4)),
        Relu("r", ("a",), "b", (4, 4, 4)),
        Dense("d", ("b",), "o", (3,), rng.normal(size=(3, 64)), rng.normal(size=3)),
    )  # fmt: skip
    model = Model("small", "", "x", (6, 6, 1), (0, 1, 2), (6, 6, 1), nodes)
    save_model(model, tmp_path / "small.onnx")
    x = rng.integers(0, 256, (200, 6, 6, 1)).astype(np.uint8)
    row = graphs.Row("small", "small.onnx", "ulx3s-25f", 2, 1.0, input_scale=255.0, frames=150)
    test = Data(x[150:], model.predict(x[150:], 255).argmax(axis=1))
    found = graphs.measure(row, 0, tmp_path, Data(x[:150]), test)
    assert found["n_over_k"] >= 2
    assert found["float_percent"] == 100
    assert found["agreement_percent"] == found["accuracy_percent"] > 60
    assert found["calibration_frames"] == 150
