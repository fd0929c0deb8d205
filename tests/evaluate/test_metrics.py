"""Metrics: accuracy, RMSE, AUC, functions of the user's."""

import numpy as np
import pytest

from pvq_hw.errors import InputError
from pvq_hw.evaluate.metrics import auc, find_metric, network_outputs, wilson


def score(values, y, head=(), inputs=0):
    """Name and value of the metric that fits."""
    metric = find_metric(None, y, values.shape[1], head, inputs)
    return metric.name, metric.compute(values, y)


def test_auc_counts_pairs():
    rng = np.random.default_rng(1)
    values, y = rng.integers(0, 9, (60, 1)), rng.integers(0, 2, 60)
    one, zero = values[y == 1, 0], values[y == 0, 0]
    pairs = np.sign(one[:, None] - zero[None, :])
    assert auc(values, y) == pytest.approx(((pairs + 1) / 2).mean(), abs=1e-12)


def test_auc_of_classes_is_the_mean_of_each_against_the_rest():
    rng = np.random.default_rng(2)
    values, y = rng.normal(size=(80, 4)), rng.integers(0, 3, 80)
    each = [auc(values[:, [c]], (y == c).astype(int)) for c in range(3)]
    assert auc(values, y) == pytest.approx(np.mean(each), abs=1e-12)


def test_auc_of_perfect_and_reversed_order():
    y = np.array([0, 0, 1, 1])
    assert auc(np.array([[1.0], [2], [3], [4]]), y) == 1.0
    assert auc(np.array([[4.0], [3], [2], [1]]), y) == 0.0
    assert auc(np.ones((4, 1)), y) == 0.5


@pytest.mark.parametrize(
    ("values", "y", "text"),
    [
        (np.ones((3, 1)), np.array([0.5, 0, 1]), "AUC must have class numbers as labels"),
        (np.ones((3, 1)), np.array([0, 1, 2]), "one output must have the labels 0 and 1"),
        (np.ones((3, 2)), np.array([0, 1, 2]), "Labels must be 0 to 1"),
        (np.ones((3, 2)), np.array([1, 1, 1]), "frames of at least two classes"),
        (np.ones((3, 2)), np.array([1, 1]), "Labels must be 3, one per frame, not 2"),
    ],
)
def test_auc_refuses(values, y, text):
    with pytest.raises(InputError, match=text):
        auc(values, y)


def test_metric_fits_the_labels_by_default():
    y = np.array([0, 1, 1])
    values = np.array([[1.0, 0], [0, 1], [1, 0]])
    assert find_metric(None, y, 2).name == "accuracy"
    assert find_metric(None, y, 1).name == "rmse"
    assert score(values, y) == ("accuracy", 100 * (2 / 3))
    assert score(values[:, :1], np.array([1.0, 0, 3])) == ("rmse", float(np.sqrt(4 / 3)))


def test_better_and_worse():
    more, less = find_metric("auc", np.array([0]), 1), find_metric("rmse", np.array([0.0]), 1)
    assert more.meets(0.9, 0.8)
    assert not more.meets(0.7, 0.8)
    assert less.meets(0.7, 0.8)
    assert not less.meets(0.9, 0.8)
    assert more.meets(0.1, None)


def test_function_of_the_users(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_metric_a.py").write_text(
        "def worst(values, y):\n    return abs(values[:, 0] - y).max()\n"
        "worst.lower_is_better = True\n"
        "def text(values, y):\n    return 'many'\n"
        "number = 3\n"
    )
    metric = find_metric("my_metric_a:worst", np.array([0.0]), 1)
    assert not metric.higher_is_better
    assert metric.compute(np.array([[1.0], [4]]), np.array([0.0, 1])) == 3.0
    with pytest.raises(InputError, match="must give a finite number, not 'many'"):
        find_metric("my_metric_a:text", np.array([0.0]), 1).compute(np.ones((1, 1)), np.ones(1))
    with pytest.raises(InputError, match="'number' must be a function of module"):
        find_metric("my_metric_a:number", np.array([0.0]), 1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("precision", "Metric must be accuracy, rmse, auc or module:function, not 'precision'"),
        (":f", "Metric must be accuracy"),
        ("no_such_module_x:f", "Metric module 'no_such_module_x' can't be imported"),
    ],
)
def test_unknown_metrics_are_refused(name, text):
    with pytest.raises(InputError, match=text):
        find_metric(name, np.array([0]), 2)


def test_one_output_behind_a_sigmoid_is_a_class():
    y, logits = np.array([0, 1, 1, 0]), np.array([[-0.1], [0.2], [-3.0], [0.0]])
    assert score(logits, y, ("Sigmoid",)) == ("accuracy", 75.0)
    assert find_metric(None, y, 1, ("Sigmoid",)).name == "accuracy"
    assert find_metric("accuracy", y, 1).compute(logits, y) == 75.0
    assert score(logits, y)[0] == "rmse"  # no Sigmoid: 0 and 1 may be amounts
    assert score(logits, 2 * y, ("Sigmoid",))[0] == "rmse"
    with pytest.raises(InputError, match="0 and 1 for a network with one output"):
        find_metric("accuracy", y, 1).compute(logits, 2 * y)


@pytest.mark.parametrize("y", [np.array([0.0, 1, 1, 0]), np.array([[0], [1], [1], [0]])])
def test_labels_of_one_output_behind_a_sigmoid_may_be_floats_or_a_column(y):
    logits = np.array([[-0.1], [0.2], [-3.0], [0.0]])
    assert score(logits, y, ("Sigmoid",)) == ("accuracy", 75.0)


@pytest.mark.parametrize(
    ("y", "outputs", "head", "inputs", "name", "why"),
    [
        ([0, 1, 2], 3, (), 4, "accuracy", "labels are class numbers"),
        ([0, 1, 1], 1, ("Sigmoid",), 4, "accuracy", "one output behind a Sigmoid, labels 0 and 1"),
        ([0, 1, 1], 1, (), 4, "rmse", "one output without a Sigmoid, so labels are values"),
        ([0.5, 1, 1], 1, ("Sigmoid",), 4, "rmse", "labels are values"),
        ([[0, 1], [1, 0]], 2, (), 4, "rmse", "labels are values"),
        ([0, 9], 20, ("Softmax",), 20, "accuracy", "labels are class numbers"),
        ([0, 9], 19, (), 19, "accuracy", "labels are class numbers"),
    ],
)
def test_a_metric_says_why_it_was_chosen(y, outputs, head, inputs, name, why):
    metric = find_metric(None, np.array(y), outputs, head, inputs)
    assert (metric.name, metric.why) == (name, why)
    assert metric.classes == (name == "accuracy")
    asked = find_metric("rmse", np.array(y), outputs, head, inputs)
    assert (asked.name, asked.why, asked.classes) == ("rmse", "as asked for", name == "accuracy")


def test_class_numbers_of_an_autoencoder_are_no_answers():
    y = np.array([0, 9, 3])
    text = "up to 9, but the network has 784 outputs, as many as inputs: give its targets as y"
    with pytest.raises(InputError, match=text):
        find_metric(None, y, 784, ("Sigmoid",), 784)
    assert find_metric("accuracy", y, 784, ("Sigmoid",), 784).name == "accuracy"


def test_targets_are_compared_with_what_the_files_network_gives():
    """Behind its last Sigmoid or Softmax, which the accelerator leaves out."""
    rng = np.random.default_rng(5)
    logits = np.concatenate((rng.normal(size=(6, 4)) * 3, np.full((1, 4), 1e4)))
    sigmoid, softmax = network_outputs(logits, ["Sigmoid"]), network_outputs(logits, ["Softmax"])
    np.testing.assert_allclose(sigmoid[:6], 1 / (1 + np.exp(-logits[:6])), rtol=1e-12)
    np.testing.assert_allclose(softmax.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(np.log(softmax), network_outputs(logits, ["LogSoftmax"]), rtol=1e-9)
    assert network_outputs(logits, ["ArgMax"]) is logits
    for head, y in ((("Sigmoid",), sigmoid), (("Softmax",), softmax)):
        assert score(logits, y, head) == ("rmse", 0.0)
        assert score(logits, y)[1] > 1


def test_class_numbers_as_floats_are_said_to_be_so():
    with pytest.raises(InputError, match="class numbers must be integers, not float64"):
        score(np.ones((2, 3)), np.array([0.0, 2.0]))


def test_a_function_of_the_users_that_fails_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_metric_b.py").write_text("def f(values, y):\n    return values[0, 9]\n")
    metric = find_metric("my_metric_b:f", np.array([0]), 2)
    with pytest.raises(InputError, match="'my_metric_b:f' fails on the outputs: IndexError"):
        metric.compute(np.ones((1, 2)), np.array([0]))


@pytest.mark.parametrize(
    ("right", "frames", "low", "high"),
    [
        (8, 10, 49.02, 94.33),
        (0, 20, 0.0, 16.11),
        (20, 20, 83.89, 100.0),
        (9855, 10000, 98.30, 98.77),
    ],
)
def test_the_interval_of_an_accuracy_is_wilsons(right, frames, low, high) -> None:
    assert wilson(right, frames) == pytest.approx((low, high), abs=0.006)
