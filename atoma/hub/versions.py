"""What a client of an earlier version is shown: rows and conflicts in the fields of its time.

It sends its version with each request; nothing is kept about it. What it writes is brought to today's version where it is read,
see :func:`atoma.schema.bodies.decode_body`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from msgspec.structs import replace

from atoma.contracts.sync import Conflict, Outcome
from atoma.contracts.values import RowImage, as_image
from atoma.errors import RemoteError, ValidationError
from atoma.schema.schema import Schema

Sees: TypeAlias = Callable[[str, str, str, RowImage], bool]
"""Whether somebody sees a row now, by its scope, its store, its id and what it holds."""


def check_version(schema: Schema, version: int) -> None:
    """Refuse a client of a version to which no way leads back; 0 is the hub's own.

    Raises:
        RemoteError: ``SCHEMA_TOO_OLD``.
    """
    for past in schema.past(version).values():
        if past.one_way:
            message = (
                f"the client has schema version {version}, the hub {schema.version}, and no way leads back over the "
                f"{past.one_way}; upgrade the client"
            )
            raise RemoteError(message, remote_code="SCHEMA_TOO_OLD", info={"hub_version": str(schema.version)})


def shown_to(outcomes: Iterable[Outcome], schema: Schema, version: int, sees: Sees) -> tuple[Outcome, ...]:
    """``outcomes`` for a client of ``version``; 0 is the hub's own.

    They are kept as they were decided. Whoever asks again, and may not see a row of theirs any more, gets them without it.
    """

    def shown(outcome: Outcome) -> Outcome:
        seen = (_seen(item, outcome.scope, schema, sees) for item in outcome.conflicts)
        told = (_conflict(item, schema, version) for item in seen)
        return replace(outcome, conflicts=tuple(filter(None, told)))

    return tuple([shown(outcome) if outcome.conflicts else outcome for outcome in outcomes])


def _seen(conflict: Conflict, scope: str, schema: Schema, sees: Sees) -> Conflict:
    """``conflict``, without its row where that may not be seen."""
    if conflict.current is None:
        return conflict
    store = schema.stores.get(conflict.store)
    if store is not None:
        try:
            if sees(scope, store.name, conflict.id, store.unpack(as_image(conflict.current))):
                return conflict
        except (ValidationError, TypeError, KeyError):
            pass  # an older schema has written it, and nobody can tell
    return replace(conflict, current=None)


def _conflict(conflict: Conflict, schema: Schema, version: int) -> Conflict | None:
    """A conflict as the client knows its fields; None where the row cannot be shown: it has the hub's row from its pages."""
    past, store = schema.past(version).get(conflict.store), schema.stores.get(conflict.store)
    if past is None or store is None:
        return conflict
    named = replace(conflict, fields=past.names_then(conflict.fields), dropped=past.names_then(conflict.dropped))
    if conflict.current is None:
        return named
    try:
        image = past.downgrade(store.unpack(as_image(conflict.current)))
    except (ValidationError, TypeError):
        return None
    return replace(named, current={**past.pack(image)})
