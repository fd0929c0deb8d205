"""What bitstreams are made of: vendor bodies and synthesized netlists equal the models."""

import re
from functools import cache

import numpy as np
import pytest
from random_layers import Case, make_chain
from vendor_bench import VectorBench, controlled_ram, multiplier, ram, ram_block, rom

import pvq_hw
import sim.backends.netlist
from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import CheckError, InputError
from pvq_hw.target.architectures import architecture
from pvq_hw.target.block_ram import memory_layout
from pvq_hw.tools import find as tools
from sim.backends.netlist import Netlist, make_netlist, primitives, run_frames, run_vectors

pytestmark = pytest.mark.skipif(
    not (tools.have_tool("yosys") and tools.have_tool("iverilog")), reason="needs yosys and Icarus"
)

# (width, depth, latency): every shape of block RAM, and memories cut in width and in depth.
ROMS = {
    "ecp5": [
        *[(36, 512, 1), (36, 512, 2), (40, 300, 3), (18, 1024, 2), (9, 2048, 2), (4, 4096, 1)],
        *[(2, 8192, 2), (1, 16384, 3), (21, 1100, 1), (21, 2100, 3), (81, 1030, 2), (5, 3, 2)],
        *[(9, 9000, 5), (30, 1100, 6), (9, 5000, 4), (9, 7000, 3)],
    ],
    "ice40": [
        *[(16, 256, 1), (8, 512, 2), (4, 1024, 1), (2, 2048, 2), (21, 700, 1), (21, 700, 2)],
        *[(3, 5000, 3), (33, 100, 2)],
    ],
}
RAMS = {
    "ecp5": [
        *[(36, 512, 2), (8, 128, 2), (40, 600, 2), (9, 2048, 1), (21, 1100, 2), (1, 9000, 2)],
        *[(16, 8900, 4), (18, 3000, 3)],
    ],
    "ice40": [
        *[(16, 256, 1), (8, 512, 2), (9, 300, 1), (33, 20, 1), (19, 600, 2), (2, 2048, 1)],
        *[(16, 1100, 3), (16, 700, 2)],
    ],
}
# Distributed RAM: one, two and more of 16 words, also with the last one not full.
LUT_RAMS = [(8, 16, 1), (8, 32, 1), (64, 29, 1), (8, 64, 2), (5, 97, 2), (3, 20, 0), (1, 2, 1)]
MULTIPLIERS = {
    "ecp5": (18, [(18, 18), (12, 5), (19, 17), (35, 18), (44, 13)]),
    "ice40": (16, [(16, 16), (12, 5), (17, 15), (31, 16), (40, 9)]),
}
U8, S8, S16 = IntFormat(8, False), IntFormat(8, True), IntFormat(16, True)


def parts_of(family, synthesized):
    parts = [rom(*shape, family) for shape in ROMS[family]]
    parts += [ram(*shape, family) for shape in RAMS[family]]
    size, pairs = MULTIPLIERS[family]
    parts += [multiplier(*pair, size, family) for pair in pairs]
    if family == "ecp5":
        parts += [ram(*shape, family, "logic") for shape in LUT_RAMS]
        shapes = [(36, 36), (36, 29), (18, 18), (9, 9), (9, 7), (4, 4), (2, 2), (1, 1)]
        parts += [ram_block(*shape, registered) for shape in shapes for registered in (0, 1)]
        if synthesized:
            # What Yosys maps to block RAM by itself says how it reads the vendor's documents.
            parts += [rom(w, d, 1, "behavioral") for w, d in ((36, 512), (18, 1024), (9, 2048))]
            parts += [rom(w, d, 1, "behavioral") for w, d in ((4, 4096), (1, 16384))]
            parts += [ram(36, 512, 1, "behavioral"), ram(18, 1024, 1, "behavioral")]
    return parts


def wrong(bench, netlist, verilog=None):
    netlist = Netlist(netlist.top, verilog or netlist.verilog, netlist.family)
    responses = run_vectors(
        netlist, bench.stimulus_words(), bench.stimulus_bits, bench.response_bits
    )
    return bench.wrong(responses)


@pytest.mark.parametrize("family", ["ecp5", "ice40"])
def test_the_table_has_every_block_shape(family):
    for table in (ROMS, RAMS):
        used = {p.shape for w, d, _ in table[family] for p in memory_layout(w, d, family)}
        assert len(used) >= (len(architecture(family).block_shapes) if table is ROMS else 3)


@pytest.mark.parametrize(
    ("family", "synthesized"),
    [
        ("ecp5", False),
        ("ice40", False),
        pytest.param("ecp5", True, marks=pytest.mark.slow),
        pytest.param("ice40", True, marks=pytest.mark.slow),
    ],
)
def test_memories_and_multipliers_equal_their_models(family, synthesized):
    bench = VectorBench(parts_of(family, synthesized))
    netlist = make_netlist(bench, family, synthesize=synthesized)
    assert wrong(bench, netlist) == []
    dsps = sum(part.circuit.parts for part in bench.parts if hasattr(part.circuit, "parts"))
    assert netlist.cells["MULT18X18D" if family == "ecp5" else "SB_MAC16"] == dsps
    if family == "ice40" and synthesized:
        layouts = [memory_layout(w, d, family) for w, d, _ in ROMS[family] + RAMS[family]]
        assert netlist.cells["SB_RAM40_4K"] == sum(map(len, layouts))


@pytest.fixture(scope="module")
def small():
    """A bench with one circuit of each kind, as instances of the ECP5's primitives."""
    parts = [rom(21, 1100, 3, "ecp5"), ram(36, 512, 2, "ecp5"), multiplier(35, 18, 18, "ecp5")]
    bench = VectorBench(parts)
    return bench, make_netlist(bench, "ecp5", synthesize=False)


def _flip(found):
    return f"{found[1]}{int(found[2], 16) ^ 1:080x}"


@pytest.mark.parametrize(
    ("pattern", "replacement", "hit"),
    [
        (r"(\.INITVAL_00\(320'h)([0-9a-f]+)", _flip, "Rom"),
        (r'(REGMODE_B\(")OUTREG', r"\1NOREG", None),
        (r'(REGMODE_.\(")OUTREG', r"\1NOREG", "Rom"),
        (r"\.DOA0\(", ".DOB00(", "Rom"),
        (r"\.WEA\(1'h1\)", ".WEA(1'h0)", "Ram"),
        (r"(DATA_WIDTH_B\(32.d)36", r"\g<1>9", "Ram"),
        (r'(REG_PIPELINE_CLK\(")CLK0', r"\1NONE", "DspMultiplier"),
        (r'(REG_INPUTB_CLK\(")CLK0', r"\1NONE", "DspMultiplier"),
        (r"\.SIGNEDA\(1'h1\)", ".SIGNEDA(1'h0)", "DspMultiplier"),
        (r"\.SIGNEDB\(1'h0\)", ".SIGNEDB(1'h1)", "DspMultiplier"),
    ],
)
def test_a_wrong_instance_is_found(small, pattern, replacement, hit):
    bench, netlist = small
    edited, count = re.subn(pattern, replacement, netlist.verilog)
    assert count
    if ".DOB00" in edited:
        edited = re.sub(r"\.DOB0\(", ".DOA0(", edited).replace(".DOB00(", ".DOB0(")
    if hit is None:
        with pytest.raises(CheckError, match="DP16KD: a mode that is not modeled"):
            wrong(bench, netlist, edited)
    else:
        assert any(line.startswith(hit) for line in wrong(bench, netlist, edited))


def test_a_read_of_what_is_being_written_is_unknown():
    part = ram(36, 512, 1, "ecp5")
    inputs = {"w_en": 1, "w_addr": 7, "w_data": 5, "r_addr": 7}
    part.inputs[100] = inputs
    part.inputs[101] = {**inputs, "w_en": 0}
    bench = VectorBench([part])
    netlist = make_netlist(bench, "ecp5", synthesize=False)
    words = run_vectors(netlist, bench.stimulus_words(), bench.stimulus_bits, bench.response_bits)
    assert words[101] == "x" * 36
    assert int(words[102], 2) == 5


def test_block_ram_with_all_its_controls_equals_its_model():
    parts = [controlled_ram(mode) for mode in ("NORMAL", "WRITETHROUGH", "READBEFOREWRITE")]
    bench = VectorBench(parts)
    assert wrong(bench, make_netlist(bench, "ecp5", synthesize=False)) == []


CORES = {
    "ecp5": ("ecp5", "ecp5", {"params_memory": "block"}),
    "up5k": ("ice40", "up5k", {}),
    "hx8k": ("ice40", "hx8k", {}),
}


def frames_of(chain):
    return chain.x, chain.network.trace(chain.x)[chain.network.layers[-1].name]


@cache
def core_of(device):
    """The smallest core that has everything, with frames that reach the accumulator's ends."""
    _, family, options = CORES[device]
    case = Case(4, 7, 2, S8, strong=True, options={"family": family, **options})
    return make_chain(3, 9, U8, case, frames=2)


@pytest.mark.parametrize(
    ("device", "synthesized"),
    [("ecp5", False), ("up5k", False), ("ecp5", True), ("up5k", True), ("hx8k", True)],
)
def test_a_core_equals_the_golden_model(device, synthesized):
    chain, blocks = core_of(device), CORES[device][0]
    run = run_frames(
        chain.graph, chain.images, *frames_of(chain), blocks, synthesize=synthesized, seed=7
    )
    assert run.compared == 3 * 4 * len(chain.x)
    if synthesized:
        assert run.cells["DP16KD" if blocks == "ecp5" else "SB_RAM40_4K"] >= 3
    assert run.cells.get("MULT18X18D", 0) + run.cells.get("SB_MAC16", 0) == (device != "hx8k")


def test_a_flipped_bit_of_a_core_is_found():
    def flip(verilog):
        edited, count = re.subn(r"(\.INITVAL_00\(320'h)([0-9a-f]+)", _flip, verilog)
        assert count
        return edited

    chain = core_of("ecp5")
    with pytest.raises(CheckError, match=r"golden model's results: .*FAIL"):
        run_frames(
            chain.graph, chain.images, *frames_of(chain), "ecp5", synthesize=False, edit=flip
        )


CHAINS = {
    "two layers": ({}, (Case(10, 16, 4), Case(5, 6, 2, S16))),
    "two frames": ({"frames": 2}, (Case(7, 9, 4), Case(4, 5, 2, S16))),
    "groups, shifts": ({"shift_bits": 1}, (Case(8, 40, 4, groups=3), Case(6, 9, 2, S16))),
    "blocks": ({"params_memory": "block"}, (Case(40, 24, 6), Case(6, 9, 4, S16, strong=True))),
}


@pytest.mark.slow
@pytest.mark.parametrize("device", list(CORES))
@pytest.mark.parametrize("name", list(CHAINS))
def test_a_chain_equals_the_golden_model(name, device):
    options, cases = CHAINS[name]
    blocks, family, _ = CORES[device]
    options = {"family": family, **options}
    made = [Case(**{**vars(case), "options": options}) for case in cases]
    chain = make_chain(11, 24, U8, *made)
    run = run_frames(chain.graph, chain.images, *frames_of(chain), blocks, seed=3)
    assert run.compared == 3 * cases[-1].rows * len(chain.x)


HYBRID = (
    Case(8, 0, 4, shift=12, encoding="int8"),
    Case(7, 6, 3, IntFormat(1, True), shift=1, threshold=True),
    Case(5, 0, 2, S16, shift=12, encoding="int8"),
)


def hybrid(family):
    made = [Case(**{**vars(case), "options": {"family": family}}) for case in HYBRID]
    return make_chain(11, 24, U8, *made)


def test_multipliers_of_8_bit_lanes_equal_the_golden_model(monkeypatch):
    """What is unknown (x) in the models is some value here, as in a device: a sum that is never
    cleared is right whatever it starts from, but stays unknown if it starts unknown."""
    text = primitives("ecp5")
    for old, new in (
        ("latched = 36'bx, register = 36'bx", "latched = 36'h2a5a5a5a5, register = 36'h15a5a5a5a"),
        ("latched <= 36'bx", "latched <= 36'h35a5a5a5a"),
        ("held = {WIDTH{1'bx}}", "held = {WIDTH{1'b1}}"),
    ):
        assert old in text
        text = text.replace(old, new)
    monkeypatch.setattr(sim.backends.netlist, "primitives", lambda family: text)
    chain = hybrid("ecp5")
    run = run_frames(chain.graph, chain.images, *frames_of(chain), "ecp5", synthesize=False)
    assert run.compared == 3 * 5 * len(chain.x)


@pytest.mark.slow
def test_8_bit_weights_and_signs_in_logic_cells_equal_the_golden_model():
    chain = hybrid("hx8k")
    run = run_frames(chain.graph, chain.images, *frames_of(chain), "ice40")
    assert run.compared == 3 * 5 * len(chain.x)


@pytest.mark.slow
def test_the_digits_equal_the_golden_model(digits):
    accelerator = pvq_hw.load(digits.out)
    with np.load(digits.test) as data:
        x = accelerator.quantize_input(data["x"][:5])
    expected = accelerator.network.predict(x).reshape(5, -1)
    image = accelerator.image
    run = run_frames(accelerator.plan.graph, image.cores, x.reshape(5, -1), expected, "ice40")
    assert run.compared == 3 * 5 * 10
    assert run.cells["SB_MAC16"] >= 2


def test_unknown_families_are_refused():
    with pytest.raises(InputError, match="xilinx"):
        primitives("xilinx")
    with pytest.raises(InputError, match="xilinx"):
        make_netlist(None, "xilinx")
