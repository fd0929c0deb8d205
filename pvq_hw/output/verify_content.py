"""Checks of what the files of an output say, beyond their hashes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pvq_hw.documents import load_json
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.hexfile import read_hex
from pvq_hw.engine.timing import Timing
from pvq_hw.errors import CheckError, InputError
from pvq_hw.network.layer import Dense
from pvq_hw.network.network import Network
from pvq_hw.output.golden_vectors import load_vectors
from pvq_hw.plan.core_layers import CoreLayer, unit_names
from pvq_hw.plan.core_parts import core_parts
from pvq_hw.plan.layer import LayerPlan
from pvq_hw.plan.plan import FORMAT, Plan, part_plan, remake_graph, remake_part, replanned

__all__ = ["Cores", "Finding", "check_image", "check_plan", "check_vectors", "differences"]

Cores = list[tuple[CoreBase, CoreImage]]

_MOST = 20  # findings of one kind
_PLAN = "plan.json"


@dataclass(frozen=True)
class Finding:
    """Something that is not as it was written.

    Parameters
    ----------
    file : str
        Relative to the output, with ``/``.
    where : str
        Layer, row or figure, where it can be told.
    message : str
    """

    file: str
    where: str
    message: str

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.file}{place}: {self.message}"

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON values."""
        return dict(vars(self))


def differences(
    stored: Any, expected: Any, path: tuple[str | int, ...] = ()
) -> list[tuple[tuple[str | int, ...], Any, Any]]:
    """Places at which two JSON values differ: (path, stored, expected), in order."""
    if isinstance(stored, dict) and isinstance(expected, dict):
        result = []
        for key in sorted({*stored, *expected}, key=str):
            old, new = stored.get(key), expected.get(key)
            if (key in stored) != (key in expected):
                result.append(((*path, key), old, new))
            else:
                result += differences(old, new, (*path, key))
        return result
    if isinstance(stored, list) and isinstance(expected, list) and len(stored) == len(expected):
        result = []
        for index, (old, new) in enumerate(zip(stored, expected, strict=True)):
            if old is not new and old != new:
                result += differences(old, new, (*path, index))
        return result
    same = type(stored) is type(expected) and stored == expected
    return [] if same else [(path, stored, expected)]


def check_plan(folder: Path, network: Network, plan: Plan, findings: list[Finding]) -> Cores | None:
    """Derives the plan from the network again and compares every figure of the file.

    Returns the network's cores with the plan's choices; None where the plan's have other shapes
    than the network's layers, so that no codes can be decoded.
    """
    try:
        parts = core_parts(network, plan.specs)
    except InputError as error:
        findings.append(Finding(_PLAN, "layers", str(error)))
        return None
    cores = []
    for part, planned in zip(parts, plan.layers, strict=True):
        where = f"layer {planned.layer!r}"
        if isinstance(part, CoreLayer):
            if part.name != planned.layer:
                findings.append(Finding(_PLAN, "layers", "are not the network's"))
                return None
            if (planned.spec.rows, planned.spec.n) != part.dense.y.shape:
                findings.append(Finding(_PLAN, where, f"has a core of another shape than {where}"))
                return None
        try:
            cores.append(remake_part(part, planned.spec, plan.target))
        except (InputError, CheckError) as error:
            findings.append(Finding(_PLAN, where, str(error)))
            return None
    try:
        graph, timing = remake_graph(network, plan, cores)
    except (InputError, CheckError) as error:
        findings.append(Finding(_PLAN, "graph", str(error)))
        return None
    expected = tuple(
        part_plan(part, spec, image, plan.target, planned.reason)
        for part, (spec, image), planned in zip(parts, cores, plan.layers, strict=True)
    )
    _compare(folder, network, plan, expected, graph, timing, findings)
    return cores


def _compare(
    folder: Path,
    network: Network,
    plan: Plan,
    parts: tuple[LayerPlan, ...],
    graph: GraphSpec,
    timing: Timing,
    findings: list[Finding],
) -> None:
    """Every figure of the plan's file with those that follow from the network."""
    expected = replanned(network, plan, parts, graph, timing)
    stored = load_json(folder / _PLAN, FORMAT) | FORMAT.header
    wanted = expected.to_json()
    for path, old, new in differences(stored, wanted)[:_MOST]:
        where = ".".join(str(key) for key in path)
        findings.append(Finding(_PLAN, where, f"is {old!r:.60}, but must be {new!r:.60}"))


def check_image(
    folder: Path, network: Network, plan: Plan, cores: Cores, findings: list[Finding]
) -> None:
    """Decodes the memory files and compares codes, multipliers and folded biases; ``cores`` are the
    network's, as `check_plan` gives them."""
    parts = core_parts(network, plan.specs)
    for core, (spec, expected), part in zip(parts, cores, plan.layers, strict=True):
        if isinstance(core, Network):
            _check_shared_image(folder, part.spec, expected, findings)
            continue
        layer = core.dense
        contents = spec.contents(expected)
        for name, (bits, depth) in part.spec.memories.items():
            file = f"image/{name}.hex"
            try:
                words = read_hex(folder / file, bits, depth)
            except InputError as error:
                findings.append(Finding(file, f"layer {layer.name!r}", str(error)))
                continue
            if name == part.spec.memory_name("weights"):
                if words != contents[name]:
                    _check_codes(file, layer, part.spec, words, findings)
            elif words != contents[name]:
                _check_words(file, layer, words, contents[name], findings)


def _check_shared_image(
    folder: Path, shared: CoreBase, image: CoreImage, findings: list[Finding]
) -> None:
    """The same of an engine that all layers share: findings name layer and word."""
    contents = shared.contents(image)
    for name, (bits, depth) in shared.memories.items():
        file = f"image/{name}.hex"
        try:
            words = read_hex(folder / file, bits, depth)
        except InputError as error:
            findings.append(Finding(file, "", str(error)))
            continue
        for at, (old, new) in enumerate(zip(words, contents[name], strict=True)):
            if old != new:
                where = f"layer {shared.layer_at(name, at)!r} word {at}"
                findings.append(Finding(file, where, f"is {old:x}, but the network's is {new:x}"))


def _check_codes(
    file: str, layer: Dense, spec: CoreBase, words: list[int], findings: list[Finding]
) -> None:
    """The codes must decode to the layer's weights."""
    where = f"layer {layer.name!r}"
    try:
        y = spec.decode(CoreImage(codes=tuple(words), mult=(), bias=()))
    except InputError as error:
        findings.append(Finding(file, where, str(error)))
        return
    rows = np.flatnonzero((y != layer.y).any(axis=1))
    if not len(rows):
        findings.append(Finding(file, where, "has codes that no encoder gives"))
    for row in rows[:_MOST]:
        column = int(np.flatnonzero(y[row] != layer.y[row])[0])
        text = f"decodes to {y[row, column]} in column {column}, but must be "
        findings.append(Finding(file, f"{where} row {row}", f"{text}{layer.y[row, column]}"))


def _check_words(
    file: str, layer: Dense, words: list[int], expected: list[int], findings: list[Finding]
) -> None:
    if len(words) != len(expected):
        findings.append(Finding(file, f"layer {layer.name!r}", "has a wrong number of words"))
    per_row = max(1, len(expected) // len(layer.y))
    for index, (old, new) in enumerate(zip(words, expected, strict=False)):
        if old != new:
            where = f"layer {layer.name!r} row {index // per_row}"
            findings.append(Finding(file, where, f"is {old:x}, but the network's is {new:x}"))


def check_vectors(folder: Path, network: Network, findings: list[Finding]) -> None:
    """Computes the golden outputs again."""
    try:
        x, outputs = load_vectors(folder, network)
        trace = network.trace(x)
    except InputError as error:
        findings.append(Finding("vectors", "", str(error)))
        return
    names = unit_names(network.layers)
    for layer, name, output in zip(network.layers, names, outputs, strict=True):
        wrong = np.argwhere((output != trace[layer.name]).reshape(len(x), -1))
        for frame, index in wrong[:_MOST]:
            where = f"layer {layer.name!r} frame {frame} output {index}"
            findings.append(Finding(f"vectors/{name}.hex", where, "is not the golden model's"))
