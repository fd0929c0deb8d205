"""What an engine of several layers takes beyond a core of pulses of the same widths."""

from pvq_hw.engine.map_core import MapSpec
from pvq_hw.engine.shared_core import SharedSpec
from pvq_hw.registry import Facts
from pvq_hw.target.families import FAMILIES

__all__ = ["MAP_LUTS", "SHARED_LUTS", "map_luts", "map_memories", "shared_memories"]

SHARED_LUTS: Facts[dict[str, float]] = FAMILIES.facts(
    "cost of shared engines",
    {
        "ecp5": {"core": 60.0, "layers": 3.0, "finishes": 3.0, "ffs": 40.0},
        "up5k": {"core": 165.0, "layers": 0.0, "finishes": 3.0, "ffs": 40.0},
        "hx8k": {"core": 165.0, "layers": 0.0, "finishes": 3.0, "ffs": 40.0},
    },
)


MAP_LUTS = {"ecp5": 360, "up5k": 300, "hx8k": 450}
"""What fetching windows and writing maps takes."""


_BESIDE = {"ecp5": 0.9, "up5k": 1.0, "hx8k": 1.0}


def map_luts(spec: MapSpec, family: str, leaf_bits: float, tree_bits: float) -> tuple[int, int]:
    """LUTs and flip-flops of what an engine with maps has for a second position, for sums, for
    maxima and for a ring of maps.

    ``leaf_bits`` and ``tree_bits`` are those of the lanes of one position.
    """
    beside = leaf_bits + tree_bits + 4 * spec.acc_bits + 10 * spec.map_address_bits + 60
    luts = (
        _BESIDE[family] * (spec.side - 1) * beside + spec.joined * (spec.side + 1) * spec.sum_bits
    )
    ffs = 0.8 * (spec.side - 1) * beside + spec.joined * spec.side * spec.sum_bits
    luts += 6 * spec.bank_bits * (spec.pooled > 0)
    ffs += 3 * spec.bank_bits * (spec.pooled > 0)
    if spec.map_memory == "ring":  # two addresses that wrap
        luts += 4 * spec.map_address_bits
        ffs += 3 * spec.map_address_bits + 2 * spec.map_bits
    if spec.params_buffer:  # what comes, which of two kinds, and from when on
        luts += 80 + 3 * len(spec.layers)
        ffs += 60 + spec.mult_bits + spec.bias_bits
    luts += spec.chosen * spec.side * (spec.acc_bits + spec.bank_bits + 2)
    ffs += spec.chosen * spec.side * spec.acc_bits
    return round(luts), round(ffs)


def shared_memories(spec: SharedSpec) -> dict[str, tuple[int, int, int]]:
    """Memories in block RAM by role: (copies, width in bits, depth in words)."""
    roms = spec.memories
    memories = {"banks": (spec.lanes, spec.bank_bits, spec.bank_words)}
    if spec.code_memory == "block":
        memories["codes"] = (1, *roms[spec.memory_name("weights")])
    if spec.code_memory == "flash":
        memories["codes"] = (1, spec.word_bits, spec.code_buffer)
    if spec.params_memory == "block":
        for role in ("mult", "bias"):
            memories[role] = (1, *roms[spec.memory_name(role)])
    if spec.program_memory == "block":
        memories["program"] = (1, *roms[spec.memory_name("program")])
    if spec.fifo_memory == "block":
        memories["fifo"] = (1, spec.out.bits, spec.fifo_depth)
    return memories


def map_memories(spec: MapSpec) -> dict[str, tuple[int, int, int]]:
    """The same of an engine with maps, whose banks are there for each of V positions."""
    banks = (spec.side * spec.lanes, spec.bank_bits, spec.bank_words)
    maps = {}
    if spec.map_memory != "spram":
        maps = {f"map{k}": (1, spec.map_bits, n) for k, n in enumerate(spec.map_depths) if n}
    if spec.pooled:
        maps["left"] = (1, spec.bank_bits, spec.pooled)
    if spec.tables:
        maps["tables"] = (1, *spec.memories[spec.memory_name("tables")])
    if spec.params_buffer:
        maps["mult"] = (1, spec.mult_bits, spec.params_buffer)
        maps["bias"] = (1, spec.bias_bits, spec.params_buffer)
    return shared_memories(spec) | {"banks": banks, **maps}
