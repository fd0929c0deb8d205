"""Memory files: ``$readmemh`` text, one word per line, exactly as wide as the word."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pvq_hw.errors import InputError

__all__ = ["hex_text", "packed_hex", "read_hex", "signed", "unsigned"]

_FEW_BITS = 8  # whose words come again and again, so that each is written once


def hex_text(words: Iterable[int], bits: int) -> str:
    """Lower-case digits, ``ceil(bits / 4)`` to a word, each word ended by a line feed."""
    digits = -(-bits // 4)
    if bits > _FEW_BITS:
        return "".join(f"{word:0{digits}x}\n" for word in words)
    words = list(words)
    lines = {word: f"{word:0{digits}x}\n" for word in set(words)}
    return "".join([lines[word] for word in words])


def read_hex(path: Path, bits: int, depth: int) -> list[int]:
    """The words of a file that `hex_text` wrote; raises InputError, which names the line, else."""
    digits = -(-bits // 4)
    size = depth * (digits + 1)
    try:
        with path.open("rb") as file:
            data = file.read(size + 1)
    except OSError as error:
        raise InputError(f"{path.name} can't be read: {error.strerror}") from None
    if len(data) != size:
        found = "more" if len(data) > size else f"{len(data)}"
        raise InputError(f"{path.name} must have {depth} words in {size} bytes, not {found}")
    allowed = frozenset(b"0123456789abcdef")
    words = []
    for line in range(depth):
        text = data[line * (digits + 1) : (line + 1) * (digits + 1)]
        if text[-1:] != b"\n" or not allowed.issuperset(text[:-1]):
            raise InputError(f"{path.name} line {line + 1} must be {digits} hex digits")
        word = int(text, 16)
        if word >> bits:
            raise InputError(f"{path.name} line {line + 1} must be a word of {bits} bits")
        words.append(word)
    return words


def unsigned(values: Iterable[int], bits: int) -> list[int]:
    """Two's complement of ``bits`` bits."""
    mask = (1 << bits) - 1
    return [int(value) & mask for value in values]


def packed_hex(text: str, bits: int, width: int) -> str:
    """Text of words of so many bits, ``width`` of them together in a word, the first lowest."""
    values = [int(word, 16) for word in text.split()]
    words = [values[k : k + width] for k in range(0, len(values), width)]
    return hex_text(
        [sum(v << (j * bits) for j, v in enumerate(word)) for word in words], bits * width
    )


def signed(words: Sequence[int], bits: int) -> list[int]:
    """Inverse of `unsigned` for signed values."""
    half = 1 << (bits - 1)
    return [word - ((word & half) << 1) for word in words]
