"""Pulses of powers of two: chosen where they save cycles, and carried by everything."""

import json

import numpy as np
import pytest
from cli_tools import refused, run
from plan_networks import random_network
from random_graphs import RandomNetwork

from pvq_hw.engine.pulse_code import PulseCode, choose_shift_bits
from pvq_hw.errors import InputError
from pvq_hw.flow.options import CompileOptions, LayerChoice, load_options
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import Plan, core_images, plan

DENSE, SPARSE = 60, 8  # pulses of rows of 40 columns, and of the 12 that they give


def shifts(planned):
    return [spec.code.shift_bits for spec in planned.specs]


@pytest.fixture(scope="module")
def network():
    return random_network(sizes=(40, 12, 5), k=(DENSE, 4))[0]


def test_they_are_chosen_where_they_save_cycles(network):
    planned = plan(network, "ulx3s-25f", lanes=[4, 2])
    assert shifts(planned) == [2, 0]
    plain = plan(network, "ulx3s-25f", lanes=[4, 2], codes={"fc1": "pulse"})
    assert shifts(plain) == [0, 0]
    assert planned.specs[0].words <= 0.95 * plain.specs[0].words
    # N/K counts what the weights are, not the codes.
    assert planned.layers[0].n_over_k == plain.layers[0].n_over_k == pytest.approx(40 / DENSE)
    assert planned.layers[0].codes < plain.layers[0].codes == plain.layers[0].pulses


def test_they_are_taken_where_they_are_asked_for(network):
    planned = plan(network, "ulx3s-25f", codes={"fc1": "pulse", "fc2": "shifted"})
    assert shifts(planned)[0] == 0 < shifts(planned)[1]


def test_a_plan_with_them_is_saved_and_made_again(network, tmp_path):
    planned = plan(network, "icebreaker", codes={"fc2": "shifted"})
    planned.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert loaded == planned
    x = np.random.default_rng(1).integers(0, 256, (5, 40))
    expected = network.trace(x)
    images = core_images(network, loaded)
    assert images == list(emit(network, planned).cores)
    for layer, spec, image in zip(network.layers, loaded.specs, images, strict=True):
        assert np.array_equal(spec.decode(image), layer.y)
        assert np.array_equal(spec.compute(image, x), expected[layer.name])
        x = expected[layer.name]


def test_the_shift_is_the_narrowest_of_those_with_fewest_slots():
    rng = np.random.default_rng(2)
    small = rng.integers(-3, 4, (6, 32))
    large = small * 40
    assert choose_shift_bits(small, 4) == 1
    assert choose_shift_bits(large, 4) == 3
    slots = [PulseCode(4, 5, s).encode(large).slots for s in (0, 1, 2, 3)]
    assert slots == sorted(slots, reverse=True)


def test_digits_are_as_many_as_shifted_pulses():
    y = np.array([[7, -3, 0, 1], [8, 0, 0, -2]])
    digits = PulseCode(1, 3, 3).encode(y).pulses
    assert digits == 2 + 2 + 1 + 1 + 1


def test_options_say_it_for_all_layers_or_one(tmp_path):
    options = CompileOptions(code="shifted", layers={"a": LayerChoice(code="auto")})
    assert options.codes(["a", "b"]) == {"b": "shifted"}
    assert CompileOptions().codes(["a"]) == {}
    config = tmp_path / "c.toml"
    config.write_text('code = "pulse"\n[layers.a]\ncode = "shifted"\n')
    assert load_options(config, {}).codes(["a", "b"]) == {"a": "shifted", "b": "pulse"}
    config.write_text('[layers.a]\ncode = "dense"\n')
    with pytest.raises(InputError, match="Code must be pulse, shifted, pvq or auto, not 'dense'"):
        load_options(config, {})


@pytest.mark.parametrize(("code", "bits"), [("pulse", 0), ("shifted", 2), (None, 2)])
def test_a_layer_with_them_passes_its_own_testbench_and_verify(tmp_path, code, bits):
    np.save(tmp_path / "w.npy", np.random.default_rng(3).laplace(size=(5, 16)))
    out = tmp_path / "out"
    asked = ["--code", code] if code else []
    ran = run("layer", tmp_path / "w.npy", "--k", 32, "--lanes", 2, *asked, "-o", out, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["layers"][0]["shift_bits"] == bits
    assert json.loads((out / "plan.json").read_text())["layers"][0]["pulses"] == 5 * 32
    assert run("verify", out, "--json").json["findings"] == []


def test_other_codes_are_refused(tmp_path):
    args = ("layer", tmp_path / "w.npy", "--k", 3, "--code", "dense", "-o", tmp_path / "out")
    refused(tmp_path, "dense", *args)


def test_a_convolution_has_them_where_they_save_cycles_or_are_asked_for():
    source = RandomNetwork(4, (6, 6, 3))
    x = source.conv(source.input, 4, (3, 3), k=60)
    source.dense(x, 3, k=200)
    network = source.network()
    names = [layer.name for layer in network.layers]
    asked = {"lanes": [3, 2], "top": False}
    pulses = plan(network, "ulx3s-25f", codes=dict.fromkeys(names, "pulse"), **asked)
    assert shifts(pulses) == [0, 0]
    planned = plan(network, "ulx3s-25f", **asked)
    assert shifts(planned)[0] > 0
    assert planned.interval_cycles < 0.8 * pulses.interval_cycles
    planned = plan(network, "ulx3s-25f", codes={"conv0": "shifted", names[1]: "pulse"}, **asked)
    assert shifts(planned)[0] > 0 == shifts(planned)[1]
    image = emit(network, planned)
    for layer, spec, core in zip(network.layers, image.specs, image.cores, strict=True):
        assert np.array_equal(spec.decode(core), layer.weights)
