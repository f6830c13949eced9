"""Bugs to plant: each changes one small decision of the product for the length of a run.

A checker that never finds anything may be blind. These are the mistakes that systems of this kind have been seen to
make; every one of them has to be found. The product knows nothing of this module.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec
import trio

from atoma.contracts.execution import WriteRequest
from atoma.contracts.mutations import Effect, MutationBody, Op
from atoma.contracts.sync import Cursor, Hint, PullReply, StoreChanges
from atoma.errors import ConfigurationError
from atoma.plugins import PluginContext
from atoma.ports import LocalTx
from atoma.ports.hub import Facts, Need, Plan
from atoma.ports.hub_rows import RowFact
from atoma.testing.simulation.encounters import Kind

MIRROR_DELAY_S = 0.02

Original = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Patch:
    """One function or constant to replace.

    Attributes:
        owner: ``"module"`` or ``"module:Class"``.
        name: Attribute of it.
        make: Makes the replacement from what is there.
    """

    owner: str
    name: str
    make: Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Bug:
    """A mistake.

    Attributes:
        what: In words.
        patches: What makes it.
        kind: What a run has to be about for it to matter.
        trades: Of how many calls it has to be that two rows exchange unique values.
        minds: After how many calls somebody has to change their mind about a write that was never sent.
    """

    what: str
    patches: Sequence[Patch]
    kind: Kind = "steady"
    trades: float = 0.0
    minds: float = 0.0


def _owner(path: str) -> Any:
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    return getattr(found, name) if name else found


@contextmanager
def plant(name: str) -> Generator[None]:
    """Have the bug ``name`` inside the block, none for ``""``.

    Raises:
        ConfigurationError: There is no such bug, or the product no longer has what it changes.
    """
    if name and name not in PLANTED:
        raise ConfigurationError(f"no bug is called {name!r}; there are: {', '.join(PLANTED)}")
    with ExitStack() as stack:
        for patch in PLANTED[name].patches if name else ():
            owner = _owner(patch.owner)
            if not hasattr(owner, patch.name):
                raise ConfigurationError(f"bug {name!r}: {patch.owner} has no {patch.name!r} any more")
            original = getattr(owner, patch.name)
            setattr(owner, patch.name, patch.make(original))
            stack.callback(setattr, owner, patch.name, original)
        yield


def _nothing(_original: Original) -> object:
    def nothing(*_arguments: object, **_named: object) -> None:
        pass

    return nothing


def _yes(*_arguments: object) -> bool:
    return True


def _unnoted(_original: Original) -> object:
    def stage(self: Any, at: Any) -> object:
        return self.batch(at.tx)

    return stage


def _only_the_chosen(_original: Original) -> object:
    def with_dependents(_waiting: object, chosen: Sequence[object]) -> Sequence[object]:
        return chosen

    return with_dependents


def _unchained(original: Original) -> object:
    def append_again(chain: Any, mutation: object, body: object) -> object:
        chain.tail = b""
        return original(chain, mutation, body)

    return append_again


# the outbox is fed by an event after the commit


class _Mirror:
    """Writes that have been committed, on their way to the outbox: what a crash forgets."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[tuple[Any, WriteRequest, list[Effect]]]] = {}

    def stage(self, _original: Original) -> object:
        """Remember the write in place of recording it."""

        def stage(node: Any, tx: LocalTx, request: WriteRequest) -> None:
            if tx.unit.effects:
                self.waiting.setdefault(node.database, []).append((node, request, list(tx.unit.effects)))

        return stage

    def open(self, original: Original) -> object:
        """Run the task that records what was remembered."""

        @asynccontextmanager
        async def open_plugin(plugin: Any, context: PluginContext) -> AsyncGenerator[None]:
            async with original(plugin, context):
                context.nursery.start_soon(self._run, context)
                yield

        return open_plugin

    async def _run(self, context: PluginContext) -> None:
        from atoma.ports import LOCAL_DATABASE

        database = context.require(LOCAL_DATABASE)
        key = database.database
        self.waiting.pop(key, None)  # an event does not outlive its process
        while True:
            await trio.sleep(MIRROR_DELAY_S)
            for node, request, effects in self.waiting.pop(key, []):
                await database.apply(partial(node.enqueue, request=request, effects=effects))


_mirror = _Mirror()


# cursors


def _moved_by_hint(original: Original) -> object:
    async def heed(lane: Any, hint: Hint) -> None:
        def move(tx: LocalTx) -> None:
            at = tx.scopes.read(hint.scope)
            if at.state == "live" and hint.head > at.cursor.seq:
                tx.scopes.advance(hint.scope, at.cursor, Cursor(at.cursor.epoch, hint.head, at.cursor.hash))

        await lane._replica.database.apply(move)
        await original(lane, hint)

    return heed


def _cursor_first(original: Original) -> object:
    async def commit(lane: Any, page: PullReply, **staged: bool) -> None:
        staging = importlib.import_module("atoma.sync.staging")
        move: Any = staging.move_cursor
        if await lane._replica.database.apply(partial(move, page=page)):
            setattr(staging, "move_cursor", _yes)  # noqa: B010 - it is a patch
            try:
                await original(lane, page, **staged)
            finally:
                setattr(staging, "move_cursor", move)  # noqa: B010
        else:
            await original(lane, page, **staged)

    return commit


def _row_version(_original: Original) -> object:
    def base_position(tx: LocalTx, effects: Sequence[Effect], _cursors: object) -> Cursor:
        op, epoch = effects[0].op, tx.scopes.read(effects[0].scope).cursor.epoch
        return Cursor(epoch, tx.base.read(op.store, op.id).seq)

    return base_position


# the hub


def _no_dedupe(original: Original) -> object:
    def decide(decision: Any, facts: Facts) -> Plan:
        mid, client = decision.mutation.mid, facts.client
        if client is not None and mid <= client.last_mid:
            facts = replace(facts, client=replace(client, last_mid=mid - 1, last_digest=decision.previous))
        plan: Plan = original(decision, facts)
        return plan

    return decide


def _over_an_outcome(original: Original) -> object:
    def insert(dialect: object, table: Any, conflict: str = "") -> object:
        again = "(client, mid) DO UPDATE SET status=excluded.status, seq=excluded.seq, digest=excluded.digest"
        return original(dialect, table, again if table.name == "outcome" else conflict)

    return insert


def _gaps(original: Original) -> object:
    def decide(decision: Any, facts: Facts) -> Plan:
        mid, client = decision.mutation.mid, facts.client
        if client is not None and mid > client.last_mid + 1:
            facts = replace(facts, client=replace(client, last_mid=mid - 1, last_digest=decision.previous))
        plan: Plan = original(decision, facts)
        return plan

    return decide


def _all_foreign(original: Any) -> object:
    def need(decision: Any) -> Need:
        found: Need = original.fget(decision)
        return replace(found, author=b"nobody at all")

    return property(need)


def _own_change_hides(original: Original) -> object:
    def foreign(fact: RowFact, seen: object) -> object:
        return original(replace(fact, other_seq=0), seen)

    return foreign


def _always_latest(original: Original) -> object:
    def settled(merge: Any, op: Any, name: str) -> object:
        found: object = op.values[name]
        return found

    return settled


# the client


def _no_deletes(original: Original) -> object:
    def changed_rows(schema: Any, changes: StoreChanges) -> Any:
        return original(schema, msgspec.structs.replace(changes, deletes=()))

    return changed_rows


def _half_a_tail(original: Original) -> object:
    def apply_tail_page(tx: LocalTx, page: PullReply, *rest: object) -> Any:
        return original(tx, msgspec.structs.replace(page, more=False), *rest)

    return apply_tail_page


def _not_rebased(original: Original) -> object:
    def swap(*arguments: Any) -> None:
        original(*arguments)
        arguments[-1].dirty.clear()

    return swap


def _lose_last(original: Original) -> object:
    def recover(tx: LocalTx) -> None:
        original(tx)
        queued = tx.outbox.queued(limit=1_000, max_bytes=1_000_000)
        if queued:
            tx.outbox.remove(queued[-1].lsn, None)

    return recover


def _own_changes_only(original: Original) -> object:
    def finish(tx: Any, value: object, wrote_before: int) -> object:
        done: Any = original(tx, value, wrote_before)
        return done if tx.unit.effects else msgspec.structs.replace(done, changes={})

    return finish


def _unlinked(original: Original) -> object:
    def linked(*arguments: object) -> Op:
        op: Op = original(*arguments)
        return msgspec.structs.replace(op, after_mid=0)

    return linked


def _always(_original: Original) -> object:
    return _yes


# repair


def _without_doubt(_original: Original) -> object:
    return importlib.import_module("atoma.hub.conflicts").decide


def _blind_offer(_original: Original) -> object:
    def take_offer(_offer: object, ops: Any, _facts: object, work: Any) -> tuple[object, ...]:
        for op in ops:
            work.put((op.store, op.id), None if op.kind == "delete" else op.values)
        return tuple((op.store, op.id) for op in ops)

    return take_offer


def _first_offer(original: Original) -> object:
    def take_offer(offer: object, ops: Any, facts: Facts, work: object) -> object:
        return original(offer, [op for op in ops if (op.store, op.id) not in facts.traces], facts, work)

    return take_offer


def _each_alone(_original: Original) -> object:
    def units(_tx: object, rows: Sequence[object]) -> list[list[object]]:
        return [[row] for row in rows]

    return units


def _only_the_trail(original: Original) -> object:
    def fork(place: object, lineage: Any) -> int:
        common: int = original(place, replace(lineage, ended=None))
        return common

    return fork


def _not_looked_up(_original: Original) -> object:
    def decided(*_arguments: object, **_named: object) -> None:
        return None

    return decided


def _not_capped(_original: Original) -> object:
    def capped(body: MutationBody, fork: Cursor) -> MutationBody:
        return msgspec.structs.replace(body, base_epoch=fork.epoch)

    return capped


def _as_before(_original: Original) -> object:
    def keep(self: Any, mutation: object, _work: object) -> None:
        self.held.append(mutation)

    return keep


def _given_up(_original: Original) -> object:
    def keep(self: Any, mutation: Any, _work: object) -> None:
        self._tx.outbox.remove(mutation.lsn, None)

    return keep


def _nothing_offered(_original: Original) -> object:
    def offer(*_arguments: object) -> int:
        return 0

    return offer


PLANTED: dict[str, Bug] = {
    "event-outbox": Bug(
        "the outbox is fed by an event after the commit",
        [
            Patch("atoma.sync.outbox:OutboxNode", "stage", _mirror.stage),
            Patch("atoma.sync.plugin:Sync", "open", _mirror.open),
        ],
    ),
    "ack-drops-overlay": Bug(
        "a push ack takes the mutation out of the overlay", [Patch("atoma.sync.settle", "is_covered", _always)]
    ),
    "hint-moves-cursor": Bug(
        "a hint moves the cursor", [Patch("atoma.sync.notify:NotifyLane", "heed", _moved_by_hint)]
    ),
    "no-dedupe": Bug(
        "the hub decides a repeated mutation again",
        [
            Patch("atoma.hub.pushing:PushDecision", "decide", _no_dedupe),
            Patch(
                "atoma_stores.sql.hub.effects",
                "_insert",
                _over_an_outcome,
            ),
        ],
    ),
    "cursor-before-page": Bug(
        "the cursor moves in a transaction before the page's",
        [Patch("atoma.sync.pull:PullLane", "_commit", _cursor_first)],
    ),
    "hub-accepts-gaps": Bug(
        "the hub skips missing mutations", [Patch("atoma.hub.pushing:PushDecision", "decide", _gaps)]
    ),
    "row-version-as-base": Bug(
        "the row's version is sent as what the user had seen",
        [Patch("atoma.sync.outbox", "base_position", _row_version)],
    ),
    "rebase-skipped": Bug(
        "pending operations are not replayed on a new base",
        [Patch("atoma.runtime.applying", "rebase_rows", _nothing)],
    ),
    "swap-not-rebased": Bug(
        "pending operations are not replayed on a snapshot", [Patch("atoma.sync.snapshot", "_swap", _not_rebased)]
    ),
    "half-a-tail": Bug(
        "a snapshot is swapped in before it is caught up",
        [Patch("atoma.sync.staging", "apply_tail_page", _half_a_tail)],
    ),
    "inbox-forgotten": Bug("what the hub refused is dropped", [Patch("atoma.sync.settle", "keep_refused", _nothing)]),
    "dependants-unlinked": Bug(
        "operations do not name what they build on", [Patch("atoma.sync.outbox", "_linked", _unlinked)]
    ),
    "dependants-accepted": Bug(
        "the hub takes what builds on something rejected",
        [Patch("atoma.hub.pushing:PushDecision", "_check_dependencies", _nothing)],
    ),
    "own-changes-foreign": Bug(
        "a client's own changes count as somebody else's",
        [Patch("atoma.hub.pushing:PushDecision", "need", _all_foreign)],
    ),
    "own-change-hides": Bug(
        "below the floor, a client's own last change hides somebody else's",
        [Patch("atoma.hub.conflicts", "foreign", _own_change_hides)],
    ),
    "server-wins-lost": Bug(
        "what arrives last wins under server_wins too",
        [Patch("atoma.hub.conflicts:_Merge", "_settled", _always_latest)],
    ),
    "floor-ignored": Bug(
        "the hub continues cursors whose log is gone", [Patch("atoma.hub.service", "check_cursor", _nothing)]
    ),
    "restart-loses-tail": Bug(
        "opening a file takes back the last write",
        [Patch("atoma_stores.sqlite.engine", "roll_back_volatile", _lose_last)],
    ),
    "handles-forgotten": Bug(
        "the handle of a write never gets its verdict",
        [Patch("atoma_stores.sqlite._receipts:Receipts", "settle", _nothing)],
    ),
    "live-misses-pages": Bug(
        "live queries are not notified of what a page has changed",
        [Patch("atoma_stores.sqlite._units:EngineTx", "finish", _own_changes_only)],
    ),
    "doubt-ignored": Bug(
        "what may have been decided is decided like anything else",
        [Patch("atoma.hub.pushing", "decide_doubtful", _without_doubt)],
        "restored",
    ),
    "blind-offers": Bug(
        "an offer is taken whatever was written since",
        [Patch("atoma.hub.pushing", "take_offer", _blind_offer)],
        "restored",
    ),
    "first-offer-wins": Bug(
        "the first device to come back is believed", [Patch("atoma.hub.pushing", "take_offer", _first_offer)], "calm"
    ),
    "trades-offered-alone": Bug(
        "rows that have exchanged unique values are offered one by one",
        [Patch("atoma.sync.repair.offers", "units", _each_alone)],
        "calm",
        trades=0.4,
    ),
    "sent-not-noted": Bug(
        "what is about to be sent is not noted, and may still be discarded",
        [Patch("atoma.sync.push:Sending", "stage", _unnoted)],
        minds=0.4,
    ),
    "dependants-not-held": Bug(
        "what builds on a held or discarded write is left where it is",
        [Patch("atoma.sync.unsent:_Waiting", "with_dependents", _only_the_chosen)],
        minds=0.4,
    ),
    "ranks-not-chained": Bug(
        "digests behind a discarded write are left as they were",
        [Patch("atoma.sync.outbox:Chain", "append_again", _unchained)],
        minds=0.4,
    ),
    "trail-only": Bug(
        "where an epoch ended is not looked up", [Patch("atoma.hub.service", "fork", _only_the_trail)], "calm"
    ),
    "lost-rows-dropped": Bug(
        "a repair neither offers nor keeps what the hub has lost",
        [Patch("atoma.sync.repair.rebirth", "_offer", _nothing_offered)],
        "restored",
    ),
    "repair-untold": Bug(
        "a repair leaves no report", [Patch("atoma_stores.sqlite._inbox:Inbox", "note_repair", _nothing)], "restored"
    ),
    "origins-ignored": Bug(
        "a mutation is not looked up under its first name",
        [Patch("atoma_stores.sql.hub.state:State", "_named", _not_looked_up)],
        "restored",
    ),
    "base-not-capped": Bug(
        "what was seen of a lost history counts in this one",
        [Patch("atoma.sync.repair.rebirth", "capped", _not_capped)],
        "restored",
    ),
    "held-not-restated": Bug(
        "a repair leaves what is held in terms of the old numbers and of the lost history",
        [Patch("atoma.sync.repair.rebirth:_Numbering", "keep", _as_before)],
        "restored",
        minds=0.4,
    ),
    "held-given-up": Bug(
        "a repair gives up what is held",
        [Patch("atoma.sync.repair.rebirth:_Numbering", "keep", _given_up)],
        "restored",
        minds=0.4,
    ),
    "deletes-ignored": Bug(
        "deletions in pages are passed over",
        [Patch(f"atoma.sync.{module}", "changed_rows", _no_deletes) for module in ("page", "snapshot")],
    ),
}
"""The bugs by name."""
