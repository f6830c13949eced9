"""Mutants that do what the original does, each with the reason: nothing can kill them, and they do not count."""

from __future__ import annotations

from typing import Final

EQUIVALENT: Final[dict[str, str]] = {
    "c175a04a38ccd1ca": "sqlite.connections.open_connection: every number above 0 switches an option of SQLite on",
    "5c7f12bea4b7ab05": "sqlite.connections.open_connection: as above",
    "44919b1d52dca7ee": "sync.replica.PullSchedule: begun and done are only compared with one another, and done is set to begun",
    "8af07fda275145e6": "hub.service.push: a decision with an error ends the run, so there is one at most",
    "128a520da0b4eb61": "hub.direct.WriteDecision: a direct write's number stands in the file; whoever reads numbers joins a client",
    "01cb9fa321621bd9": "hub.direct.WriteDecision: as above",
    "8cf631a20d4806fc": "sqlite.hub_lock.sole_hub: what stands in for O_CLOEXEC counts on Windows only",
    "b1af4cd7f1eac5e2": "sqlite.hub_lock.sole_hub: as above",
    "456c9212738d94dd": "hub.pushing.OpenDecision: no client was seen within a millisecond of 1970",
    "6e2c1e41b28d0fa2": "hub.pushing.OpenDecision: as above",
    "d1ee41fcc1cb63d7": "hub._catch_up: what is not noted as carried out is carried out again at the next start, and finds nothing",
    "39d6816b9b8f3413": "hub.presence_sharing: one more notice in the time that a lease lasts tells nobody anything else",
}
"""The reason by the mutant's key; a function that changes gives its mutants new keys, and the reason is asked anew."""
