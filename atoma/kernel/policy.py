"""The ready-made policies, and the registry of policy names.

| name | queries | writes |
|---|---|---|
| direct-local | local | local |
| direct-remote | remote | remote |
| local-first | local now, remote afterwards | synced: as sync-queue; else with ``volatile=True`` only: local, then remote |
| remote-first | remote, local when that failed | synced: queued, a strict one waits; else remote, or local when nothing was sent |
| remote-first-10s | as remote-first, with 10 s for the remote | as remote-first, with 10 s for the remote or the verdict |
| sync-queue | local | local and outbox in one transaction |
| hybrid | local and remote at once, merged | synced: as sync-queue; else remote, then local |
| cache-only | local | none |
| network-only | synced: local, once what the hub has now is there; else remote | none |
| cache-and-network | local now; synced: what the hub has now is fetched afterwards; else as local-first | none |
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from atoma.contracts.policy import Combinator, Policy
from atoma.errors import UnknownPolicy
from atoma.kernel.combinators import (
    atomic,
    detach,
    fallback,
    merge,
    node,
    refuse,
    sequence,
    timeout,
    verdict,
    when_synced,
)
from atoma.schema import Schema

DEFAULT = "direct-local"
"""The client's policy if it names none."""
REPLICATING = "sync-queue"
"""The policy of a store that replicates if neither the store nor the client names one."""
LOCAL_QUERY = "local-query"
LOCAL_WRITE = "local-write"
OUTBOX = "outbox"
PULL = "pull"
REMOTE_PREFIX = "remote-"
SINGLE_REMOTE = "remote"
"""Stands for the client's single remote in a ready-made policy while there is none, or more than one."""
KNOWN_REMOTES = ("http", "grpc", "websocket")
NEEDS_VOLATILE = (
    "the store does not replicate, so a write that is sent after the answer may be lost; sync the store, "
    "or register local_first(remote, name=…, volatile=True)"
)
PATIENCE_S = 10.0
"""Budget of the ready-made ``remote-first`` that has one, in seconds."""
REFRESH_S = 30.0
"""Budget for what ``local-first`` does after the answer, in seconds."""


def direct_local() -> Policy:
    """Use the local database and nothing else."""
    return Policy(DEFAULT, node(LOCAL_QUERY), node(LOCAL_WRITE))


def direct_remote(remote: str = SINGLE_REMOTE, *, name: str = "direct-remote") -> Policy:
    """Use the remote and nothing else: if it is down, the request fails.

    Args:
        remote: Id of the remote node.
        name: Name of the policy.
    """
    return Policy(name, node(remote), node(remote))


def local_first(
    remote: str = SINGLE_REMOTE, *, name: str = "local-first", volatile: bool = False, refresh_s: float = REFRESH_S
) -> Policy:
    """Answer from the local database now, and ask the remote afterwards, detached.

    Writes on a synced store go through the outbox. On another store they are shown locally and sent afterwards: a
    refusal or a failure takes them back, and so does a crash before they were sent; ``volatile=True`` is needed to allow that.

    Args:
        remote: Id of the remote node.
        name: Name of the policy.
        volatile: Allow writes on stores that do not replicate.
        refresh_s: Budget for what happens after the answer, in seconds.
    """
    afterwards = detach(timeout(node(remote), refresh_s))
    unsynced = sequence(node(LOCAL_WRITE), afterwards) if volatile else refuse(NEEDS_VOLATILE)
    return Policy(
        name,
        query=when_synced(node(LOCAL_QUERY), sequence(node(LOCAL_QUERY), afterwards)),
        write=when_synced(_queued(), unsynced),
    )


def remote_first(remote: str = SINGLE_REMOTE, *, name: str = "remote-first", seconds: float | None = None) -> Policy:
    """Ask the remote, and the local database only if that failed in a way that allows it; the trail shows which one answered.

    Writes on a synced store go through the outbox and are pushed at once. An optimistic one returns then; a strict one
    waits for the hub's verdict, without a connection as long as the caller's scope allows.

    Args:
        remote: Id of the remote node.
        name: Name of the policy.
        seconds: Budget of the remote node, and of the wait for a verdict, in seconds; None means the caller's deadline. It
            stands in the policy as a ``timeout``: a write that outlasts it is ``WriteUnknown``, and stays queued where
            it was.
    """

    def bounded(step: Combinator) -> Combinator:
        return step if seconds is None else timeout(step, seconds)

    far = bounded(node(remote))
    return Policy(
        name,
        query=fallback(far, node(LOCAL_QUERY)),
        write=when_synced(bounded(verdict(_queued())), fallback(far, node(LOCAL_WRITE))),
    )


def sync_queue() -> Policy:
    """Use the local database; every write is queued for the hub in its own transaction."""
    return Policy(REPLICATING, node(LOCAL_QUERY), _queued())


def hybrid(remote: str = SINGLE_REMOTE, *, name: str = "hybrid") -> Policy:
    """Merge local and remote rows; if the remote fails, answer with the local ones, which the trail shows.

    Args:
        remote: Id of the remote node.
        name: Name of the policy.
    """
    return Policy(
        name,
        query=merge(node(LOCAL_QUERY), node(remote), tolerant=True),
        write=when_synced(_queued(), sequence(node(remote), node(LOCAL_WRITE))),
    )


def cache_only() -> Policy:
    """Answer with what is on this device; for queries only."""
    return Policy("cache-only", node(LOCAL_QUERY), None)


def network_only(remote: str = SINGLE_REMOTE) -> Policy:
    """Answer with what the remote has now, or fail; for queries only.

    Rows of a store that replicates are fetched first and read here, with the pending mutations applied.

    Args:
        remote: Id of the remote node.
    """
    return Policy("network-only", when_synced(sequence(node(PULL), node(LOCAL_QUERY)), node(remote)), None)


def cache_and_network(remote: str = SINGLE_REMOTE, *, refresh_s: float = REFRESH_S) -> Policy:
    """Answer with what is on this device now, and fetch what the remote has after the answer; for queries only.

    Args:
        remote: Id of the remote node.
        refresh_s: Budget for what happens after the answer, in seconds.
    """

    def then(step: Combinator) -> Combinator:
        return sequence(node(LOCAL_QUERY), detach(timeout(step, refresh_s)))

    return Policy("cache-and-network", when_synced(then(node(PULL)), then(node(remote))), None)


def _queued() -> Combinator:
    return atomic(LOCAL_WRITE, OUTBOX)


def remote_of(id: str, node: object) -> bool | None:
    """Return whether a node reaches another machine: what it declares itself, else True for ``remote-…``, else None for unknown."""
    said = getattr(node, "remote", None)
    if isinstance(said, bool):
        return said
    return True if id.startswith(REMOTE_PREFIX) else None


def ready_policies(node_ids: Sequence[str] | Mapping[str, object]) -> list[Policy]:
    """Return the policies that every client has, for its nodes.

    A name without a remote of its own means the client's single remote.
    """
    remotes = [id for id in node_ids if id.startswith(REMOTE_PREFIX)]
    single = remotes[0] if len(remotes) == 1 else SINGLE_REMOTE
    names = dict.fromkeys([*KNOWN_REMOTES, *(id.removeprefix(REMOTE_PREFIX) for id in sorted(remotes))])
    return [
        direct_local(),
        direct_remote(single),
        *(direct_remote(f"{REMOTE_PREFIX}{name}", name=f"direct-{name}") for name in names if name),
        local_first(single),
        remote_first(single),
        remote_first(single, name=f"remote-first-{PATIENCE_S:g}s", seconds=PATIENCE_S),
        sync_queue(),
        hybrid(single),
        cache_only(),
        network_only(single),
        cache_and_network(single),
    ]


def policies_of_stores(schema: Schema, default: str | None, synced: Collection[str]) -> dict[str, str]:
    """Store name → policy name: the store's own, else the client's, else the one that fits what the store does.

    Args:
        schema: The declared stores.
        default: The policy that the client names; None when it names none.
        synced: Stores that replicate.
    """

    def fitting(store: str) -> str:
        return REPLICATING if store in synced else DEFAULT

    return {name: store.policy or default or fitting(name) for name, store in schema.stores.items()}


class PolicyRegistry:
    """A registry of policies by name; it executes nothing.

    Args:
        policies: Every policy, by name.
        unavailable: Name → why it cannot be selected.
    """

    __slots__ = ("_policies", "_unavailable")

    def __init__(self, policies: Mapping[str, Policy], unavailable: Mapping[str, str]) -> None:
        self._policies = dict(policies)
        self._unavailable = dict(unavailable)

    def __iter__(self) -> Iterator[Policy]:
        return iter(self._policies.values())

    @property
    def names(self) -> frozenset[str]:
        """Names of every policy, available or not."""
        return frozenset(self._policies)

    def available(self) -> list[Policy]:
        """The policies that can be selected."""
        return [policy for name, policy in self._policies.items() if name not in self._unavailable]

    def unavailable(self, name: str) -> str:
        """Return why the policy cannot be selected (``needs …``); ``""`` if it can."""
        return self._unavailable.get(name, "")

    def find(self, name: str) -> Policy:
        """Return the policy of that name, available or not.

        Raises:
            UnknownPolicy: It is not registered.
        """
        found = self._policies.get(name)
        if found is None:
            raise UnknownPolicy(name, f"it is not registered; known are: {', '.join(sorted(self._policies))}")
        return found

    def resolve(self, name: str) -> Policy:
        """Return the policy of that name, which can be selected.

        Raises:
            UnknownPolicy: It is not registered, or one of its nodes is missing.
        """
        found = self.find(name)
        if name in self._unavailable:
            raise UnknownPolicy(name, self._unavailable[name])
        return found
