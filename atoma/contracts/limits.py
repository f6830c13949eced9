"""The limits of a query, in one table, by which the builder, the engines, the protocol and the hub all refuse a larger query."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

DEPTH_MAX = 32
"""Maximum depth of conditions within conditions."""
MUTATION_OPS = 1_000
"""Maximum number of operations in one mutation, unless a hub says otherwise."""
IDEM_BYTES = 200
"""Maximum size of a write's idempotency key, in bytes of UTF-8."""
CONDITIONS_MAX = 1_000
"""Maximum number of conditions in one query, including those that combine others."""
SOURCES_MAX = 8
"""Maximum number of stores and plans that one plan reads, its joins included."""
COLUMNS_MAX = 64
"""Maximum number of columns of a result, of keys of a group, and of sort keys."""
PLANS_MAX = 64
"""Maximum number of plans within a query: subqueries, derived tables, branches of includes."""
INCLUDES_DEEP_MAX = 4
"""Maximum depth of includes within includes."""
INCLUDES_MAX = 16
"""Maximum number of branches of all includes of a query."""
IN_VALUES_MAX = 1_000
"""Maximum number of values of one ``in_()``."""
PARAMETERS_MAX = 4_096
"""Maximum number of values that one query compares with, those of every ``in_()`` included."""
PARAMETERS_BYTES_MAX = 64 * 1024
"""Maximum size of all texts (in UTF-8) and byte strings that one query compares with, in bytes."""
QUERY_BYTES_MAX = 128 * 1024
"""Maximum size of an encoded query with its values, in bytes."""
OFFSET_MAX = 100_000
"""Maximum number of rows that are skipped: each of them is read nevertheless."""
PATTERN_BYTES_MAX = 256
"""Maximum size of a pattern of ``like`` or ``regex``, in bytes of UTF-8: a row costs its text times its pattern, and nothing stops SQLite within
a row."""
WILDCARDS_MAX = 8
"""Maximum number of unescaped ``%`` and ``_`` in one pattern of ``like``."""
PATTERNS_BYTES_MAX = 2_048
"""Maximum size of all patterns of one query together, in bytes of UTF-8."""
REPLACED_MAX = 1_000_000
"""Maximum length of a result of ``replace``, in characters: nested calls could each make a text many times as long."""
REGEXES_MAX = 8
"""Maximum number of regular expressions in one query: a hub compiles them on its loop, before it knows whether the query is valid."""
REGEX_MEMORY = 128 * 1024
"""Maximum memory of a regular expression, in bytes: it limits the program to some thousand steps, and with them the time that it takes
to compile one, a millisecond or so."""
REGEX_STEPS_MAX = 100_000_000
"""Maximum product of a text's bytes and the steps of the regular expression that searches it: the work for one row, about a
second of it."""
TEXT_BYTES_MAX = 48 * 1024
"""UTF-8 bytes of a text that merges."""
TEXT_STATE_BYTES_MAX = 96 * 1024
"""Bytes of a text that merges, with what is kept of its edits: it travels whole with each of them."""
TEXT_PIECES_MAX = 1_500
"""Pieces of such a text, as insertions and deletions divide it; an edit makes two or three. To read and to join as many takes a hub ten
milliseconds or so, whatever they are."""
TEXT_COMPARED_MAX = 5_000
"""Comparisons of pieces that several have put into one place without knowing of each other, in one text: they say which comes first."""
TEXTS_MAX = 20
"""Texts that one unit joins with what is there: it is decided in one go, and others wait."""
GROUPS_MAX = 10_000
"""Maximum number of groups in an answer; they are counted while it is computed."""
ROWS_MAX = 10_000
"""Maximum number of rows in a hub's answer."""
LIVE_SQL_ROWS_MAX = 100_000
"""Maximum number of rows of a statement that is followed live."""
LIVE_SQL_S = 10.0
"""Maximum duration of such a statement, in seconds: every other live result of the client waits for it."""


class Bounds(msgspec.Struct, frozen=True):
    """The limits for a query: those of the table, or lower ones that a hub sets.

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
    values: int = IN_VALUES_MAX
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
        """Return the limits that are lower than the table's, by name."""
        table, own = msgspec.structs.asdict(BOUNDS), msgspec.structs.asdict(self)
        return {name: bound for name, bound in own.items() if bound < table[name]}

    @staticmethod
    def lowered(told: Mapping[str, int]) -> Bounds:
        """Return the table with the lower limits that the other side has announced; unknown names are ignored."""
        table: dict[str, int] = msgspec.structs.asdict(BOUNDS)
        return Bounds(**{name: min(bound, told.get(name, bound)) for name, bound in table.items()})


BOUNDS = Bounds()
"""The table."""
