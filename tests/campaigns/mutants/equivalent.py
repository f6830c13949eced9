"""Mutants that do what the original does, each with the reason: nothing can kill them, and they do not count."""

from __future__ import annotations

from typing import Final

EQUIVALENT: Final[dict[str, dict[str, str]]] = {
    "atoma/hub/direct.py": {
        "6c8f2239d7467df9": "decide: a direct write's number stands in the file; whoever reads numbers joins a client",
        "cedcb13c4a886aca": "decide: as above",
    },
    "atoma/hub/hints.py": {
        "1a63a80e0ff18531": "HintListener.offer: no head is below 0",
        "d34a8ff3afc5708b": "HintListener.offer: as above",
    },
    "atoma/hub/hub.py": {
        "5b95122c36a6fbc3": "_catch_up: what is not noted as carried out is carried out again at the next start, and finds nothing",
    },
    "atoma/hub/presence_sharing.py": {
        "39d6816b9b8f3413": "one more notice in the time that a lease lasts tells nobody anything else",
    },
    "atoma/hub/pushing.py": {
        "ab2140c277a90fa6": "OpenDecision: no client was seen within a millisecond of 1970",
        "7e327d7cfbb7314f": "OpenDecision: as above",
    },
    "atoma/hub/reading.py": {
        "01fdaf0f8e22d120": "LOOKUP_CONDITIONS_MAX: a query by id with 16 conditions is answered the same after a reader's turn",
        "76c0fc9a1ab1f85d": "LOOKUP_CONDITIONS_MAX: as above, with 17 without one",
    },
    "atoma/hub/service.py": {
        "57772c614cd59899": "push: a decision with an error ends the run, so there is one at most",
    },
    "atoma/hub/versions.py": {
        "6e17dd4125e6ca21": "_seen: a step converts what verdicts show, and without one no file has values of another type",
    },
    "atoma/sync/oversize.py": {
        "40f95db43f3f8519": "_empty: what changes nothing is listed nowhere, and nothing but the list tells how often a write was sent",
        "3f29f98cd7bfe6f2": "_empty: as above",
    },
    "atoma/sync/plugin.py": {
        "47e83823bb9b7c66": "Sync.open: a client cancels its tasks, and waits for them, before it closes what its plugins have opened",
    },
    "atoma/sync/pull.py": {
        "531010cf2db21216": "_is_short: a page is written the same on the loop and in a thread, to which it moves one row sooner",
    },
    "atoma/sync/requests.py": {
        "f56df76160e22c01": "opened: the replies of one opening differ in their scopes only, or the history has moved",
    },
    "atoma/sync/scopes.py": {
        "33fc986d02dd39f2": "PullSchedule: begun and done are only compared with one another, and done is set to begun",
        "73fbb01773f7d75a": "PullSchedule: as above",
    },
    "stores/atoma_stores/postgres/fence.py": {
        "168e6a5fc6c99671": "check_known: of one row, the first is the last",
    },
    "stores/atoma_stores/postgres/intake_ddl.py": {
        "38640a60aec24b1c": "DDL_FORM: a letter of a hash more or less tells two forms apart as well",
        "3c9e0f3debf101bb": "DDL_FORM: as above",
    },
    "stores/atoma_stores/postgres/lanes.py": {
        "0882f8cd4281c271": "_until_written: the pause is drawn, and does not end at the moment that is the bound",
    },
    "stores/atoma_stores/postgres/pool.py": {
        "54b40c1cefabc33f": "connection: one that nobody refers to is closed by that",
    },
    "stores/atoma_stores/sqlite/_receipts.py": {
        "da92c31c9947d3c6": "_forget_number: a receipt that has no number stands under none, whichever is asked",
        "fe499bb02c11f26a": "_forget_number: as above",
    },
    "stores/atoma_stores/sqlite/_rows.py": {
        "f26d3dbf939b4d7f": "Known: the first connection is another one than none, which sets the version before it is read",
        "81dec7ad157c42fc": "Known: as above",
        "452f57e6815867a3": "Known: what is known of the file is read, with this, before anybody asks",
        "7400a3d46d997de2": "Known: as above",
    },
    "stores/atoma_stores/sqlite/_scopes.py": {
        "f5fe1591190731c2": "_staged: a row that is read a second time is put there a second time, as it is",
    },
    "stores/atoma_stores/sqlite/_snapshots.py": {
        "78b5bb85a4b86c8e": "_too_long: a read is answered the same on the loop and in a thread, to which it moves a tick of the clock sooner",
    },
    "stores/atoma_stores/sqlite/_tables.py": {
        "8d83c138bd34493a": "_value_getter: the first of one column is the last",
    },
    "stores/atoma_stores/sqlite/codes.py": {
        "882f48e4b272822b": "extended_code: what SQLite tells by apsw is a number always, only the type checker does not know",
        "82fdb3cffeaa3f01": "extended_code: as above",
    },
    "stores/atoma_stores/sqlite/connections.py": {
        "f8e3c0f3980b9335": "open_connection: every number above 0 switches an option of SQLite on",
        "554a11877c52ee35": "open_connection: as above",
    },
    "stores/atoma_stores/sqlite/database.py": {
        "fa3cf976bbb897f9": "Database: every read sets its deadline before it begins",
        "bc0303169d68e2bf": "Database: as above",
        "bfb4b2b5238b6fbf": "Database: as above",
    },
    "stores/atoma_stores/sqlite/device_files.py": {
        "83ead6116d42aca5": "ask_renewal: nothing that it writes has a time",
        "463a1911e041facc": "ask_renewal: as above",
    },
    "stores/atoma_stores/sqlite/migrating.py": {
        "a573774fc3084e12": "_convert_device: no statement after the steps calls their functions",
    },
    "stores/atoma_stores/sqlite/hub_lock.py": {
        "8cf631a20d4806fc": "sole_hub: what stands in for O_CLOEXEC counts on Windows only",
        "b1af4cd7f1eac5e2": "sole_hub: as above",
    },
}
"""The reason by module and key; a function that changes gives its mutants new keys, and the reason is asked anew."""
