"""A journal that can't be read is refused in one line."""

import pytest

from pvq_hw.errors import InputError
from pvq_hw.tune_journal import JOURNAL, Journal


def test_journal_that_is_no_text_is_refused(tmp_path):
    (tmp_path / JOURNAL).write_bytes(b'{"format": "\xff\xfe"}\n')
    with pytest.raises(InputError, match="must be UTF-8 text, but is damaged"):
        Journal(tmp_path, resume=True)
