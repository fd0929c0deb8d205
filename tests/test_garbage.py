"""When cycles of objects are looked for."""

import gc
import subprocess
import sys

import pytest

from pvq_hw.garbage import collected_no_more

_PROCESS = """\
from pvq_hw.garbage import {name}

class Told:
    def __del__(self):
        print("looked through")

with {name}():
    told = Told()
    told.me = told
    del told
"""


@pytest.mark.parametrize(
    ("name", "said"), [("collected_no_more", ""), ("seldom_collected", "looked through\n")]
)
def test_what_the_last_work_leaves_is_not_looked_through_at_the_end(name, said):
    command = [sys.executable, "-c", _PROCESS.format(name=name)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == (said, "")


def test_what_fails_is_looked_through_as_ever():
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with pytest.raises(KeyError), collected_no_more():
        raise KeyError
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, frozen)
