"""Memory files hold the network exactly, and nothing else is read as one."""

import numpy as np
import pytest
from plan_networks import random_network
from some_boards import SOME_BOARDS

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.hexfile import hex_text, read_hex, signed, unsigned
from pvq_hw.errors import InputError
from pvq_hw.network.golden_inputs import golden_inputs
from pvq_hw.output.golden_vectors import load_vectors, write_vectors
from pvq_hw.plan.image import Image, emit
from pvq_hw.plan.plan import plan


def computed(p, image, x):
    """What the memory contents give, without the network."""
    return p.graph.compute(p.graph.named(image.cores), x)[p.graph.last.name]


FORMATS = [IntFormat(8, False), IntFormat(8, True), IntFormat(4, False), IntFormat(1, True)]


@pytest.mark.parametrize("target", SOME_BOARDS)
@pytest.mark.parametrize("groups", [1, 2])
def test_image_computes_what_the_network_does(target, groups):
    network, _ = random_network((20, 12, 6), (5, 4), groups=groups)
    p = plan(network, target)
    image = emit(network, p)
    x = golden_inputs(network, 20)
    assert np.array_equal(computed(p, image, x), network.predict(x))


@pytest.mark.parametrize("x", FORMATS, ids=str)
def test_image_of_every_input_format(x):
    network, _ = random_network((9, 7, 3), (5, 3), x=x)
    p = plan(network, "ulx3s-25f", lanes=(3, 2))
    image = emit(network, p)
    inputs = golden_inputs(network, 12)
    assert network.input.format.contains(inputs)
    assert np.array_equal(computed(p, image, inputs), network.predict(inputs))


def test_files_are_named_after_the_cores_and_load_back(tmp_path):
    network, _ = random_network()
    p = plan(network, "icebreaker")
    image = emit(network, p)
    image.write(tmp_path)
    names = sorted(f.name for f in (tmp_path / "image").iterdir())
    assert names == [f"fc{i}_{kind}.hex" for i in (1, 2) for kind in ("bias", "codes", "mult")]
    assert Image.load(tmp_path, p) == image


def test_same_network_gives_same_bytes(tmp_path):
    texts = [emit(n, plan(n, "hx8k")).files() for n in (random_network()[0], random_network()[0])]
    assert texts[0] == texts[1]


def test_decoded_image_is_the_network():
    network, _ = random_network((40, 30, 10), (15, 12))
    p = plan(network, "ulx3s-25f", lanes=(4, 3))
    image = emit(network, p)
    for layer, spec, core in zip(network.layers, image.specs, image.cores, strict=True):
        assert np.array_equal(spec.decode(core), layer.weights)


def test_another_networks_plan_is_refused():
    network, _ = random_network(seed=1)
    other, _ = random_network((20, 12, 5), (9, 6), seed=1)
    with pytest.raises(InputError, match="the plan's core is not the network's"):
        emit(network, plan(other, "hx8k"))
    renamed, _ = random_network(seed=1, names=("a", "b"))
    with pytest.raises(InputError, match="A plan must have the network's layers"):
        emit(network, plan(renamed, "hx8k"))


# -- hex files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 3, 4, 5, 8, 33, 129])
def test_hex_round_trip(tmp_path, bits):
    words = [0, 1, (1 << bits) - 1]
    path = tmp_path / "m.hex"
    path.write_text(hex_text(words, bits))
    assert read_hex(path, bits, 3) == words
    values = [-(1 << (bits - 1)), 0, (1 << (bits - 1)) - 1]
    assert signed(unsigned(values, bits), bits) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("00\n01\n", "m.hex must have 3 words in 9 bytes, not 6"),
        ("00\n01\n02\n03\n", "m.hex must have 3 words in 9 bytes, not more"),
        ("00\n0g\n02\n", "m.hex line 2 must be 2 hex digits"),
        ("00\n0A\n02\n", "m.hex line 2 must be 2 hex digits"),
        ("00\n+1\n02\n", "m.hex line 2 must be 2 hex digits"),
        ("00\n01 02\n", "m.hex line 2 must be 2 hex digits"),
        ("00\n01\nff\n", "m.hex line 3 must be a word of 6 bits"),
    ],
)
def test_other_text_is_refused(tmp_path, text, message):
    path = tmp_path / "m.hex"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_hex(path, 6, 3)
    assert str(error.value) == message


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"m\.hex can't be read"):
        read_hex(tmp_path / "m.hex", 8, 1)


# -- vectors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", FORMATS, ids=str)
def test_vectors_hold_every_layers_golden_outputs(tmp_path, x):
    network, _ = random_network((9, 7, 3), (5, 3), x=x)
    inputs = golden_inputs(network, 6)
    write_vectors(tmp_path, network, inputs)
    loaded, outputs = load_vectors(tmp_path, network)
    assert np.array_equal(loaded, inputs)
    trace = network.trace(inputs)
    for layer, output in zip(network.layers, outputs, strict=True):
        assert np.array_equal(output, trace[layer.name])


def test_golden_inputs_reach_the_accumulators_bound():
    network, _ = random_network(x=IntFormat(8, True))
    first = network.layers[0]
    acc = first.accumulate(golden_inputs(network, 5))[:, 0, 0]
    bound = int(np.abs(first.y[0]).sum()) * 128
    assert acc.min() <= -bound + np.abs(first.y[0]).sum()
    assert acc.max() >= bound - np.abs(first.y[0]).sum()


def test_broken_index_of_vectors_is_refused(tmp_path):
    network, _ = random_network()
    write_vectors(tmp_path, network, golden_inputs(network, 2))
    index = tmp_path / "vectors" / "vectors.json"
    for text in ("[", "{}", '{"frames": 1e9}', '{"frames": -1}'):
        index.write_text(text)
        with pytest.raises(InputError, match=r"vectors\.json must"):
            load_vectors(tmp_path, network)
