"""What the file is told of who uses a scope that was brought along, and how one leaves it that nobody uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atoma.contracts.replica import Portion
from atoma.contracts.shapes import SHAPES_MAX, read_call
from atoma.contracts.values import StoredRow
from atoma.errors import SyncError
from atoma.ports.local import LocalTx
from atoma.query.compiled import fulfilled
from atoma.query.shapes import Taken
from atoma.sync.inbox import open_entries
from atoma.sync.staging import Opened

WRITES_WAIT = "writes wait in its outbox"
UNDECIDED = "the inbox has something of it that nobody has decided"


class ScopeInUse(SyncError):
    """A scope that cannot be dropped: it is fixed, somebody uses it, or something waits in it. Nothing was changed.

    Attributes:
        scope: The scope.
        why: The reason why it stays.
    """

    code = "SCOPE_IN_USE"

    def __init__(self, scope: str, why: str) -> None:
        super().__init__(f"scope {scope!r} stays on this device: {why}")
        self.scope = scope
        self.why = why


@dataclass(frozen=True, slots=True)
class ScopesUsed:
    """What a program uses from now on, and what it uses no more.

    With a new part of a scope those go that are of the same shape, with other values, and that nobody uses: a window
    that moves on. Where there are still more parts of it than a hub takes, those go as well that nobody uses, the
    longest unused first.

    Attributes:
        program: The number of the program.
        used: What it uses.
        left: What it uses no more.
        kept: All that it uses, and what it was configured with.
    """

    program: int
    used: Sequence[Portion] = ()
    left: Sequence[Portion] = ()
    kept: Sequence[Portion] = ()

    def stage(self, at: Opened) -> None:
        """Note it."""
        before = at.tx.scopes.brought() if any(portion.shape for portion in self.used) else ()
        known = {each.portion for each in before}
        for portion in self.used:
            at.tx.scopes.use(portion, self.program, at.tx.now_ms)
        for portion in self.left:
            at.tx.scopes.leave(portion, self.program, at.tx.now_ms)
        moved = {_window(portion) for portion in self.used if portion.shape and portion not in known}
        for each in before:
            unused = not each.programs and each.portion not in self.kept
            if unused and each.portion.shape and _window(each.portion) in moved:
                at.tx.scopes.let_go(each.portion)
        for scope in dict.fromkeys(portion.scope for portion in self.used if portion.shape):
            self._make_room(at.tx, scope)

    def _make_room(self, tx: LocalTx, scope: str) -> None:
        """Let go of unused parts of ``scope`` until there are as many as a hub takes."""
        kept = {portion for portion in self.kept if portion.scope == scope and portion.shape}
        brought = [each for each in tx.scopes.brought() if each.scope == scope and each.portion.shape]
        others = [each for each in brought if each.portion not in kept]
        unused = sorted((each for each in others if not each.programs), key=lambda each: (each.used_ms, each.portion))
        for each in unused[: max(0, len(kept) + len(others) - SHAPES_MAX)]:
            tx.scopes.let_go(each.portion)


def _window(portion: Portion) -> tuple[str, str]:
    """What a part has in common with those that other values make of its shape."""
    return portion.scope, read_call(portion.shape).name


@dataclass(frozen=True, slots=True)
class ScopeDropped:
    """A scope leaves the device with its rows, unless somebody uses it or something waits in it.

    Where it is wanted in another way as well, as a whole or in another shape, it stays, and is wanted in these ways
    no more.

    Attributes:
        portions: In what ways it is wanted no more, all of one scope.
        used_ms: It stays if it was used later than this; None when that does not matter.
        fixed: Whether the program was configured with another part of the scope.
        taken: The rows that it takes in these ways, where it is not wanted whole besides; None for a shape that is
            not declared any more.
    """

    portions: tuple[Portion, ...]
    used_ms: int | None = None
    fixed: bool = False
    taken: tuple[Taken | None, ...] = ()

    @property
    def scope(self) -> str:
        """The scope."""
        return self.portions[0].scope

    def stage(self, at: Opened) -> str:
        """Drop it; why it stays, ``""`` when it is gone."""
        tx = at.tx
        why = self.why_it_stays(tx)
        if why:
            return why
        if self._is_last(tx):
            tx.scopes.remove(self.scope)
        for portion in self.portions:
            tx.scopes.let_go(portion)
        return ""

    def _is_last(self, tx: LocalTx) -> bool:
        others = (
            each for each in tx.scopes.brought() if each.scope == self.scope and each.portion not in self.portions
        )
        return not self.fixed and next(others, None) is None

    def why_it_stays(self, tx: LocalTx) -> str:
        """What keeps it on the device, for a person; ``""`` when nothing does."""
        for known in tx.scopes.brought():
            if known.portion not in self.portions:
                continue
            if known.programs:
                return "somebody uses it"
            if self.used_ms is not None and known.used_ms > self.used_ms:
                return "it has been used since"
        return _what_waits(tx, self.scope) if self._is_last(tx) else self._what_waits_in_parts(tx)

    def _what_waits_in_parts(self, tx: LocalTx) -> str:
        """What waits for somebody in rows that are taken in these ways, for a person; ``""`` when nothing does."""
        if any(self._takes(tx, store, id) for store, id in tx.base.shadowed(self.scope)):
            return WRITES_WAIT
        entries = (entry for entry in open_entries(tx) if entry.scope == self.scope)
        return UNDECIDED if any(self._takes(tx, entry.store, entry.id) for entry in entries) else ""

    def _takes(self, tx: LocalTx, store: str, id: str) -> bool:
        """Whether a row is taken in these ways, as the hub has it or as it is seen."""
        seen, confirmed = tx.rows.read(store, id), tx.base.read(store, id).image
        rows = [] if seen is None else [seen]
        if confirmed is not None:
            rows.append(StoredRow(id, 0, 0, self.scope, confirmed))
        return any(each is None or _is_in(each, store, rows) for each in self.taken)


def _is_in(taken: Taken, store: str, rows: Sequence[StoredRow]) -> bool:
    """Whether any of ``rows`` is one that ``taken`` takes."""
    if taken.store != store or taken.where is None:
        return taken.store == store and bool(rows)
    return any(map(fulfilled(taken.where), rows))


def _what_waits(tx: LocalTx, scope: str) -> str:
    """What waits in ``scope`` for somebody, for a person; ``""`` when nothing does."""
    if tx.outbox.waits_in(scope) or tx.base.shadowed(scope):
        return WRITES_WAIT
    if any(entry.scope == scope for entry in open_entries(tx)):
        return UNDECIDED
    if any(row.scope == scope for row in tx.inbox.lost(resolved=False)):
        return "the hub has lost rows of it, and nobody has decided about them"
    return ""
