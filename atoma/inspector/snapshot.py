"""Takes one look at a client and puts it into the inspector's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from atoma.client import Client
from atoma.contracts.mutations import Op
from atoma.contracts.outbox import WaitingWrite
from atoma.contracts.replica import InboxEntry, LostRow, RepairReport
from atoma.contracts.values import ErrorInfo
from atoma.hub import Hub
from atoma.inspector.conflicts import conflict_view, plain, shown_values
from atoma.inspector.graph import graph_view
from atoma.inspector.plugin import Inspection
from atoma.inspector.repairs import epoch_views, lost_view, repair_view
from atoma.inspector.views import (
    ClientView,
    ColumnView,
    DatabaseView,
    InspectorState,
    LaneView,
    LiveView,
    OpView,
    OutboxView,
    PolicyView,
    StoreView,
)
from atoma.ports import LiveInspection, LocalTx
from atoma.query import counted, every_row, number_of
from atoma.schema import Schema
from atoma.sync import SyncStatus
from atoma.sync.status import RepairProgress
from atoma.sync.waiting import waiting_write

Entry = TypeVar("Entry", InboxEntry, LostRow)

OUTBOX_SHOWN = 100
OUTBOX_BYTES = 4 * 1024 * 1024
INBOX_SHOWN = 50
LOST_SHOWN = 50
SUMMARY_SHOWN = 90

_TONES = {
    "online": "good",
    "live": "good",
    "connecting": "busy",
    "repairing": "busy",
    "snapshot": "busy",
    "tail": "busy",
    "new": "busy",
}


@dataclass(frozen=True, slots=True)
class Inspected:
    """A client to look at.

    Attributes:
        key: Short name for addresses.
        name: What people call it.
        client: The open client.
        eye: The plugin that was given to it.
        path: Its database file, for sizes.
    """

    key: str
    name: str
    client: Client
    eye: Inspection
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """The work that waits in a database: writes in their order; inbox entries, lost rows and past repairs, oldest first."""

    outbox: Sequence[WaitingWrite]
    inbox: Sequence[InboxEntry]
    lost: Sequence[LostRow]
    repairs: Sequence[RepairReport]


async def read_backlog(eye: Inspection, scopes: Sequence[str]) -> Backlog:
    """The outbox, the inbox, the lost rows and the repairs, read in one transaction."""

    def body(tx: LocalTx) -> Backlog:
        pending = [*tx.outbox.queued(limit=OUTBOX_SHOWN, max_bytes=OUTBOX_BYTES)]
        for scope in scopes:
            pending += tx.outbox.acked(scope)
        pending += tx.outbox.held()[:OUTBOX_SHOWN]
        pending.sort(key=lambda item: item.lsn)
        identity = tx.outbox.identity()
        return Backlog(
            [waiting_write(item, identity, tx.schema) for item in pending],
            tx.inbox.entries(),
            tx.inbox.lost(),
            tx.inbox.repairs(),
        )

    return await eye.database.inspect(body)


async def take_snapshot(target: Inspected, clients: Sequence[Inspected], hub: Hub | None = None) -> InspectorState:
    """Everything the page shows of ``target``, as of now; and the restores of ``hub``, where it is at hand."""
    status = _status(target.client)
    backlog = await read_backlog(target.eye, [scope.scope for scope in status.scopes])
    stores, commit = await _stores(target)
    now_ms = target.eye.environment.wall_ms()
    schema = target.client.schema
    return InspectorState(
        key=target.key,
        clients=[ClientView(client.key, client.name) for client in clients],
        state=status.state,
        reason=status.reason,
        database=_database(target, commit),
        stores=stores,
        live=_live(target.eye),
        policies=_policies(target.client),
        nodes=target.eye.nodes,
        trails=target.eye.trails,
        outbox=[outbox_view(item, schema, now_ms) for item in backlog.outbox[:OUTBOX_SHOWN]],
        lanes=_lanes(target.eye, status, now_ms),
        conflicts=[conflict_view(entry, schema) for entry in _newest(backlog.inbox, INBOX_SHOWN)],
        repairs=[repair_view(report) for report in reversed(backlog.repairs)],
        lost=[lost_view(row, schema) for row in _newest(backlog.lost, LOST_SHOWN)],
        epochs=None if hub is None else await epoch_views(hub),
        log=target.eye.log,
    )


def _newest(entries: Sequence[Entry], most: int) -> list[Entry]:
    """The newest of ``entries``, which are oldest first; what was decided takes no room from what is open."""
    numbers = range(len(entries))
    opened: list[int] = [at for at in numbers if not entries[at].resolution][-most:]
    closed: list[int] = [at for at in numbers if entries[at].resolution]
    shown = {*opened, *closed[max(0, len(closed) - most + len(opened)) :]}
    return [entries[at] for at in sorted(shown, reverse=True)]


def _status(client: Client) -> SyncStatus:
    """What replication is doing; of a client that does not sync, that it does not."""
    return client.sync.status if client.topology().synced else SyncStatus(state="stopped", reason="nothing replicates")


def outbox_view(item: WaitingWrite, schema: Schema, now_ms: int) -> OutboxView:
    """One write that waits, for people."""
    next_ms = max(0, item.next_attempt_ms - now_ms)
    return OutboxView(
        key=item.key,
        mid=item.mid,
        state=item.state,
        editable=item.editable,
        age_s=max(0, now_ms - item.written_ms) // 1000,
        attempts=item.attempts,
        next_s=-(-next_ms // 1000),
        last_error=item.why,
        ops=tuple(OpView(op.kind, op.store, op.id, _summary(op, schema)) for op in item.ops),
    )


def _summary(op: Op, schema: Schema) -> str:
    values = shown_values(schema, op.store, op.values)
    text = ", ".join(f"{name} = {_word(plain(value))}" for name, value in values.items()) or op.id
    return text if len(text) <= SUMMARY_SHOWN else text[: SUMMARY_SHOWN - 1] + "…"


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


async def _stores(target: Inspected) -> tuple[list[StoreView], int]:
    topology = target.client.topology()
    found: list[StoreView] = []
    commit = 0
    for spec in target.client.schema.stores.values():
        result = await target.eye.database.read(counted(every_row(spec.name)))
        commit = max(commit, result.meta.commit)
        policy = topology.stores.get(spec.name, "")
        found.append(
            StoreView(
                name=spec.name,
                rows=number_of(result),
                scope=f"field {spec.scope_field}" if spec.scope_field else spec.fixed_scope,
                conflict=spec.conflict,
                policy="" if policy == topology.default else policy,
                synced=spec.name in topology.synced,
                columns=tuple(ColumnView(item.name, item.sql_type, item.nullable) for item in spec.fields.values()),
            )
        )
    return found, commit


def _database(target: Inspected, commit: int) -> DatabaseView:
    if target.path is None:
        return DatabaseView(target.name, 0, 0, commit)
    log = target.path.with_name(f"{target.path.name}-wal")
    return DatabaseView(target.path.name, _size(target.path), _size(log), commit)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # the write-ahead log comes and goes


def _live(eye: Inspection) -> list[LiveView]:
    if not isinstance(eye.live, LiveInspection):
        return []
    return [
        LiveView(
            store=item.store,
            query=item.query,
            tier=item.tier,
            reason=item.reason,
            held=item.held,
            bytes=item.bytes,
            rows=item.rows,
            subscribers=item.subscribers,
            evaluations=item.evaluations,
            skipped=item.skipped,
            mean_us=item.mean_us,
            last_us=item.last_us,
            total_us=item.mean_us * item.evaluations,
        )
        for item in eye.live.stats()
    ]


def _policies(client: Client) -> list[PolicyView]:
    topology = client.topology()
    missing = {info.name: info.unavailable for info in topology.policies}
    found = [
        PolicyView(
            name=policy.name,
            default=policy.name == topology.default,
            missing=missing.get(policy.name, ""),
            query=None if policy.query is None else graph_view(policy.query),
            write=None if policy.write is None else graph_view(policy.write),
        )
        for policy in client.policies
    ]
    return sorted(found, key=lambda view: (not view.default, bool(view.missing), view.name))


def _lanes(eye: Inspection, status: SyncStatus, now_ms: int) -> list[LaneView]:
    facts = {"pending": str(status.pending)}
    if status.repair is not None:
        facts["repairing"] = _progress(status.repair)
    if status.principal:
        facts["signed in as"] = status.principal
    if status.attempt:
        facts["failed attempts"] = str(status.attempt)
    if status.helps:
        facts["what helps"] = status.helps
    if status.next_attempt_ms > now_ms:
        facts["next attempt in"] = f"{-(-(status.next_attempt_ms - now_ms) // 1000)} s"
    connection = LaneView(
        "Connection", status.state, _tone(status.state), facts=facts, ribbon=eye.ribbon, last_error=_said(status.error)
    )
    scopes = [
        LaneView(
            f"Scope {item.scope}",
            item.state,
            "bad" if item.error is not None else _tone(item.state),
            cursor=item.cursor,
            head=max(item.head, item.cursor),
            last_error=_said(item.error),
        )
        for item in status.scopes
    ]
    return [connection, *scopes]


def _said(error: ErrorInfo | None) -> str:
    return "" if error is None else f"{error.code}: {error.message}"


_PHASES = {
    "verdicts": "asking what became of writes",
    "snapshot": "fetching the hub's rows",
    "commit": "putting it together",
}


def _progress(repair: RepairProgress) -> str:
    of = f", {repair.done} of {repair.of}" if repair.of else f", {repair.done} so far" if repair.done else ""
    return _PHASES[repair.phase] + of


def _tone(state: str) -> str:
    return _TONES.get(state, "warn" if state == "offline" else "bad")
