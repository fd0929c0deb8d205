"""Cores of layers with a quantized file's scales: wide multipliers, formats within their width."""

from dataclasses import replace

import numpy as np
import pytest
from engine import random_layer, run, tensor

from pvq_hw.arith.formats import IntFormat, bits_for
from pvq_hw.engine.kinds import make_layer_core
from pvq_hw.quantizer.requantization import FILE_BITS

X, OUT = IntFormat.between(-125, 130), IntFormat.between(-140, 115)


@pytest.mark.parametrize(
    "options", [{"lanes": 3}, {"lanes": 4}, {"lanes": 1, "engine": "unrolled"}]
)
@pytest.mark.parametrize("encoding", ["pvq", "int8"])
def test_every_core_takes_wide_multipliers_and_bounds(encoding, options):
    rng = np.random.default_rng(0)
    layer = random_layer(rng, 5, 12, X, OUT)
    layer = replace(
        layer, encoding=encoding, shift=27, mult=rng.integers(1 << 26, 1 << 27, layer.mult.shape),
        bias=rng.integers(-(1 << 34), 1 << 34, 5),
    )  # fmt: skip
    assert bits_for(0, int(layer.mult.max())) == FILE_BITS
    spec, image = make_layer_core(layer, tensor(12, X), **options)
    assert spec.multiplier == "serial"
    frames = rng.integers(X.min, X.max + 1, (4, 12))
    frames[0], frames[1] = X.min, X.max
    expected = layer.compute(frames)
    assert {int(expected.min()), int(expected.max())} == {OUT.min, OUT.max}
    assert np.array_equal(run([spec], [image], frames).outputs, expected)
