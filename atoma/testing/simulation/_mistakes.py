"""What planted bugs put in the place of the product's functions; which of them make a bug, and what it is, says ``PLANTED``."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import trio

from atoma.contracts.execution import WriteRequest
from atoma.contracts.mutations import Effect, MutationBody, Op
from atoma.contracts.sync import Cursor, Hint, PullReply, StoreChanges
from atoma.plugins import PluginContext
from atoma.ports import LocalTx
from atoma.ports.hub import Facts, Need, WritePlan
from atoma.ports.hub_rows import RowFact

MIRROR_DELAY_S = 0.02

Original = Callable[..., Any]


def nothing(_original: Original) -> object:
    def nothing(*_arguments: object, **_named: object) -> None:
        pass

    return nothing


def yes(*_arguments: object) -> bool:
    return True


def unnoted(_original: Original) -> object:
    def stage(self: Any, at: Any) -> object:
        return self.batch(at.tx)

    return stage


def only_the_chosen(_original: Original) -> object:
    def with_dependents(_waiting: object, chosen: Sequence[object]) -> Sequence[object]:
        return chosen

    return with_dependents


def unchained(original: Original) -> object:
    def append_again(chain: Any, mutation: object, body: object) -> object:
        chain.tail = b""
        return original(chain, mutation, body)

    return append_again


# the outbox is fed by an event after the commit


class Mirror:
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


mirror = Mirror()


# cursors


def moved_by_hint(original: Original) -> object:
    async def heed(lane: Any, hint: Hint) -> None:
        def move(tx: LocalTx) -> None:
            at = tx.scopes.read(hint.scope)
            if at.state == "live" and hint.head > at.cursor.seq:
                tx.scopes.advance(hint.scope, at.cursor, Cursor(at.cursor.epoch, hint.head, at.cursor.hash))

        await lane._replica.database.apply(move)
        await original(lane, hint)

    return heed


def cursor_first(original: Original) -> object:
    async def commit(lane: Any, page: PullReply, **staged: bool) -> None:
        staging = importlib.import_module("atoma.sync.staging")
        move: Any = staging.move_cursor
        if await lane._replica.database.apply(partial(move, page=page)):
            setattr(staging, "move_cursor", yes)  # noqa: B010 - it is a patch
            try:
                await original(lane, page, **staged)
            finally:
                setattr(staging, "move_cursor", move)  # noqa: B010
        else:
            await original(lane, page, **staged)

    return commit


def row_version(_original: Original) -> object:
    def base_position(tx: LocalTx, effects: Sequence[Effect], _cursors: object) -> Cursor:
        op, epoch = effects[0].op, tx.scopes.read(effects[0].scope).cursor.epoch
        return Cursor(epoch, tx.base.read(op.store, op.id).seq)

    return base_position


# the hub


def _as_if_next(original: Original, when: Callable[[int, int], bool]) -> object:
    """A mutation is decided as if it were the next one, ``when`` its number and the last one decided say so."""

    def decide(decision: Any, facts: Facts) -> WritePlan:
        mid, client = decision.mutation.mid, facts.client
        if client is not None and when(mid, client.last_mid):
            before = msgspec.structs.replace(client, last_mid=mid - 1, last_digest=decision.previous)
            facts = msgspec.structs.replace(facts, client=before)
        plan: WritePlan = original(decision, facts)
        return plan

    return decide


def no_dedupe(original: Original) -> object:
    return _as_if_next(original, lambda mid, last: mid <= last)


def over_an_outcome(original: Original) -> object:
    def insert(dialect: object, table: Any, conflict: str = "") -> object:
        again = "(client, mid) DO UPDATE SET status=excluded.status, seq=excluded.seq, digest=excluded.digest"
        return original(dialect, table, again if table.name == "outcome" else conflict)

    return insert


def gaps(original: Original) -> object:
    return _as_if_next(original, lambda mid, last: mid > last + 1)


def all_foreign(original: Any) -> object:
    def need(decision: Any) -> Need:
        found: Need = original.fget(decision)
        return msgspec.structs.replace(found, author=b"nobody at all")

    return property(need)


def own_change_hides(original: Original) -> object:
    def foreign(fact: RowFact, seen: object) -> object:
        return original(msgspec.structs.replace(fact, other_seq=0), seen)

    return foreign


def always_latest(original: Original) -> object:
    def settled(merge: Any, op: Any, name: str) -> object:
        found: object = op.values[name]
        return found

    return settled


# the client


def no_deletes(original: Original) -> object:
    def changed_rows(schema: Any, changes: StoreChanges) -> Any:
        return original(schema, msgspec.structs.replace(changes, deletes=()))

    return changed_rows


def wherever_it_is(_original: Original) -> object:
    def move_cursor(tx: Any, page: PullReply) -> bool:
        at = tx.scopes.read(page.scope)
        if at.state == "live":
            tx.scopes._replace(msgspec.structs.replace(at, cursor=page.end, proof=page.proof))
        return bool(at.state == "live")

    return move_cursor


def and_the_one_before(original: Original) -> object:
    last: dict[Any, PullReply] = {}

    async def take(lane: Any, cursor: Cursor, page: PullReply, *, staged: bool = False) -> bool:
        done: bool = await original(lane, cursor, page, staged=staged)
        before = last.get(lane)
        last[lane] = page
        if not staged and before is not None and before.end.seq < page.end.seq:
            await lane._commit(before)
        return done

    return take


def with_a_mutation(original: Original) -> object:
    def swap(tx: LocalTx, *rest: object) -> None:
        original(tx, *rest)
        for mutation in tx.outbox.queued(limit=1, max_bytes=1_000_000):
            tx.outbox.remove({mutation.lsn: None})

    return swap


def added_twice(original: Original) -> object:
    def replay(op: Op, image: Any) -> object:
        once = original(op, image)
        return original(msgspec.structs.replace(op, values={}), once) if op.edits else once

    return replay


def none_brought(_original: Original) -> object:
    def brought(*_arguments: object) -> Sequence[object]:
        return ()

    return brought


def no(*_arguments: object) -> bool:
    return False


def never(_original: Original) -> object:
    return no


def half_a_tail(original: Original) -> object:
    def apply_tail_page(tx: LocalTx, page: PullReply, *rest: object) -> Any:
        return original(tx, msgspec.structs.replace(page, more=False), *rest)

    return apply_tail_page


def not_rebased(original: Original) -> object:
    def swap(*arguments: Any) -> None:
        original(*arguments)
        arguments[-1].dirty.clear()

    return swap


def lose_last(original: Original) -> object:
    def recover(tx: LocalTx) -> None:
        original(tx)
        queued = tx.outbox.queued(limit=1_000, max_bytes=1_000_000)
        if queued:
            tx.outbox.remove({queued[-1].lsn: None})

    return recover


def own_changes_only(original: Original) -> object:
    def finish(tx: Any, value: object, wrote_before: int) -> object:
        done: Any = original(tx, value, wrote_before)
        return done if tx.unit.effects else msgspec.structs.replace(done, changes={})

    return finish


def unlinked(original: Original) -> object:
    def linked(*arguments: object) -> Op:
        op: Op = original(*arguments)
        return msgspec.structs.replace(op, after_mid=0)

    return linked


def always(_original: Original) -> object:
    return yes


# repair


def without_doubt(_original: Original) -> object:
    return importlib.import_module("atoma.hub.conflicts").decide


def blind_offer(_original: Original) -> object:
    def take_offer(_offer: object, ops: Any, _facts: object, work: Any) -> tuple[object, ...]:
        for op in ops:
            work.put((op.store, op.id), None if op.kind == "delete" else op.values)
        return tuple((op.store, op.id) for op in ops)

    return take_offer


def first_offer(original: Original) -> object:
    def take_offer(offer: object, ops: Any, facts: Facts, work: object) -> object:
        return original(offer, [op for op in ops if (op.store, op.id) not in facts.traces], facts, work)

    return take_offer


def each_alone(_original: Original) -> object:
    def units(_tx: object, rows: Sequence[object]) -> list[list[object]]:
        return [[row] for row in rows]

    return units


def only_the_trail(original: Original) -> object:
    def fork(place: object, lineage: Any, witness: object) -> int:
        common: int = original(place, replace(lineage, ended=None), witness)
        return common

    return fork


def not_looked_up(_original: Original) -> object:
    def decided(*_arguments: object, **_named: object) -> None:
        return None

    return decided


def not_capped(_original: Original) -> object:
    def capped(body: MutationBody, fork: Cursor) -> MutationBody:
        return msgspec.structs.replace(body, base_epoch=fork.epoch)

    return capped


def as_before(_original: Original) -> object:
    def keep(self: Any, mutation: object, _work: object) -> None:
        self.held.append(mutation)

    return keep


def given_up(_original: Original) -> object:
    def keep(self: Any, mutation: Any, _work: object) -> None:
        self._tx.outbox.remove({mutation.lsn: None})

    return keep


def never_full(original: Original) -> object:
    def begin(writer: Any, _full: bool, *rest: object) -> object:
        return original(writer, False, *rest)

    return begin


def unmarked(_original: Original) -> object:
    def marked(_view: bytes) -> bytes:
        return b""

    return marked


def nothing_offered(_original: Original) -> object:
    def offer(*_arguments: object) -> int:
        return 0

    return offer


def as_if_proved(original: Original) -> object:
    def why_not(status: object, proof: bytes, policy: str) -> object:
        return original(status, proof or b"taken on trust", policy)

    return why_not


def leaving_untold(original: Original) -> object:
    def seen(last: Any, *rest: object) -> dict[Any, Any]:
        shown: dict[Any, Any] = original(last, *rest)
        return {key: told for key, told in shown.items() if told[1] is not None or last[key][1] is None}

    return seen
