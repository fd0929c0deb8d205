"""The page of boards says what the boards' data say, and its example is a board file."""

import re
import tomllib

import pytest

from benchmarks.boards import PAGE, build_digits, updated
from pvq_hw.target.board_file import board_from
from pvq_hw.target.boards import TARGETS


def test_the_page_is_up_to_date():
    text = PAGE.read_text(encoding="utf-8")
    assert updated(text) == text, "run python -m benchmarks.boards --page"
    for name in TARGETS:
        assert text.count(f"`{name}`") >= 3


def test_the_pages_example_is_a_board_file():
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    board = board_from(tomllib.loads(example))
    assert (board.name, board.device.name) == ("my-board", "LFE5U-25F")
    keys = re.findall(r"^(\w+) =|^\[+(\w+)\]", example, re.MULTILINE)
    assert len(keys) >= 20


@pytest.mark.slow
@pytest.mark.build
@pytest.mark.parametrize("target", TARGETS)
def test_the_digits_meet_the_clock_of_every_board(target, tmp_path_factory):
    built = build_digits(target, tmp_path_factory.mktemp("board") / "out")
    assert built["fmax_mhz"] >= built["clock_mhz"]
    assert built["clock_mhz"] == pytest.approx(TARGETS[target].clock_mhz, rel=0.03)
