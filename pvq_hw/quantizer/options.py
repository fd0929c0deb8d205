"""What is asked of a quantization, as one value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pvq_hw.choices import GAINS, MENDS, QUANTIZERS, check_choice
from pvq_hw.errors import InputError

__all__ = ["MAX_FRAMES", "PlacedLayer", "QuantizerOptions"]

MAX_FRAMES = 6000
"""Calibration frames that are looked at where nothing else is said."""


class PlacedLayer(NamedTuple):
    """What a layer with weights in a circuit that is there has: the width of its multipliers, its
    shift, and the bits of its output."""

    mult_bits: int
    shift: int
    out_bits: int


@dataclass(frozen=True, eq=False)
class QuantizerOptions:
    """All that decides what `pvq_hw.quantizer.quantize.quantize` gives, besides model and data.

    Parameters
    ----------
    ratio : float
        Mean N/K of the network: total weights over total pulses of the final codes is at least
        this, within 1 % where rows are long enough. Layers with a ``ratio`` or ``k`` of their
        own, and int8 layers, don't take part.
    quantizer : str
        ``"calibrated"``: least output error on the calibration data, by pulse moves.
        ``"plain"``: the nearest point of every row, with the gain of ``gain_rule``. ``"given"``:
        the weights are gains times whole numbers already, and those are the codes; ``ratio``,
        ``banks`` and ``max_gap`` then say nothing.
    activation_bits : int
        2 to 16, or 1 for {-1, +1} between dense layers; of the input and between layers. The
        output has 16.
    layers : mapping of layer name to LayerOptions, optional
    banks : mapping of layer name to int, optional
        Balances pulses: column n is in bank ``n mod P``, every bank of a row has K/P pulses.
    max_gap : mapping of layer name to int, optional
        Largest advance between pulses of a bank, counted from 0 at the start of a row.
    seed : int
        Picks ``max_frames`` of the calibration frames where there are more, and what is drawn of
        them for single layers.
    input_scale : float
        What integer data is divided by.
    max_frames : int
    augment : str or mapping, optional
        Distorts seven of ten of these frames at random, as `pvq_hw.data.augment.augmented` does;
        where there are fewer than ``max_frames``, they are taken again and again.
    sweeps : int
        Of moves against the network's outputs, after the layers' own; 0 for none. Each costs
        about as much as all else and lowers the error further, the more frames there are. With
        one or more, gains and biases of networks with maps are learned after them.
    patience : int
        A row is done when this many of its cheapest pulses in turn have nowhere better to go;
        less is quicker.
    gain_rule : str
        Of the plain quantizer: ``"least-squares"``, or ``"norm"`` for gains that keep each row's
        norm. The calibrated one solves the gains that the outputs want.
    mend : str
        Of the plain quantizer: ``"biases"`` are corrected, ``"scales"`` between layers made equal,
        ``"both"`` or ``"none"``; by the calibration inputs where there are some, else by inputs
        drawn from the model's range (see `pvq_hw.quantizer.mend`).
    pulses : mapping of layer name to int64 array (M,), optional
        K of every row, as `pvq_hw.quantizer.quantize.row_budget` gave them for the same model,
        data and options; they are then not measured again, only rounded to the banks.
    shared_sums : mapping of layer name to float, optional
        Layers that become wires, and the part of their sums' cosine with what they were that may be
        lost so that rows share more adders; see `pvq_hw.quantizer.sharing`. Needs a sweep.
    gain_digits : mapping of layer name to int, optional
        Layers whose multipliers are rounded to so many signed digits, 1 to
        `pvq_hw.quantizer.requantization.MOST_GAIN_DIGITS`, after all else.
    placed : mapping of layer name to PlacedLayer, optional
        What is constant of layers whose circuit is there already; scales of their outputs are such
        that it suffices.
    scales : mapping of tensor name to float, optional
        Scales that are given: of what sums and means read and give in such a circuit, whose
        multipliers are its constants.
    """

    ratio: float = 10.0
    quantizer: str = "calibrated"
    activation_bits: int = 8
    layers: Mapping[str, Any] | None = None
    banks: Mapping[str, int] | None = None
    max_gap: Mapping[str, int] | None = None
    seed: int = 0
    input_scale: float = 1.0
    max_frames: int = MAX_FRAMES
    augment: str | Mapping[str, float] | None = None
    sweeps: int = 1
    patience: int = 16
    gain_rule: str = "least-squares"
    mend: str = "none"
    pulses: Mapping[str, npt.NDArray[np.int64]] | None = None
    shared_sums: Mapping[str, float] | None = None
    gain_digits: Mapping[str, int] | None = None
    placed: Mapping[str, "PlacedLayer"] | None = None
    scales: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.ratio) and self.ratio > 0):
            raise InputError(f"The ratio N/K must be a positive number, not {self.ratio}")
        check_choice("Quantizer", self.quantizer, QUANTIZERS)
        if self.max_frames < 1:
            raise InputError(f"Calibration frames must be at least 1, not {self.max_frames}")
        if self.sweeps < 0:
            raise InputError(f"Sweeps must be at least 0, not {self.sweeps}")
        check_choice("Gain rule", self.gain_rule, GAINS)
        check_choice("Mending", self.mend, MENDS)
        if self.mend != "none" and self.quantizer != "plain":
            raise InputError("Mending must come with the plain quantizer")
        if self.gain_rule != "least-squares" and self.quantizer != "plain":
            raise InputError("Norm-preserving gains must come with the plain quantizer")

    def multipliers(self, name: str, bits: int) -> tuple[int, int | None]:
        """Width of a layer's multipliers, ``bits`` where it is free, and the shift if it isn't."""
        found = (self.placed or {}).get(name)
        return (bits, None) if found is None else (found.mult_bits, found.shift)

    @property
    def calibrated(self) -> bool:
        """Whether codes, gains and biases are fitted to data."""
        return self.quantizer == "calibrated"

    @property
    def mends_biases(self) -> bool:
        """Whether the plain quantizer's biases are corrected."""
        return self.mend in ("biases", "both")

    @property
    def mends_scales(self) -> bool:
        """Whether scales between layers are made equal first."""
        return self.mend in ("scales", "both")
