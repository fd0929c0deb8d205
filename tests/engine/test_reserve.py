"""Updatable cores: room for other weights, and which find it."""

from dataclasses import replace

import numpy as np
import pytest
from engine import frames_for, random_layer, tensor

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.kinds import make_layer_core, remade
from pvq_hw.engine.pulse_code import PulseCode
from pvq_hw.errors import InputError

FORMATS = [IntFormat(8, False), IntFormat(5, True), IntFormat(1, True), IntFormat(16, True)]
OUT = IntFormat(8, False)


def layers(fmt, encoding="pvq", groups=1, count=2):
    """Layers of one shape and shift, the first with the largest numbers."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        layer = random_layer(rng, 13, 40, fmt, OUT, groups, largest=9 - 3 * bool(seed))
        found.append(replace(layer, encoding=encoding))
    shift = max(layer.shift for layer in found)
    return [replace(layer, shift=shift) for layer in found]


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize(("encoding", "groups"), [("pvq", 1), ("pvq", 4), ("int8", 1)])
@pytest.mark.parametrize("family", ["ecp5", "up5k", "hx8k"])
def test_other_weights_go_into_the_same_core(fmt, encoding, groups, family):
    placed, other = layers(fmt, encoding, groups)
    x = tensor(40, fmt)
    spec, image = make_layer_core(placed, x, 8, family=family, spare=20)
    assert spec.updatable
    assert type(spec).from_json(spec.to_json()) == spec
    same, changed = remade(spec, other, x, family)
    assert same == spec
    assert changed != image
    frames = frames_for(np.random.default_rng(3), 40, 40, fmt)
    for layer, contents in ((placed, image), (other, changed)):
        assert len(contents.codes) == spec.words == sum(spec.row_slots(contents))
        assert np.array_equal(spec.decode(contents), layer.y)
        assert np.array_equal(spec.compute(contents, frames), layer.compute(frames))
        for name, (bits, depth) in spec.memories.items():
            words = spec.contents(contents)[name]
            assert len(words) == depth
            assert not any(word >> bits for word in words)


def test_room_is_as_much_as_was_asked_for():
    layer = layers(IntFormat(8, False))[0]
    x = tensor(40, IntFormat(8, False))
    tight, _ = make_layer_core(layer, x, 8, family="up5k")
    none, _ = make_layer_core(layer, x, 8, family="up5k", spare=0)
    half, _ = make_layer_core(layer, x, 8, family="up5k", spare=50)
    assert not tight.updatable
    assert (none.words, none.acc_bits) == (tight.words, tight.acc_bits)
    assert half.words == -(-tight.words * 3 // 2)
    assert half.acc_bits >= tight.acc_bits
    assert (none.mult_bits, none.bias_bits) == (16, tight.bias_bits + 4)
    serial, _ = make_layer_core(layer, x, 8, family="hx8k", spare=0)
    assert serial.mult_bits == tight.mult_bits + 1


@pytest.mark.parametrize("encoding", ["pvq", "int8"])
def test_no_contents_overflow_the_widths(encoding):
    """The largest sum and product that the widths admit, with the largest bias, and the least."""
    fmt = IntFormat(8, False)
    layer = layers(fmt, encoding)[0]
    spec, _ = make_layer_core(layer, tensor(40, fmt), 8, family="ecp5", spare=10)
    acc, mult = 1 << (spec.acc_bits - 1), (1 << spec.mult_bits) - 1
    bias = 1 << (spec.bias_bits - 1)
    half = 1 << (spec.sum_bits - 1)
    assert -half <= -acc * mult - bias
    assert acc * mult + bias < half


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda layer: replace(layer, y=5 * layer.y), r"needs \d+ words of weights, but the"),
        (
            lambda layer: replace(layer, mult=1 << 17 | layer.mult, bias=0 * layer.bias),
            "needs 18 bits for its multipliers, but the placed design has 16; compile the new",
        ),
        (
            lambda layer: replace(layer, bias=layer.bias + (1 << 40)),
            r"needs 4\d bits for its biases, but",
        ),
        (lambda layer: replace(layer, shift=layer.shift + 1), r"must have the shift \d+ as in the"),
        (
            lambda layer: replace(layer, output=tensor(13, IntFormat(9, True))),
            "must have results of 8 unsigned bits as in the placed design, not 9 signed bits",
        ),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_by_the_layers_name(change, text):
    fmt = IntFormat(8, False)
    placed, other = layers(fmt)
    spec, _ = make_layer_core(placed, tensor(40, fmt), 8, family="up5k", spare=0)
    with pytest.raises(InputError, match=rf"^Layer {other.name!r} {text}"):
        remade(spec, change(other), tensor(40, fmt), "up5k")


def test_sums_beyond_the_accumulator_are_refused():
    """Few long rows: as many words, but more pulses in one of them."""
    fmt = IntFormat(8, False)
    placed = layers(fmt)[0]
    y = np.zeros_like(placed.y)
    y[:, :8] = 1
    spec, _ = make_layer_core(replace(placed, y=y), tensor(40, fmt), 8, spare=400, family="up5k")
    y = y.copy()
    y[0, :8] = 50
    with pytest.raises(InputError, match=r"needs 18 bits for its sums, but .* has 15; give"):
        remade(spec, replace(placed, y=y), tensor(40, fmt), "up5k")


def test_what_weights_decide_must_be_in_block_ram():
    fmt = IntFormat(8, False)
    with pytest.raises(InputError, match="multipliers and biases must be in block RAM"):
        make_layer_core(layers(fmt)[0], tensor(40, fmt), 8, spare=5, params_memory="logic")


def test_the_last_group_is_padded():
    y = np.ones((2, 8), dtype=int)
    code = PulseCode(4, 2)
    plain, padded = code.encode(y), code.encode(y, slots=9)
    assert padded.row_slots == (plain.row_slots[0], 9 - plain.row_slots[0])
    assert np.array_equal(code.decode(padded.words, y.shape), y)
    assert code.encode(y, slots=1) == plain
    assert CoreImage(padded.words, (), ()).codes[: plain.row_slots[0]] == plain.words[:2]
