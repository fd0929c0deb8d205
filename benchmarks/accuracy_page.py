"""The accuracy benchmark's page and picture, made from its results alone."""

from collections.abc import Mapping
from html import escape
from typing import Any

from pvq_hw.evaluate.metrics import wilson

__all__ = ["chart", "page"]

Points = list[dict[str, Any]]

_ABOUT = """\
# Benchmark: accuracy at few pulses

Networks that were trained as usual, quantized without training; percent of right answers of the
integer golden model on the test images, with 8-bit activations, one gain per row and no int8
layers. N/K is the mean of the final codes: all weights over all pulses. Calibration inputs come
from the training images only, without labels, another draw for each seed; for 784-512-512-10,
which has more weights than the images pin down, 70 % of them are slightly distorted copies
(turned, scaled, sheared, moved). Frames, sweeps and whether to distort were decided on training
images held out, by the error against the float network; that small networks get no distorted
images was looked into there after a first test result was low. "Plain" is the nearest codeword of
every row, small layers at fewer weights a pulse than large ones. Made by

    python -m benchmarks.accuracy --models FOLDER --mnist FOLDER \\
        -o benchmarks/results/accuracy.json --page docs/accuracy.md --chart docs/accuracy.svg

*Frames* and *sweeps* are `max_frames` and `sweeps` of `pvq_hw.quantize`, where they differ from
its defaults of 6,000 and 1 (`compile` uses those). *Calibrated* is the median of the draws,
*95 %* Wilson's interval of it, for
10,000 test images of MNIST and 500 of digits. Rows with an asterisk are of an earlier
quantizer; a row that is taken out of the results file is measured anew. What the verb gives is in
[what `compile` reaches](benchmarks-reach.md), other codes of the same networks are in
[PVQ beside uniform codes](benchmarks-codes.md).
"""
_BALANCED = """\
## What balance over the lanes costs

`compile` spreads the pulses of a row evenly over the lanes, so that no lane waits for another.
Here with 16 lanes in every layer, gaps bounded as the planner asks, and beside it the same draws
with pulses wherever they are best: 6,000 frames, 1 sweep.

| network | N/K | free, median | draws | 16 lanes, N/K | median | draws | cost, points |
|---|---|---|---|---|---|---|---|"""
_LIMITS = """\
## What stops codes of few pulses

Mostly which weights stay, hardly their rounding to whole pulses: the best *real* weights on the
same supports, all layers trained together against the float network on the calibration inputs, do
little better on inputs that they have not seen.

| network | N/K | codes | real weights on their supports | activations of 8 bits alone |
|---|---|---|---|---|
| DS-CNN (KWS), points lost | 3.0 | 4.8 | 4.4 | |
| the same, squared error of the logits | 3.0 | 0.100 to 0.118 | 0.084 | 0.006 |
| ad01, error over the deviation of outputs, windows held out | 5.0 | 18 % | 16 % | 5.9 % |
| the same, test windows of one clip, which hardly differ | 5.0 | 59 % | 54 % | 18 % |

The rows of KWS are of an earlier quantizer. How that was measured, layer by layer, and what else
was tried:
[codes of convolutional networks](decisions/convolution_codes.md),
[autoencoders](decisions/calibrated-quantization.md#autoencoders-and-filters)."""
_HEAD = """\
| network | float | N/K | plain | calibrated | 95 % | draws | asked | frames | sweeps | CPU s |"""
_COLORS = {"calibrated": "#1f6feb", "plain": "#b35900"}
_LOW = 80.0  # percent; what lies below is drawn at the bottom


def page(points: Points, titles: Mapping[str, str]) -> str:
    """The page, in Markdown."""
    lines = [_ABOUT, "![Accuracy against N/K](accuracy.svg)", "", _HEAD]
    lines.append("|---|---|---|---|---|---|---|---|---|---|---|")
    for p in points:
        if p["quantizer"] != "calibrated":
            continue
        same = [q for q in _of(points, p["network"], "plain") if q["ratio"] == p["ratio"]]
        cells = [
            titles[p["network"]] + ("*" if p["earlier"] else ""),
            f"{p['float']:.2f}",
            f"{p['n_over_k']:.2f}",
            f"{same[0]['median']:.2f}" if same else "",
            f"**{p['median']:.2f}**",
            _interval(p),
            ", ".join(f"{d:.2f}" for d in p["draws"]),
            f"{p['goal']:g}" if p["goal"] else "",
            f"{p['frames']:,}",
            f"{p['sweeps']}",
            f"{p['seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "CPU s: processor seconds of one quantization on one thread of a shared machine."]
    lines += _balance(points, titles)
    lines += ["", _LIMITS]
    return "\n".join(lines) + "\n"


def _interval(point: Mapping[str, Any]) -> str:
    low, high = wilson(round(point["median"] * point["test_frames"] / 100), point["test_frames"])
    return f"{low:.2f} to {high:.2f}"


def _balance(points: Points, titles: Mapping[str, str]) -> list[str]:
    """The section on balance, where it was measured."""
    rows = []
    for free in (p for p in points if p["quantizer"] == "unbalanced"):
        for p in _of(points, free["network"], "balanced"):
            if p["ratio"] == free["ratio"]:
                draws = [", ".join(f"{d:.2f}" for d in q["draws"]) for q in (free, p)]
                rows.append(
                    f"| {titles[p['network']]}{'*' if p['earlier'] else ''} "
                    f"| {free['n_over_k']:.2f} | {free['median']:.2f} "
                    f"| {draws[0]} | {p['n_over_k']:.2f} | **{p['median']:.2f}** | {draws[1]} "
                    f"| {free['median'] - p['median']:.2f} |"
                )
    return ["", _BALANCED, *rows] if rows else []


def _of(points: Points, network: str, quantizer: str) -> Points:
    chosen = [p for p in points if p["network"] == network and p["quantizer"] == quantizer]
    return sorted(chosen, key=lambda p: float(p["n_over_k"]))


def chart(points: Points, titles: Mapping[str, str]) -> str:
    """Accuracy against N/K, a panel for each network, as SVG."""
    networks = [name for name in titles if _of(points, name, "calibrated")]
    width, height = 270 * len(networks) + 20, 270
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for place, name in enumerate(networks):
        parts += _panel(points, name, titles[name], 45 + 270 * place)
    parts += _legend(height)
    return "\n".join([*parts, "</svg>", ""])


def _panel(points: Points, name: str, title: str, left: int) -> list[str]:
    """One network's lines; all panels go from 80 to 100 %."""
    top, wide, high = 30, 210, 180
    ours = _of(points, name, "calibrated")
    most = max(p["n_over_k"] for p in ours) * 1.05

    def place(n_over_k: float, percent: float) -> tuple[float, float]:
        y = (100.0 - max(percent, _LOW)) / (100.0 - _LOW)
        return left + wide * n_over_k / most, top + high * y

    parts = [f'<text x="{left}" y="{top - 10}" font-weight="bold">{escape(title)}</text>']
    for percent in range(int(_LOW), 101, 5):
        y = place(0, percent)[1]
        parts.append(f'<path d="M{left} {y:.1f}h{wide}" stroke="#dddddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{percent}</text>')
    y = place(0, ours[0]["float"])[1]
    parts.append(f'<path d="M{left} {y:.1f}h{wide}" stroke="#444444" stroke-dasharray="4 3"/>')
    for quantizer, color in _COLORS.items():
        line = [place(p["n_over_k"], p["median"]) for p in _of(points, name, quantizer)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in line]
    for p in ours:
        x = place(p["n_over_k"], 0)[0]
        label = f"{p['ratio']:g}"
        parts.append(f'<text x="{x:.1f}" y="{top + high + 15}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{left + wide}" y="{top + high + 30}" text-anchor="end">N/K</text>')
    return parts


def _legend(height: int) -> list[str]:
    parts, x, y = [], 45, height - 12
    for text, color, dash in (
        ("calibrated", _COLORS["calibrated"], ""),
        ("plain (below 80 %: at the bottom)", _COLORS["plain"], ""),
        ("float", "#444444", ' stroke-dasharray="4 3"'),
    ):
        parts.append(f'<path d="M{x} {y - 4}h20" stroke="{color}" stroke-width="2"{dash}/>')
        parts.append(f'<text x="{x + 25}" y="{y}">{text}</text>')
        x += 60 + 6 * len(text)
    return parts
