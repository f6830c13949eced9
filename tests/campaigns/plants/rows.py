"""Ways to spoil rows that are kept when deleted, fetched, merged, or moved by files: F04, F44, F73, and F96."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants.plant import Plant, plant

SOFT = "tests/scenarios/test_soft_delete.py"
SOFT_IN_SYNC = "tests/scenarios/sync/test_soft_delete.py"
HIDDEN = "tests/unit/hub/test_hidden.py"
FETCH = "tests/scenarios/sync/test_fetch.py"
COMPLETE = "tests/scenarios/sync/test_completeness.py"
MERGING = "tests/scenarios/sync/test_merging.py"
FILES = "tests/scenarios/test_transfer.py"

PLANTS: Final[tuple[Plant, ...]] = (
    plant(
        "F04",
        "atoma.query.check:Checker._joins",
        "on = _unhidden(on, number, join.source, scope[number].store) or on",
        "pass",
        "a join shows what was deleted",
        f"{SOFT}::test_no_door_shows_a_deleted_row_and_every_one_shows_it_once_it_is_back",
        "tests/properties/test_hidden_rows.py",
    ),
    plant(
        "F04",
        "atoma_stores.sql.include:_belongs",
        'between.append(f"l.{quote(HIDDEN)} IS NULL")',
        "pass",
        "a row is found by a link that was deleted",
        f"{SOFT}::test_a_link_that_was_deleted_leads_nowhere",
    ),
    plant(
        "F04",
        "atoma.query.indexes",
        "hidden=not index.unique",
        "hidden=True",
        "a value stays taken by a row that was deleted",
        f"{SOFT}::test_a_value_is_free_once_its_row_is_deleted_and_taken_when_it_comes_back",
    ),
    plant(
        "F04",
        "atoma.mutations.deciding:decide",
        'if hidden and op.kind == "patch" and not restores(op):',
        "if False:",
        "a row that was deleted is updated, and nobody sees it",
        f"{SOFT}::test_what_each_write_makes_of_a_deleted_row",
    ),
    plant(
        "F04",
        "atoma.hub.conflicts:decide",
        'if op.kind == "delete" or hides(op):',
        'if op.kind == "delete":',
        "a soft deletion overwrites a change that a deletion may not",
        f"{HIDDEN}::test_for_the_conflict_rules_a_soft_deletion_is_a_deletion",
    ),
    plant(
        "F04",
        "atoma.hub.purging:due",
        "now_ms - int(store.purge_after.total_seconds() * 1000)",
        "now_ms",
        "a hub purges what may still be restored",
        f"{HIDDEN}::test_compaction_purges_what_has_been_hidden_for_long_enough",
    ),
    plant(
        "F04",
        "atoma.schema.agreement",
        "if theirs and ours and (HIDDEN in theirs) is not (HIDDEN in ours):",
        "if False:",
        "a device that does not know of soft delete shows what was deleted",
        f"{SOFT_IN_SYNC}::test_a_device_that_does_not_know_of_soft_delete_does_not_get_the_store",
    ),
    plant(
        "F44",
        "atoma.kernel.policy:network_only",
        "sequence(node(PULL), node(LOCAL_QUERY))",
        "node(LOCAL_QUERY)",
        "network-only answers with what was here",
        f"{FETCH}::test_each_way_answers_as_it_says",
    ),
    plant(
        "F44",
        "atoma.kernel.policy:cache_and_network",
        "sequence(node(LOCAL_QUERY), detach(timeout(step, refresh_s)))",
        "node(LOCAL_QUERY)",
        "cache-and-network never fetches",
        f"{FETCH}::test_a_live_query_begins_with_what_was_fetched",
    ),
    plant(
        "F44",
        "atoma.sync.completeness:ScopeJudge._judged",
        'if progress.state != "live" and not progress.cursor:',
        "if False:",
        "some rows of a first sync are called old, and not incomplete",
        f"{COMPLETE}::test_rows_of_a_first_sync_are_partial_until_the_last_of_them_is_here",
    ),
    plant(
        "F44",
        "atoma.sync.completeness:is_current",
        "following and progress.cursor >= progress.head",
        "following",
        "an answer is called complete while news does not come",
        f"{COMPLETE}::test_news_that_does_not_come_makes_an_answer_stale_and_news_on_its_way_does_not",
    ),
    plant(
        "F44",
        "atoma_stores.live.dispatch:LocalLiveQueries._round",
        "await self._tell(commit, states)",
        "await self._tell(commit, self._completeness.states)",
        "a result is called complete before it has the rows that make it so",
        "tests/unit/reactive/test_live.py::test_a_result_is_not_called_complete_before_it_has_the_rows_that_make_it_so",
    ),
    plant(
        "F73",
        "atoma.mutations.editing:difference",
        "amount = _sum(after, -_sum(before, 0))",
        "amount = _sum(after, 0)",
        "a value that is written to a counter is added to the value that was there",
        f"{MERGING}::test_a_value_that_is_written_travels_as_its_difference",
    ),
    plant(
        "F73",
        "atoma.hub.conflicts:_Merge._added",
        "added |= elements(change.post.get(name)) - elements(before)",
        "pass",
        "an element that somebody else has put into a set again is taken out of it",
        "tests/unit/hub/test_merging.py::test_what_the_log_tells_of_others_decides_and_what_it_no_longer_tells_stays",
    ),
    plant(
        "F73",
        "atoma.hub.conflicts:_is_later",
        "(change.written_ms, change.author) > (seen.written_ms, seen.author)",
        "False",
        "what was written earlier wins when it arrives later",
        f"{MERGING}::test_what_was_written_later_wins_whoever_comes_first",
    ),
    plant(
        "F73",
        "atoma.hub.conflicts:_Merge._settled",
        "return self._custom(op, name, before)",
        "return mine",
        "the hub's function is not asked",
        f"{MERGING}::test_rules_of_fields_decide_field_by_field",
    ),
    plant(
        "F73",
        "atoma.hub.pushing:PushDecision._apply",
        "counts(op) and key in facts.brought and body.base_epoch != facts.epoch",
        "False",
        "an increment counts twice when somebody else has brought the row back with it",
        f"{MERGING}::test_an_increment_that_others_bring_back_with_the_row_is_not_counted_again",
    ),
    plant(
        "F73",
        "atoma.sync.session:open_sync_session",
        "takes_edits = reply.proto >= PROTOCOL_EDITS",
        "takes_edits = True",
        "an older hub takes an increment, and passes over it",
        "tests/golden/test_neighbours.py::test_an_increment_waits_for_a_hub_that_does_not_pass_over_it",
    ),
    plant(
        "F96",
        "atoma.runtime.transfer:_is_there",
        'return error.id == id and spec.is_same(image, cast("RowImage", current))',
        "return error.id == id",
        "a row that is there otherwise is passed over as if it were there alike",
        f"{FILES}::test_what_is_refused_is_told_by_its_line_and_the_rest_is_written",
    ),
    plant(
        "F96",
        "atoma.runtime.table_files:_csv_cells",
        "bare or None",
        "bare",
        "an empty cell becomes an empty text",
        f"{FILES}::test_an_empty_text_is_told_from_none",
    ),
    plant(
        "F96",
        "atoma.runtime.transfer:_new_file",
        "unfinished.unlink()",
        "pass",
        "an export that was cancelled leaves half a file",
        f"{FILES}::test_an_export_that_does_not_end_leaves_nothing",
    ),
    plant(
        "F96",
        "atoma.runtime.transfer:_take",
        "list(islice(rows, AT_ONCE))",
        "list(rows)",
        "an import has the whole file in memory",
        f"{FILES}::test_only_a_part_of_a_file_is_in_memory",
    ),
)
