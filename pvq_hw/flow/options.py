"""The options of `compile`: defaults, a TOML file, then the command line, in that order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pvq_hw.choices import GAINS, LINKS, OBJECTIVES, QUANTIZERS, UART, check_choice
from pvq_hw.data.augment import parse_kinds
from pvq_hw.documents import load_toml, read_fields
from pvq_hw.engine.code_stream import FLASH_BITS
from pvq_hw.engine.engines import (
    AUTO,
    ENGINES,
    Folded,
    Shared,
    Unrolled,
    check_engine,
    engine_named,
)
from pvq_hw.engine.pulse_code import CODES
from pvq_hw.engine.unrolled_core import check_digit
from pvq_hw.errors import InputError
from pvq_hw.naming import quoted
from pvq_hw.plan.goal import SpeedGoal
from pvq_hw.quantizer.banks import WINDOW_PULSES
from pvq_hw.quantizer.requantization import MOST_GAIN_DIGITS
from pvq_hw.target.families import family

__all__ = ["LOSS", "SPARE", "CompileOptions", "LayerChoice", "load_options"]


_LEAST, _MOST = 1e-30, 1e30  # of a number above 0: nothing overflows that is worked out with it
SPARE = 5
"""Percent of words and sums that an updatable accelerator keeps free."""

LOSS = 0.5
"""Points of accuracy, or percent, that `compile` aims to lose at most where nobody says how many
pulses there are to be."""

_MOST_SHARED = 20  # percent
_MOST_PULSES = 1024  # of a row in a lane, so that nothing of a window is balanced
_MOST_SPARE = 400
_MOST_BAUD = 100_000_000
_MOST_FRAMES = 1_000_000
_MOST_SWEEPS = 100
_MOST_WIDTH = 4096


@dataclass(frozen=True)
class LayerChoice:
    """What a configuration says of one layer; None leaves the choice to the compiler.

    Parameters
    ----------
    ratio : float, optional
        N/K of the layer.
    k : int, optional
        Pulses of each row (or group).
    unit : str or int, optional
        ``"row"``, ``"layer"``, or the columns of a group.
    encoding : str, optional
        ``"pvq"`` or ``"int8"``.
    lanes : int, optional
        Pulses a clock.
    keep_zeros : bool
        Whether weights of 0, as pruning leaves them, stay 0.
    balanced : bool
        Whether a row's pulses may be held to as many in every lane.
    code : str, optional
        ``"pulse"``, ``"shifted"`` (pulses of 1, 2, 4 ... in one slot), ``"pvq"`` or ``"auto"``.
    code_memory : str, optional
        ``"block"``, ``"spram"`` or ``"auto"``.
    multiplier : str, optional
        ``"dsp"``, ``"logic"`` or ``"auto"``.
    windows : int, optional
        V, 1 to 16: windows of a map that a convolution of pulses takes side by side.
    stream_width : int, optional
        Results that leave the layer in a transfer; they divide its rows.
    digit : int, optional
        1, 2, 4 or 8: bits that the adders of an unrolled layer take a cycle; 0: all at once.
    engine : str, optional
        ``"folded"`` (lanes), ``"unrolled"``: all pulses at once, weights as wires,
        ``"depthwise"``: a window of one channel and a row a cycle, ``"shared"``: with its
        neighbors that are so asked for on one engine, one after the other, or ``"auto"``.
    """

    ratio: float | None = None
    k: int | None = None
    unit: str | int | None = None
    encoding: str | None = None
    lanes: int | None = None
    keep_zeros: bool = False
    balanced: bool = True
    code: str | None = None
    code_memory: str | None = None
    multiplier: str | None = None
    windows: int | None = None
    stream_width: int | None = None
    digit: int | None = None
    engine: str | None = None

    @property
    def settled(self) -> bool:
        """Whether it says how the layer's weights are encoded, which is not to be chosen then."""
        return (self.ratio, self.k, self.unit, self.encoding) != (None,) * 4

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise InputError(f"K must be at least 1, not {self.k}")
        if self.ratio is not None:
            _positive("N/K", self.ratio)
        if self.ratio is not None and self.k is not None:
            raise InputError("A layer must have ratio or k, not both")
        if self.encoding == "int8" and (self.ratio, self.k, self.unit) != (None, None, None):
            raise InputError("A layer of 8-bit weights must have no ratio, k or unit")
        if self.encoding not in (None, "pvq", "int8"):
            raise InputError(f"Encoding must be pvq or int8, not {self.encoding!r:.60}")
        _check_code(self.code)
        _check_kinds(self.code_memory, self.multiplier)
        if self.code_memory == "flash":
            raise InputError("Codes must come from the flash for all layers, not for single ones")
        _check_engine(self.engine)
        _check_windows(self.windows)
        _check_width("Results a transfer", self.stream_width)
        check_digit(self.digit, "Unrolled layer")
        if self.digit is not None and self.engine not in (None, AUTO, Unrolled.kind):
            raise InputError(f"A layer must be unrolled to have a digit, not {self.engine}")
        in_lanes = (self.lanes, self.code, self.code_memory, self.windows) != (None,) * 4
        if self.engine not in (None, AUTO) and in_lanes and not engine_named(self.engine).laned:
            article = "An" if self.engine[0] in "aeiou" else "A"
            raise InputError(
                f"{article} {self.engine} layer must have no lanes, windows, code or code_memory"
            )
        if self.shared and (self.windows, self.stream_width) != (None, None):
            raise InputError("A layer on a shared engine must have no windows or stream_width")
        if self.lanes is not None and self.lanes < 1:
            raise InputError(f"Lanes must be at least 1, not {self.lanes}")
        if isinstance(self.unit, str) and self.unit not in ("row", "layer"):
            raise InputError(
                f"Unit must be row, layer or a number of columns, not {self.unit!r:.60}"
            )
        if isinstance(self.unit, int) and self.unit < 1:
            raise InputError(f"Columns of a group must be at least 1, not {self.unit}")

    @property
    def shared(self) -> bool:
        """Whether it is to be on an engine with its neighbors."""
        return self.engine == Shared.kind


@dataclass(frozen=True)
class CompileOptions:
    """Everything that decides what `compile` gives, besides the model and the data.

    Parameters
    ----------
    target : str
        A board of `pvq_hw.target.boards`.
    ratio : float
        Mean N/K to reach; the final codes have at least it, within 1 %.
    quantizer : str
        ``"calibrated"``, ``"plain"``, or ``"given"`` for weights that are codes already.
    gain : str
        ``"least-squares"``, or ``"norm"`` for the plain quantizer.
    mend : str
        ``"none"``, ``"biases"``, ``"scales"`` or ``"both"``, for the plain quantizer.
    input_scale : float
        What integer data is divided by.
    activation_bits : int
        2 to 16 (1: binary).
    min_accuracy : float, optional
        Percent of right answers on the evaluation data, by the golden model.
    max_loss : float, optional
        Points of accuracy, or percent, that the codes may cost: `pvq_hw.flow.choose` then finds
        the ratio and the layers of 8-bit weights. Calibration data then decide.
    aim : bool
        Whether ``max_loss`` is an aim: where nothing that fits loses so little, what loses least is
        taken, and said.
    objective : str
        What the choice is to be best at within ``max_loss``: ``"speed"`` (inferences a second),
        ``"latency"``, ``"size"`` (LUTs, then energy) or ``"energy"``, as modelled. Where a speed is
        asked for, ``"speed"`` is reached with it and the choice is the smallest.
    inferences_per_second, max_latency : float, optional
        The speed asked for, by the circuit's clock, and microseconds from the first activation in
        to the last result out: the plan is then the smallest that is as fast.
    lanes : tuple of int, optional
        Of each core, in order; planned when absent.
    clock_mhz : float, optional
        The board's clock to plan for; the target's own when absent.
    link : str
        ``"uart"``: the host talks to the board over the serial line. ``"spi"``: over the pins of
        the board that its file names for SPI.
    baud : int, optional
        Bits a second of the link; the target's own when absent, of SPI a sixth of the clock.
    code_memory : str, optional
        ``"block"`` or ``"spram"``: where the codes of all layers are; or ``"flash"``: a shared
        engine reads them from the board's SPI flash anew for every frame. By default (``"auto"``)
        SPRAM where they do not fit into block RAM, and the flash where they fit nowhere.
    flash_bits : int, optional
        1, 2 or 4: bits a clock that the flash gives such an engine, which this asks for; 2 by
        default. 4 need the flash's pins IO2 and IO3, and its quad-enable bit to be set.
    multiplier : str
        ``"dsp"`` or ``"logic"``: what the layers multiply with. ``"auto"``: DSP blocks, LUTs where
        these are too few.
    windows : int, optional
        V, 1 to 16: windows of a map that all convolutions of pulses take side by side, as far as a
        row of the map has so many; planned when absent.
    stream_width : int, optional
        Results that leave a layer in a transfer, of all layers that can give several (unrolled
        ones, convolutions with windows side by side), as far as it divides their rows; planned
        when absent.
    digit : int, optional
        1, 2, 4 or 8: bits that the adders of all unrolled layers take a cycle; 0: all at once.
        Planned when absent.
    input_width, output_width : int
        Activations in a transfer of the network's input, and of its output. A board's top takes and
        gives one.
    engine : str
        ``"folded"`` or ``"unrolled"``: what the layers are computed in. Unrolled layers take all
        pulses at once, in adders, and their weights are wires. ``"shared"``: all layers one after
        the other in the lanes of one core. ``"auto"``: layers that make the
        network faster by it, and fit, are unrolled, and convolutions of one channel a row are
        computed channel by channel where that is faster or smaller; none with lanes, code or code
        memory of its own. Where one core a layer doesn't fit, all share one.
    code : str
        ``"pulse"``, ``"shifted"``, or ``"pvq"``: shifted where that saves cycles (of a dense layer
        3 %) and fits. ``"auto"``: 8-bit weights too, in layers of more pulses than weights that
        these make no slower and no larger, unless their N/K, K or encoding is given.
    frames : int or str
        V, 1 to 16: frames that the cores take side by side; ``"auto"``: as many as give most
        frames a second.
    augment : str
        Distortions of calibration inputs, as in ``"shift,rotate=10"``; see
        `pvq_hw.data.augment.augmented`. None by default.
    calibration_frames : int
        Calibration inputs that are looked at, drawn by ``seed``; with distortions this many are
        made of those that there are.
    sweeps : int
        Of moves against the network's outputs, see `pvq_hw.quantizer.quantize.quantize`.
    seed : int
    int8 : tuple of str
        Layers that keep plain 8-bit weights.
    only : tuple of str
        Where there are any: the only layers that become pulses, the others keep 8-bit weights.
    keep_zeros : bool
        Whether weights of 0, as pruning leaves them, stay 0 in all layers.
    balanced : bool
        Whether a row's pulses may be held to as many in every lane, so that none waits for
        another; it moves pulses from where they are nearest to the weights.
    layers : mapping of layer name to `LayerChoice`
    output : str, optional
        Of a model of several outputs: the one that labels belong to.
    decide : str
        What becomes of the scores on the chip: ``"argmax"`` gives the largest's place and value,
        ``"top=3"`` those of the 3 largest, ``"above=0.5"`` 0 or 1 for each, by one threshold or,
        after commas, by one for each; ``"smoothed=8,0.5"`` the class by averages over 8 frames,
        which another takes over by more than 0.5. None by default: the scores themselves.
    updatable : bool
        Whether all that follows from the weights is to be in block RAM, so that the bitstream takes
        those of a network trained again without synthesis; see `pvq_hw.flow.update`.
    window_pulses : int
        Pulses of a convolution's row for each lane from which the quantizer spreads them evenly
        over the lanes: fewer take fewer cycles, and are further from the weights.
    share_sums : float
        Percent by which the sums of layers that become wires may turn away from what they were, so
        that rows share more adders: so much lower than 1 may their mean cosine be.
    gain_digits : int
        Signed digits to which multipliers of layers that become wires are rounded, so that they
        are as many adders less one; 0 for all.
    spare : int, optional
        Percent of each layer's words and sums kept free for such weights: 0 to 400, `SPARE` unless
        given.
    live : bool
        Whether such weights can also be loaded into the board while it runs; makes them updatable.
    measure : bool
        Whether the board can repeat a frame by itself and count the cycles.
    """

    target: str = ""
    ratio: float = 10.0
    quantizer: str = "calibrated"
    gain: str = "least-squares"
    mend: str = "none"
    input_scale: float = 1.0
    activation_bits: int = 8
    min_accuracy: float | None = None
    max_loss: float | None = None
    aim: bool = False
    objective: str = "speed"
    inferences_per_second: float | None = None
    max_latency: float | None = None
    lanes: tuple[int, ...] | None = None
    clock_mhz: float | None = None
    link: str = UART
    baud: int | None = None
    code_memory: str | None = None
    flash_bits: int | None = None
    multiplier: str = "auto"
    windows: int | None = None
    stream_width: int | None = None
    digit: int | None = None
    input_width: int = 1
    output_width: int = 1
    engine: str = "auto"
    code: str = "pvq"
    frames: int | str = 1
    augment: str = ""
    calibration_frames: int = 6000
    sweeps: int = 1
    seed: int = 0
    int8: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    keep_zeros: bool = False
    balanced: bool = True
    layers: Mapping[str, LayerChoice] = field(default_factory=dict)
    output: str | None = None
    decide: str = ""
    updatable: bool = False
    spare: int | None = None
    window_pulses: int = WINDOW_PULSES
    share_sums: float = 0.0
    gain_digits: int = 0
    live: bool = False
    measure: bool = False

    def __post_init__(self) -> None:
        if self.live:
            object.__setattr__(self, "updatable", True)
        _positive("N/K", self.ratio)
        _positive("Input scale", self.input_scale)
        self._check_circuit()
        self._check_aims()
        self._check_data()
        self._check_spare()
        both = set(self.int8) & set(self.only)
        if both:
            raise InputError(f"Layer {min(both)!r} must be in int8 or in only, not in both")

    def _check_circuit(self) -> None:
        """Raises InputError for what no layers, lanes, streams or engines can be."""
        check_choice("Quantizer", self.quantizer, QUANTIZERS)
        check_choice("Gain", self.gain, GAINS)
        if not 1 <= self.activation_bits <= 16:
            raise InputError(f"Activation width must be 1 to 16 bits, not {self.activation_bits}")
        if self.lanes is not None and (not self.lanes or min(self.lanes) < 1):
            raise InputError("Lanes must be at least 1 for every layer")
        if self.clock_mhz is not None:
            _positive("Clock (MHz)", self.clock_mhz)
        check_choice("Link", self.link, LINKS)
        if self.baud is not None and not 1 <= self.baud <= _MOST_BAUD:
            raise InputError(f"Baud must be 1 to {_MOST_BAUD:,}, not {self.baud:,}")
        _check_code(self.code)
        _check_kinds(self.code_memory, self.multiplier)
        _check_engine(self.engine)
        if self.flash_bits is not None:
            self._check_flash_bits()
        grouped = any(choice.shared for choice in self.layers.values())
        if self.code_memory == "flash" and self.engine == AUTO and not grouped:
            object.__setattr__(self, "engine", Shared.kind)
        if self.code_memory == "flash" and grouped:
            raise InputError(
                "Codes must come from the flash for one engine of all layers, not of some"
            )
        if self.code_memory == "flash" and self.engine != Shared.kind:
            raise InputError(
                f"Codes must come from the flash for a shared engine, not for {self.engine} layers"
            )
        _check_windows(self.windows)
        _check_width("Results a transfer", self.stream_width)
        check_digit(self.digit, "Unrolled layers")
        _check_width("Activations a transfer of the input", self.input_width)
        _check_width("Activations a transfer of the output", self.output_width)
        if self.engine != AUTO and not engine_named(self.engine).for_all:
            names = ", ".join(kind for kind, engine in ENGINES.kinds().items() if engine.for_all)
            raise InputError(
                f"Engine of all layers must be {names} or {AUTO}; name what is {self.engine}"
            )
        if self.updatable and self.engine not in (AUTO, Folded.kind):
            raise InputError(f"Layers must be folded to be updatable, not {self.engine}")
        self._check_shared()

    def _check_flash_bits(self) -> None:
        """Raises InputError for what no flash gives a clock; asks for codes from the flash."""
        if self.flash_bits not in FLASH_BITS:
            known = ", ".join(map(str, FLASH_BITS[:-1]))
            raise InputError(
                f"Bits a clock from the flash must be {known} or {FLASH_BITS[-1]}, not "
                f"{self.flash_bits}"
            )
        if self.code_memory not in (None, "auto", "flash"):
            raise InputError(
                "Bits a clock from the flash must come with codes from there, not in "
                f"{self.code_memory}"
            )
        object.__setattr__(self, "code_memory", "flash")

    def _check_aims(self) -> None:
        """Raises InputError for accuracies, losses and speeds that can't be asked for."""
        if self.min_accuracy is not None and not 0 <= self.min_accuracy <= 100:
            raise InputError(f"Accuracy must be 0 to 100 percent, not {self.min_accuracy}")
        if self.max_loss is not None:
            if not 0 <= self.max_loss <= 100:
                raise InputError(f"Loss must be 0 to 100, not {self.max_loss}")
            if self.quantizer != "calibrated":
                raise InputError(
                    f"A loss must come with the calibrated quantizer, not {self.quantizer!r}"
                )
        check_choice("Objective", self.objective, OBJECTIVES)
        for what, value in (
            ("Inferences a second", self.inferences_per_second),
            ("Latency (microseconds)", self.max_latency),
        ):
            if value is not None:
                _positive(what, value)
        if self.goal and self.lanes is not None:
            raise InputError("Lanes of all layers must not be given where a speed is asked for")

    def _check_data(self) -> None:
        """Raises InputError for numbers of frames and sweeps that there can't be."""
        if self.frames != "auto" and not (isinstance(self.frames, int) and 1 <= self.frames <= 16):
            raise InputError(
                f"Frames side by side must be 1 to 16 or auto, not {self.frames!s:.60}"
            )
        if self.augment:
            parse_kinds(self.augment)
        if not 1 <= self.calibration_frames <= _MOST_FRAMES:
            raise InputError(
                f"Calibration frames must be 1 to {_MOST_FRAMES:,}, not {self.calibration_frames}"
            )
        if not 0 <= self.sweeps <= _MOST_SWEEPS:
            raise InputError(f"Sweeps must be 0 to {_MOST_SWEEPS}, not {self.sweeps}")
        if not 0 <= self.seed < 1 << 32:
            raise InputError(f"Seed must be 0 to 2**32 - 1, not {self.seed}")

    def _check_spare(self) -> None:
        """Raises InputError for room that weights can't have, or not where they are."""
        if self.updatable and self.decide.startswith("smoothed"):
            raise InputError("Updatable weights must come without --decide smoothed, whose margin "
                             "is wires")  # fmt: skip
        if self.spare is not None and not self.updatable:
            raise InputError("Spare room must come with updatable weights: --updatable")
        if self.spare is not None and not 0 <= self.spare <= _MOST_SPARE:
            raise InputError(f"Spare room must be 0 to {_MOST_SPARE} percent, not {self.spare}")
        if not 1 <= self.window_pulses <= _MOST_PULSES:
            raise InputError(
                f"Window pulses must be 1 to {_MOST_PULSES:,}, not {self.window_pulses}"
            )
        if not 0 <= self.share_sums <= _MOST_SHARED:
            raise InputError(
                f"Shared sums must cost 0 to {_MOST_SHARED} percent, not {self.share_sums:g}"
            )
        if self.share_sums and (self.quantizer != "calibrated" or not self.sweeps):
            raise InputError("Shared sums must come with the calibrated quantizer and its sweeps")
        if not 0 <= self.gain_digits <= MOST_GAIN_DIGITS:
            raise InputError(
                f"Gain digits must be 1 to {MOST_GAIN_DIGITS}, or 0 for all, not {self.gain_digits}"
            )
        if self.updatable and self.code_memory == "spram":
            raise InputError("Updatable weights must be in block RAM, not in SPRAM")

    @property
    def goal(self) -> SpeedGoal:
        """The speed asked for."""
        return SpeedGoal(self.inferences_per_second or 0.0, self.max_latency or 0.0)

    @property
    def may_share(self) -> bool:
        """Whether nothing is asked that an engine for all layers couldn't do."""
        kept = {"ratio", "k", "unit", "encoding", "keep_zeros", "balanced"}
        return (
            (self.frames, self.windows, self.updatable) == (1, None, False)
            and self.code in ("pulse", "pvq", "auto")
            and all(
                getattr(choice, f.name) == f.default
                for choice in self.layers.values()
                for f in fields(choice)
                if f.name not in kept
            )
        )

    def _check_shared(self) -> None:
        kinds = [choice.engine for choice in self.layers.values()]
        grouped = Shared.kind in kinds or (self.engine == Shared.kind and any(kinds))
        if grouped and (self.frames not in (1, "auto") or self.updatable):
            raise InputError(
                "A shared engine takes one frame at a time, and new weights of it need synthesis"
            )
        if self.engine == "shared" and not grouped and not self.may_share:
            raise InputError(
                "A shared engine takes one frame and one window at a time, has codes of single "
                "pulses, and must be asked for without engines, lanes, codes, code memories or "
                "multipliers of single layers"
            )

    def codes(self, names: Sequence[str]) -> dict[str, str]:
        """``"pulse"``, ``"shifted"`` or another kind, of those layers whose code is not free."""
        asked = {n: (self.layers[n].code if n in self.layers else None) or self.code for n in names}
        return {name: code for name, code in asked.items() if code not in ("auto", "pvq")}

    @property
    def shares(self) -> bool:
        """Whether an engine of several layers is asked for."""
        return self.engine == Shared.kind or any(x.shared for x in self.layers.values())

    def free(self, names: Sequence[str]) -> set[str]:
        """Those of the layers, int8 and only resolved, that may get 8-bit weights unasked."""
        if self.quantizer == "given":
            return set()
        kept = {
            name
            for name, choice in self.layers.items()
            if choice.settled
            or choice.keep_zeros
            or choice.code not in (None, "auto")
            or choice.windows is not None
            or choice.stream_width is not None
            or choice.digit is not None
        }
        auto = {n for n, c in self.layers.items() if c.code == "auto"}
        return {name for name in names if self.code == "auto" or name in auto} - kept

    def asked(self, names: Sequence[str], engine: str) -> dict[str, dict[str, Any]]:
        """Options of `pvq_hw.engine.kinds.make_layer_core` by layer, for what is not left to the
        planner.

        ``engine`` is a key of `pvq_hw.target.families.FAMILIES`. Raises InputError for DSP blocks
        where there are none, and for 8-bit weights in SPRAM.
        """
        found: dict[str, dict[str, Any]] = {}
        for name in names:
            choice = self.layers.get(name, LayerChoice())
            memory = choice.code_memory or self.code_memory or "auto"
            kind = choice.multiplier or self.multiplier
            part: dict[str, Any] = {} if memory == "auto" else {"code_memory": memory}
            if self.flash_bits is not None:
                part["flash_bits"] = self.flash_bits
            if choice.code_memory == "spram" and choice.encoding == "int8":
                raise InputError(f"Layer {name!r}: 8-bit weights are in block RAM, not in SPRAM")
            if kind == "dsp" and not family(engine).blocks_multiply:
                raise InputError(f"Layer {name!r}: there are no DSP blocks to multiply with")
            wanted = choice.engine or self.engine
            if self.updatable:
                part |= self._updatable(name, memory, wanted)
                wanted = Folded.kind
            if wanted == AUTO:
                part |= {} if _is_folded(choice) else {"engine": AUTO}
            elif wanted != Folded.kind:
                lanes = self.lanes is not None or choice.lanes is not None
                if lanes and not engine_named(wanted).laned:
                    raise InputError(
                        f"Layer {name!r} is {wanted} and has no lanes: give those of the others "
                        "one by one, in a configuration"
                    )
                part["engine"] = wanted
            if choice.windows is not None:
                part["windows"] = choice.windows
            if choice.stream_width is not None:
                part["stream_width"] = choice.stream_width
            if choice.digit is not None:
                part["digit"] = choice.digit
            if kind != "auto":
                part["multiplier"] = "serial" if kind == "logic" else family(engine).multiplier
            if part:
                found[name] = part
        return found

    def _updatable(self, name: str, memory: str, engine: str) -> dict[str, Any]:
        """What an updatable layer asks of its core."""
        if engine not in (AUTO, Folded.kind):
            raise InputError(f"Layer {name!r} must be folded to be updatable, not {engine}")
        if memory == "spram":
            raise InputError(f"Layer {name!r} must have its codes in block RAM to be updatable")
        spare = SPARE if self.spare is None else self.spare
        return {"spare": spare, "params_memory": "block", "code_memory": "block"}

    def resolved(self, names: Sequence[str]) -> "CompileOptions":
        """The same with ``int8``, ``only``, ``keep_zeros`` and ``balanced`` said layer by layer.

        Raises InputError for a layer that is not among the model's ``names``.
        """
        int8 = tuple(names) if self.int8 == ("all",) and "all" not in names else self.int8
        for name in (*self.layers, *int8, *self.only):
            if name not in names:
                raise InputError(f"Layer {quoted(name)} must be one of {', '.join(names)}")
        plain = {*int8, *(n for n in names if self.only and n not in self.only)}
        layers = dict(self.layers)
        for name in names:
            if name in plain:
                choice = layers.get(name, LayerChoice())
                layers[name] = LayerChoice(
                    encoding="int8",
                    lanes=choice.lanes,
                    code_memory=choice.code_memory,
                    multiplier=choice.multiplier,
                    windows=choice.windows,
                    stream_width=choice.stream_width,
                    digit=choice.digit,
                    engine=choice.engine,
                )
            elif name in self.only and name in layers:
                layers[name] = replace(layers[name], encoding="pvq")
            if name not in plain:
                choice = layers.get(name, LayerChoice())
                zeros, even = (
                    self.keep_zeros or choice.keep_zeros,
                    self.balanced and choice.balanced,
                )
                if (zeros, even) != (choice.keep_zeros, choice.balanced):
                    layers[name] = replace(choice, keep_zeros=zeros, balanced=even)
        return replace(self, layers=layers, int8=(), only=(), keep_zeros=False, balanced=True)


def _check_code(code: str | None) -> None:
    if code not in (None, "pulse", "shifted", "pvq", "auto", *CODES.kinds()):
        more = "".join(f"{kind}, " for kind in CODES.kinds() if kind != "pulse")
        raise InputError(f"Code must be pulse, shifted, {more}pvq or auto, not {code!r:.60}")


def _check_engine(engine: str | None) -> None:
    if engine is not None:
        check_engine(engine, "Engine", AUTO)


def _is_folded(choice: LayerChoice) -> bool:
    """Whether a layer has options that only folded ones have."""
    return (
        choice.lanes is not None
        or choice.windows is not None
        or choice.code not in (None, "pvq", "auto")
        or choice.code_memory not in (None, "auto")
    )


def _check_windows(windows: int | None) -> None:
    if windows is not None and not 1 <= windows <= 16:
        raise InputError(f"Windows side by side must be 1 to 16, not {windows}")


def _check_width(what: str, width: int | None) -> None:
    if width is not None and not 1 <= width <= _MOST_WIDTH:
        raise InputError(f"{what} must be 1 to {_MOST_WIDTH:,}, not {width}")


def _check_kinds(code_memory: str | None, multiplier: str | None) -> None:
    if code_memory not in (None, "auto", "block", "spram", "flash"):
        raise InputError(
            f"Code memory must be block, spram, flash or auto, not {code_memory!r:.60}"
        )
    if multiplier not in (None, "auto", "dsp", "logic"):
        raise InputError(f"Multiplier must be dsp, logic or auto, not {multiplier!r:.60}")


def load_options(
    config: Path | None, overrides: Mapping[str, Any], *, calibrated: bool = False
) -> CompileOptions:
    """Options from a TOML file (if any), then ``overrides`` that are not None.

    The file has the fields of `CompileOptions` at the top and a table per layer::

        target = "ulx3s-25f"
        ratio = 5
        [layers.fc3]
        ratio = 1.5

    With ``calibrated``, which says that there are inputs to choose by, a loss of `LOSS` is aimed at
    where neither a ratio nor a loss is given, as far as the quantizer looks at inputs and not all
    layers are to have 8-bit weights.

    Raises InputError for unknown keys, wrong types and impossible values.
    """
    values: dict[str, Any] = {}
    if config is not None:
        table = load_toml(config, "a configuration")
        values = read_fields(CompileOptions, table, str(config))
    given = {key: value for key, value in overrides.items() if value is not None}
    values |= read_fields(CompileOptions, given, "The configuration")
    if "max_loss" in values and "ratio" in values:
        raise InputError("Either a ratio or a loss must be given, not both")
    options = CompileOptions(**values)
    free = calibrated and options.quantizer == "calibrated" and options.int8 != ("all",)
    if free and not {"max_loss", "ratio"} & values.keys():
        return replace(options, max_loss=LOSS, aim=True)
    return options


def _positive(what: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise InputError(f"{what} must be a number above 0, not {value}")
    if not _LEAST <= value <= _MOST:
        raise InputError(f"{what} must be {_LEAST:g} to {_MOST:g}, not {value:g}")
