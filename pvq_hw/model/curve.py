"""Functions of one value, as small programs over ONNX's operators.

A `Curve` is what stands between two layers and reads one activation: a single operator, or a chain
or pattern of several (``x * sigmoid(x)``). `PRIMITIVES` holds every operator once: its float
function, its attributes, its constant operands. The importer, the exporter and the tables of the
integer network all read that list, so a new activation function is one entry in it.

Everything is computed from sums, products and `pvq_hw.arith.exact`'s exponential and logarithm, so
values and tables are the same on every machine.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith import exact
from pvq_hw.errors import InputError

__all__ = ["MOST_OPERATIONS", "PRIMITIVES", "Curve", "Primitive", "X", "constant", "primitive"]

FloatArray = npt.NDArray[np.float64]

MOST_OPERATIONS = 40
"""The most that one curve has; the importer starts another table beyond that."""

_STEP = 1e-4  # of a difference quotient, at least, and relative to the value


@dataclass(frozen=True)
class Primitive:
    """An operator of one computed value.

    Parameters
    ----------
    name : str
        As ONNX calls it.
    function : function (x, constants..., \\*\\*attributes) -> array
        On float64 arrays; constants are scalars or vectors over the last axis.
    attributes : dict of name to default
    operands : int
        Inputs of the operator; all but one are constants, or values of the same tensor.
    opset : int
        The first that has the operator.
    spelling : dict of str
        Attributes that tell it from others of the same name.
    """

    name: str
    function: Callable[..., Any]
    attributes: Mapping[str, float] = field(default_factory=dict)
    operands: int = 1
    opset: int = 1
    spelling: Mapping[str, str] = field(default_factory=dict)


PRIMITIVES: dict[str, Primitive] = {}


def primitive(
    name: str,
    operands: int = 1,
    opset: int = 1,
    spelling: tuple[str, Mapping[str, str]] | None = None,
    **attributes: float,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: registers an operator's float function; ``spelling`` is ONNX's name for it, and
    the attributes that say which of several it is, where ``name`` isn't that name."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        called, told = spelling or (name, {})
        PRIMITIVES[name] = Primitive(called, function, attributes, operands, opset, told)
        return function

    return register


@dataclass(frozen=True)
class Curve:
    """A function of one value.

    Parameters
    ----------
    kind : str
        ``"x"`` (the value itself), ``"constant"``, or a key of `PRIMITIVES`.
    args : tuple of Curve
        Operands.
    values : tuple of float
        A constant's value, or one for each channel; else the operator's attributes, in their order.

    Raises
    ------
    InputError
        For an operator that isn't known, or operands or attributes that it doesn't have.
    """

    kind: str
    args: "tuple[Curve, ...]" = ()
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind in ("x", "constant"):
            right = not self.args and (self.kind == "x") == (not self.values)
        elif self.kind in PRIMITIVES:
            known = PRIMITIVES[self.kind]
            right = len(self.args) == known.operands and len(self.values) == len(known.attributes)
        else:
            raise InputError(f"Function {self.kind!r} isn't known")
        if not right:
            raise InputError(f"Function {self.kind!r} doesn't have these operands or attributes")

    @cached_property
    def operations(self) -> int:
        """How many operators it is made of, shared ones counted once for each use."""
        return sum(arg.operations for arg in self.args) + bool(self.args)

    @cached_property
    def channels(self) -> int:
        """Channels of which each has constants of its own; 1 where all have the same."""
        own = len(self.values) if self.kind == "constant" else 1
        return max([own, *(arg.channels for arg in self.args)])

    def __call__(self, x: npt.ArrayLike) -> FloatArray:
        """Arrays of any shape, channels last -> float64 of that shape."""
        array = np.asarray(x, dtype=np.float64)
        with np.errstate(all="ignore"):
            found = np.asarray(self._value(array), dtype=np.float64)
        return found if found.shape == array.shape else np.broadcast_to(found, array.shape).copy()

    def _value(self, x: FloatArray) -> Any:
        if self.kind == "x":
            return x
        if self.kind == "constant":
            return self.values[0] if len(self.values) == 1 else np.array(self.values)
        known = PRIMITIVES[self.kind]
        attributes = dict(zip(known.attributes, self.values, strict=True))
        return known.function(*(arg._value(x) for arg in self.args), **attributes)

    def slope(self, x: npt.ArrayLike) -> FloatArray:
        """The derivative, as a quotient of differences around each value."""
        array = np.asarray(x, dtype=np.float64)
        step = _STEP * np.maximum(np.abs(array), 1.0)
        return np.asarray((self(array + step) - self(array - step)) / (2 * step))

    def of(self, inner: "Curve") -> "Curve":
        """This function of what another one gives."""
        if self.kind == "x":
            return inner
        return Curve(self.kind, tuple(arg.of(inner) for arg in self.args), self.values)

    def scaled(self, before: float, after: float) -> "Curve":
        """``after * f(before * x)``."""
        return Curve("Mul", (self.of(Curve("Mul", (X, constant(before)))), constant(after)))

    def tiled(self, times: int) -> "Curve":
        """The same for ``times`` as many channels: those of each constant over and over."""
        values = self.values * times if self.kind == "constant" and len(self.values) > 1 else None
        args = tuple(arg.tiled(times) for arg in self.args)
        return Curve(self.kind, args, self.values if values is None else values)

    def __str__(self) -> str:
        if self.kind == "x":
            return "x"
        if self.kind == "constant":
            return f"{self.values[0]:g}" if len(self.values) == 1 else f"{len(self.values)} values"
        if self.kind in _INFIX:
            left, right = (f"({a})" if a.kind in _INFIX else str(a) for a in self.args)
            return f"{left} {_INFIX[self.kind]} {right}"
        inside = [*map(str, self.args), *(f"{value:g}" for value in self.values)]
        return f"{self.kind}({', '.join(inside)})"


_INFIX = {"Add": "+", "Sub": "-", "Mul": "*", "Div": "/"}
X = Curve("x")


def constant(*values: float) -> Curve:
    """A constant, or one for each channel."""
    return Curve("constant", (), tuple(float(v) for v in values))


# -- arithmetic -----------------------------------------------------------------------------------


@primitive("Add", 2)
def _add(a: Any, b: Any) -> Any:
    return a + b


@primitive("Sub", 2)
def _sub(a: Any, b: Any) -> Any:
    return a - b


@primitive("Mul", 2)
def _mul(a: Any, b: Any) -> Any:
    return a * b


@primitive("Div", 2)
def _div(a: Any, b: Any) -> Any:
    return np.divide(a, b)


@primitive("Pow", 2)
def _pow(a: Any, b: Any) -> Any:
    power = float(b) if np.ndim(b) == 0 else math.nan
    if power.is_integer() and 0 <= power <= 16:  # products, so the same on every machine
        return math.prod([a] * int(power), start=np.ones_like(a))
    value = _exp(b * exact.log(np.maximum(a, 1e-300)))
    return np.where(a > 0, value, np.where((a == 0) & (b > 0), 0.0, np.nan))


@primitive("Max", 2)
def _max(a: Any, b: Any) -> Any:
    return np.maximum(a, b)


@primitive("Min", 2)
def _min(a: Any, b: Any) -> Any:
    return np.minimum(a, b)


@primitive("Neg")
def _neg(x: Any) -> Any:
    return -x


@primitive("Abs")
def _abs(x: Any) -> Any:
    return np.abs(x)


@primitive("Sign", opset=9)
def _sign(x: Any) -> Any:
    return np.sign(x)


@primitive("Sqrt")
def _sqrt(x: Any) -> Any:
    return np.sqrt(x)


@primitive("Reciprocal")
def _reciprocal(x: Any) -> Any:
    return np.divide(1.0, x)


@primitive("Exp")
def _exp(x: Any) -> Any:
    return exact.exp(np.clip(x, -700.0, 700.0))


@primitive("Log")
def _log(x: Any) -> Any:
    return np.where(x > 0, exact.log(np.maximum(x, 1e-300)), np.nan)


@primitive("Erf", opset=9)
def _erf(x: Any) -> Any:
    """W. Press et al., "Numerical Recipes", 3rd ed., section 6.2.2: to 1.2e-16 or so."""
    z = np.minimum(np.abs(x), 6.0)
    t = 2.0 / (2.0 + z)
    twice = 4.0 * t - 2.0
    d, below = np.zeros_like(z), np.zeros_like(z)
    for c in _ERFC[:0:-1]:
        d, below = twice * d - below + c, d
    return np.sign(x) * (1.0 - t * _exp(-z * z + 0.5 * (_ERFC[0] + twice * d) - below))


_ERFC = (
    -1.3026537197817094, 6.4196979235649026e-1, 1.9476473204185836e-2, -9.561514786808631e-3,
    -9.46595344482036e-4, 3.66839497852761e-4, 4.2523324806907e-5, -2.0278578112534e-5,
    -1.624290004647e-6, 1.303655835580e-6, 1.5626441722e-8, -8.5238095915e-8, 6.529054439e-9,
    5.059343495e-9, -9.91364156e-10, -2.27365122e-10, 9.6467911e-11, 2.394038e-12,
    -6.886027e-12, 8.94487e-13, 3.13092e-13, -1.12708e-13, 3.81e-16, 7.106e-15, -1.523e-15,
    -9.4e-17, 1.21e-16, -2.8e-17,
)  # fmt: skip


# -- activation functions -------------------------------------------------------------------------


@primitive("Relu")
def _relu(x: Any) -> Any:
    return np.maximum(x, 0.0)


@primitive("Clip", 3, opset=11)
def _clip(x: Any, low: Any, high: Any) -> Any:
    return np.minimum(np.maximum(x, low), high)


@primitive("LeakyRelu", alpha=0.01)
def _leaky_relu(x: Any, alpha: float) -> Any:
    return np.where(x < 0, alpha * x, x)


@primitive("PRelu", 2, opset=7)
def _prelu(x: Any, slope: Any) -> Any:
    return np.where(x < 0, slope * x, x)


@primitive("ThresholdedRelu", opset=10, alpha=1.0)
def _thresholded_relu(x: Any, alpha: float) -> Any:
    return np.where(x > alpha, x, 0.0)


@primitive("Shrink", opset=9, bias=0.0, lambd=0.5)
def _shrink(x: Any, bias: float, lambd: float) -> Any:
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0.0))


@primitive("Elu", alpha=1.0)
def _elu(x: Any, alpha: float) -> Any:
    return np.where(x < 0, alpha * (_exp(np.minimum(x, 0.0)) - 1.0), x)


@primitive("Selu", alpha=1.6732632423543772, gamma=1.0507009873554805)
def _selu(x: Any, alpha: float, gamma: float) -> Any:
    return gamma * _elu(x, alpha)


@primitive("Celu", opset=12, alpha=1.0)
def _celu(x: Any, alpha: float) -> Any:
    return np.where(x < 0, alpha * (_exp(np.minimum(x, 0.0) / alpha) - 1.0), x)


@primitive("Sigmoid")
def _sigmoid(x: Any) -> Any:
    small = _exp(-np.abs(x))
    return np.where(x < 0, small, 1.0) / (1.0 + small)


@primitive("HardSigmoid", alpha=0.2, beta=0.5)
def _hard_sigmoid(x: Any, alpha: float, beta: float) -> Any:
    return _clip(alpha * x + beta, 0.0, 1.0)


@primitive("Tanh")
def _tanh(x: Any) -> Any:
    small = _exp(-2.0 * np.abs(x))
    return np.sign(x) * (1.0 - small) / (1.0 + small)


@primitive("Softplus")
def _softplus(x: Any) -> Any:
    return np.maximum(x, 0.0) + exact.log(1.0 + _exp(-np.abs(x)))


@primitive("Softsign")
def _softsign(x: Any) -> Any:
    return x / (1.0 + np.abs(x))


@primitive("Gelu", opset=20)
def _gelu(x: Any) -> Any:
    return 0.5 * x * (1.0 + _erf(x * math.sqrt(0.5)))


@primitive("GeluTanh", opset=20, spelling=("Gelu", {"approximate": "tanh"}))
def _gelu_tanh(x: Any) -> Any:
    return 0.5 * x * (1.0 + _tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


@primitive("Swish", opset=24, alpha=1.0)
def _swish(x: Any, alpha: float) -> Any:
    return x * _sigmoid(alpha * x)


@primitive("HardSwish", opset=14)
def _hard_swish(x: Any) -> Any:
    return x * _hard_sigmoid(x, 1.0 / 6.0, 0.5)


@primitive("Mish", opset=18)
def _mish(x: Any) -> Any:
    return x * _tanh(_softplus(x))
