"""The quarantine of migrations."""

from __future__ import annotations

import msgspec


class Quarantined(msgspec.Struct, frozen=True):
    """A value that a migration could not convert and has put into quarantine.

    Attributes:
        number: The number of the entry.
        store: Store of the row.
        id: Id of the row.
        what: The kind of value: ``a row``, ``a confirmed row``, ``a write that waits``, ``an entry of the log`` …
        reason: Why it could not be converted, for people.
        version: The version of its schema.
        kept: Its values as its columns held them; bytes as hexadecimal digits.
    """

    number: int
    store: str
    id: str
    what: str
    reason: str
    version: int
    kept: dict[str, object]
