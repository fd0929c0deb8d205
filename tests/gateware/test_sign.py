"""Sign activations: imported, quantized to thresholds, computed without a multiplier."""

import json
from functools import cache

import numpy as np
import onnx
import pytest
from cli_tools import BUNDLED, run
from onnx import helper
from sign_network import save_onnx, train

import sim
from pvq_hw.errors import InputError
from pvq_hw.flow.compile import plan_for, quantize_for
from pvq_hw.flow.options import CompileOptions, LayerChoice
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Dense, Model, Sign
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import plan
from pvq_hw.quantizer.quantize import quantize
from pvq_hw.quantizer.requantization import thresholds
from pvq_hw.target.boards import get_target

DATA = np.load(BUNDLED / "digits.npz")


@cache
def trained():
    """Weights for pixels of 0..16, of a 64-96-40-10 network."""
    params = train(DATA["x_train"] / 16 - 0.3, DATA["y_train"].astype(int), (96, 40), epochs=30)
    params[1] = params[1] - 0.3 * params[0].sum(axis=1)
    params[0] = params[0] / 16
    return params


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_onnx(tmp_path_factory.mktemp("signs") / "signs.onnx", trained())


def accuracy(outputs):
    return float((outputs.argmax(axis=1) == DATA["y_test"]).mean())


def test_the_float_model_takes_the_sign_of_zero_as_onnx_does(path):
    model = load_model(path)
    assert [node.op for node in model.nodes] == ["Dense", "Sign", "Dense", "Sign", "Dense"]
    sign = next(node for node in model.nodes if isinstance(node, Sign))
    x = np.zeros((1, 96))
    x[0, :3] = -1e-300, -0.0, 2
    assert sign.compute(x)[0, :4].tolist() == [-1, 0, 1, 0]
    z = DATA["x_test"][:50].astype(float)
    for w, b in zip(trained()[::2], trained()[1::2], strict=True):
        z = z @ w.astype(np.float32).astype(float).T + b.astype(np.float32)
        last, z = z, np.where(z < 0, -1.0, 1.0)
    assert np.allclose(model.predict(DATA["x_test"][:50].astype(float)), last)


def test_gains_vanish_and_thresholds_are_the_biases():
    unit = np.array([0.5, 0.25, 2.0, 0.0, 0.0, 1.0])
    bias = np.array([1.0, -0.3, -1e9, 3.0, -3.0, 0.0])
    numbers = thresholds(unit, bias, np.array([9, 9, 9, 0, 0, 9]))
    assert numbers.mult.tolist() == [[1]] * 6
    for m, (u, b) in enumerate(zip(unit, bias, strict=True)):
        for acc in range(-9, 10) if u else (0,):
            got = (acc + int(numbers.bias[m]) + 1) >> numbers.shift >= 0
            assert got == (u * acc + b >= 0), (m, acc)


@pytest.mark.parametrize(("ratio", "least"), [(1, 0.95), (4, 0.94), (8, 0.92)])
def test_accuracy_of_quantized_signs(path, ratio, least):
    model = load_model(path)
    assert accuracy(model.predict(DATA["x_test"])) > 0.95
    network = quantize(model, calibration=DATA["x_train"], ratio=ratio)
    for layer in network.layers[:-1]:
        assert (layer.mult == 1).all()
        assert layer.output.format.binary
        assert (layer.output.scale, layer.shift) == (1.0, 1)
    assert accuracy(network.predict(network.quantize_input(DATA["x_test"]))) > least


@pytest.mark.parametrize("target", ["ulx3s-25f", "hx8k", "icebreaker"])
def test_cores_of_signs_count_up_and_down_without_a_multiplier(path, target):
    model, board = load_model(path), get_target(target)
    options = CompileOptions(target=target, ratio=4, layers={"fc1": LayerChoice(encoding="int8")})
    network, folding = quantize_for(model, board, options, _calibration())
    planned = plan_for(network, board, options, folding)
    first, plain, last = planned.specs
    assert (first.multiplier, plain.multiplier) == ("none", "none")
    assert last.multiplier != "none"
    assert last.leaf_bits == 2 + last.code.max_shift
    assert f"{first.name}_mult" not in first.memories
    assert first.multiplier_delay == planned.layers[0].resources.dsps == 0
    x = network.quantize_input(DATA["x_test"][:4])
    image = emit(network, planned)
    found = x.reshape(len(x), -1)
    for spec, core in zip(image.specs, image.cores, strict=True):
        found = spec.compute(core, found)
    assert np.array_equal(found, network.predict(x))


def _calibration():
    from pvq_hw.data.dataset import Data

    return Data(DATA["x_train"][:300], None, 1.0)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Of every layer at most 12 rows: a circuit that is soon simulated, and no accuracy."""
    params = [p[:12] if p.ndim == 1 else p[:12, : 64 if k == 0 else 12] for k, p in
              enumerate(trained())]  # fmt: skip
    return save_onnx(tmp_path_factory.mktemp("signs") / "small.onnx", params)


def test_signs_in_the_circuit(small):
    model = load_model(small)
    network = quantize(model, calibration=DATA["x_train"][:100], ratio=2)
    planned = plan(network, "hx8k", lanes=(4, 2, 1))
    image = emit(network, planned)
    x = network.quantize_input(DATA["x_test"][:3])
    result = sim.simulate(planned.graph, image.cores, x, "amaranth", idle="random:0.3", seed=1)
    trace = network.trace(x)
    for layer, spec in zip(network.layers, planned.specs, strict=True):
        assert np.array_equal(result.outputs[spec.name], trace[layer.name])


def test_compiled_signs_verify_and_simulate(small, tmp_path):
    np.savez(tmp_path / "train.npz", x=DATA["x_train"][:300])
    np.savez(tmp_path / "test.npz", x=DATA["x_test"][:2], y=DATA["y_test"][:2])
    out = tmp_path / "out"
    ran = run("compile", small, "--target", "ulx3s-25f", "--calibrate", tmp_path / "train.npz",
              "--ratio", "4", "-o", out, "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    assert run("verify", out, "--model", small).code == 0
    ran = run("simulate", out, "--data", tmp_path / "test.npz", "--simulator", "amaranth", "--json")
    assert ran.json["mismatches"] == 0
    assert not (out / "image" / "fc0_mult.hex").exists()
    document = json.loads((out / "network" / "network.json").read_text())
    document["layers"][0]["bias"][3] += 1
    (out / "network" / "network.json").write_text(json.dumps(document))
    assert run("verify", out).code == 1


def test_the_sign_of_exactly_0_is_refused_by_name(tmp_path):
    """Of whole numbers sums are 0 now and then; half a unit in the biases rules it out."""
    rng = np.random.default_rng(1)
    w = [rng.choice([-1.0, 1.0], (8, 6)), rng.normal(size=(3, 8))]
    x = rng.integers(-3, 4, (30, 6)).astype(float)

    def model(bias):
        nodes = (
            Dense("fc", ("x",), "z", (8,), w[0], np.full(8, bias)),
            Sign("sign", ("z",), "s", (8,)),
            Dense("out", ("s",), "o", (3,), w[1], np.zeros(3)),
        )
        return Model("m", "", "x", (6,), (0,), (6,), nodes)

    text = "Layer 'sign' must not take the sign of 0.*output . of layer 'fc'.*frame .*0.5 where"
    with pytest.raises(InputError, match=text):
        quantize(model(0.0), calibration=x, ratio=1.0)
    network = quantize(model(0.5), calibration=x, ratio=1.0, quantizer="plain")
    assert network.layers[0].output.format.binary


def test_signs_that_cannot_be_are_refused(tmp_path):
    path = save_onnx(tmp_path / "a.onnx", trained())
    model = onnx.load(path)
    sign = next(node for node in model.graph.node if node.op_type == "Sign")
    relu = helper.make_node("Relu", [sign.input[0]], ["relu"], name="relu")
    sign.input[0] = "relu"
    model.graph.node.insert(1, relu)
    onnx.save(model, str(path))
    with pytest.raises(InputError, match="'sign0' must not take a sign after Relu or Clip"):
        quantize(load_model(path), calibration=DATA["x_train"])
