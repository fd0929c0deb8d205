"""Gains and biases that are learned together, against the network's outputs."""

import numpy as np
import pytest
from quantizer_cases import chain
from quantizer_graphs_cases import branched, inputs

from pvq_hw.quantizer import learning
from pvq_hw.quantizer import quantize as module
from pvq_hw.quantizer.autodiff import Tape
from pvq_hw.quantizer.expansion import Rows
from pvq_hw.quantizer.fused import network_steps
from pvq_hw.quantizer.learning import learn
from pvq_hw.quantizer.metric import output_metric
from pvq_hw.quantizer.quantize import quantize


def coarse(off: float = 1.3) -> tuple[Tape, dict[str, Rows]]:
    """Signs of weights with gains that are too large."""
    tape = Tape(network_steps(branched()), "x")
    pairs = zip(tape.weights.items(), tape.biases.values(), strict=True)
    return tape, {
        name: Rows(np.sign(w).astype(np.int64), off * np.abs(w).mean(axis=1, keepdims=True), b)
        for (name, w), b in pairs
    }


def error(tape: Tape, x: np.ndarray) -> float:
    """As the steps see it."""
    exact = Tape(tape.steps, "x").outputs(x, 50)
    metric = output_metric(tape.steps[-1], exact, x)(exact)
    return float(np.square(metric.weigh(tape.outputs(x, 50) - exact)).sum(axis=1).mean())


def test_learning_lowers_the_error_of_frames_it_has_not_seen_and_keeps_the_pulses() -> None:
    tape, rows = coarse()
    test = inputs(200, seed=9).astype(np.float32)
    for name, layer in rows.items():
        layer.put(tape, name)
    before, told = error(tape, test), []
    found, errors = learn(
        tape, rows, inputs(400).astype(np.float32), progress=lambda *where: told.append(where)
    )
    assert error(tape, test) < 0.6 * before
    assert min(errors) < 0.6 * errors[0]
    assert all(np.array_equal(found[name].y, rows[name].y) for name in rows)
    assert told[-1] == ("all layers", 1.0)
    again, _ = learn(coarse()[0], rows, inputs(400).astype(np.float32))
    assert all(np.array_equal(found[name].gain, again[name].gain) for name in rows)


def test_what_makes_the_judged_error_larger_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "RATE", 30.0)
    tape, rows = coarse(1.0)
    x = inputs(120).astype(np.float32)
    found, errors = learn(tape, rows, x)
    assert errors[0] == min(errors)
    assert all(found[name] is rows[name] for name in rows)
    for name, layer in coarse(1.0)[1].items():
        assert np.array_equal(tape.gains[name], layer.gain[:, 0])


def test_nothing_is_learned_from_few_frames_or_in_too_few_steps(monkeypatch) -> None:
    tape, rows = coarse()
    assert learn(tape, rows, inputs(90).astype(np.float32)) == (rows, [])
    monkeypatch.setattr(learning, "WORK", 1e6)
    assert learn(tape, rows, inputs(120).astype(np.float32)) == (rows, [])


def test_quantization_learns_where_there_are_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def spy(tape, rows, x, **options):
        asked.append(sorted(rows))
        return learn(tape, rows, x, **options)

    monkeypatch.setattr(module, "learn", spy)
    images, rng = inputs(24), np.random.default_rng(0)
    quantize(branched(), calibration=images, ratio=4.0, sweeps=0)
    quantize(chain((8, 4, 3)), calibration=rng.integers(0, 256, (24, 8)), ratio=2.0)
    assert asked == []
    quantize(branched(), calibration=images, ratio=4.0)
    assert asked == [["each", "head", "left", "right", "stem"]]
