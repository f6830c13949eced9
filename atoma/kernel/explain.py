"""Drawings of policies, without running them: as text, as a Mermaid flowchart, as SVG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from atoma.contracts.policy import Combinator, Policy
from atoma.kernel.combinators import AtomicStep, NodeStep, RefuseStep, SyncedStep

if TYPE_CHECKING:
    from atoma.kernel.drawing import NodeKind

Form: TypeAlias = Literal["text", "mermaid", "svg"]
FORMS: tuple[Form, ...] = get_args(Form)

_MERMAID = str.maketrans({
    "#": "#35;", "%": "#37;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;", "\n": " ",
})  # fmt: skip
"""What means something to Mermaid, or to the HTML that it makes, inside a quoted label."""

NODES: frozenset[NodeKind] = frozenset({"local", "remote", "outbox", "node"})


@dataclass(frozen=True, slots=True)
class _Line:
    """One element of a drawing."""

    depth: int
    parent: int
    label: str
    kind: NodeKind
    edge: str


def explain(what: Policy | Combinator, form: Form = "text") -> str:
    """Return a drawing of what a policy, or a part of one, will do.

    Args:
        what: A policy (both graphs) or one graph.
        form: ``text`` is an indented tree, ``mermaid`` a flowchart for Markdown, ``svg`` a complete SVG document.
    """
    lines: list[_Line] = []
    if isinstance(what, Policy):
        lines.append(_Line(0, -1, f"policy {what.name}", "policy", ""))
        for edge, graph in (("query", what.query), ("write", what.write)):
            if graph is not None:
                _collect(graph, 1, 0, edge, lines)
    else:
        _collect(what, 0, -1, "", lines)
    return {"text": _text, "mermaid": _mermaid, "svg": _svg}[form](lines)


def _collect(step: Combinator, depth: int, parent: int, edge: str, lines: list[_Line]) -> None:
    lines.append(_Line(depth, parent, step.label, _kind(step), edge))
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
        label = line.label.translate(_MERMAID)
        drawn.append(f'  s{number}["{label}"]' if line.kind in NODES else f'  s{number}(["{label}"])')
        if line.parent >= 0:
            arrow = f"-- {line.edge} -->" if line.edge else "-->"
            drawn.append(f"  s{line.parent} {arrow} s{number}")
    return "\n".join(drawn)


def _svg(lines: list[_Line]) -> str:
    from atoma.kernel.drawing import Item, draw  # programs that draw nothing start without it

    return draw([Item(line.parent, line.label, line.edge, line.kind) for line in lines], lines[0].label)


def _kind(step: Combinator) -> NodeKind:
    if isinstance(step, RefuseStep):
        return "refuse"
    if not isinstance(step, NodeStep):
        return "combinator"
    id = step.label
    if id.startswith("remote"):
        return "remote"
    return "local" if id.startswith("local-") else "outbox" if id == "outbox" else "node"
