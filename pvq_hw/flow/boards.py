"""What boards there are, and how a network would run on each, by the planner alone."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pvq_hw.arith.formats import significant
from pvq_hw.bundled import DIGITS, DIGITS_RATIO
from pvq_hw.errors import InputError
from pvq_hw.flow.options import CompileOptions
from pvq_hw.flow.quantize import estimate
from pvq_hw.host.protocol import OVERHEAD
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Model
from pvq_hw.plan.folding import Folding
from pvq_hw.target.baud import choose_baud
from pvq_hw.target.boards import TARGETS, Target, get_target
from pvq_hw.target.devices import Device
from pvq_hw.target.pll import solve_pll

__all__ = ["board_table", "write_pin_files"]


def board_table(
    names: Sequence[str] = (), *, model: Path | None = None, ratio: float | None = None
) -> dict[str, Any]:
    """Boards, their devices and links, and what the planner expects of a network on each.

    Parameters
    ----------
    names : sequence of str
        Boards or board files; all that are shipped by default.
    model : Path, optional
        The bundled digits network by default.
    ratio : float, optional
        Mean N/K; 1.5 for the digits, else 10.

    Returns
    -------
    dict
        ``model``, ``ratio`` and ``boards``: a list of dicts. In each, ``network`` has ``fits`` and,
        where it does, cycles, rates and what it takes: from shapes and pulses, before any
        quantization, so they are up to a fifth off what `compile` finds.

    Raises
    ------
    InputError
        A board is unknown, or the model can't be read.
    """
    found = [get_target(name) for name in names] or list(TARGETS.values())
    ratio = ratio if ratio is not None else (10.0 if model else DIGITS_RATIO)
    options = CompileOptions(ratio=ratio)
    network = load_model(model or DIGITS)
    bits = options.activation_bits
    sizes = math.prod(network.shape) * bits, math.prod(network.output_shape) * 16
    frame = max(-(-size // 8) for size in sizes)
    # Boards of one device differ in their clocks only.
    foldings: dict[Device, Folding | None] = {}
    rows = []
    for board in found:
        if board.device not in foldings:
            foldings[board.device] = _estimate(network, board, options)
        row = _row(board)
        row["network"] = _network(board, foldings[board.device], frame)
        rows.append(row)
    return {"model": (model or DIGITS).name, "ratio": ratio, "boards": rows}


def write_pin_files(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Pin files of boards, for designs without the board's top; gives their paths."""
    from gateware.board.constraints import write_constraints

    return write_constraints(folder, names)


def _estimate(model: Model, target: Target, options: CompileOptions) -> Folding | None:
    try:
        return estimate(model, target, options)
    except InputError:
        return None


def _row(board: Target) -> dict[str, Any]:
    device = board.device
    return {
        "name": board.name,
        "board": board.board,
        "device": device.name,
        "package": board.package,
        "speed": board.speed,
        "luts": device.luts,
        "sold_luts": device.sold_luts or device.luts,
        "logic_cell": device.logic_cell,
        "block_rams": device.brams,
        "block_ram_bits": device.bram_bits,
        "sprams": device.sprams,
        "spram_bits": device.spram_bits,
        "dsps": device.dsps,
        "oscillator_mhz": board.crystal_mhz,
        "clock_mhz": board.clock_mhz,
        "baud": board.baud,
        "link": board.link,
        "spi": board.spi_link,
        "reset_button": board.reset is not None,
        "loaders": [loader.program for loader in board.loaders],
        "amaranth": board.amaranth,
        "source": list(board.source),
        "note": board.note,
        "tested": board.tested,
    }


def _network(board: Target, folding: Folding | None, frame: int) -> dict[str, Any]:
    """What the planner expects, with ``frame`` bytes on the longer way of the link."""
    if folding is None or not folding.fits:
        return {"fits": False}
    cost = folding.cost
    clock_hz = solve_pll(board, board.clock_mhz).hz
    rate, baud = clock_hz / folding.interval_cycles, choose_baud(clock_hz, board.baud).baud
    return {
        "fits": True,
        "lanes": list(folding.lanes),
        "interval_cycles": folding.interval_cycles,
        "inferences_per_second": significant(rate),
        "inferences_per_second_over_link": significant(min(rate, baud / 10 / (OVERHEAD + frame))),
        "luts": cost.luts,
        "block_rams": cost.brams,
        "dsps": cost.dsps,
        "sprams": cost.sprams,
        "limit": folding.limit,
    }
