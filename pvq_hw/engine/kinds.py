"""The core of any layer, and its specification from a file: pulses, plain 8-bit weights, or either
unrolled."""

from typing import Any

from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.int8_core import Int8Spec, make_int8_core
from pvq_hw.engine.pulse_core import CoreSpec, make_core
from pvq_hw.engine.unrolled_core import UnrolledSpec, make_unrolled_core
from pvq_hw.errors import InputError
from pvq_hw.network.layer import Dense, TensorSpec

__all__ = ["ENGINES", "core_from_json", "make_layer_core", "remake_int8"]

ENGINES = ("folded", "unrolled")
"""How a layer may be computed: word after word in lanes, or all at once, its weights as wires."""

_KINDS: dict[str, type[CoreBase]] = {kind.kind: kind for kind in (CoreSpec, Int8Spec, UnrolledSpec)}
# What may be asked of all layers of a network, but says nothing of plain weights.
_OF_PULSES = ("shift_bits", "code_latency", "code_memory")
_OF_UNROLLED = ("family", "name", "multiplier", "params_memory", "fifo_memory", "fifo_depth")


def core_from_json(value: Any) -> CoreBase:
    """What a core's ``to_json`` gave; raises InputError on anything else."""
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InputError(f"Core must be of kind {' or '.join(_KINDS)}, not {kind!r:.40}")
    return _KINDS[kind].from_json(value)


def make_layer_core(
    layer: Dense,
    x: TensorSpec,
    lanes: int,
    *,
    gap_bits: int | None = None,
    engine: str = "folded",
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
        One of `ENGINES`; lanes, gap bits and memories of codes say nothing of unrolled layers.
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
    if layer.encoding != "int8":
        return make_core(layer, x, lanes, gap_bits=gap_bits, **options)
    if options.pop("frames", 1) != 1:
        raise InputError(f"Layer {layer.name!r} must be encoded as pvq to take several frames")
    kept = {key: value for key, value in options.items() if key not in _OF_PULSES}
    if kept.get("multiplier") == "serial":
        kept.setdefault("products", "logic")
    return make_int8_core(layer, x, lanes, **kept)


def remake_int8(
    layer: Dense, x: TensorSpec, spec: Int8Spec, engine: str
) -> tuple[Int8Spec, CoreImage]:
    """The core of a layer with the choices that a specification has made."""
    choices = (
        *("products", "multiplier", "bank_latency", "weight_latency", "carry_chunk"),
        *("fifo_depth", "params_memory", "bank_memory", "fifo_memory"),
    )
    options = {key: getattr(spec, key) for key in choices}
    if spec.multiplier == "serial":
        options["multiplier_interval"] = spec.multiplier_interval
    return make_int8_core(layer, x, spec.lanes, family=engine, name=spec.name, **options)
