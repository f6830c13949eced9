"""How single fields of a row merge, where that is not by the rule of their store.

A counter, a set, a maximum, a minimum and a text merge by themselves: what travels is not the value that a device came to, but what it
did to the value that was there, so that it can be done to another value as well. A value that is written to such a field over a
row that is there travels as its difference from what was there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from importlib.util import find_spec
from typing import Literal, TypeAlias, get_args

from msgspec.structs import replace

from atoma.contracts.checks import is_a
from atoma.contracts.extras import install_line
from atoma.contracts.limits import TEXT_BYTES_MAX
from atoma.contracts.mutations import Edit, EditKind
from atoma.contracts.values import Scalar
from atoma.errors import SchemaError, ValidationError
from atoma.schema.fields import Field
from atoma.schema.kinds import Encode
from atoma.schema.text_states import BrokenText
from atoma.schema.texts import EXTRA, LIBRARY, check, state_of

ConflictRule: TypeAlias = Literal["lww", "lww_hlc", "server_wins", "client_wins", "manual"]
_OwnRule: TypeAlias = Literal["custom", "counter", "set", "max", "min", "text"]
FieldRule: TypeAlias = ConflictRule | _OwnRule
CONFLICT_RULES: tuple[ConflictRule, ...] = get_args(ConflictRule)
FIELD_RULES: tuple[FieldRule, ...] = (*CONFLICT_RULES, *get_args(_OwnRule))
KINDS: Mapping[FieldRule, frozenset[EditKind]] = {
    "counter": frozenset(("inc",)),
    "set": frozenset(("add", "remove")),
    "max": frozenset(("max",)),
    "min": frozenset(("min",)),
    "text": frozenset(),
}
"""The edits that a field may have, by its rule; those of a text are edits of its state."""
JOINS = frozenset(("max", "min"))
_EDITED = frozenset(KINDS)
_OF_STATE: frozenset[EditKind] = frozenset(("text",))
_LOOK_BACK = frozenset(("lww_hlc", "custom", "set"))


@dataclass(frozen=True, slots=True)
class Increment:
    """An addition of ``amount``, which may be negative, to a counter: ``update(id, votes=Increment(1))``."""

    amount: int | Decimal | timedelta = 1


@dataclass(frozen=True, slots=True, init=False)
class Including:
    """Elements to put into a set: ``update(id, tags=Including("red", "blue"))``."""

    elements: frozenset[str | int]

    def __init__(self, *elements: str | int) -> None:
        object.__setattr__(self, "elements", frozenset(elements))


@dataclass(frozen=True, slots=True, init=False)
class Excluding:
    """Elements to take out of a set: ``update(id, tags=Excluding("red"))``."""

    elements: frozenset[str | int]

    def __init__(self, *elements: str | int) -> None:
        object.__setattr__(self, "elements", frozenset(elements))


@dataclass(frozen=True, slots=True)
class Merging:
    """The rules of the fields of one store.

    Attributes:
        store: The rule of the store, for all fields that have none.
        rules: The rules of fields that have one.
        texts: Fields whose text merges.
        states: The fields in which the states of those lie; nobody writes them.
        edited: Fields that merge by themselves, states included.
        joins: Those of them that hold a maximum or a minimum.
        customs: Fields that a function of the hub decides.
        looks_back: Whether a decision needs to know what others have made of a row, not only that they have.
    """

    store: ConflictRule = "lww"
    rules: Mapping[str, FieldRule] = field(default_factory=dict[str, FieldRule])
    texts: frozenset[str] = field(init=False)
    states: frozenset[str] = field(init=False)
    edited: frozenset[str] = field(init=False)
    joins: frozenset[str] = field(init=False)
    customs: frozenset[str] = field(init=False)
    looks_back: bool = field(init=False)

    def __post_init__(self) -> None:
        def having(rules: frozenset[str]) -> frozenset[str]:
            return frozenset([name for name, rule in self.rules.items() if rule in rules])

        texts = having(frozenset(("text",)))
        states = frozenset(map(state_of, texts))
        object.__setattr__(self, "texts", texts)
        object.__setattr__(self, "states", states)
        object.__setattr__(self, "edited", having(_EDITED) | states)
        object.__setattr__(self, "joins", having(JOINS))
        object.__setattr__(self, "customs", having(frozenset(("custom",))))
        object.__setattr__(self, "looks_back", not _LOOK_BACK.isdisjoint((self.store, *self.rules.values())))

    def rule_of(self, name: str) -> FieldRule:
        """The rule of one field."""
        return self.rules.get(name, self.store)

    def kinds_of(self, name: str) -> frozenset[EditKind]:
        """The edits that one field may have."""
        return _OF_STATE if name in self.states else KINDS.get(self.rule_of(name), frozenset())

    @property
    def signature(self) -> str:
        """Text that is equal for equal rules of fields; empty where there are none."""
        return ", ".join(f"{name} {rule}" for name, rule in sorted(self.rules.items()))


def merging_of(
    store: str,
    fields: Mapping[str, Field],
    conflict: ConflictRule,
    merge: Mapping[str, FieldRule],
    *,
    unwritten: frozenset[str],
) -> Merging:
    """The rules of the fields of a store, checked.

    Args:
        store: The store.
        fields: Its fields by name.
        conflict: Its own rule.
        merge: As declared.
        unwritten: Fields that nobody writes, or that never change.

    Raises:
        SchemaError: There is no such field or rule, or the field cannot merge like that.
    """
    if not is_a(merge, Mapping):
        raise SchemaError(f"store {store!r}: merge maps fields to rules, {{'votes': 'counter'}}, not {merge!r}")
    for name, rule in merge.items():
        found = fields.get(name)
        if found is None or name in unwritten:
            raise SchemaError(
                f"store {store!r}: {name!r} cannot have a rule in merge=: it is the id, the scope, set by the store, or not a field"
            )
        if rule not in FIELD_RULES:
            raise SchemaError(f"store {store!r}: {name!r} merges by one of {', '.join(FIELD_RULES)}, not {rule!r}")
        why = _unfit(found, rule) or (_unfit_text(found, fields.get(state_of(name))) if rule == "text" else "")
        if why:
            raise SchemaError(f"store {store!r}: {name!r} cannot merge as {rule}: {why}")
    return Merging(conflict, dict(merge))


def _unfit(field: Field, rule: FieldRule) -> str:
    """Why values of ``field`` cannot merge by ``rule``; ``""`` when they can."""
    if field.wired and (rule in _EDITED or rule == "custom"):
        return "it travels encoded (wire=…), and a hub cannot look into it"
    if rule == "counter" and (field.sql_type != "INTEGER" or field.comparisons.total or field.boolean):
        return f"it is declared as {field.type_name}; declare int, timedelta or a Decimal with Scale(…)"
    if rule in JOINS and field.comparisons.order:
        return field.comparisons.order
    if rule == "set" and not _is_plain_set(field):
        return f"it is declared as {field.type_name}; declare a set of text or of whole numbers, set[str] or set[int]"
    return ""


def _unfit_text(field: Field, state: Field | None) -> str:
    """Why a text cannot merge that has ``state`` beside it."""
    if not field.comparisons.any_text or field.nullable or field.packed is not None:
        return f"it is declared as {field.type_name}; declare str"
    if state is None or state.type != "blob" or not state.nullable or state.packed is not None or state.wired:
        return f"its edits are kept in a field beside it; declare {state_of(field.name)}: bytes | None = None"
    if find_spec(LIBRARY) is None:
        return f"that takes {LIBRARY}, which is not installed: {install_line(EXTRA)}"
    return ""


def with_states(store: str, fields: Mapping[str, Field], merging: Merging) -> dict[str, Field]:
    """``fields`` with bounds for texts, and with those that hold the state of one taking nothing else."""
    bounded = {name: replace(fields[name], encode=_bounded(store, fields[name]), plain=None) for name in merging.texts}
    states = {
        name: replace(
            fields[name], encode=_of_states(store, fields[name]), literal=_of_states(store, fields[name]), plain=None
        )
        for name in merging.states
    }
    return {**fields, **bounded, **states}


def _bounded(store: str, field: Field) -> Encode:
    def encode(value: object) -> Scalar:
        stored = field.encode(value)
        size = len(str(stored).encode())
        if size > TEXT_BYTES_MAX:
            message = f"{store}.{field.name} merges, and has {size:,} bytes; at most {TEXT_BYTES_MAX:,} do: divide it among rows"
            raise ValidationError(message, store=store, field=field.name, value=value)
        return stored

    return encode


def _of_states(store: str, field: Field) -> Encode:
    def encode(value: object) -> Scalar:
        stored = field.encode(value)
        try:
            if isinstance(stored, bytes):
                check(stored)
        except BrokenText as error:
            message = f"{store}.{field.name}: {error}"
            raise ValidationError(message, store=store, field=field.name, value=value) from None
        return stored

    return encode


def _is_plain_set(field: Field) -> bool:
    if field.type != "json" or field.decode is None:
        return False

    def kept(*probe: object) -> object:
        try:
            return field.literal(frozenset(probe))
        except ValidationError:
            return None

    return kept("b", "a") == '["a","b"]' or kept(10, 9) == "[9,10]"


def split_edits(
    store: str, fields: Mapping[str, Field], merging: Merging, changes: Mapping[str, object]
) -> tuple[dict[str, object], tuple[Edit, ...]]:
    """``changes`` by what they say: plain values by name, and edits.

    Raises:
        ValidationError: A field does not merge like that, or cannot take what is given.
    """
    plain = {name: value for name, value in changes.items() if not isinstance(value, (Increment, Including, Excluding))}
    if len(plain) == len(changes):
        return plain, ()
    edits = (
        _edit(store, fields.get(name), merging, name, value) for name, value in changes.items() if name not in plain
    )
    return plain, tuple(edits)


def _edit(store: str, field: Field | None, merging: Merging, name: str, value: object) -> Edit:
    wanted, kind, operand = _meaning(value)
    if field is None or merging.rule_of(name) != wanted:
        message = f"{store}.{name} is not declared as a {wanted}: StoreSpec(…, merge={{{name!r}: {wanted!r}}})"
        raise ValidationError(message, store=store, field=name, value=value)
    if operand is None:
        raise ValidationError(f"{store}.{name} takes a number to add, not None", store=store, field=name, value=value)
    return Edit(name, kind, field.literal(operand))


def _meaning(value: object) -> tuple[FieldRule, EditKind, object]:
    match value:
        case Including(elements=elements):
            return "set", "add", elements
        case Excluding(elements=elements):
            return "set", "remove", elements
        case _:
            assert isinstance(value, Increment)
            return "counter", "inc", value.amount


def misplaced(fields: Mapping[str, Field], merging: Merging, edits: tuple[Edit, ...]) -> Iterator[str]:
    """What is wrong with ``edits`` that somebody else has made, but for their operands."""
    seen: set[tuple[str, str]] = set()
    for edit in edits:
        if edit.field not in fields or edit.kind not in merging.kinds_of(edit.field):
            yield f"{edit.field[:80]} does not take the edit {edit.kind!r}"
        elif edit.operand is None:
            yield f"the edit of {edit.field} says nothing"
        if (edit.field, edit.kind) in seen:
            yield f"{edit.field[:80]} has the edit {edit.kind!r} twice"
        seen.add((edit.field, edit.kind))
