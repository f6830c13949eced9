"""Policy graphs as data for drawing; a user's own combinators come out like the built-in ones."""

from __future__ import annotations

from msgspec.structs import replace

from atoma.contracts.policy import Combinator
from atoma.inspector.views import GraphView

_CHOICES = {"synced": ("yes", "no")}


def graph_view(step: Combinator) -> GraphView:
    """The tree of ``step``: its kind (``sequence``, ``atomic``, …), its label, and what is below it."""
    kind = type(step).__name__.removesuffix("Step").lower()
    edges = _CHOICES.get(kind, ())
    children = tuple(
        _led_to(graph_view(child), edges[index] if index < len(edges) else "")
        for index, child in enumerate(step.children)
    )
    label = "atomic: one transaction" if kind == "atomic" else step.label
    # an element with children names nodes that are drawn as children already, or that only join their results
    return GraphView(kind, label, () if children else tuple(step.nodes), children)


def _led_to(view: GraphView, edge: str) -> GraphView:
    return view if not edge else replace(view, edge=edge)
