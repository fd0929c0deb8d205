"""What block RAMs hold: words, bits and the text of the tools."""

import numpy as np
import pytest

from pvq_hw.errors import InputError
from pvq_hw.target.architectures import ARCHITECTURES, architecture
from pvq_hw.target.block_contents import (
    block_bits,
    block_words,
    parse_section,
    section_lines,
    sections,
)
from pvq_hw.tools import find as tools


@pytest.mark.parametrize("family", sorted(ARCHITECTURES.kinds()))
def test_contents_come_back_in_every_shape(family):
    rng = np.random.default_rng(1)
    for width, depth in architecture(family).block_shapes:
        words = rng.integers(0, 1 << width, depth)
        bits = block_bits(words, width, family)
        np.testing.assert_array_equal(block_words(bits, width, family), words)
        np.testing.assert_array_equal(parse_section(section_lines(bits, family), family), bits)
        assert not block_bits([], width, family).any()


def test_broken_text_is_refused():
    lines = section_lines(block_bits([1, 2], 8, "ice40"), "ice40")
    for broken in (lines[:-1], [*lines[:-1], "0" * 63], [*lines[:-1], "g" * 64]):
        with pytest.raises(InputError, match="A block RAM must have 16 words of 256 bits"):
            parse_section(broken, "ice40")


@pytest.mark.build
def test_the_ecp5_tools_keep_contents(tmp_path):
    """What is packed and unpacked again is the same, block by block."""
    rng = np.random.default_rng(2)
    blocks = [block_bits(rng.integers(0, 1 << 18, 1024), 18, "ecp5") for _ in range(2)]
    text = ".device LFE5U-25F\n\n"
    for number, bits in zip((0, 37), blocks, strict=True):
        text += "\n".join([f".bram_init {number}", *section_lines(bits, "ecp5"), "", ""])
    (tmp_path / "a").write_text(text)
    tools.run("ecppack", ["--input", "a", "--bit", "b"], folder=tmp_path)
    tools.run("ecpunpack", ["--input", "b", "--textcfg", "c"], folder=tmp_path)
    found = sections((tmp_path / "c").read_text(), "ecp5")
    assert list(found) == [".bram_init 0", ".bram_init 37"]
    for bits, again in zip(blocks, found.values(), strict=True):
        np.testing.assert_array_equal(bits, again)
