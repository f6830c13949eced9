"""The conflict rules, as pure functions of a row's facts and one operation.

*Foreign* is what somebody else changed on the row after the sequence that the user had seen. A client's own earlier
mutations never conflict with its later ones. Two writers who set a column to the same value do not conflict either.

| rule | foreign change of a column | row deleted by somebody else | delete of a row changed by somebody else |
|---|---|---|---|
| ``lww`` | mine is taken | refused | taken |
| ``lww_hlc`` | the one that was written later, by the clocks of the devices | refused | taken; refused if theirs was later |
| ``server_wins`` | theirs stays; refused when nothing of mine is left | refused | refused |
| ``client_wins`` | mine is taken | revived from its last image | taken |
| ``manual``, ``cas`` | refused | refused | refused |

``upsert`` and ``replace`` mean "there or not": under ``lww``, ``lww_hlc`` and ``client_wins`` they make a deleted row anew. A
column may have a rule of its own: one of these, ``custom``, or one by which it merges and never conflicts:

| rule of a column | what arrives |
|---|---|
| ``custom`` | becomes what a function of the hub makes of base, mine and theirs |
| ``counter`` | is added |
| ``set`` | elements are added and removed; what somebody else has added since is not removed |
| ``max``, ``min`` | the larger, the smaller one stays |
| ``text`` | is joined: it has what both have inserted, but for what either has deleted |

Deleted softly is deleted: the table holds for the mark as well. A row that is only hidden is not made anew but shown again, as it is
then, and bringing it back is a change of the mark like that of any column.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from atoma.contracts.mutations import Edit, Op
from atoma.contracts.sync import Conflict
from atoma.contracts.values import HIDDEN, RowImage, Scalar, is_gone, is_hidden
from atoma.hub.admission import Refusal, whole
from atoma.hub.custom import NO_CUSTOM_RULES, CustomRules, RuleRefused
from atoma.mutations import arriving, columns_of, counts, elements, joins, misfit, replay, set_text
from atoma.ports.hub_rows import RowFact, TheirChange
from atoma.schema.hiding import hides, restores
from atoma.schema.spec import StoreSpec

TAKEN = ("lww", "lww_hlc", "client_wins")
"""The rules of a store under which what arrives is taken over a row that others have deleted, or deletes one that they changed."""


class Foreign(Struct, frozen=True, gc=False):
    """The changes of others to a row.

    Attributes:
        fields: Columns they touched, None for all.
        deleted: Whether the row is absent, or hidden, because of them.
        forgotten: Whether the row is absent and the log no longer tells why.
        unknown: Whether they touched it and the log no longer tells how.
    """

    fields: frozenset[str] | None = frozenset()
    deleted: bool = False
    forgotten: bool = False
    unknown: bool = False

    @property
    def any(self) -> bool:
        """Whether somebody else changed the row at all."""
        return self.deleted or self.fields is None or bool(self.fields)

    def touched(self, name: str) -> bool:
        """Whether somebody else changed column ``name``."""
        return self.fields is None or name in self.fields


class Seen(Struct, frozen=True, gc=False):
    """The user's view of the row, and when it was.

    Attributes:
        base_seq: A sequence of the hub's present history.
        author: The client that asks.
        floor: How far back the log reaches.
        written_ms: When it wrote, by its own clock.
    """

    base_seq: int
    author: bytes
    floor: int
    written_ms: int = 0


class MergedRow(Struct, frozen=True, gc=False):
    """The row after the operation, and where it met somebody else's change."""

    image: RowImage | None
    conflict: Conflict | None = None


def foreign(fact: RowFact, seen: Seen) -> Foreign:
    """What others did to the row since ``seen``; everything, when the log no longer tells."""
    fields: set[str] = set()
    whole_row = False
    for change in fact.foreign:
        if change.fields is None:
            whole_row = True
        else:
            fields.update(change.fields)
    forgotten = seen.base_seq < seen.floor
    theirs = fact.other_seq if fact.author == seen.author else fact.seq
    unknown = forgotten and theirs > seen.base_seq
    whole_row = whole_row or unknown
    return Foreign(
        fields=None if whole_row else frozenset(fields),
        deleted=is_gone(fact.image) and fact.author != seen.author and fact.seq > seen.base_seq,
        forgotten=fact.image is None and forgotten and fact.seq == 0,
        unknown=unknown,
    )


def decide(
    op: Op,
    store: StoreSpec[Any],
    fact: RowFact,
    current: RowImage | None,
    seen: Seen,
    customs: CustomRules = NO_CUSTOM_RULES,
) -> MergedRow:
    """What ``op`` makes of the row.

    Args:
        op: The operation, as :func:`atoma.hub.admission.check_op` returns it.
        store: Its store.
        fact: The row as the mutation found it.
        current: The row after the mutation's earlier operations.
        seen: What the user had seen.
        customs: The functions of the hub.

    Raises:
        Refusal: The rules refuse the operation, and so the whole mutation.
    """
    others = foreign(fact, seen)
    if op.kind == "create":
        made = replay(op, None)
        if current is None:
            return MergedRow(made)
        if store.is_same(made, current):
            return MergedRow(current)
        kept = ", which was deleted and can be restored" if is_hidden(current) else ""
        message = f"{op.store} has a row {op.id!r} already{kept}"
        raise Refusal("ALREADY_EXISTS", message, conflict=_conflict(op, store, fact))
    if op.kind == "delete" or hides(op):
        return _delete(op, store, fact, current, others, seen)
    if current is None or (is_hidden(current) and not restores(op)):
        return _write_absent(op, store, fact, current, others)
    return _Merge(op, store, fact, others, seen, customs).over(current)


def decide_doubtful(
    op: Op,
    store: StoreSpec[Any],
    fact: RowFact,
    current: RowImage | None,
    seen: Seen,
    customs: CustomRules = NO_CUSTOM_RULES,
) -> MergedRow:
    """What ``op`` makes of the row, if it may have been decided long ago and nobody can tell.

    Taken where it changes nothing, or where nobody else has touched the row, this client's own earlier life included. A row
    that is absent, where the log no longer tells why, may be one that this made and somebody deleted. What is added to a number
    is never taken: twice it would be another one. What is joined with a text always is: twice it is the same.

    Raises:
        Refusal: ``UNKNOWN_OUTCOME`` everywhere else: a person has to look.
    """
    nowhere_to_go = op.kind == "patch" and current is None
    if store.is_same(replay(op, current), current) and not nowhere_to_go:
        return MergedRow(current)
    others = foreign(fact, seen)
    if joins(op) or not (counts(op) or others.any or others.forgotten):
        try:
            return decide(op, store, fact, current, seen, customs)
        except Refusal:
            pass  # a row that is there, or is not: somebody may have seen to that, and it may have been this client
    message = f"{op.store} row {op.id!r}: nobody can tell whether this was decided before, and the row has moved since"
    raise Refusal("UNKNOWN_OUTCOME", message, conflict=_conflict(op, store, fact))


def _rule(op: Op, store: StoreSpec[Any], fields: tuple[str, ...] = ()) -> str:
    """The rule that decides about a row; about values of ``fields`` theirs."""
    if op.cas or op.kind == "delete" or not fields:
        return "cas" if op.cas else store.conflict
    return ", ".join(dict.fromkeys(store.merging.rule_of(name) for name in fields))


def _conflict(
    op: Op, store: StoreSpec[Any], fact: RowFact, fields: tuple[str, ...] = (), dropped: tuple[str, ...] = ()
) -> Conflict:
    current: dict[str, object] | None = None if fact.image is None else {**store.pack(fact.image)}
    return Conflict(op.store, op.id, fields, dropped, _rule(op, store, fields), current, fact.seq)


def _touched(store: StoreSpec[Any], others: Foreign) -> tuple[str, ...]:
    """The columns that somebody else has written."""
    passed_over = {*store.sets.names, *store.merging.states, HIDDEN}
    return tuple([name for name in store.value_columns if others.touched(name) and name not in passed_over])


def _refuse(
    op: Op, store: StoreSpec[Any], fact: RowFact, what: str, fields: tuple[str, ...] = (), dropped: tuple[str, ...] = ()
) -> Refusal:
    message = f"{op.store} row {op.id!r}: {what} since it was read (rule {_rule(op, store, fields)})"
    return Refusal("CONFLICT", message, conflict=_conflict(op, store, fact, fields, dropped))


def _delete(
    op: Op, store: StoreSpec[Any], fact: RowFact, current: RowImage | None, others: Foreign, seen: Seen
) -> MergedRow:
    if current is None or (is_hidden(current) and hides(op)):
        return MergedRow(current)  # that it is gone is what was asked for
    after = replay(op, current)
    if not others.any:
        return MergedRow(after)
    fields = _touched(store, others)
    rule = _rule(op, store)
    if rule in TAKEN and not (rule == "lww_hlc" and any(_is_later(change, seen) for change in fact.theirs)):
        return MergedRow(after, _conflict(op, store, fact, fields))
    raise _refuse(op, store, fact, "somebody else changed it", fields)


def _write_absent(op: Op, store: StoreSpec[Any], fact: RowFact, hidden: RowImage | None, others: Foreign) -> MergedRow:
    """What ``op`` makes of a row that is not there, or is ``hidden``."""
    op = arriving(op, store, hidden)
    rule = _rule(op, store)
    if op.kind == "patch":
        if not (others.deleted or others.forgotten):
            raise Refusal("NOT_FOUND", f"{op.store} has no row {op.id!r}", conflict=_conflict(op, store, fact))
        last = fact.last if hidden is None else hidden
        if rule != "client_wins" or last is None:
            raise _refuse(op, store, fact, "somebody else deleted it")
        revived = whole(store, op.id, store.unhidden(replay(op, last) or {}), op.scope)
        _check_edits(op, store, last, revived)
        return MergedRow(
            revived, _conflict(op, store, fact, (*op.values, *(columns_of(edit)[-1] for edit in op.edits)))
        )
    if others.deleted and rule not in TAKEN:
        raise _refuse(op, store, fact, "somebody else deleted it")
    image = replay(op, hidden)
    if op.kind == "upsert" and image is not None:
        image = whole(store, op.id, image, op.scope)
    return MergedRow(image, _conflict(op, store, fact) if others.deleted else None)


def _is_later(change: TheirChange, seen: Seen) -> bool:
    return (change.written_ms, change.author) > (seen.written_ms, seen.author)


def _has_touched(change: TheirChange, name: str) -> bool:
    pre, post = change.pre, change.post
    return pre is None or post is None or pre.get(name) != post.get(name)


def _check_edits(op: Op, store: StoreSpec[Any], pre: RowImage, post: RowImage) -> None:
    wrong = misfit(op, store, pre, post) if op.edits else None
    if wrong is not None:
        raise Refusal.of(wrong)


class _Merge:
    """One operation that writes a row which is there, and may have been changed by others."""

    def __init__(
        self, op: Op, store: StoreSpec[Any], fact: RowFact, others: Foreign, seen: Seen, customs: CustomRules
    ) -> None:
        self._op = op
        self._store = store
        self._fact = fact
        self._others = others
        self._seen = seen
        self._customs = customs

    def over(self, current: RowImage) -> MergedRow:
        """The row after it.

        Raises:
            Refusal: The rules refuse it.
        """
        op, store, fact, others = self._op, self._store, self._fact, self._others
        if op.cas and others.any:
            raise _refuse(op, store, fact, "somebody else changed it", _touched(store, others))
        op = arriving(op, store, current)
        theirs = fact.image or {}
        mine = [name for name, value in op.values.items() if store.differ(name, value, theirs.get(name))]
        met = tuple(name for name in mine if others.touched(name))
        if fact.image is None:  # without a row to begin with, this mutation has just made it
            met = ()
        if any(store.merging.rule_of(name) == "manual" for name in met):
            raise _refuse(op, store, fact, "somebody else changed it", met)
        settled = {name: self._settled(op, name) for name in met}
        dropped = tuple(name for name in met if self._gives_way(name) and settled[name] == theirs.get(name))
        if dropped and len(dropped) == len(mine) and not op.edits:
            raise _refuse(op, store, fact, "somebody else changed it", met, dropped)
        edits, kept = self._edits(op, theirs)
        image = replay(replace(op, values={**op.values, **settled}, edits=edits), current) or {}
        _check_edits(op, store, current, image)
        if not met and not kept:
            return MergedRow(image)
        return MergedRow(image, _conflict(op, store, fact, (*met, *kept), (*dropped, *kept)))

    def _gives_way(self, name: str) -> bool:
        """Whether a value of the user's is lost when theirs stays; a function of the hub has seen both."""
        return self._store.merging.rule_of(name) in ("server_wins", "lww_hlc")

    def _settled(self, op: Op, name: str) -> Scalar:
        """The value of a column that both have written."""
        mine, theirs = op.values[name], (self._fact.image or {}).get(name)
        match self._store.merging.rule_of(name):
            case "server_wins":
                return theirs
            case "lww_hlc":
                later = any(_has_touched(one, name) and _is_later(one, self._seen) for one in self._fact.theirs)
                return theirs if later else mine
            case "custom":
                before = next((one.pre for one in self._fact.theirs if _has_touched(one, name)), None)
                return self._custom(op, name, before)
            case _:
                return mine

    def _custom(self, op: Op, name: str, before: RowImage | None) -> Scalar:
        row = self._fact.image or {}
        try:
            return self._customs.decide(self._store, op.id, name, before, op.values[name], row)
        except RuleRefused as refused:
            raise _refuse(
                op, self._store, self._fact, f"{name}: {refused}; somebody else changed it", (name,)
            ) from None

    def _edits(self, op: Op, theirs: RowImage) -> tuple[tuple[Edit, ...], tuple[str, ...]]:
        """The edits that count, and the sets of which elements stay because the log no longer tells who has added them since."""
        edits: list[Edit] = []
        kept: list[str] = []
        for edit in op.edits:
            if edit.kind == "remove":
                asked = elements(edit.operand)
                stay = asked & self._added(edit.field, theirs)
                if self._others.unknown and stay:
                    kept.append(edit.field)
                edit = Edit(edit.field, edit.kind, set_text(asked - stay))
            edits.append(edit)
        return tuple(edits), tuple(kept)

    def _added(self, name: str, theirs: RowImage) -> frozenset[str | int]:
        """The elements that somebody else has put into a set since; all that are there where nobody can tell."""
        if self._others.unknown:
            return elements(theirs.get(name))
        added: frozenset[str | int] = frozenset()
        for change in self._fact.theirs:
            if change.post is not None:
                before = None if change.pre is None else change.pre.get(name)
                added |= elements(change.post.get(name)) - elements(before)
        return added
