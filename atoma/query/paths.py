"""Places in a document: ``$.size``, ``$.tags[0]``, ``$."a name"``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias, cast

import msgspec

from atoma.contracts.query import PATH, Lit
from atoma.errors import QueryError
from atoma.schema.kinds import INT64_MAX, INT64_MIN

_SEGMENT = re.compile(r"""\.([A-Za-z_][A-Za-z0-9_]*)|\."([^"\\\x00-\x1f']+)"|\[([0-9]{1,9})\]""")
_BYTES_MAX = 256

Segments: TypeAlias = Sequence["str | int"]


def path_literal(value: object) -> Lit:
    """``value``, which says where in a document, as a literal.

    Raises:
        QueryError: It does not.
    """
    if not isinstance(value, str) or len(value.encode(errors="replace")) > _BYTES_MAX or segments_of(value) is None:
        raise QueryError(
            f'a path in a document begins with $ and goes on with .name, ."a name" or [number], not {str(value)[:80]!r}'
        )
    return Lit(PATH, value)


@lru_cache(maxsize=256)
def segments_of(path: str) -> Segments | None:
    """The keys and places that ``path`` goes by; None when it is none."""
    if not path.startswith("$"):
        return None
    segments: list[str | int] = []
    at = 1
    while at < len(path):
        found = _SEGMENT.match(path, at)
        if found is None:
            return None
        plain, quoted, number = found.groups()
        segments.append(int(number) if number is not None else plain or quoted)
        at = found.end()
    return tuple(segments)


def found_at(document: str, path: str) -> object:
    """What stands at ``path`` in ``document``; None for nothing, as for null."""
    value: object = msgspec.json.decode(document)
    for segment in segments_of(path) or ():
        if isinstance(segment, str) and isinstance(value, dict):
            value = cast("dict[str, object]", value).get(segment)
        elif isinstance(segment, int) and isinstance(value, list):
            array = cast("list[object]", value)
            value = array[segment] if segment < len(array) else None
        else:
            return None
    return value


def json_int(document: str, path: str) -> int | None:
    """The whole number of 64 bits at ``path``; None for anything else."""
    value = found_at(document, path)
    whole = isinstance(value, int) and not isinstance(value, bool) and INT64_MIN <= value <= INT64_MAX
    return value if whole else None  # type: ignore[return-value]  # it is one


def json_real(document: str, path: str) -> float | None:
    """The number at ``path``; None for anything else."""
    value = found_at(document, path)
    return float(value) + 0.0 if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def json_text(document: str, path: str) -> str | None:
    """The text at ``path``; None for anything else."""
    value = found_at(document, path)
    return value if isinstance(value, str) else None


def json_bool(document: str, path: str) -> bool | None:
    """The truth at ``path``; None for anything else."""
    value = found_at(document, path)
    return value if isinstance(value, bool) else None


def json_has(document: str, path: str, wanted: object) -> bool:
    """Whether the array at ``path`` has an element of the type and the value of ``wanted``."""
    array = found_at(document, path)
    if not isinstance(array, list):
        return False
    return any(type(each) is type(wanted) and each == wanted for each in cast("list[object]", array))
