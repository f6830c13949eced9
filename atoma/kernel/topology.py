"""The start-up check: one pass over nodes, policies and stores that lists every fault with its remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from msgspec.structs import replace

from atoma.contracts.policy import Combinator, Policy, RunnableCombinator
from atoma.errors import Problem, TopologyError
from atoma.kernel.combinators import (
    OURS,
    AtomicStep,
    BreakerStep,
    BulkheadStep,
    CacheStep,
    DetachStep,
    MergeStep,
    NodeStep,
    RefuseStep,
    SequenceStep,
    SyncedStep,
    VerdictStep,
    is_step,
    subject,
)
from atoma.kernel.policy import OUTBOX, REMOTE_PREFIX, SINGLE_REMOTE, remote_of
from atoma.kernel.types import NodeInfo
from atoma.ports import AtomicWriter, MergingNode, QueryNode, Staging, WriteNode

SideName: TypeAlias = Literal["query", "write"]

NEEDS_OUTBOX: Final = (
    "the store replicates, so every write has to go through atomic(…, 'outbox'); "
    "choose sync-queue, local-first, remote-first or hybrid"
)


class TopologyCheck:
    """The check of a client's composition.

    Args:
        nodes: Nodes by id.
        policies: Policies in order of registration.
        writer: Commits atomic segments; None without a local database.
        synced: Stores that replicate.
        default: The default policy's name.
        stores: The declared stores, each with the name of its policy.

    Attributes:
        policies: Policies by name.
        unavailable: Name → why it cannot be selected.
        barred: Name → stores that may not use it for writes → why.
        problems: Every fault.
    """

    def __init__(
        self,
        nodes: Mapping[str, object],
        policies: Sequence[Policy],
        writer: AtomicWriter | None,
        synced: frozenset[str],
        default: str,
        stores: Mapping[str, str],
    ) -> None:
        self.problems: list[Problem] = []
        self.policies: dict[str, Policy] = {}
        self.unavailable: dict[str, str] = {}
        self.barred: dict[str, dict[str, str]] = {}
        self._nodes = nodes
        self._roles = {id: node_roles(node) for id, node in nodes.items()}
        self._databases = {id: node.database for id, node in nodes.items() if isinstance(node, Staging)}
        self._writer = writer
        self._synced = synced
        self._stores = frozenset(stores)
        self._check_nodes()
        self._check_names(policies)
        for policy in self.policies.values():
            self._check_policy(policy)
        self._check_selected("the client", default)
        for store, name in stores.items():
            if name != default:
                self._check_selected(f"store {store!r}", name)
        for store in sorted(synced - stores.keys()):
            message = f"store {store!r} is to be synced but is not declared"
            self._found("UNKNOWN_STORE", message, f"declared are: {', '.join(stores)}")
        for store, name in stores.items():
            self._check_store(store, name)

    def check(self) -> None:
        """Raise what was found.

        Raises:
            TopologyError: There is at least one problem.
        """
        if self.problems:
            raise TopologyError(self.problems)

    def _found(self, code: str, message: str, remedy: str) -> None:
        self.problems.append(Problem(code, message, remedy))

    def _check_nodes(self) -> None:
        if not any(self._can(id, "query") for id in self._nodes):
            self._found("NO_QUERY_NODE", "no node can answer queries", "add LocalExecution(…) or Remote(…) to plugins")
        if not any(self._can(id, "write") for id in self._nodes):
            self._found(
                "NO_WRITE_NODE", "no node can carry out writes", "add LocalExecution(…) or Remote(…) to plugins"
            )
        ids: dict[int, str] = {}
        for id, node in self._nodes.items():
            if not self._roles[id]:
                self._found("NOT_A_NODE", f"{id!r} is a {type(node).__name__}", "give it query, write, stage or merge")
            if id_of_node(node) in ids:
                message = f"one node has two ids: {ids[id_of_node(node)]!r} and {id!r}"
                self._found("TWO_NAMES", message, "register it once; policies may use it as often as they like")
            ids.setdefault(id_of_node(node), id)

    def _check_names(self, policies: Sequence[Policy]) -> None:
        for policy in policies:
            if policy.name in self.policies:
                self._found("TWO_NAMES", f"two policies are named {policy.name!r}", "give one of them another name")
            self.policies.setdefault(policy.name, policy)

    def _check_policy(self, policy: Policy) -> None:
        graphs: list[tuple[SideName, Combinator]] = []
        if policy.query is not None:
            graphs.append(("query", policy.query))
        if policy.write is not None:
            graphs.append(("write", policy.write))
        missing: dict[str, None] = {}
        for side, graph in graphs:
            where = f"the {side} graph of policy {policy.name!r}"
            strange = next(_strange(graph, ()), None)
            if strange is not None:
                self._found(strange[0], f"{where} {strange[1]}", strange[2])
                self.unavailable[policy.name] = f"its graph {strange[1]}"
                return
            self._check_shape(where, side, graph, after_answer=False)
            missing.update(dict.fromkeys(self._missing(side, graph)))
        if missing:
            self.unavailable[policy.name] = f"needs {', '.join(missing)}"
        elif policy.write is not None:
            self.barred[policy.name] = self._barred_stores(policy.write)

    def _check_shape(self, where: str, side: SideName, step: Combinator, *, after_answer: bool) -> None:
        if isinstance(step, AtomicStep):
            self._check_atomic(where, side, step)
            return
        if isinstance(step, DetachStep) and not after_answer:
            self._found("DETACH_FIRST", f"{where} detaches before it has an answer", "use sequence(answer, detach(…))")
        if isinstance(step, MergeStep | CacheStep) and side == "write":
            self._found("QUERIES_ONLY", f"{where} has a {step.label}", "merge and cache work on queries only")
        if isinstance(step, VerdictStep) and side == "query":
            self._found("WRITES_ONLY", f"{where} waits for a verdict", "verdict works on writes only")
        if not isinstance(step, OURS) and not isinstance(step, RunnableCombinator):
            self._found(
                "NOT_RUNNABLE", f"{where} has a {type(step).__name__}", "give it `async def run(request, steps)`"
            )
        if isinstance(step, BreakerStep | BulkheadStep) and any(_is_same_guard(step, below) for below in _below(step)):
            self._found(
                "GUARD_IN_ITSELF", f"{where} has a {step.label} inside itself", "give the inner one other bounds"
            )
        for position, child in enumerate(step.children):
            self._check_shape(where, side, child, after_answer=isinstance(step, SequenceStep) and position > 0)

    def _check_atomic(self, where: str, side: SideName, step: AtomicStep) -> None:
        if side == "query":
            self._found("WRITES_ONLY", f"{where} has an atomic segment", "use node(…) in a query graph")
            return
        databases: dict[str, str] = {}
        for id in step.ids:
            if id in self._databases:
                databases.setdefault(self._databases[id], id)
        if self._writer is not None and databases:
            databases.setdefault(self._writer.database, "the local database")
        if len(databases) > 1:
            held = ", ".join(f"{id} in {name!r}" for name, id in databases.items())
            self._found("TWO_DATABASES", f"{where} spans several databases: {held}", "stage into one database only")

    def _missing(self, side: SideName, graph: Combinator) -> Iterator[str]:
        """What the graph needs and the client has not."""
        for step in _walk(graph, with_synced=bool(self._synced)):
            for id in step.nodes:
                roles = self._roles.get(id)
                if roles is None:
                    yield self._absent(id)
                elif isinstance(step, AtomicStep):
                    if self._writer is None:
                        yield "a local database"
                    elif "stage" not in roles:
                        yield f"{id} that can stage"
                elif isinstance(step, MergeStep):
                    if "merge" not in roles:
                        yield f"{id} that can merge"
                elif not self._can(id, side):
                    yield f"{id} that can {side}"

    def _absent(self, id: str) -> str:
        if id == OUTBOX:
            return f"{id} (add Sync(stores=[…]) to plugins)"
        if id != SINGLE_REMOTE:
            return id
        remotes = sorted(name for name in self._nodes if name.startswith(REMOTE_PREFIX))
        return f"one remote to be chosen of {', '.join(remotes)}" if remotes else "a remote (add Remote(…) to plugins)"

    def _can(self, id: str, side: SideName) -> bool:
        roles = self._roles[id]
        return side in roles or (side == "write" and "stage" in roles and self._writer is not None)

    def _barred_stores(self, graph: Combinator) -> dict[str, str]:
        barred = {}
        refusals = [step.reason for step in self._leaves(graph, synced=False) if isinstance(step, RefuseStep)]
        if refusals:
            barred = dict.fromkeys(self._stores - self._synced, refusals[0])
        if not all(map(_is_queued, self._leaves(graph, synced=True))):
            barred.update(dict.fromkeys(self._synced, NEEDS_OUTBOX))
        return barred

    def _leaves(self, step: Combinator, *, synced: bool) -> Iterator[Combinator]:
        if isinstance(step, SyncedStep):
            yield from self._leaves(step.synced if synced else step.otherwise, synced=synced)
        elif isinstance(step, AtomicStep) or not step.children:
            yield step
        else:
            for child in step.children:
                yield from self._leaves(child, synced=synced)

    def _check_selected(self, owner: str, name: str) -> None:
        policy = self.policies.get(name)
        remedy = f"choose one of: {', '.join(sorted(self.policies.keys() - self.unavailable.keys()))}"
        if policy is None:
            self._found("POLICY_MISSING", f"{owner} selects policy {name!r}, which is not registered", remedy)
        elif name in self.unavailable:
            message = f"{owner} selects policy {name!r}, which {self.unavailable[name]}"
            self._found("POLICY_UNAVAILABLE", message, f"add what it needs, or {remedy}")
        elif policy.query is None or policy.write is None:
            lacking = "query" if policy.query is None else "write"
            self._found("POLICY_INCOMPLETE", f"{owner} selects policy {name!r}, which has no {lacking} graph", remedy)

    def _check_store(self, store: str, name: str) -> None:
        reason = self.barred.get(name, {}).get(store)
        if reason is not None:
            code = "SYNCED_WITHOUT_OUTBOX" if store in self._synced else "WRITES_REFUSED"
            self._found(code, f"store {store!r} cannot be written under its policy {name!r}", reason)


def id_of_node(value: object) -> int:
    """Identity: two equal nodes, or steps, are still two."""
    return id(value)


def _strange(step: object, above: tuple[int, ...]) -> Iterator[tuple[str, str, str]]:
    """Code, message and remedy for each place where the graph is none."""
    if not is_step(step):
        yield "NOT_A_STEP", f"has {step!r} where a step belongs", "a node is written node('its-id')"
    elif id_of_node(step) in above:
        yield "CYCLE", "contains itself", "build it of frozen values"
    elif not isinstance(step, AtomicStep | NodeStep):
        for child in step.children:
            yield from _strange(child, (*above, id_of_node(step)))


def _below(step: Combinator) -> Iterator[Combinator]:
    for child in () if isinstance(step, AtomicStep) else step.children:
        yield child
        yield from _below(child)


def _is_same_guard(one: BreakerStep | BulkheadStep, other: Combinator) -> bool:
    """Whether both have one state: a bulkhead would wait for itself, the probe of a breaker would shut itself out."""
    return isinstance(other, type(one)) and replace(other, step=one.step) == one and subject(other) == subject(one)


def _is_queued(step: Combinator) -> bool:
    return isinstance(step, AtomicStep) and OUTBOX in step.ids


def _walk(step: Combinator, *, with_synced: bool) -> Iterator[Combinator]:
    """The step and all below it; without synced stores, what is only for them does not count."""
    yield step
    if isinstance(step, AtomicStep):
        return
    children = (step.otherwise,) if isinstance(step, SyncedStep) and not with_synced else step.children
    for child in children:
        yield from _walk(child, with_synced=with_synced)


def node_roles(node: object) -> tuple[str, ...]:
    """What a node can do, by what it offers."""
    kinds: list[tuple[str, type]] = [
        ("query", QueryNode), ("write", WriteNode), ("stage", Staging), ("merge", MergingNode)
    ]  # fmt: skip
    return tuple(role for role, kind in kinds if isinstance(node, kind))


def node_info(id: str, node: object, owner: str) -> NodeInfo:
    """The node as ``topology()`` shows it."""
    database = node.database if isinstance(node, Staging) else ""
    return NodeInfo(id, node_roles(node), remote_of(id, node) is True, owner, database)
