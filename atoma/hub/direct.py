"""Direct writes: decided at once, kept under their key, and logged like pushed ones so that every client sees them.

The version of a row at the hub is its sequence, with the epoch it is a number of: ``base_version`` and ``reads`` are compared
with it, and results carry it. The same key gets the stored answer again, whatever happened to the rows since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
from msgspec.structs import replace

from atoma.contracts.codec import decode, encode
from atoma.contracts.execution import (
    ExecutionMeta,
    Step,
    WriteItemResult,
    WriteRequest,
    WriteResult,
    item_key,
    restated,
    status_of,
)
from atoma.contracts.failures import refusal
from atoma.contracts.mutations import Op
from atoma.contracts.values import ErrorInfo, RowImage, RowKey, StoredRow, as_image, is_gone
from atoma.contracts.versions import Versions
from atoma.errors import RemoteError, ValidationError
from atoma.hub.admission import Refusal, check_new_id, check_op, check_scope, check_store, whole
from atoma.hub.ids import NotLooked, check_drawn, draw_id
from atoma.hub.keys import check_age, check_key, check_unspent
from atoma.hub.lineage import next_transaction
from atoma.hub.pushing import DecisionContext
from atoma.hub.rules import PrincipalView
from atoma.hub.setting import Stamps
from atoma.hub.versions import Sees
from atoma.hub.workspace import Workspace
from atoma.mutations import decide, moved_read, too_many_texts
from atoma.ports.hub import Decision, Facts, Need, WritePlan
from atoma.ports.hub_rows import DIRECT
from atoma.ports.service import Principal
from atoma.schema.kinds import is_unicode
from atoma.schema.schema import Schema
from atoma.schema.spec import StoreSpec


class _KeptItem(msgspec.Struct, frozen=True, array_like=True):
    id: str
    ok: bool
    changed: bool
    version: int
    row: dict[str, object] | None
    error: ErrorInfo | None
    store: str = ""  # an older version did not keep it
    schema_version: int = 1


ABANDONED = encode("abandoned")
"""Stored in place of an answer: the write with this key was not applied, and never will be."""


def read_answer(answer: bytes, schema: Schema, sees: Sees) -> list[WriteItemResult]:
    """The results in a stored answer, without a row that nobody can unpack any more, or that whoever asks does not see now."""
    kept = decode(answer, tuple[_KeptItem, ...])
    return [restated(item, WriteItemResult, row=_kept_row(item, schema, sees)) for item in kept]


def _kept_row(kept: _KeptItem, schema: Schema, sees: Sees) -> RowImage | None:
    if kept.row is None:
        return None
    row = as_image(kept.row)
    if not kept.store and not schema.packs and not schema.steps:
        return row if sees("", "", kept.id, row) else None
    store, past = schema.stores.get(kept.store), schema.past(kept.schema_version).get(kept.store)
    if store is None:
        return None
    try:
        row = store.unpack(row) if past is None else past.upgrade(past.unpack(row))
        return row if sees(store.scope_of(row), store.name, kept.id, row) else None
    except (ValidationError, KeyError):
        return None


def join_answers(answers: Sequence[bytes]) -> bytes:
    """Stored answers as one."""
    return encode([item for answer in answers for item in decode(answer, tuple[_KeptItem, ...])])


def refuse_abandoned(entries: Sequence[Op]) -> bytes:
    """The answer to a late copy of a write whose key was resolved before the write came; it is not kept."""
    error = refusal(
        "ABANDONED", "not written: before this write arrived, its key was resolved, and so it is never applied"
    )
    return encode([_KeptItem(entry.id, False, False, 0, None, error) for entry in entries])


def pack_answer(items: Sequence[WriteItemResult], entries: Sequence[Op], schema: Schema) -> bytes:
    """``items``, which are about ``entries``, as they are stored."""
    kept: list[_KeptItem] = []
    for item, entry in zip(items, entries, strict=True):
        row: dict[str, object] | None = None if item.row is None else {**schema.store(entry.store).pack(item.row)}
        kept.append(restated(item, _KeptItem, row=row, store=entry.store, schema_version=schema.version))
    return encode(kept)


@dataclass(frozen=True, slots=True)
class WriteDecision:
    """One mutation of a direct write: a single entry, or all of an atomic unit.

    Attributes:
        entries: The entries.
        scope: The scope they touch, ``""`` when ``refused`` says why there is none.
        key: Idempotency key.
        view: What the principal sees of rows; one for all decisions of a write, since it is made of rules.
        reads: Rows whose version the unit depends on.
        refused: What is wrong with the unit, found before the data was looked at.
    """

    context: DecisionContext
    principal: Principal
    entries: tuple[Op, ...]
    scope: str
    key: str
    view: PrincipalView
    reads: tuple[tuple[str, str, int | None], ...] = ()
    refused: Refusal | None = None

    @property
    def need(self) -> Need:
        """The rows, and the answer if the key was used before."""
        answer = (self.principal.subject, self.key)
        if self.refused is not None:
            return Need(answer=answer)
        rows: dict[RowKey, None] = {(entry.store, entry.id): None for entry in self.entries if not entry.awaits_id}
        rows.update({(store, id): None for store, id, _ in self.reads})
        return Need(
            scope=self.scope,
            rows=tuple(rows),
            author=DIRECT,
            answer=answer,
            versions=True,
            counters=self.context.hub_fields.counts,
            size=sum(map(_size_of, self.entries)),
        )

    def decide(self, facts: Facts) -> WritePlan:
        """All entries or none.

        Raises:
            RemoteError: ``KEY_EXPIRED``: it may be a late copy of a write whose answer is forgotten.
        """
        if facts.answer == ABANDONED:
            return WritePlan(reply=refuse_abandoned(self.entries))
        if facts.answer is not None:
            return WritePlan(reply=facts.answer)
        check_age(self.key, facts)
        made: list[Op] = []
        work = Workspace(facts.rows, self.context.schema.stores, self.view)
        stamps = self.context.hub_fields.stamps(facts, self.principal)
        try:
            self._check(facts)
            self._make(made, work, stamps, facts)
            work.set_fields(stamps)
            changes = work.changes(self.context.limits)
        except NotLooked as more:
            return WritePlan(wants=more.rows)
        except Refusal as refused:
            at = len(made) % len(self.entries)  # what is wrong behind the last one is wrong with all of them
            answer = pack_answer(self._refused(at, refused), self.entries, self.context.schema)
            return WritePlan(answer=answer, reply=answer)
        transaction = None
        if changes:
            transaction = next_transaction(
                facts.scope,
                changes,
                author=DIRECT,
                mid=0,
                principal=self.principal.subject,
                written_ms=facts.now_ms,
            )
        changed = {(change.store, change.id) for change in changes}
        items: list[WriteItemResult] = []
        for op in made:
            key = (op.store, op.id)
            image = work.image(key)
            moved = key in changed
            seq = 0 if image is None else transaction.seq if moved and transaction else work.fact(key).seq
            items.append(WriteItemResult(op.id, True, moved, facts.versions.told(seq), image))
        answer = pack_answer(items, made, self.context.schema)
        return WritePlan(transaction=transaction, answer=answer, reply=answer, counters=stamps.counters)

    def _check(self, facts: Facts) -> None:
        if self.refused is not None:
            raise self.refused
        if facts.violation:
            raise Refusal("CONFLICT", facts.violation)
        if self.context.rules.scope_access(self.principal, self.scope) != "write":
            raise Refusal("DENIED", f"you may not write in scope {self.scope!r}")
        moved = moved_read(self.reads, partial(_version, facts, self.view))
        if moved is not None:
            raise Refusal.of(moved)

    def _make(self, made: list[Op], work: Workspace, stamps: Stamps, facts: Facts) -> None:
        """Make every row, one after the other; ``made`` has the operations then, with the ids that were drawn for them.

        Raises:
            Refusal: The next one is refused.
            NotLooked: Whether an id is free has to be looked up.
        """
        drawn: set[RowKey] = set()
        done: list[Op] = []
        for entry in self.entries:
            op = check_op(entry, self.scope, self.context.schema)
            store = self.context.schema.store(op.store)
            if op.awaits_id:
                op = replace(op, id=draw_id(store, op.values, stamps, facts, drawn))
            key = (op.store, op.id)
            decided, image = self._image(op, store, work, facts.versions)
            done.append(decided)
            wrong = too_many_texts(done, self.context.schema) if store.merging.texts else ""
            if wrong:
                raise Refusal("TOO_LARGE", wrong)
            if key not in drawn:
                check_drawn(store, op.id, work.fact(key), image)
            work.put(key, image)
            made.append(op)

    def _image(
        self, op: Op, store: StoreSpec[object], work: Workspace, versions: Versions
    ) -> tuple[Op, RowImage | None]:
        key = (op.store, op.id)
        image, version = work.image(key), versions.told(work.fact(key).seq)
        row = None if image is None else StoredRow(op.id, version, version, self.scope, image)
        effect = decide(op, store, row)
        if isinstance(effect, ErrorInfo):
            raise Refusal.of(effect)
        if row is None and effect.post is not None:
            return effect.op, whole(store, op.id, effect.post, self.scope)
        return effect.op, effect.post

    def _refused(self, at: int, refused: Refusal) -> list[WriteItemResult]:
        aborted = refusal("ABORTED", f"not written: entry {at} of this atomic unit was refused")
        return [
            WriteItemResult(entry.id, False, error=refused.error if index == at else aborted)
            for index, entry in enumerate(self.entries)
        ]


def _version(facts: Facts, view: PrincipalView, store: str, id: str) -> int | None:
    """The version of a row, if it is there to be seen; None if not."""
    fact = facts.rows[store, id]
    seen = not is_gone(fact.image) and view.sees(store, id, fact.image)
    return facts.versions.told(fact.seq) if seen else None


@dataclass(frozen=True, slots=True)
class FenceDecision:
    """The decision before the mutations of a unit that is several: none of them is decided when the unit was abandoned."""

    principal: Principal
    entries: tuple[Op, ...]
    key: str

    @property
    def need(self) -> Need:
        """What is kept under the unit's own key."""
        return Need(answer=(self.principal.subject, self.key))

    def decide(self, facts: Facts) -> WritePlan:
        """Refuse them all, or let the mutations be decided."""
        if facts.answer == ABANDONED:
            return WritePlan(reply=refuse_abandoned(self.entries), stop=True)
        check_unspent(facts)
        return WritePlan()


def rows_without_scope(context: DecisionContext, request: WriteRequest) -> dict[str, list[str]]:
    """Store → ids of the rows whose scope only the data can tell."""
    wanted: dict[str, dict[str, None]] = {}
    for entry in request.entries:
        if _stated_scope(context, entry) is None and is_unicode(entry.id):
            wanted.setdefault(entry.store, {})[entry.id] = None
    return {store: list(ids) for store, ids in wanted.items()}


def write_decisions(
    context: DecisionContext, principal: Principal, request: WriteRequest, located: Mapping[RowKey, Sequence[str]]
) -> list[Decision]:
    """One decision per mutation of ``request``, behind the fence of the unit when it is several.

    Args:
        context: What it is decided by.
        principal: The principal who writes.
        request: The request.
        located: Scopes that hold the rows of :func:`rows_without_scope`.

    Raises:
        RemoteError: The request is empty or too large, or its key is none.
    """
    size, atomic = len(request.entries), request.options.atomic
    if not size or size > context.limits.mutation_ops:
        message = f"a write has 1 to {context.limits.mutation_ops} entries, not {size}"
        raise RemoteError(message, remote_code="TOO_LARGE" if size else "MALFORMED")
    check_key(request.idem)
    if not all(is_unicode(entry.id) for entry in request.entries):
        raise RemoteError("an id has a lone surrogate", remote_code="MALFORMED")
    groups = [request.entries] if atomic else [(entry,) for entry in request.entries]
    decisions: list[Decision] = []
    view = context.row_rules.view(principal)
    if len(groups) > 1:
        decisions.append(FenceDecision(principal, request.entries, request.idem))
    for index, entries in enumerate(groups):
        key = item_key(request.idem, index, atomic=atomic, size=size)
        scope, refused = _scope_of(context, principal, entries, located)
        decisions.append(WriteDecision(context, principal, entries, scope, key, view, request.options.reads, refused))
    return decisions


def _size_of(entry: Op) -> int:
    """The bytes of an entry that may be many, about."""
    return sum(len(value) for value in (entry.values or {}).values() if isinstance(value, (str, bytes)))


def told_items(answers: Sequence[bytes], schema: Schema, bytes_max: int, sees: Sees) -> tuple[WriteItemResult, ...]:
    """The results in ``answers`` as one reply can hold them: the rows past ``bytes_max`` are left out.

    What was written is written: an answer that does not fit must not look like a refusal.
    """
    items = [item for answer in answers for item in read_answer(answer, schema, sees)]
    if sum(map(len, answers)) > bytes_max:
        left = bytes_max
        for index, item in enumerate(items):
            left -= 0 if item.row is None else len(encode(item.row))
            if left < 0:
                items[index] = replace(item, row=None)
    return tuple(items)


def write_result(
    answers: Sequence[bytes], request: WriteRequest, schema: Schema, seconds: float, bytes_max: int, sees: Sees
) -> WriteResult:
    """The result of a request from the answers of its decisions; see :func:`told_items`."""
    items = told_items(answers, schema, bytes_max, sees)
    meta = ExecutionMeta("remote", (Step("hub", "ok", seconds),), request.context.trace_id)
    return WriteResult(status_of(items), items, meta, (None,) * len(items))


def _stated_scope(context: DecisionContext, entry: Op) -> str | None:
    if entry.scope:
        return entry.scope
    store = context.schema.stores.get(entry.store)
    if store is None:
        return ""
    if store.scope_field is None:
        return store.fixed_scope
    for values in (entry.values, entry.defaults):
        if isinstance(scope := values.get(store.scope_field), str):
            return scope
    return None


def _scope_of(
    context: DecisionContext, principal: Principal, entries: Sequence[Op], located: Mapping[RowKey, Sequence[str]]
) -> tuple[str, Refusal | None]:
    """The one scope of a unit, or why it has none; a scope that may not be read is as good as absent."""
    scopes: set[str] = set()
    try:
        for entry in entries:
            store = check_store(entry.store, context.schema)
            check_new_id(store, entry)
            scope = _stated_scope(context, entry)
            if scope is None:
                held = located.get((entry.store, entry.id), ())
                readable = [name for name in held if context.rules.scope_access(principal, name) != "none"]
                if not readable:
                    raise Refusal("NOT_FOUND", f"{entry.store} has no row {entry.id!r}")
                if len(readable) > 1:
                    raise Refusal("INVALID", f"several scopes have a {entry.store} row {entry.id!r}; state the scope")
                scope = readable[0]
            check_scope(scope)
            scopes.add(scope)
        if len(scopes) > 1:
            raise Refusal("INVALID", "an atomic write touches one scope; this one touches several")
    except Refusal as refused:
        return "", refused
    return scopes.pop(), None
