"""Checks the file of codes that a board loads after configuration."""

from collections.abc import Sequence
from pathlib import Path

from pvq_hw.engine.code_stream import has_stream, sent_bits, stream_file, streamed_core
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.spram_image import CODES_FILE, HEADER_BYTES, code_file, code_layout, has_spram
from pvq_hw.errors import InputError
from pvq_hw.output.verify_content import Finding
from pvq_hw.plan.plan import Plan

__all__ = ["check_codes"]

_FILE = f"image/{CODES_FILE}"


def check_codes(
    folder: Path, plan: Plan, images: Sequence[CoreImage], findings: list[Finding]
) -> None:
    """Compares ``image/codes.bin`` with the codes of the network's cores: findings name layer and
    code word."""
    if has_stream(plan.specs):
        _check_stream(folder, plan, images, findings)
    if not has_spram(plan.specs):
        return
    try:
        layout = code_layout(plan.specs)
        expected = code_file(layout, images)
    except InputError as error:
        findings.append(Finding("plan.json", "layers", str(error)))
        return
    data = _read_alike(folder, expected, findings)
    if data is None:
        return
    start = HEADER_BYTES
    for block in layout.blocks:
        part = slice(start, start + 2 * block.words)
        start = part.stop
        wrong = [
            i for i, (a, b) in enumerate(zip(data[part], expected[part], strict=True)) if a != b
        ]
        if wrong:
            word = block.word + wrong[0] // 2
            owner = plan.layers[block.core]
            name = owner.spec.layer_at(owner.spec.memory_name("weights"), word) or owner.layer
            where = f"layer {name!r} word {word}"
            findings.append(Finding(_FILE, where, "is not the network's code"))


def _read_alike(folder: Path, expected: bytes, findings: list[Finding]) -> bytes | None:
    """The file of codes, which has the length of the one expected; None where it has not, or can't
    be read. Another header is a finding."""
    try:
        with (folder / _FILE).open("rb") as stream:
            data = stream.read(len(expected) + 1)
    except OSError as error:
        findings.append(Finding(_FILE, "", f"can't be read: {error.strerror}"))
        return None
    if len(data) != len(expected):
        findings.append(Finding(_FILE, "", f"must have {len(expected):,} bytes"))
        return None
    if data[:HEADER_BYTES] != expected[:HEADER_BYTES]:
        findings.append(Finding(_FILE, "header", "is not that of the network's codes"))
    return data


def _check_stream(
    folder: Path, plan: Plan, images: Sequence[CoreImage], findings: list[Finding]
) -> None:
    """The same of codes that come from the flash for every frame."""
    streamed = streamed_core(plan.specs, images)
    assert streamed is not None
    spec, expected = streamed[0], stream_file(*streamed)
    data = _read_alike(folder, expected, findings)
    if data is None:
        return
    found, right = data[HEADER_BYTES:], expected[HEADER_BYTES:]
    if found != right:
        byte = next(i for i, (a, b) in enumerate(zip(found, right, strict=True)) if a != b)
        bit = 8 * byte + 8 - (found[byte] ^ right[byte]).bit_length()
        word = min(bit // sent_bits(spec), spec.stream_words - 1)
        name = spec.layer_at(spec.stream_memory, word)
        where = f"layer {name!r} word {word}"
        findings.append(Finding(_FILE, where, "is not the network's code"))
