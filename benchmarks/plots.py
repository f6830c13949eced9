"""Charts with two logarithmic axes as SVG, without a library: what is measured is few lines, and the documentation keeps them as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 200, 48, 56
COLOURS = {
    "Atoma": "#0b6e4f", "lower bound": "#8a8a8a", "TanStack DB": "#d1495b", "RxDB": "#7b4fb5",
    "hub on a file": "#0b6e4f", "hub on PostgreSQL": "#7b4fb5", "pushes of 50": "#0b6e4f", "pushes of 1": "#7b4fb5",
}  # fmt: skip
OTHER = "#2b6cb0"


@dataclass(frozen=True, slots=True)
class Line:
    """A name and its points."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines, and what they show."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True)
class _Axis:
    low: int
    high: int
    start: float
    end: float

    def at(self, value: float) -> float:
        return self.start + (math.log10(value) - self.low) / (self.high - self.low) * (self.end - self.start)

    def marks(self) -> list[float]:
        steps = (1, 2, 5) if self.high - self.low == 1 else (1,)
        found = [step * 10.0**power for power in range(self.low, self.high) for step in steps]
        return [*found, 10.0**self.high]


def _axis(values: Sequence[float], start: float, end: float) -> _Axis:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return _Axis(low, max(high, low + 1), start, end)


def draw(chart: Chart) -> str:
    """``chart`` as a picture."""
    points = [point for line in chart.lines for point in line.points]
    x = _axis([point[0] for point in points], LEFT, WIDTH - RIGHT)
    y = _axis([point[1] for point in points], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 26, chart.title, weight="bold"),
    ]
    for mark in x.marks():
        parts.append(_rule(x.at(mark), y.start, x.at(mark), y.end))
        parts.append(_text(x.at(mark), y.start + 20, f"{mark:,.0f}", anchor="middle"))
    for mark in y.marks():
        parts.append(_rule(x.start, y.at(mark), x.end, y.at(mark)))
        parts.append(_text(x.start - 8, y.at(mark) + 4, f"{mark:,g}", anchor="end"))
    parts.append(_text((x.start + x.end) / 2, HEIGHT - 12, chart.x, anchor="middle"))
    middle = (y.start + y.end) / 2
    parts.append(f'<g transform="translate(16 {middle:.0f}) rotate(-90)">{_text(0, 0, chart.y, anchor="middle")}</g>')
    parts += _lines(chart, x, y)
    return "\n".join([*parts, "</svg>\n"])


def _lines(chart: Chart, x: _Axis, y: _Axis) -> list[str]:
    parts: list[str] = []
    lowest = math.inf
    for line in sorted(chart.lines, key=lambda each: each.points[-1][1]):  # names stand apart, from below
        colour = COLOURS.get(line.name, OTHER)
        places = [(x.at(a), y.at(b)) for a, b in line.points]
        drawn = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        width = 3 if line.name == "Atoma" else 2
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in places]
        lowest = min(lowest - 17, places[-1][1] + 4)
        parts.append(_text(x.end + 12, lowest, line.name, colour=colour, weight="bold"))
    return parts


def _rule(x: float, y: float, x_end: float, y_end: float) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x_end:.1f}" y2="{y_end:.1f}" stroke="#dddddd"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", colour: str = "#222222", weight: str = "normal"
) -> str:
    told = f'text-anchor="{anchor}" fill="{colour}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {told}>{escape(text)}</text>'
