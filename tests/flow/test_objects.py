"""Models that are Python objects: compiled, checked and verified as files are."""

import contextlib
import math
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from cli_tools import MODEL

import pvq_hw
from pvq_hw.data.dataset import Data
from pvq_hw.errors import InputError
from pvq_hw.model.load import load_model
from pvq_hw.model.objects import model_file
from pvq_hw.model.own_graph import check_own_graph

RNG = np.random.default_rng(3)
X = RNG.standard_normal((60, 6)) * [1, 20, 0.1, 3, 1, 5] + [0, 100, 0, -4, 2, 0]
LAYERS = [
    (RNG.standard_normal((8, 6)), RNG.standard_normal(8), "relu"),
    (RNG.standard_normal((3, 8)), None, None),
]


def imported(model):
    with model_file(model) as path:
        found = load_model(path)
    assert not path.exists()
    return found


def test_a_list_of_layers_becomes_an_accelerator(tmp_path):
    (w1, b1, _), (w2, _, _) = LAYERS
    expected = np.maximum(X @ w1.T + b1, 0) @ w2.T
    assert np.allclose(imported(LAYERS).predict(X), expected, rtol=1e-12)
    made = pvq_hw.compile(LAYERS, tmp_path / "out", target="hx8k", ratio=1, calibrate=X)
    assert made.network.name == "layers"
    assert np.abs(made.predict(X) - expected).mean() < 0.5 * expected.std()
    assert made.simulate(X[:3], simulator="amaranth")["mismatches"] == 0
    assert made.verify(LAYERS) == []
    assert pvq_hw.check(LAYERS, "hx8k").ok


def test_activations_of_a_list_are_what_their_names_say():
    """Against the formulas; all in one network, which runs in the format's runtime too."""
    (w1, b1, _), (w2, _, _) = LAYERS
    z = np.clip(X @ w1.T + b1, -40, 40) / 10
    sigmoid = 1 / (1 + np.exp(-z))
    expected = {
        "leaky_relu": np.where(z < 0, 0.01 * z, z), "relu6": np.clip(z, 0, 6),
        "hardtanh": np.clip(z, -1, 1), "hardsigmoid": np.clip(z / 6 + 0.5, 0, 1),
        "silu": z * sigmoid, "swish": z * sigmoid, "mish": z * np.tanh(np.log1p(np.exp(z))),
        "gelu": 0.5 * z * (1 + np.vectorize(math.erf)(z / 2**0.5)),
        "celu": np.where(z < 0, np.expm1(z), z), "logistic": sigmoid,
        "hardswish": z * np.clip(z / 6 + 0.5, 0, 1), "softsign": z / (1 + np.abs(z)),
    }  # fmt: skip
    for name, values in expected.items():
        layers = [(np.eye(8), None, name), (w2, None, None)]
        with model_file(layers) as path:
            model = load_model(path)
            own = check_own_graph(path, model, Data(z))
        assert own is not None
        assert np.allclose(model.predict(z), values @ w2.T, rtol=1e-6, atol=1e-6), name


def test_a_protobuf_is_the_file_that_it_would_be(tmp_path):
    proto = onnx.load(MODEL)
    x = RNG.integers(0, 17, (4, 64)).astype(float)
    assert np.array_equal(imported(proto).predict(x), load_model(MODEL).predict(x))


@pytest.mark.parametrize("scaler", ["StandardScaler", "MinMaxScaler", "both", "none"])
@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_scikit_learn_is_folded_exactly(scaler, kind):
    sklearn = pytest.importorskip("sklearn")
    assert sklearn
    from sklearn import neural_network, pipeline, preprocessing

    names = {"both": ["StandardScaler", "MinMaxScaler"], "none": []}.get(scaler, [scaler])
    last = getattr(neural_network, kind)(hidden_layer_sizes=(7, 5), max_iter=3, random_state=0)
    steps = [*(getattr(preprocessing, name)() for name in names), "passthrough", last]
    model = pipeline.make_pipeline(*steps) if names else last
    y = (X[:, :3] @ [1, 0.1, 5] > 10).astype(int) + (X[:, 3] > 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y)
    found = imported(model)
    assert [node.op for node in found.nodes] == ["Dense", "Relu", "Dense", "Relu", "Dense"]
    assert found.dropped == (("Softmax",) if kind == "MLPClassifier" else ())
    out = found.predict(X)
    if kind == "MLPClassifier":
        out = np.exp(out) / np.exp(out).sum(axis=1, keepdims=True)
        expected = model.predict_proba(X)
    else:
        expected = model.predict(X)[:, None]
    assert np.allclose(out, expected, rtol=1e-9, atol=1e-12)


class StandardScaler:
    pass


class MLPRegressor:
    pass


class PowerTransformer:
    pass


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (7, "A model must be a path, a torch.nn.Module"),
        ({}, "not 'dict'"),
        ([], "must hold"),
        ([(np.ones((2, 2)), None)], "Layer 0 must be (weights, biases, activation)"),
        ([(np.ones(2), None, None)], "Layer 0: weights (outputs, inputs) must be 2-dimensional"),
        ([(np.ones((2, 2)), [1.0], None)], "Layer 0 must have 2 biases, not 1"),
        ([(np.ones((2, 2)), None, "wings")], "Layer 0 must have the activation None or one of"),
        ([(np.full((2, 2), np.nan), None, None)], "finite"),
        ([("a", None, None)], "must be numbers"),
        ([(np.ones((2, 2)), None, None), (np.ones((2, 3)), None, None)], "for 2 inputs, not 3"),
        (MLPRegressor(), "MLPRegressor must be fitted"),
        (SimpleNamespace(steps=[("s", StandardScaler()), ("m", MLPRegressor())]), "be fitted"),
        (SimpleNamespace(steps=[("s", PowerTransformer()), ("m", MLPRegressor())]),
         "not 'PowerTransformer'"),
        (SimpleNamespace(steps=[]), "not 'SimpleNamespace'"),
    ],
)  # fmt: skip
def test_other_objects_are_refused_in_one_line(model, text):
    with pytest.raises(InputError) as caught:
        pvq_hw.check(model)
    assert text in str(caught.value)
    assert str(caught.value).isprintable()


def test_no_package_is_imported_for_objects_of_others():
    assert imported(LAYERS)
    assert "torch" not in sys.modules


class Module:
    """What `pvq_hw.model.objects` knows of a ``torch.nn.Module``: its class's name, and modes."""

    training = True

    def eval(self):
        return self.train(False)

    def train(self, mode=True):
        self.training = mode
        return self


Module.__module__ = "torch.nn.modules.module"


class Network(Module):
    def forward(self, x):
        raise NotImplementedError


def stand_in(export):
    """A package of PyTorch's name, whose exporter is ``export(module, args, path)``."""
    return SimpleNamespace(
        as_tensor=lambda x: x,
        get_default_dtype=lambda: np.float32,
        no_grad=contextlib.nullcontext,
        onnx=SimpleNamespace(export=export),
    )  # fmt: skip


class Tensor:
    """A tensor of the stand-in."""

    def __init__(self, x):
        self.x = np.asarray(x, dtype=np.float32)

    def is_floating_point(self):
        return True

    def __getitem__(self, part):
        return Tensor(self.x[part])


def test_a_module_is_exported_in_use_and_left_as_it_was(monkeypatch):
    """Against a stand-in: the real exporter is asked under the marker torch, below."""
    seen = []

    def export(module, args, path, **options):
        seen.append((module.training, args[0].x.shape, options["dynamic_axes"]))
        Path(path).write_bytes(onnx.load(MODEL).SerializeToString())

    monkeypatch.setitem(sys.modules, "torch", stand_in(export))
    network, x = Network(), Tensor(np.ones((5, 64)))
    found = pvq_hw.check(network, "hx8k", example_inputs=x)
    assert found.ok
    assert found.name == "Network.onnx"
    assert seen == [(False, (1, 64), {"x": {0: "N"}})]
    assert network.training


def test_a_module_that_cannot_be_exported_is_one_line(monkeypatch):
    def export(*_, **__):
        raise RuntimeError("no\nsuch\x1b[2J operator")

    monkeypatch.setitem(sys.modules, "torch", stand_in(export))
    network = Network()
    with pytest.raises(InputError, match="PyTorch could not export 'Network': no such") as caught:
        pvq_hw.check(network, example_inputs=Tensor(np.ones((1, 4))))
    assert str(caught.value).isprintable()
    assert network.training
    with pytest.raises(InputError, match="must come with example_inputs"):
        pvq_hw.check(network)
    with pytest.raises(InputError, match="Example inputs must be 1 to 1, as 'Network' takes them"):
        pvq_hw.check(network, example_inputs=(1, 2))
    with pytest.raises(InputError, match="must be called as what forward takes, x, not 'image'"):
        pvq_hw.check(network, example_inputs={"image": 1})


@pytest.mark.torch
def test_a_torch_module_is_exported_as_it_is_in_use(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Dropout(0.5), torch.nn.Linear(32, 3),
    )  # fmt: skip
    x = RNG.standard_normal((20, 1, 6, 6)).astype(np.float32)
    with model_file(module, x) as path:
        found = load_model(path)
    assert module.training
    with torch.no_grad():
        expected = module.eval()(torch.as_tensor(x)).numpy()
    assert np.allclose(found.predict(x), expected, atol=1e-5)
    made = pvq_hw.compile(module, tmp_path / "out", target="ulx3s-25f", ratio=1, calibrate=x,
                          example_inputs=x)  # fmt: skip
    assert made.simulate(x[:2], simulator="amaranth")["mismatches"] == 0
    with pytest.raises(InputError, match="must come with example_inputs"):
        pvq_hw.check(module)
    with pytest.raises(InputError, match="PyTorch could not export 'Sequential'"):
        pvq_hw.check(module, example_inputs=x[:, :, :2])
