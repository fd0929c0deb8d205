"""The plan: lanes that keep pace, exact counts, refusals with numbers, figures that follow."""

import json
from dataclasses import replace
from itertools import pairwise
from math import ceil

import numpy as np
import pytest
from plan_networks import S16, U8, random_network
from random_graphs import RandomNetwork
from some_boards import SOME_BOARDS

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.engine.timing import time_chain
from pvq_hw.errors import InputError
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.plan.fit import check_fit
from pvq_hw.plan.folding import FoldLayer, fold, known_layers
from pvq_hw.plan.plan import Plan, plan
from pvq_hw.plan.resources import Resources, budget, core_resources
from pvq_hw.target.block_ram import memory_blocks
from pvq_hw.target.boards import TARGETS
from pvq_hw.target.energy import Operations, energy_nj


def mlp(sizes, ratio):
    """Layers of a multilayer perceptron before quantization."""
    pairs = list(pairwise(sizes))
    return [
        FoldLayer(f"fc{i + 1}", m, n, max(1, n // ratio), U8, S16 if i == len(pairs) - 1 else U8)
        for i, (n, m) in enumerate(pairs)
    ]


SMALL, LARGE = (784, 64, 32, 10), (784, 512, 512, 10)


# -- folding --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "sizes", "ratio"),
    [
        ("icebreaker", (64, 32, 10), 2),
        ("icebreaker", SMALL, 5),
        ("hx8k", SMALL, 5),
        ("ulx3s-25f", SMALL, 2),
        ("ulx3s-25f", SMALL, 5),
        ("ulx3s-25f", LARGE, 10),
        ("ulx3s-85f", LARGE, 5),
        ("orangecrab-25f", LARGE, 10),
    ],
)
def test_networks_of_the_readme_fit(target, sizes, ratio):
    folding = fold(mlp(sizes, ratio), TARGETS[target])
    assert folding.fits
    assert max(folding.slots) <= folding.interval_cycles
    assert folding.interval_cycles >= sizes[0]


def test_every_layer_keeps_pace_with_the_fewest_lanes():
    folding = fold(mlp(LARGE, 5), TARGETS["ulx3s-85f"])
    for lanes, slots, (n, m) in zip(folding.lanes, folding.slots, pairwise(LARGE), strict=True):
        assert slots <= folding.interval_cycles
        pulses = n // 5 * m
        assert lanes <= 1.5 * ceil(pulses / folding.interval_cycles) + 1


def test_lanes_need_not_be_powers_of_two():
    lanes = {p for t in SOME_BOARDS for p in fold(mlp(SMALL, 5), TARGETS[t]).lanes}
    assert any(p & (p - 1) for p in lanes)


def test_larger_device_is_not_slower():
    boards = ("ulx3s-12f", "ulx3s-25f", "ulx3s-45f", "ulx3s-85f")
    found = [fold(mlp(LARGE, 5), TARGETS[name]) for name in boards]
    same, small, middle, large = (folding.interval_cycles for folding in found)
    assert same == small > middle >= large
    assert budget(TARGETS["ulx3s-25f"]).brams < found[2].cost.brams <= 108  # a 45F as itself


def test_banks_and_gaps_are_what_the_quantizer_takes():
    folding = fold(mlp(SMALL, 5), TARGETS["ulx3s-25f"])
    assert folding.banks == {
        n: p for n, p in zip(folding.names, folding.lanes, strict=True) if p > 1
    }
    gaps = dict(zip(folding.names, folding.gap_bits, strict=True))
    assert folding.max_gap == {name: 2 ** gaps[name] - 2 for name in folding.banks}


def test_what_fits_nowhere_is_said_to():
    assert not fold(mlp(LARGE, 5), TARGETS["hx8k"]).fits


def test_given_lanes_are_kept():
    folding = fold(mlp(SMALL, 5), TARGETS["ulx3s-85f"], lanes=(7, 3, 2))
    assert folding.lanes == (7, 3, 2)


@pytest.mark.parametrize(
    ("lanes", "message"),
    [
        ((7, 3), "Lanes must be given for 3 layers, not 2"),
        ((785, 3, 2), "Layer 'fc1': lanes must be 1 to 784, not 785"),
        ((7, 3, 0), "Layer 'fc3': lanes must be 1 to 32, not 0"),
    ],
)
def test_impossible_lanes_are_refused(lanes, message):
    with pytest.raises(InputError) as error:
        fold(mlp(SMALL, 5), TARGETS["ulx3s-85f"], lanes=lanes)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("rows", "n", "k", "message"),
    [
        (1, 8, 0, "Layer 'a': K must be at least 1, not 0"),
        (0, 8, 1, "Layer 'a' must have rows and columns, not 0 x 8"),
    ],
)
def test_impossible_layers_are_refused(rows, n, k, message):
    with pytest.raises(InputError) as error:
        FoldLayer("a", rows, n, k, U8, U8)
    assert str(error.value) == message


def test_banks_become_logic_where_that_lets_more_lanes_in():
    layers = mlp(LARGE, 5)
    target = TARGETS["ulx3s-25f"]
    free, block = fold(layers, target), fold(layers, target, bank_memory="block")
    assert free.fits
    assert free.memories[0]["bank_memory"] == "logic"
    assert free.interval_cycles < 0.3 * block.interval_cycles


def test_shifted_pulses_are_chosen_where_they_save_cycles_that_count():
    target = TARGETS["icebreaker"]
    layers = [FoldLayer("a", 40, 200, 400, U8, U8)]
    free, unit = fold(layers, target), fold(layers, target, shift_bits=0)
    assert free.memories[0]["shift_bits"] > 0
    assert free.interval_cycles < unit.interval_cycles
    # At N/K = 5 hardly any pulse lies upon another.
    few = fold([FoldLayer("a", 40, 200, 40, U8, U8)], target)
    assert "shift_bits" not in few.memories[0]


def test_multipliers_are_serial_where_dsp_blocks_are_too_few():
    board = TARGETS["icebreaker"]
    few = replace(board, device=replace(board.device, dsps=1))
    layers = [FoldLayer("a", 8, 30, 12, U8, U8), FoldLayer("b", 4, 8, 4, U8, S16)]
    folding = fold(layers, few)
    assert folding.fits
    kinds = [memories.get("multiplier") for memories in folding.memories]
    assert sorted(kinds, key=str) == [None, "serial"]
    assert all("multiplier" not in m for m in fold(layers, TARGETS["icebreaker"]).memories)
    assert not fold(layers, few, multiplier="mac16").fits
    network, _ = random_network((30, 8, 4), (12, 4))
    p = plan(network, few)
    assert sorted(part.spec.multiplier for part in p.layers) == ["mac16", "serial"]


def test_plan_takes_the_shifts_that_it_chose():
    network, _ = random_network((60, 40), (120,))
    chosen = fold(known_layers(network), TARGETS["hx8k"]).memories[0]["shift_bits"]
    spec = plan(network, "hx8k").layers[0].spec
    assert spec.code.shift_bits == chosen > 0
    assert plan(network, "hx8k", shift_bits=0).layers[0].spec.words > spec.words


def test_one_column_and_one_row():
    folding = fold([FoldLayer("a", 1, 1, 1, U8, S16)], TARGETS["hx8k"])
    assert (folding.lanes, folding.banks, folding.fits) == ((1,), {}, True)


def test_folding_after_quantization_sees_the_codes():
    network, _ = random_network((60, 40, 10), (30, 20))
    folding = fold(known_layers(network), TARGETS["hx8k"])
    exact = plan(network, "hx8k")
    assert exact.lanes == folding.lanes
    for estimate, part in zip(folding.slots, exact.layers, strict=True):
        assert abs(estimate / part.spec.words - 1) < 0.15


# -- plans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", SOME_BOARDS)
def test_plan_counts_what_its_cores_need(target):
    network, _ = random_network((50, 20, 5), (25, 10))
    p = plan(network, target)
    board = TARGETS[target]
    for part, layer in zip(p.layers, network.layers, strict=True):
        assert (part.spec.rows, part.spec.n) == layer.weights.shape
        assert part.pulses == np.abs(layer.weights).sum()
        assert (part.codes < part.pulses) == bool(part.spec.code.shift_bits)
        assert part.code_bits == part.spec.words * part.spec.code.word_bits
        assert part.utilization == part.codes / (part.spec.words * part.spec.lanes)
        assert part.resources.dsps == (0 if target == "hx8k" else part.spec.multiplier_parts)
    assert p.resources.within(budget(board))
    assert p.bits_per_weight == sum(x.code_bits for x in p.layers) / network.total_weights
    assert p.inferences_per_second == board.clock_mhz * 1e6 / p.interval_cycles
    assert p.inferences_per_second_over_link == min(
        p.inferences_per_second, board.baud / 10 / (8 + 50)
    )


def test_cycles_are_those_of_the_timing_model():
    from pvq_hw.plan.image import emit

    network, _ = random_network((50, 20, 5), (25, 10))
    p = plan(network, "ulx3s-25f", lanes=(3, 2))
    timing = time_chain(p.specs, list(emit(network, p).cores))
    assert (p.interval_cycles, p.latency_cycles) == (
        timing.interval_cycles,
        timing.latency_cycles,
    )
    assert p.interval_cycles >= max(part.spec.words for part in p.layers)


def test_block_rams_are_summed_over_all_memories():
    network, _ = random_network((300, 40, 5), (60, 10))
    spec: CoreSpec = plan(network, "ulx3s-25f", lanes=(4, 2)).layers[0].spec
    assert (spec.params_memory, spec.bank_memory, spec.fifo_memory) == ("block", "block", "logic")
    expected = (
        memory_blocks(spec.code.word_bits, spec.words, "ecp5")
        + memory_blocks(spec.mult_bits, 40, "ecp5")
        + memory_blocks(spec.bias_bits, 40, "ecp5")
        + 4 * memory_blocks(8, 128 + 75, "ecp5")
    )
    assert core_resources(spec, "ecp5").brams == expected


def test_more_lanes_take_more_and_are_faster():
    network, _ = random_network((300, 40, 5), (60, 10))
    plans = [plan(network, "ulx3s-85f", lanes=(p, 1)) for p in (1, 4, 16)]
    words = [p.layers[0].spec.words for p in plans]
    luts = [p.layers[0].resources.luts for p in plans]
    assert words == sorted(words, reverse=True)
    assert luts == sorted(luts)


def test_plan_loads_as_it_was_saved(tmp_path):
    network, _ = random_network()
    p = plan(network, "icebreaker", clock_mhz=24, baud=500_000)
    p.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert loaded == p
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "plan.json").read_bytes()
    document = json.loads((tmp_path / "plan.json").read_text())
    assert document["energy"]["label"].startswith("model, not a measurement")


def test_core_names_are_identifiers_and_differ():
    names = ("a/b\n<x>", "a b  <x>")
    network, _ = random_network(names=names)
    stems = [spec.name for spec in plan(network, "hx8k").specs]
    assert len(set(stems)) == 2
    assert all(stem.isidentifier() and stem.isascii() for stem in stems)
    network, _ = random_network(names=("3x", "../up"))
    assert all(s.name.isidentifier() for s in plan(network, "hx8k").specs)


# -- refusals -------------------------------------------------------------------------------------


def wide_network(rows, n, k, name="fc2"):
    """One layer of ``k`` pulses a row, spread evenly."""
    y = np.zeros((rows, n), dtype=np.int64)
    y[:, np.linspace(0, n - 1, k).astype(int)] = 1
    x = TensorSpec("x", (n,), U8, 1.0)
    layer = Dense(
        name=name,
        input="x",
        output=TensorSpec("o", (rows,), S16, 1.0),
        y=y,
        mult=np.ones((rows, 1), dtype=np.int64),
        bias=np.zeros(rows, dtype=np.int64),
        shift=1,
        gain=np.ones((rows, 1)),
    )
    return Network("wide", x, (layer,), (n,), (0,))


def test_too_many_codes_are_refused_with_numbers_and_remedy():
    network = wide_network(64, 784, 600)
    with pytest.raises(InputError) as error:
        plan(network, "hx8k", lanes=(8,))
    p = plan(network, "hx8k", lanes=(8,), check=False)
    kibit = ceil(p.code_bits / 1024)
    assert str(error.value) == (
        f"Layer 'fc2' needs {kibit} Kibit of codes, but hx8k has 128; "
        "lower K or choose a larger device"
    )


def test_a_plan_of_another_version_asks_for_a_compile():
    value = plan(random_network()[0], "hx8k").to_json() | {"format_version": 1, "graph": None}
    with pytest.raises(InputError, match="format version 2, not 1; run pvq-hw compile again"):
        Plan.from_json(value)


def test_layers_that_cannot_do_what_is_asked_are_named():
    source = RandomNetwork(3, (6, 6, 2))
    x = source.dense(source.conv(source.input, 3, (3, 3)), 4)
    assert plan(source.network(), "ulx3s-25f", frames=2).specs[-1].frames == 2
    source.add(x, x)
    name = source.layers[1].name
    with pytest.raises(InputError) as error:
        plan(source.network(), "ulx3s-25f", frames=2)
    assert str(error.value) == (
        f"Layer {name!r} takes one frame at a time, not 2 side by side: only dense layers of "
        "pulses at a network's end take several, and it has results that go to a layer without "
        "weights"
    )
    source.layers[1:] = []
    with pytest.raises(InputError, match=r"Layer 'conv0' takes one .* and it has kind conv$"):
        plan(source.network(), "ulx3s-25f", frames=2)
    chain, _ = random_network()
    y = np.clip(chain.layers[1].y, -128, 127)
    plain = replace(chain, layers=(chain.layers[0], replace(chain.layers[1], y=y, encoding="int8")))
    with pytest.raises(InputError, match=r"Layer 'fc2' takes one frame .* it has 8-bit weights"):
        plan(plain, "ulx3s-25f", frames=2)


def test_a_lower_k_is_no_remedy_for_what_holds_no_codes():
    """Nearly all of the block RAM is for banks of as many columns as the input has."""
    network = wide_network(4, 200_000, 4)
    with pytest.raises(InputError) as error:
        plan(network, "icebreaker", lanes=(1,))
    assert "block RAMs (0 Kibit of codes), but icebreaker has 30; mostly not for" in str(
        error.value
    )
    assert "a lower K does not help: use fewer inputs, rows or layers" in str(error.value)


def test_too_many_blocks_are_refused():
    network = wide_network(64, 784, 150)
    with pytest.raises(
        InputError,
        match=r"The network needs \d+ block RAMs \(\d+ Kibit of codes\), but hx8k has 32;",
    ):
        plan(network, "hx8k", lanes=(32,))


def test_too_many_luts_are_refused():
    with pytest.raises(InputError) as error:
        check_fit((), Resources(luts=20_645), TARGETS["ulx3s-25f"])
    assert str(error.value) == (
        "The network needs about 20,645 LUTs, but ulx3s-25f has 20,644 (85 % of 24,288); "
        "use fewer lanes or choose a larger device"
    )


def test_frames_side_by_side_are_what_to_take_fewer_of():
    network, _ = random_network((20, 12, 4), (12, 6))
    board = TARGETS["ulx3s-25f"]
    small = replace(board, device=replace(board.device, luts=900))
    with pytest.raises(InputError, match=r"use fewer frames side by side \(--frames\) or choose"):
        plan(network, small, frames=8)
    smaller = replace(board, device=replace(board.device, luts=450))
    with pytest.raises(InputError, match="; use fewer or smaller layers or choose a larger dev"):
        plan(network, smaller, lanes=(1, 1))
    with pytest.raises(InputError, match="; use fewer lanes or choose a larger device"):
        plan(network, smaller, lanes=(2, 1))


def test_too_many_multipliers_are_refused():
    with pytest.raises(InputError, match="needs 9 multiplier blocks, but icebreaker has 8"):
        check_fit((), Resources(dsps=9), TARGETS["icebreaker"])


def test_impossible_clock_is_refused():
    network, _ = random_network()
    with pytest.raises(InputError, match="Clock of hx8k must be 12 to 275 MHz, not 900"):
        plan(network, "hx8k", clock_mhz=900)


def test_speed_is_that_of_the_clock_the_pll_makes():
    network, _ = random_network()
    p = plan(network, "icebreaker", clock_mhz=36.5)
    assert p.clock_mhz == 36.5
    assert p.clock_hz == 36_000_000
    assert p.inferences_per_second == p.clock_hz / p.interval_cycles


def test_layers_without_a_core_are_refused():
    network, _ = random_network()
    wide = replace(network.layers[0], encoding="int8", y=network.layers[0].y + 128)
    with pytest.raises(InputError, match="Layer 'fc1' must have weights of -128 to 127"):
        plan(replace(network, layers=(wide, *network.layers[1:])), "hx8k")


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", '{"format": "pvq-hw plan"}', "[" * 100_000])
def test_broken_plan_files_are_refused(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(InputError) as error:
        Plan.load(tmp_path / "plan.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../x", "a b", "", "1a", "a" * 65])
def test_core_names_of_plan_files_are_checked(name):
    network, _ = random_network()
    document = plan(network, "hx8k").to_json()
    document["layers"][0]["core"]["name"] = name
    with pytest.raises(InputError, match="A core's name must be an identifier"):
        Plan.from_json(document)


def test_two_cores_of_one_name_are_refused():
    network, _ = random_network()
    document = plan(network, "hx8k").to_json()
    document["layers"][0]["core"]["name"] = "FC2"
    with pytest.raises(InputError, match="must have different names"):
        Plan.from_json(document)


# -- energy ---------------------------------------------------------------------------------------


def test_energy_counts_adds_reads_and_clocks():
    target = TARGETS["ulx3s-25f"]
    one = energy_nj(Operations(add_bits=32), target, hard_multiplier=True)
    assert one == pytest.approx(0.1e-3 * 14 * (1.1 / 0.9) ** 2)
    read = energy_nj(Operations(read_bits=64), target, hard_multiplier=True)
    assert read == pytest.approx(10e-3 * (1.1 / 0.9) ** 2)
    soft, hard = (
        energy_nj(Operations(multiply_bits2=64), target, hard_multiplier=h) for h in (False, True)
    )
    assert soft == pytest.approx(14 * hard)


def test_fewer_pulses_take_less_energy_than_int8():
    few, _ = random_network((200, 40, 10), (20, 8))
    many, _ = random_network((200, 40, 10), (80, 30))
    plans = [plan(n, "ulx3s-85f", lanes=(4, 2)) for n in (few, many)]
    assert plans[0].energy_nj < plans[1].energy_nj
    assert plans[0].energy_nj < plans[0].energy_int8_nj


@pytest.mark.parametrize(("n", "k", "lanes"), [(784, 157, 18), (784, 157, 13), (512, 102, 12)])
def test_estimated_slots_are_those_of_the_mean_k(n, k, lanes):
    layer = FoldLayer("a", 512, n, k, U8, U8)
    folding = fold([layer], TARGETS["ulx3s-85f"], lanes=(lanes,))
    assert abs(folding.slots[0] / (512 * k / lanes) - 1) < 0.02


def test_balanced_lanes_leave_pulses_to_choose():
    folding = fold(mlp(LARGE, 20), TARGETS["ulx3s-25f"])
    assert all(p <= max(1, n // 20 // 2) for p, n in zip(folding.lanes, LARGE, strict=False))
    free = fold(mlp(LARGE, 20), TARGETS["ulx3s-25f"], balanced=False, lanes=folding.lanes)
    assert free.interval_cycles > folding.interval_cycles  # lanes wait for one another
    assert free.banks == {}


def test_folding_leaves_room_for_some_words_more_than_it_estimates():
    unsigned, signed = IntFormat(8, False), IntFormat(16, True)
    layers = [
        FoldLayer("fc1", 512, 784, 166, unsigned, unsigned),
        FoldLayer("fc2", 512, 512, 81, unsigned, unsigned),
        FoldLayer("fc3", 10, 512, 721, unsigned, signed),
    ]
    found = fold(layers, TARGETS["ulx3s-25f"])
    assert found.fits
    codes = zip(found.lanes, found.gap_bits, found.slots, strict=True)
    blocks = [
        memory_blocks(lanes * (gap + 1) + 1, slots * 103 // 100, "ecp5")
        for lanes, gap, slots in codes
    ]
    assert sum(blocks) <= budget(TARGETS["ulx3s-25f"]).brams
