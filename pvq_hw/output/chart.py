"""Panels of a chart as numbers for a template: scales, ticks, points, lines. Draws nothing."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["TEMPLATES", "Panel", "Scale", "panel"]

TEMPLATES = Path(__file__).parent / "templates"
"""The folder of ``chart.svg.jinja``, whose macro `drawn` draws a panel."""

_WIDTH, _HEIGHT = 300, 190  # of the plotting area, in the drawing's units
_MOST_TICKS = 6
_LETTER, _LINE, _DOT = 6.2, 12, 8  # width and height of a text's letters, and half a dot with air


@dataclass(frozen=True)
class Scale:
    """Maps values to 0..1, linearly or by their logarithm; what lies outside goes to the border.

    Parameters
    ----------
    low, high : float
        Must be positive where ``log``.
    log : bool
    """

    low: float
    high: float
    log: bool

    @classmethod
    def over(cls, values: Iterable[float], log: bool = False) -> "Scale":
        """Over all values with a margin; over 0..1 (1..10) without any."""
        found = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
        low, high = (min(found), max(found)) if found else (1.0, 10.0)
        if log:
            margin = max((high / low) ** 0.06, 1.02)
            return cls(low / margin, high * margin, True)
        margin = 0.06 * (high - low) or max(abs(high), 1e-9) * 0.05
        return cls(low - margin, high + margin, False)

    def at(self, value: float) -> float:
        """Place of a value, 0 to 1."""
        if self.log:
            value = max(value, self.low)
            place = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            place = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, place))

    def ticks(self) -> list[float]:
        """Round values within, a handful."""
        if self.log:
            for steps in ((1, 2, 5), (1, 3), (1,)):
                found = self._decades(steps)
                if len(found) <= _MOST_TICKS and (len(found) > 1 or steps == (1,)):
                    break
            if len(found) > 1:
                return found[:: -(-len(found) // _MOST_TICKS)]
        step = 10.0 ** math.floor(math.log10(self.high - self.low))
        step *= next(f for f in (0.2, 0.25, 0.5, 1, 2) if (self.high - self.low) / step / f <= 5.5)
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step) + 1)]

    def _decades(self, steps: Sequence[int]) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        values = [s * 10.0**e for e in range(first, last + 1) for s in steps]
        return [v for v in values if self.low <= v <= self.high]


@dataclass
class Panel:
    """One plotting area, in units of the drawing, from its upper left corner.

    Parameters
    ----------
    title, x_title : str
    x_ticks, y_ticks : list of (place, text)
    points : list of dict
        ``x``, ``y``, ``kind`` (a CSS class), ``color``, ``text`` (shown under the pointer).
    lines : list of dict
        ``path`` (of a polyline), ``color``, ``kind``.
    names : list of dict
        ``x``, ``y``, ``anchor`` (of SVG), ``text``: beside the points.
    """

    title: str
    x_title: str
    x: Scale
    y: Scale
    width: int = _WIDTH
    height: int = _HEIGHT
    x_ticks: list[tuple[float, str]] = field(default_factory=list)
    y_ticks: list[tuple[float, str]] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    names: list[dict[str, Any]] = field(default_factory=list)

    def point(self, x: float, y: float, kind: str, text: str, color: str = "") -> None:
        """A dot."""
        px, py = self._place(x, y)
        self.points.append({"x": px, "y": py, "kind": kind, "text": text, "color": color})

    def line(self, points: Sequence[tuple[float, float]], kind: str, color: str = "") -> None:
        """Straight from point to point."""
        path = " ".join(f"{px},{py}" for px, py in (self._place(x, y) for x, y in points))
        self.lines.append({"path": path, "kind": kind, "color": color})

    def steps(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Level until the next point, as a front is drawn."""
        path: list[tuple[float, float]] = []
        for x, y in points:
            if path:
                path.append((x, path[-1][1]))
            path.append((x, y))
        self.line(path, kind)

    def level(self, y: float, kind: str) -> None:
        """A horizontal line."""
        if self.y.low <= y <= self.y.high:
            self.line([(self.x.low, y), (self.x.high, y)], kind)

    def name(self, texts: Sequence[str]) -> None:
        """Writes a text beside each of the points, in their order, on the side where it covers
        least of the points, of the texts before it and of what is outside."""
        taken = [(p["x"] - _DOT, p["y"] - _DOT, p["x"] + _DOT, p["y"] + _DOT) for p in self.points]
        area = 0.0, 0.0, float(self.width), float(self.height)
        for number, (point, text) in enumerate(zip(self.points, texts, strict=True)):
            wide, others = _LETTER * len(text), taken[:number] + taken[number + 1 :]
            sides = []
            for place, (right, up) in enumerate(_SIDES):
                x, y = point["x"] + right * (_DOT + 2), point["y"] + _LINE / 3 - up * (_LINE + 1)
                left = x - wide * (1 - right) / 2
                box = left, y - _LINE + 2, left + wide, y + 2
                hidden = sum(_common(box, other) for other in others)
                outside = wide * _LINE - _common(box, area)
                sides.append((hidden + 4 * outside, place, x, y, right, box))
            _, _, x, y, right, box = min(sides)
            anchor = {-1: "end", 0: "middle", 1: "start"}[right]
            self.names.append({"x": round(x, 1), "y": round(y, 1), "anchor": anchor, "text": text})
            taken.append(box)

    def _place(self, x: float, y: float) -> tuple[float, float]:
        return round(self.width * self.x.at(x), 1), round(self.height * (1 - self.y.at(y)), 1)


# Right and up of a point: the sides for its name, the best first.
_SIDES = (
    *((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)),
    *((1, 2), (-1, 2), (1, -2), (-1, -2), (1, -3), (-1, -3)),
)
_Box = tuple[float, float, float, float]


def _common(a: _Box, b: _Box) -> float:
    """Area of two boxes' intersection."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, wide) * max(0.0, high)


def panel(
    title: str, x_title: str, x: Scale, y: Scale, size: tuple[int, int] = (_WIDTH, _HEIGHT)
) -> Panel:
    """An empty panel with its ticks."""
    made = Panel(title, x_title, x, y, *size)
    made.x_ticks = [(round(made.width * x.at(v), 1), _short(v)) for v in x.ticks()]
    made.y_ticks = [(round(made.height * (1 - y.at(v)), 1), _short(v)) for v in y.ticks()]
    return made


def _short(value: float) -> str:
    """A tick's text: at most four digits, k and M for thousands and millions."""
    for limit, unit in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e6 if unit == 'M' else 1e3):.4g}{unit}"
    return f"{value:.4g}"
