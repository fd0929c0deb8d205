"""The core of any layer, and its specification from a file: pulses, plain 8-bit weights, or either
unrolled or channel by channel."""

from typing import Any

from pvq_hw.engine.core import CORES, CoreBase, CoreImage
from pvq_hw.engine.depthwise_core import DepthwiseSpec, make_depthwise_core
from pvq_hw.engine.int8_core import Int8Spec, make_int8_core
from pvq_hw.engine.pulse_core import CoreSpec, make_core
from pvq_hw.engine.shared_core import SharedSpec
from pvq_hw.engine.unrolled_core import UnrolledSpec, make_unrolled_core
from pvq_hw.errors import InputError
from pvq_hw.geometry import Geometry
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.registry import Face

__all__ = ["ENGINES", "ENGINE_CHOICES", "make_layer_core", "remade"]

ENGINES = ("folded", "unrolled", "depthwise")
"""How a layer may be computed: word after word in lanes, all at once, its weights as wires, or
channel after channel, a row a word."""

ENGINE_CHOICES = ("auto", *ENGINES, "shared")
"""What may be asked for; the planner chooses where it is ``"auto"``. ``"shared"`` is said of a
whole network: one core for all of its layers."""

# What may be asked of all layers of a network, but says nothing of plain weights.
_OF_PULSES = ("shift_bits", "code", "code_latency", "code_memory")
_OF_UNROLLED = (
    *("family", "name", "multiplier", "multiplier_interval"),
    *("params_memory", "fifo_memory", "fifo_depth"),
)
_OF_DEPTHWISE = (
    *("family", "name", "multiplier", "params_memory", "fifo_memory", "fifo_depth"),
    *("queue_memory", "lines_memory", "columns_memory"),
)


def make_layer_core(
    layer: Dense,
    x: TensorSpec,
    lanes: int,
    *,
    gap_bits: int | None = None,
    engine: str = "folded",
    geometry: Geometry | None = None,
    **options: Any,
) -> tuple[CoreBase, CoreImage]:
    """`pvq_hw.engine.pulse_core.make_core` or `pvq_hw.engine.int8_core.make_int8_core`, as the
    layer's encoding says, or `pvq_hw.engine.unrolled_core.make_unrolled_core`.

    Parameters
    ----------
    layer, x, lanes
        As both take them.
    gap_bits : int, optional
        Without a meaning for plain weights.
    engine : str
        One of `ENGINES`; lanes, gap bits and memories of codes say nothing of any but folded ones.
    geometry : Geometry, optional
        Of the convolution that a depthwise core computes.
    **options
        Of both, or of cores of pulses alone, which plain weights pass over.
    """
    if engine not in ENGINES:
        raise InputError(f"Engine must be {' or '.join(ENGINES)}, not {engine!r}")
    if engine == "unrolled":
        if options.get("frames", 1) != 1:
            raise InputError(
                f"Layer {layer.name!r} is unrolled: it takes one frame at a time, not "
                f"{options['frames']} side by side"
            )
        kept = {key: value for key, value in options.items() if key in _OF_UNROLLED}
        return make_unrolled_core(layer, x, **kept)
    if engine == "depthwise":
        if geometry is None:
            raise InputError(f"Layer {layer.name!r} can't be computed channel by channel: it has "
                             "no windows")  # fmt: skip
        kept = {key: value for key, value in options.items() if key in _OF_DEPTHWISE}
        return make_depthwise_core(layer, x, geometry, **kept)
    if layer.encoding != "int8":
        return make_core(layer, x, lanes, gap_bits=gap_bits, **options)
    if options.pop("frames", 1) != 1:
        raise InputError(f"Layer {layer.name!r} must be encoded as pvq to take several frames")
    kept = {key: value for key, value in options.items() if key not in _OF_PULSES}
    if kept.get("multiplier") == "serial":
        kept.setdefault("products", "logic")
    return make_int8_core(layer, x, lanes, **kept)


remade: Face[[Dense, TensorSpec, str], tuple[CoreBase, CoreImage]] = CORES.face("making")
"""The core of a layer (with its input, for a family) with the choices that a specification made."""


@remade.of(CoreSpec)
def _remade_pulses(
    spec: CoreSpec, layer: Dense, x: TensorSpec, family: str
) -> tuple[CoreBase, CoreImage]:
    choices = (
        *("frames", "row_windows", "flush_cycles", "multiplier", "code_latency", "code_memory"),
        *(
            "bank_latency",
            "carry_chunk",
            "fifo_depth",
            "params_memory",
            "bank_memory",
            "fifo_memory",
        ),
    )
    code = spec.code
    options = _chosen(spec, choices) | {
        "gap_bits": code.gap_bits, "shift_bits": code.shift_bits, "code": code.kind,
    }  # fmt: skip
    return make_core(layer, x, spec.lanes, family=family, name=spec.name, **options)


@remade.of(Int8Spec)
def _remade_int8(
    spec: Int8Spec, layer: Dense, x: TensorSpec, family: str
) -> tuple[CoreBase, CoreImage]:
    choices = (
        *("products", "multiplier", "bank_latency", "weight_latency", "carry_chunk"),
        *("fifo_depth", "params_memory", "bank_memory", "fifo_memory"),
    )
    options = _chosen(spec, choices)
    return make_int8_core(layer, x, spec.lanes, family=family, name=spec.name, **options)


@remade.of(UnrolledSpec)
def _remade_unrolled(
    spec: UnrolledSpec, layer: Dense, x: TensorSpec, family: str
) -> tuple[CoreBase, CoreImage]:
    choices = ("multiplier", "carry_chunk", "fifo_depth", "params_memory", "fifo_memory")
    options = _chosen(spec, choices)
    return make_unrolled_core(layer, x, family=family, name=spec.name, **options)


@remade.of(DepthwiseSpec)
def _remade_depthwise(
    spec: DepthwiseSpec, layer: Dense, x: TensorSpec, family: str
) -> tuple[CoreBase, CoreImage]:
    choices = (
        *("multiplier", "carry_chunk", "fifo_depth", "params_memory", "fifo_memory"),
        *("queue_memory", "lines_memory", "columns_memory"),
    )
    options = {key: getattr(spec, key) for key in choices}
    return make_depthwise_core(layer, x, spec.geometry, family=family, name=spec.name, **options)


@remade.of(SharedSpec)
def _remade_shared(
    spec: SharedSpec, layer: Dense, x: TensorSpec, family: str
) -> tuple[CoreBase, CoreImage]:
    raise InputError(
        f"Core {spec.name!r} is of all layers and can't be made of layer {layer.name!r} alone"
    )


def _chosen(spec: CoreBase, choices: tuple[str, ...]) -> dict[str, Any]:
    """Fields of a specification as options of what makes its core."""
    serial = ("multiplier_interval",) if spec.multiplier == "serial" else ()
    return {key: getattr(spec, key) for key in (*choices, *serial)}
