"""What may be asked of each layer, checked before anything is computed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError
from pvq_hw.model.model import Dense
from pvq_hw.pyramid.nearest import MAX_K
from pvq_hw.quantizer.autodiff import node_groups
from pvq_hw.quantizer.banks import Placement
from pvq_hw.quantizer.budget import layer_shares, round_to_multiple, spread
from pvq_hw.quantizer.fused import Step
from pvq_hw.quantizer.options import QuantizerOptions
from pvq_hw.quantizer.pulse_moves import WIDE

__all__ = ["LayerOptions", "Request", "even_pulses", "requests"]


@dataclass(frozen=True)
class LayerOptions:
    """Options of one layer; None leaves the choice to the quantizer.

    Parameters
    ----------
    ratio : float, optional
        N/K of the layer's rows.
    k : int, optional
        Pulses of each row, or of each group of it; of the whole layer where that is the unit.
    unit : str or int
        What has one gain: ``"row"``, ``"layer"``, or that many columns of a row.
    encoding : str
        ``"pvq"``, or ``"int8"`` for plain 8-bit weights.
    keep_zeros : bool
        Whether weights of 0 (a pruned network's) stay 0.
    """

    ratio: float | None = None
    k: int | None = None
    unit: str | int | None = None
    encoding: str | None = None
    keep_zeros: bool = False

    def __post_init__(self) -> None:
        if self.k is not None and (isinstance(self.k, bool) or self.k != int(self.k) or self.k < 1):
            raise InputError(f"K must be a whole number of at least 1, not {self.k}")
        if self.ratio is not None and not (np.isfinite(self.ratio) and self.ratio > 0):
            raise InputError(f"The ratio N/K must be a positive number, not {self.ratio}")
        if self.k is not None and self.ratio is not None:
            raise InputError("A layer must have ratio or k, not both")
        if self.encoding not in (None, "pvq", "int8"):
            raise InputError(f"Encoding must be pvq or int8, not {self.encoding!r}")
        if isinstance(self.unit, str) and self.unit not in ("row", "layer"):
            raise InputError(f"Unit must be row, layer or a number of columns, not {self.unit!r}")


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked of one layer, resolved.

    Parameters
    ----------
    groups : int
        Gains of a row.
    shared : bool
        One gain for the whole layer.
    k : int64 array (M, G), optional
        Pulses of every group where they are given; None where the budget decides.
    total : int, optional
        Pulses of the layer where only those are given.
    placement : Placement, optional
    multiple : int
        What every row's K is a multiple of.
    int8 : bool
    keep_zeros : bool
        Whether pulses stay where the weights are not 0.
    wide : bool
        Whether rows have more columns than `pvq_hw.quantizer.pulse_moves.WIDE`.
    """

    groups: int
    shared: bool
    k: npt.NDArray[np.int64] | None
    total: int | None
    placement: Placement | None
    multiple: int
    int8: bool
    keep_zeros: bool = False
    wide: bool = False

    @property
    def movable(self) -> bool:
        """Whether its pulses can move against the network's outputs: rows with a gain each."""
        return not (self.int8 or self.groups > 1 or self.shared or self.wide)

    def by_group(self, k: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """K of rows (M,) or of their groups (M, G) as that of groups, in multiples of the banks."""
        given = np.asarray(k, dtype=np.int64)
        given = given.reshape(len(given), -1)
        if self.multiple == 1 and given.shape[1] == self.groups:
            return given
        rows = round_to_multiple(given.sum(axis=1), self.multiple * self.groups)
        return np.repeat(rows[:, None] // self.groups, self.groups, axis=1)


def requests(steps: tuple[Step, ...], options: QuantizerOptions) -> dict[str, Request]:
    """Resolves the options of every layer with weights, by its name.

    Raises InputError for names that are not layers and for what a layer cannot do.
    """
    layers, banks, max_gap = options.layers or {}, options.banks or {}, options.max_gap or {}
    weighted = {step.name: step for step in steps if step.weighted}
    for name in (*layers, *banks, *max_gap):
        if name not in weighted:
            raise InputError(f"Layer {name!r} must be one of {', '.join(weighted)}")
    for name in max_gap:
        if name not in banks:
            raise InputError(f"Layer {name!r} must have banks where it has a largest gap")
    return {
        name: _request(step, layers.get(name) or LayerOptions(), banks.get(name), max_gap.get(name))
        for name, step in weighted.items()
    }


def _request(step: Step, given: Any, banks: int | None, max_gap: int | None) -> Request:
    where = f"Layer {step.name!r}"
    keep = bool(getattr(given, "keep_zeros", False))
    option = LayerOptions(given.ratio, given.k, given.unit, given.encoding, keep)
    m, n = step.weight.shape
    groups, shared = _unit(step, option.unit)
    if option.encoding == "int8":
        return Request(1, False, None, None, None, 1, True)
    placement = None if banks is None else Placement(banks, max_gap)
    if banks and (banks > n or groups > 1 or shared):
        raise InputError(
            f"{where} must have rows as its unit and at most {n} banks, not {banks}"
            if banks > n
            else f"{where} must have rows as its unit to be balanced over banks"
        )
    if placement and keep:
        raise InputError(f"{where} must not be balanced over banks where its zeros are kept")
    k, total = _pulses(where, option, m, n, groups, shared, banks or 1)
    if node_groups(step.node) > 1:
        placement = None  # a row's columns are its group's, over which lanes are not spread evenly
    return Request(groups, shared, k, total, placement, banks or 1, False, keep, n > WIDE)


def _unit(step: Step, unit: str | int | None) -> tuple[int, bool]:
    """Groups of a row with a gain each, and whether all rows share one.

    Raises InputError where the layer has no such gains.
    """
    where, n = f"Layer {step.name!r}", step.weight.shape[1]
    if unit == "layer" and node_groups(step.node) > 1:
        raise InputError(
            f"{where} must have a gain per row: its rows see different channels, so one gain "
            "cannot be solved for all"
        )
    if not isinstance(unit, int):
        return 1, unit == "layer"
    if not isinstance(step.node, Dense):
        raise InputError(
            f"{where} must have a gain per row: only dense layers have one for every {unit} "
            f"columns, and it has kind {step.node.op}"
        )
    if unit < 1 or n % unit:
        raise InputError(f"{where} must have groups that divide {n} columns, not {unit}")
    return n // unit, False


def _pulses(
    where: str, option: LayerOptions, m: int, n: int, groups: int, shared: bool, multiple: int
) -> tuple[npt.NDArray[np.int64] | None, int | None]:
    """K of every group, or the layer's total, where the options say."""
    if option.k is not None:
        if option.k % multiple:
            raise InputError(f"{where} must have a K that is a multiple of {multiple} banks")
        if option.k > 1 << 20:
            raise InputError(f"{where} must have a K of at most {1 << 20}, not {option.k}")
        if shared:
            return None, option.k
        return np.full((m, groups), option.k, dtype=np.int64), None
    if option.ratio is not None:
        size = n // groups
        if size * (m if shared else 1) / option.ratio < 1:
            raise InputError(f"{where}: N/K must leave K at least 1, but {option.ratio} does not")
        return None, max(int(m * n / option.ratio + 1e-9), m * groups)
    return None, None


def even_pulses(
    steps: tuple[Step, ...],
    asked: Mapping[str, Request],
    ratio: float,
    emphasis: Mapping[str, float] | None = None,
) -> dict[str, npt.NDArray[np.int64]]:
    """K of every group of the rows of layers with pulses, (M, G), without data: as asked, else
    the same for all rows of a layer. ``emphasis`` as `layer_shares` takes it.

    Raises InputError, by layer, for more pulses than a row can have.
    """
    shapes = {s.name: s.weight.shape for s in steps if s.weighted and not asked[s.name].int8}
    totals = {n: total for n in shapes if (total := asked[n].total) is not None}
    free = {n: (m, m * c) for n, (m, c) in shapes.items() if asked[n].k is None and n not in totals}
    if free:
        totals |= layer_shares(free, ratio, emphasis)
    result = {}
    for name, (rows, _) in shapes.items():
        request = asked[name]
        if request.k is not None:
            result[name] = request.k
        else:
            even = spread(np.ones(rows * request.groups), totals[name], request.multiple)
            result[name] = even.reshape(rows, request.groups)
        if (most := int(result[name].max(initial=0))) > MAX_K:
            raise InputError(f"Layer {name!r}: K must be 1 to {MAX_K}, not {most}")
    return result
