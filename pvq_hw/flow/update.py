"""Other weights for an accelerator that is there: no synthesis, no place and route.

What follows from the weights is in block RAM. The new model is quantized into the lanes, widths and
words of the old plan; then memory files, golden vectors and manifest are made anew, and the placed
design gets the new contents.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from pvq_hw.data.dataset import Data
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.reserve import said
from pvq_hw.engine.roms import emptied
from pvq_hw.errors import InputError
from pvq_hw.flow.compile import finish_output, import_model
from pvq_hw.flow.options import load_options
from pvq_hw.flow.quantize import quantize_placed
from pvq_hw.network.network import Network
from pvq_hw.network.rule import decided
from pvq_hw.output.accelerator import Accelerator, load
from pvq_hw.output.build_record import BUILD, BUILD_FILE, read_build
from pvq_hw.output.folder import OPTIONS, OutputFolder
from pvq_hw.output.report import read_report, write_report
from pvq_hw.plan.core_layers import core_layers
from pvq_hw.plan.image import emit
from pvq_hw.plan.layer import plan_layer
from pvq_hw.plan.plan import Plan, remake, remake_graph, replanned
from pvq_hw.progress import Steps

__all__ = ["update_output"]

_PULSES = "compiled_pulses"  # in the manifest


def update_output(
    accelerator: Accelerator,
    path: Path,
    *,
    calibration: Data | None = None,
    evaluation: Data | None = None,
    metric: str | None = None,
    min_accuracy: float | None = None,
    steps: Steps | None = None,
) -> dict[str, Any]:
    """Gives an updatable accelerator the weights of another model of the same shape.

    The folder is replaced whole or not at all. Where it has a build, the bitstream is made anew,
    byte for byte as a build with the same seed would give it; reports of simulations and proofs,
    which were of the old weights, go. The model is quantized as `compile` was told then.

    Parameters
    ----------
    accelerator : Accelerator
    path : Path
        The model's file.
    calibration, evaluation, metric, min_accuracy : optional
        As `pvq_hw.flow.compile.compile_model` takes them.
    steps : Steps, optional

    Returns
    -------
    dict
        The document of `compile`, and ``bitstream``: its name below the folder, or None.

    Raises
    ------
    InputError
        The accelerator is not updatable, its build has changed, or the weights don't fit: by the
        layer's name, with what would have to give.
    CheckError
        Accuracy is below ``min_accuracy``.
    """
    tell = steps or Steps()
    plan, out = accelerator.plan, accelerator.out
    if not plan.updatable:
        raise InputError(
            f"{out} must have been compiled with --updatable to take other weights; "
            "run pvq-hw compile again"
        )
    built = (out / BUILD / BUILD_FILE).is_file()
    if built:
        read_build(out)
    config = (out / OPTIONS).read_text(encoding="utf-8")
    options = load_options(out / OPTIONS, {})
    with OutputFolder(out).replace() as staging:
        with tell.step("Import the model"):
            asked = replace(options, min_accuracy=min_accuracy)
            model = import_model(path, asked, calibration, evaluation, metric)
        with tell.step("Quantize into the placed design"):
            pulses = _first_pulses(accelerator)
            network = quantize_placed(
                model, plan, accelerator.network, options, calibration, pulses,
                tell.progress, tell.note,
            )  # fmt: skip
            network = decided(network, options.decide)
            planned = _replan(network, plan, accelerator.network)
            image = emit(network, planned)
        document, _ = finish_output(
            staging, path, model, network, planned, image, tell,
            calibration=calibration, evaluation=evaluation, metric=metric, minimum=min_accuracy,
            config=config, more={_PULSES: pulses},
        )  # fmt: skip
        document["bitstream"] = None
        if built:
            with tell.step("New contents for the bitstream"):
                document["bitstream"] = _rebuild(staging, out, document, tell)
    return document


def _first_pulses(accelerator: Accelerator) -> dict[str, int]:
    """Pulses of the layers as they were compiled: what one update gave up, the next may have."""
    kept = accelerator.manifest["extra"].get(_PULSES)
    told = kept if isinstance(kept, dict) else {}
    found = {}
    for part in accelerator.plan.layers:
        count = told.get(part.layer)
        usual = isinstance(count, int) and part.pulses <= count <= part.spec.rows << 20
        found[part.layer] = int(count) if usual else part.pulses  # type: ignore[arg-type]
    return found


def _replan(network: Network, plan: Plan, before: Network) -> Plan:
    """The plan of other weights in the same circuit; raises InputError where they need another."""
    for name in ("input", "output"):
        old, new = getattr(before, name), getattr(network, name)
        if (old.format, old.shape) != (new.format, new.shape):
            raise InputError(
                f"The {name} must have {said(old.format)} and the shape {old.shape} as in the "
                f"placed design, not {said(new.format)} and {new.shape}"
            )
    cores = [
        remake(layer, part.spec, plan.target.engine)
        for layer, part in zip(core_layers(network), plan.layers, strict=True)
    ]
    layers = [
        plan_layer(
            layer.dense, spec, image, plan.target.engine, layer.positions, layer.conv_groups,
            part.reason if part.encoding == "int8" else None,
        )
        for layer, (spec, image), part in zip(
            core_layers(network), cores, plan.layers, strict=True
        )
    ]  # fmt: skip
    planned = replanned(network, plan, layers, *remake_graph(network, plan, cores))
    _require_same(planned.graph, plan.graph)
    return planned


def _require_same(graph: GraphSpec, placed: GraphSpec) -> None:
    """Raises InputError unless two graphs differ in the contents of tables only."""
    if len(graph.units) != len(placed.units):
        raise InputError("The model must have the layers of the placed design")
    for new, old in zip(graph.units, placed.units, strict=True):
        if emptied(new) != emptied(old):
            raise InputError(
                f"Unit {old.name!r} must be as in the placed design, but other weights change what "
                "is constant in it; compile the new model anew"
            )


def _rebuild(staging: Path, out: Path, document: dict[str, Any], steps: Steps) -> str:
    """The bitstream, from the placed design of ``out``; gives its name."""
    from gateware.board.flow import build_figures, rebuild_output

    fresh = load(staging)
    rebuild_output(fresh, out / BUILD, staging / BUILD, steps)
    earlier = read_report(out).get("build")
    parts = {"compile": {k: v for k, v in document.items() if k != "bitstream"}}
    if earlier is not None:
        parts["build"] = earlier | build_figures(fresh)
    write_report(staging, parts)
    return f"{BUILD}/{read_build(staging)['bitstream']}"
