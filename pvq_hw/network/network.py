"""The integer network: the numeric contract that every later form must meet bit for bit."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt

from pvq_hw.documents import Format, Place, document_text, load_json, read, read_kind
from pvq_hw.errors import InputError
from pvq_hw.inputs import Input, check_inputs, real_frames
from pvq_hw.naming import quoted
from pvq_hw.network.decision import Decision
from pvq_hw.network.kinds import LAYERS
from pvq_hw.network.layer import IntArray, Layer, TensorSpec, Weighted
from pvq_hw.network.part import Part
from pvq_hw.outputs import Output, check_outputs, find_output
from pvq_hw.tables import Table, format_name

__all__ = ["Network"]

FORMAT = Format("a saved network", "pvq-hw network", 1, 1 << 28)
_NETWORK = "network.json"
_WEIGHTS = "weights.pvq"


@dataclass(frozen=True, eq=False)
class Network:
    """A quantized network: integers only between its input and its output.

    Parameters
    ----------
    name : str
    input : TensorSpec
        What the accelerator takes. Its ``scale`` maps integers to what the model expects.
    layers : tuple of Layer
        In an order in which every layer's inputs exist; each output tensor has a name of its own.
    input_shape : tuple of int
        Shape of a frame as the model file has it (for instance ``(1, 28, 28)``).
    input_axes : tuple of int
        Permutation from the file's axes to channel-last ones, frames not counted.
    meta : dict
        Provenance: hash of the model file, quantizer, seed, mean N/K asked for. JSON values.
    outputs : tuple of Output
        Where the model has several: which of the values that a frame gives are which, in the order
        of the model file; else empty.
    inputs : tuple of Input
        Where the model has several: which of the values that a frame takes are which, in the order
        of the model file; else empty. ``input_shape`` is then all their values, flat, and each is
        read by a layer of its own (`Part`), which has its scale: that of ``input`` is the largest
        and of no other meaning.
    """

    name: str
    input: TensorSpec
    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]
    input_axes: tuple[int, ...]
    meta: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    inputs: tuple[Input, ...] = ()

    @property
    def output(self) -> TensorSpec:
        """The tensor of the last layer."""
        return self.layers[-1].output

    @property
    def undecided(self) -> "Network":
        """The network without a layer that decides at its end: scores, as the float model has
        them."""
        if not isinstance(self.layers[-1], Decision):
            return self
        return replace(self, layers=self.layers[:-1], outputs=())

    @property
    def weighted(self) -> list[Weighted]:
        """The layers with weights, in order."""
        return [layer for layer in self.layers if isinstance(layer, Weighted)]

    @property
    def decision(self) -> Decision | None:
        """The layer at the end that decides, where there is one."""
        last = self.layers[-1]
        return last if isinstance(last, Decision) else None

    @property
    def remembers(self) -> bool:
        """Whether what it gives for a frame depends on the frames before, since a reset."""
        return _remembers(self.layers[-1])

    def tensors(self) -> dict[str, TensorSpec]:
        """Every tensor by name, in order."""
        return {t.name: t for t in (self.input, *(layer.output for layer in self.layers))}

    def verify(self) -> None:
        """Raises InputError unless the graph is well formed and no layer can overflow."""
        if not self.layers:
            raise InputError("A network must have at least one layer")
        known, before = {self.input.name: self.input}, ""
        for layer in self.layers:
            for name in layer.inputs:
                if name not in known:
                    raise InputError(f"Layer {layer.name!r} reads {name!r}, which nothing gives")
            if layer.output.name in known:
                raise InputError(f"Layer {layer.name!r} gives {layer.output.name!r} again")
            layer.verify(*(known[name] for name in layer.inputs))
            if _remembers(layer) and (layer is not self.layers[-1] or layer.inputs != (before,)):
                raise InputError(f"Layer {layer.name!r} must follow the last of the other layers")
            known[layer.output.name], before = layer.output, layer.output.name
        check_inputs(self.inputs, self.input.size)
        self._check_parts()
        check_outputs(self.outputs, self.output.size)
        if self.scored:
            find_output(self.outputs, self.scored)

    def _check_parts(self) -> None:
        """Raises InputError unless every one of several inputs has a layer of its own and nothing
        else reads the stream, and other parts keep their input's scale."""
        whole, tensors, seen = self.input.size, self.tensors(), set()
        for layer in self.layers:
            taken = bool(self.inputs) and self.input.name in layer.inputs
            if taken and not isinstance(layer, Part):
                raise InputError(f"Layer {layer.name!r} must read one of the inputs, not all")
            if isinstance(layer, Part) and taken:
                seen.add((layer.start, layer.count, layer.period))
            elif isinstance(layer, Part) and layer.output.scale != tensors[layer.input].scale:
                raise InputError(f"Layer {layer.name!r} must keep its input's scale")
        if seen != {(i.start, i.size, whole) for i in self.inputs}:
            raise InputError("Every one of several inputs must have a layer that takes it")

    def taken(self) -> list[tuple[slice, TensorSpec]]:
        """The input, or of several each one, as layers read it, and its place in a frame."""
        if not self.inputs:
            return [(slice(0, self.input.size), self.input)]
        parts = [x for x in self.layers if isinstance(x, Part) and x.input == self.input.name]
        return [(slice(p.start, p.start + p.count), p.output) for p in parts]

    def input_unit(self) -> float | npt.NDArray[np.float64]:
        """What 1 stands for in the input: a scale, or where there are several inputs, one for each
        value of a frame."""
        if not self.inputs:
            return self.input.scale
        scales = np.empty(self.input.size)
        for place, spec in self.taken():
            scales[place] = spec.scale
        return scales

    def unit(self, layer: Layer | None = None) -> float | npt.NDArray[np.float64]:
        """What 1 stands for in the outputs of a layer, by default the last: a scale, or where
        outputs lie side by side, one for each value of a frame."""
        layer = layer or self.layers[-1]
        tensors = self.tensors()
        return layer.unit(*(tensors[name] for name in layer.inputs))

    def real(self, integers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Outputs (frames, ...) as float64 (frames, n), in the model's own unit."""
        return np.asarray(integers.reshape(len(integers), -1) * self.unit(), dtype=np.float64)

    @property
    def scored(self) -> str:
        """The one of several outputs that labels belong to; empty where nobody said which."""
        return str(self.meta.get("scored_output", ""))

    def for_output(self, name: str) -> "Network":
        """The network whose labels belong to the output of that name."""
        found = find_output(self.outputs, name)
        return replace(self, meta=self.meta | {"scored_output": found.name})

    def input_documents(self) -> list[dict[str, Any]]:
        """The several inputs as JSON values, with what 1 stands for in each."""
        scales = np.broadcast_to(self.input_unit(), (self.input.size,))
        return [i.to_json() | {"scale": float(scales[i.start])} for i in self.inputs]

    def output_documents(self) -> list[dict[str, Any]]:
        """The several outputs as JSON values, with what 1 stands for in each."""
        scales = np.broadcast_to(self.unit(), (self.output.size,))
        return [o.to_json() | {"scale": float(scales[o.start])} for o in self.outputs]

    @property
    def dropped(self) -> tuple[str, ...]:
        """The final operations (Sigmoid, Softmax) that the float model has and this one has not."""
        found = self.meta.get("dropped", ())
        return tuple(map(str, found)) if isinstance(found, list | tuple) else ()

    @property
    def input_scale(self) -> float:
        """What integer data is divided by, as it was when the model was compiled."""
        return float(self.meta.get("input_scale", 1.0))

    def quantize_input(
        self, x: npt.ArrayLike | Mapping[str, npt.ArrayLike], input_scale: float = 1.0
    ) -> npt.NDArray[np.int64]:
        """Maps data to the integers that the accelerator takes.

        Parameters
        ----------
        x : array (frames, \\*input_shape)
            Floats as the model expects them, or integers that ``input_scale`` divides; for several
            inputs arrays by their names, or what `pvq_hw.inputs.join_inputs` makes of these.
        input_scale : float
            What integer data is divided by; 1 by default.

        Returns
        -------
        int64 array (frames, \\*input.shape), channels last, saturated to the input's format.
        """
        real = real_frames(x, self.inputs, self.input_shape, input_scale)
        if not np.isfinite(real).all():
            raise InputError("Data must be finite numbers, but holds NaN or infinities")
        axes = (0, *(1 + a for a in self.input_axes))
        real = real.transpose(axes).reshape(len(real), *self.input.shape)
        if self.input.format.binary:
            return np.where(real < 0, -1, 1).astype(np.int64)
        return self.input.format.clamp(np.floor(real / self.input_unit() + 0.5)).astype(np.int64)

    def steps(self, x: npt.NDArray[np.int64]) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
        """Computes layer by layer: yields each layer's name and output (frames, ...)."""
        if not self.input.format.contains(x):
            raise InputError(
                f"Inputs must be within {self.input.format.min}..{self.input.format.max}"
            )
        values = {self.input.name: np.asarray(x, dtype=np.int64)}
        for layer in self.layers:
            out = layer.compute(*(values[name] for name in layer.inputs))
            values[layer.output.name] = out
            yield layer.name, out

    def trace(self, x: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.int64]]:
        """Every layer's output by the layer's name; ``x`` integers (frames, \\*input.shape)."""
        return dict(self.steps(x))

    def predict(self, x: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The golden model: integers (frames, \\*input.shape) -> (frames, \\*output.shape), of
        frames that come one after the other from a reset on, where that matters."""
        x = np.asarray(x)
        if not len(x):
            return np.zeros((0, *self.output.shape), dtype=np.int64)
        if self.remembers:
            return self.layers[-1].compute(self.undecided.predict(x))
        chunks = []
        for start in range(0, len(x), 1024):
            for _, out in self.steps(x[start : start + 1024]):  # noqa: B007  the last one counts
                pass
            chunks.append(out)
        return np.concatenate(chunks)

    # -- for people -----------------------------------------------------------------------------

    def table(self) -> Table:
        """Its layers: shapes, N/K, and what they give."""
        rows = []
        for layer in self.layers:
            w, out = layer.weights, layer.output
            encoding = getattr(layer, "encoding", None)
            ratio = "int8" if encoding == "int8" else ""
            if w is not None and encoding == "pvq":
                ratio = f"{w.size / max(1, int(np.abs(w).sum())):.2f}"
            rows.append(
                (
                    layer.name, layer.kind, "" if w is None else f"{w.shape[0]:,} x {w.shape[1]:,}",
                    ratio, "x".join(map(str, out.shape)),
                    format_name(out.format.signed, out.format.bits), f"{out.scale:.4g}",
                )
            )  # fmt: skip
        source = self.input
        figures = [
            ("input", f"{'x'.join(map(str, self.input_shape))} as "
             f"{format_name(source.format.signed, source.format.bits)} of {source.scale:.4g}"),
            ("mean N/K", f"{self.n_over_k:.2f} ({self.total_weights:,} weights, "
             f"{self.total_pulses:,} pulses)"),
        ]  # fmt: skip
        header = ("layer", "kind", "weights", "N/K", "gives", "as", "unit")
        return Table(f"Network {self.name}", figures, header, rows)

    def summary(self) -> str:
        """A line for each layer."""
        return self.table().text()

    def __repr__(self) -> str:
        return (f"<Network {quoted(self.name)}: {len(self.layers)} layers, "
                f"N/K {self.n_over_k:.2f}>")  # fmt: skip

    def _repr_html_(self) -> str:
        return self.table().html()

    # -- counts ---------------------------------------------------------------------------------

    def pvq_layers(self) -> list[Layer]:
        """The layers whose weights are pyramid codewords."""
        return [layer for layer in self.layers if getattr(layer, "encoding", None) == "pvq"]

    @property
    def total_weights(self) -> int:
        """Weights of the PVQ layers."""
        return sum(layer.weights.size for layer in self.pvq_layers() if layer.weights is not None)

    @property
    def total_pulses(self) -> int:
        """``sum |y|`` over the PVQ layers' final codes."""
        return sum(
            int(np.abs(layer.weights).sum())
            for layer in self.pvq_layers()
            if layer.weights is not None
        )

    @property
    def n_over_k(self) -> float:
        """Mean N/K: weights / pulses of the final codes of the PVQ layers alone; layers with
        plain 8-bit weights take no part. 0 where no layer is PVQ."""
        return self.total_weights / max(1, self.total_pulses)

    @property
    def int8_layers(self) -> list[str]:
        """Names of the layers with plain 8-bit weights."""
        return [x.name for x in self.layers if getattr(x, "encoding", None) == "int8"]

    # -- files ----------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Network):
            return NotImplemented
        return self._document() == other._document() and all(
            (a.weights is None and b.weights is None)
            or (
                a.weights is not None
                and b.weights is not None
                and np.array_equal(a.weights, b.weights)
            )
            for a, b in zip(self.layers, other.layers, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def _document(self) -> dict[str, Any]:
        return {
            **FORMAT.header,
            "name": self.name,
            "input": self.input.to_json(),
            "input_shape": list(self.input_shape),
            "input_axes": list(self.input_axes),
            "meta": self.meta,
            "layers": [layer.to_json() for layer in self.layers],
            **({"outputs": [o.to_json() for o in self.outputs]} if self.outputs else {}),
            **({"inputs": [i.to_json() for i in self.inputs]} if self.inputs else {}),
        }

    def save(self, folder: Path) -> None:
        """Writes ``network.json`` and ``weights.pvq`` into an existing folder; no pickle."""
        from pvq_hw.network.weights_file import pack_weights

        packed = pack_weights([x.weights for x in self.layers if x.weights is not None])
        document = self._document() | {"weights_sha256": hashlib.sha256(packed).hexdigest()}
        (folder / _WEIGHTS).write_bytes(packed)
        (folder / _NETWORK).write_text(document_text(document), encoding="utf-8", newline="\n")

    @classmethod
    def load(cls, folder: Path) -> "Network":
        """Reads what `save` wrote; raises InputError on anything else."""
        from pvq_hw.network.weights_file import unpack_weights

        path = folder / _NETWORK
        place = Place(str(path))
        document = load_json(path, FORMAT)
        saved = read(_Saved, document, place)
        try:
            packed = (folder / _WEIGHTS).read_bytes()
        except OSError as error:
            raise InputError(f"{folder} holds no saved network: {error}") from None
        if hashlib.sha256(packed).hexdigest() != saved["weights_sha256"]:
            raise InputError(f"{folder / _WEIGHTS} differs from the hash in {_NETWORK}")
        matrices = iter(unpack_weights(packed))
        layers = [
            _layer(item, matrices, place.key("layers").item(index))
            for index, item in enumerate(saved["layers"])
        ]
        network = cls(
            name=saved["name"],
            input=saved["input"],
            layers=tuple(layers),
            input_shape=saved["input_shape"],
            input_axes=saved["input_axes"],
            meta=saved["meta"],
            outputs=saved.get("outputs", ()),
            inputs=saved.get("inputs", ()),
        )
        network.verify()
        ends: dict[str, tuple[Output | Input, ...]] = {
            "outputs": network.outputs, "inputs": network.inputs,
        }  # fmt: skip
        for key, parts in ends.items():
            for index, (part, item) in enumerate(zip(parts, document.get(key, ()), strict=True)):
                if item.get("stop") != part.part.stop:
                    stop = place.key(key).item(index).key("stop")
                    raise stop.wrong(f"{part.part.stop}, as shape and start say", item.get("stop"))
        return network


class _Saved(TypedDict):
    """What ``network.json`` holds besides its header."""

    name: str
    input: TensorSpec
    input_shape: tuple[int, ...]
    input_axes: tuple[int, ...]
    meta: dict[str, Any]
    layers: list[dict[str, Any]]
    outputs: NotRequired[tuple[Output, ...]]
    inputs: NotRequired[tuple[Input, ...]]
    weights_sha256: str


def _layer(item: dict[str, Any], matrices: Iterator[IntArray], place: Place) -> Layer:
    """A layer, with the next matrix where it has weights."""
    if "shape" in item:
        shape = read(tuple[int, int], item["shape"], place.key("shape"))
        weights = next(matrices, None)
        if weights is None or weights.shape != shape:
            raise InputError(f"{place} lacks its weights")
        item = {key: value for key, value in item.items() if key != "shape"} | {"y": weights}
    return read_kind(LAYERS.kinds(), item, place)


def _remembers(layer: Layer) -> bool:
    return isinstance(layer, Decision) and layer.remembers
