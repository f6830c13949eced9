"""Edits: what is done to the values of columns that merge by themselves, and the edits that a written value stands for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from atoma.contracts.failures import refusal
from atoma.contracts.mutations import Edit, Op
from atoma.contracts.values import ErrorInfo, RowImage, Scalar
from atoma.errors import ValidationError
from atoma.schema.kinds import INT64_MAX, INT64_MIN
from atoma.schema.spec import StoreSpec


def edited(image: RowImage, edits: Iterable[Edit]) -> RowImage:
    """``image`` after ``edits``; it is left as it is. A sum that no column can hold ends at the bound, see :func:`misfit`."""
    after = image
    for edit in edits:
        if edit.field in image:
            after = {**after, edit.field: _value_after(edit, after[edit.field])}
    return after


def _value_after(edit: Edit, value: Scalar) -> Scalar:
    operand = edit.operand
    match edit.kind:
        case "inc":
            return min(max(_sum(value, operand), INT64_MIN), INT64_MAX)
        case "add":
            return set_text(elements(value) | elements(operand))
        case "remove":
            return set_text(elements(value) - elements(operand))
        case "max":
            return operand if value is None else max(cast("Any", value), operand)
        case "min":
            return operand if value is None else min(cast("Any", value), operand)


def _sum(value: Scalar, operand: Scalar) -> int:
    return cast("int", value or 0) + cast("int", operand)


def elements(text: Scalar) -> frozenset[str | int]:
    """The elements of a set as its column holds it; none of a column that holds nothing."""
    return frozenset() if text is None else frozenset(msgspec.json.decode(cast("str", text), type=list[str | int]))


def set_text(found: frozenset[str | int]) -> str:
    """A set as a column holds it."""
    return msgspec.json.encode(sorted(cast("frozenset[str]", found))).decode()


def difference(store: StoreSpec[Any], name: str, before: Scalar, after: Scalar) -> Iterator[Edit]:
    """The edits of one column that make ``before`` into ``after``; of a maximum or minimum, those that let it count."""
    match store.merging.rule_of(name):
        case "counter":
            amount = _sum(after, -_sum(before, 0))
            if amount:
                yield Edit(name, "inc", amount)
        case "set":
            had, has = elements(before), elements(after)
            if had - has:
                yield Edit(name, "remove", set_text(had - has))
            if has - had:
                yield Edit(name, "add", set_text(has - had))
        case "max" if after is not None:
            yield Edit(name, "max", after)
        case "min" if after is not None:
            yield Edit(name, "min", after)
        case _:
            pass


def differences(store: StoreSpec[Any], before: Mapping[str, Scalar], after: Mapping[str, Scalar]) -> tuple[Edit, ...]:
    """The edits of the columns in ``after`` that merge by themselves."""
    names = [name for name in after if name in store.merging.edited]
    return tuple([edit for name in names for edit in difference(store, name, before.get(name), after[name])])


def in_edits(op: Op, store: StoreSpec[Any], image: RowImage | None, names: frozenset[str] | None = None) -> Op:
    """``op`` over a row that is there, with edits in the place of the values that it writes to columns that merge by themselves.

    Args:
        op: An operation.
        store: Its store.
        image: The row; None when there is none, and the values are what it begins with.
        names: Those columns; None for all of them.
    """
    names = store.merging.edited if names is None else names
    if image is None or op.kind in ("create", "delete") or names.isdisjoint(op.values):
        return op
    written = {name: value for name, value in op.values.items() if name in names}
    edits = tuple([edit for edit in op.edits if edit.field not in written]) + differences(store, image, written)
    rest = {name: value for name, value in op.values.items() if name not in written}
    if op.kind == "patch":
        return replace(op, values=rest, edits=edits)
    return replace(op, kind="upsert", values=rest, defaults={**op.defaults, **written}, edits=edits)


def counts(op: Op) -> bool:
    """Whether ``op`` adds to a number, so that done twice it makes another one of it."""
    return any(edit.kind == "inc" for edit in op.edits)


def misfit(op: Op, store: StoreSpec[Any], pre: RowImage, post: RowImage) -> ErrorInfo | None:
    """Why the columns of a row cannot hold what the edits of ``op`` make of them; None when they can."""
    for edit in op.edits:
        value = post[edit.field]
        if value == pre[edit.field]:
            continue
        where = f"{op.store}/{op.id}: {edit.field}"
        if edit.kind == "inc" and not INT64_MIN <= _sum(pre[edit.field], edit.operand) <= INT64_MAX:
            return refusal("INVALID", f"{where} would go beyond 64 bits", info={"field": edit.field})
        try:
            store.canonical(edit.field, value)
        except ValidationError as error:
            return refusal("INVALID", f"{where} after {edit.kind}: {error}", info={"field": edit.field})
    return None
