"""A journal that can't be read is refused in one line."""

import shutil

import pytest
from cli_tools import twin

from pvq_hw.errors import InputError
from pvq_hw.tune_journal import JOURNAL, Journal


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
