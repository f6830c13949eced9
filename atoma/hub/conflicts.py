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

from atoma.contracts.overlay import replay
from atoma.contracts.sync import Conflict, Op
from atoma.contracts.values import RowImage
from atoma.hub.admission import CheckedOp, Refusal, whole
from atoma.ports.hub import RowFact


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


def decide(op: CheckedOp, scope: str, fact: RowFact, current: RowImage | None, seen: Seen) -> Verdict:
    """What ``op`` makes of the row.

    Args:
        op: The operation.
        scope: Scope of the mutation.
        fact: The row as the mutation found it.
        current: The row after the mutation's earlier operations.
        seen: What the user had seen.

    Raises:
        Refusal: The rules refuse the operation, and so the whole mutation.
    """
    others = foreign(fact, seen)
    if op.kind == "create":
        if current is not None:
            raise Refusal(
                "ALREADY_EXISTS", f"{op.store.name} has a row {op.id!r} already", conflict=_conflict(op, fact)
            )
        return Verdict(op.full)
    if op.kind == "delete":
        return _delete(op, fact, current, others)
    if current is None:
        return _write_absent(op, scope, fact, others)
    return _merge(op, fact, current, others)


def decide_doubtful(op: CheckedOp, scope: str, fact: RowFact, current: RowImage | None, seen: Seen) -> Verdict:
    """What ``op`` makes of the row, if it may have been decided long ago and nobody can tell.

    Taken where it changes nothing, or where nobody else has touched the row, this client's own earlier life included. A row
    that is absent, where the log no longer tells why, may be one that this made and somebody deleted.

    Raises:
        Refusal: ``UNKNOWN_OUTCOME`` everywhere else: a person has to look.
    """
    wanted = replay(Op(op.kind, op.store.name, op.id, dict(op.full or op.values), dict(op.defaults)), current)
    nowhere_to_go = op.kind == "patch" and current is None
    if wanted == current and not nowhere_to_go:
        return Verdict(current)
    others = foreign(fact, seen)
    if not (others.any or others.forgotten):
        try:
            return decide(op, scope, fact, current, seen)
        except Refusal:
            pass  # a row that is there, or is not: somebody may have seen to that, and it may have been this client
    message = (
        f"{op.store.name} row {op.id!r}: nobody can tell whether this was decided before, and the row has moved since"
    )
    raise Refusal("UNKNOWN_OUTCOME", message, conflict=_conflict(op, fact))


def _rule(op: CheckedOp) -> str:
    return "cas" if op.cas else op.store.conflict


def _conflict(
    op: CheckedOp, fact: RowFact, fields: tuple[str, ...] = (), dropped: tuple[str, ...] = (), rule: str = ""
) -> Conflict:
    current: dict[str, object] | None = None if fact.image is None else dict(fact.image)
    return Conflict(op.store.name, op.id, fields, dropped, rule or _rule(op), current, fact.seq)


def _refuse(
    op: CheckedOp, fact: RowFact, what: str, fields: tuple[str, ...] = (), dropped: tuple[str, ...] = ()
) -> Refusal:
    message = f"{op.store.name} row {op.id!r}: {what} since it was read (rule {_rule(op)})"
    return Refusal("CONFLICT", message, conflict=_conflict(op, fact, fields, dropped))


def _delete(op: CheckedOp, fact: RowFact, current: RowImage | None, others: Foreign) -> Verdict:
    if current is None:
        return Verdict(None)  # that it is gone is what was asked for
    if not others.any:
        return Verdict(None)
    fields = tuple(name for name in op.store.value_columns if others.touched(name))
    if _rule(op) in ("lww", "client_wins"):
        return Verdict(None, _conflict(op, fact, fields))
    raise _refuse(op, fact, "somebody else changed it", fields)


def _write_absent(op: CheckedOp, scope: str, fact: RowFact, others: Foreign) -> Verdict:
    rule = _rule(op)
    if op.kind == "patch":
        if not (others.deleted or others.forgotten):
            raise Refusal("NOT_FOUND", f"{op.store.name} has no row {op.id!r}", conflict=_conflict(op, fact))
        if rule != "client_wins" or fact.last is None:
            raise _refuse(op, fact, "somebody else deleted it")
        revived = whole(op.store, op.id, {**fact.last, **op.values}, scope)
        return Verdict(revived, _conflict(op, fact, tuple(op.values)))
    if others.deleted and rule not in ("lww", "client_wins"):
        raise _refuse(op, fact, "somebody else deleted it")
    image = op.full or whole(op.store, op.id, {**op.defaults, **op.values}, scope)
    return Verdict(image, _conflict(op, fact) if others.deleted else None)


def _merge(op: CheckedOp, fact: RowFact, current: RowImage, others: Foreign) -> Verdict:
    rule = _rule(op)
    if op.cas and others.any:
        fields = tuple(name for name in op.store.value_columns if others.touched(name))
        raise _refuse(op, fact, "somebody else changed it", fields)
    values = op.full if op.kind == "replace" else op.values
    theirs = fact.image or {}
    mine = [name for name, value in values.items() if value != theirs.get(name)]
    met = tuple(name for name in mine if others.touched(name))
    if not met or fact.image is None:  # without a row to begin with, this mutation has just made it
        return Verdict({**current, **values})
    if rule == "manual":
        raise _refuse(op, fact, "somebody else changed it", met)
    if rule != "server_wins":
        return Verdict({**current, **values}, _conflict(op, fact, met))
    if len(met) == len(mine):
        raise _refuse(op, fact, "somebody else changed it", met, met)
    kept = {name: value for name, value in values.items() if name not in met}
    return Verdict({**current, **kept}, _conflict(op, fact, met, met))
