"""A model file run by a runtime of its format: what it says without this package's importer."""

import importlib.util
import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import significant
from pvq_hw.data.dataset import Data
from pvq_hw.errors import CheckError
from pvq_hw.model.file_kind import is_npz, is_tflite
from pvq_hw.model.model import Model, Quantize, Sign
from pvq_hw.model.onnx.file import OnnxFile, read_onnx
from pvq_hw.model.onnx.lowering import ENDS
from pvq_hw.outputs import Output

__all__ = ["OwnGraph", "check_own_graph"]

FloatArray = npt.NDArray[np.float64]

_FRAMES = 32

_TOLERANCE = 1e-3
"""Part of the largest output; float32 against float64 stays below a hundredth of that."""
_JUDGES = ("onnxruntime", "ai-edge-litert")
_ROUNDING = "ai-edge-litert, which rounds activations here"
_ROUNDED = 0.02  # the same of quantized files, whose activations may be a step off
_HALFWAY = 2e-6  # of a scale: what 32 bits may be off by
_MOST_FRAMES = 0.9  # sums near 0 have either sign, and steps may add up


@dataclass(frozen=True)
class OwnGraph:
    """How the runtime's outputs compare with the imported model's.

    Parameters
    ----------
    runtime : str
        ``"onnxruntime"``, or ``"onnx.reference"`` where that isn't installed or refuses the file;
        of TensorFlow Lite files ``"ai-edge-litert"``, with a remark where it rounds activations.
    frames : int
    error : float
        Largest difference, as a part of the largest output; of several, of the same one.
    """

    runtime: str
    frames: int
    error: float

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"runtime": self.runtime, "frames": self.frames,
                "largest_error": significant(self.error, 3)}  # fmt: skip


def check_own_graph(path: Path, model: Model, data: Data) -> OwnGraph | None:
    """Runs the file's own graph on the first frames of ``data`` and compares it with the model.

    Returns None for npz files, which have no graph, and where no runtime takes the file.

    Raises
    ------
    CheckError
        Where the importer's model computes something else than onnxruntime or ai-edge-litert; a
        difference to the reference, or to a runtime that rounds activations, is reported only.
    """
    if is_npz(path):
        return None
    data = data.head(_FRAMES)
    real = data.real()
    found = _tflite(path, model, real) if is_tflite(path) else _first(path, model, real)
    if found is None:
        return None
    runtime, results = found
    exact = model.predict(data.x, data.input_scale)
    outputs = zip(_outputs(model), results, strict=True)
    error = np.max([_errors(exact[:, o.part], result, o) for o, result in outputs], axis=0)
    kinds = {type(node) for node in model.nodes}
    wanted = _MOST_FRAMES if kinds & {Sign, Quantize} else 1.0
    levels = [node.high - node.low for node in model.nodes if isinstance(node, Quantize)]
    tolerance = max(_ROUNDED, 2 / min(levels)) if levels else _TOLERANCE
    # The reference takes other windows than the format says for some poolings: it is no judge.
    if runtime in _JUDGES and float(np.mean(error <= tolerance)) < wanted:
        error = np.maximum(error - 2 * _halves(model, data, exact), 0)
    if runtime in _JUDGES and float(np.mean(error <= tolerance)) < wanted:
        raise _differs(f"differs by {100 * float(error.max()):.3g} % of the largest output")
    return OwnGraph(runtime, len(exact), float(error.max(initial=0.0)))


def _halves(model: Model, data: Data, exact: FloatArray) -> FloatArray:
    """How far values that the file rounds, and that lie halfway, move each frame's outputs, as a
    part of the largest: means of integers do so often, and a runtime's 32 bits decide them."""
    ends = [
        replace(model, nodes=tuple(
            replace(node, scale=node.scale * (1 + off)) if isinstance(node, Quantize) else node
            for node in model.nodes
        )).predict(data.x, data.input_scale)
        for off in (_HALFWAY, -_HALFWAY)
    ]  # fmt: skip
    largest = [float(np.abs(exact[:, o.part]).max(initial=0.0)) or 1.0 for o in _outputs(model)]
    moved = [np.abs(ends[0] - ends[1])[:, o.part].max(axis=1) for o in _outputs(model)]
    return np.max([m / size for m, size in zip(moved, largest, strict=True)], axis=0)


def _outputs(model: Model) -> tuple[Output, ...]:
    """All outputs, of a model that has one the one, without a name."""
    return model.outputs or (Output("", model.output_shape, 0, model.dropped),)


def _errors(exact: FloatArray, found: FloatArray, output: Output) -> FloatArray:
    """An output's largest difference in every frame, as a part of its largest value."""
    largest = float(np.abs(exact).max(initial=0.0)) or 1.0
    orders = [found.reshape(len(exact), -1)]
    if found.ndim > 2:
        orders.append(np.moveaxis(found, 1, -1).reshape(len(exact), -1))
    errors = [np.abs(o - exact).max(axis=1) / largest for o in orders if o.shape == exact.shape]
    if not errors:
        where = f" in {output.name!r}" if output.name else ""
        raise _differs(f"gives {found.shape[1:]} outputs{where}, not {exact.shape[1:]}")
    return min(errors, key=lambda e: float(e.sum()))


def _first(path: Path, model: Model, real: FloatArray) -> tuple[str, list[FloatArray]] | None:
    """The name of the first runtime that takes the file, and its outputs."""
    for runtime in ("onnxruntime", "onnx.reference"):
        if importlib.util.find_spec(runtime.partition(".")[0]) is None:
            continue
        file = read_onnx(path)
        if runtime == "onnx.reference" and _is_dilated(file):
            return None  # it takes other windows then
        try:
            return runtime, _run(runtime, file, model, real)
        except Exception:  # runtimes refuse in many ways; none of them says the model is wrong
            continue
    return None


def _tflite(path: Path, model: Model, real: FloatArray) -> tuple[str, list[FloatArray]] | None:
    """The same for a TensorFlow Lite file."""
    from pvq_hw.model.tflite.file import read_tflite
    from pvq_hw.model.tflite.runtime import rounds_activations, run_tflite

    if importlib.util.find_spec("ai_edge_litert") is None:
        return None
    try:
        outputs = [run_tflite(path, len(o.dropped), real, i) for i, o in enumerate(_outputs(model))]
    except Exception:  # as above
        return None
    return _ROUNDING if rounds_activations(read_tflite(path)) else "ai-edge-litert", outputs


def _is_dilated(file: OnnxFile) -> bool:
    attributes = (a for node in file.model.graph.node for a in node.attribute)
    return any(a.name == "dilations" and any(n > 1 for n in a.ints) for a in attributes)


def _differs(how: str) -> CheckError:
    return CheckError(
        f"Internal error: the imported model {how} from what the file's own graph gives; "
        "please report the model"
    )


def _run(runtime: str, file: OnnxFile, model: Model, real: FloatArray) -> list[FloatArray]:
    """The values before the operations that the accelerator leaves out."""
    from onnx import helper

    graph = file.model.graph
    weights = {t.name for t in graph.initializer}
    sources = [i for i in graph.input if i.name not in weights]
    tensors = [_cut(graph, i, len(o.dropped)) for i, o in enumerate(_outputs(model))]
    known = {output.name: output for output in graph.output}
    wanted = list(dict.fromkeys(tensors))
    del graph.output[:]
    graph.output.extend(known.get(t) or helper.make_empty_tensor_value_info(t) for t in wanted)
    call = _session(runtime, file.model, wanted)
    dim = sources[0].type.tensor_type.shape.dim[0]
    flat = real.reshape(len(real), -1)
    batch = dim.dim_value if dim.HasField("dim_value") else len(real)
    parts: dict[str, list[FloatArray]] = {tensor: [] for tensor in wanted}
    for start in range(0, len(real), batch):
        part = flat[start : start + batch]
        padded = np.concatenate((part, np.repeat(part[-1:], batch - len(part), axis=0)))
        for tensor, found in zip(wanted, call(_feed(sources, padded)), strict=True):
            parts[tensor].append(np.asarray(found, dtype=np.float64)[: len(part)])
    return [np.concatenate(parts[tensor]) for tensor in tensors]


def _feed(sources: list[Any], frames: FloatArray) -> dict[str, npt.NDArray[Any]]:
    """Frames (frames, n) as the file's inputs, which lie one after the other in them."""
    from onnx import helper

    feed, start = {}, 0
    for source in sources:
        kind = source.type.tensor_type
        shape = [int(d.dim_value) for d in kind.shape.dim[1:]]
        stop = start + math.prod(shape)
        part = frames[:, start:stop].reshape(len(frames), *shape)
        feed[source.name] = part.astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
        start = stop
    return feed


def _cut(graph: Any, output: int, dropped: int) -> str:
    """The tensor before the last ``dropped`` final operations of an output."""
    makers = {name: node for node in graph.node for name in node.output}
    tensor = graph.output[output].name
    while dropped:
        node = makers[tensor]
        dropped -= node.op_type in ENDS
        tensor = node.input[0]
    return str(tensor)


def _session(runtime: str, model: Any, tensors: list[str]) -> Any:
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        # Optimization merges pairs of roundings, which then round otherwise than the file says.
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        return lambda feed: session.run(tensors, feed)
    from onnx.reference import ReferenceEvaluator

    from pvq_hw.model.onnx.qonnx_reference import OPERATORS

    evaluator: Any = ReferenceEvaluator(model, new_ops=OPERATORS)

    def run(feed: dict[str, npt.NDArray[Any]]) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return evaluator.run(tensors, feed)

    return run
