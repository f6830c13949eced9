"""The conflict inbox for people: base, mine and theirs, field by field."""

from __future__ import annotations

import math
from collections.abc import Mapping

from atoma.contracts.replica import InboxEntry
from atoma.contracts.values import HIDDEN, Scalar, is_gone
from atoma.inspector.views import ConflictView, FieldView
from atoma.schema import Schema

BYTES_SHOWN = 16
LETTERS_SHOWN = 4_000
EXACT_MAX = 2**53 - 1
"""JavaScript's numbers are whole numbers up to this one, and then no longer all of them."""


def plain(value: object) -> object:
    """``value`` as a page can show it; bytes as hexadecimal digits, and numbers that JavaScript has not as text; what is long is cut."""
    if isinstance(value, str) and len(value) > LETTERS_SHOWN:
        return f"{value[:LETTERS_SHOWN]}…"
    if isinstance(value, bytes):
        return value[:BYTES_SHOWN].hex() + ("…" if len(value) > BYTES_SHOWN else "")
    if (isinstance(value, int) and abs(value) > EXACT_MAX) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return value


def shown_values(schema: Schema, store: str, image: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    """``image`` with its booleans; of a store that is declared no more, as it is kept."""
    spec = schema.stores.get(store)
    return image if spec is None else spec.with_booleans(image)


def conflict_view(entry: InboxEntry, schema: Schema, title: str = "") -> ConflictView:
    """``entry`` with the fields that are not the same everywhere; ``title`` is the row's id unless given."""
    return ConflictView(
        mid=entry.mid,
        number=entry.lsn,
        store=entry.store,
        id=entry.id,
        title=title or entry.id,
        code=entry.code,
        message=entry.message,
        at_ms=entry.at_ms,
        deleted_here=is_gone(entry.mine),
        resolution=entry.resolution.replace("_", " "),
        fields=conflict_fields(entry, schema),
    )


def conflict_fields(entry: InboxEntry, schema: Schema) -> tuple[FieldView, ...]:
    """The fields whose base, mine and theirs are not all equal, in the order of the columns."""
    images = [
        None if image is None else shown_values(schema, entry.store, image)
        for image in (entry.base, entry.mine, entry.theirs)
    ]
    names = dict.fromkeys(name for image in images for name in image or {})
    found: list[FieldView] = []
    for name in names:
        base, mine, theirs = (_value(image, name) for image in images)
        if mine != base or theirs != base:
            kept = not is_gone(entry.mine) and mine != base and name != HIDDEN
            found.append(FieldView(name, plain(base), plain(mine), plain(theirs), mine != theirs, kept))
    return tuple(found)


def _value(image: Mapping[str, Scalar] | None, name: str) -> Scalar:
    return None if image is None else image.get(name)
