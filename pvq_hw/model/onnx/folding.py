"""Folds constants into weights: the passes over a lowered graph.

An Affine vanishes into the Dense or Conv before it, or into all those after it (before a padded
Conv only where its offset is 0: the padding of the folded layer must stay 0). It changes places
with a pooling where that helps and is exact.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import LARGEST
from pvq_hw.errors import InputError
from pvq_hw.model.curve import X
from pvq_hw.model.model import (
    Add,
    Affine,
    AveragePool,
    Clip,
    Concat,
    Conv,
    Dense,
    Function,
    MaxPool,
    Node,
    Part,
    Quantize,
    Relu,
    Sign,
)
from pvq_hw.model.nodes import NO_PADS, Window
from pvq_hw.model.onnx.lowering import LayoutError, Lowering
from pvq_hw.model.onnx.pointwise import merged_curves

__all__ = ["fold"]

Vector = npt.NDArray[np.float64]


def fold(low: Lowering, source: str, result: str) -> tuple[tuple[int, ...], tuple[Node, ...]]:
    """Prunes, folds and settles the nodes; returns the input's shape and the nodes."""
    nodes = _prune(low.nodes, result)
    if not nodes:
        raise InputError(f"{low.file.path} must compute its output")
    nodes = _prune(merged_curves(low, _merge_clips(nodes, result)), result)
    for kinds in ((Affine,), (Dense, Conv)):  # constants first: weights are multiplied once
        nodes = _into_makers(low, nodes, result, kinds)
    while (folded := fold_one(low, nodes, result)) is not None:
        nodes = folded
    nodes = _before_maxima(low, _hard_sigmoids(low, nodes, result), result)
    nodes = _merge_roundings(_merge_clips(nodes, result), result)
    shape, nodes = _settle(nodes, source, low.shapes[source])
    for node in nodes:
        if node.output not in low.ops:  # it takes one of several inputs
            continue
        op = low.ops[node.output]
        if isinstance(node, Affine) and node.scale.shape != node.shape[-1:]:
            text = "must be by one constant per channel, or stand before a Gemm or MatMul"
            raise LayoutError(op, text)
        if isinstance(node, Dense | Conv) and not (
            np.isfinite(node.weight).all() and np.isfinite(node.bias).all()
        ):
            op.refuse("must have finite weights after folding what is around it")
        if any(np.abs(a).max(initial=0.0) > LARGEST for a in _arrays(node)):
            op.refuse(f"must have weights of at most {LARGEST:g} after folding what is around it")
    return shape, tuple(nodes)


def _arrays(node: Node) -> list[Vector]:
    return [a for a in vars(node).values() if isinstance(a, np.ndarray)]


def _prune(nodes: list[Node], result: str) -> list[Node]:
    """The nodes that the result needs."""
    wanted, kept = {result}, []
    for node in reversed(nodes):
        if node.output in wanted:
            wanted.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def _into_makers(
    low: Lowering, nodes: list[Node], result: str, kinds: tuple[type[Node], ...]
) -> list[Node]:
    """Affines folded into what is before them where it is of ``kinds``, in one pass."""
    done: dict[str, Node] = {}
    readers = _readers(nodes)
    for node in nodes:
        maker = done.get(node.inputs[0])
        alone = maker is not None and len(readers[maker.output]) == 1 and maker.output != result
        if isinstance(node, Affine) and isinstance(maker, kinds) and alone:
            merged = into_maker(node, maker)
            if merged is not None:
                low.charge(low.ops[node.output], weights=_weights(merged))
                del done[maker.output]
                node = merged
        done[node.output] = node
    return list(done.values())


def _readers(nodes: list[Node]) -> dict[str, list[Node]]:
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in dict.fromkeys(node.inputs):
            readers.setdefault(name, []).append(node)
    return readers


def _swap(nodes: list[Node], changes: dict[str, Node | None]) -> list[Node]:
    """Nodes by their old output's name replaced, or taken out (None)."""
    changed = [changes.get(n.output, n) for n in nodes]
    return [n for n in changed if n is not None]


def fold_one(low: Lowering, nodes: list[Node], result: str) -> list[Node] | None:
    """One step of folding; None when there is nothing left to do."""
    makers = {n.output: n for n in nodes}
    readers = _readers(nodes)
    for node in nodes:
        if not isinstance(node, Affine):
            continue
        maker = makers.get(node.inputs[0])
        alone = maker is not None and len(readers[maker.output]) == 1 and maker.output != result
        if maker is not None and alone:
            merged = into_maker(node, maker)
            if merged is not None:
                low.charge(low.ops[node.output], weights=_weights(merged))
                return _swap(nodes, {maker.output: None, node.output: merged})
            swapped = _before_pool(node, maker, makers, readers)
            if swapped is not None:
                low.ops[swapped[1].output] = low.ops[maker.output]
                return _swap(nodes, {maker.output: swapped[0], node.output: swapped[1]})
        if node.output == result or node.output not in readers:
            continue
        after = _into_readers(node, readers[node.output])
        if after is None:
            after = _after_pool(node, readers, result)
        if after is not None:
            low.charge(low.ops[node.output], weights=sum(_weights(n) for n in after.values()))
            return _swap(nodes, {node.output: None, **after})
    return None


def _weights(node: Node | None) -> int:
    return int(node.weight.size) if isinstance(node, Dense | Conv) else 0


def _constants(node: Affine, size: int, channels: int) -> tuple[Vector, Vector] | None:
    """Scale and offset for ``channels`` per position; None where they differ by position."""
    result = []
    for vector in (node.scale, node.offset):
        if len(vector) != channels:
            rows = np.tile(vector, size // len(vector)).reshape(-1, channels)
            if not (rows == rows[0]).all():
                return None
            vector = rows[0]
        result.append(vector)
    return result[0], result[1]


def into_maker(node: Affine, maker: Node) -> Node | None:
    """``maker`` (Dense, Conv or Affine) followed by ``node``, as one node."""
    with np.errstate(all="ignore"):
        if isinstance(maker, Affine):
            wide = max(len(maker.scale), len(node.scale))
            a, b, c, d = (
                np.tile(v, wide // len(v))
                for v in (maker.scale, maker.offset, node.scale, node.offset)
            )
            return replace(node, inputs=maker.inputs, scale=a * c, offset=b * c + d)
        if not isinstance(maker, Dense | Conv):
            return None
        constants = _constants(node, node.size, len(maker.bias))
        if constants is None:
            return None
        scale, offset = constants
        weight = maker.weight * scale.reshape(-1, *(1,) * (maker.weight.ndim - 1))
        bias = maker.bias * scale + offset
        return replace(maker, output=node.output, weight=weight, bias=bias)


def _into_reader(node: Affine, reader: Node) -> Node | None:
    """``reader`` (Dense or Conv) with ``node`` before it folded in; None where that is wrong."""
    inputs = node.inputs
    with np.errstate(all="ignore"):
        if isinstance(reader, Dense):
            scale, offset = (np.tile(v, node.size // len(v)) for v in (node.scale, node.offset))
            # Not by a matrix library, whose order of adding is the processor's.
            bias = reader.bias + (reader.weight * offset).sum(axis=1)
            return replace(reader, inputs=inputs, weight=reader.weight * scale, bias=bias)
        if not isinstance(reader, Conv):
            return None
        constants = _constants(node, node.size, reader.input_shape[2])
        if constants is None or (reader.pads != NO_PADS and constants[1].any()):
            return None
        shape = (reader.groups, 1, 1, 1, -1)
        scale, offset = (v.reshape(shape) for v in constants)
        split = reader.weight.reshape(reader.groups, -1, *reader.weight.shape[1:])
        bias = reader.bias + (split * offset).sum(axis=(2, 3, 4)).reshape(-1)
        weight = (split * scale).reshape(reader.weight.shape)
        return replace(reader, inputs=inputs, weight=weight, bias=bias)


def _into_readers(node: Affine, readers: list[Node]) -> dict[str, Node | None] | None:
    """All readers with ``node`` folded in; None unless all can."""
    changed = {reader.output: _into_reader(node, reader) for reader in readers}
    return None if any(n is None for n in changed.values()) else changed


def _commutes(node: Affine, pool: Node) -> bool:
    """Whether ``node`` gives the same before and after ``pool``."""
    if not isinstance(pool, Window) or len(node.scale) != pool.channels:
        return False
    if isinstance(pool, MaxPool):
        return bool((node.scale >= 0).all())
    if isinstance(pool, AveragePool):
        return not pool.count_include_pad or not node.offset.any()
    return False


def _before_pool(
    node: Affine, pool: Node, makers: dict[str, Node], readers: dict[str, list[Node]]
) -> tuple[Node, Node] | None:
    """(pool, affine) as (layer with the affine folded in, pool)."""
    maker = makers.get(pool.inputs[0])
    if maker is None or len(readers[maker.output]) != 1 or not _commutes(node, pool):
        return None
    return None if not isinstance(maker, Dense | Conv) else _moved(node, pool, maker)


def _moved(node: Affine | Relu | Clip | Sign, pool: Node, maker: Node) -> tuple[Node, Node]:
    before = replace(node, inputs=(maker.output,), output=pool.output, shape=pool_input(pool))
    return before, replace(pool, inputs=(pool.output,), output=node.output)


def pool_input(pool: Node) -> tuple[int, ...]:
    """Shape that a window node reads."""
    return pool.input_shape if isinstance(pool, Window) else pool.shape


def _after_pool(
    node: Affine, readers: dict[str, list[Node]], result: str
) -> dict[str, Node | None] | None:
    """(affine, pool, layers) as (pool, layers with the affine folded in)."""
    pools = readers[node.output]
    if len(pools) != 1 or not _commutes(node, pools[0]) or pools[0].output == result:
        return None
    pool = pools[0]
    late = replace(node, inputs=(pool.output,), output=pool.output, shape=pool.shape)
    changed = _into_readers(late, readers.get(pool.output, []))
    if not changed:
        return None
    return {**changed, pool.output: replace(pool, inputs=node.inputs)}


def _merge_clips(nodes: list[Node], result: str) -> list[Node]:
    """Relu and Clip in a row become one."""
    done: dict[str, Node] = {}
    readers = _readers(nodes)
    for node in nodes:
        maker = done.get(node.inputs[0])
        if (
            isinstance(node, Relu | Clip)
            and isinstance(maker, Relu | Clip)
            and len(readers[maker.output]) == 1
        ):
            (a, b), (c, d) = _bounds(maker), _bounds(node)
            lowest, highest = float(np.clip(a, c, d)), float(np.clip(b, c, d))
            if lowest < highest:
                del done[maker.output]
                fields = (node.name, maker.inputs, node.output, node.shape)
                relu = lowest == 0 and highest == np.inf
                done[node.output] = Relu(*fields) if relu else Clip(*fields, lowest, highest)
                continue
        done[node.output] = node
    return list(done.values())


def _hard_sigmoids(low: Lowering, nodes: list[Node], result: str) -> list[Node]:
    """HardSigmoid behind a layer with weights as bounds of it: the factor and the addend are
    folded into the weights and biases."""
    done: dict[str, Node] = {}
    readers = _readers(nodes)
    for node in nodes:
        maker = done.get(node.inputs[0])
        if (
            isinstance(node, Function)
            and (node.curve.kind, node.curve.args) == ("HardSigmoid", (X,))
            and isinstance(maker, Dense | Conv)
            and (len(readers[maker.output]), maker.output != result) == (1, True)
        ):
            alpha, beta = node.curve.values
            channels = len(maker.bias)
            line = Affine(
                node.name, maker.inputs, maker.output, maker.shape,
                scale=np.full(channels, alpha), offset=np.full(channels, beta),
            )  # fmt: skip
            merged = into_maker(line, maker)
            assert merged is not None
            low.charge(low.ops[node.output], weights=_weights(merged))
            done[maker.output] = merged
            node = Clip(node.name, node.inputs, node.output, node.shape, 0.0, 1.0)
        done[node.output] = node
    return list(done.values())


def _before_maxima(low: Lowering, nodes: list[Node], result: str) -> list[Node]:
    """ReLU, bounds and signs behind the largest of windows before it, where the layer that the
    windows are of can take them; exact, as none of them falls anywhere."""
    makers, readers = {n.output: n for n in nodes}, _readers(nodes)
    changes: dict[str, Node | None] = {}
    for node in nodes:
        pool = makers.get(node.inputs[0])
        if not (isinstance(node, Relu | Clip | Sign) and isinstance(pool, MaxPool)):
            continue
        maker = makers.get(pool.inputs[0])
        weights = maker is not None and maker.weighted
        if weights and len(readers[pool.output]) == len(readers[pool.inputs[0]]) == 1 and (
            result not in (pool.output, node.output)  # outputs have more bits than other values
        ):  # fmt: skip
            assert maker is not None
            changes[pool.output], changes[node.output] = _moved(node, pool, maker)
            low.ops[node.output], low.ops[pool.output] = low.ops[pool.output], low.ops[node.output]
    return _swap(nodes, changes)


def _merge_roundings(nodes: list[Node], result: str) -> list[Node]:
    """Values that are rounded again to the same scale: once, within both bounds."""
    done: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    readers = _readers(nodes)
    for node in nodes:
        read = node.inputs[0]
        if any(name in renamed for name in node.inputs):
            node = replace(node, inputs=tuple(renamed.get(n, n) for n in node.inputs))
        maker = _rounding_of(done, node.inputs[0])
        if isinstance(node, Quantize) and maker is not None and maker.scale == node.scale:
            low, high = max(maker.low, node.low), min(maker.high, node.high)
            if (low, high) == (maker.low, maker.high) and node.output != result:
                renamed[node.output] = node.inputs[0]
                continue
            if maker.output == read and len(readers[read]) == 1:
                del done[maker.output]
                node = replace(node, inputs=maker.inputs, low=low, high=high)
        done[node.output] = node
    return list(done.values())


def _rounding_of(done: dict[str, Node], tensor: str) -> Quantize | None:
    """The rounding whose values a tensor has: before it there are maxima alone."""
    node = done.get(tensor)
    while isinstance(node, MaxPool):
        node = done.get(node.inputs[0])
    return node if isinstance(node, Quantize) else None


def _bounds(node: Relu | Clip) -> tuple[float, float]:
    return (0.0, np.inf) if isinstance(node, Relu) else (node.low, node.high)


def _settle(
    nodes: list[Node], source: str, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], list[Node]]:
    """Gives tensors the shape in which they are read, where all readers agree on one."""
    wanted: dict[str, set[tuple[int, ...]]] = {}
    settled = []
    for node in reversed(nodes):
        wishes = wanted.get(node.output, set())
        free = isinstance(node, Relu | Sign | Clip | Quantize | Affine | Add | Part) or (
            isinstance(node, Function) and node.curve.channels == 1
        )
        if free and len(wishes) == 1:
            node = _reshaped(node, next(iter(wishes)))
        if not isinstance(node, Dense | Concat | Part):
            wish = pool_input(node)
            for name in node.inputs:
                wanted.setdefault(name, set()).add(wish)
        settled.append(node)
    wishes = wanted.get(source, set())
    return (next(iter(wishes)) if len(wishes) == 1 else shape), settled[::-1]


def _reshaped(node: Node, shape: tuple[int, ...]) -> Node:
    if isinstance(node, Affine):
        constants = _constants(node, node.size, shape[-1])
        if constants is None:
            return node
        return replace(node, shape=shape, scale=constants[0], offset=constants[1])
    return replace(node, shape=shape)
