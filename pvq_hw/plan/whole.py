"""Engines that compute all layers of a network in one core: what a plan asks of them.

They are not asked for single layers, so their cores are made, planned and checked from the network
as a whole. `pvq_hw.plan.shared` answers for the one that is there.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.engines import ENGINES, Engine
from pvq_hw.network.network import Network
from pvq_hw.plan.folding import Folding
from pvq_hw.plan.layer import LayerPlan
from pvq_hw.plan.resources import Resources
from pvq_hw.registry import Face
from pvq_hw.target.boards import Target

__all__ = ["Lanes", "whole_core", "whole_engine", "whole_layer", "whole_plan"]

Lanes = Sequence[int | None] | None

whole_plan: Face[
    [Network, Target, Lanes, Lanes, Resources, int, dict[str, Any]],
    tuple[CoreBase, CoreImage, Folding],
] = Face("engine", "plan of a whole network")
"""The core of a network: given lanes and gap bits where they are asked for, what is kept free, the
cycles that are asked for (0: none) and options; what was reckoned to choose it comes with it."""

whole_core: Face[[Network, Target], tuple[CoreBase, CoreImage]] = Face(
    "core", "making from a whole network"
)
"""The core of a network, or of a part of one, with the choices that a specification made."""

whole_layer: Face[[Target], LayerPlan] = Face("core", "plan of a whole network")
"""The part of a plan for all layers of such a core."""


def whole_engine(names: Iterable[Any]) -> Engine | None:
    """The engine among names that computes all layers in one core; None where none does."""
    kinds = ENGINES.kinds()
    found = [kinds[name]() for name in names if name in kinds]
    return next((engine for engine in found if not engine.for_one), None)
