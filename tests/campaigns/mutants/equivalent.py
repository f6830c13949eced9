"""Mutants that do what the original does, each with the reason: nothing can kill them, and they do not count."""

from __future__ import annotations

from typing import Final

EQUIVALENT: Final[dict[str, str]] = {
    "42d690969355ecf8": "sync.outbox._mutations: the key of an atomic unit does not depend on the index",
    "a0e2e88ab950807a": "sqlite.connections.open_connection: every number above 0 switches an option of SQLite on",
    "44919b1d52dca7ee": "sync.replica.PullSchedule: begun and done are only compared with one another, and done is set to begun",
    "fcfd423d40cff787": "hub.service.push: a step with an error ends the run, so there is one at most",
    "cd7d2cc5b8c69d6c": "hub.direct.WriteStep: a direct write's number stands in the file; whoever reads numbers joins a client",
    "3fcd4007ffc96859": "hub.direct.WriteStep: as above",
    "71cdbae92277f1fc": "sqlite.engine.read: there is one id",
    "344cf2985d3f5af0": "sqlite.hub_lock.sole_hub: what stands in for O_CLOEXEC counts on Windows only",
    "564908d1e7587bff": "sqlite.hub_lock.sole_hub: as above",
}
"""The reason by the mutant's key; a function that changes gives its mutants new keys, and the reason is asked anew."""
