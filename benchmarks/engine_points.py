"""The engines of the benchmark: layers of network A as cores, whole and as a tile of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gateware.core.int8_core import Int8Core
from gateware.core.pulse_core import LayerCore
from gateware.export.export import export_verilog
from gateware.export.verilog_text import ROM_VERILOG
from pvq_hw.data.dataset import make_data
from pvq_hw.engine.hexfile import hex_text
from pvq_hw.engine.int8_core import Int8Spec, make_int8_core, weight_segments
from pvq_hw.engine.pulse_code import PulseCode
from pvq_hw.engine.pulse_core import CoreImage, CoreSpec, make_core
from pvq_hw.engine.timing import time_chain
from pvq_hw.errors import InputError
from pvq_hw.model.load import load_model
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.plan.resources import core_memories
from pvq_hw.pyramid.enumeration import log2_volume
from pvq_hw.quantizer.quantize import LayerOptions, quantize
from pvq_hw.target.block_ram import memory_blocks
from sim.agents.wire import pack_words, unpack_words
from sim.backends.compiled import run_compiled
from sim.backends.design import Design
from sim.result import interval_of
from sim.taps import Tap

__all__ = ["LAYERS", "RATIOS", "Engine", "Sources", "largest_tile", "measure_codes", "simulate"]

IntArray = npt.NDArray[np.int64]

LAYERS = ("fc1", "fc2")
RATIOS = (5, 20, 10, 2, 1)
_WIDTHS = ("acc_bits", "mult_bits", "bias_bits", "sum_bits")
_KEPT = (*_WIDTHS, "fifo_depth", "fifo_memory", "params_memory", "multiplier_interval")
# The compiler's rules: the gap field reaches 2.75 times the mean gap; pulses are shifted where
# they are dense and that saves 3 % of the words.
_FAR_GAPS = 2.75
_DENSE_RATIO = 3
_FEWER_WORDS = 0.97


@dataclass(frozen=True)
class Sources:
    """Where the network and the images are, how it is quantized, and where to keep results."""

    model: Path
    mnist: Path
    quantizer: str
    work: Path

    def network(self, ratio: int | None, lanes: int) -> Network:
        """Network A at N/K = ``ratio``, balanced over ``lanes``; None for 8-bit weights."""
        return _network(self, ratio, lanes)

    def frames(self, count: int, network: Network) -> IntArray:
        """Test images as the network's integers."""
        images = make_data([self.mnist / "t10k-images-idx3-ubyte.gz"])
        return network.quantize_input(images.x[:count], 255.0)


@cache
def _network(sources: Sources, ratio: int | None, lanes: int) -> Network:
    kept = sources.work / f"network-{sources.quantizer}-{ratio or 'int8'}-{lanes}"
    if kept.exists():
        return Network.load(kept)
    data = make_data([sources.mnist / "train-images-idx3-ubyte.gz"])
    model = load_model(sources.model)
    options: dict[str, Any] = {"calibration": data.x, "input_scale": 255.0, "max_frames": 2000}
    if ratio is None:
        names = _dense_names(model)
        options |= {
            "quantizer": "plain",
            "layers": {n: LayerOptions(encoding="int8") for n in names},
        }
    else:
        names = _dense_names(model)[:2]
        gap = (1 << gap_bits(ratio)) - 2
        options |= {
            # Nearly as many pulses as weights: moving them takes long and changes little.
            "quantizer": sources.quantizer if ratio > 2 else "plain",
            "ratio": 2.0,
            "layers": {name: LayerOptions(ratio=ratio) for name in names},
            "banks": dict.fromkeys(names, lanes),
            "max_gap": dict.fromkeys(names, gap),
        }
    network = quantize(model, **options)
    kept.mkdir(parents=True)
    network.save(kept)
    return network


def _dense_names(model: Any) -> list[str]:
    return [node.name for node in model.nodes if type(node).__name__ == "Dense"]


def gap_bits(ratio: int) -> int:
    """Width of the gaps for balanced pulses, as the compiler chooses it."""
    return int(np.ceil(_FAR_GAPS * ratio) + 1).bit_length()


@dataclass(frozen=True)
class Engine:
    """A core of one layer: pulses at N/K = ``ratio``, or 8-bit weights where that is None."""

    layer: str
    ratio: int | None
    lanes: int
    family: str

    @property
    def name(self) -> str:
        """For people and as the key of results."""
        kind = "int8" if self.ratio is None else f"pvq N/K={self.ratio}"
        return f"{self.family} {self.layer} P={self.lanes} {kind}"

    def parts(self, sources: Sources) -> tuple[Dense, TensorSpec]:
        """The layer and its input."""
        network = sources.network(self.ratio, self.lanes)
        index = LAYERS.index(self.layer)
        layer = network.layers[index]
        assert isinstance(layer, Dense)
        return layer, network.tensors()[layer.input]

    def core(
        self, sources: Sources, rows: int | None = None
    ) -> tuple[CoreSpec | Int8Spec, CoreImage]:
        """The whole layer's core, or the same with the first ``rows`` rows alone."""
        layer, x = self.parts(sources)
        whole = self._make(layer, x, {})
        if rows is None:
            return whole
        part = replace(
            layer,
            y=layer.y[:rows],
            mult=layer.mult[:rows],
            bias=layer.bias[:rows],
            gain=layer.gain[:rows],
            output=replace(layer.output, shape=(rows,)),
        )
        kept = {key: getattr(whole[0], key) for key in _KEPT}
        if isinstance(whole[0], CoreSpec):
            kept["shift_bits"] = whole[0].code.shift_bits
        return self._make(part, x, kept)

    def _make(self, layer: Dense, x: TensorSpec, options: Mapping[str, Any]) -> Any:
        if self.ratio is None:
            return make_int8_core(
                layer, x, self.lanes, family=self.family, name=self.layer, **options
            )
        return make_core(
            layer,
            x,
            self.lanes,
            gap_bits=gap_bits(self.ratio),
            family=self.family,
            name=self.layer,
            **({"shift_bits": self._shift_bits(layer)} | dict(options)),
        )

    def _shift_bits(self, layer: Dense) -> int:
        """As the compiler chooses it."""
        assert self.ratio is not None
        best, fewest = 0, 0
        for bits in (0, 1, 2) if self.ratio < _DENSE_RATIO else ():
            words = PulseCode(self.lanes, gap_bits(self.ratio), bits).encode(layer.y).slots
            if not bits or words < _FEWER_WORDS * fewest:
                best, fewest = bits, words
        return best

    def circuit(self, sources: Sources, body: str, rows: int | None = None) -> LayerCore:
        """The core as a component."""
        spec, image = self.core(sources, rows)
        return Int8Core(spec, image, body=body) if self.ratio is None else LayerCore(
            spec, image, body=body
        )  # fmt: skip


def _brams(spec: CoreSpec | Int8Spec, blocks: str) -> int:
    if isinstance(spec, CoreSpec):
        memories = list(core_memories(spec).values())
    else:
        width, depth = spec.memories[f"{spec.name}_weights"]
        memories = [(1, width, part) for part in weight_segments(depth, blocks)]
        if spec.params_memory == "block":
            memories += [(1, *spec.memories[f"{spec.name}_{role}"]) for role in ("mult", "bias")]
        memories.append((1, spec.x.bits * spec.lanes, spec.bank_words))
        if spec.fifo_memory == "block":
            memories.append((1, spec.out.bits, spec.fifo_depth))
    return sum(copies * memory_blocks(w, d, blocks) for copies, w, d in memories)


def largest_tile(engines: Sequence[Engine], sources: Sources, blocks: str, brams: int) -> int:
    """Rows of the largest tile that all the engines have block RAM for."""
    least = max(_brams(engine.core(sources, 1)[0], blocks) for engine in engines)
    if least > brams:
        raise InputError(f"A tile of one row must have {least} block RAMs, not {brams}")
    low, high = 1, engines[0].parts(sources)[0].y.shape[0]
    while low < high:
        rows = (low + high + 1) // 2
        if all(_brams(e.core(sources, rows)[0], blocks) <= brams for e in engines):
            low = rows
        else:
            high = rows - 1
    return low


def measure_codes(engine: Engine, sources: Sources) -> dict[str, Any]:
    """Figures of the whole layer's codes."""
    spec, image = engine.core(sources)
    layer, _ = engine.parts(sources)
    weights = layer.y.size
    figures: dict[str, Any] = {"weights": weights, "words": spec.words, "lanes": engine.lanes}
    if engine.ratio is None:
        return figures | {"bits_per_weight": 8.0 * spec.words * engine.lanes / weights}
    pulses = int(np.abs(layer.y).sum())
    assert isinstance(spec, CoreSpec)
    limit = sum(log2_volume(layer.y.shape[1], int(k)) for k in layer.k)
    return figures | {
        "pulses": pulses,
        "codes": int((spec.code.fields(image.codes)[0] != spec.code.escape).sum()),
        "n_over_k": weights / pulses,
        "gap_bits": spec.code.gap_bits,
        "shift_bits": spec.code.shift_bits,
        "bits_per_weight": spec.words * spec.code.word_bits / weights,
        "bits_per_weight_limit": limit / weights,
    }


def simulate(engine: Engine, sources: Sources, folder: Path, frames: int = 12) -> dict[str, Any]:
    """Runs the whole layer as a compiled model; outputs against the golden model.

    Returns
    -------
    dict: ``interval_cycles`` as simulated, ``timing_cycles`` as the timing model has them,
    ``outputs_compared``, ``mismatches``.
    """
    network = sources.network(engine.ratio, engine.lanes)
    layer, _ = engine.parts(sources)
    spec, image = engine.core(sources)
    x = sources.frames(frames, network)
    if engine.layer != LAYERS[0]:
        x = network.trace(x)[network.layers[LAYERS.index(engine.layer) - 1].name]
    x = x.reshape(frames, -1)
    folder.mkdir(parents=True, exist_ok=True)
    circuit = engine.circuit(sources, "verilog")
    (folder / "core.v").write_text(export_verilog(circuit, "core"))
    (folder / "pvq_rom.v").write_text(ROM_VERILOG)
    memories = []
    for name, words in spec.contents(image).items():
        memories.append(folder / f"{name}.hex")
        memories[-1].write_text(hex_text(words, spec.memories[name][0]))
    design = Design(
        "core",
        (folder / "core.v", folder / "pvq_rom.v"),
        tuple(memories),
        spec.n,
        spec.x,
        (Tap(spec.name, (), spec.rows, spec.out),),
    )
    run = run_compiled(design, pack_words(x, spec.x, 1))[0]
    outputs = unpack_words(run.links[0], spec.out, 1, spec.rows)
    expected = layer.compute(x)
    return {
        "interval_cycles": interval_of(run.ends),
        "timing_cycles": time_chain([spec], [image]).interval_cycles,
        "outputs_compared": int(expected.size),
        "mismatches": int((outputs != expected).sum()),
    }
