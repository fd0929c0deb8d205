"""``pvq-hw layer``."""

import argparse
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Makes one layer's core."""
    from pvq_hw.arith.formats import IntFormat
    from pvq_hw.cli.compile import describe
    from pvq_hw.data.arrays import read_array
    from pvq_hw.engine.spram_image import CODES_FILE
    from pvq_hw.flow.layer import LayerRequest, compile_layer

    request = LayerRequest(
        k=args.k,
        ratio=args.ratio,
        gain=args.gain,
        lanes=args.lanes,
        x=IntFormat(args.x_bits, args.x_signed),
        out=IntFormat(args.out_bits, not (args.relu or args.activation == "relu")),
        target=LayerRequest.target if args.target is None else args.target,
        vectors=args.vectors,
        seed=args.seed,
        code=args.code or "auto",
        frames=args.frames,
        balanced=args.balanced,
        engine=args.engine,
        digit=args.digit,
        slide=_slide(args),
        activation="" if args.activation == "relu" else args.activation,
        x_scale=args.x_scale,
        table_bits=args.table_bits,
        table_range=args.table_range,
        multiplier=args.multiplier,
        int8=args.int8,
        code_memory=args.code_memory,
    )
    weights = read_array(args.weights)
    bias = read_array(args.bias) if args.bias else None
    document = compile_layer(weights, args.out, request, bias=bias, steps=ui)
    describe(document, ui)
    folder, command = "testbench", "iverilog -o tb *.v && vvp tb"
    if not request.alone or (args.out / "image" / CODES_FILE).exists():
        folder = "image"
        command = "iverilog -o /tmp/tb ../testbench/tb.v ../verilog/*.v && vvp /tmp/tb"
    ui.say(
        f"\n{args.out} is written; try it with Icarus alone:\n  cd {args.out / folder} && {command}"
    )
    return document | {"out": str(args.out)}, 0


def _slide(args: argparse.Namespace) -> Any:
    """The way of a convolution's window, where a map is given."""
    from pvq_hw.cli.compile import numbers
    from pvq_hw.errors import InputError
    from pvq_hw.flow.layer import Slide

    names = {"stride": args.stride, "pads": args.pads, "dilation": args.dilation}
    given: dict[str, Any] = {
        name: numbers(name, text) for name, text in names.items() if text is not None
    }
    for name in ("groups", "windows"):
        if getattr(args, name) is not None:
            given[name] = getattr(args, name)
    if args.map is None:
        if given:
            raise InputError(f"--{min(given)} must come with --map, the size of the map")
        return None
    return Slide(numbers("map", args.map), **given)
