"""One layer's core as an output folder of its own: weights in, a drop-in core out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import LARGEST, IntFormat
from pvq_hw.choices import check_choice
from pvq_hw.engine.engines import Unrolled, check_engine, engine_named
from pvq_hw.engine.spram_image import has_spram
from pvq_hw.engine.unrolled_core import check_digit
from pvq_hw.errors import InputError
from pvq_hw.flow.compile import write_core_files
from pvq_hw.flow.options import CompileOptions
from pvq_hw.geometry import Geometry
from pvq_hw.model.curve import Curve
from pvq_hw.model.objects import CURVES, curve_named
from pvq_hw.network.golden_inputs import golden_inputs
from pvq_hw.network.layer import Dense, Layer, TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.network.window import Conv
from pvq_hw.output.folder import OutputFolder
from pvq_hw.output.golden_vectors import write_vectors
from pvq_hw.output.manifest import write_manifest
from pvq_hw.output.report import document_of, write_report
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import plan
from pvq_hw.progress import Steps
from pvq_hw.pyramid.nearest import Quantized, gain, pulses_for, quantize
from pvq_hw.quantizer.banks import can_balance, nearest_even
from pvq_hw.quantizer.requantization import feasible_scale, int8_codes, requantization
from pvq_hw.quantizer.tables import ENTRY_BITS, table_layer
from pvq_hw.target.boards import get_target

__all__ = ["LayerRequest", "Slide", "compile_layer", "layer_network"]

_NAME, _TABLE = "layer", "activation"
_X, _OUT = IntFormat(8, False), IntFormat(16, True)


@dataclass(frozen=True)
class Slide:
    """How the window of a convolution slides over its map; one number stands for both axes.

    Parameters
    ----------
    size : (height, width) or (width,)
        The map's; one number for a 1-D convolution.
    stride, dilation : tuple of int
        For each axis, or one for all.
    pads : tuple of int
        (top, bottom, left, right), (before, after) of a 1-D convolution, or one for all sides.
    groups : int
    windows : int, optional
        V, 1 to 16: windows side by side.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...] = (1,)
    pads: tuple[int, ...] = (0,)
    dilation: tuple[int, ...] = (1,)
    groups: int = 1
    windows: int | None = None

    def geometry(self, shape: tuple[int, ...]) -> Geometry:
        """How the window slides for weights of ``shape`` (rows, channels of a group, *kernel);
        raises InputError where they don't match."""
        axes = len(shape) - 2
        if axes not in (1, 2) or len(self.size) != axes:
            raise InputError(
                f"A convolution must have weights (rows, channels, kernel) and a map of as many "
                f"axes as its kernel, not {shape} and {self.size}"
            )
        if self.groups < 1 or shape[0] % self.groups:
            raise InputError(f"Groups must divide the {shape[0]} rows, not {self.groups}")
        flat = {"stride": self.stride, "dilation": self.dilation, "pads": self.pads}
        for name, values in flat.items():
            wanted = axes * (1 + (name == "pads"))
            if len(values) not in (1, wanted):
                raise InputError(f"The {name} must be 1 or {wanted} numbers, not {len(values)}")
        pads = (self.pads * 2 * axes)[: 2 * axes]
        return Geometry(
            (*_pair(self.size), shape[1] * self.groups),
            _pair(shape[2:]),
            _pair((self.stride * axes)[:axes]),
            ((0, 0), (pads[0], pads[1])) if axes == 1 else ((pads[0], pads[1]), (pads[2], pads[3])),
            _pair((self.dilation * axes)[:axes]),
        )


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    """The values for rows and columns; a 1-D map has a single row."""
    return (1, values[0]) if len(values) == 1 else (values[0], values[1])


@dataclass(frozen=True)
class LayerRequest:
    """What `pvq-hw layer` is asked for.

    Parameters
    ----------
    k, ratio : one of them
        Pulses of each row, or N/K; neither of 8-bit weights.
    gain : str
        ``"least-squares"`` or ``"norm"``.
    lanes : int
    balanced : bool
        Where a row has as many pulses as lanes, and four columns a lane or more, they are spread
        evenly over the lanes; K from N/K is then rounded to a multiple of them. False takes the
        nearest codewords, whose lanes may wait for one another.
    x, out : IntFormat
    target : str
        A board; its family decides memories and multiplier.
    vectors : int
        Golden vectors to write.
    seed : int
        Of the random ones.
    code : str
        ``"pulse"``, ``"shifted"`` or ``"auto"``, see `pvq_hw.flow.options.CompileOptions`.
    frames : int
        V, 1 to 16: frames whose activations come and go in one transfer.
    engine : str
        ``"folded"``, or ``"unrolled"``: no lanes, one frame at a time, weights as wires; of a
        convolution of one channel a row also ``"depthwise"``.
    digit : int, optional
        1, 2, 4 or 8: bits that an unrolled layer's adders take a cycle; 0: all at once.
    slide : Slide, optional
        Makes the layer a convolution, with weights (rows, channels, *kernel).
    activation : str
        One of `pvq_hw.model.objects.CURVES`: a table behind the layer, whose results ``out`` says
        the bits of. ``"relu"`` is what ``out`` without a sign does anyway.
    x_scale : float
        What an activation of 1 stands for.
    table_bits : int
        Of the sums that the table reads, 8 to 12.
    table_range : float, optional
        At which sums saturate in the table, as these are without the scale of the results; by
        default none does.
    multiplier : str
        ``"dsp"``, ``"logic"`` or ``"auto"``.
    int8 : bool
        Plain 8-bit weights instead of pulses.
    code_memory : str
        ``"block"``, ``"spram"`` or ``"auto"``, see `pvq_hw.flow.options.CompileOptions`.
    """

    k: int | None = None
    ratio: float | None = None
    gain: str = "least-squares"
    lanes: int = 8
    x: IntFormat = _X
    out: IntFormat = _OUT
    target: str = "ulx3s-25f"
    vectors: int = 16
    seed: int = 0
    code: str = "auto"
    frames: int = 1
    balanced: bool = True
    engine: str = "folded"
    digit: int | None = None
    slide: Slide | None = None
    activation: str = ""
    x_scale: float = 1.0
    table_bits: int = 10
    table_range: float | None = None
    multiplier: str = "auto"
    int8: bool = False
    code_memory: str = "auto"

    def __post_init__(self) -> None:
        if self.code not in ("auto", "pulse", "shifted"):
            raise InputError(f"Code must be pulse, shifted or auto, not {self.code!r:.60}")
        self._check_weights()
        if not 1 <= self.frames <= 16:
            raise InputError(f"Frames side by side must be 1 to 16, not {self.frames}")
        check_engine(self.engine)
        if not engine_named(self.engine).for_one:
            raise InputError(f"Engine {self.engine} is of a whole network, not of one layer")
        check_digit(self.digit, "Unrolled layer")
        if self.digit is not None and self.engine != Unrolled.kind:
            raise InputError(f"A layer must be unrolled to have a digit, not {self.engine}")
        if self.slide is not None and self.frames > 1:
            raise InputError("A convolution takes windows side by side, not frames: leave frames 1")
        self._check_function()
        if not 1 <= self.vectors <= 10_000:
            raise InputError(f"Golden vectors must be 1 to 10000, not {self.vectors}")
        if not 0 <= self.seed < 1 << 32:
            raise InputError(f"Seed must be 0 to 2**32 - 1, not {self.seed}")

    def _check_weights(self) -> None:
        """Raises InputError unless they are pulses of some K, or of 8 bits."""
        pulses = (self.k is None) + (self.ratio is None)
        if not self.int8 and pulses != 1:
            raise InputError("A layer must have K or N/K: give --k or --ratio")
        if not self.int8:
            return
        if pulses != 2 or self.code != "auto":
            raise InputError(
                "A layer of 8-bit weights has no pulses: leave out --k, --ratio, --code"
            )
        if self.code_memory == "spram":
            raise InputError("8-bit weights are in block RAM, not in SPRAM")
        if self.frames > 1:
            raise InputError("A layer of 8-bit weights takes one frame at a time: leave frames 1")

    def _check_function(self) -> None:
        """Raises InputError for tables that can't be, and for a range or scale without one."""
        for what, value in (("Scale of activations", self.x_scale), ("Range", self.table_range)):
            if value is not None and not (0 < value <= LARGEST):
                raise InputError(f"{what} must be above 0 and at most {LARGEST:g}, not {value:g}")
        if not self.activation:
            if self.table_range is not None:
                raise InputError("A range must come with an activation whose table has it")
            return
        check_choice("Activation", self.activation, CURVES)
        if self.table_bits not in ENTRY_BITS:
            raise InputError(
                f"Table must read {ENTRY_BITS[0]} to {ENTRY_BITS[-1]} bits, not {self.table_bits}"
            )
        if self.frames > 1:
            raise InputError("A table takes one frame at a time: leave frames 1")

    @property
    def alone(self) -> bool:
        """Whether the layer is a core with nothing before or behind it, and nothing to load."""
        return self.slide is None and self.curve is None and self.code_memory != "spram"

    @property
    def curve(self) -> Curve | None:
        """The function that is a table behind the layer."""
        named = self.activation not in ("", "relu")
        return curve_named(self.activation) if named else None


def layer_network(
    weights: npt.NDArray[np.float64], bias: npt.NDArray[np.float64] | None, ask: LayerRequest
) -> Network:
    """A network of one layer.

    An activation stands for its integer value times ``x_scale``; a result of ``v`` stands for
    ``v * output.scale``, the finest scale at which no input whatever saturates (with ReLU: beyond
    0). Of a function behind the layer that is the scale of its values.

    Raises InputError for weights that are no finite matrix, and for an impossible K.
    """
    if weights.dtype.kind not in "fiu":
        raise InputError(f"Weights must be real numbers, not {weights.dtype}")
    slide, shape = ask.slide, weights.shape
    if (slide is None and weights.ndim != 2) or weights.size == 0:
        more = "; those of a convolution need the size of its map" if weights.ndim > 2 else ""
        raise InputError(f"Weights must be a matrix (rows, columns), not {shape}{more}")
    geometry = None if slide is None else slide.geometry(shape)
    if not np.isfinite(weights).all():
        raise InputError("Weights must be finite, but hold NaN or infinities")
    matrix = _matrix(weights)
    rows, n = matrix.shape
    real_bias = np.zeros(rows) if bias is None else np.asarray(bias, dtype=np.float64)
    if real_bias.shape != (rows,) or not np.isfinite(real_bias).all():
        raise InputError(f"Biases must be {rows} finite numbers, not {real_bias.shape}")
    for what, array in (("Weights", weights), ("Biases", real_bias)):
        if max(-float(array.min()), float(array.max())) > LARGEST:
            raise InputError(f"{what} must be at most {LARGEST:g} in magnitude")
    codes = _codes(matrix, ask)
    k = np.abs(codes.y).sum(axis=1, keepdims=True)
    steps = k * ask.x.max_abs * ask.x_scale * codes.gain
    largest = min(float((steps + np.abs(real_bias)[:, None]).max()), ask.table_range or np.inf)
    curve = ask.curve
    fmt = ask.out if curve is None else IntFormat(ask.table_bits, True)
    scale = feasible_scale(codes.gain, ask.x_scale, max(largest, 1e-30) / fmt.max)
    numbers = requantization(codes.gain, real_bias, k, ask.x, ask.x_scale, fmt, scale)
    parts: dict[str, Any] = {"name": _NAME, "input": "x", "y": codes.y, "mult": numbers.mult,
             "bias": numbers.bias, "shift": numbers.shift, "gain": codes.gain,
             "encoding": "int8" if ask.int8 else "pvq"}  # fmt: skip
    meta = {"quantizer": "plain", "seed": ask.seed, "source_sha256": None, "input_scale": 1.0}
    given = "y" if curve is None else "sums"
    if geometry is None or slide is None:
        x = TensorSpec("x", (n,), ask.x, ask.x_scale)
        dense = Dense(output=TensorSpec(given, (rows,), fmt, scale), **parts)
        return Network(_NAME, x, _layers(dense, ask), (n,), (0,), meta)
    output = TensorSpec(given, (*geometry.output_size, rows), fmt, scale)
    conv = Conv(output=output, geometry=geometry, groups=slide.groups, **parts)
    size, channels = slide.size, geometry.input_shape[2]
    x = TensorSpec("x", (*size, channels), ask.x, ask.x_scale)
    axes = (*range(1, weights.ndim - 1), 0)
    return Network(_NAME, x, _layers(conv, ask), (channels, *size), axes, meta)


def _layers(weighted: Dense | Conv, ask: LayerRequest) -> tuple[Layer, ...]:
    """The layer with weights, and the table behind it."""
    if ask.curve is None:
        return (weighted,)
    z = weighted.output
    table = table_layer(_TABLE, ask.curve, z, "y", z.shape, None, ask.out.bits, True)
    return weighted, table


def _matrix(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(rows, columns), those of a window in the order (kernel row, kernel column, channel)."""
    order = (0, *range(2, weights.ndim), 1)
    return weights.astype(np.float64).transpose(order).reshape(len(weights), -1)


def _codes(w: npt.NDArray[np.float64], ask: LayerRequest) -> Quantized:
    """The nearest codewords, or those with as many pulses for every lane."""
    if ask.int8:
        y, scale = int8_codes(w)
        return Quantized(y=y, gain=scale)
    n, lanes = w.shape[1], ask.lanes
    k = ask.k if ask.ratio is None else pulses_for(n, ask.ratio)
    assert k is not None
    balanced = ask.balanced and engine_named(ask.engine).laned
    if not (balanced and 1 < lanes <= n and can_balance(k, n, lanes)):
        return quantize(w, k=k, rule=ask.gain)
    if ask.k is None:
        k = (2 * k + lanes) // (2 * lanes) * lanes
    y = nearest_even(w, k, lanes)
    return Quantized(y=y, gain=gain(w, y, ask.gain)[:, None])


def compile_layer(
    weights: npt.NDArray[np.float64],
    out: Path,
    ask: LayerRequest,
    *,
    bias: npt.NDArray[np.float64] | None = None,
    steps: Steps | None = None,
) -> dict[str, Any]:
    """Writes the output folder of one layer's core; gives the document of `compile`.

    Besides what every output has, ``OUT/testbench`` of a dense layer is a package that runs with
    Icarus alone; of a convolution, or with a table, it is the testbench that every compiled network
    has.
    """
    from gateware.export.export import unit_lines
    from gateware.export.package import write_layer_package, write_testbench
    from pvq_hw.tools import find as tools

    tell = steps or Steps()
    with OutputFolder(out).replace() as staging:
        with tell.step("Quantize to the pyramid"):
            network = layer_network(weights, bias, ask)
            network.verify()
        with tell.step("Plan the core"):
            side: dict[str, Any] = {"frames": ask.frames, "serial": False}
            codes = {} if ask.code == "auto" else {_NAME: ask.code}
            lanes = [ask.lanes] if engine_named(ask.engine).laned else None
            board = get_target(ask.target)
            asked = CompileOptions(target=board.name, multiplier=ask.multiplier,
                                   code_memory=ask.code_memory)  # fmt: skip
            planned = plan(
                network,
                board,
                lanes=lanes,
                each=asked.asked([_NAME], board.engine),
                top=False,
                codes=codes,
                engine=ask.engine,
                windows=ask.slide.windows if ask.slide else None,
                digit=ask.digit,
                **side,
            )
            image = emit(network, planned)
        tools.warm_up(["yosys"], tell.note)
        with tell.step("Write Verilog, memory files, vectors and testbench"):
            x = golden_inputs(network, ask.vectors, ask.seed)
            write_core_files(staging, network, planned, image)
            write_vectors(staging, network, x)
            if ask.alone and not has_spram(image.specs):
                core = image.specs[0], image.cores[0]
                write_layer_package(
                    staging / "testbench", *core, x, network.predict(x), unit_lines(network)
                )
            else:
                last = network.layers[-1].name
                write_testbench(staging, image, planned, len(x), last, unit_lines(network))
            manifest = write_manifest(staging, network, planned, weights={_NAME: _matrix(weights)})
            document = document_of(staging, network, planned, manifest)
            write_report(staging, {"compile": document})
    return document
