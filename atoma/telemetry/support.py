"""The support bundle of an open client: what somebody who helps needs to know of it, and nothing of what is in its file.

What goes in is named here, one by one: versions, names that stand in the program, counts, states, codes, durations. Values, ids and
scopes of rows, users, messages of errors (which may quote a value), texts of queries, paths, keys and tokens are not among them. Of a
file alone ``atoma doctor FILE --bundle`` makes one.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

import msgspec

from atoma.client import Client
from atoma.codes import known_code
from atoma.contracts.extras import DISTRIBUTION
from atoma.kernel import GuardInfo
from atoma.ports import LiveInspection
from atoma.sync import SyncStatus

LIBRARIES = ("trio", "apsw", "msgspec", "reactivex", "trio-websocket", "httpcore2", "grpclib", "psycopg", "rich")
LOCAL = "direct-local"


def installed() -> dict[str, str]:
    """Versions of Atoma, Python, the system, and the libraries that are installed."""
    found = {"atoma": version(DISTRIBUTION), "python": platform.python_version(), "system": platform.platform()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class ScopeFacts(msgspec.Struct, frozen=True):
    """The progress of a scope without its name: scopes are named after users and projects.

    Attributes:
        state: See ``ScopeProgress``.
        cursor: The hub's sequence that it is at.
        head: The highest one that was heard of.
        code: The code of the error that holds it up; ``""`` when none does.
    """

    state: str
    cursor: int
    head: int
    code: str


class LiveFacts(msgspec.Struct, frozen=True):
    """The cost of a live query, without its text.

    Attributes:
        store: Its store.
        tier: How it is followed; see ``LiveStats``.
        rows: Rows in its result.
        subscribers: How many follow it.
        evaluations: How often it was carried out.
        mean_us: What that takes, in microseconds.
    """

    store: str
    tier: int
    rows: int
    subscribers: int
    evaluations: int
    mean_us: float


class StoreFacts(msgspec.Struct, frozen=True):
    """A store as the program declares it, and how many rows this device has of it.

    Attributes:
        fields: The forms of its columns, by name.
        indexes: How many indexes it has.
        scoped: Whether a field has the scope of a row.
        synced: Whether it replicates.
        policy: The policy of its calls.
        durability: What a write on it survives.
        rows: How many rows are here; None where the client keeps none.
    """

    fields: dict[str, str]
    indexes: int
    scoped: bool
    synced: bool
    policy: str
    durability: str
    rows: int | None


class StepFacts(msgspec.Struct, frozen=True):
    """A step of a request: its node, how it ended, the code of its error, which try it was, and its microseconds."""

    node: str
    outcome: str
    code: str
    attempt: int
    us: float


class TrailFacts(msgspec.Struct, frozen=True):
    """A request without what it was about: ``write`` or ``query``, its policy, how it ended, when, and the way it took."""

    kind: str
    policy: str
    status: str
    code: str
    at_ms: int
    us: float
    steps: list[StepFacts]


class SupportBundle(msgspec.Struct, frozen=True):
    """The facts of an open client.

    Attributes:
        versions: See :func:`installed`.
        schema: The version of the schema.
        default: The policy of calls that name none.
        nodes: Roles of every node, by its id.
        policies: Whether each policy can be used.
        stores: What is declared, by name.
        transports: Who has registered each transport.
        guards: Breakers and queues as they are.
        state: Of the replication.
        code: The code of its last error; ``""`` when there is none.
        attempt: Failed attempts since the last success.
        pending: Writes that the hub has not confirmed yet.
        held: Writes that somebody keeps on the device.
        inbox: Open entries of the inbox.
        scopes: Each scope, in the order of the status.
        live: What live queries cost; empty without an ``Inspection``.
        trails: The last requests, the newest first; empty without an ``Inspection``.
    """

    versions: dict[str, str]
    schema: int
    default: str
    nodes: dict[str, tuple[str, ...]]
    policies: dict[str, bool]
    stores: dict[str, StoreFacts]
    transports: dict[str, str]
    guards: tuple[GuardInfo, ...]
    state: str
    code: str
    attempt: int
    pending: int
    held: int
    inbox: int
    scopes: list[ScopeFacts]
    live: list[LiveFacts]
    trails: list[TrailFacts]

    def json(self) -> str:
        """The text to send, as people can read it before they do."""
        return msgspec.json.format(msgspec.json.encode(self)).decode() + "\n"


class WatchedStep(Protocol):
    """A step of a request, as an ``Inspection`` remembers it."""

    @property
    def node(self) -> str:
        """Its node."""
        ...

    @property
    def outcome(self) -> str:
        """How it ended."""
        ...

    @property
    def error(self) -> str:
        """The code of its error."""
        ...

    @property
    def attempt(self) -> int:
        """Which try it was."""
        ...

    @property
    def us(self) -> float:
        """Microseconds."""
        ...


class WatchedTrail(Protocol):
    """A request, as an ``Inspection`` remembers it."""

    @property
    def kind(self) -> str:
        """``write`` or ``query``."""
        ...

    @property
    def policy(self) -> str:
        """Its policy."""
        ...

    @property
    def status(self) -> str:
        """How it ended."""
        ...

    @property
    def error(self) -> str:
        """The code of its error."""
        ...

    @property
    def at_ms(self) -> int:
        """Wall-clock time of its end."""
        ...

    @property
    def us(self) -> float:
        """Microseconds."""
        ...

    @property
    def steps(self) -> Sequence[WatchedStep]:
        """The way that it took."""
        ...


class Watching(Protocol):
    """Whatever remembers the last requests of a client: :class:`atoma.inspector.Inspection`."""

    @property
    def live(self) -> object:
        """The client's live queries."""
        ...

    @property
    def trails(self) -> Sequence[WatchedTrail]:
        """The last requests, the newest first."""
        ...


async def support_bundle(client: Client, inspection: Watching | None = None) -> SupportBundle:
    """What somebody who helps needs to know of an open client, as of now.

    Args:
        client: The client.
        inspection: The plugin that was given to it, for the last requests and for what live queries cost.

    Raises:
        AtomaError: The local database cannot be read.
    """
    topology = client.topology()
    status = client.sync.status if topology.synced else SyncStatus("stopped")
    local = any(policy.name == LOCAL and not policy.unavailable for policy in topology.policies)
    counts = {
        name: await client.store(spec).count(policy=LOCAL) if local else None
        for name, spec in client.schema.stores.items()
    }
    return SupportBundle(
        versions=installed(),
        schema=client.schema.version,
        default=topology.default,
        nodes={node.id: node.roles for node in topology.nodes},
        policies={policy.name: not policy.unavailable for policy in topology.policies},
        stores=_stores(client, counts),
        transports=dict(topology.transports),
        guards=topology.guards,
        state=status.state,
        code="" if status.error is None else known_code(status.error.code),
        attempt=status.attempt,
        pending=status.pending,
        held=status.held,
        inbox=len(await client.inbox.entries()) if topology.synced else 0,
        scopes=[
            ScopeFacts(each.state, each.cursor, each.head, "" if each.error is None else known_code(each.error.code))
            for each in status.scopes
        ],
        live=[] if inspection is None else _live(inspection),
        trails=[] if inspection is None else [_trail(each) for each in inspection.trails],
    )


def _stores(client: Client, counts: Mapping[str, int | None]) -> dict[str, StoreFacts]:
    topology = client.topology()
    return {
        name: StoreFacts(
            spec.forms,
            len(spec.indexes),
            spec.scope_field is not None,
            name in topology.synced,
            topology.stores[name],
            str(topology.durability.get(name, "")),
            counts[name],
        )
        for name, spec in client.schema.stores.items()
    }


def _trail(trail: WatchedTrail) -> TrailFacts:
    steps = [_step(step) for step in trail.steps]
    return TrailFacts(trail.kind, trail.policy, trail.status, known_code(trail.error), trail.at_ms, trail.us, steps)


def _step(step: WatchedStep) -> StepFacts:
    return StepFacts(step.node, step.outcome, known_code(step.error), step.attempt, step.us)


def _live(inspection: Watching) -> list[LiveFacts]:
    if not isinstance(inspection.live, LiveInspection):
        return []
    return [
        LiveFacts(each.store, each.tier, each.rows, each.subscribers, each.evaluations, each.mean_us)
        for each in inspection.live.stats()
    ]
