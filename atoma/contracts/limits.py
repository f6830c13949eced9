"""The bounds of a query, in one table: the builder, the engines, the wire and the hub refuse what is beyond them alike."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

DEPTH_MAX = 32
"""Conditions within conditions."""
MUTATION_OPS = 1_000
"""Operations of one mutation, unless a hub says otherwise."""
IDEM_BYTES = 200
"""UTF-8 bytes of the idempotency key of a write."""
CONDITIONS_MAX = 1_000
"""Conditions of one query, those that join others included."""
SOURCES_MAX = 8
"""Stores and plans that one plan reads, its joins included."""
COLUMNS_MAX = 64
"""Columns of a result, keys of a group, sort keys."""
PLANS_MAX = 64
"""Plans within a query: subqueries, derived tables, branches of includes."""
INCLUDES_DEEP_MAX = 4
"""Includes within includes."""
INCLUDES_MAX = 16
"""Branches of all includes of a query."""
VALUES_MAX = 1_000
"""Values of one ``in_()``."""
PARAMETERS_MAX = 4_096
"""Values that one query compares with, those of every ``in_()`` included."""
PARAMETERS_BYTES_MAX = 64 * 1024
"""UTF-8 bytes of the texts, and bytes, that one query compares with, together."""
QUERY_BYTES_MAX = 128 * 1024
"""Bytes of a query as it travels, its values included."""
OFFSET_MAX = 100_000
"""Rows that are skipped: each of them is read nevertheless."""
PATTERN_BYTES_MAX = 256
"""UTF-8 bytes of one pattern of ``like`` or ``regex``: what one row costs is its text times its pattern, and nothing stops SQLite within
a row."""
WILDCARDS_MAX = 8
"""Unescaped ``%`` and ``_`` of one pattern of ``like``."""
PATTERNS_BYTES_MAX = 2_048
"""UTF-8 bytes of all patterns of one query together."""
REPLACED_MAX = 1_000_000
"""Characters of what ``replace`` makes of a text: each one within another could make it many times as long."""
REGEXES_MAX = 8
"""Regular expressions of one query: a hub compiles them on its loop, before it knows whether the query is any good."""
REGEX_MEMORY = 128 * 1024
"""Bytes that a regular expression may take: they bound its program, to some thousand steps, and with these the time that it takes
to compile one, a millisecond or so."""
REGEX_STEPS_MAX = 100_000_000
"""Bytes of a text times steps of the regular expression that looks through it: at most that much is done for one row, about a
second of it."""
GROUPS_MAX = 10_000
"""Groups of an answer; they are counted as it is made."""
ROWS_MAX = 10_000
"""Rows of a hub's answer."""
LIVE_SQL_ROWS_MAX = 100_000
"""Rows of a statement that is followed."""
LIVE_SQL_S = 10.0
"""Seconds that such a statement may take: every other live result of the client waits for it."""


class Bounds(msgspec.Struct, frozen=True):
    """The bounds that a query is held to: those of the table, or lower ones of a hub that wants less.

    Attributes:
        depth: See :data:`DEPTH_MAX`, and so on.
        conditions: See above.
        sources: See above.
        columns: See above.
        plans: See above.
        includes_deep: See above.
        includes: See above.
        values: See above.
        parameters: See above.
        parameters_bytes: See above.
        query_bytes: See above.
        offset: See above.
        pattern_bytes: See above.
        wildcards: See above.
        patterns_bytes: See above.
        regexes: See above.
        groups: See above.
    """

    depth: int = DEPTH_MAX
    conditions: int = CONDITIONS_MAX
    sources: int = SOURCES_MAX
    columns: int = COLUMNS_MAX
    plans: int = PLANS_MAX
    includes_deep: int = INCLUDES_DEEP_MAX
    includes: int = INCLUDES_MAX
    values: int = VALUES_MAX
    parameters: int = PARAMETERS_MAX
    parameters_bytes: int = PARAMETERS_BYTES_MAX
    query_bytes: int = QUERY_BYTES_MAX
    offset: int = OFFSET_MAX
    pattern_bytes: int = PATTERN_BYTES_MAX
    wildcards: int = WILDCARDS_MAX
    patterns_bytes: int = PATTERNS_BYTES_MAX
    regexes: int = REGEXES_MAX
    groups: int = GROUPS_MAX

    def lower(self) -> dict[str, int]:
        """Those that are lower than the table's, by name."""
        table, own = msgspec.structs.asdict(BOUNDS), msgspec.structs.asdict(self)
        return {name: bound for name, bound in own.items() if bound < table[name]}

    @staticmethod
    def lowered(told: Mapping[str, int]) -> Bounds:
        """The table with what somebody has announced to be lower; names that are not known are passed over."""
        table: dict[str, int] = msgspec.structs.asdict(BOUNDS)
        return Bounds(**{name: min(bound, told.get(name, bound)) for name, bound in table.items()})


BOUNDS = Bounds()
"""The table."""
