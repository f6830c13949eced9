"""Draws a policy before anything runs: as text, as a Mermaid flowchart, as SVG."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Literal, TypeAlias

from atoma.contracts.policy import Combinator, Policy
from atoma.kernel.combinators import AtomicStep, NodeStep, SyncedStep

Form: TypeAlias = Literal["text", "mermaid", "svg"]

_ROW, _INDENT, _LETTER, _BOX = 34, 28, 7.5, 24


@dataclass(frozen=True, slots=True)
class _Line:
    """One element of a drawing."""

    depth: int
    parent: int
    label: str
    is_node: bool
    edge: str


def explain(what: Policy | Combinator, form: Form = "text") -> str:
    """What a policy, or a part of one, will do.

    Args:
        what: A policy (both graphs) or one graph.
        form: ``text`` is an indented tree, ``mermaid`` a flowchart for Markdown, ``svg`` a complete SVG document.
    """
    lines: list[_Line] = []
    if isinstance(what, Policy):
        lines.append(_Line(0, -1, f"policy {what.name}", False, ""))
        for edge, graph in (("query", what.query), ("write", what.write)):
            if graph is not None:
                _collect(graph, 1, 0, edge, lines)
    else:
        _collect(what, 0, -1, "", lines)
    draw = {"text": _text, "mermaid": _mermaid, "svg": _svg}[form]
    return draw(lines)


def _collect(step: Combinator, depth: int, parent: int, edge: str, lines: list[_Line]) -> None:
    lines.append(_Line(depth, parent, step.label, isinstance(step, NodeStep), edge))
    own = len(lines) - 1
    edges = ("yes", "no") if isinstance(step, SyncedStep) else ()
    for position, child in enumerate(step.children):
        numbered = str(position + 1) if len(step.children) > 1 or isinstance(step, AtomicStep) else ""
        _collect(child, depth + 1, own, edges[position] if edges else numbered, lines)


def _text(lines: list[_Line]) -> str:
    return "\n".join("  " * line.depth + (f"{line.edge}: " if line.edge else "") + line.label for line in lines)


def _mermaid(lines: list[_Line]) -> str:
    drawn = ["flowchart TD"]
    for number, line in enumerate(lines):
        label = line.label.replace('"', "#quot;")
        drawn.append(f'  s{number}["{label}"]' if line.is_node else f'  s{number}(["{label}"])')
        if line.parent >= 0:
            arrow = f"-- {line.edge} -->" if line.edge else "-->"
            drawn.append(f"  s{line.parent} {arrow} s{number}")
    return "\n".join(drawn)


def _svg(lines: list[_Line]) -> str:
    labels = [(f"{line.edge}: " if line.edge else "") + line.label for line in lines]
    width = max(line.depth * _INDENT + len(label) * _LETTER + 40 for line, label in zip(lines, labels, strict=True))
    height = len(lines) * _ROW + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" role="img" '
        f'aria-label="{escape(lines[0].label)}" font-family="system-ui, sans-serif" font-size="13">'
    ]
    for number, (line, label) in enumerate(zip(lines, labels, strict=True)):
        x, y = 8 + line.depth * _INDENT, 8 + number * _ROW
        if line.parent >= 0:
            up = 8 + line.parent * _ROW + _BOX
            parts.append(f'<path d="M{x - 14} {up}V{y + _BOX // 2}H{x}" fill="none" stroke="#888"/>')
        round_by, fill = (3, "#eef4ff") if line.is_node else (12, "#fff")
        box = f'x="{x}" y="{y}" width="{len(label) * _LETTER + 20:.0f}" height="{_BOX}" rx="{round_by}"'
        parts.append(f'<rect {box} fill="{fill}" stroke="#446"/>')
        parts.append(f'<text x="{x + 10}" y="{y + 16}" fill="#223">{escape(label)}</text>')
    return "\n".join([*parts, "</svg>"])
