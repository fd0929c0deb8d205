"""Codes that are loaded: the file, where its words go, `verify`, and the plan that wants them."""

import struct
import zlib
from dataclasses import dataclass, replace

import pytest
from loaded import Loaded
from plan_networks import S16, U8, random_network

from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.spram_image import (
    CODES_FILE,
    HEADER_BYTES,
    CodeBlock,
    code_file,
    code_layout,
    code_words,
    code_writes,
    has_spram,
)
from pvq_hw.errors import InputError
from pvq_hw.host.code_state import CodeState, CodeStatus
from pvq_hw.network.golden_inputs import golden_inputs
from pvq_hw.output.golden_vectors import write_vectors
from pvq_hw.output.manifest import write_manifest
from pvq_hw.output.verify import verify_output
from pvq_hw.output.verify_codes import check_codes
from pvq_hw.plan.folding import FoldLayer, fold
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import Plan, core_images, plan
from pvq_hw.plan.resources import core_memories, load_resources
from pvq_hw.target.block_ram import memory_blocks, spram_blocks
from pvq_hw.target.boards import get_target

SPRAM = {"code_memory": "spram"}
LOADED = Loaded()


@dataclass(frozen=True)
class Core:
    """As much of a specification as a layout needs."""

    word_bits: int
    words: int
    code_memory: str = "spram"


def test_blocks_are_columns_and_then_depth_core_after_core():
    layout = code_layout([Core(33, 5), Core(9, 7, "block"), Core(16, 11)])
    assert layout.blocks == (
        CodeBlock(0, 0, 0, 5),
        CodeBlock(0, 16, 0, 5),
        CodeBlock(0, 32, 0, 5),
        CodeBlock(2, 0, 0, 11),
    )
    assert layout.size == 2 * 26
    assert layout.first(2) == 3
    deep = code_layout([Core(17, 16384 + 3)])
    assert [(b.bit, b.word, b.words) for b in deep.blocks] == [
        (0, 0, 16384),
        (16, 0, 16384),
        (0, 16384, 3),
        (16, 16384, 3),
    ]
    assert spram_blocks(17, 16384 + 3) == 4


def test_more_than_four_blocks_are_refused():
    with pytest.raises(InputError, match=r"4 SPRAMs at most, but the cores need \[3, 2\]"):
        code_layout([Core(48, 10), Core(17, 10)])


def test_the_file_is_what_the_documentation_says():
    layout = code_layout([Core(20, 2)])
    image = CoreImage(codes=(0x54321, 0xFEDCB), mult=(), bias=())
    payload = bytes.fromhex("2143 cbed 0500 0f00")
    crc = zlib.crc32(payload)
    header = b"PVQC\x01\0\0\0" + struct.pack("<II", 8, crc)
    assert code_file(layout, [image]) == header + payload
    assert code_writes(layout, header + payload) == [
        (0, 0x4321),
        (1, 0xEDCB),
        (0x4000, 0x0005),
        (0x4001, 0x000F),
    ]


def test_words_put_together_are_the_codes_again():
    held = dict(code_writes(LOADED.layout, LOADED.file))
    for core, (spec, image) in enumerate(zip(LOADED.specs, LOADED.images, strict=True)):
        blocks = [(k, b) for k, b in enumerate(LOADED.layout.blocks) if b.core == core]
        for word, code in enumerate(image.codes):
            assert sum(held[k << 14 | word] << b.bit for k, b in blocks) == code
        assert len(image.codes) == spec.words
    assert [held[1 << 14 | i] for i in range(3)] == LOADED.words[1][:3]
    assert code_words(LOADED.layout, LOADED.images) == LOADED.words


def test_a_damaged_file_or_anothers_is_refused():
    for place in range(len(LOADED.file)):
        data = bytearray(LOADED.file)
        data[place] ^= 4
        with pytest.raises(InputError, match=r"codes.bin must hold \d+ bytes of codes"):
            code_writes(LOADED.layout, bytes(data))
    for data in (b"", LOADED.file[:-1], LOADED.file + b"\0", bytes(100)):
        with pytest.raises(InputError, match="must hold"):
            code_writes(LOADED.layout, data)


@pytest.mark.parametrize("payload", [b"", b"\6\0\0\0\0", b"\0\0\0\0", bytes(6)])
def test_a_status_that_is_none_is_refused(payload):
    with pytest.raises(InputError, match="Status of codes must be 5 bytes"):
        CodeStatus.decode(payload)
    status = CodeStatus(CodeState.WRONG, 0x12345678)
    assert CodeStatus.decode(status.encode()) == status


@pytest.fixture(scope="module")
def planned():
    network, weights = random_network()
    return network, weights, plan(network, "icebreaker", **SPRAM)


def test_codes_in_spram_take_no_block_ram(planned, tmp_path):
    network, _, loaded = planned
    block = plan(network, "icebreaker", code_memory="block")
    assert has_spram(loaded.specs)
    assert not has_spram(block.specs)
    assert loaded.resources.sprams == sum(spram_blocks(s.word_bits, s.words) for s in loaded.specs)
    codes = [core_memories(s)["codes"] for s in block.specs]
    assert [core_memories(s).get("codes") for s in loaded.specs] == [None, None]
    if loaded.lanes == block.lanes:
        less = sum(memory_blocks(w, d, "ice40") for _, w, d in codes)
        assert block.resources.brams - loaded.resources.brams == less
        more = load_resources(loaded.target).luts
        assert loaded.resources.luts - block.resources.luts > more - 100
        assert (loaded.interval_cycles, loaded.latency_cycles) == (
            block.interval_cycles,
            block.latency_cycles,
        )
    loaded.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == loaded


def test_nothing_is_loaded_where_block_ram_is_enough():
    network, _ = random_network()
    assert not has_spram(plan(network, "icebreaker").specs)


def test_targets_without_spram_and_too_many_codes_are_refused_with_numbers():
    network, _ = random_network()
    with pytest.raises(InputError, match="Codes must be in block RAM, since hx8k has no SPRAM"):
        plan(network, "hx8k", **SPRAM)
    wide, _ = random_network((60, 12, 5), (30, 6))
    with pytest.raises(InputError, match=r"needs \d SPRAMs for \d Kibit of codes, but ice"):
        plan(wide, "icebreaker", lanes=[30, 2], **SPRAM)


# Pulses a row that the calibrated quantizer gives network A's layers at a mean N/K of 5 and 20.
NETWORK_A = {5: (167, 82, 656), 20: (42, 18, 257)}


@pytest.mark.parametrize(
    ("ratio", "lanes", "cycles"),
    [pytest.param(5, (6, 3, 1), 14_400, marks=pytest.mark.slow), (20, (5, 2, 2), 4_700)],
)
def test_network_a_fits_an_icebreaker(ratio, lanes, cycles):
    shapes = zip((512, 512, 10), (784, 512, 512), NETWORK_A[ratio], strict=True)
    layers = [
        FoldLayer(f"fc{rows}x{n}", rows, n, k, U8, S16 if rows == 10 else U8)
        for rows, n, k in shapes
    ]
    folding = fold(layers, get_target("icebreaker"))
    assert folding.fits
    assert folding.lanes == lanes
    assert folding.interval_cycles < cycles
    assert "spram" in {m["code_memory"] for m in folding.memories}


@pytest.fixture
def out(planned, tmp_path):
    network, weights, loaded = planned
    (tmp_path / "network").mkdir()
    network.save(tmp_path / "network")
    loaded.save(tmp_path / "plan.json")
    emit(network, loaded).write(tmp_path)
    write_vectors(tmp_path, network, golden_inputs(network))
    write_manifest(tmp_path, network, loaded, weights=weights)
    return tmp_path


def test_an_output_with_codes_to_load_verifies(out, planned):
    assert verify_output(out, weights=planned[1]) == []


def test_each_byte_of_the_file_counts_and_findings_name_layer_and_word(out, planned):
    network, _, loaded = planned
    images = core_images(network, loaded)
    path = out / "image" / CODES_FILE
    data = path.read_bytes()
    layout = code_layout(loaded.specs)
    for place in [0, 5, 15, HEADER_BYTES, len(data) - 1]:
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
        findings = []
        check_codes(out, loaded, images, findings)
        (finding,) = findings
        block = layout.blocks[0 if place == HEADER_BYTES else -1]
        word = 0 if place == HEADER_BYTES else block.words - 1
        where = f"layer {loaded.layers[block.core].layer!r} word {word}"
        assert finding.file == "image/codes.bin"
        assert finding.where == ("header" if place < HEADER_BYTES else where)
        assert any(f.message == "differs from its hash in the manifest" for f in verify_output(out))
    path.write_bytes(data[:-1])
    findings = []
    check_codes(out, loaded, images, findings)
    assert "must have" in findings[0].message
    path.unlink()
    check_codes(out, loaded, images, findings)
    assert "can't be read" in findings[1].message


def test_a_plan_of_too_many_blocks_is_a_finding(out, planned):
    network, _, loaded = planned
    layer = loaded.layers[0]
    wide = replace(layer.spec, words=5 * 16384)
    broken = replace(loaded, layers=(replace(layer, spec=wide), *loaded.layers[1:]))
    findings = []
    check_codes(out, broken, core_images(network, loaded), findings)
    assert "4 SPRAMs at most" in findings[0].message
