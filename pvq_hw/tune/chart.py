"""Panels of a chart as numbers for a template: scales, ticks, points, lines. Draws nothing."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Panel", "Scale", "panel"]

_WIDTH, _HEIGHT = 300, 190  # of the plotting area, in the drawing's units
_MOST_TICKS = 6


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

    def _place(self, x: float, y: float) -> tuple[float, float]:
        return round(self.width * self.x.at(x), 1), round(self.height * (1 - self.y.at(y)), 1)


def panel(title: str, x_title: str, x: Scale, y: Scale) -> Panel:
    """An empty panel with its ticks."""
    made = Panel(title, x_title, x, y)
    made.x_ticks = [(round(made.width * x.at(v), 1), _short(v)) for v in x.ticks()]
    made.y_ticks = [(round(made.height * (1 - y.at(v)), 1), _short(v)) for v in y.ticks()]
    return made


def _short(value: float) -> str:
    """A tick's text: at most four digits, k and M for thousands and millions."""
    for limit, unit in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e6 if unit == 'M' else 1e3):.4g}{unit}"
    return f"{value:.4g}"
