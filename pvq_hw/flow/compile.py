"""From a model file to an accelerator's folder: the whole path, step by step.

Each step turns one frozen value into the next: file -> Model -> Network -> Plan -> Image -> OUT.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pvq_hw.data.dataset import Data
from pvq_hw.errors import InputError
from pvq_hw.evaluate.accuracy import (
    Evaluation,
    check_accuracy,
    check_data,
    evaluate_network,
    scale_warning,
)
from pvq_hw.evaluate.agreement import Agreement, agreement, agreement_data
from pvq_hw.flow.options import CompileOptions, LayerChoice
from pvq_hw.model.model import Model, load_model
from pvq_hw.model.onnx.own_graph import check_own_graph
from pvq_hw.network.network import Network
from pvq_hw.output.folder import OutputFolder
from pvq_hw.output.manifest import write_manifest
from pvq_hw.plan.fit import sold_note
from pvq_hw.plan.folding import Folding, FoldLayer, fold, fold_best, known_layers
from pvq_hw.plan.image import Image, emit
from pvq_hw.plan.plan import Plan, plan
from pvq_hw.plan.resources import budget
from pvq_hw.progress import Steps
from pvq_hw.target.boards import Target, get_target
from pvq_hw.tools import find as tools

__all__ = [
    "QUICK_FRAMES",
    "QUICK_PATIENCE",
    "Compiled",
    "chain_layers",
    "compile_model",
    "plan_for",
    "quantize_for",
    "write_core_files",
]

Progress = Callable[[float, float, str], None]

QUICK_FRAMES = 1500
"""Calibration frames of a quick quantization."""

QUICK_PATIENCE = 2
"""Of the moves of pulses of a quick quantization; see `pvq_hw.quantizer.quantize.quantize`."""

_ROOM = 1.1


@dataclass(frozen=True, eq=False)
class Compiled:
    """What `compile_model` made, besides the files."""

    model: Model
    network: Network
    plan: Plan
    image: Image
    evaluation: Evaluation | None
    document: dict[str, Any]


def compile_model(
    path: Path,
    out: Path,
    options: CompileOptions,
    *,
    calibration: Data | None = None,
    evaluation: Data | None = None,
    metric: str | None = None,
    steps: Steps | None = None,
) -> Compiled:
    """Model file in, output folder out; the folder is replaced whole or not at all.

    ``metric`` is what ``evaluation`` is scored by; see `pvq_hw.evaluate.metrics.find_metric`.

    Raises
    ------
    InputError
        In one line, for anything in the input or the environment that is at fault.
    CheckError
        Accuracy below ``options.min_accuracy``; nothing is written then.
    """
    tell = steps or Steps()
    target = get_target(options.target)
    for name, value in (("--min-accuracy", options.min_accuracy), ("--metric", metric)):
        if value is not None and evaluation is None:
            raise InputError(f"{name} must come with --evaluate TEST.npz")
    if evaluation is not None and evaluation.y is None:
        raise InputError("Evaluation data must have labels y")
    with OutputFolder(out).replace() as staging:
        with tell.step("Import the model"):
            model = load_model(path)
            if calibration is not None:
                check_data(model, calibration, "Calibration data", labels=False)
            if evaluation is not None:
                check_data(
                    model, evaluation, "Evaluation data",
                    minimum=options.min_accuracy, metric=metric,
                )  # fmt: skip
        for data in (evaluation, calibration):
            warning = scale_warning(model, data)
            if warning:
                tell.note(warning)
                break
        tools.warm_up(["yosys"], tell.note)
        with tell.step("Quantize to the pyramid"):
            network, folding = quantize_for(model, target, options, calibration, tell.progress)
        with tell.step("Plan the cores"):
            planned = plan_for(network, target, options, folding)
            image = emit(network, planned)
        note = sold_note(planned.resources, target)
        if note:
            tell.note(note)
        judged = None
        if evaluation is not None:
            with tell.step("Evaluate float and golden model"):
                judged = evaluate_network(model, network, evaluation, metric)
                check_accuracy(judged, options.min_accuracy)
        with tell.step("Compare integers, codes and the model file"):
            data, source = agreement_data(network, evaluation, calibration)
            agreed = agreement(model, network, data, source)
            own = check_own_graph(path, model, data)
        with tell.step("Write the files"):
            document = _write(
                staging, model, network, planned, image, judged, agreed, evaluation, metric
            )
            document["model_file"] = own.to_json() if own else None
    return Compiled(model, network, planned, image, judged, document)


def quantize_for(
    model: Model,
    target: Target,
    options: CompileOptions,
    calibration: Data | None,
    progress: Progress | None = None,
    *,
    quick: bool = False,
) -> tuple[Network, Folding]:
    """Lanes first, since the quantizer spreads the pulses evenly over them; then the network.

    ``quick`` calibrates with `QUICK_FRAMES` at most, gives all rows of a dense layer the same K,
    moves fewer pulses and leaves out the sweeps over the whole network: some tenths of a point of
    accuracy for many times the speed, as a search wants.
    """
    from pvq_hw.flow.graph import quantize_graph, weighted_names
    from pvq_hw.quantizer.chain import is_dense_chain
    from pvq_hw.quantizer.quantize import even_budget, quantize, row_budget

    names = weighted_names(model)
    options = options.resolved(names)
    lanes = _lanes(names, options)
    count = 3 * len(names)  # to measure, to quantize and to refine a layer take about as long
    each = options.asked(names, target.engine)
    data = None if calibration is None else calibration.x

    def told(done: int, layer: str, part: float) -> None:
        if progress is not None:
            if layer in names:
                place = names.index(layer) + part
            else:
                place = len(names) * (part + (layer == "all layers"))
            progress(min(done + place, count), count, layer)

    common: dict[str, Any] = {
        "calibration": data,
        "ratio": options.ratio,
        "activation_bits": options.activation_bits,
        "input_scale": options.input_scale,
        "layers": options.layers or None,
        "seed": options.seed,
        "max_frames": options.calibration_frames,
        "augment": options.augment or None,
    }
    swept: dict[str, Any] = {"sweeps": options.sweeps}
    if quick:
        common["max_frames"] = min(QUICK_FRAMES, options.calibration_frames)
        swept |= {"sweeps": 0, "patience": QUICK_PATIENCE}

    def run(done: int, **more: Any) -> Network:
        return quantize(
            model,
            quantizer=options.quantizer,
            gain_rule=options.gain,
            mend=options.mend,
            progress=partial(told, done),
            **(swept | common | more),
        )

    frames = options.frames if isinstance(options.frames, int) else None
    if not is_dense_chain(model):
        return quantize_graph(
            model,
            target,
            ratio=options.ratio,
            quantizer=options.quantizer,
            bits=options.activation_bits,
            layers=options.layers,
            lanes=lanes,
            codes=options.codes(names),
            free=options.free(names),
            each=each,
            frames=frames,
            budget=lambda: row_budget(model, progress=partial(told, 0), **common),
            run=lambda **more: run(len(names), **more),
        )
    if options.quantizer == "given":
        network = run(0)
        known = known_layers(network, options.codes(names))
        return network, fold(known, target, lanes=lanes, each=each)
    # The pulses of each layer decide its lanes, and its lanes decide where pulses may be.
    layers, pulses = chain_layers(model, options), None
    if not quick and not options.free(names):
        _check_room(layers, target, lanes=lanes, each=each)
    if options.quantizer == "calibrated":
        if quick:
            pulses = even_budget(model, ratio=options.ratio, layers=common["layers"])
        else:
            pulses = row_budget(model, progress=partial(told, 0), **common)
        layers = [replace(x, k=max(1, round(pulses[x.name].sum() / x.rows))) for x in layers]
    free = options.free(names)
    folding = fold_best(layers, target, lanes=lanes, frames=frames, free=free, each=each)
    banks = _balanced(folding.banks, options)
    gaps = {name: folding.max_gap[name] for name in banks}
    unasked = {name: LayerChoice(encoding="int8") for name in folding.reasons}
    kinds = dict(options.layers) | unasked
    return run(len(names), layers=kinds or None, banks=banks, max_gap=gaps, pulses=pulses), folding


def plan_for(network: Network, target: Target, options: CompileOptions, folding: Folding) -> Plan:
    """The plan of a network with the lanes it was quantized for; InputError where it won't fit."""
    names = [layer.name for layer in network.layers]
    planned = partial(
        plan,
        network,
        target,
        clock_mhz=options.clock_mhz,
        frames=folding.frames,
        codes=options.codes(names),
        each=options.asked(names, target.engine),
        reasons=folding.reasons,
    )
    try:
        limit = folding.limit or None
        return planned(lanes=folding.lanes, gap_bits=folding.gap_bits or None, limit=limit)
    except InputError:
        asked = _lanes(list(folding.names), options)
        if asked is not None and None not in asked:
            raise
        # The codes came out larger than those that the lanes were chosen by.
        return planned(lanes=asked)


def _check_room(layers: list[FoldLayer], target: Target, **asked: Any) -> None:
    """Raises InputError where a network of one pulse a row is too large already, by more than what
    choices that nobody tried could save: then no codes fit, and none need be looked for."""
    least = fold([replace(layer, k=1) for layer in layers], target, balanced=False, **asked)
    limit = budget(target)
    for name, unit in (("brams", "block RAMs"), ("dsps", "multiplier blocks"),
                       ("luts", f"{target.logic_cell}s")):  # fmt: skip
        need, have = getattr(least.cost, name), getattr(limit, name)
        if not least.fits and need > _ROOM * have + 1:
            raise InputError(
                f"The network needs about {need:,} {unit} at a pulse a row already, but "
                f"{target.name} has {have:,}; use fewer inputs, rows or layers, or choose "
                "a larger device"
            )


def _balanced(banks: dict[str, int], options: CompileOptions) -> dict[str, int]:
    """Banks of the layers whose pulses may be spread over them: those with a gain per row, in
    all of whose columns pulses may be."""
    free = {n for n, c in options.layers.items() if c.unit not in (None, "row") or c.keep_zeros}
    given = {n for n, c in options.layers.items() if c.k is not None and c.k % banks.get(n, 1)}
    return {name: p for name, p in banks.items() if name not in free | given}


def _lanes(names: list[str], options: CompileOptions) -> list[int | None] | None:
    """Lanes of every layer, None where the user gave none."""
    if options.lanes is not None:
        if len(options.lanes) != len(names):
            raise InputError(f"Lanes must be given for {len(names)} layers, not {options.lanes}")
        return list(options.lanes)
    given = [options.layers[name].lanes if name in options.layers else None for name in names]
    return None if all(p is None for p in given) else given


def chain_layers(model: Model, options: CompileOptions) -> list[FoldLayer]:
    """The layers of a dense chain, as far as they are known before quantization."""
    from pvq_hw.arith.formats import IntFormat
    from pvq_hw.quantizer.chain import dense_stages

    layers = []
    bits = options.activation_bits
    x = IntFormat(bits, bits == 1)
    for stage in dense_stages(model):
        rows, n = stage.weight.shape
        choice = options.layers.get(stage.name)
        ratio = choice.ratio if choice and choice.ratio else options.ratio
        k = choice.k if choice and choice.k else max(1, round(n / ratio))
        out = stage.activation.format(16 if stage.last else bits)
        encoding = (choice.encoding if choice else None) or "pvq"
        code = options.codes([stage.name]).get(stage.name)
        layers.append(FoldLayer(stage.name, rows, n, k, x, out, encoding, code))
        x = out
    return layers


def _write(
    staging: Path,
    model: Model,
    network: Network,
    planned: Plan,
    image: Image,
    judged: Evaluation | None,
    agreed: Agreement,
    evaluation: Data | None,
    metric: str | None,
) -> dict[str, Any]:
    """Every file of an output, the manifest last; gives the JSON document of `compile`."""
    from gateware.export.package import write_testbench
    from pvq_hw.evaluate.attribution import network_losses
    from pvq_hw.evaluate.code_error import model_weights
    from pvq_hw.network.golden_inputs import golden_inputs
    from pvq_hw.output.golden_vectors import write_vectors
    from pvq_hw.output.report import document_of, write_report
    from pvq_hw.plan.core_layers import unit_names

    write_core_files(staging, network, planned, image)
    x = golden_inputs(network)
    if evaluation is not None:
        real = network.quantize_input(evaluation.x[:4], evaluation.input_scale)
        x = np.concatenate((x, real))
    write_vectors(staging, network, x)
    write_testbench(staging, image, planned, len(x), unit_names(network.layers)[-1])
    extra = {
        "accuracy": judged.to_json() if judged else None,
        "agreement": agreed.to_json(),
        "losses": network_losses(model, network, evaluation, metric) if evaluation else None,
        "evaluation_sha256": evaluation.sha256 if evaluation else None,
    }
    manifest = write_manifest(
        staging, network, planned, weights=model_weights(model, network), extra=extra
    )
    document = document_of(staging, network, planned, manifest)
    write_report(staging, {"compile": document})
    return document


def write_core_files(staging: Path, network: Network, planned: Plan, image: Image) -> None:
    """Network, plan, memory files and Verilog."""
    from gateware.export.export import export_accelerator

    (staging / "network").mkdir()
    network.save(staging / "network")
    planned.save(staging / "plan.json")
    image.write(staging)
    (staging / "verilog").mkdir()
    for name, text in export_accelerator(
        planned.graph,
        image.cores,
        cycles=(planned.interval_cycles, planned.latency_cycles),
    ).items():
        (staging / "verilog" / name).write_text(text, encoding="utf-8", newline="\n")
