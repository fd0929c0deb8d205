"""Fine-tuning and training, with PyTorch: `make test-train`."""

from dataclasses import replace

import numpy as np
import pytest
from cli_tools import BUNDLED, MODEL, run
from model_file_cases import branches, chain, image_chain, line

from pvq_hw.arith.formats import IntFormat
from pvq_hw.data.dataset import Data, load_data, make_data
from pvq_hw.errors import InputError
from pvq_hw.evaluate.accuracy import metric_for
from pvq_hw.evaluate.metrics import network_outputs
from pvq_hw.flow.compile import quantize_for
from pvq_hw.flow.options import load_options
from pvq_hw.model.curve import Curve, X
from pvq_hw.model.export import save_model
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Dense, Function, Model
from pvq_hw.pyramid.nearest import nearest
from pvq_hw.quantizer.banks import Placement, balance, meets
from pvq_hw.quantizer.given import given_codes
from pvq_hw.quantizer.quantize import LayerOptions, quantize
from pvq_hw.quantizer.scales import round_to_lattice
from pvq_hw.target.boards import get_target
from pvq_hw.train import recipes
from pvq_hw.train.batches import Lessons
from pvq_hw.train.finetune import Run, Training, finetune
from pvq_hw.train.fit import shifted
from pvq_hw.train.networks import train_network
from pvq_hw.train.recipes import pick, variation
from pvq_hw.train.row_adam import RowAdam
from pvq_hw.train.straight import Int8Layer, PvqLayer, fake_quantize
from pvq_hw.train.torch_extra import require_torch
from pvq_hw.train.torch_model import Graph

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def torch():
    return require_torch()


@pytest.fixture(scope="module")
def digits():
    found = [
        make_data([BUNDLED / "digits.npz"], keys=[f"x_{p}", f"y_{p}"]) for p in ("train", "test")
    ]
    return found[0], found[1]


@pytest.mark.parametrize("make", [chain, image_chain, line, branches])
def test_the_graph_computes_what_the_model_does(torch, make):
    model = make()
    x = model.to_internal(np.random.default_rng(0).normal(size=(6, *model.input_shape)))
    found = Graph(model).run(torch.tensor(x, dtype=torch.float32)).detach().numpy()
    *_, (_, out) = model.steps(x)
    np.testing.assert_allclose(found, out.reshape(len(x), -1), rtol=1e-4, atol=1e-4)


def test_functions_pass_their_slopes_on(torch):
    curve = Curve("Mul", (X, Curve("Tanh", (X,))))
    nodes = (
        Dense("fc", ("x",), "z", (4,), np.eye(4), np.zeros(4)),
        Function("act", ("z",), "a", (4,), curve),
    )
    model = Model("m", "", "x", (4,), (0,), (4,), nodes)
    graph, x = Graph(model), torch.linspace(-2, 2, 12).reshape(3, 4)
    out = graph.run(x)
    np.testing.assert_allclose(out.detach().numpy(), curve(x.numpy()), atol=1e-6)
    out.sum().backward()
    slopes = curve.slope(x.numpy()).sum(axis=0)
    np.testing.assert_allclose(graph.bias["fc"].grad.numpy(), slopes, atol=1e-4)


def layer_of(rng, placement=None, k=8):
    w = rng.normal(size=(6, 20))
    y = nearest(w, k)
    if placement:
        y = balance(w, np.full(6, k), placement)
    return PvqLayer(w, y, np.full((6, 1), 0.25), np.zeros(6), placement), y


def test_rows_keep_their_pulses(torch):
    """Whatever the latent weights become; the codes are those of `nearest`."""
    rng = np.random.default_rng(1)
    layer, y = layer_of(rng)
    layer.project()
    np.testing.assert_array_equal(layer.y, y)
    for _ in range(5):
        with torch.no_grad():
            layer.latent += torch.tensor(rng.normal(size=(6, 20)), dtype=torch.float32)
        assert layer.project() > 0
        latent = layer.latent.detach().numpy().astype(np.float64)
        np.testing.assert_array_equal(layer.y, nearest(latent, 8))
        np.testing.assert_allclose(layer.weight().detach(), 0.25 * layer.y, atol=1e-6)
        found, _ = given_codes(layer.real()[0], "fc")
        np.testing.assert_array_equal(found * np.gcd.reduce(layer.y, axis=1)[:, None], layer.y)


def test_balanced_rows_stay_balanced(torch):
    rng, placement = np.random.default_rng(2), Placement(4, 3)
    layer, _ = layer_of(rng, placement)
    with torch.no_grad():
        layer.latent += torch.tensor(rng.normal(size=(6, 20)), dtype=torch.float32)
    assert layer.project() > 0
    assert meets(layer.y, placement)
    assert (np.abs(layer.y).sum(axis=1) == 8).all()


def test_gradients_go_straight_through(torch):
    rng = np.random.default_rng(3)
    layer, y = layer_of(rng)
    pull = torch.tensor(rng.normal(size=(6, 20)), dtype=torch.float32)
    (layer.weight() * pull).sum().backward()
    np.testing.assert_allclose(layer.latent.grad, 0.25 * pull, rtol=1e-6)
    wanted = 0.25 * (y * pull.numpy()).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(layer.log_gain.grad, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fmt", [IntFormat(8, False), IntFormat(8, True), IntFormat(3, True)])
def test_activations_lie_on_the_integer_lattice(torch, fmt):
    x = np.random.default_rng(4).normal(size=500).astype(np.float32) * 3
    scale = 2.0**-5
    found = fake_quantize(torch.tensor(x), scale, fmt.min, fmt.max).numpy()
    np.testing.assert_array_equal(found, round_to_lattice(x.astype(np.float64), scale, fmt) * scale)


def test_binary_activations_are_signs(torch):
    x = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0], requires_grad=True)
    out = fake_quantize(x, 1.0, -1, 1)
    out.sum().backward()
    assert out.tolist() == [-1, -1, 1, 1, 1]
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_maps_are_shifted_with_zeros():
    x = np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3, 1)
    seen = {shifted(x, 1, np.random.default_rng(s))[0, :, :, 0].tobytes() for s in range(200)}
    wanted = set()
    padded = np.pad(x[0, :, :, 0], 1)
    for dy in range(3):
        for dx in range(3):
            wanted.add(np.ascontiguousarray(padded[dy : dy + 3, dx : dx + 3]).tobytes())
    assert seen == wanted


def test_digits_recover(digits):
    """At few pulses; K of every row stays, and the same seed gives the same codes."""
    train, _ = digits
    model = load_model(MODEL)
    plan = Training(epochs=20, batch=32, rate=1e-3, temperature=2)
    runs = [finetune(model, train.x, train.y, ratio=16, training=plan) for _ in range(2)]
    tuned = runs[0]

    def right(network):
        out = network.predict(network.quantize_input(train.x))
        return 100 * (out.argmax(axis=1) == train.y).mean()

    assert right(tuned.network) > right(tuned.start) + 0.5
    assert tuned.network.n_over_k >= tuned.start.n_over_k >= 16
    for before, after, again in zip(
        tuned.start.layers, tuned.network.layers, runs[1].network.layers, strict=True
    ):
        k, divisor = np.abs(after.y).sum(axis=1), np.gcd.reduce(after.y, axis=1)
        assert (np.abs(before.y).sum(axis=1) % k == 0).all()
        assert (divisor == 1).all()
        np.testing.assert_array_equal(after.y, again.y)


@pytest.mark.parametrize("suffix", [".onnx", ".npz"])
def test_the_verb_and_what_compile_makes_of_it(digits, tmp_path, suffix):
    """The codes that were trained are those that `compile` takes, balanced over the lanes."""
    train, test = digits
    for name, data in (("train", train), ("test", test)):
        np.savez(tmp_path / f"{name}.npz", x=data.x, y=data.y)
    out = tmp_path / f"tuned{suffix}"
    ran = run("finetune", MODEL, "--data", tmp_path / "train.npz", "-o", out, "--ratio", 8,
              "--evaluate", tmp_path / "test.npz", "--target", "icebreaker", "--epochs", 2,
              "--batch", 64, "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    document = ran.json
    assert set(document["accuracy"]) == {"metric", "why", "float", "start", "tuned", "frames"}
    assert document["n_over_k"] >= 8
    figure = f"# Before training, float: accuracy {document['accuracy']['float']:.2f} % on 500"
    assert out.with_suffix(".toml").read_text().startswith(figure)
    options = load_options(out.with_suffix(".toml"), {})
    assert (options.quantizer, options.target) == ("given", "icebreaker")
    tuned = load_model(out)
    network, folding = quantize_for(
        tuned, get_target("icebreaker"), options, load_data(tmp_path / "train.npz")
    )
    assert network.n_over_k == document["n_over_k"]
    for layer, node in zip(
        network.layers, (n for n in tuned.nodes if n.op == "Dense"), strict=True
    ):
        np.testing.assert_allclose(layer.gain * layer.y, node.weight, rtol=1e-6)
    x = network.quantize_input(test.x)
    right = 100 * (network.predict(x).argmax(axis=1) == test.y).mean()
    assert right == pytest.approx(document["accuracy"]["tuned"])
    assert len(folding.lanes) == len(network.layers)


def test_convolutions_without_labels():
    """Learns the float network's outputs; a regression with one output too."""
    model = line()
    x = np.random.default_rng(7).normal(size=(256, *model.input_shape)).astype(np.float32)
    plan = Training(epochs=4, batch=32, rate=2e-3, shift=1)
    tuned = finetune(model, x, ratio=3, training=plan)
    assert tuned.network.n_over_k >= 3
    assert all(np.isfinite(tuned.losses))


@pytest.mark.parametrize("make", [line, chain])
@pytest.mark.parametrize("head", [(), ("Sigmoid",), ("Softmax",)])
def test_targets_are_learned_as_values(make, head):
    """Values other than the float network's, behind the file's last operation."""
    model = replace(make(), dropped=head)
    x = np.random.default_rng(8).normal(size=(400, *model.input_shape)).astype(np.float32)
    exact = model.predict(x)
    y = network_outputs(1.5 * exact.reshape(len(x), -1), head)
    plan = Training(epochs=8, batch=32, rate=1e-3, side_rate=1e-2, distill=0)
    tuned = finetune(model, x, y, ratio=1, training=plan)
    judge = metric_for(model, y)
    assert judge.name == "rmse"

    def rmse(network):
        out = network.predict(network.quantize_input(x))
        return judge.compute(out.reshape(len(x), -1) * network.output.scale, y)

    assert rmse(tuned.network) < 0.95 * rmse(tuned.start)


def test_layers_of_8_bit_weights_stay(digits):
    train, _ = digits
    model = load_model(MODEL)
    name = next(n.name for n in model.nodes if n.op == "Dense")
    options = {name: LayerOptions(encoding="int8")}
    plan = Training(epochs=1, batch=64)
    tuned = finetune(model, train.x, train.y, ratio=4, layers=options, training=plan)
    assert [layer.encoding for layer in tuned.network.layers] == ["int8", "pvq"]


def test_what_is_refused(digits, tmp_path):
    train, _ = digits
    model = load_model(MODEL)
    with pytest.raises(InputError, match="Labels must be 0 to 9, the network's outputs"):
        finetune(model, train.x, np.where(train.y == 9, 10, train.y))
    with pytest.raises(InputError, match="must be a number or numbers for each of 1297 frames"):
        finetune(model, train.x, train.y[:5])
    with pytest.raises(InputError, match="Training: epochs must be at least 1, not 0"):
        Training(epochs=0)
    with pytest.raises(InputError, match="Training: distill must be 0 to 1, not 2"):
        Training(distill=2)
    groups = LayerOptions(unit=8, ratio=4)
    name = next(n.name for n in model.nodes if n.op == "Dense")
    with pytest.raises(InputError, match="must have a gain per row"):
        finetune(model, train.x, train.y, layers={name: groups})
    ran = run("finetune", MODEL, "--data", BUNDLED / "digits.npz", "-o", tmp_path / "t.pt")
    assert ran.code == 2


def test_the_networks_script_is_repeatable(tmp_path):
    """The digits network, twice: the same bytes, and right."""
    files = []
    for i in range(2):
        model, test = train_network("digits_mlp_64_32_10", BUNDLED)
        save_model(model, tmp_path / f"{i}.onnx")
        files.append((tmp_path / f"{i}.onnx").read_bytes())
    assert files[0] == files[1]
    assert (model.predict(test.x).argmax(axis=1) == test.y).mean() > 0.95


def test_calibration_of_a_tuned_model_only_sets_scales(digits):
    """Other calibration frames leave codes and gains as they are."""
    train, _ = digits
    tuned = finetune(load_model(MODEL), train.x, train.y, ratio=6,
                     training=Training(epochs=1, batch=64))  # fmt: skip
    again = quantize(tuned.model, calibration=Data(train.x[:50]), quantizer="given")
    for a, b in zip(tuned.network.layers, again.layers, strict=True):
        np.testing.assert_array_equal(a.y, b.y)
        np.testing.assert_array_equal(a.gain, b.gain)


def lessons_of(model, count=40, labels=None, **options):
    rng = np.random.default_rng(8)
    x = rng.integers(0, 256, (count, *model.shape))
    return Lessons(Graph(model), x, labels, 0.01, **options), x


def test_mirrored_frames_come_with_their_own_answers(torch):
    """Kept answers are those of the frame as it is given, mirrored or not; both occur."""
    model = image_chain()
    lessons, x = lessons_of(model, labels=np.arange(40), mirror=True)
    lessons.teach()
    lot = lessons.take(np.arange(40), np.random.default_rng(0))
    seen = lot.x.numpy() / 0.01
    mirrored = [bool(np.abs(a - b[:, ::-1]).max() < 0.5) for a, b in zip(seen, x, strict=True)]
    plain = [bool(np.abs(a - b).max() < 0.5) for a, b in zip(seen, x, strict=True)]
    assert [a != b for a, b in zip(mirrored, plain, strict=True)] == [True] * 40
    assert 5 < sum(mirrored) < 35
    np.testing.assert_array_equal(lot.labels, np.arange(40))
    wanted = Graph(model).outputs(lot.x)
    np.testing.assert_allclose(lot.wanted, wanted, rtol=1e-4, atol=1e-5)


def test_shifted_frames_have_no_kept_answers(torch):
    lessons, _ = lessons_of(image_chain(), shift=1)
    lessons.teach()
    assert lessons.take(np.arange(4), np.random.default_rng(0)).wanted is None


def test_the_unit_of_outputs_does_not_matter(digits):
    """Outputs in the thousands: labels and biases count as much as at their own size."""
    train, _ = digits
    model = load_model(MODEL)
    last = model.nodes[-1]
    larger = replace(last, weight=last.weight * 1024, bias=last.bias * 1024)
    runs = []
    for net in (model, replace(model, nodes=(*model.nodes[:-1], larger))):
        start = quantize(net, calibration=train.x, ratio=12)
        run = Run(net, start, Training(distill=0), {})
        x = start.quantize_input(train.x)
        lessons = Lessons(run.graph, x, train.y.astype(np.int64), start.input.scale)
        run.heat = run.measured_heat(lessons.some(500, np.random.default_rng(0)))
        lot = lessons.take(np.arange(len(x)), np.random.default_rng(0))
        runs.append((float(run.loss_of(lot).detach()), [x.unit for x in run.layers.values()]))
    assert runs[1][0] < 4 * runs[0][0]
    np.testing.assert_allclose(runs[1][1][:-1], runs[0][1][:-1], rtol=0.2)
    np.testing.assert_allclose(runs[1][1][-1] / runs[0][1][-1], 1024, rtol=0.2)


def test_steps_by_rows_are_steps_of_adam_where_rows_have_one_weight(torch):
    """And the weights of a row keep the order of their gradients."""
    a, b = (torch.tensor([[1.0], [-2.0]], requires_grad=True) for _ in range(2))
    c = torch.zeros(1, 3, requires_grad=True)
    for kind, t in ((torch.optim.Adam, a), (RowAdam, b), (RowAdam, c)):
        optimizer = kind([t], 1e-2, betas=(0.9, 0.99))
        for scale in (1.0, -0.5, 2.0):
            optimizer.zero_grad()
            (t * scale * torch.tensor([1e-3, 1.0, 3.0])[: t.shape[1]]).sum().backward()
            optimizer.step()
    np.testing.assert_allclose(a.detach(), b.detach(), rtol=1e-5)
    moved = c.detach().numpy()[0]
    np.testing.assert_allclose(moved / moved[1], [1e-3, 1, 3], rtol=1e-4)


def test_training_with_steps_by_rows_keeps_the_pulses(digits):
    train, _ = digits
    plan = Training(epochs=2, batch=32, rate=1e-2, by_row=True)
    tuned = finetune(load_model(MODEL), train.x, train.y, ratio=12, training=plan)
    plain = finetune(
        load_model(MODEL), train.x, train.y, start=tuned.start, training=replace(plan, by_row=False)
    )
    changed = False
    for old, new, other in zip(
        tuned.start.layers, tuned.network.layers, plain.network.layers, strict=True
    ):
        np.testing.assert_array_equal(np.abs(old.y).sum(axis=1), np.abs(new.y).sum(axis=1))
        changed |= bool((new.y != other.y).any())
    assert changed


def test_every_epoch_gives_its_model(digits):
    train, _ = digits
    kept = {}
    plan = Training(epochs=3, batch=256, half=True)
    tuned = finetune(load_model(MODEL), train.x, train.y, ratio=12, training=plan,
                     each_epoch=kept.__setitem__)  # fmt: skip
    assert list(kept) == [0, 1, 2]
    for a, b in zip(kept[2].nodes, tuned.model.nodes, strict=True):
        if a.op == "Dense":
            np.testing.assert_array_equal(a.weight, b.weight)


def test_weights_of_8_bits_learn_whatever_their_size(torch):
    rng = np.random.default_rng(9)
    w = rng.normal(size=(4, 6)) * 1e-3
    layer = Int8Layer(w, np.zeros(4), 2.0)
    steps = np.abs(w).max(axis=1, keepdims=True) / 127
    np.testing.assert_allclose(
        layer.weight().detach().numpy() / steps, np.rint(w / steps), atol=1e-3
    )
    layer.weight().sum().backward()
    np.testing.assert_allclose(
        layer.latent.grad, np.broadcast_to(steps * 127 / 16, w.shape), rtol=1e-5
    )
    with torch.no_grad():
        layer.offset += 1
    np.testing.assert_array_equal(layer.real()[1], 2.0)


def test_codes_may_stay(digits):
    """At a rate of 0 gains and biases alone are learned."""
    train, _ = digits
    plan = Training(epochs=3, batch=64, rate=0, side_rate=5e-3)
    tuned = finetune(load_model(MODEL), train.x, train.y, ratio=12, training=plan)
    for before, after in zip(tuned.start.layers, tuned.network.layers, strict=True):
        divisor = np.maximum(1, np.gcd.reduce(before.y, axis=1))[:, None]
        np.testing.assert_array_equal(after.y * divisor, before.y)
        assert (after.gain != before.gain).any()
    assert tuned.losses[-1] < tuned.losses[0]


def test_training_goes_on_from_where_it_was(digits):
    """Codes of an earlier run are not drawn back to the float network's weights."""
    train, _ = digits
    model = load_model(MODEL)
    first = finetune(model, train.x, train.y, ratio=12, training=Training(epochs=1, batch=64))
    for layer in Run(model, first.network, Training(), {}).layers.values():
        np.testing.assert_allclose(layer.latent.detach(), layer.y, atol=1e-5)
        assert layer.project() == 0


def _right(network, data):
    out = network.predict(network.quantize_input(data.x))
    return 100 * (out.reshape(len(data), -1).argmax(axis=1) == data.y).mean()


def test_the_recipe_is_picked_by_inputs_held_out(digits, tmp_path):
    """By the verb without options; what comes out is the one that answers best there."""
    train, _ = digits
    np.savez(tmp_path / "train.npz", x=train.x, y=train.y)
    out = tmp_path / "tuned.onnx"
    ran = run("finetune", MODEL, "--data", tmp_path / "train.npz", "-o", out, "--ratio", 16,
              "--epochs", 6, "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    recipes = ran.json["recipes"]
    tried, chosen = recipes["tried"], recipes["tried"][recipes["chosen"]]
    assert (recipes["held"], recipes["metric"]) == (len(train) // 5, "accuracy")
    assert tried[0]["training"] is None
    best = max((t["figure"], -t["doubt"]) for t in tried[1:])
    better = best[0] > tried[0]["figure"]
    assert (recipes["chosen"] > 0) == better
    assert (chosen["figure"], -chosen["doubt"]) == best or not better
    assert {t["training"]["epochs"] for t in tried[1:]} == {6}
    order = np.random.default_rng([0, 0xF17E]).permutation(len(train))
    held = np.sort(order[: len(train) // 5])
    fit = np.sort(order[len(train) // 5 :])
    network = quantize(load_model(out), calibration=train.x[fit], quantizer="given")
    assert _right(network, Data(train.x[held], train.y[held])) == pytest.approx(chosen["figure"])
    own = run("finetune", MODEL, "--data", tmp_path / "train.npz", "-o", out, "--ratio", 16,
              "--epochs", 1, "--rate", 1e-3, "--json")  # fmt: skip
    assert own.json["recipes"] is None


def test_no_worse_network_is_given_back(digits, monkeypatch):
    """Where every recipe ruins the codes, these are what comes out."""
    train, _ = digits
    some = Data(train.x[:200], train.y[:200])
    model = load_model(MODEL)
    start = quantize(model, calibration=some.x, ratio=16)
    monkeypatch.setattr(recipes, "RECIPES", (("too fast", {"rate": 5.0, "side_rate": 1.0}),))
    picked = pick(model, some.x, some.y, start=start, asked={"epochs": 1, "shift": 0})
    assert picked.chosen == 0
    assert min(t.figure for t in picked.tried[1:]) < picked.tried[0].figure
    for before, after in zip(start.layers, picked.tuned.network.layers, strict=True):
        divisor = np.maximum(1, np.gcd.reduce(before.y, axis=1))[:, None]
        np.testing.assert_array_equal(after.y * divisor, before.y)
    with pytest.raises(
        InputError, match="must have at least 20 inputs to pick a recipe by, not 19"
    ):
        pick(model, some.x[:19], some.y[:19], start=start)


@pytest.mark.parametrize("make", [line, image_chain, branches])
@pytest.mark.parametrize("values", [False, True])
def test_recipes_are_picked_for_all_kinds_of_networks(make, values):
    """Series, depthwise ones, sums; by values, or by the float network's outputs alone."""
    model = make()
    x = np.random.default_rng(3).normal(size=(60, *model.input_shape)).astype(np.float32)
    y = model.predict(x).reshape(60, -1).astype(np.float32) if values else None
    start = quantize(model, calibration=x, ratio=4)
    picked = pick(model, x, y, start=start, asked={"epochs": 2})
    assert picked.metric == ("rmse" if values else "distance from the float network's outputs")
    figures = [t.figure for t in picked.tried]
    assert figures[picked.chosen] == min(figures)


def runs_of(monkeypatch, figures, model, x, y, **asked):
    """What `pick` trains, instead of training it: name of the recipe, training, frames, and which
    run gave the codes that it starts from (None: those given). ``figures`` says how good the
    recipes are, by their names."""
    ran, made = [], []

    def train(model, x, y, *, training, start, **_):
        ran.append((training, len(x), next((i for i, t in enumerate(made) if t is start), None)))
        made.append(replace(start, meta={"of": len(made)}))
        return recipes.FineTuned(model, made[-1], start, ())

    def judged(self, network):
        name = names[-1]  # of the step that is judged
        return next((f for part, f in figures if part in name), 0.0), 0.0

    class Names(recipes.Steps):
        def step(self, title):
            names.append(title)
            return super().step(title)

    names = []
    monkeypatch.setattr(recipes, "finetune", train)
    monkeypatch.setattr(recipes._Picking, "_judged", judged)
    start = quantize(model, calibration=x, ratio=4)
    picked = pick(model, x, y, start=start, asked=asked, steps=Names())
    return picked, ran, [name.removeprefix("Train: ") for name in names[1:]]


def test_the_best_recipes_train_longer_and_settle(monkeypatch):
    """The best of all and the best that moves pulses; then gains and biases behind the pulses."""
    model = image_chain()
    x = np.random.default_rng(3).normal(size=(100, *model.input_shape)).astype(np.float32)
    y = np.arange(100) % model.nodes[-1].size
    figures = (("then gains", 9.0), ("some pulses move, longer", 8.0), ("outputs, longer", 2.0),
               ("some pulses move", 1.0), ("biases, float", 3.0))  # fmt: skip
    picked, ran, names = runs_of(monkeypatch, figures, model, x, y)
    tries = len(recipes.RECIPES)
    assert names[:tries] == [name for name, _ in recipes.RECIPES]
    assert {t.shift for t, _, _ in ran[:tries]} == {1}
    moved = "some pulses move"
    assert names[tries:] == [
        f"{moved}, inputs as they are",
        "gains and biases, float network's outputs, longer",
        f"{moved}, longer",
        f"{moved}, longer, then gains and biases",
    ]
    plain, gains, pulses, after = (training for training, _, _ in ran[tries:])
    assert (plain.shift, plain.mirror, plain.rate) == (0, False, 1e-3)
    assert (gains.rate, pulses.rate, after.rate) == (0, 1e-3, 0)
    assert gains.epochs == pulses.epochs > plain.epochs
    assert after.epochs == -(-pulses.epochs // 3)
    assert [start for _, _, start in ran] == [None] * (tries + 3) + [tries + 2]
    assert [frames for _, frames, _ in ran] == [80] * len(ran)
    assert picked.chosen == len(picked.tried) - 1


def test_recipes_that_come_to_the_same_run_once(monkeypatch):
    """Without labels the float network's outputs are all there is, whatever part they should be."""
    model = line()
    x = np.random.default_rng(3).normal(size=(100, *model.input_shape)).astype(np.float32)
    picked, ran, names = runs_of(monkeypatch, (), model, x, None, shift=0)
    assert names[0] == "gains and biases"
    assert "gains and biases, float network's outputs" not in names
    assert {training.distill for training, _, _ in ran} == {1.0}
    assert {training.shift for training, _, _ in ran} == {0}
    assert picked.chosen == 0  # where nothing is better


def test_nothing_is_trained_where_nothing_can_be_better(monkeypatch):
    model = line()
    x = np.random.default_rng(3).normal(size=(100, *model.input_shape)).astype(np.float32)
    y = np.arange(100) % model.nodes[-1].size
    for right, runs in ((100.0, False), (99.0, True)):
        picked, ran, _ = runs_of(monkeypatch, (("codes", right),), model, x, y, epochs=1)
        assert picked.tried[0].figure == right
        assert (len(ran) > 0) == runs
        assert picked.chosen == 0


def test_pictures_in_color_are_mirrored_and_moved_farther():
    def varied(*shape):
        return variation(Model("m", "", "x", shape, (), shape, ()))

    assert varied(32, 24, 3) == {"shift": 3, "mirror": True}
    assert varied(28, 28, 1) == {"shift": 1}
    assert varied(20, 1, 3) == varied(6, 32, 3) == {"shift": 1}
    assert varied(1, 1, 3) == {}
    assert varied(64) == {}


def test_inputs_are_varied_anew_for_each_batch(digits, tmp_path, monkeypatch):
    """By distortions, by a function, and by one that is named; each sees inputs as given."""
    train, _ = digits
    model, seen = load_model(MODEL), []

    def vary(x, rng):
        seen.append((x.copy(), rng.integers(100)))
        return 16 - x

    asked = Training(epochs=2, batch=600, rate=0)
    runs = [
        finetune(model, train.x, train.y, ratio=8, training=replace(asked, augment=a))
        for a in ("", "noise=0.5", vary)
    ]
    assert len({tuned.losses[-1] for tuned in runs}) == 3
    assert [x.shape for x, _ in seen] == [(600, 64)] * 4
    assert len({draw for _, draw in seen}) > 1
    assert {x.tobytes() for x in seen[0][0]} <= {x.tobytes() for x in train.x}
    (tmp_path / "varied_by_hand.py").write_text("def less(x, rng):\n    return x[:, :3]\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"Augmentation must give numbers of the shape \(600, 64\)"
    ):
        finetune(model, train.x, ratio=8, training=replace(asked, augment="varied_by_hand:less"))
    with pytest.raises(InputError, match="Augmentation must be some of shift"):
        Training(augment="blur")
