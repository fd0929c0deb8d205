"""Networks whose layers share an engine: what is planned, said, verified, chosen and refused."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from plan_networks import random_network

from pvq_hw.engine.engines import Engine
from pvq_hw.engine.map_places import Part, place_maps, with_copies
from pvq_hw.engine.shared_core import SharedSpec
from pvq_hw.errors import InputError
from pvq_hw.flow.options import CompileOptions, LayerChoice
from pvq_hw.geometry import Geometry
from pvq_hw.output.report import compile_document
from pvq_hw.output.verify_codes import check_codes
from pvq_hw.output.verify_content import Finding, check_image, check_plan
from pvq_hw.plan.candidates import Passed
from pvq_hw.plan.folding import FoldLayer, fold
from pvq_hw.plan.image import Image, emit
from pvq_hw.plan.plan import Plan, plan
from pvq_hw.plan.resources import Resources, budget, top_resources
from pvq_hw.plan.shared import shared_folding
from pvq_hw.plan.shared_resources import shared_memories
from pvq_hw.plan.shared_steps import reckoned_steps
from pvq_hw.plan.sharing import fold_network
from pvq_hw.plan.unit_resources import units_reserve
from pvq_hw.registry import Registry
from pvq_hw.target.block_ram import memory_blocks
from pvq_hw.target.boards import get_target

NETWORK, WEIGHTS = random_network((40, 24, 16, 9), (12, 8, 6), seed=2)
ICE = get_target("icebreaker")


def found(folder, network, planned) -> list[Finding]:
    findings: list[Finding] = []
    cores = check_plan(folder, network, planned, findings)
    if cores is not None:
        check_image(folder, network, planned, cores, findings)
        check_codes(folder, planned, [image for _, image in cores], findings)
    return findings


@pytest.mark.parametrize("memory", ["block", "spram"])
def test_a_network_on_one_engine_is_planned_and_verified(tmp_path, memory):
    planned = plan(NETWORK, "icebreaker", engine="shared", code_memory=memory)
    spec = planned.shared
    assert isinstance(spec, SharedSpec)
    assert planned.specs == [spec]
    assert [x.name for x in spec.layers] == ["fc1", "fc2", "fc3"]
    assert planned.interval_cycles == spec.frame_cycles
    (layer,) = planned.layers
    assert (layer.weights, layer.pulses) == (40 * 24 + 24 * 16 + 16 * 9, 12 * 24 + 8 * 16 + 6 * 9)
    assert planned.resources.sprams == (memory == "spram") * -(-spec.word_bits // 16)
    assert Plan.from_json(planned.to_json()) == planned
    image = emit(NETWORK, planned)
    x = np.random.default_rng(1).integers(0, 256, (3, 40))
    outputs = planned.graph.compute(planned.graph.named(image.cores), x)
    assert np.array_equal(outputs[planned.graph.last.name], NETWORK.predict(x))
    image.write(tmp_path)
    planned.save(tmp_path / "plan.json")
    assert Image.load(tmp_path, planned) == image
    assert found(tmp_path, NETWORK, planned) == []
    # A pulse elsewhere, and a word of the program.
    for name, layer_name in (("codes", "fc1"), ("program", "fc3"), ("bias", "fc3")):
        file = tmp_path / "image" / f"engine_{name}.hex"
        before = file.read_text()
        lines = before.splitlines()
        at = 0 if name == "codes" else len(lines) - 1
        lines[at] = format(int(lines[at], 16) ^ 1, f"0{len(lines[at])}x")
        file.write_text("\n".join(lines) + "\n")
        (finding,) = found(tmp_path, NETWORK, planned)
        assert finding.file == f"image/engine_{name}.hex"
        assert finding.where == f"layer {layer_name!r} word {at}"
        file.write_text(before)
    other = replace(planned, interval_cycles=planned.interval_cycles + 1)
    other.save(tmp_path / "plan.json")
    assert "interval_cycles" in {f.where for f in found(tmp_path, NETWORK, other)}


def test_tables_and_reports_have_every_layer():
    planned = plan(NETWORK, "hx8k", engine="shared", lanes=[4, None, 4])
    text = planned.summary()
    assert all(name in text for name in ("fc1", "fc2", "fc3", "3 layers", "engine")[:3])
    manifest = {"layers": [], "extra": {}, "n_over_k": 3.0}
    document = compile_document(NETWORK, planned, manifest, None, {"limit_bits_per_weight": 1.0})
    assert [x["name"] for x in document["layers"]] == ["fc1", "fc2", "fc3"]
    assert [(x["rows"], x["columns"]) for x in document["layers"]] == [(24, 40), (16, 24), (9, 16)]
    assert {x["lanes"] for x in document["layers"]} == {4}
    assert sum(x["slots"] for x in document["layers"]) == planned.specs[0].words
    program = document["program"]
    assert [(x["name"], x["reads"], x["gives"]) for x in program] == [
        ("fc1", "region 0", "region 1"), ("fc2", "region 1", "region 2"),
        ("fc3", "region 2", "output"),
    ]  # fmt: skip
    assert sum(x["cycles"] for x in program) == planned.interval_cycles
    assert [x["program"] for x in program] == planned.specs[0].program()


def test_block_ram_of_an_engine_is_counted_exactly():
    planned = plan(NETWORK, "icebreaker", engine="shared", lanes=[3] * 3)
    spec = planned.specs[0]
    banks = 3 * memory_blocks(8, spec.bank_words, "ice40")
    names = [f"engine_{role}" for role in ("codes", "mult", "bias")]
    roms = sum(memory_blocks(*spec.memories[name], "ice40") for name in names)
    fifo = memory_blocks(16, spec.fifo_depth, "ice40")
    assert planned.layers[0].resources.brams == banks + roms + fifo


def layers(*sizes: int, ratio: int = 5, **options) -> list[FoldLayer]:
    x = NETWORK.input.format
    return [
        FoldLayer(f"fc{i}", m, n, max(1, n // ratio), x, x, **options)
        for i, (n, m) in enumerate(pairwise(sizes))
    ]


def test_codes_come_from_the_flash_where_they_fit_nowhere_else():
    board = get_target("hx8k")
    large = layers(784, 512, 512, 10, ratio=20)
    folding = shared_folding(large, board, reserve=top_resources(board, 784))
    assert folding.fits
    assert folding.memories[0]["code_memory"] == "flash"
    assert "the flash takes as long" in folding.limit
    assert folding.memories[0]["flash_bits"] == 2
    # Four bits and more a pulse, two a clock of two cycles.
    assert folding.interval_cycles > 4 * sum(x.rows * x.k for x in large)
    slow = shared_folding(
        large, board, reserve=top_resources(board, 784), code_memory="flash", flash_bits=1
    )
    assert 1.9 < slow.interval_cycles / folding.interval_cycles < 2.1
    stored = shared_folding(layers(784, 32, 10), board, reserve=top_resources(board, 784))
    assert stored.memories[0]["code_memory"] == "block"
    other = get_target("alchitry-cu")  # of the same device, whose flash isn't among its pins
    assert not shared_folding(large, other, reserve=top_resources(other, 784)).fits


def test_codes_from_the_flash_take_a_ring_of_block_ram():
    planned = plan(NETWORK, "hx8k", engine="shared", code_memory="flash", lanes=[3] * 3)
    spec = planned.specs[0]
    assert shared_memories(spec)["codes"] == (1, spec.word_bits, 256)
    assert planned.interval_cycles == spec.frame_cycles
    assert spec.flash_bits == 2  # unless 4 are asked for, as the flash may not give them
    assert spec.frame_cycles == 2 * spec.words * -(-spec.word_bits // 2) + 88
    assert planned.stream is not None
    assert "bits a frame from the flash, 2 a clock" in planned.summary()
    assert Plan.from_json(planned.to_json()) == planned


@pytest.mark.parametrize(("bits", "clocks"), [(1, 100.0), (2, 208.0), (4, 208.0)])
def test_bits_a_clock_and_the_clock_are_what_flash_and_board_can(bits, clocks):
    asked = {"engine": "shared", "code_memory": "flash", "lanes": [3] * 3}
    planned = plan(NETWORK, "icebreaker", flash_bits=bits, **asked)
    spec, stream = planned.specs[0], planned.stream
    sent = -(-spec.word_bits // bits) * bits
    assert (spec.flash_bits, stream.width, stream.bits) == (bits, bits, spec.words * sent)
    assert stream.to_json()["bits_per_clock"] == bits
    replace(stream, clock_hz=int(clocks * 1e6)).verify("x")
    with pytest.raises(InputError, match=f"the flash of x at {clocks / 2:g} MHz at most"):
        replace(stream, clock_hz=int(clocks * 1e6) + 1).verify("x")
    # A plan of before has no such choice, and one bit a clock.
    value = planned.to_json()
    del value["layers"][0]["core"]["flash_bits"]
    if bits == 1:
        assert Plan.from_json(value) == planned
    if bits == 4:
        with pytest.raises(InputError, match="flash of hx8k four bits a clock: its IO2 and IO3"):
            plan(NETWORK, "hx8k", flash_bits=4, **asked)


def test_it_is_chosen_where_a_core_a_layer_does_not_fit():
    ad01 = layers(640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640)
    reserve = top_resources(ICE, 640)
    one = fold_network(ad01, ICE, may_share=True, best=fold, reckoned=True, reserve=reserve)
    assert one.fits
    assert one.engines
    assert one.cost.within(budget(ICE))
    assert one.engine_reasons["fc3"].startswith("shared: one core a layer would not fit")
    several = fold(ad01, ICE, reckoned=True, reserve=reserve)
    assert (several.fits, several.shared) == (False, False)
    small = layers(64, 32, 10)
    assert not fold_network(small, ICE, may_share=True, reserve=reserve).shared
    assert fold_network(small, ICE, shared=True, reserve=reserve).shared


def test_a_convolutional_chain_is_shared_too_with_its_average_between():
    x, same = NETWORK.input.format, ((1, 1), (1, 1))
    wide = Geometry((25, 5, 64), (3, 3), pads=same)
    points = Geometry((25, 5, 64), (1, 1))
    first = Geometry((49, 10, 1), (10, 4), (2, 2), ((4, 5), (1, 1)))
    keywords = [FoldLayer("conv0", 64, 40, 13, x, x, geometry=first)]
    for number in range(4):
        keywords += [
            FoldLayer(f"dw{number}", 64, 576, 3, x, x, geometry=wide, groups=64),
            FoldLayer(f"pw{number}", 64, 64, 21, x, x, geometry=points),
        ]
    keywords.append(FoldLayer("fc", 12, 64, 21, x, x))
    reserve = top_resources(ICE, 490)
    one = fold_network(keywords, ICE, shared=True, reserve=reserve)
    assert (one.fits, one.shared) == (True, True)
    assert one.names == tuple(layer.name for layer in keywords)
    assert one.memories[0]["map_memory"] == "spram"
    assert one.memories[0]["side"] == 4  # positions for a code word
    assert one.cost.sprams == 4
    assert one.lanes[0] % 2 == 0
    # What is between two layers must be an average of the whole map.
    other = [keywords[0], FoldLayer("fc", 12, 8, 4, x, x)]
    with pytest.raises(InputError, match="more than an average of the whole map"):
        shared_folding(other, ICE, reserve=reserve)


def test_sums_are_reckoned_as_the_layers_hang_together():
    x, g = NETWORK.input.format, Geometry((8, 8, 16), (3, 3), pads=((1, 1), (1, 1)))
    down, short = replace(g, stride=(2, 2)), Geometry((8, 8, 16), (1, 1), (2, 2))
    same = Passed("sum", "Add", ("b", "a"), "s", (8, 8, 16), x)
    other = Passed("sum2", "Add", ("c", "d"), "t", (4, 4, 16), x)
    mean = Passed("mean", "AveragePool", ("t",), "m", (1, 1, 16), x, Geometry((4, 4, 16), (4, 4)))
    body = [
        FoldLayer("a", 16, 144, 48, x, x, geometry=g, reads="x", gives="a"),
        FoldLayer("b", 16, 144, 48, x, x, geometry=g, reads="a", gives="b0"),
        FoldLayer("b1", 16, 144, 48, x, x, geometry=g, reads="b0", gives="b", then=(same,)),
        FoldLayer("c", 16, 144, 48, x, x, geometry=down, reads="s", gives="c0"),
        FoldLayer("c1", 16, 144, 48, x, x, geometry=replace(g, input_shape=(4, 4, 16)),
                  reads="c0", gives="c"),
        FoldLayer("d", 16, 16, 5, x, x, geometry=short, reads="s", gives="d", then=(other, mean)),
        FoldLayer("fc", 9, 16, 5, x, x, reads="m", gives="o"),
    ]  # fmt: skip
    steps = reckoned_steps(body)
    assert [(step.layer.name, step.reads, step.joins) for step in steps] == [
        ("a", (-1,), 0), ("b", (0,), 0), ("b1", (1,), 0), ("sum", (2, 0), 2), ("c", (3,), 0),
        ("c1", (4,), 0), ("d", (3,), 0), ("d copied", (6,), 1), ("sum2", (5, 7), 2),
        ("mean", (8,), 0), ("fc", (9,), 0),
    ]  # fmt: skip
    folding = shared_folding(body, ICE, reserve=Resources())
    assert folding.fits
    assert folding.names == tuple(layer.name for layer in body)
    # What is kept free for sums and averages of their own isn't kept from the engine.
    kept = fold_network(body, ICE, shared=True, reserve=units_reserve(3, "up5k"))
    assert kept == folding
    pool = replace(mean, name="pool", op="MaxPool", inputs=("a",))
    pooled, last = replace(body[0], then=(pool,)), replace(body[-1], n=16, reads="m")
    pool = reckoned_steps([pooled, last])[1]
    assert (pool.layer.name, pool.most, pool.layer.rows, pool.layer.k) == ("pool", 16, 32, 1)
    curve = replace(mean, name="curve", op="Function", inputs=("a",), shape=(8, 8, 16))
    step = reckoned_steps([replace(body[0], then=(curve,)), replace(last, n=1024)])[1]
    assert (step.layer.name, len(step.entries), step.layer.out) == ("curve", 256, x)
    cat = replace(mean, name="cat", op="Concat", inputs=("a", "x"), shape=(8, 8, 32))
    steps = reckoned_steps([replace(body[0], then=(cat,)), replace(last, n=2048)])
    found = [(step.name, step.reads, step.beside and step.beside.first) for step in steps]
    assert found == [
        ("a", (-1,), None), ("cat part 1", (0,), 0), ("input copied", (-1,), None),
        ("cat part 2", (2,), 8), ("fc", (3,), None),
    ]  # fmt: skip
    slices = replace(cat, op="Part")
    with pytest.raises(InputError, match="'cat' can't be on a shared engine: it takes a part of a"):
        shared_folding([replace(body[0], then=(slices,))], ICE, reserve=Resources())


def test_maps_keep_their_words_until_they_are_read_and_no_longer():
    reads = [(-1,), (0,), (1,), (0, 2), (3,)]
    places = place_maps([5, 8, 8, 8, 4, 1], reads, "Core")
    assert [(p.memory, p.base) for p in places] == [(0, 0), (1, 0), (0, 0), (1, 8), (0, 0)]
    with pytest.raises(InputError, match="Core: layer 1 must read maps of one memory"):
        place_maps([5, 8, 8], [(-1,), (-1, 0)], "Core")
    turns = with_copies([(-1,), (-1, 0)])
    assert [turn[:2] for turn in turns] == [(0, (-1,)), (None, (0,)), (1, (-1, 1))]


def test_parts_of_a_map_are_given_where_they_belong_or_copied_there():
    # Two layers that read the frame give their parts themselves: only the third is copied, twice.
    reads = [(-1,), (-1,), (-1,), (0,), (1,), (2,), (5,)]
    parts = [None, None, None, *(Part("cat", 4, k < 2) for k in range(3)), None]
    turns = with_copies(reads, parts)
    assert [turn[:3] for turn in turns] == [
        (0, (-1,), 3), (1, (-1,), 4), (2, (-1,), None), (None, (2,), None), (5, (3,), 5),
        (6, (4,), None),
    ]  # fmt: skip
    assert {turn[3:] for turn in turns if turn.part} == {(4, 4, 0)}
    gives = [turn.map if turn.part else k for k, turn in enumerate(turns)]
    places = place_maps([4, 4, 4, 4, 4, 12, 1], [t.reads for t in turns], "Core", gives)
    assert [(p.memory, p.base, p.words) for p in places] == [
        (0, 0, 4), (1, 0, 12), (1, 0, 12), (1, 12, 4), (0, 0, 4), (1, 0, 12),
    ]  # fmt: skip
    with pytest.raises(InputError, match="Core: layer 1 must write where its parts are"):
        place_maps([4, 4, 4, 1], [(-1,), (0,), (1,)], "Core", [1, 1, 2])


def test_many_layers_share_an_engine():
    many = layers(*[64] * 31)
    folding = shared_folding(many, ICE, reserve=Resources())
    assert (folding.fits, len(folding.names)) == (True, 30)
    # The program of 30 steps takes no block RAM, that of 65 does.
    network, _ = random_network((8,) * 31, (4,) * 30, seed=2)
    spec = plan(network, ICE, engine="shared", lanes=[2] * 30).shared
    assert isinstance(spec, SharedSpec)
    assert "program" not in shared_memories(spec)
    assert "program" in shared_memories(
        replace(spec, layers=(*spec.layers[:1] * 64, spec.layers[-1]))
    )


def test_codes_go_to_spram_where_block_ram_is_too_small():
    large = layers(640, 128, 128, 640)
    folding = shared_folding(large, ICE, reserve=Resources())
    assert folding.memories[0] == {"engine": "shared", "code_memory": "spram"}
    assert shared_folding(layers(64, 32, 10), ICE, reserve=Resources()).memories[0] == {
        "engine": "shared", "code_memory": "block",
    }  # fmt: skip


def test_lanes_that_real_parameters_are_too_wide_for_are_left_for_others():
    network, _ = random_network((300, 128, 128, 128, 40), (60, 40, 40, 40), seed=4)
    last = network.layers[-1]
    wide = replace(last, bias=np.where(np.arange(40) == 0, 1 << 40, last.bias))
    network = replace(network, layers=(*network.layers[:-1], wide))
    first = plan(network, "icebreaker", engine="shared", check=False)
    # So many block RAMs are enough for the engine as it is reckoned, but not for its biases.
    small = replace(ICE, device=replace(ICE.device, brams=first.resources.brams - 1))
    again = plan(network, small, engine="shared")
    assert again.resources.brams < first.resources.brams
    assert again.lanes < first.lanes


def test_what_cannot_be_shared_is_refused_by_name():
    with pytest.raises(InputError, match="Lanes must be the same for all layers"):
        plan(NETWORK, "icebreaker", engine="shared", lanes=[4, 2, 1])
    with pytest.raises(InputError, match="takes one frame at a time, not 2 side by side"):
        plan(NETWORK, "icebreaker", engine="shared", frames=2)
    with pytest.raises(InputError, match="codes of single pulses, not shifted ones"):
        plan(NETWORK, "icebreaker", engine="shared", codes={"fc1": "shifted"})
    with pytest.raises(InputError, match="options must be the same for all"):
        plan(NETWORK, "icebreaker", engine="shared", each={"fc1": {"code_memory": "block"}})
    with pytest.raises(
        InputError, match="The shared engine needs 152 Kibit of codes, but alchitry-cu has"
    ):
        plan(random_network((400, 300, 9), (80, 60), seed=1)[0], "alchitry-cu", engine="shared")
    with pytest.raises(InputError, match="'fc0' can't be on a shared engine: it has 8-bit weights"):
        shared_folding(layers(64, 32, encoding="int8"), ICE, reserve=Resources())
    with pytest.raises(InputError, match="on a shared engine must have no windows"):
        LayerChoice(engine="shared", windows=2)
    for options in ({"frames": 2}, {"windows": 2}, {"code": "shifted"},
                    {"layers": {"fc1": LayerChoice(lanes=3)}}):  # fmt: skip
        assert not CompileOptions(**options).may_share
        with pytest.raises(InputError, match="A shared engine takes one frame and one window"):
            CompileOptions(engine="shared", **options)
    assert CompileOptions(layers={"fc1": LayerChoice(ratio=3)}).may_share


def test_an_image_of_another_network_is_refused():
    planned = plan(NETWORK, "icebreaker", engine="shared")
    other, _ = random_network((40, 24, 16, 9), (12, 8, 7), seed=3)
    with pytest.raises(InputError, match="The plan's shared engine is not the network's"):
        emit(other, planned)


def test_as_many_lanes_are_chosen_as_a_large_device_has_room_for():
    """32 were the most: 491 and 2,881 cycles."""
    board = get_target("ulx3s-85f")
    for shape, pulses, most in (((120, 90, 10), (40, 30), 371), ((400, 300, 10), (120, 90), 1678)):
        network, _ = random_network(shape, pulses, seed=2)
        found = plan(network, board, engine="shared")
        assert found.interval_cycles <= most
        for lanes in (33, 48, 112, 160, 256):
            own = plan(network, board, engine="shared", lanes=[lanes] * 9, check=False)
            if own.resources.within(budget(board)):
                assert own.limit.endswith(f"as fast as the lanes that it was given: {lanes}")
                assert found.interval_cycles < 1.05 * own.interval_cycles


def test_other_engines_of_whole_networks_are_refused_by_name(monkeypatch):
    """Neither taken for the shared one nor planned layer by layer."""
    engines = Registry("engine")

    @engines.kind
    class Other(Engine):
        kind = "other"
        for_one = False

    monkeypatch.setattr("pvq_hw.plan.whole.ENGINES", engines)
    with pytest.raises(InputError, match="Engine has no plan of a whole network: its kind 'other"):
        plan(NETWORK, ICE, engine="other")
