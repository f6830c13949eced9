"""What SQLite lacks: sums that are exact, those of reals rounded once, and functions that mean here what they do in Python."""

# pyright: reportUnknownMemberType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import TypeAlias

import apsw
import msgspec

from atoma.contracts.values import Scalar
from atoma.query.functions import AGGREGATED, MEANINGS, rounded, to_int, to_real, whole
from atoma.query.searching import fts_text, parsed
from atoma_stores.sql.functions import (
    AVG,
    DIGEST,
    FTS,
    HIGHLIGHT,
    MATCHES,
    NEAR,
    OURS,
    RANK,
    REGEX,
    REPLACE,
    ROUND,
    SNIPPET,
    SUM,
    TO_INT,
    TO_REAL,
    WHOLE,
    WHOLE_SUM,
)

Values: TypeAlias = "list[int | float]"


def add_functions(connection: apsw.Connection) -> None:
    """Let statements on ``connection`` use them."""
    for name, scalar, takes in ((WHOLE, _whole, 1), (ROUND, _round, 2), (TO_INT, _to_int, 1), (TO_REAL, _to_real, 1)):
        connection.create_scalar_function(name, scalar, takes, flags=apsw.SQLITE_DETERMINISTIC)
    for name in (MATCHES, RANK, HIGHLIGHT, SNIPPET, REPLACE, REGEX):
        of_texts: Callable[..., Scalar] = partial(_meant, name.removeprefix(OURS))
        connection.create_scalar_function(name, of_texts, -1, flags=apsw.SQLITE_DETERMINISTIC)
    connection.create_scalar_function(FTS, _fts, 2, flags=apsw.SQLITE_DETERMINISTIC)
    connection.create_scalar_function(NEAR, _near, 1, flags=apsw.SQLITE_DETERMINISTIC)
    connection.create_scalar_function(DIGEST, digest_of, -1, flags=apsw.SQLITE_DETERMINISTIC)
    for name, meaning in ((SUM, "sum"), (AVG, "avg")):
        connection.create_aggregate_function(name, _factory(meaning), 1, flags=apsw.SQLITE_DETERMINISTIC)
    connection.create_scalar_function(WHOLE_SUM, _whole_sum, 2, flags=apsw.SQLITE_DETERMINISTIC)


def _factory(meaning: str) -> Callable[[], tuple[Values, Callable[..., None], Callable[[Values], float | None]]]:
    final = AGGREGATED[meaning]

    def begin() -> tuple[Values, Callable[..., None], Callable[[Values], float | None]]:
        return [], _step, final

    return begin


def _whole_sum(*halves: object) -> int | None:
    """The sum of whole numbers from those of their upper and lower halves; it does not depend on their order."""
    high, low = halves
    if not isinstance(high, int) or not isinstance(low, int):
        return None
    final = AGGREGATED["sum"]([(high << 32) + low])
    assert isinstance(final, int)
    return final


def _step(values: Values, value: float | None) -> None:
    if value is not None:
        values.append(value)


def _whole(*args: Scalar) -> Scalar:
    """A result of whole numbers; SQLite goes on with a real when 64 bits do not hold it."""
    value = args[0]
    return whole(2**64) if isinstance(value, float) else value


def _round(*args: Scalar) -> float | None:
    value, places = args
    return rounded(value, places) if isinstance(value, float) and isinstance(places, int) else None


def _to_int(*args: Scalar) -> int | None:
    value = args[0]
    return to_int(value) if isinstance(value, (float, str)) else value if isinstance(value, int) else None


def _to_real(*args: Scalar) -> float | None:
    value = args[0]
    return to_real(value) if isinstance(value, (int, str)) else None


def _meant(name: str, *args: Scalar) -> Scalar:
    found: Scalar = MEANINGS[name](args)
    return found


def _fts(*args: Scalar) -> str:
    """A search as FTS5 takes it; the second argument has the words of the index, as JSON, where it may mean others."""
    text, known = args
    assert isinstance(text, str)
    return fts_text(text, msgspec.json.decode(known, type=list[str]) if isinstance(known, str) else ())


def _near(*args: Scalar) -> bool:
    """Whether a search may mean other words than it has."""
    text = args[0]
    assert isinstance(text, str)
    return bool(parsed(text).near)


def digest_of(*texts: Scalar) -> bytes:
    """What tells one row of texts from another."""
    return blake2b(msgspec.msgpack.encode(texts), digest_size=8).digest()
