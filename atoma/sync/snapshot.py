"""First sync and re-sync: pages staged beside the visible rows, caught up, and swapped in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import msgspec

from atoma.contracts.mutations import PendingMutation
from atoma.contracts.replica import StagedRow, Subscription
from atoma.contracts.sync import Outcome, PullReply, SnapshotReply, StoreChanges
from atoma.ports.local import LocalTx
from atoma.schema.schema import Schema
from atoma.sync.page import changed_rows
from atoma.sync.settle import Settlement, confirm, settle_page


def begin_snapshot(tx: LocalTx, scope: str) -> None:
    """Start over with an empty stage; the visible rows, the cursor and the outbox stay as they are."""
    tx.scopes.clear_stage(scope)
    subscription = tx.scopes.read(scope)
    tx.scopes.save(msgspec.structs.replace(subscription, state="snapshot", stage_cursor=None, token=b""))


def forget_snapshot(tx: LocalTx, before: Subscription) -> None:
    """Let the scope be as it was before a snapshot of it was begun, unless its cursor has moved since."""
    if tx.scopes.read(before.scope).cursor == before.cursor:
        tx.scopes.clear_stage(before.scope)
        tx.scopes.save(before)


def begin_live(tx: LocalTx, scope: str) -> None:
    """Follow the log from its beginning: the hub has nothing in this scope yet."""
    tx.scopes.save(msgspec.structs.replace(tx.scopes.read(scope), state="live"))


def stage_snapshot_page(tx: LocalTx, token: bytes, page: SnapshotReply, stores: Collection[str]) -> bool:
    """Stage a page asked for with ``token`` and save where the next one continues, in one transaction.

    False and no change when the stage has moved on since. A page with another start than the pages before it (the
    hub began anew) restarts the stage.
    """
    subscription = tx.scopes.read(page.scope)
    if subscription.state != "snapshot" or subscription.token != token:
        return False
    if subscription.stage_cursor not in (None, page.start):
        begin_snapshot(tx, page.scope)
        return True
    stage_changes(tx, page, stores)
    tx.scopes.save(
        msgspec.structs.replace(
            subscription,
            state="tail" if page.done else "snapshot",
            stage_cursor=page.start,
            token=b"" if page.done else page.token,
        )
    )
    return True


def stage_changes(tx: LocalTx, page: SnapshotReply | PullReply, stores: Collection[str]) -> None:
    """Add what a page holds to the stage; stores that do not replicate here are passed over."""
    for changes in page.stores:
        if changes.store in stores:
            tx.scopes.stage(page.scope, _staged(tx.schema, changes))


def apply_tail_page(
    tx: LocalTx,
    page: PullReply,
    stores: Collection[str],
    decided: Iterable[tuple[PendingMutation, Outcome]],
    verified_mid: int,
    work: Settlement,
) -> Settlement | None:
    """Catch the staged snapshot up by a page of the log; with the last page, swap it in.

    None when the stage is not at the page's start. Until the swap nothing visible changes; the swap replaces the base,
    settles, sets the cursor and has every row with pending operations rebuilt, all in this transaction.
    """
    subscription = tx.scopes.read(page.scope)
    if subscription.state != "tail" or subscription.stage_cursor != page.start:
        return None
    stage_changes(tx, page, stores)
    if page.more:
        tx.scopes.save(msgspec.structs.replace(subscription, stage_cursor=page.end))
        return work
    _swap(tx, page, decided, verified_mid, work)
    return work


def _swap(
    tx: LocalTx,
    page: PullReply,
    decided: Iterable[tuple[PendingMutation, Outcome]],
    verified_mid: int,
    work: Settlement,
) -> None:
    scope = page.scope
    tx.scopes.swap(scope)
    tx.scopes.save(swapped(tx.scopes.read(scope), page))
    work.cursors[scope] = page.end.seq
    work.dirty.update(dict.fromkeys(tx.base.shadowed(scope)))
    settle_page(tx, page, decided, verified_mid, work)
    confirm(tx, work.removed)


def swapped(subscription: Subscription, page: PullReply) -> Subscription:
    """The subscription once the stage is swapped in, behind ``page``, the last one."""
    return msgspec.structs.replace(
        subscription,
        state="live",
        cursor=page.end,
        stage_cursor=None,
        token=b"",
        head=page.head,
        proof=page.proof,
    )


def _staged(schema: Schema, changes: StoreChanges) -> Iterator[StagedRow]:
    for id, image, seq in changed_rows(schema, changes):
        yield StagedRow(changes.store, id, seq, image)
