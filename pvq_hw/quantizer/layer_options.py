"""What may be asked of each layer, checked before anything is computed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError
from pvq_hw.quantizer.banks import Placement
from pvq_hw.quantizer.fused import Step

__all__ = ["LayerOptions", "Request", "requests"]


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
    int8 : bool
    keep_zeros : bool
        Whether pulses stay where the weights are not 0.
    """

    groups: int
    shared: bool
    k: npt.NDArray[np.int64] | None
    total: int | None
    placement: Placement | None
    int8: bool
    keep_zeros: bool = False

    @property
    def multiple(self) -> int:
        """What every row's K is a multiple of."""
        return self.placement.banks if self.placement else 1


def requests(
    stages: tuple[Step, ...],
    layers: Mapping[str, Any] | None,
    banks: Mapping[str, int] | None,
    max_gap: Mapping[str, int] | None,
) -> list[Request]:
    """Resolves the options of every stage, in order.

    ``layers`` holds `LayerOptions` or anything with its fields. Raises InputError for names that
    are not layers and for what cannot be met.
    """
    names = [stage.name for stage in stages]
    for mapping in (layers, banks, max_gap):
        for name in mapping or {}:
            if name not in names:
                raise InputError(f"Layer {name!r} must be one of {', '.join(names)}")
    for name in max_gap or {}:
        if name not in (banks or {}):
            raise InputError(f"Layer {name!r} must have banks where it has a largest gap")
    return [
        _request(
            stage,
            (layers or {}).get(stage.name) or LayerOptions(),
            (banks or {}).get(stage.name),
            (max_gap or {}).get(stage.name),
        )
        for stage in stages
    ]


def _request(stage: Step, given: Any, banks: int | None, max_gap: int | None) -> Request:
    where = f"Layer {stage.name!r}"
    keep = bool(getattr(given, "keep_zeros", False))
    option = LayerOptions(given.ratio, given.k, given.unit, given.encoding, keep)
    m, n = stage.weight.shape
    groups, shared = 1, option.unit == "layer"
    if isinstance(option.unit, int):
        if option.unit < 1 or n % option.unit:
            raise InputError(f"{where} must have groups that divide {n} columns, not {option.unit}")
        groups = n // option.unit
    int8 = option.encoding == "int8"
    placement = None if banks is None or int8 else Placement(banks, max_gap)
    if placement and banks and (banks > n or groups > 1 or shared):
        raise InputError(
            f"{where} must have rows as its unit and at most {n} banks, not {banks}"
            if banks > n
            else f"{where} must have rows as its unit to be balanced over banks"
        )
    if placement and keep:
        raise InputError(f"{where} must not be balanced over banks where its zeros are kept")
    if int8:
        return Request(1, False, None, None, None, True)
    k, total = _pulses(where, option, m, n, groups, shared, banks or 1)
    return Request(groups, shared, k, total, placement, False, keep)


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
