"""``pvq-hw tune``."""

import argparse
from typing import Any

from pvq_hw.cli.scores import tell_scores
from pvq_hw.cli.ui import Ui

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Searches a configuration; exit status 1 when none meets what was asked for."""
    from pvq_hw.tune.study import check_optuna

    check_optuna()
    from pvq_hw.tune.search import TuneOptions, tune

    options = TuneOptions(
        target=args.target,
        min_accuracy=args.min_accuracy,
        max_loss=args.max_loss,
        budget_cycles=args.budget_cycles,
        trials=args.trials,
        seed=args.seed,
        input_scale=args.input_scale,
        metric=args.metric,
        output=args.output,
        engine=args.engine,
        build_finalists=args.build_finalists,
        seeds=args.seeds,
        workers=args.workers,
        dask=args.dask,
    )
    document = tune(
        args.model, args.data, args.out, options,
        evaluate=args.evaluate, resume=args.resume, steps=ui,
    )  # fmt: skip
    _describe(document, args, ui)
    keys = ("chosen", "failed", "final", "finalists", "float", "frames", "met", "metric", "ok")
    short = {key: document[key] for key in keys} | {"trials": len(document["trials"])}
    return short | {"out": str(args.out), "seconds": ui.seconds}, 0 if document["ok"] else 1


def _describe(document: dict[str, Any], args: argparse.Namespace, ui: Ui) -> None:
    """The chosen configuration and its figures for people."""
    final, metric = document["final"], document["metric"]
    trials, failed = document["trials"], document["failed"]
    ui.say(f"\n{len(trials)} configurations, {failed} of them failed")
    if final is None:
        reason = next((t["reason"] for t in trials if "reason" in t), "none was tried")
        ui.say(f"none can be compiled; the first says: {reason}")
        ui.say(f"{args.out / 'report.html'} has the rest")
        return
    figures = final["figures"]
    validation = trials[document["chosen"]]["figures"]["metric"]
    ui.say(f"chosen: trial {document['chosen']}\n")
    ui.say(final["config"])
    judged = {
        "metric": metric["name"],
        "why": metric["why"],
        "float": document["float"],
        "pvq": validation,
        "frames": document["frames"]["validation"],
    }
    names = {"float": "float", "pvq": "PVQ"}
    tell_scores(ui, judged, names, "validation frames")
    if final["evaluation"] is not None:
        tell_scores(ui, judged | final["evaluation"], names, "test frames")
    ui.say(f"  mean N/K              {figures['n_over_k']:.2f}")
    ui.say(f"  bits per weight       {figures['bits_per_weight']:.3f}")
    ui.say(f"  cycles                {figures['interval_cycles']:,} between frames")
    ui.say(f"  LUTs                  {figures['luts']:,} (estimate)")
    ui.say(f"  nJ per inference      {figures['energy_nj']:,.1f} (model; int8 "
           f"{figures['energy_int8_nj']:,.1f})")  # fmt: skip
    for built in document["finalists"]:
        said = built.get("reason") or (
            f"{built['fmax_mhz']:.1f} MHz of {built['clock_mhz']:g} MHz, "
            f"{built['used']['luts']:,} LUTs, {built['inferences_per_second']:,.0f} a second"
        )
        ui.say(f"  trial {built['number']:<16}{said}")
    if not document["met"]["validation"]:
        ui.say("no configuration meets what was asked for; this one comes nearest")
    elif not document["ok"]:
        ui.say("what was asked for is met on the validation frames, but not on the test frames")
    ui.say(f"\n{args.out} is written; look at {args.out / 'report.html'}; next:")
    ui.say(f"pvq-hw compile {args.model} --config {args.out / 'config.toml'} "
           f"--calibrate {args.data} -o OUT")  # fmt: skip
