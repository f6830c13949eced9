"""What the file is told of who uses a scope that was brought along, and how one leaves it that nobody uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atoma.errors import SyncError
from atoma.ports.local import LocalTx
from atoma.sync.inbox import open_entries
from atoma.sync.staging import Opened


class ScopeInUse(SyncError):
    """A scope cannot be dropped: it is fixed, somebody uses it, or something waits in it; nothing was changed.

    Attributes:
        scope: The scope.
        why: What keeps it.
    """

    code = "SCOPE_IN_USE"

    def __init__(self, scope: str, why: str) -> None:
        super().__init__(f"scope {scope!r} stays on this device: {why}")
        self.scope = scope
        self.why = why


@dataclass(frozen=True, slots=True)
class ScopesUsed:
    """Scopes that a program uses from now on, and others that it uses no more."""

    program: int
    used: Sequence[str] = ()
    left: Sequence[str] = ()

    def stage(self, at: Opened) -> None:
        """Note it."""
        for scope in self.used:
            at.tx.scopes.use(scope, self.program, at.tx.now_ms)
        for scope in self.left:
            at.tx.scopes.leave(scope, self.program, at.tx.now_ms)


@dataclass(frozen=True, slots=True)
class ScopeDropped:
    """A scope leaves the device with its rows, unless somebody uses it or something waits in it.

    Attributes:
        scope: The scope.
        used_ms: It stays if it was used later than this; None when that does not matter.
    """

    scope: str
    used_ms: int | None = None

    def stage(self, at: Opened) -> str:
        """Drop it; why it stays, ``""`` when it is gone."""
        tx = at.tx
        why = why_it_stays(tx, self.scope, self.used_ms)
        if not why:
            tx.scopes.remove(self.scope)
        return why


def why_it_stays(tx: LocalTx, scope: str, used_ms: int | None) -> str:
    """What keeps ``scope`` on the device, for a person; ``""`` when nothing does. See :class:`ScopeDropped`."""
    known = next((each for each in tx.scopes.brought() if each.scope == scope), None)
    if known is not None and known.programs:
        return "somebody uses it"
    if known is not None and used_ms is not None and known.used_ms > used_ms:
        return "it has been used since"
    if tx.outbox.waits_in(scope) or tx.base.shadowed(scope):
        return "writes wait in its outbox"
    if any(entry.scope == scope for entry in open_entries(tx)):
        return "the inbox has something of it that nobody has decided"
    if any(row.scope == scope for row in tx.inbox.lost(resolved=False)):
        return "the hub has lost rows of it, and nobody has decided about them"
    return ""
