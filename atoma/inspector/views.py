"""What the inspector's page gets, as JSON: one struct per thing that is on it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from atoma.contracts.outbox import WaitingState


class StepView(msgspec.Struct, frozen=True):
    """One step of a trail; ``us`` is its duration in microseconds, ``budget_s`` None without a deadline."""

    node: str
    outcome: str
    us: float
    attempt: int
    error: str
    note: str
    budget_s: float | None


class TrailView(msgspec.Struct, frozen=True):
    """One request and the way it took; ``kind`` is ``write`` or ``query``, ``us`` its duration in microseconds."""

    trace: str
    kind: str
    title: str
    policy: str
    status: str
    error: str
    at_ms: int
    us: float
    steps: tuple[StepView, ...]


class NodeView(msgspec.Struct, frozen=True):
    """The work of a node so far."""

    runs: int
    mean_us: float
    last: str


class GraphView(msgspec.Struct, frozen=True):
    """One element of a policy graph; ``edge`` names the way that leads to it where there is a choice."""

    kind: str
    label: str
    nodes: tuple[str, ...] = ()
    children: tuple[GraphView, ...] = ()
    edge: str = ""


class PolicyView(msgspec.Struct, frozen=True):
    """One policy; ``missing`` says why it cannot be selected."""

    name: str
    default: bool
    missing: str
    query: GraphView | None
    write: GraphView | None


class ColumnView(msgspec.Struct, frozen=True):
    """One column of a store."""

    name: str
    type: str
    nullable: bool


class StoreView(msgspec.Struct, frozen=True):
    """One store; ``policy`` is empty where the client's default holds."""

    name: str
    rows: int
    scope: str
    conflict: str
    policy: str
    synced: bool
    columns: tuple[ColumnView, ...]


class LiveView(msgspec.Struct, frozen=True):
    """One live query, how it is followed, and what it has cost: microseconds, and rows and bytes in memory."""

    store: str
    query: str
    tier: int
    reason: str
    held: int
    bytes: int
    rows: int
    subscribers: int
    evaluations: int
    skipped: int
    mean_us: float
    last_us: float
    total_us: float


class OpView(msgspec.Struct, frozen=True):
    """One row operation of a mutation."""

    kind: str
    store: str
    id: str
    summary: str


class OutboxView(msgspec.Struct, frozen=True):
    """One write that the hub has not confirmed yet; ``next_s`` is 0 when nothing is planned, ``editable`` before it is sent."""

    key: str
    mid: int
    state: WaitingState
    editable: bool
    age_s: int
    attempts: int
    next_s: int
    last_error: str
    ops: tuple[OpView, ...]


class RibbonPart(msgspec.Struct, frozen=True):
    """The length of time for which a state lasted."""

    state: str
    seconds: int


class LaneView(msgspec.Struct, frozen=True):
    """The connection, or one scope; ``head`` is 0 where there is no position."""

    name: str
    state: str
    tone: str
    cursor: int = 0
    head: int = 0
    facts: dict[str, str] = {}
    ribbon: tuple[RibbonPart, ...] = ()
    last_error: str = ""


class FieldView(msgspec.Struct, frozen=True):
    """One field of a conflict; ``differs`` when mine and theirs are not the same, ``kept`` when mine can be written again."""

    name: str
    base: object
    mine: object
    theirs: object
    differs: bool
    kept: bool = False


class ConflictView(msgspec.Struct, frozen=True):
    """One entry of the conflict inbox; ``number`` names it, ``resolution`` is empty while it is open."""

    mid: int
    number: int
    store: str
    id: str
    title: str
    code: str
    message: str
    at_ms: int
    deleted_here: bool
    resolution: str
    fields: tuple[FieldView, ...]


class RepairView(msgspec.Struct, frozen=True):
    """A repair of the file: from which client id to which, and behind which sequence of each scope the hub had lost something."""

    cause: str
    title: str
    why: str
    at_ms: int
    forks: dict[str, str]
    numbers: dict[str, int]
    old: str
    new: str


class LostView(msgspec.Struct, frozen=True):
    """A row that the hub has lost, as the device had it and as the hub has it; ``resolution`` is empty while it is open."""

    number: int
    store: str
    id: str
    reason: str
    at_ms: int
    deleted_here: bool
    gone_there: bool
    resolution: str
    fields: tuple[FieldView, ...]


class AbsentView(msgspec.Struct, frozen=True):
    """A device that has not called since an epoch ended."""

    client: str
    principal: str
    seen_ms: int


class EpochView(msgspec.Struct, frozen=True):
    """An epoch of the hub that has ended, and how many devices have not called since.

    What becomes of deletions is None where devices bring nothing back.
    """

    epoch: str
    ended_ms: int
    devices: str
    deletions: str | None
    absent: int
    awaited: tuple[AbsentView, ...]


class LogLine(msgspec.Struct, frozen=True):
    """Something that happened."""

    at_ms: int
    kind: str
    tone: str
    text: str


class DatabaseView(msgspec.Struct, frozen=True):
    """The file; sizes in bytes."""

    name: str
    bytes: int
    wal_bytes: int
    commit: int


class ClientView(msgspec.Struct, frozen=True):
    """One client that can be looked at."""

    key: str
    name: str


class InspectorState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the page shows of one client; ``epochs`` is None where the hub is not at hand."""

    key: str
    clients: Sequence[ClientView]
    state: str
    reason: str
    database: DatabaseView
    stores: Sequence[StoreView]
    live: Sequence[LiveView]
    policies: Sequence[PolicyView]
    nodes: dict[str, NodeView]
    trails: Sequence[TrailView]
    outbox: Sequence[OutboxView]
    lanes: Sequence[LaneView]
    conflicts: Sequence[ConflictView]
    repairs: Sequence[RepairView]
    lost: Sequence[LostView]
    epochs: Sequence[EpochView] | None
    log: Sequence[LogLine]


class RowsView(msgspec.Struct, frozen=True):
    """A page of the rows of a store; ``after`` is the id that the next page begins behind, empty where there is none."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    after: str


class PlanView(msgspec.Struct, frozen=True):
    """The ways in which the sources of a live query are read, and which index is missing."""

    sources: tuple[str, ...]
    warnings: tuple[str, ...]


class SqlView(msgspec.Struct, frozen=True):
    """The answer to a statement.

    It has the first rows and whether there are ``more``, the time it took in microseconds, how each source was read, and how the
    statement would be followed.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    more: bool
    us: float
    sources: tuple[str, ...]
    live: str
