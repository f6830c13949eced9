"""Drawing of policies as SVG trees: from left to right, one shape per kind of element, legible on any page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, TypeAlias

NodeKind: TypeAlias = Literal["policy", "combinator", "local", "remote", "outbox", "node", "refuse"]

LABEL_LETTERS_MAX = 38
_LETTER, _MONO_LETTER, _LINE, _PAD_X, _PAD_Y = 7.3, 7.6, 17, 13, 8
_GAP_X, _GAP_Y, _MARGIN, _EDGE_LETTER = 62, 14, 18, 6.3

_STYLE = """\
  .card{fill:#fbfcfe;stroke:#dfe4ee} .edge{fill:none;stroke:#a9b3c7;stroke-width:1.5}
  .box{stroke-width:1.3} .combinator{fill:#fff;stroke:#8a94ab} .policy{fill:#2f3a56;stroke:#2f3a56}
  .local{fill:#e6f6ec;stroke:#3d9a5f} .remote{fill:#e7effd;stroke:#3f74d1} .outbox{fill:#fff3dc;stroke:#c98a1b}
  .node{fill:#f0ebfb;stroke:#7d5fc4} .refuse{fill:#fdeaea;stroke:#c94f4f}
  text{fill:#1f2737;font:500 13px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
  .mono{font:500 12.5px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace} .inverse{fill:#fff;font-weight:600}
  .word{fill:#5b6579;font-size:11px} .plate{fill:#fbfcfe}
  @media (prefers-color-scheme:dark){
    .card{fill:#171b26;stroke:#2c3346} .edge{stroke:#55607a} text{fill:#e6eaf3} .combinator{fill:#222838;stroke:#76819b}
    .policy{fill:#c9d3ec;stroke:#c9d3ec} .inverse{fill:#171b26} .local{fill:#17342a;stroke:#4fb97a}
    .remote{fill:#18294a;stroke:#6699f0} .outbox{fill:#3a2d12;stroke:#dba63f} .node{fill:#2b2344;stroke:#a58be6}
    .refuse{fill:#3d1f22;stroke:#e07a7a} .word{fill:#a5afc4} .plate{fill:#171b26}
  }"""


@dataclass(frozen=True, slots=True)
class Item:
    """One element of a drawing; a parent comes before its children.

    Attributes:
        parent: Place of the element it hangs on, -1 for the first.
        label: What is in the box.
        edge: What is on the line that leads to it.
        kind: Decides shape and colour.
    """

    parent: int
    label: str
    edge: str
    kind: NodeKind


@dataclass(slots=True)
class _Box:
    """An item with its place."""

    item: Item
    lines: list[str]
    depth: int
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> float:
        letter = _LETTER if self.item.kind in ("combinator", "refuse") else _MONO_LETTER
        return max(map(len, self.lines)) * letter + 2 * _PAD_X

    @property
    def height(self) -> float:
        return len(self.lines) * _LINE + 2 * _PAD_Y

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


def draw(items: Sequence[Item], title: str) -> str:
    """Return a complete SVG document of the tree ``items``; ``title`` is its text for screen readers."""
    boxes = _placed(items)
    width = max(box.x + box.width for box in boxes) + _MARGIN
    height = max(box.y + box.height for box in boxes) + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">',
        f"<style>\n{_STYLE}\n</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="10"/>',
    ]
    parts += [_line(boxes[box.item.parent], box) for box in boxes if box.item.parent >= 0]
    parts += [_drawn(box) for box in boxes]
    parts += [_word(boxes[box.item.parent], box) for box in boxes if box.item.edge and box.item.parent >= 0]
    return "\n".join([*parts, "</svg>"])


def _is_mono(kind: NodeKind) -> bool:
    return kind in ("local", "remote", "outbox", "node")


def _placed(items: Sequence[Item]) -> list[_Box]:
    """Boxes in columns by depth; a leaf takes the next free row, a parent stands in the middle of its children."""
    boxes: list[_Box] = []
    for item in items:
        depth = boxes[item.parent].depth + 1 if item.parent >= 0 else 0
        boxes.append(_Box(item, textwrap.wrap(item.label, LABEL_LETTERS_MAX) or [""], depth))
    x = float(_MARGIN)
    for depth in range(max(box.depth for box in boxes) + 1):
        column = [box for box in boxes if box.depth == depth]
        words = [len(box.item.edge) * _EDGE_LETTER for box in boxes if box.depth == depth + 1]
        for box in column:
            box.x = x
        x += max(box.width for box in column) + max([_GAP_X, *(word + 36 for word in words)])
    parents = {item.parent for item in items}
    y = float(_MARGIN)
    for place, box in enumerate(boxes):
        if place not in parents:
            box.y = y
            y += box.height + _GAP_Y
    for place in sorted(parents - {-1}, reverse=True):
        middles = [box.middle for box in boxes if box.item.parent == place]
        boxes[place].y = (middles[0] + middles[-1]) / 2 - boxes[place].height / 2
    highest = min(box.y for box in boxes)
    for box in boxes:  # a tall parent of low children reaches over the edge
        box.y += max(0.0, _MARGIN - highest)
    return boxes


def _line(parent: _Box, child: _Box) -> str:
    start, end = parent.x + parent.width, child.x
    bend = start + min(40.0, (end - start) * 0.5)
    return (
        f'<path class="edge" d="M{start:.1f} {parent.middle:.1f}'
        f'C{bend:.1f} {parent.middle:.1f} {start:.1f} {child.middle:.1f} {bend:.1f} {child.middle:.1f}H{end:.1f}"/>'
    )


def _word(parent: _Box, child: _Box) -> str:
    width = len(child.item.edge) * _EDGE_LETTER + 8
    x = child.x - width - 6
    return (
        f'<rect class="plate" x="{x:.1f}" y="{child.middle - 8:.1f}" width="{width:.1f}" height="16" rx="4"/>'
        f'<text class="word" x="{x + width / 2:.1f}" y="{child.middle + 4:.1f}" text-anchor="middle">'
        f"{escape(child.item.edge)}</text>"
    )


def _drawn(box: _Box) -> str:
    kind = box.item.kind
    round_by = box.height / 2 if kind == "combinator" and len(box.lines) == 1 else 7
    style = "mono" if _is_mono(kind) else "inverse" if kind == "policy" else "label"
    shape = (
        f'<rect class="box {kind}" x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="{round_by:g}"/>'
    )
    lines = "".join(
        f'<tspan x="{box.x + box.width / 2:.1f}" y="{box.y + _PAD_Y + 12.5 + number * _LINE:.1f}">{escape(line)}</tspan>'
        for number, line in enumerate(box.lines)
    )
    return f'{shape}<text class="{style}" text-anchor="middle">{lines}</text>'


__all__ = ["Item", "NodeKind", "draw"]
