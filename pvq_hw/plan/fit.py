"""Refuses plans that do not fit, in numbers and with a remedy."""

from collections.abc import Sequence

from pvq_hw.errors import InputError
from pvq_hw.plan.layer import LayerPlan
from pvq_hw.plan.resources import Resources, budget
from pvq_hw.target.boards import Target

__all__ = ["check_fit", "sold_note"]


def check_fit(layers: Sequence[LayerPlan], total: Resources, target: Target) -> None:
    """Raises InputError unless the design fits the target.

    Parameters
    ----------
    layers : sequence of LayerPlan
    total : Resources
        Of the whole design, the board's top included where there is one.
    target : Target
    """
    for layer in layers:
        if layer.resources.sprams or layer.spec.code_memory == "flash":
            continue
        if layer.code_bits > target.device.bram_bits:
            raise InputError(
                f"{_title(layer)} needs {_kibit(layer.code_bits)} Kibit of codes, but "
                f"{target.name} has {_kibit(target.device.bram_bits)}; lower K or choose a larger "
                "device"
            )
    limit = budget(target)
    if total.sprams and not limit.sprams:
        raise InputError(
            f"Codes must be in block RAM, since {target.name} has no SPRAM; --code-memory block"
        )
    if total.sprams > limit.sprams:
        codes = sum(layer.code_bits for layer in layers if layer.resources.sprams)
        raise InputError(
            f"The network needs {total.sprams} SPRAMs for {_kibit(codes)} Kibit of codes, but "
            f"{target.name} has {limit.sprams}; lower K, use other lanes or choose a larger device"
        )
    if total.brams > limit.brams:
        stored = [x for x in layers if x.spec.code_memory != "flash" and not x.resources.sprams]
        codes = sum(layer.code_bits for layer in stored)
        raise InputError(
            f"The network needs {total.brams:,} block RAMs ({_kibit(codes)} Kibit of codes), but "
            f"{target.name} has {limit.brams:,}; {_smaller(codes, target)}"
        )
    if total.dsps > limit.dsps:
        raise InputError(
            f"The network needs {total.dsps:,} multiplier blocks, but {target.name} has "
            f"{limit.dsps:,}; use --multiplier logic or fewer layers, or choose a larger device"
        )
    if total.luts > limit.luts:
        raise InputError(
            f"The network needs about {total.luts:,} {target.logic_cell}s, but {target.name} has "
            f"{limit.luts:,} (85 % of {target.device.luts:,}); {_fewer_luts(layers)}"
        )
    if total.ffs > limit.ffs:
        raise InputError(
            f"The network needs about {total.ffs:,} flip-flops, but {target.name} has "
            f"{limit.ffs:,}; {_fewer_luts(layers, 'ffs')}"
        )


def sold_note(total: Resources, target: Target) -> str:
    """A line where a design takes more of the die than the device is sold with, else ``""``."""
    device = target.device
    if not device.sold_luts or total.luts <= device.sold_luts:
        return ""
    return (
        f"{device.name} is sold with {device.sold_luts:,} {device.logic_cell}s; the plan takes "
        f"about {total.luts:,} of the {device.luts:,} that the open tools find on its die"
    )


def _smaller(codes: int, target: Target) -> str:
    """What makes block RAM enough: K says nothing of parameters, buffers and a word per core."""
    if 2 * codes < target.device.bram_bits:
        return (
            "mostly not for codes, so a lower K does not help: use fewer inputs, rows or layers, "
            "other lanes or choose a larger device"
        )
    return "lower K, use other lanes or choose a larger device"


def _fewer_luts(layers: Sequence[LayerPlan], part: str = "luts") -> str:
    """What makes LUTs or flip-flops enough."""
    unrolled = [layer for layer in layers if layer.unrolled]
    if not unrolled:
        abreast = any(layer.spec.frames > 1 and not layer.spec.row_windows for layer in layers)
        single = bool(layers) and all(layer.spec.lanes == 1 for layer in layers)
        what = "fewer or smaller layers" if single else "fewer lanes"
        if abreast:
            what = "fewer frames side by side (--frames)"
        return f"use {what} or choose a larger device"
    largest = max(unrolled, key=lambda layer: getattr(layer.resources, part))
    count = getattr(largest.resources, part)
    return (
        f"layer {largest.layer!r} takes about {count:,} of them unrolled: fold it "
        f"(--engine {largest.layer}=folded), give it fewer pulses or choose a larger device"
    )


def _title(layer: LayerPlan) -> str:
    return "The shared engine" if layer.spec.shared_by else f"Layer {layer.layer!r}"


def _kibit(bits: int) -> str:
    return f"{-(-bits // 1024):,}"
