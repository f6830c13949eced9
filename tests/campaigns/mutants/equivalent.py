"""Mutants that do what the original does, each with the reason: nothing can kill them, and they do not count."""

from __future__ import annotations

from typing import Final

EQUIVALENT: Final[dict[str, str]] = {
    "42d690969355ecf8": "sync.outbox._mutations: the key of an atomic unit does not depend on the index",
    "a0e2e88ab950807a": "sqlite.connections.open_connection: every number above 0 switches an option of SQLite on",
    "1fc24f620e314980": "sync.replica.PullSchedule: begun and done are only compared with one another, and done is set to begun",
}
"""The reason by the mutant's key; a function that changes gives its mutants new keys, and the reason is asked anew."""
