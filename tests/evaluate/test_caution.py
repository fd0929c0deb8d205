"""The loss that is reckoned with: by all moves of outputs, and by changes beyond chance."""

import numpy as np
import pytest

from pvq_hw.evaluate.caution import cautious_loss, safety


def test_each_inputs_outputs_move_as_those_of_the_others_did():
    exact = np.array([[3.0, 0.0], [0.5, 0.0], [0.0, 2.0], [0.0, 0.1]])
    y = np.array([0, 0, 1, 0])  # the last is wrong
    ours = exact + np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.5]])
    k = safety(4)  # 3: a move of 1.5 towards class 1
    assert k == 3
    # Three of four moves change nothing; the fourth costs the second input its answer.
    assert cautious_loss(exact, ours, y) == pytest.approx(100 * (1 / 4) / 4)
    assert cautious_loss(exact, exact, y) == 0


def test_more_changes_than_chance_explains_count():
    """Changes where the others have margin enough: what is counted, less its standard error."""
    exact = np.array([[9.0, 0.0]] * 12 + [[0.1, 0.0]] * 8)
    ours = exact.copy()
    ours[12:] = [0.0, 0.1]
    error = np.sqrt(20 * 0.4 * 0.6)  # of 8 of 20
    y = np.zeros(20, dtype=int)
    assert cautious_loss(exact, ours, y) == pytest.approx(100 * (8 - error) / 20)
    assert cautious_loss(exact, ours, y) > 100 * 8 * (8 / 20) / 20  # by their moves alone


def test_few_inputs_ask_for_more_caution():
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(4000, 5))
    ours = exact + 0.1 * rng.normal(size=exact.shape)
    y = exact.argmax(axis=1)
    counted = 100 * (ours.argmax(axis=1) != y).mean()
    many, few = (cautious_loss(exact[:n], ours[:n], y[:n]) for n in (4000, 40))
    assert counted <= many < 1.25 * counted
    assert few > 1.4 * counted
    one = exact[:40, :1]
    assert cautious_loss(one, one - 0.5, (one[:, 0] > 0).astype(int)) > 0
