"""A journal that can't be read is refused in one line."""

import json
import shutil

import pytest
from cli_tools import twin

from pvq_hw.errors import InputError
from pvq_hw.tune.journal import JOURNAL, Journal
from pvq_hw.tune.trial import COUNTED


def test_journal_that_is_no_text_is_refused(tmp_path):
    (tmp_path / JOURNAL).write_bytes(b'{"format": "\xff\xfe"}\n')
    with pytest.raises(InputError, match="must be UTF-8 text, but is damaged"):
        Journal(tmp_path, resume=True)


def test_files_of_the_user_among_the_finalists_are_not_lost(tmp_path, digits):
    """A new search in the folder of a finished one replaces its outputs, and nothing else."""
    finalists = tmp_path / "finalists"
    twin(digits.out, finalists / "3")
    (finalists / "4.build-failed").mkdir()
    (finalists / "4.build-failed" / "synthesis.log").write_text("log")
    (finalists / ".5.pvq-hw-new-77").mkdir()
    with Journal(tmp_path, resume=False):
        assert not finalists.exists()
    for name in ("3/build/mine.txt", "notes/mine.txt", "mine.txt", "4.build-failed/mine.txt"):
        twin(digits.out, finalists / "3")
        (tmp_path / "trials.json").write_text("{}")
        (finalists / name).parent.mkdir(exist_ok=True)
        (finalists / name).write_text("mine")
        with pytest.raises(InputError, match="must "):
            Journal(tmp_path, resume=False)
        assert (finalists / name).read_text() == "mine"
        assert (tmp_path / "trials.json").exists()
        shutil.rmtree(finalists)


REFUSED = r"[.:a-z_\[\]0-9 ]* (is missing|must be )"
HEADER = '{"format": "pvq-hw tune journal", "format_version": 2}\n'
FIGURES = dict.fromkeys(COUNTED, 1.0) | {
    "metric": -1.0,
    "reckoned_loss": -0.5,
    "output_error": 0.1,
    "n_over_k": 2.0,
}
OUTCOME = {"state": "COMPLETE", "figures": FIGURES, "lanes": None,
           "layers": [{"layer": "fc", "n_over_k": 2.0, "lanes": 4, "pulses": 9}]}  # fmt: skip
BUILT = {"clock_mhz": 1, "fmax_mhz": 2.0, "interval_cycles": 3, "inferences_per_second": 4.0,
         "seeds": [{"fmax_mhz": 2.0}], "used": dict.fromkeys(("luts", "brams", "dsps"), 1),
         "estimated": dict.fromkeys(("luts", "brams", "dsps"), 1)}  # fmt: skip


def without(value, *path):
    value = json.loads(json.dumps(value))
    place = value
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return value


def changed(value, new, *path):
    value = json.loads(json.dumps(value))
    place = value
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = new
    return value


def resumed(folder, outcome=OUTCOME, built=BUILT, planned=True):
    lines = [{"job": {"planned": planned}, "outcome": outcome}, {"built": "k", "result": built}]
    (folder / JOURNAL).write_text(HEADER + "".join(json.dumps(x) + "\n" for x in lines))
    with Journal(folder, resume=True) as journal:
        assert len(journal) == 1
        return journal.built("k")


def test_a_whole_journal_is_taken_over(tmp_path):
    assert resumed(tmp_path) == BUILT
    assert resumed(tmp_path, built={"reason": "no"}) == {"reason": "no"}
    judged = {key: FIGURES[key] for key in ("metric", "reckoned_loss", "output_error", "n_over_k")}
    resumed(tmp_path, OUTCOME | {"figures": judged}, planned=False)


@pytest.mark.parametrize(
    "damaged",
    [
        *(without(OUTCOME, "figures", key) for key in FIGURES),
        *(without(OUTCOME, "layers", 0, key) for key in ("n_over_k", "lanes")),
        *(without(OUTCOME, key) for key in OUTCOME),
        *(changed(OUTCOME, new, "figures", "luts") for new in (None, "7", True, [], -1)),
        *(changed(OUTCOME, new, "figures", "metric") for new in (float("nan"), float("inf"))),
        changed(OUTCOME, [], "figures"),
        changed(OUTCOME, 3, "layers"),
        changed(OUTCOME, [1], "layers"),
        changed(OUTCOME, {"fc": 1}, "layers"),
    ],
)
def test_outcomes_without_what_is_read_of_them_are_refused(tmp_path, damaged):
    with pytest.raises(
        InputError,
        match=rf"line 2: outcome{REFUSED}",
    ):
        resumed(tmp_path, damaged)


@pytest.mark.parametrize(
    "damaged",
    [
        *(without(BUILT, key) for key in BUILT),
        *(without(BUILT, part, "luts") for part in ("used", "estimated")),
        changed(BUILT, "fast", "fmax_mhz"),
        changed(BUILT, [3], "seeds"),
        {"reason": 3},
    ],
)
def test_builds_without_what_is_read_of_them_are_refused(tmp_path, damaged):
    with pytest.raises(
        InputError,
        match=rf"line 3: result{REFUSED}",
    ):
        resumed(tmp_path, built=damaged)
