"""The execution kernel: carries out requests as their policies say, and reports exactly what happened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NoReturn

import trio
from msgspec.structs import replace

from atoma.contracts.events import QueryFinished, WriteDispatched, WriteResolved, WriteSettled
from atoma.contracts.execution import (
    OperationContext,
    QueryRequest,
    QueryResult,
    Resolution,
    ResolveRequest,
    Step,
    WriteRequest,
    WriteResult,
    note_path,
    status_of,
)
from atoma.contracts.failures import info_from
from atoma.contracts.policy import Policy, WriteReach
from atoma.errors import AtomaError, NotResolvable, PolicyNotAllowed, UnknownPolicy, WriteUnknown
from atoma.kernel._parts import KernelParts
from atoma.kernel.compiler import compile_query, compile_write
from atoma.kernel.events import EventDispatch
from atoma.kernel.explain import Form, explain
from atoma.kernel.merging import MergeNode
from atoma.kernel.policy import DEFAULT, PolicyRegistry, policies_of_stores, ready_policies
from atoma.kernel.reach import Askable, askable, is_remote, is_unbound, note_nodes, write_reach
from atoma.kernel.resolving import resolve_at
from atoma.kernel.topology import TopologyCheck, node_info
from atoma.kernel.types import (
    DetachedResults,
    Execution,
    GuardInfo,
    KernelLimits,
    PolicyInfo,
    RunNode,
    Topology,
    Trail,
)
from atoma.plugins import Node
from atoma.ports import AtomicWriter, Environment
from atoma.schema import Schema

_NOTHING: Final[dict[str, str]] = {}


class ExecutionKernel:
    """The implementation of ``QueryPort``, ``WritePort`` and ``ResolvePort`` over the nodes and policies of one client.

    Everything is checked and compiled in the constructor; no task is started before a step is detached. The kernel
    owns no resource: it ends when its nursery is cancelled.

    A node may declare where it answers from by an attribute ``remote: bool``; without one, ``remote-…`` is remote, and for
    any other node ``meta.source`` of its results decides. A node that only stages (``Staging``) runs in a transaction of ``writer``.

    The policies ``direct-local``, ``direct-remote``, ``direct-<name>`` of every node ``remote-<name>``,
    ``local-first``, ``remote-first``, ``sync-queue``, ``hybrid``, ``cache-only``, ``network-only`` and
    ``cache-and-network`` are built in, for the client's single remote;
    so is the node ``merge``, unless a plugin registers another merge node under that id.

    Args:
        schema: The declared stores, with the policies they ask for.
        nodes: Node id → node, as the plugins registered them.
        policies: Policies beyond the ready-made ones.
        environment: Clock and randomness.
        events: Gets the kernel's events; the client runs its ``deliver`` in a task.
        nursery: Where detached steps run; cancelling it ends them.
        writer: Commits atomic segments (the local database); None without one.
        synced: Stores that replicate.
        default: Policy of requests and stores that name none; None means ``direct-local``, and ``sync-queue`` for stores
            that replicate.
        owners: The plugins that registered each part, as ``topology()`` shows them: kind and name, such as ``node local-query`` → plugin id.
        detached: Receives the results of detached steps; None drops them.
        limits: Bounds.

    Raises:
        TopologyError: The parts do not fit together; the error lists every fault with its remedy.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        nodes: Mapping[str, Node],
        policies: Sequence[Policy] = (),
        environment: Environment,
        events: EventDispatch,
        nursery: trio.Nursery,
        writer: AtomicWriter | None = None,
        synced: frozenset[str] = frozenset(),
        default: str | None = None,
        owners: Mapping[str, str] = _NOTHING,
        detached: DetachedResults | None = None,
        limits: KernelLimits = KernelLimits(),  # noqa: B008 - frozen
    ) -> None:
        every: dict[str, Node | MergeNode] = {"merge": MergeNode(), **nodes}
        self._schema = schema
        self._default = default or DEFAULT
        self._owners = owners
        self._stores = policies_of_stores(schema, default, synced)
        self._events = events
        self._now = environment.clock
        self._new_trace = environment.traces or environment.ids
        self._parts = KernelParts(
            nodes=every,
            environment=environment,
            events=events,
            nursery=nursery,
            writer=writer,
            detached_results=detached,
            limits=limits,
            synced=synced,
        )
        known = [*ready_policies(nodes), *policies]
        checker = TopologyCheck(every, known, writer, synced, self._default, self._stores)
        checker.check()
        self._barred = checker.barred
        self.policies = PolicyRegistry(checker.policies, checker.unavailable)
        self._queries: dict[str, RunNode[QueryRequest, QueryResult]] = {}
        self._writes: dict[str, RunNode[WriteRequest, WriteResult]] = {}
        self._reaches: dict[str, WriteReach] = {}
        self._askable: dict[str, Askable] = {}
        self._remote: set[str] = set()
        self._unbound: set[str] = set()
        for policy in self.policies.available():
            if policy.query is not None:
                self._queries[policy.name] = compile_query(policy.query, self._parts)
                if is_unbound(policy.query, every):
                    self._unbound.add(policy.name)
            if policy.write is not None:
                self._writes[policy.name] = compile_write(policy.write, self._parts)
                self._reaches[policy.name] = write_reach(policy.write, every)
                self._askable[policy.name] = askable(policy.write, every)
                if is_remote(policy.write, every):
                    self._remote.add(policy.name)

    async def execute_query(self, request: QueryRequest) -> QueryResult:
        """Answer ``request`` by the policy of its context, else of its store, else the default.

        The caller's cancel scope is the only time limit; its deadline is read once and travels in the context.
        If it is cancelled, only detached steps keep running.

        Raises:
            UnknownStore: The store is not declared.
            UnknownPolicy: The policy does not exist, cannot query, or one of its nodes is missing.
            QueryError: The query does not fit the store.
            AtomaError: The error with which the last node, or the policy, ended.
        """
        context = request.context
        store = request.query.plan.store
        policy = context.policy or self._policy_of(store)
        run = self._queries.get(policy)
        if run is None or store not in self._stores:
            self._refuse(policy, "query", (store,))
        events = self._events
        deadline: float | None = None
        if not context.unread or policy not in self._unbound or events.listeners:
            context = self._entered(context, policy)
            deadline = context.deadline
            if context is not request.context:
                request = replace(request, context=context)
        trail = Trail()
        try:
            result = await run(request, Execution(context.trace_id, deadline, trail))
        except BaseException as error:
            path = _noted(error, trail)
            if events.listeners:
                events.emit(QueryFinished(context.trace_id, store, policy, _code(error), path, at=self._now()))
            raise
        if deadline is None and not events.listeners and result.meta.source == trail.source:
            return result
        meta = trail.meta(context, result.meta)
        if events.listeners:
            events.emit(QueryFinished(context.trace_id, store, policy, "", meta.path, at=self._now()))
        return replace(result, meta=meta)

    async def execute_write(self, request: WriteRequest) -> WriteResult:
        """Carry out ``request`` by the policy of its context, else of its stores, else the default.

        Every attempt on every path uses ``request.idem``. Refused items are results, not exceptions. If it is cancelled, the
        write may or may not have been carried out; its nodes have finished or undone what they had begun.

        Raises:
            UnknownStore: A store is not declared.
            UnknownPolicy: The policy does not exist, cannot write, or one of its nodes is missing.
            PolicyNotAllowed: A store replicates and the policy would bypass the outbox (which new rows do whose ids the hub
                draws), the policy refuses the store, or the stores' own policies differ.
            WriteUnknown: The write may or may not have been applied; its key is attached, and the nodes to ask.
            AtomaError: The error with which the last node, or the policy, ended; nothing of the write was applied.
        """
        context = request.context
        entries = request.entries
        stores = {entries[0].store} if len(entries) == 1 else {entry.store for entry in entries}
        policy = context.policy or self._policy_of(*stores)
        run = self._writes.get(policy)
        if (
            run is None
            or not stores <= self._stores.keys()
            or not (stores.isdisjoint(self._barred.get(policy, _NOTHING)) or self._draws(request, policy))
        ):
            self._refuse(policy, "write", tuple(stores))
        context = self._entered(context, policy)
        if context is not request.context:
            request = replace(request, context=context)
        trail = Trail()
        events = self._events
        if events.listeners:
            events.emit(WriteDispatched(request, at=self._now()))
        try:
            result = await run(request, Execution(context.trace_id, context.deadline, trail))
        except BaseException as error:
            self._parts.changed(stores)
            path = _noted(error, trail)
            if isinstance(error, WriteUnknown):
                note_nodes(error, path, self._parts.nodes)
            if events.listeners:
                settled = WriteSettled(context.trace_id, request.idem, policy, None, _code(error), path, at=self._now())
                events.emit(settled)
            raise
        if self._parts.caches:
            self._parts.changed(stores)
        meta = trail.meta(context, result.meta)
        if events.listeners:
            path = meta.path
            events.emit(WriteSettled(context.trace_id, request.idem, policy, result.status, "", path, at=self._now()))
        if context.staged and trail.answered is not None and len(trail.answered) == len(entries):
            return replace(result, status=status_of(trail.answered), items=trail.answered, meta=meta)
        return replace(result, meta=meta)

    async def execute_resolve(self, request: ResolveRequest) -> Resolution:
        """Ask the nodes of ``request``, or else those of its policy that can answer, what became of a write.

        Every node is asked, each once: one that answers "never applied" has made sure of it. The caller's cancel scope
        is the only time limit; after a cancellation, the call may be repeated.

        Raises:
            UnknownPolicy: The policy does not exist, cannot write, or one of its nodes is missing.
            NotResolvable: No node can be asked, or it is not certain that the write went to it.
            WriteUnknown: An authority could not be reached, or its answer was lost.
            AtomaError: An authority refused to answer, or did not admit the caller.
        """
        context = request.context
        policy = context.policy or self._default
        nodes = request.nodes or self._who_tells(policy, request.idem)
        context = self._entered(context, policy)
        request = ResolveRequest(request.idem, context, nodes)
        trail = Trail()
        events = self._events

        def told(found: Resolution | None, error: str) -> None:
            if events.listeners:
                status = None if found is None or found.result is None else found.result.status
                gone = found is not None and found.abandoned
                path = tuple(trail.steps)
                trace = context.trace_id
                events.emit(WriteResolved(trace, request.idem, policy, status, gone, error, path, at=self._now()))

        try:
            found = await resolve_at(self._parts, nodes, request, Execution(context.trace_id, context.deadline, trail))
        except BaseException as error:
            _noted(error, trail)
            told(None, _code(error))
            raise
        self._parts.changed(self._stores)  # whatever the write did, cached answers may be from before it
        told(found, "")
        result, meta = found.result, trail.meta(context, found.meta)
        if result is not None:
            result = replace(result, meta=meta)
        return replace(found, idem=request.idem, result=result, meta=meta)

    def _draws(self, request: WriteRequest, policy: str) -> bool:
        """Whether no row is written but new ones whose ids the hub draws: only there can they be, and no outbox has them."""
        return policy in self._remote and all(entry.awaits_id for entry in request.entries)

    def writes_remotely(self, policy: str) -> bool:
        """Whether other machines alone write under ``policy``; True, too, of one under which nothing can be written."""
        return policy in self._remote or policy not in self._writes

    def write_reach(self, policy: str) -> WriteReach:
        """How far writes under ``policy`` go on stores that do not replicate; ``local`` when it cannot be selected."""
        return self._reaches.get(policy, "local")

    @property
    def default(self) -> str:
        """The name of the client's policy."""
        return self._default

    @property
    def stores(self) -> Mapping[str, str]:
        """Every declared store, with the name of its policy."""
        return self._stores

    @property
    def kept_elsewhere(self) -> frozenset[str]:
        """Stores whose writes go to another machine by their own policy, and that do not replicate."""
        far = {store for store, policy in self._stores.items() if self.write_reach(policy) != "local"}
        return frozenset(far - self._parts.synced)

    @property
    def caches(self) -> bool:
        """Whether a policy keeps query results, which :meth:`invalidate` ends."""
        return self._parts.caches

    def invalidate(self, stores: Iterable[str]) -> None:
        """Declare that rows of ``stores`` changed outside this kernel: cached query results of them are not used again."""
        self._parts.changed(stores)

    def topology(self) -> Topology:
        """Return how this client is composed, and the present state of its breakers and bulkheads."""
        policies = tuple(
            PolicyInfo(
                policy.name,
                self._owner("policy", policy.name),
                self.policies.unavailable(policy.name),
                explain(policy.query) if policy.query is not None else "",
                explain(policy.write) if policy.write is not None else "",
            )
            for policy in self.policies
        )
        writer = self._parts.writer
        return Topology(
            default=self._default,
            nodes=tuple(node_info(id, node, self._owner("node", id)) for id, node in sorted(self._parts.nodes.items())),
            policies=policies,
            stores=dict(self._stores),
            synced=self._parts.synced,
            durability={} if writer is None else {store: writer.durability_of([store]) for store in self._stores},
            transports=self._owned("transport"),
            ports=self._owned("port"),
            guards=self.guards(),
        )

    def _owner(self, kind: str, name: str) -> str:
        return self._owners.get(f"{kind} {name}", "kernel")

    def _owned(self, kind: str) -> dict[str, str]:
        return {name.removeprefix(f"{kind} "): id for name, id in self._owners.items() if name.startswith(f"{kind} ")}

    def explain(self, policy: str | None = None, form: Form = "text") -> str:
        """Draw one policy, or all of them as text, each with why it cannot be selected.

        Raises:
            UnknownPolicy: There is no such policy.
        """
        if policy is not None:
            return explain(self.policies.find(policy), form)
        return "\n\n".join(
            explain(one) + (f"\n  unavailable: {reason}" if (reason := self.policies.unavailable(one.name)) else "")
            for one in self.policies
        )

    def guards(self) -> tuple[GuardInfo, ...]:
        """Every breaker and bulkhead of the available policies, as it is now."""
        now = self._parts.environment.clock()
        breakers = (breaker.info(now) for breaker in self._parts.breakers.values())
        return (*breakers, *(bulkhead.info() for bulkhead in self._parts.bulkheads.values()))

    def _who_tells(self, policy: str, idem: str) -> tuple[str, ...]:
        found = self._askable.get(policy)
        if found is None:
            self._refuse(policy, "write", ())
        if found.divided and self._parts.synced:
            reason = (
                f"under {policy!r} writes of synced stores go through the outbox; pass the WriteUnknown itself, or name "
                "a policy whose writes always ask the authority"
            )
            raise NotResolvable(idem, reason)
        if not found.nodes:
            reason = (
                f"no node to which policy {policy!r} writes can say what became of it; name the policy of the write"
            )
            raise NotResolvable(idem, reason)
        return found.nodes

    def _policy_of(self, *stores: str) -> str:
        names = {self._stores.get(store, self._default) for store in stores}
        if len(names) > 1:
            first, second = sorted(names)[:2]
            other = next(store for store in stores if self._stores[store] == second)
            raise PolicyNotAllowed(second, other, f"one write cannot run under {first!r} as well; name one policy")
        return names.pop()

    def _entered(self, context: OperationContext, policy: str) -> OperationContext:
        deadline = trio.current_effective_deadline()
        if context.policy == policy and context.deadline == deadline and context.trace_id:
            return context
        return replace(context, trace_id=context.trace_id or self._new_trace(), policy=policy, deadline=deadline)

    def _refuse(self, name: str, side: str, stores: Iterable[str]) -> NoReturn:
        for store in stores:
            self._schema.store(store)
        policy = self.policies.resolve(name)
        if (policy.query if side == "query" else policy.write) is None:
            raise UnknownPolicy(name, f"it has no {side} graph")
        for store in stores:
            reason = self._barred.get(name, _NOTHING).get(store)
            if side == "write" and reason is not None:
                raise PolicyNotAllowed(name, store, reason)
        raise AssertionError(f"policy {name!r} was available but not compiled")


def _noted(error: BaseException, trail: Trail) -> tuple[Step, ...]:
    """The trail that led to ``error``, which keeps it if it is one of ours."""
    path = tuple(trail.steps)
    if isinstance(error, AtomaError):
        note_path(error, path)
    return path


def _code(error: BaseException) -> str:
    return "CANCELLED" if isinstance(error, trio.Cancelled) else info_from(error).code
