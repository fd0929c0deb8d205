"""The engine benchmark's page and picture, made from its results alone."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["picture", "write_page"]

Points = list[dict[str, Any]]

_TITLE = "# Benchmarks: the engine beside int8"
_ABOUT = """\
Our engine and an int8 multiply-accumulate engine of the project's own, with the same streams,
activations and requantizer, measured in one run by `make bench-engine`. Each row is one
configuration. Cycles are simulated on the complete layers of a 784-512-512-10 network (fc1 784 x
512, fc2 512 x 512), whose outputs equalled the golden model's; LUTs, flip-flops and Fmax are those
of the same engine with a tile of rows, as large as both engines find block RAM for, placed and
routed with each seed; Fmax is the seeds' median. GMAC/s are dense-equivalent: the layer's weights /
cycles x Fmax. Code bits are all stored bits of the codes: row ends, escapes and padding included,
multipliers and biases apart. Slots used are codes that place a pulse / (lanes x cycles). On iCE40
a LUT is a logic cell. LUTs include about 25 of the shift registers around the core."""
_HEAD = (
    "device", "layer", "engine", "N/K", "tile rows", "LUT", "FF", "BRAM", "DSP", "Fmax MHz",
    "cycles", "GMAC/s", "MMAC/s per LUT", "to int8", "bits/weight", "limit", "above", "slots used",
)  # fmt: skip
# What an int8 engine must reach for a ratio to count.
BARS = {"LFE5U-25F": 3.5, "UP5K": 0.9, "HX8K": 1.7}


def _sorted(document: dict[str, Any]) -> Points:
    order = list(BARS)
    return sorted(
        document["points"].values(),
        key=lambda p: (order.index(p["device"]), p["layer"], p["n_over_k_asked"] or 0),
    )


def _int8(points: Points, like: dict[str, Any]) -> dict[str, Any] | None:
    """The int8 engine on the same device and layer, with the same tile."""
    for p in points:
        same = all(p[key] == like[key] for key in ("device", "layer", "tile_rows"))
        if same and p["n_over_k_asked"] is None:
            return p
    return None


def _kind(p: dict[str, Any]) -> str:
    if p["n_over_k_asked"] is None:
        return "int8"
    return "shifted pulses" if p.get("shift_bits") else "pulses"


def _row(points: Points, p: dict[str, Any]) -> list[str]:
    ours = p["n_over_k_asked"] is not None
    base = _int8(points, p)
    ratio = ""
    if ours and base:
        ratio = f"{p['gmacs'] / base['gmacs']:.2f}"
        if base["gmacs"] < BARS[p["device"]]:
            ratio += " (does not count)"
    limit = p.get("bits_per_weight_limit")
    return [
        p["device"],
        p["layer"],
        f"{_kind(p)}, P={p['lanes']}",
        f"{p['n_over_k']:.2f}" if ours else "",
        str(p["tile_rows"]),
        *(f"{p[key]:,}" for key in ("luts", "ffs", "brams", "dsps")),
        f"{p['fmax_mhz']:.1f}",
        f"{p['interval_cycles']:,}",
        f"{p['gmacs']:.2f}",
        f"{1000 * p['gmacs'] / p['luts']:.1f}",
        ratio,
        f"{p['bits_per_weight']:.3f}",
        f"{limit:.3f}" if limit else "",
        f"{100 * (p['bits_per_weight'] / limit - 1):+.1f} %" if limit else "",
        f"{100 * p['slots_used']:.1f} %" if ours else "",
    ]


def _table(rows: Iterable[Iterable[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in rows]


def _slow_paths(points: Points) -> list[str]:
    lines = ["", "## Slowest paths", ""]
    lines += _table([("engine", "seed", "Fmax MHz", "from and to"), ("---",) * 4])
    for p in points:
        ours = f"N/K={p['n_over_k_asked']}" if p["n_over_k_asked"] else "int8"
        for run in p["runs"]:
            what = f"{p['device']} {p['layer']} {ours}"
            lines += _table([(what, str(run["seed"]), f"{run['fmax_mhz']:.1f}", run["critical"])])
    return lines


def write_page(document: dict[str, Any], path: Path) -> None:
    """Writes the page and, beside it, ``engine.svg``."""
    points = _sorted(document)
    versions = ", ".join(f"{k} {v}" for k, v in sorted(document["versions"].items()))
    seeds = ", ".join(map(str, document["seeds"]))
    lines = [_TITLE, "", _ABOUT, ""]
    below = ", plain below N/K = 5" if document["quantizer"] != "plain" else ""
    lines += [f"Quantizer: {document['quantizer']}{below}. Seeds: {seeds}. {versions}.", ""]
    lines += _table([_HEAD, ("---",) * len(_HEAD), *(_row(points, p) for p in points)])
    lines += ["", "An int8 engine below these GMAC/s is too slow to compare with: "]
    lines[-1] += ", ".join(f"{name} {bar}" for name, bar in BARS.items()) + "."
    lines += ["", "![GMAC/s and bits per weight against N/K](engine.svg)"]
    lines += _slow_paths(points)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    svg = picture(points)
    path.with_name("engine.svg").write_text(svg, encoding="utf-8", newline="\n")


_COLORS = {"LFE5U-25F": "#2b6cb0", "UP5K": "#2f855a", "HX8K": "#c05621"}
_RATIOS = (1, 2, 5, 10, 20)
_W, _H, _LEFT, _TOP, _GAP = 360, 260, 60, 40, 90


class _Axes:
    """One panel, both axes logarithmic."""

    def __init__(self, index: int, title: str, low: float, high: float) -> None:
        from math import log

        self._log, self._low, self._high = log, log(low), log(high)
        self.left = _LEFT + index * (_W + _GAP)
        self.parts = [
            f'<rect x="{self.left}" y="{_TOP}" width="{_W}" height="{_H}" fill="none" '
            'stroke="#718096"/>',
            f'<text x="{self.left + _W / 2:.0f}" y="{_TOP - 14}" text-anchor="middle" '
            f'font-weight="bold">{title}</text>',
            f'<text x="{self.left + _W / 2:.0f}" y="{_TOP + _H + 36}" '
            'text-anchor="middle">N/K</text>',
        ]
        for r in _RATIOS:
            x = self.x(r)
            self.parts.append(
                f'<text x="{x:.1f}" y="{_TOP + _H + 18}" text-anchor="middle">{r}</text>'
            )
        value = low
        while value <= high * 1.01:
            y = self.y(value)
            self.parts.append(
                f'<line x1="{self.left}" x2="{self.left + _W}" y1="{y:.1f}" y2="{y:.1f}" '
                'stroke="#e2e8f0"/>'
                f'<text x="{self.left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
            )
            value *= 2

    def x(self, ratio: float) -> float:
        return self.left + 20 + (_W - 40) * self._log(ratio) / self._log(_RATIOS[-1])

    def y(self, value: float) -> float:
        return _TOP + _H - _H * (self._log(value) - self._low) / (self._high - self._low)

    def line(self, points: list[tuple[float, float]], color: str, dashed: bool = False) -> None:
        """A curve, with dots unless dashed."""
        path = " ".join(f"{self.x(r):.1f},{self.y(v):.1f}" for r, v in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>'
        )
        if not dashed:
            self.parts += [
                f'<circle cx="{self.x(r):.1f}" cy="{self.y(v):.1f}" r="3" fill="{color}"/>'
                for r, v in points
            ]

    def label(self, text: str, color: str, row: int) -> None:
        """A line of the key."""
        self.parts.append(
            f'<text x="{self.left + 12}" y="{_TOP + 18 + 16 * row}" fill="{color}">{text}</text>'
        )


def picture(points: Points, layer: str = "fc2") -> str:
    """SVG: GMAC/s (int8 dashed) and bits per weight (the limit dashed) against N/K."""
    speed, bits = _Axes(0, f"GMAC/s, {layer}", 0.5, 128), _Axes(1, "code bits per weight", 0.25, 8)
    for row, (device, color) in enumerate(_COLORS.items()):
        mine = [p for p in points if (p["device"], p["layer"]) == (device, layer)]
        ours = [p for p in mine if p["n_over_k_asked"] is not None]
        base = next((p for p in mine if p["n_over_k_asked"] is None), None)
        if ours:
            speed.line([(p["n_over_k"], p["gmacs"]) for p in ours], color)
            speed.label(f"{device}, P={ours[0]['lanes']}; dashed: int8", color, row)
            bits.line([(p["n_over_k"], p["bits_per_weight"]) for p in ours], color)
        if base:
            speed.line([(r, base["gmacs"]) for r in (_RATIOS[0], _RATIOS[-1])], color, True)
        if ours and row == 0:
            limit = [(p["n_over_k"], p["bits_per_weight_limit"]) for p in ours]
            bits.line(limit, "#1a202c", True)
            bits.label("dashed: log2 V(N,K) / N", "#1a202c", 0)
    width, height = _LEFT + 2 * _W + _GAP + 20, _TOP + _H + 50
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *speed.parts,
            *bits.parts,
            "</svg>\n",
        ]
    )
