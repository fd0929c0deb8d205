"""Block RAM as the device families have it: how a memory is composed, and what it takes.

``family`` is the name of an architecture, `pvq_hw.target.architectures.ARCHITECTURES`.

The circuits build every memory from the pieces that `memory_layout` gives, one block RAM each,
so that the count of `memory_blocks` is what place and route reports.
"""

from dataclasses import dataclass
from functools import lru_cache

from pvq_hw.errors import InputError
from pvq_hw.target.architectures import architecture

__all__ = [
    "SPRAM_BITS",
    "SPRAM_DEPTH",
    "SPRAM_WIDTH",
    "Piece",
    "memory_blocks",
    "memory_columns",
    "memory_layout",
    "memory_ways",
    "select_registers",
    "spram_blocks",
]

SPRAM_WIDTH, SPRAM_DEPTH = 16, 16384  # of an SB_SPRAM256KA, Lattice FPGA-TN-02022
SPRAM_BITS = SPRAM_WIDTH * SPRAM_DEPTH


@dataclass(frozen=True)
class Piece:
    """One block RAM: ``bits`` bits from ``bit`` on, of ``words`` words from ``word`` on.

    ``shape`` is the block's (width, depth).
    """

    bit: int
    bits: int
    word: int
    words: int
    shape: tuple[int, int]


def memory_layout(width: int, depth: int, family: str) -> tuple[Piece, ...]:
    """The pieces of a memory: the fewest blocks, as far as they are worth the LUTs that choose
    between blocks where it is cut in depth.

    Columns of a memory may have block shapes of their own: 81 x 5,120 bits on an ECP5 are four
    columns of 18 bits by 5 blocks and one of 9 bits by 3.
    """
    pieces = []
    bit = 0
    for bits, shape in _columns(width, depth, family):
        for word in range(0, depth, shape[1]):
            pieces.append(Piece(bit, bits, word, min(shape[1], depth - word), shape))
        bit += bits
    return tuple(pieces)


def memory_columns(width: int, depth: int, family: str) -> list[tuple[int, int]]:
    """The bits of each column of `memory_layout`, and into how many blocks it is cut in depth."""
    return [(bits, -(-depth // words)) for bits, (_, words) in _columns(width, depth, family)]


@lru_cache(maxsize=1 << 16)
def memory_blocks(width: int, depth: int, family: str) -> int:
    """Block RAMs of a memory of ``depth`` words of ``width`` bits; 0 for an empty one."""
    if width == 0 or depth == 0:
        return 0
    return sum(ways for _, ways in memory_columns(width, depth, family))


@lru_cache(maxsize=1 << 16)
def memory_ways(width: int, depth: int, family: str) -> int:
    """Bits that are chosen among the blocks of a memory, one for each further way."""
    return sum(bits * (ways - 1) for bits, ways in memory_columns(width, depth, family))


def spram_blocks(width: int, depth: int) -> int:
    """SPRAMs of a memory of ``depth`` words of ``width`` bits, each block 16 bits of a word."""
    return -(-width // SPRAM_WIDTH) * -(-depth // SPRAM_DEPTH)


def select_registers(width: int, depth: int, family: str) -> int:
    """Registers that the choice between the pieces of a memory wants where the clock is fast: none
    for one piece, and a step more than registers, so that up to 8 pieces are one of 2 each."""
    ways = max(ways for _, ways in memory_columns(width, depth, family))
    return 0 if ways == 1 else 1 if ways <= 4 else 2


class _Cheapest:
    """An unbounded knapsack: of every width the price, the blocks, and the shape of the last
    column, each shape cut into as many ``segments`` in depth."""

    def __init__(self, segments: tuple[int, ...], family: str) -> None:
        device = architecture(family)
        self.price = device.block_luts
        self.columns = [
            (w, count, index)
            for index, ((w, _), count) in enumerate(zip(device.block_shapes, segments, strict=True))
        ]
        self.found = [(0, 0, 0)]

    def cover(self, width: int) -> None:
        """Sees to it that widths up to this one are known."""
        for covered in range(len(self.found), width + 1):
            options = []
            for w, segments, index in self.columns:
                paid, blocks, _ = self.found[covered - w if covered > w else 0]
                cut = (segments - 1) * (w if covered > w else covered)
                options.append((paid + self.price * segments + cut, blocks + segments, index))
            self.found.append(min(options))


@lru_cache(maxsize=4096)
def _cheapest(segments: tuple[int, ...], family: str) -> _Cheapest:
    return _Cheapest(segments, family)


@lru_cache(maxsize=4096)
def _columns(width: int, depth: int, family: str) -> tuple[tuple[int, tuple[int, int]], ...]:
    """Columns that cover ``width``, widest first: bits of the memory and shape of the blocks."""
    device = architecture(family)
    if width < 1 or depth < 1 or width > 1 << 16 or depth > 1 << 24:
        raise InputError(f"Memory must have 1 bit and 1 word at least, not {width} x {depth}")
    shapes = device.block_shapes
    best = _cheapest(tuple(-(-depth // d) for _, d in shapes), family)
    best.cover(width)
    chosen, left = [], width
    while left > 0:
        chosen.append(best.found[left][2])
        left -= shapes[chosen[-1]][0]
    found = []
    for index in sorted(chosen):
        bits = min(shapes[index][0], width)
        width -= bits
        found.append((bits, shapes[index]))
    return tuple(found)
