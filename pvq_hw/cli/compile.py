"""``pvq-hw compile``."""

import argparse
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from pvq_hw.choices import LINK_WORDS
from pvq_hw.cli.scores import tell_scores
from pvq_hw.cli.ui import Ui
from pvq_hw.garbage import collected_no_more

if TYPE_CHECKING:
    from pvq_hw.flow.options import CompileOptions

__all__ = ["asked_options", "describe", "run"]


_KEYS = (
    "target",
    "ratio",
    "max_loss",
    "objective",
    "inferences_per_second",
    "quantizer",
    "gain",
    "mend",
    "input_scale",
    "activation_bits",
    "min_accuracy",
    "output",
    "decide",
    "clock_mhz",
    "link",
    "baud",
    "input_width",
    "output_width",
    "keep_zeros",
    "balanced",
    "updatable",
    "spare",
    "window_pulses",
    "share_sums",
    "gain_digits",
    "live",
    "measure",
    "flash_bits",
    "code",
    "augment",
    "calibration_frames",
    "sweeps",
    "seed",
)  # options that are asked for as they are


@collected_no_more()
def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Compiles a model into an output folder."""
    from pvq_hw.data.dataset import load_data
    from pvq_hw.engine.spram_image import CODES_FILE
    from pvq_hw.errors import InputError
    from pvq_hw.flow.compile import compile_model
    from pvq_hw.model.load import load_model

    options = asked_options(args)
    if not options.target:
        raise InputError("A target must be given: --target BOARD, or target in --config")
    scale = options.input_scale
    inputs = cache(lambda: load_model(args.model).inputs)
    calibration = load_data(args.calibrate, scale, inputs) if args.calibrate else None
    evaluation = load_data(args.evaluate, scale, inputs) if args.evaluate else None
    compiled = compile_model(
        args.model, args.out, options,
        calibration=calibration, evaluation=evaluation, metric=args.metric, steps=ui,
    )  # fmt: skip
    describe(compiled.document, ui)
    if stream := compiled.document["code_stream"]:
        ui.say(
            f"  codes                 {stream['bits_per_frame']:,} bits a frame from the flash, "
            f"{stream['bits_per_clock']} a clock, at {stream['flash_hz'] / 1e6:g} MHz "
            f"{stream['cycles_per_frame']:,} cycles; "
            f"image/{CODES_FILE}"
        )
    elif (args.out / "image" / CODES_FILE).exists():
        ui.say(f"  codes                 are loaded after configuration, from image/{CODES_FILE}")
    ui.say(f"\n{args.out} is written; next: pvq-hw simulate {args.out} --data TEST.npz")
    return compiled.document | {"out": str(args.out), "seconds": ui.seconds}, 0


def asked_options(args: argparse.Namespace) -> "CompileOptions":
    """What the command line and its configuration ask for, for all layers and for single ones."""
    from pvq_hw.flow.options import LayerChoice, load_options
    from pvq_hw.plan.goal import microseconds

    overrides = {key: getattr(args, key) for key in _KEYS}
    overrides |= {"int8": _names(args.int8), "only": _names(args.only)}
    overrides["frames"] = _frames(args.frames)
    if args.max_latency is not None:
        overrides["max_latency"] = microseconds(args.max_latency)
    layers: dict[str, dict[str, Any]] = {}
    for key in ("code_memory", "multiplier", "engine"):
        overrides[key] = layer_kinds(key, getattr(args, key), layers)
    overrides["windows"] = _numbers("windows", args.windows, layers)
    overrides["stream_width"] = _numbers("stream_width", args.stream_width, layers)
    overrides["digit"] = _numbers("digit", args.digit, layers)
    options = load_options(
        args.config,
        overrides | {"lanes": lane_list(args.lanes)},
        calibrated=args.calibrate is not None,
    )
    for name, kinds in layers.items():
        choice = replace(options.layers.get(name, LayerChoice()), **kinds)
        options = replace(options, layers=dict(options.layers) | {name: choice})
    return options


def _names(text: str | None) -> tuple[str, ...] | None:
    """``"fc1,fc2"`` as names."""
    return None if text is None else tuple(text.split(","))


def _frames(text: str | None) -> int | str | None:
    """``"auto"`` or a number; anything else is refused where options are checked."""
    return int(text) if text is not None and text.isdecimal() and len(text) < 9 else text


def layer_kinds(key: str, text: str | None, layers: dict[str, dict[str, Any]]) -> str | None:
    """``"block"`` for all layers, or ``"fc1=spram,fc2=block"``, which goes into ``layers``."""
    if text is None or "=" not in text:
        return text
    whole = None
    for part in text.split(","):
        name, equals, kind = part.rpartition("=")
        if equals:
            layers.setdefault(name, {})[key] = kind
        else:
            whole = kind
    return whole


def _numbers(key: str, text: str | None, layers: dict[str, dict[str, Any]]) -> int | None:
    """``"4"`` for all layers, or ``"conv1=4,conv2=2"``, which goes into ``layers``."""
    from pvq_hw.errors import InputError

    named: dict[str, dict[str, Any]] = {}
    whole = layer_kinds(key, text, named)
    try:
        for name, part in named.items():
            layers.setdefault(name, {})[key] = int(part[key])
        return None if whole is None else int(whole)
    except ValueError:
        what = key.replace("_", " ").capitalize()
        raise InputError(f"{what} must be numbers like 4 or conv1=4, not {text!r:.60}") from None


def lane_list(text: str | None) -> tuple[int, ...] | None:
    """``"8,4,2"`` as numbers."""
    return None if text is None else numbers("lanes", text)


def numbers(what: str, text: str) -> tuple[int, ...]:
    """``"8,4,2"`` as numbers; raises InputError for anything else."""
    from pvq_hw.errors import InputError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        name = what.capitalize()
        raise InputError(f"{name} must be numbers like 8,4,2, not {text!r:.60}") from None


def _ratio(layer: dict[str, Any]) -> str:
    """N/K of a layer in ten columns."""
    return "int8      " if layer["n_over_k"] is None else f"N/K {layer['n_over_k']:<6.2f}"


def _is_shared(layer: dict[str, Any]) -> bool:
    """Whether it is on an engine that may have several layers."""
    from pvq_hw.engine.core import CORES
    from pvq_hw.engine.engines import engine_named

    return not engine_named(CORES.named(layer["kind"]).engine).for_one


def _engine(layer: dict[str, Any]) -> str:
    from pvq_hw.engine.core import CORES
    from pvq_hw.engine.engines import Folded

    engine = CORES.named(layer["kind"]).engine
    wide = f", {layer['stream_width']} a transfer" if layer["stream_width"] > 1 else ""
    if layer["utilization"] is None:
        return f"{engine}, {layer['slots']:>{14 - len(engine)}} cycles for its sums{wide}"
    used = f"{100 * layer['utilization']:.0f} % used"
    if engine != Folded.kind:
        return f"{engine}, {layer['slots']:>{14 - len(engine)}} slots {used}"
    side = f" x {layer['windows']} windows" if layer["windows"] > 1 else ""
    return f"{layer['lanes']:>3} lanes{side}, {layer['slots']:>6} slots {used}{wide}"


def describe(document: dict[str, Any], ui: Ui) -> None:
    """The figures of a compile for people."""
    plain = document["int8_layers"]
    ratio = f"{document['n_over_k']:.2f}"
    ratio += f", not counting {', '.join(plain)} (int8)" if plain else ""
    ui.say(f"\n{document['network']} on {document['target']}, mean N/K {ratio}")
    _describe_network(document, ui)
    _describe_plan(document, ui)
    _describe_layers(document, ui)


def _describe_network(document: dict[str, Any], ui: Ui) -> None:
    """What the integers are worth: scores, agreement and bits."""
    from pvq_hw.evaluate.agreement import agreement_lines

    choice = document.get("choice")
    if choice is not None:
        trial = choice["trials"][choice["chosen"]]
        ui.say(
            f"  chosen                of {len(choice['trials'])} tried: loses {trial['loss']:.2f} "
            f"{choice['unit']} on {choice['frames']} frames held out, "
            f"{trial['reckoned_loss']:.2f} reckoned with "
            f"({'aimed at' if choice['aim'] else 'at most'} {choice['max_loss']:g}), best for "
            f"{choice['objective']}; see options.toml"
        )
    if "accuracy" in document:
        tell_scores(ui, document["accuracy"], {"float": "float", "pvq": "PVQ"})
    for what in ("input", "output"):
        for part in document.get(f"{what}s", ()):
            where = f"values {part['start']} to {part['stop'] - 1} of a frame"
            name = f"{what} {part['name']}"
            ui.say(f"  {name:<22}{where}, steps of {part['scale']:.4g}")
    for name, text in agreement_lines(document.get("agreement")):
        ui.say(f"  {name:<22}{text}")
    memory = "on-chip RAM" if document["resources"]["sprams"] else "block RAM"
    memory = "the flash" if document["code_stream"] else memory
    ui.say(
        f"  bits per weight       {document['bits_per_weight']:.3f} in {memory}, "
        f"{document['weights_file']['packed_bits_per_weight']:.3f} in weights.pvq, "
        f"limit log2 V(N,K)/N {document['bits_per_weight_limit']:.3f}"
    )


def _describe_plan(document: dict[str, Any], ui: Ui) -> None:
    """Cycles, what was asked for and what stops the plan from being faster."""
    batch = document["frames_side_by_side"]
    between = "frames" if batch == 1 else f"batches of {batch} frames"
    ui.say(
        f"  cycles                {document['interval_cycles']:,} between {between}, "
        f"{document['latency_cycles']:,} latency"
    )
    if document["updatable"]:
        ui.say("  updatable             weights are in block RAM: others need no synthesis")
    if document["asked_for"]:
        ui.say(
            f"  asked for             {document['asked_for']}: the smallest plan that reaches it"
        )
    if document["live"]:
        more = (
            "in a second bank, while the weights before answer"
            if document["live"] == 2
            else "while no frames are taken: there is no room for a second bank"
        )
        ui.say(f"  loadable              by pvq-hw load, {more}")
    if document["measure"]:
        ui.say(
            "  measures              its own cycles: pvq-hw selftest holds them against the plan"
        )
    if document["limit"]:
        ui.say(f"  not faster since      {document['limit']}")
    over = document["inferences_per_second_over_link"]
    link = "" if over is None else f", {over:,.0f} over {LINK_WORDS[document['link']]}"
    ui.say(
        f"  inferences per second {document['inferences_per_second']:,.0f} planned at "
        f"{document['clock_mhz']:g} MHz{link}"
    )


def _describe_layers(document: dict[str, Any], ui: Ui) -> None:
    """A line for every layer with weights and every table."""
    from pvq_hw.output.report import table_place

    following = [*document["layers"][1:], {}]
    for layer, after in zip(document["layers"], following, strict=True):
        ui.say(
            f"  {layer['name']:<14} {layer['rows']:>5} x {layer['columns']:<5} "
            f"{_ratio(layer)} {_engine(layer)}"
        )
        said = layer["encoding"] == "int8" or layer["utilization"] is None
        if _is_shared(layer):  # of several layers, once
            said = layer["reason"] != after.get("reason")
        if layer["reason"] and said:
            ui.say(f"  {'':<14} {layer['reason']}")
    for table in document["tables"]:
        bits = f"{table['input_bits']} to {table['output_bits']} bits"
        ui.say(f"  {table['name']:<14} {table['function']:.60}: {bits}, {table_place(table)}")
