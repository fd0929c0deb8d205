"""Which part of a network each core computes: a layer, or on an engine several and what is between
them."""

import math
from collections.abc import Sequence
from dataclasses import replace

from pvq_hw.engine.core import CoreBase
from pvq_hw.errors import InputError
from pvq_hw.network.layer import Layer
from pvq_hw.network.network import Network
from pvq_hw.plan.core_layers import CoreLayer, core_layers

__all__ = ["CorePart", "core_parts", "engine_part", "grouped"]

CorePart = CoreLayer | Network
"""A layer with its windows, or several layers as a network of their own."""


def grouped(names: Sequence[str], shared: Sequence[bool]) -> list[tuple[str, ...]]:
    """Layers with weights, in order, by the engines that they share: those that are shared and
    follow one another are on one."""
    found: list[list[str]] = []
    before = False
    for name, own in zip(names, shared, strict=True):
        if own and before:
            found[-1].append(name)
        elif own:
            found.append([name])
        before = own
    return [tuple(group) for group in found]


def engine_part(network: Network, names: Sequence[str]) -> Network:
    """The layers that one engine computes, as a network of their own.

    Parameters
    ----------
    network : Network
    names : sequence of str
        Layers with weights that follow one another. Of all that there are, it is the network
        without a layer that decides; else the part begins with the first of them, ends with the
        last, and has all that is between them.

    Raises
    ------
    InputError
        The layers have several inputs or outputs, or aren't the network's.
    """
    weighted = [layer.name for layer in network.weighted]
    if list(names) == weighted:
        return network.undecided
    all_of = [layer.name for layer in network.layers]
    if not names or not set(names) <= set(weighted):
        raise InputError(f"An engine must have layers of the network, not {', '.join(names)}")
    first, last = all_of.index(names[0]), all_of.index(names[-1])
    layers = network.layers[first : last + 1]
    if [x.name for x in layers if x.name in weighted] != list(names):
        raise InputError(
            f"Layers {names[0]!r} to {names[-1]!r} can't share an engine: others are between them"
        )
    _check_ends(network, layers)
    x = network.tensors()[layers[0].inputs[0]]
    return replace(
        network, input=x, layers=layers, input_shape=x.shape,
        input_axes=tuple(range(len(x.shape))), meta={}, outputs=(), inputs=(),
    )  # fmt: skip


def _check_ends(network: Network, layers: Sequence[Layer]) -> None:
    """Raises InputError unless layers read one tensor of others, of theirs the last alone is read
    by others, and it isn't a map."""
    first, last = layers[0], layers[-1]
    if math.prod(last.output.shape[:-1]) > 1:
        raise InputError(
            f"Layer {last.name!r} can't be the last on a shared engine: it gives a map"
        )
    given = {layer.output.name for layer in layers}
    for layer in layers:
        for name in layer.inputs:
            if name not in given and name != first.inputs[0]:
                raise InputError(
                    f"Layer {layer.name!r} can't share an engine with {first.name!r}: it reads "
                    f"{name!r} too, and an engine has one input"
                )
    for layer in network.layers:
        inner = [x for x in layer.inputs if x in given and x != last.output.name]
        if inner and layer not in layers:
            raise InputError(
                f"Layer {last.name!r} can't share an engine with {first.name!r}: layer "
                f"{layer.name!r} reads {inner[0]!r}, and an engine has one output"
            )


def core_parts(network: Network, cores: Sequence[CoreBase]) -> list[CorePart]:
    """What each core computes, in order; raises InputError unless they are the network's."""
    waiting, found = core_layers(network), list[CorePart]()
    for core in cores:
        names = core.shared_by
        if names:
            found.append(engine_part(network, names))
            if [layer.name for layer in waiting[: len(names)]] != list(names):
                raise InputError(f"Core {core.name!r} must have the layers that are next")
        elif not waiting:
            raise InputError("There must be no more cores than layers")
        else:
            found.append(waiting[0])
        del waiting[: len(names) or 1]
    if waiting:
        raise InputError(f"Layer {waiting[0].name!r} must have a core")
    return found
