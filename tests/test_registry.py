"""Kinds and their faces: every kind stands once with all of them, and the unknown is refused."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

import gateware.accelerator.circuits  # noqa: F401
import pvq_hw.plan.plan  # noqa: F401  faces register themselves
from pvq_hw.engine.core import CORES
from pvq_hw.engine.units import UNITS
from pvq_hw.errors import InputError
from pvq_hw.registry import Registry


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


@pytest.mark.parametrize("registry", [UNITS, CORES], ids=lambda r: r.thing)
def test_every_kind_has_every_face(registry):
    assert registry.missing() == []
    assert len(registry.faces) >= 4


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
    with pytest.raises(InputError, match="'square' is known already: .*Square"):
        registry.kind(dataclass(type("Other", (), {"kind": "square"})))
    with pytest.raises(InputError, match="has a face 'area' already"):
        registry.face("area")
