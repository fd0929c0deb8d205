"""Layer cores and accelerators against the golden model, under idle, stall and reset."""

from dataclasses import replace

import numpy as np
import pytest
from engine import frames_for, random_layer, run, tensor

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.dataflow import chain_graph
from pvq_hw.engine.pulse_core import make_core
from pvq_hw.errors import InputError

U8, S8, BIT, S3, S16 = (
    IntFormat(8, False),
    IntFormat(8, True),
    IntFormat(1, True),
    IntFormat(3, True),
    IntFormat(16, True),
)


def _core(seed, rows, n, lanes, x=U8, out=U8, groups=1, density=0.3, largest=2, **options):
    rng = np.random.default_rng(seed)
    layer = random_layer(rng, rows, n, x, out, groups, density, largest)
    return rng, layer, *make_core(layer, tensor(n, x), lanes, **options)


@pytest.mark.parametrize("idle", [0.0, 0.6])
@pytest.mark.parametrize("stall", [0.0, 0.8])
@pytest.mark.parametrize(("rows", "n", "lanes"), [(1, 1, 1), (5, 7, 7), (9, 30, 4), (3, 17, 16)])
def test_core_computes_its_layer(idle, stall, rows, n, lanes):
    rng, layer, spec, image = _core(rows, rows, n, lanes)
    x = frames_for(rng, 4, n, U8)
    result = run([spec], [image], x, idle=idle, stall=stall, seed=rows)
    assert np.array_equal(result.outputs, layer.compute(x))


@pytest.mark.parametrize("family", ["ecp5", "up5k", "hx8k"])
@pytest.mark.parametrize("groups", [1, 2])
def test_reading_is_held_in_the_middle_of_rows(family, groups):
    # More results than the FIFO has places for: words are awaited while a row is under way.
    rng, layer, spec, image = _core(
        3, 24, 30, 4, groups=groups, density=0.6, family=family, gap_bits=2
    )
    x = frames_for(rng, 8, 30, U8)
    result = run([spec], [image], x, stall=0.95)
    assert result.outputs.size > 4 * spec.fifo_depth
    assert np.array_equal(result.outputs, layer.compute(x))


@pytest.mark.parametrize("x", [U8, S8, BIT, S3, S16], ids=str)
@pytest.mark.parametrize("out", [U8, BIT, S16], ids=str)
def test_formats(x, out):
    family = "hx8k" if x.bits == 16 else "ecp5"
    rng, layer, spec, image = _core(1, 6, 20, 5, x, out, family=family)
    frames = frames_for(rng, 2, 20, x)
    frames[0] = x.max
    frames[1] = x.min
    assert np.array_equal(run([spec], [image], frames).outputs, layer.compute(frames))


@pytest.mark.parametrize("family", ["ecp5", "up5k", "hx8k"])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("shift_bits", [0, 2])
@pytest.mark.parametrize("frames", [1, 2])
def test_structures(family, groups, shift_bits, frames):
    rng, layer, spec, image = _core(
        2, 7, 24, 6, groups=groups, largest=7, family=family, shift_bits=shift_bits, frames=frames
    )
    x = frames_for(rng, 4, 24, U8)
    result = run([spec], [image], x, idle=0.2, stall=0.2)
    assert np.array_equal(result.outputs, layer.compute(x))


@pytest.mark.parametrize("fmt", [U8, S8, S16, BIT], ids=str)
def test_extremes_reach_the_accumulators_bound(fmt):
    y = np.ones((4, 12), dtype=int)
    y[1] = -1
    y[2, ::2] = -1
    layer = replace(random_layer(np.random.default_rng(1), 4, 12, fmt, S16), y=y)
    layer = replace(layer, mult=np.full((4, 1), 60), bias=np.zeros(4, dtype=int), shift=6)
    spec, image = make_core(layer, tensor(12, fmt), 3, family="hx8k")
    x = np.stack([np.full(12, fmt.max), np.full(12, fmt.min)])
    assert np.array_equal(run([spec], [image], x).outputs, layer.compute(x))


def test_chain_with_stalls_computes_the_network():
    rng = np.random.default_rng(4)
    a = random_layer(rng, 20, 33, U8, S3)
    b = random_layer(rng, 6, 20, S3, BIT)
    c = random_layer(rng, 4, 6, BIT, S16)
    cores = [
        make_core(a, tensor(33, U8), 5),
        make_core(b, tensor(20, S3), 4, family="hx8k"),
        make_core(c, tensor(6, BIT), 2, family="up5k"),
    ]
    x = frames_for(rng, 5, 33, U8)
    result = run([s for s, _ in cores], [i for _, i in cores], x, idle=0.3, stall=0.5)
    assert np.array_equal(result.outputs, c.compute(b.compute(a.compute(x))))


@pytest.mark.parametrize("at", [5, 40, 63, 71, 88])
def test_reset_in_mid_frame_leaves_no_trace(at):
    rng, layer, spec, image = _core(5, 6, 30, 4, groups=2)
    x = frames_for(rng, 3, 30, U8)
    result = run([spec], [image], x, reset_at=at)
    assert np.array_equal(result.outputs, layer.compute(x))


def test_frames_follow_one_another_without_a_bubble():
    rng, _, spec, image = _core(6, 8, 16, 2, density=1)
    result = run([spec], [image], frames_for(rng, 5, 16, U8))
    ends = result.given[7::8]
    assert set(np.diff(ends)) == {spec.words}


def test_output_is_offered_after_the_stated_delay():
    rng, _, spec, image = _core(7, 3, 16, 4)
    result = run([spec], [image], frames_for(rng, 1, 16, U8))
    first_row = spec.row_slots(image)[0]
    assert result.given[0] - result.taken[-1] == 2 + (first_row - 1) + spec.output_delay


def test_a_frame_is_taken_while_another_is_computed():
    rng, _, spec, image = _core(8, 20, 16, 1, density=1)
    result = run([spec], [image], frames_for(rng, 2, 16, U8))
    assert result.taken == list(range(32))


def test_unlike_neighbors_are_refused():
    _, _, spec, image = _core(9, 4, 8, 2)
    with pytest.raises(InputError, match=r"^Unit 'next' must take what wire 'w_layer' gives$"):
        chain_graph([spec, replace(spec, name="next")])
    with pytest.raises(InputError, match="There must be 1 cores' contents, not 2"):
        chain_graph([spec]).named([image, image])
