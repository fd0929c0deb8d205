"""Recovery by training: a network at few pulses learns to answer as the float one does.

Starts from the calibrated quantizer's codes, keeps the K of every row, trains latent weights,
gains and biases through straight-through layers and activations on their lattice, and ends in a
model whose weights are ``gain * y`` exactly, so that ``quantizer="given"`` takes just those codes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.data.augment import augmented, parse_kinds
from pvq_hw.errors import InputError
from pvq_hw.evaluate.accuracy import metric_for
from pvq_hw.inputs import input_names
from pvq_hw.model.model import Model
from pvq_hw.network.layer import TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.outputs import output_names
from pvq_hw.quantizer.banks import Placement
from pvq_hw.quantizer.fused import Step
from pvq_hw.quantizer.quantize import quantize
from pvq_hw.quantizer.scales import error_minimizing_scale
from pvq_hw.train.batches import Lessons, Lot
from pvq_hw.train.fit import Schedule, batches, with_weights
from pvq_hw.train.row_adam import RowAdam
from pvq_hw.train.straight import Int8Layer, PvqLayer, fake_quantize
from pvq_hw.train.torch_extra import require_torch
from pvq_hw.train.torch_model import Graph
from pvq_hw.user_code import names_function, user_function

__all__ = ["FineTuned", "Training", "finetune", "untrained"]

Tensor = Any
Vary = Callable[[npt.NDArray[Any], np.random.Generator], npt.ArrayLike]
_HEAT = 0.6  # standard deviations of a frame's outputs
_MOST_HEAT = 4.0  # beyond it labels would count for less and less
_UNIT_HEAT = 6.0  # up to it outputs are taken as they are beside labels
_UNITS = 8  # of biases, in the largest value of a layer's output
_PROBE = 2048  # frames by which the scales of activations are set
_BETAS = (0.98, 0.999)  # long memories: a pulse moves for what many batches agree on


@dataclass(frozen=True)
class Training:
    """How a network is fine-tuned.

    Parameters
    ----------
    epochs : int
    batch : int
        Frames of a step.
    rate : float
        Of the latent weights, in pulses; it rises, then falls to 0. 0: codes stay what they are,
        and only gains and biases are learned.
    side_rate : float
        Of gains (relative) and biases.
    project_every : int
        Steps between projections.
    distill : float
        Part of the loss that asks for the float network's outputs; the rest asks for the labels.
    temperature : float, optional
        Of the outputs that are compared; by default 0.6 times the standard deviation of a
        frame's outputs, the float network's, so that their unit doesn't matter.
    shift : int
        Places by which maps are moved at random, each way; 0 for none.
    mirror : bool
        Whether maps are mirrored left to right at random.
    augment : str or function
        How training inputs are varied anew for each batch: distortions, as in ``"shift,rotate=10"``
        (see `pvq_hw.data.augment.augmented`), ``"module:function"``, or a function: inputs as
        given (frames, ...) and a NumPy generator to inputs of the same shape.
    half : bool
        Whether layers are computed with 16-bit floating-point numbers (bfloat16): half as long
        where the processor has instructions for them; what comes out is rounded a little more.
    by_row : bool
        Whether steps of latent weights are measured by their row's gradients, not by each
        weight's own: see `pvq_hw.train.row_adam.RowAdam`. For rows of many inputs and few pulses.
    threads : int
        Of PyTorch; one, the default, gives the same result whatever the machine's cores.
    """

    epochs: int = 15
    batch: int = 256
    rate: float = 1e-3
    side_rate: float = 2e-3
    project_every: int = 8
    distill: float = 0.3
    temperature: float | None = None
    shift: int = 0
    mirror: bool = False
    augment: str | Vary = ""
    half: bool = False
    by_row: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "project_every", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"Training: {name} must be at least 1, not {getattr(self, name)}")
        for name in ("side_rate", "temperature"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"Training: {name} must be above 0, not {value}")
        if not 0 <= self.rate < float("inf"):
            raise InputError(f"Training: rate must be at least 0, not {self.rate}")
        if not 0 <= self.distill <= 1:
            raise InputError(f"Training: distill must be 0 to 1, not {self.distill}")
        if self.shift < 0:
            raise InputError(f"Training: shift must be at least 0, not {self.shift}")
        if isinstance(self.augment, str) and self.augment and not names_function(self.augment):
            parse_kinds(self.augment)


@dataclass(frozen=True, eq=False)
class FineTuned:
    """What `finetune` gives.

    Parameters
    ----------
    model : Model
        With weights that are ``gain * y``; `pvq_hw.model.export.save_model` writes it, and
        ``compile --quantizer given`` takes its codes.
    network : Network
        The integer network of those codes.
    start : Network
        The one it started from.
    losses : tuple of float
        Mean loss of every epoch.
    """

    model: Model
    network: Network
    start: Network
    losses: tuple[float, ...]


def finetune(
    model: Model,
    x: npt.ArrayLike,
    y: npt.ArrayLike | None = None,
    *,
    ratio: float = 10.0,
    layers: Mapping[str, Any] | None = None,
    banks: Mapping[str, int] | None = None,
    max_gap: Mapping[str, int] | None = None,
    activation_bits: int = 8,
    input_scale: float = 1.0,
    seed: int = 0,
    training: Training | None = None,
    start: Network | None = None,
    progress: Callable[[str, float], None] | None = None,
    each_epoch: Callable[[int, Model], None] | None = None,
) -> FineTuned:
    """Trains a network at few pulses.

    Parameters
    ----------
    model : Model
    x : array (frames, ...)
        Training inputs, as `pvq_hw.quantizer.quantize.quantize` takes them for calibration.
    y : array (frames, ...), optional
        Class numbers, or targets: what the network is to give, its last Sigmoid or Softmax
        included. Without them the float network's outputs are all that is learned from.
    ratio, layers, banks, max_gap, activation_bits, input_scale : see `quantize`
        Gains are one a row.
    seed : int
        Of the calibration frames and of the batches.
    training : Training, optional
    start : Network, optional
        Codes to start from, of this model; the calibrated quantizer's by default.
    progress : function (what, part done), optional
    each_epoch : function (epoch, model), optional
        Gets the model as it is after every epoch, from 0: to keep it, should the run be stopped.

    Raises
    ------
    InputError
        In one line, for data or options that cannot be used.
    ToolError
        Without PyTorch.
    """
    if model.outputs:
        names = output_names(model.outputs)
        raise InputError(f"Fine-tuning must have a model of one output, not of {names}")
    if model.inputs:
        names = input_names(model.inputs)
        raise InputError(f"Fine-tuning must have a model of one input, not of {names}")
    torch = require_torch()
    array = np.asarray(getattr(x, "x", x))
    labels = _labels(model, y, len(array))
    options: dict[str, Any] = {
        "layers": layers,
        "activation_bits": activation_bits,
        "input_scale": input_scale,
        "seed": seed,
    }
    if start is None:
        start = quantize(
            model, calibration=array, ratio=ratio, banks=banks, max_gap=max_gap,
            progress=progress, **options,
        )  # fmt: skip
    threads = torch.get_num_threads()
    plan = training or Training()
    torch.set_num_threads(plan.threads)
    try:
        run = Run(model, start, plan, _placements(banks, max_gap))
        inputs = _integers(start, array, input_scale)
        lessons = Lessons(
            run.graph, inputs, labels, start.input.scale, plan.shift, plan.mirror,
            _varied(plan.augment, model, start, array, input_scale),
        )  # fmt: skip
        losses = run.train(lessons, seed, progress, each_epoch)
    finally:
        torch.set_num_threads(threads)
    return _given(run.model(), start, array, losses, options)


def untrained(
    model: Model,
    x: npt.ArrayLike,
    *,
    start: Network,
    layers: Mapping[str, Any] | None = None,
    activation_bits: int = 8,
    input_scale: float = 1.0,
    seed: int = 0,
    **_: Any,
) -> FineTuned:
    """What `finetune` would give without a step: the codes of ``start``, in a model."""
    options = {
        "layers": layers,
        "activation_bits": activation_bits,
        "input_scale": input_scale,
        "seed": seed,
    }
    codes = Run(model, start, Training(), {}).model()
    return _given(codes, start, np.asarray(x), (), options)


def _given(
    tuned: Model,
    start: Network,
    x: npt.NDArray[Any],
    losses: Sequence[float],
    options: Mapping[str, Any],
) -> FineTuned:
    """The integer network of a model whose weights are codes."""
    network = quantize(tuned, calibration=x, quantizer="given", **options)
    network = replace(network, meta=network.meta | {"quantizer": "fine-tuned"})
    return FineTuned(tuned, network, start, tuple(losses))


def _varied(
    augment: str | Vary, model: Model, start: Network, x: npt.NDArray[Any], input_scale: float
) -> Callable[[npt.NDArray[np.int64], np.random.Generator], npt.NDArray[Any]] | None:
    """The accelerator's inputs for frames of ``x``, varied; None for no augmentation."""
    if not augment:
        return None
    axes = model.input_axes if len(model.shape) == 3 else ()
    if callable(augment):
        function: Vary = augment
    elif names_function(augment):
        function = user_function(augment, "Augmentation")
    else:
        kinds = parse_kinds(augment)

        def function(given: npt.NDArray[Any], rng: np.random.Generator) -> npt.ArrayLike:
            return augmented(given, kinds, axes=axes, seed=int(rng.integers(1 << 31)))

    def vary(chosen: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[Any]:
        given = x[chosen]
        found = np.asarray(function(given, rng))
        if found.shape != given.shape or found.dtype.kind not in "iubf":
            raise InputError(
                f"Augmentation must give numbers of the shape {given.shape}, "
                f"not {found.dtype} {found.shape}"
            )
        return start.quantize_input(found, input_scale)

    return vary


def _labels(model: Model, y: npt.ArrayLike | None, count: int) -> npt.NDArray[Any] | None:
    """Class numbers as int64 (frames,), targets as float32 (frames, outputs)."""
    if y is None:
        return None
    labels, outputs = np.asarray(y), model.nodes[-1].size
    if labels.dtype.kind not in "iubf" or labels.ndim < 1 or len(labels) != count:
        raise InputError(f"Labels must be a number or numbers for each of {count} frames")
    judge = metric_for(model, labels)
    judge.compute(np.broadcast_to(0.0, (count, outputs)), labels)
    if judge.classes and outputs > 1:
        return labels.astype(np.int64)
    return labels.reshape(count, outputs).astype(np.float32)


def _placements(
    banks: Mapping[str, int] | None, max_gap: Mapping[str, int] | None
) -> dict[str, Placement]:
    return {name: Placement(p, (max_gap or {}).get(name)) for name, p in (banks or {}).items()}


def _integers(network: Network, x: npt.NDArray[Any], input_scale: float) -> npt.NDArray[np.int16]:
    """The accelerator's inputs, in chunks that keep memory small."""
    parts = [
        network.quantize_input(x[i : i + 4096], input_scale).astype(np.int32)
        for i in range(0, len(x), 4096)
    ]
    whole = np.concatenate(parts)
    return whole.astype(np.int16) if whole.max(initial=0) < 1 << 15 else whole  # type: ignore


class Run:
    """One fine-tuning: the float network that teaches, the layers that learn, the scales."""

    def __init__(
        self, model: Model, start: Network, plan: Training, placements: dict[str, Placement]
    ) -> None:
        self.torch, self.plan, self.source = require_torch(), plan, model
        self.graph, self.heat = Graph(model), plan.temperature
        self.input = start.input
        self.outputs: dict[str, TensorSpec] = {x.name: x.output for x in start.layers}
        self.layers = {
            step.name: _layer(step, start, placements.get(step.name))
            for step in self.graph.steps
            if step.weighted
        }

    def model(self) -> Model:
        """The model as trained."""
        real = {name: layer.real() for name, layer in self.layers.items()}
        return with_weights(
            self.source, {n: w for n, (w, _) in real.items()}, {n: b for n, (_, b) in real.items()}
        )

    def train(
        self,
        lessons: Lessons,
        seed: int,
        progress: Callable[[str, float], None] | None = None,
        each_epoch: Callable[[int, Model], None] | None = None,
    ) -> list[float]:
        """Mean losses of the epochs."""
        rng, plan = np.random.default_rng(seed), self.plan
        pulses = [t for layer in self.layers.values() for t in layer.parts()[0]]
        others = [t for layer in self.layers.values() for t in layer.parts()[1]]
        torch = self.torch
        optimizers: list[Any] = [torch.optim.Adam(others, plan.side_rate, betas=(0.9, 0.99))]
        if pulses and plan.rate > 0:
            kind: Any = RowAdam if plan.by_row else torch.optim.Adam
            optimizers.append(kind(pulses, plan.rate, betas=_BETAS))
        if plan.distill > 0 or not lessons.labeled:
            lessons.teach(partial(progress, "float network") if progress else None)
        each = len(lessons) // min(plan.batch, len(lessons))
        schedule, step, losses = Schedule(each * plan.epochs), 0, []
        for epoch in range(plan.epochs):
            probe = lessons.some(_PROBE, rng)
            if self.heat is None:
                self.heat = self.measured_heat(probe)
            self._scales(probe)
            total = 0.0
            for some in batches(len(lessons), plan.batch, rng):
                for optimizer, rate in zip(optimizers, (plan.side_rate, plan.rate), strict=False):
                    optimizer.param_groups[0]["lr"] = rate * schedule(step)
                loss = self.loss_of(lessons.take(some, rng))
                for optimizer in optimizers:
                    optimizer.zero_grad()
                loss.backward()
                for optimizer in optimizers:
                    optimizer.step()
                step += 1
                if step % plan.project_every == 0:
                    self._project()
                total += float(loss.detach())
                if progress and step % 16 == 0:
                    progress("training", step / (each * plan.epochs))
            losses.append(total / each)
            self._project()
            if each_epoch:
                each_epoch(epoch, self.model())
        return losses

    def _project(self) -> None:
        for layer in self.layers.values() if self.plan.rate > 0 else ():
            layer.project()

    def loss_of(self, lot: Lot) -> Tensor:
        plan, functional = self.plan, self.torch.nn.functional
        with self.torch.autocast("cpu", dtype=self.torch.bfloat16, enabled=plan.half):
            out = self.forward(lot.x).float()
        # Labels ask for outputs that differ by some units, whatever the float network's are.
        unit = max(1.0, (self.heat or 1.0) / _UNIT_HEAT)
        loss: Any = 0.0
        targets = lot.labels is not None and lot.labels.is_floating_point()
        part = 1.0 if lot.labels is None else plan.distill
        if part > 0:
            wanted = self.graph.outputs(lot.x) if lot.wanted is None else lot.wanted
            if wanted.shape[1] < 2 or targets:
                loss = part * functional.mse_loss(out, wanted)
            else:
                heat = self.heat or 1.0
                soft = functional.kl_div(
                    (out / heat).log_softmax(1), (wanted / heat).log_softmax(1),
                    reduction="batchmean", log_target=True,
                )  # fmt: skip
                # The gradient by an output is about 1/heat: from labels it is 1/unit.
                loss = part * heat / unit * min(heat, _MOST_HEAT) * soft
        if targets and part < 1:
            loss = loss + (1 - part) * functional.mse_loss(self._head(out), lot.labels)
        elif lot.labels is not None and part < 1:
            loss = loss + (1 - part) * functional.cross_entropy(out / unit, lot.labels)
        return loss

    def _head(self, out: Tensor) -> Tensor:
        """What the file's network gives for these outputs; see `pvq_hw.evaluate.metrics`."""
        for kind in self.source.dropped:
            if kind == "Sigmoid":
                out = out.sigmoid()
            elif kind in ("Softmax", "LogSoftmax"):
                out = out.softmax(1) if kind == "Softmax" else out.log_softmax(1)
            else:
                break
        return out

    def forward(self, x: Tensor, after: Callable[[Step, Tensor], Tensor] | None = None) -> Tensor:
        """Outputs of the network as it is: codes, and activations on their lattice."""
        return self.graph.run(x, self._weights, after or self._round)

    def _weights(self, step: Step) -> tuple[Tensor, Tensor]:
        layer = self.layers[step.name]
        return layer.weight(), layer.bias

    def _round(self, step: Step, out: Tensor) -> Tensor:
        if step.last or step.node.keeps:
            return out
        spec = self.outputs[step.name]
        return fake_quantize(out, spec.scale, spec.format.min, spec.format.max)

    def measured_heat(self, x: Tensor) -> float:
        """The temperature that suits the float network's outputs."""
        with self.torch.no_grad():
            outputs = self.graph.run(x)
        return max(1e-6, _HEAT * float(outputs.std(dim=1).mean()))

    def _scales(self, x: Tensor) -> None:
        """Scales of the least error on the activations as they are now."""

        def measure(step: Step, out: Tensor) -> Tensor:
            if step.last or step.node.keeps:
                return out
            spec = self.outputs[step.name]
            if not spec.format.binary and step.format is None:
                width = IntFormat(spec.format.bits, spec.format.signed)
                scale = error_minimizing_scale(out.numpy(), width)
                scale = min(scale, step.activation.largest_scale(width))
                fmt = step.activation.within(width, scale)
                self.outputs[step.name] = replace(spec, format=fmt, scale=scale)
            return self._round(step, out)

        with self.torch.no_grad():
            self.forward(x, measure)


def _layer(step: Step, start: Network, placement: Placement | None) -> PvqLayer | Int8Layer:
    """The straight-through layer of a step, from the network's codes."""
    found = [layer for layer in start.layers if layer.name == step.name]
    w, bias = step.weight, step.bias
    if not found or found[0].weights is None or found[0].weights.shape != w.shape:
        raise InputError(f"Layer {step.name!r} must have codes in the network to start from")
    layer: Any = found[0]
    unit = layer.output.format.max * layer.output.scale / _UNITS
    if layer.encoding == "int8":
        return Int8Layer(w, bias, unit)
    if layer.gain.shape[1] != 1:
        raise InputError(f"Layer {step.name!r} must have a gain per row to be fine-tuned")
    if start.meta.get("quantizer") == "fine-tuned":
        w = layer.gain * layer.y  # which has left the float network's weights behind
    real = layer.bias / (1 << layer.shift) * layer.output.scale
    return PvqLayer(w, layer.y, layer.gain, real, placement, unit)
