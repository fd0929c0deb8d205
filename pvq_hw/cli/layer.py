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
    from pvq_hw.flow.layer import LayerRequest, compile_layer

    request = LayerRequest(
        k=args.k,
        ratio=args.ratio,
        gain=args.gain,
        lanes=args.lanes,
        x=IntFormat(args.x_bits, args.x_signed),
        out=IntFormat(args.out_bits, not args.relu),
        target=args.target or LayerRequest.target,
        vectors=args.vectors,
        seed=args.seed,
        code=args.code or "auto",
        frames=args.frames,
        balanced=args.balanced,
        engine=args.engine,
    )
    weights = read_array(args.weights)
    bias = read_array(args.bias) if args.bias else None
    document = compile_layer(weights, args.out, request, bias=bias, steps=ui)
    describe(document, ui)
    ui.say(
        f"\n{args.out} is written; try it with Icarus alone:\n"
        f"  cd {args.out / 'testbench'} && iverilog -o tb *.v && vvp tb"
    )
    return document | {"out": str(args.out)}, 0
