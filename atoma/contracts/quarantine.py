"""What a migration has put aside."""

from __future__ import annotations

import msgspec


class Quarantined(msgspec.Struct, frozen=True):
    """Something that a migration could not convert, and has put aside.

    Attributes:
        number: Which entry it is.
        store: Store of the row.
        id: Id of the row.
        what: What it was: ``a row``, ``a confirmed row``, ``a write that waits``, ``an entry of the log`` …
        reason: Why it could not be converted, for a person.
        version: Version of the schema that it is of.
        kept: Its values, as columns held them then; bytes as hexadecimal digits.
    """

    number: int
    store: str
    id: str
    what: str
    reason: str
    version: int
    kept: dict[str, object]
