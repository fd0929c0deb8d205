"""Where pulses may be: weights that pruning made 0 stay 0, and lanes even or not, as asked."""

from pathlib import Path

import numpy as np
import pytest
from cli_tools import MODEL, run
from quantizer_cases import chain, data

from pvq_hw.errors import InputError
from pvq_hw.flow.compile import quantize_for
from pvq_hw.flow.options import CompileOptions, LayerChoice, load_options
from pvq_hw.model.model import Conv, Dense, Model, Relu
from pvq_hw.network.layer import Dense as IntDense
from pvq_hw.network.window import Conv as IntConv
from pvq_hw.output.accelerator import load
from pvq_hw.quantizer.banks import Placement, meets
from pvq_hw.quantizer.pulse_moves import within
from pvq_hw.quantizer.quantize import LayerOptions, quantize
from pvq_hw.target.boards import get_target

KEEP = LayerOptions(keep_zeros=True)


def pruned(part: float = 0.7, seed: int = 0) -> Model:
    """A chain of which ``part`` of the weights are 0, and one row all of them."""
    model, rng = chain(seed=seed), np.random.default_rng(seed)
    for node in model.nodes:
        if isinstance(node, Dense):
            node.weight[rng.random(node.weight.shape) < part] = 0
    model.nodes[0].weight[3] = 0
    return model


def zeros_stay(model: Model, network) -> bool:
    weights = {n.name: n.weight for n in model.nodes if isinstance(n, Dense | Conv)}
    return all(
        not layer.y[np.reshape(weights[layer.name], layer.y.shape) == 0].any()
        for layer in network.layers
        if isinstance(layer, IntDense | IntConv)
    )


@pytest.mark.parametrize("unit", ["row", "layer", 4])
@pytest.mark.parametrize("quantizer", ["plain", "calibrated"])
@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_zeros_stay_zero(quantizer: str, ratio: float, unit: str | int) -> None:
    model = pruned()
    layers = {name: LayerOptions(keep_zeros=True) for name in ("fc1", "fc2", "fc3")}
    layers["fc2"] = LayerOptions(keep_zeros=True, unit=unit)
    options = {"calibration": data(), "quantizer": quantizer, "input_scale": 255, "sweeps": 2}
    net = quantize(model, ratio=ratio, layers=layers, **options)
    assert zeros_stay(model, net)
    assert not zeros_stay(model, quantize(model, ratio=ratio, **options)) or quantizer == "plain"
    assert not net.layers[0].y[3].any()
    assert (net.layers[0].k[np.arange(16) != 3] > 0).all()


def test_the_others_still_follow_the_float_model() -> None:
    model, test = pruned(), data(seed=9)
    layers = dict.fromkeys(("fc1", "fc2", "fc3"), KEEP)
    net = quantize(model, calibration=data(), ratio=0.2, input_scale=255, layers=layers)
    real = net.predict(net.quantize_input(test, 255)) * net.output.scale
    want = model.predict(test, 255)
    assert np.sqrt(np.square(real - want).mean()) < 0.05 * want.std()


def test_stray_pulses_go_to_the_largest_weight() -> None:
    y = np.array([[1, -2, 0, 1], [1, 0, 0, 0]])
    allowed = np.array([[False, True, True, False], [False] * 4])
    score = np.array([[9.0, 1.0, -3.0, 0.0], [1.0, 0, 0, 0]])
    assert within(y, allowed, score).tolist() == [[0, -2, -2, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("quantizer", ["plain", "calibrated"])
def test_convolutions_keep_theirs(quantizer: str) -> None:
    rng = np.random.default_rng(4)
    weight = rng.normal(size=(6, 3, 3, 2)) * (rng.random((6, 3, 3, 2)) < 0.4)
    conv = Conv(
        "c",
        ("x",),
        "a",
        (4, 4, 6),
        weight=weight,
        bias=np.zeros(6),
        input_shape=(6, 6, 2),
        kernel=(3, 3),
    )
    nodes = (conv, Relu("r", ("a",), "b", (4, 4, 6)))
    model = Model("net", "0" * 64, "x", (6, 6, 2), (0, 1, 2), (6, 6, 2), nodes)
    x = rng.integers(0, 256, (60, 6, 6, 2)).astype(np.uint8)
    options = {"calibration": x, "quantizer": quantizer, "input_scale": 255}
    net = quantize(model, ratio=2.0, layers={"c": KEEP}, **options)
    assert zeros_stay(model, net)


def test_balanced_banks_are_refused() -> None:
    with pytest.raises(InputError, match="must not be balanced over banks where its zeros"):
        quantize(
            pruned(), calibration=data(), layers={"fc1": KEEP}, banks={"fc1": 4}, input_scale=255
        )


def test_the_flow_leaves_such_layers_unbalanced(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('target = "icebreaker"\nratio = 3\n[layers.fc1]\nkeep_zeros = true\n')
    calibration = type("Inputs", (), {"x": data()})()
    options = load_options(config, {"input_scale": 255.0})
    assert options.layers["fc1"].keep_zeros
    model = pruned()
    net, _ = quantize_for(model, get_target("icebreaker"), options, calibration)
    assert not net.layers[0].y[model.nodes[0].weight == 0].any()
    everywhere = load_options(None, {"target": "icebreaker", "keep_zeros": True, "ratio": 3.0})
    net, _ = quantize_for(
        model, get_target("icebreaker"), everywhere, type("Inputs", (), {"x": data() / 255})()
    )
    assert zeros_stay(model, net)


def test_lanes_may_wait_where_asked() -> None:
    model, calibration = chain(), type("Inputs", (), {"x": data() / 255})()

    def made(*layers: str, balanced: bool = True):
        """The integer network, and which of its layers are held to even lanes."""
        choices = {name: LayerChoice(balanced=False) for name in layers}
        options = CompileOptions(ratio=3.0, layers=choices, balanced=balanced, lanes=(4, 4, 4))
        network, folding = quantize_for(model, get_target("icebreaker"), options, calibration)
        return network, dict(zip(folding.names, folding.balanced, strict=True))

    even, held = made()
    assert held == {"fc1": True, "fc2": True, "fc3": False}  # the last has too few columns
    assert all(meets(layer.y, Placement(4)) for layer in even.layers[:2])
    free, held = made(balanced=False)
    assert not any(held.values())
    nearest = quantize(model, ratio=3.0, calibration=calibration.x)
    for ours, theirs in zip(free.layers, nearest.layers, strict=True):
        np.testing.assert_array_equal(ours.y, theirs.y)
    _, held = made("fc1")
    assert held == {"fc1": False, "fc2": True, "fc3": False}


@pytest.mark.parametrize(("asked", "even"), [((), True), (("--no-balanced",), False)])
def test_the_command_line_asks_for_it(digits, tmp_path: Path, asked: tuple[str, ...], even: bool):
    out = tmp_path / "out"
    made = run(
        "compile", MODEL, "--target", "icebreaker", "--quantizer", "plain", "--ratio", 2,
        "--lanes", "4,4", "--calibrate", digits.train, "-o", out, *asked,
    )  # fmt: skip
    assert made.code == 0
    assert meets(load(out).network.layers[0].y, Placement(4)) == even


def test_wrong_types_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[layers.fc1]\nkeep_zeros = 1\n")
    with pytest.raises(InputError, match="keep_zeros must be true or false, not 1"):
        load_options(config, {})
