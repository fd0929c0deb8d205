"""Moves of layers as they are made, against the outputs of the half-quantized network."""

import numpy as np
import pytest
from quantizer_graphs_cases import branched, inputs

from pvq_hw.quantizer import lookahead, refine
from pvq_hw.quantizer.autodiff import Tape
from pvq_hw.quantizer.expansion import Rows
from pvq_hw.quantizer.fused import network_steps
from pvq_hw.quantizer.lookahead import Lookahead
from pvq_hw.quantizer.quantize import quantize
from pvq_hw.quantizer.source import model_source

STEPS = network_steps(branched())


def ahead_of_all(frames: int = 120) -> tuple[Lookahead, Rows]:
    """A network of which no layer is made yet, and poor codes of its first."""
    x, w = inputs(frames).astype(np.float32), STEPS[0].weight
    rows = Rows(np.sign(w).astype(np.int64), np.abs(w).mean(axis=1, keepdims=True), STEPS[0].bias)
    return Lookahead(STEPS, model_source(branched(), 8, x, 1.0), x, 0), rows


def test_a_look_ahead_lowers_the_error_of_frames_it_has_not_seen() -> None:
    ahead, rows = ahead_of_all()
    x = inputs(300, seed=9).astype(np.float32)
    exact, errors = Tape(STEPS, "x").outputs(x, 50), []
    for now in (rows, ahead.moved("stem", rows)):
        now.put(ahead.tape, "stem")
        assert np.array_equal(np.abs(now.y).sum(axis=1), np.abs(rows.y).sum(axis=1))
        errors.append(float(np.square(ahead.tape.outputs(x, 50) - exact).sum()))
    assert errors[1] < 0.8 * errors[0]


def test_what_the_judging_frames_do_not_confirm_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead, rows = ahead_of_all()
    monkeypatch.setattr(
        ahead.visits, "visit", lambda name, rows: Rows(-rows.y, rows.gain, rows.bias)
    )
    assert ahead.moved("stem", rows) is rows


def test_layers_look_ahead_where_inputs_are_too_few_for_sweeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved, whole = [], Lookahead.moved

    def spy(self: Lookahead, name: str, rows: Rows) -> Rows:
        moved.append(name)
        return whole(self, name, rows)

    monkeypatch.setattr(Lookahead, "moved", spy)
    data = {"calibration": inputs(120), "ratio": 4.0}
    quantize(branched(), **data)
    monkeypatch.setattr(refine, "_ANCHOR_MAPS", 100.0)
    quantize(branched(), **data, sweeps=0)
    assert moved == []
    found = quantize(branched(), **data)
    assert moved == ["stem", "left", "each", "right", "head"]
    assert found.n_over_k == pytest.approx(4, abs=0.05)
    quantize(branched(), calibration=inputs(99), ratio=4.0)
    monkeypatch.setattr(lookahead, "WORK", 1e5)
    quantize(branched(), **data)
    assert len(moved) == 5
