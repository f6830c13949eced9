"""Edits: what is done to the values of columns that merge by themselves, and the edits that a written value stands for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from atoma.contracts.failures import refusal
from atoma.contracts.limits import TEXTS_MAX
from atoma.contracts.mutations import Edit, Op
from atoma.contracts.values import ErrorInfo, RowImage, Scalar
from atoma.errors import ValidationError
from atoma.schema.kinds import INT64_MAX, INT64_MIN
from atoma.schema.schema import Schema
from atoma.schema.spec import StoreSpec
from atoma.schema.text_states import BrokenText, ClosedText
from atoma.schema.texts import UNMADE, document, joined, rewritten, state_of, text_of


def edited(image: RowImage, edits: Iterable[Edit]) -> RowImage:
    """``image`` after ``edits``; it is left as it is. A sum that no column can hold ends at the bound, see :func:`misfit`."""
    after = image
    for edit in edits:
        if edit.field in image:
            made = (
                _text_after(edit, after) if edit.kind == "text" else {edit.field: _value_after(edit, after[edit.field])}
            )
            after = {**after, **made}
    return after


def columns_of(edit: Edit) -> tuple[str, ...]:
    """The columns that ``edit`` changes."""
    return (edit.field, text_of(edit.field)) if edit.kind == "text" else (edit.field,)


def _text_after(edit: Edit, image: Mapping[str, Scalar]) -> RowImage:
    name = text_of(edit.field)
    try:
        state, text = joined(_document(name, image), cast("bytes", edit.operand))
    except BrokenText:  # the text stays as it is; whoever decides asks `misfit`
        return {}
    return {edit.field: state, name: text}


def _document(name: str, image: Mapping[str, Scalar]) -> bytes:
    """The state of the text in column ``name``."""
    return document(cast("str", image.get(name) or ""), cast("bytes | None", image.get(state_of(name))))


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
        case "text":
            raise AssertionError("a text is more than one column")


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
    edits = tuple([edit for name in names for edit in difference(store, name, before.get(name), after[name])])
    return (*edits, *_text_edits(store, before, after)) if store.merging.texts else edits


def _text_edits(store: StoreSpec[Any], before: Mapping[str, Scalar], after: Mapping[str, Scalar]) -> Iterator[Edit]:
    """The edits of texts; one that comes with a state was made of that, and not of what there is ``before``.

    With one that is closed comes the edit that can only be refused.
    """
    for name in sorted(store.merging.texts & after.keys()):
        state = state_of(name)
        try:
            had = _document(name, before)
            made = rewritten(had, cast("str", after[name])) if after.get(state) is None else _document(name, after)
        except ClosedText:
            yield Edit(state, "text", _refused(before, before if after.get(state) is None else after, name))
            continue
        if made != had:
            yield Edit(state, "text", made)


def _refused(before: Mapping[str, Scalar], closed: Mapping[str, Scalar], name: str) -> bytes:
    """What says why no edit of ``closed`` can be joined with ``before``."""
    state = cast("bytes | None", closed.get(state_of(name))) or UNMADE
    try:
        joined(_document(name, before), state)
    except BrokenText:
        return state
    return UNMADE


def stated(op: Op, store: StoreSpec[Any]) -> Op:
    """``op`` of somebody who knows of no such row, with the states of its texts: should there be one, it joins them."""
    missing = [name for name in sorted(store.merging.texts & op.values.keys()) if op.values.get(state_of(name)) is None]
    if op.kind not in ("replace", "upsert") or not missing:
        return op
    return replace(op, values={**op.values, **{state_of(name): _document(name, op.values) for name in missing}})


def with_texts(store: StoreSpec[Any], image: RowImage, others: RowImage) -> RowImage:
    """``image`` with its texts joined with those of the same row in ``others``; as it is where they do not fit together."""
    try:
        edits = tuple([Edit(state_of(name), "text", _document(name, others)) for name in sorted(store.merging.texts)])
    except ClosedText:
        return image
    made = edited(image, edits)
    return image if misfit(Op("patch", store.name, "", edits=edits), store, image, made) else made


def arriving(op: Op, store: StoreSpec[Any], image: RowImage | None) -> Op:
    """``op`` of a device over the row ``image``, where it writes what joins with what is there, as edits.

    A state without its text, or none, says nothing: what is there stays, since the edits of others build on it.
    """
    texts = [name for name in store.merging.texts & op.values.keys() if op.values.get(state_of(name)) is not None]
    return in_edits(op, store, image, store.merging.joins.union(texts, store.merging.states))


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
    others = tuple([edit for edit in op.edits if written.keys().isdisjoint(columns_of(edit))])
    edits = others + differences(store, image, written)
    rest = {name: value for name, value in op.values.items() if name not in written}
    if op.kind == "patch":
        return replace(op, values=rest, edits=edits)
    return replace(op, kind="upsert", values=rest, defaults={**op.defaults, **written}, edits=edits)


def texts_joined(op: Op, store: StoreSpec[Any]) -> int:
    """How many texts ``op`` joins with what is there, should there be something."""
    if op.kind in ("create", "delete"):
        return 0
    written = sum(op.values.get(name) is not None for name in store.merging.states)
    return written + sum(edit.kind == "text" for edit in op.edits)


def too_many_texts(ops: Sequence[Op], schema: Schema) -> str:
    """Why nobody takes ``ops`` as one unit; empty where they join no more texts than one may."""
    count = sum(texts_joined(op, schema.stores[op.store]) for op in ops if op.store in schema.stores)
    return f"an atomic unit merges {count} texts, {TEXTS_MAX} at most; split it" if count > TEXTS_MAX else ""


def counts(op: Op) -> bool:
    """Whether ``op`` adds to a number, so that done twice it makes another one of it."""
    return bool(op.edits) and any(edit.kind == "inc" for edit in op.edits)


def joins(op: Op) -> bool:
    """Whether ``op`` does nothing but join texts, so that done twice it does nothing more."""
    return op.kind == "patch" and not op.values and all(edit.kind == "text" for edit in op.edits)


def misfit(op: Op, store: StoreSpec[Any], pre: RowImage, post: RowImage) -> ErrorInfo | None:
    """Why the columns of a row cannot hold what the edits of ``op`` make of them; None when they can."""
    for edit in op.edits:
        value = post[edit.field]
        where = f"{op.store}/{op.id}: {edit.field}"
        if value == pre[edit.field]:
            wrong = _unjoined(edit, pre) if edit.kind == "text" else ""
            if wrong:
                return refusal("INVALID", f"{where}: {wrong}", info={"field": edit.field})
            continue
        if edit.kind == "inc" and not INT64_MIN <= _sum(pre[edit.field], edit.operand) <= INT64_MAX:
            return refusal("INVALID", f"{where} would go beyond 64 bits", info={"field": edit.field})
        try:
            for name in columns_of(edit):
                store.canonical(name, post[name])
        except ValidationError as error:
            return refusal("INVALID", f"{where} after {edit.kind}: {error}", info={"field": edit.field})
    return None


def _unjoined(edit: Edit, image: RowImage) -> str:
    """Why the text that is there could not be joined with another one; empty where it could."""
    try:
        joined(_document(text_of(edit.field), image), cast("bytes", edit.operand))
    except BrokenText as error:
        return str(error)
    return ""
