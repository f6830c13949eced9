"""How far the writes of a policy go: what the runtime has to know of a graph, and all it may know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from atoma.contracts.policy import Combinator, WriteReach
from atoma.kernel.combinators import AtomicStep, DetachStep, NodeStep, SequenceStep, SyncedStep
from atoma.kernel.policy import remote_of


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a graph has: local nodes, remote ones, remote ones behind the answer, local ones after a remote one."""

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


__all__ = ["write_reach"]
