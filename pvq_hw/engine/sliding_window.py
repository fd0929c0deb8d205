"""Windows that are kept in registers: each reads only the columns that the one before it lacks."""

from dataclasses import dataclass, replace
from functools import cached_property

from pvq_hw.engine.line_buffer import WindowSpec

__all__ = ["UNITS_UNDER_WAY", "SlidingWindow"]

UNITS_UNDER_WAY = 3
"""Units that have started and not moved into the window."""


@dataclass(frozen=True)
class SlidingWindow:
    """A window in registers that moves along a row of positions.

    Its line buffer gives units of ``new_columns`` kernel columns; each moves the window by so many.
    A row of positions begins with ``lead`` units that only fill the registers. Where the kernel is
    dilated along the row, or windows don't overlap, a unit is a whole window.

    Parameters
    ----------
    window : WindowSpec
        In pixel order.
    """

    window: WindowSpec

    @property
    def new_columns(self) -> int:
        """Kernel columns of a unit."""
        g = self.window.geometry
        return g.stride[1] if g.dilation[1] == 1 and g.stride[1] < g.kernel[1] else g.kernel[1]

    @property
    def lead(self) -> int:
        """Units of a row of positions before the one that completes its first window."""
        return -(-self.window.geometry.kernel[1] // self.new_columns) - 1

    @cached_property
    def reader(self) -> WindowSpec:
        """The line buffer of the units: a narrower kernel, which begins as many units earlier."""
        g = self.window.geometry
        if not self.lead:
            return self.window
        (top, bottom), (left, right) = g.pads
        left += (self.lead + 1) * self.new_columns - g.kernel[1]
        narrow = replace(
            g, kernel=(g.kernel[0], self.new_columns), pads=((top, bottom), (left, right))
        )
        return self.window.reading(narrow)

    @property
    def unit_bits(self) -> int:
        """Bits of a unit."""
        return self.reader.unit_words * self.window.width * self.window.x.bits

    @property
    def unit_delay(self) -> int:
        """Cycles from a unit's start until it is whole in registers."""
        return self.reader.unit_words + self.reader.read_delay + 1

    @property
    def unit_cycles(self) -> int:
        """Cycles between two units while nothing waits, of which a few are under way at most."""
        return max(self.reader.unit_words, -(-(self.unit_delay + 2) // UNITS_UNDER_WAY))

    def frame_cycles(self, words: int, levels: int) -> int:
        """About the cycles of a map whose windows' sums are there ``levels`` cycles after a window
        and leave in ``words``: while the last ones of a row leave, the next row may begin."""
        height, width, channels = self.window.geometry.input_shape
        rows, columns = self.window.geometry.output_size
        position = max(words, levels + 1, self.unit_cycles)
        begin = max(0, self.lead * self.unit_cycles + levels + 1 - position)
        taken = height * width * channels // self.window.taken
        return max(rows * (columns * position + begin), taken)
