"""The core of any layer, and its specification from a file: pulses, plain 8-bit weights, or either
unrolled or channel by channel."""

from typing import Any

from pvq_hw.engine.core import CORES, CoreBase, CoreImage
from pvq_hw.engine.depthwise_core import DepthwiseSpec, make_depthwise_core
from pvq_hw.engine.engines import (
    ENGINES,
    Depthwise,
    Folded,
    Shared,
    Unrolled,
    check_engine,
    engine_named,
)
from pvq_hw.engine.int8_core import Int8Spec, make_int8_core
from pvq_hw.engine.pulse_core import CoreSpec, make_core
from pvq_hw.engine.shared_core import SharedSpec
from pvq_hw.engine.unrolled_core import UnrolledSpec, make_unrolled_core
from pvq_hw.errors import InputError
from pvq_hw.geometry import Geometry
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.registry import Face
from pvq_hw.target.multipliers import multiplier_named

__all__ = ["Made", "engine_core", "make_layer_core", "remade"]

Made = tuple[CoreBase, CoreImage]

# What may be asked of all layers of a network, but says nothing of plain weights.
_OF_PULSES = ("shift_bits", "code", "code_latency", "code_memory", "out_width")
_OF_UNROLLED = (
    *("family", "name", "multiplier", "multiplier_interval"),
    *("params_memory", "fifo_memory", "fifo_depth", "out_width", "pipelined", "digit"),
    "by_pixel",
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
) -> Made:
    """Specification and contents of the core in which an engine computes a layer.

    Parameters
    ----------
    layer, x, lanes
        As `pvq_hw.engine.pulse_core.make_core` takes them.
    gap_bits : int, optional
        Without a meaning for plain weights.
    engine : str
        One of `pvq_hw.engine.engines.ENGINES`; lanes, gap bits and memories of codes say nothing
        of those without lanes.
    geometry : Geometry, optional
        Of the convolution, for engines that take whole maps.
    **options
        Of the function that makes the engine's cores; what only other kinds have is passed over.
    """
    check_engine(engine)
    style = engine_named(engine)
    if not style.laned and options.get("frames", 1) != 1:
        raise InputError(
            f"Layer {layer.name!r} is {style.kind}: it takes one frame at a time, not "
            f"{options['frames']} side by side"
        )
    return engine_core(style, layer, x, lanes, gap_bits, geometry, options)


engine_core: Face[[Dense, TensorSpec, int, int | None, Geometry | None, dict[str, Any]], Made] = (
    ENGINES.face("core")
)
"""The core of a layer, with its input, lanes, gap bits, windows and options."""


@engine_core.of(Unrolled)
def _unrolled(
    engine: Unrolled, layer: Dense, x: TensorSpec, lanes: int, gap_bits: int | None,
    geometry: Geometry | None, options: dict[str, Any],
) -> Made:  # fmt: skip
    return make_unrolled_core(layer, x, **_kept(options, _OF_UNROLLED))


@engine_core.of(Depthwise)
def _depthwise(
    engine: Depthwise, layer: Dense, x: TensorSpec, lanes: int, gap_bits: int | None,
    geometry: Geometry | None, options: dict[str, Any],
) -> Made:  # fmt: skip
    if geometry is None:
        raise InputError(
            f"Layer {layer.name!r} can't be computed channel by channel: it has no windows"
        )
    return make_depthwise_core(layer, x, geometry, **_kept(options, _OF_DEPTHWISE))


@engine_core.of(Shared)
def _shared(
    engine: Shared, layer: Dense, x: TensorSpec, lanes: int, gap_bits: int | None,
    geometry: Geometry | None, options: dict[str, Any],
) -> Made:  # fmt: skip
    raise InputError(f"Layer {layer.name!r} can't have a shared engine to itself")


@engine_core.of(Folded)
def _folded(
    engine: Folded, layer: Dense, x: TensorSpec, lanes: int, gap_bits: int | None,
    geometry: Geometry | None, options: dict[str, Any],
) -> Made:  # fmt: skip
    """A core of pulses or of plain weights, as the layer's encoding says."""
    if layer.encoding != "int8":
        return make_core(layer, x, lanes, gap_bits=gap_bits, **options)
    if options.get("frames", 1) != 1:
        raise InputError(f"Layer {layer.name!r} must be encoded as pvq to take several frames")
    kept = {key: value for key, value in options.items() if key not in (*_OF_PULSES, "frames")}
    if "multiplier" in kept and multiplier_named(kept["multiplier"]).paced:
        kept.setdefault("products", "logic")
    return make_int8_core(layer, x, lanes, **kept)


def _kept(options: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key in known}


remade: Face[[Dense, TensorSpec, str], Made] = CORES.face("making")
"""The core of a layer (with its input, for a family) with the choices that a specification made."""


@remade.of(CoreSpec)
def _remade_pulses(spec: CoreSpec, layer: Dense, x: TensorSpec, family: str) -> Made:
    choices = (
        *("frames", "row_windows", "flush_cycles", "multiplier", "code_latency", "code_memory"),
        *(
            "out_width",
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
def _remade_int8(spec: Int8Spec, layer: Dense, x: TensorSpec, family: str) -> Made:
    choices = (
        *("products", "multiplier", "bank_latency", "weight_latency", "carry_chunk"),
        *("fifo_depth", "params_memory", "bank_memory", "fifo_memory"),
    )
    options = _chosen(spec, choices)
    return make_int8_core(layer, x, spec.lanes, family=family, name=spec.name, **options)


@remade.of(UnrolledSpec)
def _remade_unrolled(spec: UnrolledSpec, layer: Dense, x: TensorSpec, family: str) -> Made:
    choices = (
        *("multiplier", "carry_chunk", "fifo_depth", "params_memory", "fifo_memory"),
        *("in_width", "out_width", "pipelined", "digit", "by_pixel"),
    )
    options = _chosen(spec, choices)
    return make_unrolled_core(layer, x, family=family, name=spec.name, **options)


@remade.of(DepthwiseSpec)
def _remade_depthwise(spec: DepthwiseSpec, layer: Dense, x: TensorSpec, family: str) -> Made:
    choices = (
        *("multiplier", "carry_chunk", "fifo_depth", "params_memory", "fifo_memory"),
        *("queue_memory", "lines_memory", "columns_memory"),
    )
    options = {key: getattr(spec, key) for key in choices}
    return make_depthwise_core(layer, x, spec.geometry, family=family, name=spec.name, **options)


@remade.of(SharedSpec)
def _remade_shared(spec: SharedSpec, layer: Dense, x: TensorSpec, family: str) -> Made:
    raise InputError(
        f"Core {spec.name!r} is of all layers and can't be made of layer {layer.name!r} alone"
    )


def _chosen(spec: CoreBase, choices: tuple[str, ...]) -> dict[str, Any]:
    """Fields of a specification as options of what makes its core."""
    serial = ("multiplier_interval",) if spec.multiplies.paced else ()
    found = {key: getattr(spec, key) for key in (*choices, *serial)}
    return found | {"placed": spec} if spec.updatable else found
