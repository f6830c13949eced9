"""The conflict rules, as pure functions of a row's facts and one operation.

*Foreign* is what somebody else changed on the row after the sequence that the user had seen. A client's own earlier
mutations never conflict with its later ones. Two writers who set a column to the same value do not conflict either.

| rule | foreign change of a column | row deleted by somebody else | delete of a row changed by somebody else |
|---|---|---|---|
| ``lww`` | mine is taken | refused | taken |
| ``server_wins`` | theirs stays; refused when nothing of mine is left | refused | refused |
| ``client_wins`` | mine is taken | revived from its last image | taken |
| ``manual``, ``cas`` | refused | refused | refused |

``upsert`` and ``replace`` mean "there or not": under ``lww`` and ``client_wins`` they make a deleted row anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atoma.contracts.mutations import Op
from atoma.contracts.sync import Conflict
from atoma.contracts.values import RowImage
from atoma.hub.admission import Refusal, whole
from atoma.mutations import replay
from atoma.ports.hub import RowFact
from atoma.schema.spec import StoreSpec


@dataclass(frozen=True, slots=True)
class Foreign:
    """What others did to a row.

    Attributes:
        fields: Columns they touched, None for all.
        deleted: Whether the row is absent because of them.
        forgotten: Whether the row is absent and the log no longer tells why.
    """

    fields: frozenset[str] | None = frozenset()
    deleted: bool = False
    forgotten: bool = False

    @property
    def any(self) -> bool:
        """Whether somebody else changed the row at all."""
        return self.deleted or self.fields is None or bool(self.fields)

    def touched(self, name: str) -> bool:
        """Whether somebody else changed column ``name``."""
        return self.fields is None or name in self.fields


@dataclass(frozen=True, slots=True)
class Seen:
    """What the user had seen: a sequence of the hub's present history, the client that asks, how far back the log reaches."""

    base_seq: int
    author: bytes
    floor: int


@dataclass(frozen=True, slots=True)
class Verdict:
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
    if forgotten and theirs > seen.base_seq:
        whole_row = True
    absent = fact.image is None
    return Foreign(
        fields=None if whole_row else frozenset(fields),
        deleted=absent and fact.author != seen.author and fact.seq > seen.base_seq,
        forgotten=absent and forgotten and fact.seq == 0,
    )


def decide(op: Op, store: StoreSpec[Any], fact: RowFact, current: RowImage | None, seen: Seen) -> Verdict:
    """What ``op`` makes of the row.

    Args:
        op: The operation, as :func:`atoma.hub.admission.check_op` returns it.
        store: Its store.
        fact: The row as the mutation found it.
        current: The row after the mutation's earlier operations.
        seen: What the user had seen.

    Raises:
        Refusal: The rules refuse the operation, and so the whole mutation.
    """
    others = foreign(fact, seen)
    if op.kind == "create":
        if current is not None:
            message = f"{op.store} has a row {op.id!r} already"
            raise Refusal("ALREADY_EXISTS", message, conflict=_conflict(op, store, fact))
        return Verdict(replay(op, None))
    if op.kind == "delete":
        return _delete(op, store, fact, current, others)
    if current is None:
        return _write_absent(op, store, fact, others)
    return _merge(op, store, fact, current, others)


def decide_doubtful(op: Op, store: StoreSpec[Any], fact: RowFact, current: RowImage | None, seen: Seen) -> Verdict:
    """What ``op`` makes of the row, if it may have been decided long ago and nobody can tell.

    Taken where it changes nothing, or where nobody else has touched the row, this client's own earlier life included. A row
    that is absent, where the log no longer tells why, may be one that this made and somebody deleted.

    Raises:
        Refusal: ``UNKNOWN_OUTCOME`` everywhere else: a person has to look.
    """
    nowhere_to_go = op.kind == "patch" and current is None
    if replay(op, current) == current and not nowhere_to_go:
        return Verdict(current)
    others = foreign(fact, seen)
    if not (others.any or others.forgotten):
        try:
            return decide(op, store, fact, current, seen)
        except Refusal:
            pass  # a row that is there, or is not: somebody may have seen to that, and it may have been this client
    message = f"{op.store} row {op.id!r}: nobody can tell whether this was decided before, and the row has moved since"
    raise Refusal("UNKNOWN_OUTCOME", message, conflict=_conflict(op, store, fact))


def _rule(op: Op, store: StoreSpec[Any]) -> str:
    return "cas" if op.cas else store.conflict


def _conflict(
    op: Op, store: StoreSpec[Any], fact: RowFact, fields: tuple[str, ...] = (), dropped: tuple[str, ...] = ()
) -> Conflict:
    current: dict[str, object] | None = None if fact.image is None else {**store.pack(fact.image)}
    return Conflict(op.store, op.id, fields, dropped, _rule(op, store), current, fact.seq)


def _refuse(
    op: Op, store: StoreSpec[Any], fact: RowFact, what: str, fields: tuple[str, ...] = (), dropped: tuple[str, ...] = ()
) -> Refusal:
    message = f"{op.store} row {op.id!r}: {what} since it was read (rule {_rule(op, store)})"
    return Refusal("CONFLICT", message, conflict=_conflict(op, store, fact, fields, dropped))


def _delete(op: Op, store: StoreSpec[Any], fact: RowFact, current: RowImage | None, others: Foreign) -> Verdict:
    if current is None:
        return Verdict(None)  # that it is gone is what was asked for
    if not others.any:
        return Verdict(None)
    fields = tuple(name for name in store.value_columns if others.touched(name))
    if _rule(op, store) in ("lww", "client_wins"):
        return Verdict(None, _conflict(op, store, fact, fields))
    raise _refuse(op, store, fact, "somebody else changed it", fields)


def _write_absent(op: Op, store: StoreSpec[Any], fact: RowFact, others: Foreign) -> Verdict:
    rule = _rule(op, store)
    if op.kind == "patch":
        if not (others.deleted or others.forgotten):
            raise Refusal("NOT_FOUND", f"{op.store} has no row {op.id!r}", conflict=_conflict(op, store, fact))
        if rule != "client_wins" or fact.last is None:
            raise _refuse(op, store, fact, "somebody else deleted it")
        revived = whole(store, op.id, {**fact.last, **op.values}, op.scope)
        return Verdict(revived, _conflict(op, store, fact, tuple(op.values)))
    if others.deleted and rule not in ("lww", "client_wins"):
        raise _refuse(op, store, fact, "somebody else deleted it")
    image = replay(op, None)
    if op.kind == "upsert" and image is not None:
        image = whole(store, op.id, image, op.scope)
    return Verdict(image, _conflict(op, store, fact) if others.deleted else None)


def _merge(op: Op, store: StoreSpec[Any], fact: RowFact, current: RowImage, others: Foreign) -> Verdict:
    rule = _rule(op, store)
    if op.cas and others.any:
        fields = tuple(name for name in store.value_columns if others.touched(name))
        raise _refuse(op, store, fact, "somebody else changed it", fields)
    values = op.values
    theirs = fact.image or {}
    mine = [name for name, value in values.items() if value != theirs.get(name)]
    met = tuple(name for name in mine if others.touched(name))
    if not met or fact.image is None:  # without a row to begin with, this mutation has just made it
        return Verdict(replay(op, current))
    if rule == "manual":
        raise _refuse(op, store, fact, "somebody else changed it", met)
    if rule != "server_wins":
        return Verdict(replay(op, current), _conflict(op, store, fact, met))
    if len(met) == len(mine):
        raise _refuse(op, store, fact, "somebody else changed it", met, met)
    kept = {name: value for name, value in values.items() if name not in met}
    return Verdict({**current, **kept}, _conflict(op, store, fact, met, met))
