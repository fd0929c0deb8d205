"""A page a network for the documentation site, from `benchmarks/results`."""

import json
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.mlperf_tiny import task_table

__all__ = ["FOLDER", "NETWORKS", "network_pages"]

FOLDER = "reference/networks/"
_RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"

Row = Sequence[object]


@dataclass(frozen=True)
class Network:
    """A network, and how the files of results call it; empty where they have nothing of it."""

    page: str
    title: str
    about: str
    reach: str = ""
    promise: str = ""
    accuracy: str = ""
    unrolled: str = ""
    hardware: str = ""
    tiny: str = ""
    boards: bool = False


NETWORKS = (
    Network(
        "digits", "Digits: 64-32-10",
        "Handwritten digits of 8 x 8 pixels (UCI), bundled with the package: 2,368 weights.",
        promise="digits MLP", accuracy="D", unrolled="digits 64-32-10", boards=True,
    ),
    Network(
        "network-a", "Network A: 784-512-512-10",
        "The dense network for MNIST: 668,672 weights.", reach="network A", accuracy="A",
    ),
    Network(
        "mnist-mlp", "MNIST: 784-64-32-10", "A small dense network for MNIST: 52,544 weights.",
        promise="MNIST MLP", accuracy="B", unrolled="784-64-32-10",
    ),
    Network(
        "lenet-5", "LeNet-5", "Two convolutions and three dense layers for MNIST, with ReLUs.",
        reach="LeNet-5", hardware="mnist_lenet5_relu",
    ),
    Network(
        "mnist-8", "mnist-8", "The network for MNIST of the ONNX model zoo: two convolutions, one "
        "dense layer. Bitstreams are of a fine-tuned one.",
        reach="mnist-8", hardware="mnist8_tuned",
    ),
    Network(
        "tiny-cnn", "Tiny CNN", "Two convolutions of 8 and 16 channels with batch normalization, "
        "and a dense layer, for MNIST.",
        reach="tiny CNN", promise="tiny CNN", hardware="mnist_tinycnn_8_16_bn",
    ),
    Network(
        "kws", "KWS: DS-CNN", "MLPerf Tiny's keyword spotting: a convolution, four pairs of "
        "depthwise and pointwise ones, a mean and a dense layer.",
        reach="DS-CNN (KWS)", promise="DS-CNN (KWS)", tiny="KWS",
    ),
    Network(
        "resnet8", "ResNet8", "MLPerf Tiny's image classification (CIFAR-10): three residual "
        "blocks. Bitstreams are of a fine-tuned one.",
        reach="ResNet8", promise="ResNet8", hardware="resnet8_tuned", tiny="IC",
    ),
    Network(
        "vww", "VWW: MobileNet", "MLPerf Tiny's visual wake words, 96 x 96 pixels. The task's "
        "photographs may not be passed on: only answers like float's are counted.",
        reach="VWW", tiny="VWW",
    ),
    Network(
        "ad01", "ad01: autoencoder", "MLPerf Tiny's anomaly detection: ten dense layers, judged by "
        "their outputs' error.",
        reach="ad01", tiny="AD",
    ),
)  # fmt: skip


def network_pages() -> dict[str, str]:
    """The pages by their paths in the site."""
    found = {
        name: json.loads((_RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("reach", "promise", "accuracy", "unrolled_networks", "graphs-hardware",
                     "mlperf_tiny", "boards")
    }  # fmt: skip
    return {f"{FOLDER}{network.page}.md": _page(network, found) for network in NETWORKS}


def _page(network: Network, found: dict[str, Any]) -> str:
    lines = [f"# {network.title}", "", network.about, ""]
    for title, source, name, heads, rows in (
        ("What compile reaches", "benchmarks-reach.md", network.reach, _REACH, _reach),
        ("Accuracy of the codes, by N/K", "accuracy.md", network.accuracy, _ACCURACY, _accuracy),
        ("What --max-loss chooses", "benchmarks-promise.md", network.promise, _PROMISE, _promise),
        ("As wires", "benchmarks-unrolled-networks.md", network.unrolled, _WIRES, _wires),
        ("Bitstreams", "convolutional.md#bitstreams", network.hardware, _BUILT, _built),
        ("On every board", "boards.md#built", network.page * network.boards, _BOARDS, _boards),
    ):
        if name:
            lines += [f"## {title}", "", f"[How it is measured](../../{source}).", ""]
            lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
            lines += [f"| {' | '.join(map(str, row))} |" for row in rows(name, found)]
            lines += ["", *_NOTES.get(title, ())]
    if network.tiny:
        table = task_table(network.tiny, found["mlperf_tiny"])
        lines += ["## MLPerf Tiny", "", "[How it is measured](../../mlperf-tiny.md).", table]
    return "\n".join(lines)


_NOTES = {
    "What compile reaches": (
        "Inferences a second: the cycles at the board's usual clock. \\*: of earlier code.", "",
    ),
    "Bitstreams": (
        "These are older than windows side by side and depthwise cores: plans of today take fewer "
        "cycles.", "",
    ),
}  # fmt: skip

_REACH = ("board", "N/K", "float", "right", "as float's", "error", "cycles", "inferences/s")
_ACCURACY = ("N/K", "float", "right, median", "draws")
_PROMISE = ("board", "loss asked, points", "N/K", "8-bit layers", "float", "right", "cycles",
            "inferences/s")  # fmt: skip
_WIRES = (
    "board, options",
    "float",
    "right",
    "cycles",
    "latency",
    "Fmax of the first seed, MHz",
    "LUTs",
)
_BUILT = ("board", "N/K", "float", "right", "cycles", "clock, MHz", "Fmax, MHz", "inferences/s",
          "LUTs", "block RAMs", "outputs compared, wrong")  # fmt: skip
_BOARDS = ("board", "cycles", "clock, MHz", "Fmax, MHz", "LUTs", "block RAMs")


def _percent(count: float | None, frames: int) -> str:
    return "" if count is None else f"{100 * count / frames:.2f} %"


def _reach(name: str, found: dict[str, Any]) -> Iterable[Row]:
    """A row for each board and N/K: the median of its draws."""
    from pvq_hw.target.boards import TARGETS

    groups: dict[str, list[dict[str, Any]]] = {}
    for key, result in found["reach"].items():
        if key.startswith(f"{name} "):
            groups.setdefault(key.rpartition(" #")[0], []).append(result)
    for key, draws in sorted(groups.items(), key=lambda item: item[1][0]["n_over_k"]):
        first, board = draws[0], key.removeprefix(f"{name} ").split()[0]
        frames, cycles = first["frames"], _median(draws, "cycles")
        yield (
            board + "\\*" * bool(first.get("earlier")),
            f"{first['n_over_k']:.2f}",
            _percent(first.get("float_right"), frames),
            _percent(_median(draws, "right"), frames),
            _percent(_median(draws, "same"), frames),
            f"{_median(draws, 'error_percent'):.2f} %",
            f"{cycles:,.0f}",
            f"{1e6 * TARGETS[board].clock_mhz / (cycles or 1):,.0f} planned",
        )


def _median(draws: list[dict[str, Any]], key: str) -> float | None:
    values = [draw[key] for draw in draws if key in draw]
    return statistics.median(values) if values else None


def _accuracy(name: str, found: dict[str, Any]) -> Iterable[Row]:
    groups: dict[float, list[dict[str, Any]]] = {}
    for result in found["accuracy"].values():
        if (result["network"], result["quantizer"]) == (name, "calibrated"):
            groups.setdefault(result["ratio"], []).append(result)
    for ratio, draws in sorted(groups.items()):
        middle = _median(draws, "accuracy_percent")
        yield f"{ratio:g}", f"{draws[0]['float_percent']:.2f} %", f"{middle:.2f} %", len(draws)


def _promise(name: str, found: dict[str, Any]) -> Iterable[Row]:
    for key, result in found["promise"].items():
        network, board, loss, draw = key.split(" | ")
        if network != name or draw == "tune":
            continue
        if "refused" in result:
            yield board, loss, "none found", "", "", "", "", ""
            continue
        yield (
            board, loss, f"{result['ratio']:g}" if result["ratio"] else "",
            len(result["int8_layers"]),
            _percent(result["float_right"], result["frames"]),
            _percent(result["right"], result["frames"]), f"{result['cycles']:,}",
            f"{result['inferences_per_second']:,.0f}",
        )  # fmt: skip


def _wires(name: str, found: dict[str, Any]) -> Iterable[Row]:
    for key, result in found["unrolled_networks"].items():
        if not key.startswith(name):
            continue
        simulated, right = result["simulated"], result["accuracy"]
        runs = result.get("board", {}).values()
        placed: dict[str, Any] = next((run for run in runs if run["fmax_mhz"]), {})
        yield (
            re.sub(r"(--.*)", r"`\1`", key.removeprefix(f"{name}, ")), f"{right['float']:g} %",
            f"{right['pvq']:g} %", simulated["interval"], simulated["latency"],
            placed.get("fmax_mhz", ""), f"{placed['luts']:,}" if placed else "",
        )  # fmt: skip


def _built(name: str, found: dict[str, Any]) -> Iterable[Row]:
    for result in found["graphs-hardware"].values():
        if result["network"] == name:
            yield (
                result["target"], f"{result['n_over_k']:.2f}", f"{result['accuracy_float']:.2f} %",
                f"{result['accuracy_pvq']:.2f} %", f"{result['interval_cycles']:,}",
                f"{result['clock_mhz']:g}", result["fmax_mhz"],
                f"{result['inferences_per_second']:,.0f}", f"{result['luts']:,}", result["brams"],
                f"{result['outputs_compared']:,}, {result['mismatches']}",
            )  # fmt: skip


def _boards(name: str, found: dict[str, Any]) -> Iterable[Row]:
    for board, result in found["boards"].items():
        if "error" not in result:
            yield (
                board, result["interval_cycles"], f"{result['clock_mhz']:.4g}",
                result["fmax_mhz"], f"{result['luts']:,}", result["block_rams"],
            )  # fmt: skip
