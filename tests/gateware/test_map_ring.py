"""Maps that move over one another: every word that a layer reads is still there."""

import math
from dataclasses import replace

import numpy as np
import pytest
from random_graphs import RandomNetwork
from test_map_core import NETWORKS, SAME

from pvq_hw.engine import map_ring
from pvq_hw.engine.map_places import FRAME
from pvq_hw.engine.map_ring import Walk, place_ring
from pvq_hw.engine.roms import rom_shapes
from pvq_hw.errors import InputError
from pvq_hw.plan.plan import plan
from pvq_hw.target.boards import get_target


def window_words(layer, line, column, part):
    """Which words of which of its maps a window's positions read, position by position."""
    (height, width, _), g = layer.geometry.input_shape, layer.geometry
    words = range(part * layer.window_words, (part + 1) * layer.window_words)
    chunks = layer.chunk and layer.parts == 1 and not layer.most
    for row in range(line * layer.side, min((line + 1) * layer.side, layer.places[0])):
        if chunks:
            pixels = range(height * width)
            words = range(column * layer.window_words, (column + 1) * layer.window_words)
        elif layer.joins:
            pixels = [row * width + column]
        else:
            pixels = [
                y * width + x
                for i in range(g.kernel[0]) for j in range(g.kernel[1])
                for y in [row * g.stride[0] - g.pads[0][0] + i * g.dilation[0]]
                for x in [column * g.stride[1] - g.pads[1][0] + j * g.dilation[1]]
                if 0 <= y < height and 0 <= x < width
            ]  # fmt: skip
        for k in range(max(1, layer.joins)):
            yield from ((k, p * layer.pixel_words + w) for p in pixels for w in words)


def given_words(layer, line, column, part):
    """Which words of its map a window's results complete."""
    rows, columns = layer.given_places
    each = layer.channels // layer.parts
    lasts = [2 * w + 1 for w in range(layer.channels // 2)]
    lasts += [layer.channels - 1] * (layer.channels % 2)
    words = [w for w, last in enumerate(lasts) if part * each <= last < (part + 1) * each]
    pixels = [(row, column) for row in range(line * layer.side, (line + 1) * layer.side)]
    if layer.pool:
        pixels = [(line, column // 2)] if column % 2 else []
    for row, col in pixels:
        if row < rows and col < columns:
            for w in words:
                word = (row * columns + col) * len(lasts) + w
                if layer.beside is not None:
                    own = layer.given_words // layer.beside.pixels
                    pixel, rest = divmod(word, own)
                    word = pixel * layer.beside.words + layer.beside.first + rest
                yield word


def replay(spec, bases):
    """Reads and writes a frame's words in the order of the windows; the number of words that were
    not what the layer that reads them needs."""
    memory = dict[int, tuple[int, int]]()
    size, wrong = spec.ring_words, 0
    for word in range(spec.layers[0].map_words):
        memory[(bases[0] + word) % size] = FRAME, word
    for number, layer in enumerate(spec.layers):
        maps = spec.read_by(number)
        own = number if layer.beside is None else layer.beside.map
        for line in range(layer.lines):
            for column in range(layer.places[1]):
                for part in range(layer.parts):
                    for k, word in window_words(layer, line, column, part):
                        place = (bases[maps[k] + 1] + word) % size
                        wrong += memory.get(place) != (maps[k], word)
                    if number < len(spec.layers) - 1:
                        for word in given_words(layer, line, column, part):
                            memory[(bases[number + 1] + word) % size] = own, word
    return wrong


def ring(name, side, lanes=4):
    made = plan(NETWORKS[name](), "ulx3s-25f", engine="shared", lanes=[lanes] * 9, side=side,
                map_memory="ring")  # fmt: skip
    return made.shared


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_word_is_written_over_that_is_still_read(name, side):
    spec = ring(name, side)
    bases = [place.base for place in spec.places]
    assert replay(spec, bases) == 0
    depths = replace(spec, map_memory="block").map_depths
    assert max(depths) <= sum(spec.map_depths) == spec.ring_words <= sum(depths)
    assert spec.ring_words < sum(depths) or name in ("side_by_side", "flat")


@pytest.mark.parametrize(("name", "side"), [("depthwise", 1), ("depthwise", 2), ("pooled", 2)])
def test_a_map_one_word_further_on_loses_words(name, side):
    """The rows of slack are as few as may be."""
    spec = ring(name, side)
    bases, tight = [place.base for place in spec.places], 0
    for number, layer in enumerate(spec.layers[:-1]):
        walk = map_ring.walk_of(layer)
        source = bases[number]
        if spec.read_by(number) == (number - 1,) and walk.behind:
            moved = [source - walk.behind + 1 if k == number + 1 else b
                     for k, b in enumerate(bases)]  # fmt: skip
            tight += replay(spec, moved) > 0
    assert tight > 1


def test_the_ring_of_a_depthwise_layer():
    """25 x 5 pixels of 64 channels: a row and a pixel of slack."""
    taken = np.arange(125)
    row, column = taken // 5, taken % 5
    last = np.minimum(row + 1, 24) * 5 + np.minimum(column + 1, 4)
    parts = np.arange(32) // 4
    walk = Walk(
        ((last[:, None] * 8 + parts).ravel(),), np.arange(4000),
        (taken[:, None] * 8 + parts).ravel(),
    )  # fmt: skip
    assert walk.behind == 6 * 32
    assert walk.spares(4192, -192, [0])
    assert not walk.spares(4192, -191, [0])
    chain = [(k - 1,) for k in range(4)]
    words, bases = place_ring([walk] * 4, [4000] * 5, chain, range(4), "Core")
    assert (words, bases) == (4192, (0, 4000, 3808, 3616))


def test_maps_that_no_memory_has_are_refused():
    walk = Walk((np.zeros(40000, dtype=np.int64),), np.arange(40000), np.zeros(40000, np.int64))
    with pytest.raises(InputError, match="must have maps that fit a memory of 65,536 words"):
        place_ring([walk] * 3, [40000] * 4, [(-1,), (-1,), (0, 1)], range(3), "Core 'engine'")
    assert math.log2(map_ring.MAX_RING) == 16


def test_the_planner_saves_block_ram_where_there_is_too_little():
    """One memory of maps, codes from the flash, then multipliers and biases too."""
    net = RandomNetwork(3, (6, 6, 32))
    x = net.conv(net.input, 32, (3, 3), groups=32, pads=SAME, k=3)
    x = net.conv(net.conv(x, 96, (1, 1), k=4), 96, (3, 3), groups=96, pads=SAME, k=3)
    net.dense(net.average(net.conv(x, 96, (1, 1), k=4), (6, 6)), 5)
    network, board = net.network(), get_target("hx8k")

    def found(brams):
        small = replace(board, device=replace(board.device, brams=brams))
        made = plan(network, small, engine="shared", lanes=[2] * 6)
        spec, roms = made.shared, [x.name for x in rom_shapes(made.graph, "ice40")]
        return (spec.code_memory, spec.map_memory, spec.params_buffer), roms

    rows = ["engine_mult", "engine_bias"]
    assert found(32) == (("block", "block", 0), ["engine_codes", *rows])
    assert found(29) == (("block", "ring", 0), ["engine_codes", *rows])
    assert found(23) == (("flash", "ring", 0), rows)
    assert found(19) == (("flash", "ring", 256), [])
