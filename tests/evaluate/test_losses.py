"""Which layer, which row and which weight a loss comes from."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_tools import MODEL, refused, run, twin
from quantizer_cases import chain, data

from pvq_hw.data.dataset import Data
from pvq_hw.errors import InputError
from pvq_hw.evaluate.attribution import network_losses, weight_log
from pvq_hw.model.model import Conv, Dense, MaxPool, Model, Relu
from pvq_hw.network.network import Network
from pvq_hw.quantizer.quantize import LayerOptions, quantize

SCALE = 255.0


def made(ratio: float = 3.0, **options) -> tuple[Model, Network]:
    model = chain()
    return model, quantize(model, calibration=data(), ratio=ratio, input_scale=SCALE, **options)


def frames(y: np.ndarray | None = None) -> Data:
    return Data(data(200, seed=7), y, input_scale=SCALE)


def layer_of(losses: dict, name: str) -> dict:
    return next(entry for entry in losses["layers"] if entry["name"] == name)


def test_shares_add_up_to_one() -> None:
    model, network = made()
    losses = network_losses(model, network, frames())
    assert [entry["name"] for entry in losses["layers"]] == ["fc1", "fc2", "fc3"]
    assert losses["frames"] == 200
    assert losses["metric"] is losses["float"] is losses["golden"] is None
    assert sum(entry["share"] for entry in losses["layers"]) == pytest.approx(1, abs=1e-5)
    rows = [share for entry in losses["layers"] for share in entry["row_share"]]
    assert len(rows) == 16 + 12 + 5
    assert sum(rows) == pytest.approx(1, abs=1e-4)


def test_a_finely_quantized_layer_loses_next_to_nothing() -> None:
    model, network = made(layers={"fc2": LayerOptions(k=20_000)}, quantizer="plain")
    losses = network_losses(model, network, frames())
    assert layer_of(losses, "fc2")["share"] < 1e-3
    assert layer_of(losses, "fc2")["output_error_without"] == pytest.approx(
        losses["output_error"], rel=0.2
    )
    assert max(layer_of(losses, "fc2")["row_output_error"]) < 1e-4


def test_a_spoilt_row_is_found() -> None:
    model, network = made(ratio=0.3, quantizer="plain")
    layer = network.layers[2]
    y = layer.y.copy()
    y[4] = -y[4]
    spoilt = replace(network, layers=(*network.layers[:2], replace(layer, y=y)))
    losses = network_losses(model, spoilt, frames())
    assert layer_of(losses, "fc3")["share"] > 0.9
    rows = layer_of(losses, "fc3")["row_share"]
    assert np.argmax(rows) == 4
    assert (
        rows[4] > 0.9 > sum(layer_of(network_losses(model, network, frames()), "fc3")["row_share"])
    )


def test_scores_come_with_labels() -> None:
    model, network = made()
    labels = model.predict(data(200, seed=7), SCALE).argmax(axis=1)
    losses = network_losses(model, network, frames(labels))
    assert losses["metric"] == "accuracy"
    assert losses["float"] == 100.0
    golden = network.predict(network.quantize_input(data(200, seed=7), SCALE)).argmax(axis=1)
    assert losses["golden"] == 100 * (golden == labels).mean()
    assert all(0 < entry["score_alone"] <= 100 for entry in losses["layers"])


def test_convolutions_have_rows_too() -> None:
    rng = np.random.default_rng(2)
    nodes = (
        Conv("c", ("x",), "a", (6, 6, 4), weight=rng.normal(size=(4, 3, 3, 2)), bias=np.zeros(4),
             input_shape=(8, 8, 2), kernel=(3, 3)),
        Relu("r", ("a",), "b", (6, 6, 4)),
        MaxPool("p", ("b",), "m", (3, 3, 4), input_shape=(6, 6, 4), kernel=(2, 2), stride=(2, 2)),
        Dense("d", ("m",), "o", (3,), rng.normal(size=(3, 36)), np.zeros(3)),
    )  # fmt: skip
    model = Model("net", "0" * 64, "x", (8, 8, 2), (0, 1, 2), (8, 8, 2), nodes)
    x = rng.integers(0, 256, (80, 8, 8, 2)).astype(np.uint8)
    network = quantize(model, calibration=x, ratio=3.0, input_scale=SCALE)
    losses = network_losses(model, network, Data(x, None, input_scale=SCALE))
    assert [len(entry["row_share"]) for entry in losses["layers"]] == [4, 3]
    assert all(1e-5 < error < 2 for e in losses["layers"] for error in e["row_output_error"])


def test_other_models_are_refused() -> None:
    model, network = made()
    nodes = tuple(replace(node, name=f"x{node.name}") for node in model.nodes)
    with pytest.raises(InputError, match="has no layer 'fc1'"):
        network_losses(replace(model, nodes=nodes), network, frames())


def test_the_log_ties_codes_to_weights(tmp_path: Path) -> None:
    model, network = made()
    weight_log(tmp_path / "log.csv", model, network)
    with (tmp_path / "log.csv").open() as file:
        lines = list(csv.DictReader(file))
    codes = {layer.name: np.zeros_like(layer.y) for layer in network.layers}
    weights = {node.name: node.weight for node in model.nodes if isinstance(node, Dense)}
    for line in lines:
        place = int(line["row"]), int(line["column"])
        codes[line["layer"]][place] = int(line["code"])
        assert float(line["weight"]) == weights[line["layer"]][place]
        assert float(line["value"]) - float(line["weight"]) == float(line["error"])
    assert all(np.array_equal(codes[layer.name], layer.y) for layer in network.layers)
    losses = network_losses(model, network, frames())
    weight_log(tmp_path / "log.json", model, network, losses)
    found = json.loads((tmp_path / "log.json").read_text())["layers"][1]
    row = found["rows"][2]
    assert found["name"] == "fc2"
    assert row["share"] == layer_of(losses, "fc2")["row_share"][2]
    assert row["k"] == network.layers[1].k[2]
    assert [[c, int(network.layers[1].y[2, c]), weights["fc2"][2, c]] for c, _, _ in row["codes"]
            ] == row["codes"]  # fmt: skip
    with pytest.raises(InputError, match=r"must be a \.csv or \.json file"):
        weight_log(tmp_path / "log.txt", model, network)


def test_verify_says_where_the_loss_comes_from(digits, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    done = run("verify", digits.out, "--model", MODEL, "--data", digits.test, "--log", log)
    assert done.code == 0
    assert "rows that lose most" in done.out
    assert log.read_text().startswith("layer,row,column,weight,code,gain,value,error\n")
    found = json.loads(
        run("verify", digits.out, "--model", MODEL, "--data", digits.test, "--json").out
    )
    assert found["losses"]["metric"] == "accuracy"
    report = json.loads((digits.out / "report.json").read_text())["compile"]
    assert report["losses"]["frames"] == 500
    first = report["layers"][0]
    assert first["share"] == found["losses"]["layers"][0]["share"]
    assert {len(v) for v in first["row_figures"].values()} == {first["rows"]}
    assert set(first["row_figures"]) == {"k", "cosine", "relative_error", "output_error", "share"}
    assert "Where the loss comes from" in (digits.out / "report.html").read_text()
    refused(tmp_path, "must come with --model", "verify", twin(digits.out, tmp_path / "t"),
            "--data", digits.test)  # fmt: skip
