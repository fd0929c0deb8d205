"""``pvq-hw data``."""

import argparse
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Makes a DATA.npz."""
    from pvq_hw.data.dataset import make_data
    from pvq_hw.errors import InputError

    keys = args.keys.split(",") if args.keys is not None else None
    shape = None
    if args.shape is not None:
        try:
            shape = tuple(int(n) for n in args.shape.split(","))
        except ValueError:
            raise InputError(f"Shape must be numbers like 1,28,28, not {args.shape!r}") from None
    data = make_data(args.files, args.out, count=args.count, shape=shape, keys=keys)
    labels = "labels" if data.y is not None else "no labels"
    ui.say(f"{args.out}: {len(data)} frames of {data.x.shape[1:]} {data.x.dtype}, {labels}")
    document = {
        "frames": len(data),
        "shape": list(data.x.shape[1:]),
        "dtype": str(data.x.dtype),
        "labels": data.y is not None,
        "data": str(args.out),
    }
    return document, 0
