"""`compile --decide`: a network's scores become decisions on the chip."""

import math
from dataclasses import dataclass, replace

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import InputError
from pvq_hw.naming import Names, quoted, safe_name
from pvq_hw.network.decision import (
    MOST_LARGEST,
    MOST_SHIFT,
    MOST_SMOOTHED,
    Above,
    Largest,
    Smoothed,
)
from pvq_hw.network.layer import Layer, TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.outputs import Output
from pvq_hw.reserved import RESERVED

__all__ = ["Rule", "check_decision", "decided"]

_MOST_THRESHOLDS = 1 << 16


@dataclass(frozen=True)
class Rule:
    """How a network decides.

    Parameters
    ----------
    count : int
        The largest scores that are given; 0 where scores are compared with thresholds.
    thresholds : tuple of float
        One for all scores, or one for each, in the model's own unit.
    shift : int
        Where above 0, scores are averaged over ``2**shift`` frames.
    margin : float
        Of averages, in the unit of the scores, by which another class takes over.
    """

    count: int
    thresholds: tuple[float, ...] = ()
    shift: int = 0
    margin: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """``"argmax"``, ``"top=3"``, ``"above=0.5"``, ``"above=0.5,0.8"``, ``"smoothed=8"`` or
        ``"smoothed=8,0.5"``; raises InputError for anything else."""
        kind, _, value = text.partition("=")
        if text == "argmax":
            return cls(1)
        try:
            whole = value.isascii() and value.isdigit()
            if kind == "top" and whole and 1 <= int(value) <= MOST_LARGEST:
                return cls(int(value))
            if kind == "above":
                numbers = tuple(map(float, value.split(",")))
                if all(map(math.isfinite, numbers)) and len(numbers) <= _MOST_THRESHOLDS:
                    return cls(0, numbers)
            if kind == "smoothed":
                frames, comma, margin = value.partition(",")
                found = cls(0, (), _shift(frames), float(margin) if comma else 0.0)
                if found.shift and 0 <= found.margin < math.inf:
                    return found
        except ValueError:
            pass
        raise InputError(
            f"A decision must be argmax, top=1 to top={MOST_LARGEST}, above=T with a threshold or "
            f"one for each output, or smoothed=F,M with F frames (2, 4, 8 to {1 << MOST_SHIFT}) "
            f"and a margin M, not {quoted(text)}"
        )


def _shift(frames: str) -> int:
    """The logarithm of a number of frames; 0 for what is none."""
    powers = {str(1 << shift): shift for shift in range(1, MOST_SHIFT + 1)}
    return powers.get(frames, 0)


def check_decision(text: str, size: int, outputs: int, frames: int | str) -> None:
    """Raises InputError where a model can't decide so.

    Parameters
    ----------
    text : str
        As `Rule.parse` reads it; empty for no decision.
    size : int
        Values of the model's output.
    outputs : int
        Outputs of a model that has several, else 0.
    frames : int or str
        Frames side by side that were asked for.
    """
    if not text:
        return
    rule = Rule.parse(text)
    if outputs:
        raise InputError(f"--decide must not be given for a model of {outputs} outputs")
    if frames != 1:
        raise InputError("A unit that decides takes one frame at a time: leave --frames at 1")
    if rule.count and size == 1:
        raise InputError(
            f"--decide {text} must have 2 outputs or more: of one it would always be class 0; give "
            "a threshold, such as above=0.5"
        )
    if rule.count > size:
        raise InputError(f"--decide {text} must ask for at most the model's {size} outputs")
    if rule.shift and not 2 <= size <= MOST_SMOOTHED:
        raise InputError(
            f"--decide {text} must have 2 to {MOST_SMOOTHED} outputs to average, not {size}"
        )
    if len(rule.thresholds) not in (0, 1, size):
        raise InputError(
            f"--decide must have 1 threshold or {size}, one for each output, "
            f"not {len(rule.thresholds)}"
        )


def decided(network: Network, text: str) -> Network:
    """The network with the layer that decides behind its last one; as it is without ``text``.

    Raises InputError where its integers can't be decided so.
    """
    if not text:
        return network
    rule, scores = Rule.parse(text), network.output
    if scores.format.binary:
        raise InputError("--decide must have scores of more than one bit: the last layer's are "
                         "signs")  # fmt: skip
    names = Names({*RESERVED, *(x.name for x in network.layers), *network.tensors()})
    name = safe_name("decision", names)
    tensor = safe_name("decision_output", names)
    layer: Layer
    outputs: tuple[Output, ...] = ()
    if rule.count:
        form = Largest.form(scores.format, scores.size)
        spec = TensorSpec(tensor, (2 * rule.count,), form, scores.scale)
        layer = Largest(name, scores.name, spec, rule.count)
        outputs = (Output("class", (rule.count,), 0), Output("score", (rule.count,), rule.count))
    elif rule.shift:
        spec = TensorSpec(tensor, (2,), Largest.form(scores.format, scores.size), scores.scale)
        least, most = scores.format.limits
        margin = min(round(min(rule.margin / scores.scale, 1e9)), most - least)
        layer = Smoothed(name, scores.name, spec, rule.shift, margin)
        outputs = (Output("class", (1,), 0), Output("score", (1,), 1))
    else:
        thresholds = rule.thresholds * (scores.size // len(rule.thresholds))
        spec = TensorSpec(tensor, (scores.size,), IntFormat(2, signed=False), 1.0)
        integers = tuple(_integer(t, scores, network.dropped) for t in thresholds)
        layer = Above(name, scores.name, spec, integers)
    found = replace(
        network,
        layers=(*network.layers, layer),
        outputs=outputs,
        meta=network.meta | {"decide": text},
    )
    found.verify()
    return found


def _integer(threshold: float, scores: TensorSpec, dropped: tuple[str, ...]) -> int:
    """The least integer that stands for no less than the threshold; one more than there are where
    none does. Of a model whose final Sigmoid the accelerator leaves out, the threshold is of what
    the Sigmoid gives."""
    least, most = scores.format.limits
    if "Sigmoid" in dropped:
        if threshold <= 0:
            return least
        if threshold >= 1:
            return most + 1
        threshold = math.log(threshold / (1 - threshold))
    steps = threshold / scores.scale
    if steps <= least:  # minus infinity too
        return least
    return most + 1 if steps > most else max(least, math.ceil(steps - 1e-9))
