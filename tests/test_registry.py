"""Kinds and their faces: every kind stands once with all of them, and the unknown is refused."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import pytest

from gateware.accelerator import circuits
from gateware.arith.requantizer import multiplier_circuit
from gateware.board import boards, constraints, patch_bitstream
from pvq_hw.engine.core import CORES, multiplier_delay
from pvq_hw.engine.engines import ENGINES
from pvq_hw.engine.pulse_code import CODES
from pvq_hw.engine.units import UNITS
from pvq_hw.errors import InputError
from pvq_hw.model import export
from pvq_hw.model.nodes import NODES
from pvq_hw.network.kinds import LAYERS
from pvq_hw.plan import plan
from pvq_hw.quantizer import quantize
from pvq_hw.registry import Registry, Values
from pvq_hw.target import devices, pll
from pvq_hw.target.architectures import ARCHITECTURES
from pvq_hw.target.families import FAMILIES
from pvq_hw.target.multipliers import MULTIPLIERS, Multiplier, multiplier_named
from pvq_hw.train import torch_model
from sim import prove
from sim.backends import netlist
from sim.reference import code_reference, core_reference, core_words, unit_reference

# Where faces register themselves.
FACES = (circuits, export, plan, prove, quantize, torch_model)
FACES += (boards, constraints, devices, netlist, patch_bitstream, pll)


def shapes():
    """A registry of its own, with two kinds and a face that one of them lacks."""
    registry = Registry("shape")

    @registry.kind
    class Square:
        kind: ClassVar[str] = "square"
        name = "a"

    @registry.kind
    class Circle:
        kind: ClassVar[str] = "circle"
        name = "b"

    area = registry.face("area")
    area.of(Square)(lambda shape, side: side * side)
    return registry, Square, Circle, area


def missing(registry):
    """What the packages' own kinds lack."""
    kinds = registry.kinds().values()
    return registry.missing(k for k in kinds if k.__module__.startswith("pvq_hw."))


def test_every_kind_has_every_face():
    """What has none has another way: weights are the tape's and the graph's, signs are always a
    bound of the layer before them, and layers with weights have cores."""
    assert missing(UNITS) == missing(CORES) == missing(ENGINES) == missing(CODES) == []
    assert {core.engine for core in CORES.kinds().values()} <= set(ENGINES.kinds())
    assert all(map(unit_reference.has, UNITS.kinds())), "by name: it shares no code"
    assert all(face.has(kind) for face in (core_reference, core_words) for kind in CORES.kinds())
    assert all(map(code_reference.has, CODES.kinds()))
    weighted = {"Dense", "Conv", "Affine"}
    found = {tuple(line.split(" has no ")) for line in missing(NODES)}
    others = {(node, face) for node in weighted for face in ("forward", "gradient", "PyTorch")}
    signs = {("Sign", face) for face in ("integer layer", "forward", "gradient", "PyTorch")}
    assert found == others | signs
    assert missing(LAYERS) == ["dense has no unit", "conv has no unit"]
    assert {name for r in (UNITS, CORES, ENGINES, CODES, NODES, LAYERS) for name in r.faces} == {
        *("timing", "cost", "energy", "proof", "control_proof", "circuit", "memories", "making"),
        *("counts", "cycles", "parts", "reason", "choices", "variants", "core", "offer", "limit"),
        *("integer layer", "forward", "gradient", "division", "ONNX", "PyTorch", "unit", "decoder"),
    }


def test_every_architecture_and_family_has_every_face():
    assert ARCHITECTURES.missing() == FAMILIES.missing() == []
    assert set(ARCHITECTURES.faces) == {
        *("place and route", "bit places", "PLL settings", "constraints", "platform"),
        *("block parameters", "ROM block", "RAM block", "loaded block", "multiplier block"),
        *("cell models", "Yosys primitives"),
    }
    assert len(FAMILIES.faces) == 7
    assert {family.blocks for family in FAMILIES.kinds().values()} == set(ARCHITECTURES.kinds())


def test_every_multiplier_of_rows_has_every_face():
    rows = {name for name, way in MULTIPLIERS.kinds().items() if way.for_rows}
    assert set(MULTIPLIERS.faces) == {"delay", "circuit"}
    assert not rows & {line.partition(" has no ")[0] for line in MULTIPLIERS.missing()}
    MULTIPLIERS.add(Multiplier("other", 12, 12))
    try:
        with pytest.raises(InputError, match="Multiplier has no delay: its kind 'other' is not"):
            multiplier_delay("other", None)
        with pytest.raises(InputError, match="Multiplier has no circuit: its kind 'other' is not"):
            multiplier_circuit("other", None, "behavioral")
    finally:
        MULTIPLIERS.forget("other")
    with pytest.raises(InputError, match="'other', which is not known: logic, mac16, mult18"):
        multiplier_named("other")


def test_values_have_faces_by_their_names():
    registry = Values("metal")
    iron = registry.add(SimpleNamespace(name="iron"))
    weight = registry.facts("weight", {"iron": 7.9})
    use = registry.face("use")
    use.of("iron")(lambda metal, what: f"{what} of iron")
    assert (weight["iron"], use("iron", "nails")) == (7.9, "nails of iron")
    assert use(iron, "rails") == "rails of iron"
    registry.add(SimpleNamespace(name="lead"))
    assert registry.missing() == ["lead has no weight", "lead has no use"]
    with pytest.raises(InputError, match=r"^Metal 'lead' has no weight$"):
        weight["lead"]
    with pytest.raises(InputError, match=r"^Metal has no use: its kind 'lead' is not known$"):
        use("lead", "pipes")
    with pytest.raises(InputError, match="A metal 'iron' is known already"):
        registry.add(SimpleNamespace(name="iron", rusts=True))
    with pytest.raises(InputError, match="'irn', which is not known: iron, lead are; did you mean"):
        registry.named("irn")


def test_a_face_is_that_of_the_kind_or_of_its_base():
    registry, square, circle, area = shapes()
    assert area(square(), 3) == 9
    assert area(type("Tile", (square,), {})(), 4) == 16
    assert registry.missing() == ["circle has no area"]
    with pytest.raises(InputError, match=r"^Shape 'b' has no area: its kind 'circle' is not known"):
        area(circle(), 3)


def test_unknown_kinds_are_refused_by_name():
    registry, square, *_ = shapes()
    assert registry.named("square") is square
    refusal = r"^Shape is of kind 'sqare', which is not known: circle, square are; did you mean sq"
    with pytest.raises(InputError, match=refusal):
        registry.named("sqare")
    for value in (None, 3, ["square"]):
        with pytest.raises(InputError, match="which is not known"):
            registry.named(value)


def test_a_kind_or_face_is_registered_once():
    registry, square, _circle, _ = shapes()
    registry.kind(square)  # a module may be loaded again
    with pytest.raises(InputError, match=r"'square' is known already: .*Square"):
        registry.kind(dataclass(type("Other", (), {"kind": "square"})))
    with pytest.raises(InputError, match="has a face 'area' already"):
        registry.face("area")
