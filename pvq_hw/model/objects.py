"""Models that are Python objects, made into files that the importers read.

Nothing is imported for objects of other packages: they are known by the names of their classes
and by their attributes. Every object goes through an ONNX file, so that all that is checked of a
file is checked of it too.
"""

import contextlib
import inspect
import io
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError, ToolError
from pvq_hw.model.curve import PRIMITIVES, Curve, X, constant
from pvq_hw.naming import quoted, safe_name

__all__ = ["ACTIVATIONS", "CURVES", "curve_named", "model_file"]

Floats = npt.NDArray[np.float64]

ACTIVATIONS = {
    "relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid", "sigmoid": "Sigmoid", "elu": "Elu",
    "selu": "Selu", "celu": "Celu", "softplus": "Softplus", "softsign": "Softsign",
    "leaky_relu": "LeakyRelu", "relu6": "Relu6", "hardtanh": "HardTanh",
    "hardsigmoid": "HardSigmoid", "hardswish": "HardSwish", "gelu": "Gelu", "silu": "Silu",
    "swish": "Silu", "mish": "Mish", "sign": "Sign", "softmax": "Softmax",
}  # fmt: skip
"""What the activations are that a list of layers may name, with PyTorch's constants; None and
``"identity"`` are none."""

_ATTRIBUTES = {"LeakyRelu": {"alpha": 0.01}, "HardSigmoid": {"alpha": 1 / 6, "beta": 0.5}}
_BOUNDS = {"Relu6": (0.0, 6.0), "HardTanh": (-1.0, 1.0)}
_SPELLED = {"Silu": "Swish"}
CURVES = tuple(name for name, kind in ACTIVATIONS.items() if kind not in ("Sign", "Softmax"))
"""Those of `ACTIVATIONS` that are functions of one value."""

_OPSET = 17
_CHAIN_OPSET = 20  # the first with Gelu
_TAKEN = (
    "a path, a torch.nn.Module, an onnx.ModelProto, a scikit-learn MLPClassifier, MLPRegressor or "
    "Pipeline that ends in one, or a list of (weights, biases, activation)"
)


@contextlib.contextmanager
def model_file(model: Any, example_inputs: Any = None) -> Iterator[Path]:
    """The file of a model that may be an object; objects' files vanish afterwards.

    Parameters
    ----------
    model : path or object
        See `pvq_hw.api.compile`.
    example_inputs : array or tensor, optional
        What a ``torch.nn.Module`` is exported with, frames first; of several inputs a tuple, or
        a dict by the names of what ``forward`` takes.

    Raises
    ------
    InputError
        The object is of no known kind, isn't fitted, or can't be exported.
    """
    if isinstance(model, str | os.PathLike):
        yield Path(model)
        return
    with tempfile.TemporaryDirectory(prefix="pvq-hw-") as folder:
        path = Path(folder) / f"{safe_name(type(model).__name__, default='model')}.onnx"
        if _is_a(model, "torch.nn.modules.module", "Module"):
            _export_torch(model, example_inputs, path)
        else:
            path = path.with_name("layers.onnx") if isinstance(model, list | tuple) else path
            path.write_bytes(_proto(model).SerializeToString(deterministic=True))
        yield path


def _is_a(value: Any, module: str, name: str) -> bool:
    """Whether a class of that name is among the value's; its package need not be there."""
    return any(c.__name__ == name and c.__module__ == module for c in type(value).__mro__)


def _proto(model: Any) -> Any:
    """An ``onnx.ModelProto`` of any object but PyTorch's."""
    if hasattr(model, "SerializeToString") and hasattr(model, "graph"):
        return model
    if isinstance(model, list | tuple):
        return _chain([], _given_layers(model))
    steps = [step for _, step in model.steps] if hasattr(model, "steps") else [model]
    *before, last = [s for s in steps if s is not None and s != "passthrough"] or [None]
    if not any(c.__name__ in ("MLPClassifier", "MLPRegressor") for c in type(last).__mro__):
        raise InputError(f"A model must be {_TAKEN}, not {_kind(model if last is None else last)}")
    return _chain([_scaler(step) for step in before], _perceptron(last))


def _kind(value: Any) -> str:
    return quoted(type(value).__name__)


# -- layers -------------------------------------------------------------------------------------

Layer = tuple[Floats, Floats, str]


def _given_layers(layers: Sequence[Any]) -> list[Layer]:
    """(weights (outputs, inputs), biases, activation) each, biases and activation perhaps None."""
    found: list[Layer] = []
    for i, layer in enumerate(layers):
        if not isinstance(layer, list | tuple) or len(layer) != 3:
            raise InputError(f"Layer {i} must be (weights, biases, activation), not {_kind(layer)}")
        w, b, activation = layer
        weight = _array(w, 2, f"Layer {i}: weights (outputs, inputs)")
        bias = np.zeros(len(weight)) if b is None else _array(b, 1, f"Layer {i}: biases")
        if len(bias) != len(weight):
            raise InputError(f"Layer {i} must have {len(weight)} biases, not {len(bias)}")
        if found and weight.shape[1] != len(found[-1][1]):
            raise InputError(
                f"Layer {i} must have weights for {len(found[-1][1])} inputs, not {weight.shape[1]}"
            )
        found.append((weight, bias, _activation(activation, f"Layer {i}")))
    if not found:
        raise InputError("A list of layers must hold (weights, biases, activation)")
    return found


def curve_named(name: str) -> Curve:
    """The function of one of `CURVES`."""
    kind = ACTIVATIONS[name]
    if kind in _BOUNDS:
        return Curve("Clip", (X, *map(constant, _BOUNDS[kind])))
    kind = _SPELLED.get(kind, kind)
    attributes = {**PRIMITIVES[kind].attributes, **_ATTRIBUTES.get(kind, {})}
    return Curve(kind, (X,), tuple(attributes.values()))


def _activation(name: Any, where: str) -> str:
    if name is None or name == "identity":
        return ""
    if not isinstance(name, str) or name.lower() not in ACTIVATIONS:
        raise InputError(
            f"{where} must have the activation None or one of {', '.join(ACTIVATIONS)}, "
            f"not {quoted(str(name))}"
        )
    return ACTIVATIONS[name.lower()]


def _array(value: Any, rank: int, where: str) -> Floats:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{where} must be numbers, not {_kind(value)}") from None
    if array.ndim != rank or array.size == 0 or not np.isfinite(array).all():
        raise InputError(f"{where} must be {rank}-dimensional and finite, not {array.shape}")
    return array


# -- scikit-learn -------------------------------------------------------------------------------


def _perceptron(model: Any) -> list[Layer]:
    """The layers of a fitted MLPClassifier or MLPRegressor."""
    if not hasattr(model, "coefs_"):
        raise InputError(f"{type(model).__name__} must be fitted before it is compiled")
    pairs = list(zip(model.coefs_, model.intercepts_, strict=True))
    kinds = [model.activation] * (len(pairs) - 1) + [model.out_activation_]
    return _given_layers([(w.T, b, kind) for (w, b), kind in zip(pairs, kinds, strict=True)])


def _scaler(step: Any) -> tuple[Floats, Floats]:
    """(factors, offsets) of a fitted scaler: ``x * factor + offset``."""
    name = type(step).__name__
    if name == "StandardScaler" and hasattr(step, "n_features_in_"):
        wide = int(step.n_features_in_)
        scale = np.ones(wide) if step.scale_ is None else np.asarray(step.scale_, dtype=np.float64)
        mean = np.zeros(wide) if not step.with_mean else np.asarray(step.mean_, dtype=np.float64)
        return 1.0 / scale, -mean / scale
    if name == "MinMaxScaler" and hasattr(step, "scale_"):
        if step.clip:
            raise InputError("MinMaxScaler must have clip=False, to be folded into the weights")
        return np.asarray(step.scale_, dtype=np.float64), np.asarray(step.min_, dtype=np.float64)
    if name in ("StandardScaler", "MinMaxScaler"):
        raise InputError(f"{name} must be fitted before it is compiled")
    raise InputError(
        f"A Pipeline must hold StandardScaler and MinMaxScaler before its network, not "
        f"{_kind(step)}; do that to the data before they reach the model"
    )


# -- files --------------------------------------------------------------------------------------


def _chain(scalers: Sequence[tuple[Floats, Floats]], layers: Sequence[Layer]) -> Any:
    """An ONNX model of scalers and dense layers, in float64."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, tensors, at = [], [], "x"

    def add(kind: str, name: str, **constants: Floats) -> None:
        nonlocal at
        for key, array in constants.items():
            tensors.append(numpy_helper.from_array(array, f"{name}.{key}"))
        inputs = [at, *(f"{name}.{key}" for key in constants)]
        more: dict[str, Any] = {"transB": 1} if kind == "Gemm" else _ATTRIBUTES.get(kind, {})
        nodes.append(helper.make_node(kind, inputs, [name], name, **more))
        at = name

    for i, (factor, offset) in enumerate(scalers):
        add("Mul", f"scaled{i}", factor=factor)
        add("Add", f"moved{i}", offset=offset)
    for i, (weight, bias, activation) in enumerate(layers, start=1):
        add("Gemm", f"fc{i}", weight=weight, bias=bias)
        sums, called = at, f"{activation.lower()}{i}"
        if activation in _BOUNDS:
            low, high = (np.array(bound) for bound in _BOUNDS[activation])
            add("Clip", called, low=low, high=high)
        elif activation == "Silu":
            add("Sigmoid", f"sigmoid{i}")
            nodes.append(helper.make_node("Mul", [sums, at], [called], called))
            at = called
        elif activation:
            add(activation, called)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, ("N", wide))
        for name, wide in (("x", layers[0][0].shape[1]), (at, len(layers[-1][0])))
    ]
    graph = helper.make_graph(nodes, "layers", ends[:1], ends[1:], tensors)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _CHAIN_OPSET)], ir_version=9
    )


def _export_torch(module: Any, example_inputs: Any, path: Path) -> None:
    """Exports a module as it is in use, with any number of frames."""
    if example_inputs is None:
        raise InputError("A torch.nn.Module must come with example_inputs, a batch of its inputs")
    import torch  # it is there, since the module is

    examples = {
        name: _example(torch, value) for name, value in _by_name(module, example_inputs).items()
    }
    training = module.training
    try:
        module.eval()
        try:
            _torch_onnx(torch, module, examples, path)
        except Exception:  # what asks for sizes may only be exported for one number of frames
            _torch_onnx(torch, module, examples, path, frames=1)
    except Exception as error:  # PyTorch refuses in many ways
        first = " ".join((str(error).strip() or type(error).__name__).split())[:200]
        raise ToolError(
            f"PyTorch could not export {_kind(module)}: {ascii(first)[1:-1]}; "
            "give the file of torch.onnx.export instead"
        ) from None
    finally:
        module.train(training)


def _by_name(module: Any, example_inputs: Any) -> dict[str, Any]:
    """Example inputs by the names of what ``forward`` takes; the only one is called ``x``."""
    if not isinstance(example_inputs, list | tuple | Mapping):
        return {"x": example_inputs}
    if isinstance(example_inputs, list | tuple) and len(example_inputs) == 1:
        return {"x": example_inputs[0]}
    names = list(inspect.signature(module.forward).parameters)
    if isinstance(example_inputs, Mapping):
        unknown = [str(name) for name in example_inputs if name not in names]
        if unknown or not example_inputs:
            raise InputError(
                f"Example inputs must be called as what forward takes, {', '.join(names)}, not "
                f"{quoted(unknown[0]) if unknown else 'nothing'}"
            )
        ordered = [name for name in names if name in example_inputs]
        if ordered != names[: len(ordered)]:
            raise InputError(f"Example inputs must hold {quoted(names[0])} and what follows it")
        return {name: example_inputs[name] for name in ordered}
    if not example_inputs or len(example_inputs) > len(names):
        raise InputError(
            f"Example inputs must be 1 to {len(names)}, as {_kind(module)} takes them, not "
            f"{len(example_inputs)}"
        )
    return dict(zip(names, example_inputs, strict=False))


def _example(torch: Any, value: Any) -> Any:
    """The first frame of an input, real."""
    example = torch.as_tensor(value)
    if not example.is_floating_point():
        example = example.to(torch.get_default_dtype())
    return example[:1]


def _torch_onnx(
    torch: Any, module: Any, examples: Mapping[str, Any], path: Path, frames: int | None = None
) -> None:
    """`torch.onnx.export`, by the way that needs no further package; for any number of frames
    unless that is given."""
    axes = {} if frames else {name: {0: "N"} for name in examples}
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(examples.values()), str(path), input_names=list(examples),
            output_names=["output" if "y" in examples else "y"],
            dynamic_axes=axes, opset_version=_OPSET, dynamo=False,
        )  # fmt: skip
