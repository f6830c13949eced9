"""Analysis of policy graphs: how far their writes go, and which nodes can be asked what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from atoma.contracts.execution import Step
from atoma.contracts.policy import Combinator, WriteReach
from atoma.errors import WriteUnknown
from atoma.kernel.combinators import AtomicStep, DetachStep, NodeStep, SequenceStep, SyncedStep
from atoma.kernel.policy import remote_of
from atoma.ports import ResolvingNode


class _Parts(msgspec.Struct, frozen=True):
    """The nodes of a graph: local ones, remote ones, remote ones behind the answer, local ones after a remote one."""

    local: bool = False
    remote: bool = False
    behind: bool = False
    after: bool = False

    def __or__(self, other: _Parts) -> _Parts:
        return _Parts(
            self.local or other.local,
            self.remote or other.remote,
            self.behind or other.behind,
            self.after or other.after,
        )


def write_reach(graph: Combinator, nodes: Mapping[str, object]) -> WriteReach:
    """How far ``graph`` goes on stores that do not replicate.

    A node that says nothing about where it is counts as local.
    """
    parts = _parts(graph, nodes)
    if parts.remote:
        return "both" if parts.after else "remote"
    return "later" if parts.behind else "local"


def _parts(step: Combinator, nodes: Mapping[str, object]) -> _Parts:
    match step:
        case SyncedStep(otherwise=otherwise):
            return _parts(otherwise, nodes)
        case NodeStep(id=id):
            far = remote_of(id, nodes.get(id)) is True
            return _Parts(local=not far, remote=far)
        case AtomicStep():
            return _Parts(local=True)
        case DetachStep(step=inner):
            found = _parts(inner, nodes)
            return _Parts(behind=found.remote or found.behind)
        case SequenceStep(children=children):
            before = _Parts()
            for child in children:
                found = _parts(child, nodes)
                before = before | found | _Parts(after=before.remote and found.local)
            return before
        case _:
            every = _Parts()
            for child in step.children:
                every = every | _parts(child, nodes)
            return every


def is_unbound(graph: Combinator, nodes: Mapping[str, object]) -> bool:
    """Whether ``graph`` is one node that says that it does not look at the deadline of what it is asked."""
    return isinstance(graph, NodeStep) and getattr(nodes.get(graph.id), "bound_by_deadline", True) is False


def is_remote(graph: Combinator, nodes: Mapping[str, object]) -> bool:
    """Whether whatever ``graph`` writes is written by other machines alone, before it answers."""
    parts = _parts(graph, nodes)
    return parts.remote and not (parts.local or parts.behind) and not _divides(graph)


def _divides(step: Combinator) -> bool:
    return isinstance(step, SyncedStep) or any(map(_divides, step.children))


class Askable(msgspec.Struct, frozen=True):
    """The authorities that may be asked about a policy's writes.

    Attributes:
        nodes: Nodes of its write graph that can tell, in the order of the graph.
        divided: Whether writes on stores that replicate go another way, through the outbox.
    """

    nodes: tuple[str, ...] = ()
    divided: bool = False

    def __or__(self, other: Askable) -> Askable:
        return Askable(tuple(dict.fromkeys(self.nodes + other.nodes)), self.divided or other.divided)


def askable(graph: Combinator, nodes: Mapping[str, object]) -> Askable:
    """Whom the writes of ``graph`` may be asked about."""
    match graph:
        case NodeStep(id=id):
            return Askable((id,) if isinstance(nodes.get(id), ResolvingNode) else ())
        case SyncedStep(otherwise=otherwise):
            return askable(otherwise, nodes) | Askable(divided=True)
        case DetachStep(step=inner):
            return askable(inner, nodes)
        case AtomicStep():
            return Askable()
        case _:
            found = Askable()
            for child in graph.children:
                found = found | askable(child, nodes)
            return found


def note_nodes(error: WriteUnknown, path: Sequence[Step], nodes: Mapping[str, object]) -> None:
    """Note in ``error`` which nodes may have passed the write on, as the trail has it."""
    sent = (step.node for step in path if step.outcome not in ("failed", "skipped", "detached"))
    error.nodes = tuple(dict.fromkeys(id for id in sent if isinstance(nodes.get(id), ResolvingNode)))


__all__ = ["Askable", "askable", "is_remote", "note_nodes", "write_reach"]
