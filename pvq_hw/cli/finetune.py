"""``pvq-hw finetune``."""

import argparse
from typing import Any

from pvq_hw.cli.scores import tell_scores
from pvq_hw.cli.ui import Ui
from pvq_hw.evaluate.metrics import metric_text

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Fine-tunes a model and writes it with weights that are codes."""
    from pvq_hw.data.dataset import load_data
    from pvq_hw.flow.options import load_options
    from pvq_hw.train.flow import finetune_file

    names = ("target", "ratio", "input_scale", "activation_bits", "seed")
    options = load_options(args.config, {name: getattr(args, name) for name in names})
    asked = {
        name: getattr(args, name)
        for name in (
            "epochs",
            "batch",
            "rate",
            "side_rate",
            "distill",
            "shift",
            "mirror",
            "half",
            "by_row",
            "augment",
            "threads",
        )
    }
    asked = {name: value for name, value in asked.items() if value not in (None, False)}
    data = load_data(args.data, options.input_scale)
    test = load_data(args.evaluate, options.input_scale) if args.evaluate else None
    document = finetune_file(
        args.model, args.out, data, options, asked,
        evaluation=test, metric=args.metric, steps=ui,
    )  # fmt: skip
    _describe(document, args, ui)
    return document | {"seconds": ui.seconds}, 0


def _describe(document: dict[str, Any], args: argparse.Namespace, ui: Ui) -> None:
    """The figures for people."""
    ui.say(f"\n{args.out} and {document['config']} are written, "
           f"mean N/K {document['n_over_k']:.2f}")  # fmt: skip
    losses, recipes = document["losses"], document["recipes"]
    if losses:
        first, last = losses[0], losses[-1]
        ui.say(f"  loss                  {first:.4f} in the first epoch, {last:.4f} in the last")
    if recipes:
        _describe_recipes(recipes, ui)
    found = document["accuracy"]
    if found:
        names = {"float": "float", "start": "PVQ before training", "tuned": "after it"}
        tell_scores(ui, found, names)
    board = "" if args.target else " --target BOARD"
    ui.say(f"next: pvq-hw compile {args.out} --config {document['config']}{board} "
           f"--calibrate {args.data} -o OUT")  # fmt: skip


def _describe_recipes(recipes: dict[str, Any], ui: Ui) -> None:
    """What was tried on the inputs held out, and what was taken."""
    taken = recipes["tried"][recipes["chosen"]]
    before = metric_text(recipes["metric"], recipes["tried"][0]["figure"])
    after = metric_text(recipes["metric"], taken["figure"])
    ui.say(f"  recipe                {taken['name']}: {recipes['metric']} {after}, "
           f"before {before}, on {recipes['held']:,} inputs held out")  # fmt: skip
    if len(recipes["tried"]) == 1:
        ui.say("  no recipe can be better there: the codes stay what they were")
    elif not recipes["chosen"]:
        ui.say("  nothing that was tried is better there: the codes stay what they were")
