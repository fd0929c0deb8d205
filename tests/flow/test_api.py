"""The Python interface does what the verbs do."""

import json
from dataclasses import replace

import numpy as np
import pytest
from cli_tools import MODEL, reseal, snapshot, twin

import pvq_hw
from pvq_hw import CheckError, Data, InputError
from pvq_hw.progress import Steps


@pytest.fixture(scope="module")
def data(digits):
    return pvq_hw.load_data(digits.train), pvq_hw.load_data(digits.test)


def test_every_public_name_is_there():
    for name in pvq_hw.__all__:
        assert getattr(pvq_hw, name).__doc__
    assert set(pvq_hw.__all__) | {"__version__"} == set(dir(pvq_hw))
    with pytest.raises(AttributeError, match="module 'pvq_hw' has no attribute 'wings'"):
        pvq_hw.wings  # noqa: B018


def test_compile_gives_the_bytes_of_the_verb(digits, data, tmp_path):
    train, test = data
    out = tmp_path / "out"
    pvq_hw.compile(MODEL, out, target="icebreaker", ratio=1.5, calibrate=train, evaluate=test,
                   min_accuracy=95)  # fmt: skip
    assert snapshot(out) == snapshot(digits.out)


def test_compile_takes_arrays_and_a_configuration(data, tmp_path):
    train, _ = data
    (tmp_path / "c.toml").write_text(
        'target = "hx8k"\nratio = 4\nquantizer = "plain"\n[layers.logits]\nk = 20\n'
    )

    class Told(Steps):
        def __init__(self):
            self.notes, self.shares = [], []

        def progress(self, done, total, what=""):
            self.shares.append(done / total)

    told = Told()
    made = pvq_hw.compile(
        str(MODEL), str(tmp_path / "out"), config=tmp_path / "c.toml", calibrate=train.x,
        ratio=2, steps=told,
    )  # fmt: skip
    assert made.plan.target.name == "hx8k"
    assert [layer.k.tolist() for layer in made.network.layers][1] == [20] * 10
    total = np.abs(made.network.layers[0].y).sum()
    assert total == 32 * 64 // 2  # the argument, not the file, and only of the other layers
    assert all(0 <= share <= 1 for share in told.shares)
    assert made.input_scale == 1.0


def test_float_data_and_scaled_integers_are_the_same(data, tmp_path):
    """Integers are divided by the scale, floats are what the model expects."""
    train, test = data
    made = pvq_hw.compile(
        MODEL, tmp_path / "out", target="hx8k", quantizer="plain", ratio=2, input_scale=16,
        calibrate=train.x,
    )  # fmt: skip
    assert made.input_scale == 16.0
    real = test.x[:50] / 16
    assert np.array_equal(made.predict(test.x[:50]), made.predict(real))
    assert np.array_equal(made.quantize_input(test.x[:50]), made.quantize_input(real))


def test_load_reads_everything_back(digits, data):
    accelerator = pvq_hw.load(str(digits.out))
    _, test = data
    x = accelerator.quantize_input(test.x[:20])
    assert x.dtype == np.int64
    assert np.array_equal(accelerator.predict_integers(test.x[:20]), accelerator.network.predict(x))
    trace = accelerator.network.trace(x)
    assert [values.shape for values in list(trace.values())[-2:]] == [(20, 32), (20, 10)]
    assert accelerator.manifest["n_over_k"] == digits.document["n_over_k"]
    assert accelerator.verify() == []
    assert accelerator.verify(MODEL) == []
    with pytest.raises(InputError, match=r"must exist; run pvq-hw build first"):
        accelerator.require("build/build.json")


def test_predict_and_trace_speak_the_models_unit(digits, data):
    accelerator = pvq_hw.load(digits.out)
    x = data[1].x[:50]
    real, exact = accelerator.predict(x), pvq_hw.load_model(MODEL).predict(x)
    assert (real.dtype, real.shape) == (np.float64, (50, 10))
    assert np.abs(real - exact).mean() < 0.2 * exact.std()
    integers = accelerator.predict_integers(x)
    assert np.array_equal(real, integers * accelerator.network.output.scale)
    traced, steps = accelerator.trace(x), accelerator.trace(x, integers=True)
    assert list(traced) == list(steps) == ["h", "logits"]
    assert np.array_equal(traced["logits"], real)
    assert np.array_equal(traced["h"], steps["h"] * accelerator.network.layers[0].output.scale)


def test_values_show_themselves_in_a_notebook(digits, tmp_path):
    accelerator = pvq_hw.load(digits.out)
    assert repr(accelerator).startswith("<Accelerator 'digits_mlp_64_32_10' on icebreaker")
    assert repr(accelerator.network) == "<Network 'digits_mlp_64_32_10': 2 layers, N/K 1.51>"
    assert repr(accelerator.plan).startswith("<Plan of 'digits_mlp_64_32_10' on icebreaker: 71")
    for value in (accelerator, accelerator.network, accelerator.plan):
        text, page = value.summary(), value._repr_html_()
        assert text.splitlines()[-1].split()[0] == "logits"
        assert page.count("<tr>") == page.count("</tr>") >= 4
    assert "accuracy" in accelerator.summary()
    assert "95.8" in accelerator.summary()


def test_names_of_others_stay_text(digits):
    network = pvq_hw.load(digits.out).network
    evil = "<script>\x1b[2J\n"
    layers = (replace(network.layers[0], name=evil), *network.layers[1:])
    shown = replace(network, name=evil, layers=layers)
    assert "<script>" not in shown._repr_html_()
    assert "&lt;script&gt;" in shown._repr_html_()
    for text in (repr(shown), *shown.summary().splitlines()):
        assert text.isprintable()


def test_image_and_golden_model_agree(digits, data):
    """Each level's model, on the test set: network, and cores from their memory contents."""
    accelerator = pvq_hw.load(digits.out)
    _, test = data
    x = accelerator.quantize_input(test.x)
    values = x
    for spec, core in zip(accelerator.image.specs, accelerator.image.cores, strict=True):
        values = spec.compute(core, values)
    assert np.array_equal(values, accelerator.predict_integers(test.x))


def test_simulate_gives_the_document_that_it_leaves(digits, data, tmp_path):
    _, test = data
    out = twin(digits.out, tmp_path / "out")
    made = pvq_hw.load(out).simulate(test.x[:1], simulator="amaranth", labels=test.y[:1])
    assert json.loads((out / "simulation.json").read_text()) == made
    assert json.loads((out / "report.json").read_text())["simulate"] == made
    assert (made["frames"], made["outputs_compared"], made["mismatches"]) == (1, 42, 0)


def test_simulate_refuses_cycles_that_were_not_planned(digits, data, tmp_path):
    """A plan that promises more than the circuit keeps is a failed check."""
    out = twin(digits.out, tmp_path / "out")
    plan = json.loads((out / "plan.json").read_text())
    plan["latency_cycles"] -= 1
    (out / "plan.json").write_text(json.dumps(plan))
    reseal(out)
    accelerator = pvq_hw.load(out)
    with pytest.raises((CheckError, InputError), match="latency"):
        accelerator.simulate(data[1].x[:1], simulator="amaranth")


def test_report_and_update(digits, tmp_path):
    out = twin(digits.out, tmp_path / "out")
    accelerator = pvq_hw.load(out)
    before = snapshot(out)
    with pytest.raises(ZeroDivisionError):
        accelerator.update(lambda staging: (staging / "build").mkdir() or 1 / 0)
    assert snapshot(out) == before
    document = accelerator.report()
    assert document["compile"]["network"] == "digits_mlp_64_32_10"
    assert snapshot(out) == before  # nothing is new, and nothing has a time


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "Target '' is unknown"),
        (
            {"target": "hx8k", "feathers": 2},
            "configuration has an unknown key 'feathers'; known are target",
        ),
        ({"target": "hx8k", "ratio": 0}, "N/K must be a number above 0, not 0"),
        ({"target": "hx8k", "ratio": "2"}, "ratio must be a number, not '2'"),
        ({"target": "hx8k", "lanes": [1, 2, 3]}, "Lanes must be given for 2 layers"),
        ({"target": "hx8k"}, "Quantization must have calibration data"),
        ({"target": "hx8k", "min_accuracy": 3}, "--min-accuracy must come with --evaluate"),
    ],
)
def test_compile_refuses_in_one_line(tmp_path, options, text):
    with pytest.raises(InputError) as caught:
        pvq_hw.compile(MODEL, tmp_path / "out", **options)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert snapshot(tmp_path) == {}


def test_labels_that_are_missing(data, tmp_path):
    train, _ = data
    with pytest.raises(InputError, match="Evaluation data must have labels y"):
        pvq_hw.compile(MODEL, tmp_path / "out", target="hx8k", calibrate=train,
                       evaluate=Data(train.x))  # fmt: skip


def test_accuracy_below_the_minimum(data, tmp_path):
    train, test = data
    with pytest.raises(CheckError, match=r"Accuracy must be at least 99\.9 %, not"):
        pvq_hw.compile(MODEL, tmp_path / "out", target="hx8k", quantizer="plain", ratio=9,
                       calibrate=train, evaluate=test, min_accuracy=99.9)  # fmt: skip
    assert snapshot(tmp_path) == {}
