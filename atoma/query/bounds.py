"""Whether a filter keeps to the bounds that every door has."""

from __future__ import annotations

import re
from collections.abc import Iterator

from atoma.contracts.limits import (
    CONDITIONS_MAX,
    DEPTH_MAX,
    PARAMETERS_MAX,
    PATTERN_BYTES_MAX,
    PATTERNS_BYTES_MAX,
    VALUES_MAX,
    WILDCARDS_MAX,
)
from atoma.contracts.query import And, Compare, In, Like, Not, Or, Predicate
from atoma.errors import QueryError

_WILDCARDS = re.compile(r"\\.|([%_])", re.DOTALL)


def conditions(where: Predicate | None) -> Iterator[Predicate]:
    """Every condition of ``where``, those that join others included, as long as they keep to the bounds.

    Raises:
        QueryError: There are too many, they are nested too deep, a list of values is too long, or a pattern is.
    """
    left = [] if where is None else [(where, 1)]
    found = values = patterns = 0
    while left:
        node, depth = left.pop()
        found += 1
        if found > CONDITIONS_MAX or depth > DEPTH_MAX:
            raise QueryError(f"a query has at most {CONDITIONS_MAX:,} conditions, nested at most {DEPTH_MAX} deep")
        match node:
            case And(items) | Or(items):
                left.extend((item, depth + 1) for item in reversed(items))
            case Not(item):
                left.append((item, depth + 1))
            case Compare():
                values += 1
            case In(_, among):
                check_values(len(among))
                values += len(among)
            case Like(_, pattern):
                patterns += _pattern_bytes(pattern)
                if patterns > PATTERNS_BYTES_MAX:
                    raise QueryError(
                        f"the patterns of like() in one query have at most {PATTERNS_BYTES_MAX:,} bytes together"
                    )
            case _:
                pass
        if values > PARAMETERS_MAX:
            raise QueryError(f"a query compares with at most {PARAMETERS_MAX:,} values; ask in several queries")
        yield node


def check_filter(where: Predicate | None) -> None:
    """See that ``where`` keeps to the bounds.

    Raises:
        QueryError: It does not.
    """
    for _ in conditions(where):
        pass


def check_values(count: int) -> None:
    """See that ``in_()`` may have ``count`` values.

    Raises:
        QueryError: It may not.
    """
    if count > VALUES_MAX:
        raise QueryError(f"in_() takes at most {VALUES_MAX:,} values, got {count:,}; ask in several queries")


def _pattern_bytes(pattern: str) -> int:
    try:
        size = len(pattern.encode())
    except UnicodeEncodeError:
        raise QueryError("a pattern of like() has a lone surrogate") from None
    if size > PATTERN_BYTES_MAX:
        raise QueryError(
            f"a pattern of like() has at most {PATTERN_BYTES_MAX} bytes, this one has {size:,}: look for a part of it"
        )
    wildcards = sum(map(bool, _WILDCARDS.findall(pattern)))
    if wildcards > WILDCARDS_MAX:
        raise QueryError(
            f"a pattern of like() has at most {WILDCARDS_MAX} wildcards, this one has {wildcards}; "
            r"write \% and \_ for the characters themselves"
        )
    return size
