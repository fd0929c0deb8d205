"""Where a network loses: what each layer's and each row's quantization does to the outputs.

Every layer is put alone into the float model, and every layer is taken out of the quantized one in
turn; outputs are compared with the float model's, and scored where there are labels. A row's error
is that of its sums on the float model's own inputs. Works for networks of any shape. (A calibrated
layer mends what the layers before it broke, so alone it may look worse than it is in its place:
compare it with "all but this".)
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import significant
from pvq_hw.data.dataset import Data
from pvq_hw.documents import document_text
from pvq_hw.errors import InputError
from pvq_hw.evaluate.accuracy import metric_for, reference
from pvq_hw.evaluate.code_error import layer_errors, model_weights
from pvq_hw.files import check_writable, whole_file
from pvq_hw.model.model import Model
from pvq_hw.model.nodes import Node
from pvq_hw.network.layer import Weighted
from pvq_hw.network.network import Network

__all__ = ["check_log", "network_losses", "quantized_node", "weight_log"]

FloatArray = npt.NDArray[np.float64]

_FRAMES = 1000
_LEAST_FRAMES = 32
_WORK = 4_000_000_000  # multiplications that may be spent
_CHUNK = 32


def network_losses(
    model: Model, network: Network, data: Data, metric: str | None = None
) -> dict[str, Any]:
    """JSON values: what is lost, in all, by layer and by row.

    Parameters
    ----------
    model : Model
    network : Network
        Its quantization.
    data : Data
        Frames like those of use, labels optional; the first 1,000 are looked at, fewer where
        they would take minutes.
    metric : str, optional
        What outputs are scored by; see `pvq_hw.evaluate.metrics.find_metric`.

    Returns
    -------
    dict
        ``frames``, ``metric`` and ``why`` (None without labels), ``reference`` (what
        the float model is called, see `pvq_hw.evaluate.accuracy.reference`), ``float`` and
        ``golden`` (scores),
        ``output_error`` (of the golden model: squares of the difference to the float outputs
        over their variance) and ``layers``, in each of which: ``output_error_alone`` and
        ``score_alone`` (only this layer quantized), ``output_error_without`` and
        ``score_without`` (all but this one), ``share`` (of the layers' errors alone, which add
        up to 1), ``row_output_error`` (squares over variance of the row's own sums) and
        ``row_share`` (part of the network's loss: the layer's share times the row's part of
        the layer's squares).
    """
    network = network.undecided
    layers = {layer.name: layer for layer in network.weighted}
    missing = [name for name in layers if name not in {node.name for node in model.nodes}]
    if missing:
        raise InputError(f"The model has no layer {missing[0]!r}")
    count = _WORK // max(1, model.macs * (2 * len(layers) + 2))
    frames = min(len(data), max(_LEAST_FRAMES, min(_FRAMES, count)))
    x, y = data.x[:frames], None if data.y is None else data.y[:frames]
    judge = None if data.y is None else metric_for(model, data.y, metric)

    def scored(outputs: FloatArray) -> float | None:
        return None if judge is None or y is None else significant(judge.compute(outputs, y))

    exact = model.predict(x, data.input_scale)
    try:
        scored(exact)
    except InputError:  # these frames alone are not enough, as for the AUC of one class
        judge = None
    golden = network.predict(network.quantize_input(x, data.input_scale))
    real = network.real(golden)
    nodes = {node.name: quantized_node(node, layers[node.name]) for node in model.nodes
             if node.name in layers}  # fmt: skip
    shift, error, power = _row_errors(model, nodes, x, data.input_scale)
    found = []
    for name in layers:
        alone = _changed(model, {name: _moved(nodes[name], shift[name])})
        others = _changed(model, {n: node for n, node in nodes.items() if n != name})
        entry: dict[str, Any] = {"name": name}
        for word, changed in (("alone", alone), ("without", others)):
            outputs = changed.predict(x, data.input_scale)
            entry[f"output_error_{word}"] = significant(_error(model, outputs, exact))
            entry[f"score_{word}"] = scored(outputs)
        entry["row_output_error"] = [significant(v) for v in error[name] / power[name]]
        found.append(entry)
    _shares(found, error)
    return {
        "frames": frames,
        "metric": None if judge is None else judge.name,
        "why": None if judge is None else judge.why,
        "reference": reference(network),
        "float": scored(exact),
        "golden": scored(real),
        "output_error": significant(_error(model, real, exact)),
        "layers": found,
    }


def _shares(found: list[dict[str, Any]], error: Mapping[str, FloatArray]) -> None:
    """Adds the layers' and the rows' shares, in place."""
    total = sum(entry["output_error_alone"] for entry in found)
    for entry in found:
        share = entry["output_error_alone"] / total if total else 0.0
        rows = error[entry["name"]]
        part = rows / rows.sum() if rows.sum() else np.zeros(len(rows))
        entry["share"] = significant(share)
        entry["row_share"] = [significant(share * v) for v in part]


def _error(model: Model, outputs: FloatArray, exact: FloatArray) -> float:
    """`_relative` of the outputs, of several the mean of each one's."""
    return float(np.mean([_relative(outputs[:, p], exact[:, p]) for p in model.parts]))


def _relative(outputs: FloatArray, exact: FloatArray) -> float:
    spread = float(np.square(exact - exact.mean(axis=0)).mean())
    return float(np.square(outputs - exact).mean()) / (spread or 1.0)


def quantized_node(node: Node, layer: Weighted) -> Node:
    """The float node with the weights that the codes stand for, and the bias of the integers."""
    size = layer.y.shape[1] // layer.gain.shape[1]
    real = np.asarray(layer.y * np.repeat(layer.gain, size, axis=1), dtype=np.float64)
    return node.with_weights(real, _bias(node.biases, layer))


def _bias(original: FloatArray, layer: Weighted) -> FloatArray:
    if layer.output.format.binary:
        return original
    return np.asarray(layer.bias * (layer.output.scale / 2.0**layer.shift), dtype=np.float64)


def _moved(node: Node, shift: FloatArray) -> Node:
    """The node with its bias moved."""
    return node.with_weights(node.matrix, node.biases + shift)


def _changed(model: Model, nodes: Mapping[str, Node]) -> Model:
    return replace(model, nodes=tuple(nodes.get(node.name, node) for node in model.nodes))


def _row_errors(
    model: Model, nodes: Mapping[str, Node], x: npt.NDArray[Any], input_scale: float
) -> tuple[dict[str, FloatArray], dict[str, FloatArray], dict[str, FloatArray]]:
    """Three figures of the rows' sums, (M,) each: minus the mean error, its variance, and the sums'
    variance."""
    moments = {name: np.zeros((4, node.shape[-1])) for name, node in nodes.items()}
    count = dict.fromkeys(nodes, 0)
    for start in range(0, len(x), _CHUNK):
        values = {model.input_name: model.to_internal(x[start : start + _CHUNK], input_scale)}
        for node in model.nodes:
            inputs = [values[name] for name in node.inputs]
            values[node.output] = out = node.compute(*inputs)
            if node.name in nodes:
                rows = out.reshape(-1, out.shape[-1])
                off = nodes[node.name].compute(*inputs).reshape(rows.shape) - rows
                for place, what in enumerate((off, off * off, rows, rows * rows)):
                    moments[node.name][place] += what.sum(axis=0)
                count[node.name] += len(rows)
    shift, error, power = {}, {}, {}
    for name, sums in moments.items():
        mean_off, square_off, mean, square = sums / max(1, count[name])
        shift[name] = -mean_off
        error[name] = np.maximum(square_off - mean_off**2, 0)
        power[name] = np.maximum(square - mean**2, 1e-30)
    return shift, error, power


def weight_log(
    path: Path, model: Model, network: Network, losses: Mapping[str, Any] | None = None
) -> None:
    """Writes what every code stands for and which weight it came from, as ``.csv`` or ``.json``.

    CSV has a line for each weight that is not 0 or has a code: layer, row, column (in the order
    of the integer network, channels last), weight, code, gain, value (gain * code), error. JSON
    has the layers, their rows with all figures, and of each row its codes as [column, code,
    weight].
    """
    check_log(path)
    weights = model_weights(model, network)
    layers = network.weighted
    text = _csv(layers, weights) if path.suffix == ".csv" else _json(layers, weights, losses or {})
    with whole_file(path) as new:
        new.write_text(text, encoding="utf-8", newline="\n")


def check_log(path: Path) -> None:
    """Raises InputError for a name that `weight_log` refuses, or where no file can be."""
    if path.suffix not in (".csv", ".json"):
        raise InputError(f"The log must be a .csv or .json file, not {path.name!r}")
    check_writable(path)


def _csv(layers: list[Weighted], weights: Mapping[str, FloatArray]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("layer", "row", "column", "weight", "code", "gain", "value", "error"))
    for layer in layers:
        w, size = weights[layer.name], layer.y.shape[1] // layer.gain.shape[1]
        for row, column in np.argwhere((layer.y != 0) | (w != 0)).tolist():
            code, gain = int(layer.y[row, column]), float(layer.gain[row, column // size])
            weight = float(w[row, column])
            writer.writerow(
                (layer.name, row, column, weight, code, gain, gain * code, gain * code - weight)
            )
    return file.getvalue()


def _json(
    layers: list[Weighted], weights: Mapping[str, FloatArray], losses: Mapping[str, Any]
) -> str:
    of_layer = {entry["name"]: entry for entry in losses.get("layers", ())}
    found = []
    for layer in layers:
        w, lost = weights[layer.name], of_layer.get(layer.name, {})
        errors = layer_errors(layer, w)
        figures = {k: v for k, v in (errors | lost).items() if not k.startswith("row_")}
        rows = [
            {
                "row": row,
                "k": int(layer.k[row]),
                "gain": layer.gain[row].tolist(),
                **{k[4:]: v[row] for k, v in (errors | lost).items() if k.startswith("row_")},
                "codes": [
                    [j, int(layer.y[row, j]), float(w[row, j])]
                    for j in np.flatnonzero(layer.y[row]).tolist()
                ],
            }
            for row in range(len(w))
        ]
        found.append({**figures, "name": layer.name, "rows": rows})
    top = {k: v for k, v in losses.items() if k != "layers"}
    return document_text({**top, "layers": found})
