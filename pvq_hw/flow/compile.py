"""From a model file to an accelerator's folder: the whole path, step by step.

Each step turns one frozen value into the next: file -> Model -> Network -> Plan -> Image -> OUT.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pvq_hw.data.dataset import Data
from pvq_hw.engine.engines import AUTO, Shared
from pvq_hw.errors import InputError
from pvq_hw.evaluate.accuracy import (
    Evaluation,
    check_accuracy,
    check_data,
    evaluate_network,
    scale_warning,
)
from pvq_hw.evaluate.agreement import Agreement, agreement, agreement_data
from pvq_hw.flow.choose import choose
from pvq_hw.flow.options import CompileOptions
from pvq_hw.flow.options_toml import options_toml
from pvq_hw.flow.quantize import asked_lanes, quantize_for
from pvq_hw.flow.reach import reach
from pvq_hw.garbage import seldom_collected
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Model
from pvq_hw.model.own_graph import check_own_graph
from pvq_hw.network.network import Network
from pvq_hw.network.rule import check_decision
from pvq_hw.output.folder import OPTIONS, OutputFolder
from pvq_hw.output.manifest import write_manifest
from pvq_hw.plan.fit import sold_note
from pvq_hw.plan.folding import Folding
from pvq_hw.plan.image import Image, emit
from pvq_hw.plan.plan import Plan, plan
from pvq_hw.progress import Steps
from pvq_hw.target.baud import check_rate
from pvq_hw.target.boards import Target, get_target
from pvq_hw.target.pll import solve_pll
from pvq_hw.tools import find as tools

__all__ = [
    "Compiled",
    "compile_model",
    "finish_output",
    "import_model",
    "plan_for",
    "quantize_for",
    "write_core_files",
]


_CHOSEN = """\
# Chosen within --max-loss: pvq-hw compile MODEL --config options.toml --calibrate DATA.npz -o OUT
# calibrates with all of DATA, of which a fifth was held out to choose by.
"""


@dataclass(frozen=True, eq=False)
class Compiled:
    """What `compile_model` made, besides the files."""

    model: Model
    network: Network
    plan: Plan
    image: Image
    evaluation: Evaluation | None
    document: dict[str, Any]


@seldom_collected()
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
    target.check_link(options.link)
    if options.baud is not None:
        hz = solve_pll(target, options.clock_mhz or target.clock_mhz).hz
        check_rate(options.link, hz, options.baud)
    for name, value in (("--min-accuracy", options.min_accuracy), ("--metric", metric)):
        if value is not None and evaluation is None:
            raise InputError(f"{name} must come with --evaluate TEST.npz")
    if evaluation is not None and evaluation.y is None:
        raise InputError("Evaluation data must have labels y")
    with OutputFolder(out).replace() as staging:
        with tell.step("Import the model"):
            model = import_model(path, options, calibration, evaluation, metric)
        warnings = (scale_warning(model, data) for data in (evaluation, calibration))
        if warning := next(filter(None, warnings), None):
            tell.note(warning)
        tools.warm_up(["yosys"], tell.note)
        if options.aim and model.outputs:
            # Labels belong to one of them: a loss would say nothing of the others.
            tell.note(f"The model has several outputs: N/K {options.ratio:g}; --max-loss chooses")
            options = replace(options, max_loss=None, aim=False)
        choice = None
        if options.max_loss is not None:
            choice = choose(model, target, options, calibration, plan_for, tell)
            options, made = choice.options, choice.made
        else:
            made = reach(model, target, options, calibration, plan_for, tell.progress, steps=tell)
        network, planned = made.network, made.plan
        image = emit(network, planned)
        if note := sold_note(planned.resources, target):
            tell.note(note)
        config = f"{_CHOSEN}{choice.document['config']}" if choice else None
        if options.updatable and choice is None:
            config = options_toml(options)
        document, judged = finish_output(
            staging, path, model, network, planned, image, tell,
            calibration=calibration, evaluation=evaluation, metric=metric,
            minimum=options.min_accuracy, config=config,
            more={"choice": choice.document} if choice else {},
        )  # fmt: skip
    return Compiled(model, network, planned, image, judged, document)


def import_model(
    path: Path,
    options: CompileOptions,
    calibration: Data | None,
    evaluation: Data | None,
    metric: str | None,
) -> Model:
    """The model, to which the data and what is asked of its outputs fit."""
    model, scale = load_model(path), options.input_scale
    if options.output is not None:
        model = model.for_output(options.output)
    check_decision(
        options.decide, math.prod(model.output_shape), len(model.outputs), options.frames
    )
    for name, data in (("Calibration data", calibration), ("Evaluation data", evaluation)):
        if data is not None and data.x.dtype.kind in "iu" and data.input_scale != scale:
            raise InputError(
                f"{name} must be divided by the input scale {scale:g} that is asked for, not by "
                f"{data.input_scale:g}"
            )
    if calibration is not None:
        check_data(model, calibration, "Calibration data", labels=False)
    if evaluation is not None:
        check_data(
            model, evaluation, "Evaluation data", minimum=options.min_accuracy, metric=metric
        )
    return model


def plan_for(
    network: Network, target: Target, options: CompileOptions, folding: Folding, goal: int = 0
) -> Plan:
    """The plan of a network with the lanes it was quantized for, or with the cheapest that keep to
    ``goal`` cycles a frame; InputError where it won't fit."""
    names = [layer.name for layer in network.layers]
    each = options.asked(names, target.engine)
    planned = partial(
        plan,
        network,
        target,
        clock_mhz=options.clock_mhz,
        baud=options.baud,
        frames=folding.frames,
        windows=options.windows,
        stream_width=options.stream_width,
        digit=options.digit,
        widths=(options.input_width, options.output_width),
        codes=options.codes(names),
        reasons=folding.reasons,
        goal=goal or folding.goal,
        live=options.live,
        measure=options.measure,
        link=options.link,
    )
    chosen = {
        name: part | ({"engine": folding.engine(name)} if "engine" in part else {})
        for name, part in each.items()
    }
    asked = asked_lanes(folding.names, options)
    free = _engines_kept(each, folding)
    if goal:
        return planned(lanes=asked, each=free[0])
    found = list[Plan]()
    try:
        limit = folding.limit or None
        found.append(
            planned(
                lanes=folding.lanes,
                gap_bits=folding.gap_bits,
                each=chosen,
                engine_reasons=folding.engine_reasons,
                limit=limit,
            )
        )
    except InputError:
        if asked is not None and None not in asked:
            raise
    # The codes came out larger than those that the lanes were chosen by, or suit other engines
    # better than was reckoned.
    for own in free if len(free) > 1 else free[: not found]:
        try:
            found.append(planned(lanes=asked, each=own, engine_reasons=_why(own, folding)))
        except InputError:
            if own is free[-1] and not found:
                raise
    return min(found, key=lambda own: own.interval_cycles > folding.goal and own.interval_cycles)


def _engines_kept(
    each: dict[str, dict[str, Any]], folding: Folding
) -> list[dict[str, dict[str, Any]]]:
    """What is asked of layers once it is known which share an engine; where some do and that was
    free, then that all do, and that none does."""
    shared = {"engine": Shared.kind}
    on_engines = [name for name in each if folding.engine(name) == Shared.kind]
    found = [each | {name: each[name] | shared for name in on_engines}]
    free = all(own.get("engine") == AUTO for own in each.values())
    if on_engines and free and not folding.shared:
        found += [{name: own | shared for name, own in each.items()}, each]
    return found


def _why(asked: dict[str, dict[str, Any]], folding: Folding) -> dict[str, str]:
    """Why layers are on the engines that are asked for, which may be others than were reckoned."""
    names = [name for name, own in asked.items() if own.get("engine") == Shared.kind]
    if any(folding.engine(name) != Shared.kind for name in names):
        return dict.fromkeys(names, "shared: faster with these codes than some on an engine")
    return {n: folding.engine_reasons[n] for n in names if n in folding.engine_reasons}


def finish_output(
    staging: Path,
    path: Path,
    model: Model,
    network: Network,
    planned: Plan,
    image: Image,
    tell: Steps,
    *,
    calibration: Data | None,
    evaluation: Data | None,
    metric: str | None,
    minimum: float | None,
    config: str | None,
    more: dict[str, Any],
) -> tuple[dict[str, Any], Evaluation | None]:
    """Judges a network, compares it with the model and the model's file, and writes every file of
    an output; gives the JSON document of `compile`, and how the network was judged.

    ``minimum`` is the accuracy asked for, ``config`` the text of the options, where they are kept,
    and ``more`` goes into the manifest. Raises CheckError, before anything is written, for too low
    an accuracy and for integers that are not what the model's weights and scales give.
    """
    judged = None
    if evaluation is not None:
        with tell.step("Evaluate float and golden model"):
            judged = evaluate_network(model, network, evaluation, metric)
            check_accuracy(judged, minimum)
    with tell.step("Compare integers, codes and the model file"):
        data, source = agreement_data(network, evaluation, calibration)
        agreed = agreement(model, network, data, source)
        own = check_own_graph(path, model, data)
    with tell.step("Write the files"):
        document = _write(
            staging, model, network, planned, image, judged, agreed, evaluation, metric, config,
            more,
        )  # fmt: skip
        document["model_file"] = own.to_json() if own else None
    return document, judged


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
    config: str | None,
    more: dict[str, Any],
) -> dict[str, Any]:
    """Every file of an output, the manifest last; gives the JSON document of `compile`."""
    from gateware.export.export import unit_lines
    from gateware.export.package import write_testbench
    from pvq_hw.engine.scenarios import pace_of, scenarios
    from pvq_hw.engine.spans import unit_spans
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
    if network.remembers:  # the testbench would go round and round
        pace = pace_of(planned.graph, image.cores, planned.interval_cycles)
        most = max(scenario.rounds for scenario in scenarios(pace))
        x = np.resize(x, (most, *x.shape[1:]))
    write_vectors(staging, network, x)
    last = unit_names(network.layers)[-1]
    write_testbench(staging, image, planned, len(x), last, unit_lines(network))
    extra = {
        "accuracy": judged.to_json() if judged else None,
        "agreement": agreed.to_json(),
        "losses": network_losses(model, network, evaluation, metric) if evaluation else None,
        "evaluation_sha256": evaluation.sha256 if evaluation else None,
        "schedule": [
            span.to_json() for span in unit_spans(planned.graph, planned.graph.named(image.cores))
        ],
        **more,
    }
    if config is not None:
        (staging / OPTIONS).write_text(config, encoding="utf-8", newline="\n")
    manifest = write_manifest(
        staging, network, planned, weights=model_weights(model, network), extra=extra
    )
    document = document_of(staging, network, planned, manifest)
    write_report(staging, {"compile": document})
    return document


def write_core_files(staging: Path, network: Network, planned: Plan, image: Image) -> None:
    """Network, plan, memory files and Verilog."""
    from gateware.export.export import export_accelerator, unit_lines

    (staging / "network").mkdir()
    network.save(staging / "network")
    planned.save(staging / "plan.json")
    image.write(staging)
    (staging / "verilog").mkdir()
    for name, text in export_accelerator(
        planned.graph,
        image.cores,
        cycles=(planned.interval_cycles, planned.latency_cycles),
        outputs=network.outputs,
        inputs=network.inputs,
        # Of other weights they are others, though the circuit stays.
        units=[] if planned.updatable else unit_lines(network),
    ).items():
        (staging / "verilog" / name).write_text(text, encoding="utf-8", newline="\n")
