"""The one local transaction that a pulled page is: cursor, base, verdicts, rebase, all or nothing."""

from __future__ import annotations

from collections.abc import Collection

from atoma.contracts.sync import PullReply, StoreChanges
from atoma.mutations import rebase_rows
from atoma.ports.local import LocalTx
from atoma.sync.page import changed_rows
from atoma.sync.settle import Settlement, confirm, settle_page


def move_cursor(tx: LocalTx, page: PullReply) -> bool:
    """Move the cursor over ``page`` if it is at its start: repeated, late and reordered pages change nothing."""
    live = tx.scopes.read(page.scope).state == "live"
    return live and tx.scopes.advance(page.scope, page.start, page.end, page.proof)


def put_changes(tx: LocalTx, scope: str, changes: StoreChanges, work: Settlement) -> None:
    """Make the images of ``changes`` the confirmed base; rows with pending operations are left to the rebase."""
    shadowed = tx.base.put_many(changes.store, scope, changed_rows(tx.schema, changes))
    work.dirty.update(dict.fromkeys((changes.store, id) for id in shadowed))


def apply_page(tx: LocalTx, page: PullReply, stores: Collection[str], verified_mid: int) -> Settlement | None:
    """Apply ``page``; None and no change when the cursor is not at its start.

    Args:
        tx: The open transaction.
        page: The page, cut between hub transactions.
        stores: Stores that replicate here; others are skipped.
        verified_mid: Last mutation of this client whose digest the hub has confirmed.
    """
    if not move_cursor(tx, page):
        return None
    work = Settlement(cursors={page.scope: page.end.seq})
    for changes in page.stores:
        if changes.store in stores:
            put_changes(tx, page.scope, changes, work)
    settle_page(tx, page, verified_mid, work)
    rebase_rows(tx, work.dirty)
    confirm(tx, work.removed)
    return work
