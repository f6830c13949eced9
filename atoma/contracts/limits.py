"""The bounds of a query, in one table: the builder, the engines, the wire and the hub refuse what is beyond them alike."""

from __future__ import annotations

DEPTH_MAX = 32
"""Conditions within conditions."""
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
PATTERN_BYTES_MAX = 256
"""UTF-8 bytes of one pattern of ``like``: what one row costs is its text times its pattern, and nothing stops SQLite within
a row."""
WILDCARDS_MAX = 8
"""Unescaped ``%`` and ``_`` of one pattern."""
PATTERNS_BYTES_MAX = 2_048
"""UTF-8 bytes of all patterns of one query together."""
ROWS_MAX = 10_000
"""Rows of a hub's answer."""
