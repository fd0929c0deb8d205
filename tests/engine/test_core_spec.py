"""Core specifications: the image computes what the layer computes; widths hold their bounds."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from engine import frames_for, random_layer, tensor
from random_layers import Case, make_chain

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.pulse_core import CoreSpec, make_core
from pvq_hw.errors import InputError
from pvq_hw.target.architectures import ARCHITECTURES
from pvq_hw.target.block_ram import memory_blocks, memory_columns, memory_layout

FORMATS = [
    IntFormat(8, False),
    IntFormat(5, True),
    IntFormat(1, True),
    IntFormat(16, True),
    IntFormat(2, False),
]


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("family", ["ecp5", "up5k", "hx8k"])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("shift_bits", [0, 2])
def test_image_computes_the_layer(fmt, family, groups, shift_bits):
    rng = np.random.default_rng(1)
    layer = random_layer(rng, 13, 40, fmt, IntFormat(8, False), groups, largest=9)
    spec, image = make_core(layer, tensor(40, fmt), 8, family=family, shift_bits=shift_bits)
    x = frames_for(rng, 50, 40, fmt)
    assert np.array_equal(spec.compute(image, x), layer.compute(x))
    assert np.array_equal(spec.decode(image), layer.y)
    assert CoreSpec.from_json(spec.to_json()) == spec
    assert sum(spec.row_slots(image)) == spec.words


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_accumulator_holds_the_extremes_and_not_less(fmt):
    y = np.ones((2, 10), dtype=int)
    y[1] = -1
    rng = np.random.default_rng(2)
    layer = replace(random_layer(rng, 2, 10, fmt, IntFormat(8, True)), y=y)
    spec, _ = make_core(layer, tensor(10, fmt), 2)
    # A negative pulse adds ~x, whose least value is -max - 1.
    least = -10 * max(-fmt.min, fmt.max + (not fmt.signed))
    most = 10 * max(fmt.max, -fmt.min - (not fmt.binary))
    half = 1 << (spec.acc_bits - 1)
    assert -half <= least
    assert most < half
    assert least < -(half >> 1) or most >= half >> 1


def test_serial_rows_are_padded_to_the_interval():
    rng = np.random.default_rng(3)
    layer = random_layer(rng, 9, 30, IntFormat(8, False), IntFormat(8, False))
    spec, image = make_core(
        layer, tensor(30, IntFormat(8, False)), 8, family="hx8k", multiplier_interval=6
    )
    assert min(spec.row_slots(image)) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, "rows must be 1"),
        ({"shift": 0}, "shift must be 1"),
        ({"groups": 3}, "must divide into 3 groups"),
        ({"fifo_depth": 24}, "power of two, not 24"),
        ({"multiplier": "magic"}, "multiplier must be one of"),
        ({"mult_bits": 18}, "at most 17 bits, not 18"),
        ({"bank_memory": "spram"}, "bank_memory must be block or logic"),
    ],
)
def test_bad_specifications_are_refused(change, message):
    rng = np.random.default_rng(4)
    layer = random_layer(rng, 4, 20, IntFormat(8, False), IntFormat(8, False))
    spec, _ = make_core(layer, tensor(20, IntFormat(8, False)), 4)
    with pytest.raises(InputError, match=message):
        replace(spec, **change)


@pytest.mark.parametrize("lanes", [0, 21])
def test_lanes_beyond_the_columns_are_refused(lanes):
    rng = np.random.default_rng(5)
    layer = random_layer(rng, 4, 20, IntFormat(8, False), IntFormat(8, False))
    with pytest.raises(InputError, match="lanes must be 1 to 20"):
        make_core(layer, tensor(20, IntFormat(8, False)), lanes)


@pytest.mark.parametrize("value", [None, {}, {"x": 1}, []])
def test_broken_json_is_refused(value):
    with pytest.raises(InputError, match=r"CoreSpec(: kind is missing| must be a table)"):
        CoreSpec.from_json(value)


@pytest.mark.parametrize(
    ("width", "depth", "family", "blocks"),
    [
        (36, 512, "ecp5", 1),
        (37, 512, "ecp5", 2),
        (81, 5120, "ecp5", 23),
        (81, 410, "ecp5", 3),
        (1, 16384, "ecp5", 1),
        (8, 256, "ecp5", 1),
        (81, 410, "ice40", 11),
        (16, 257, "ice40", 2),
        (8, 512, "ice40", 1),
        (0, 512, "ice40", 0),
    ],
)
def test_block_counts(width, depth, family, blocks):
    assert memory_blocks(width, depth, family) == blocks


@pytest.mark.parametrize("family", sorted(ARCHITECTURES.kinds()))
def test_pieces_cover_a_memory_exactly_once(family):
    rng = np.random.default_rng(6)
    for _ in range(60):
        width, depth = int(rng.integers(1, 120)), int(rng.integers(1, 6000))
        cover = np.zeros((depth, width), dtype=int)
        pieces = memory_layout(width, depth, family)
        heights = Counter((piece.bit, piece.bits) for piece in pieces)
        columns = [(bits, ways) for (_, bits), ways in sorted(heights.items())]
        assert memory_columns(width, depth, family) == columns
        for piece in pieces:
            assert piece.bits <= piece.shape[0]
            assert piece.words <= piece.shape[1]
            cover[piece.word : piece.word + piece.words, piece.bit : piece.bit + piece.bits] += 1
        assert (cover == 1).all()


@pytest.mark.parametrize(
    ("family", "products", "multiplier"),
    [("ecp5", "mult18", "mult18"), ("up5k", "mac16", "serial"), ("hx8k", "logic", "serial")],
)
def test_lanes_of_8_bit_weights_leave_blocks_to_the_requantizer_where_there_are_many(
    family, products, multiplier
):
    case = Case(5, 0, 3, shift=12, encoding="int8", options={"family": family})
    (spec,) = make_chain(1, 9, IntFormat(8, False), case).specs
    assert (spec.products, spec.multiplier) == (products, multiplier)
