"""Ways to lose, or to tell wrongly, what was done at a device: F09, F14, F15, F43, F76, F77, F99, and F110."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants.plant import Plant, plant

STATES = "tests/scenarios/sync/test_write_states.py"
UNDO = "tests/scenarios/sync/test_undo.py"
HISTORY = "tests/unit/stores/test_history.py"
OTHERS = "tests/scenarios/processes/test_writes_of_others.py"
OUTBOX = "tests/scenarios/sync/test_outbox_by_hand.py"
LEAD = "tests/scenarios/processes/test_lead.py"
STATUS = "tests/scenarios/sync/test_status.py"
FUNCTIONS = "tests/unit/reactive/test_live_functions.py"
PREBUILT = "tests/scenarios/sync/test_prebuilt.py"

PLANTS: Final[tuple[Plant, ...]] = (
    plant(
        "F09",
        "atoma.runtime.states:_Following.__anext__",
        "following = await self._receipt.moved(self._last)",
        "await self._receipt.moved(self._last)",
        "the states of a write end with its second one",
        f"{STATES}::test_the_states_of_a_write_are_iterated_and_observed_to_the_last",
    ),
    plant(
        "F09",
        "atoma.runtime.runtime:Runtime.handle",
        "return handle_of(found, int(place), _row_only, self.core)",
        "return handle_of(found, 0, _row_only, self.core)",
        "the handle of one row of many is another row's after a restart",
        f"{STATES}::test_a_restart_finds_the_handle_and_its_states_by_the_key",
    ),
    plant(
        "F14",
        "atoma.runtime.turning:applied",
        "if moved:",
        "if False:",
        "undo overwrites what somebody has written since",
        f"{UNDO}::test_fields_of_others_stay_and_a_field_that_somebody_changed_keeps_the_group_on_the_stack",
    ),
    plant(
        "F14",
        "atoma.runtime.turning:_op",
        "return replace(written_over(spec, row, patch), scope=scope) if patch else None",
        "return replace(written_over(spec, row, patch), scope=scope, base_version=None) if patch else None",
        "undo overwrites at the hub what has not come here yet",
        f"{UNDO}::test_a_foreign_change_that_is_not_here_yet_makes_an_undo_a_rejection_never_an_overwrite",
    ),
    plant(
        "F14",
        "atoma.runtime.undo:_standing",
        "lambda change: not change.refused",
        "lambda change: True",
        "a group of which the hub has refused a write cannot be undone",
        f"{UNDO}::test_a_write_of_the_group_that_was_rejected_is_left_out_and_told",
    ),
    plant(
        "F14",
        "atoma_stores.sqlite._history:_group",
        'connection.execute("DELETE FROM _atoma_undo WHERE stack=? AND undone", (mark.stack,))',
        'connection.execute("DELETE FROM _atoma_undo WHERE undone")',
        "a write of one stack ends what could be redone in another",
        f"{UNDO}::test_stacks_are_kept_over_a_restart_each_for_itself",
    ),
    plant(
        "F15",
        "atoma_stores.sqlite._past:FileHistory._turn_back",
        " WHERE NOT _gone",
        "",
        "rows are in the past before they were made",
        f"{HISTORY}::test_every_commit_above_the_floor_is_read_as_it_was",
    ),
    plant(
        "F15",
        "atoma_stores.sqlite._history:HistoryRecorder.record",
        "if last != number - 1:",
        "if False:",
        "the past is told although a program that keeps none has written in between",
        f"{HISTORY}::test_a_program_without_a_history_beside_one_that_has_one_raises_the_floor",
    ),
    plant(
        "F15",
        "atoma_stores.sqlite._history:HistoryRecorder.forget",
        'self._connection.executemany("DELETE FROM _atoma_history WHERE store=? AND id=?", gone)',
        "pass",
        "a row that must not be here any more is read in the past",
        f"{HISTORY}::test_what_must_not_be_here_goes_from_the_history_too",
    ),
    plant(
        "F43",
        "atoma_stores.sqlite._others:made_by_others",
        "if len(left) + until.raw - since.raw != until.commit - since.commit:",
        "if False:",
        "commits of which nothing is left any more are passed over",
        f"{OTHERS}::test_who_is_too_far_behind_reads_again",
    ),
    plant(
        "F43",
        "atoma_stores.sqlite._others:trigger_steps",
        "key IN ('commit', 'raw', 'version')",
        "key IN ('raw', 'version')",
        "what a tool has written takes no number, so nobody hears of it",
        f"{OTHERS}::test_raw_sql_is_heard_by_a_program_that_does_nothing",
    ),
    plant(
        "F43",
        "atoma_stores.sqlite._units:EngineTx.finish",
        "leave(state.connection, number, changes)",
        "pass",
        "every commit of another program is read again as a whole",
        f"{OTHERS}::test_commits_of_another_program_are_followed_row_by_row",
    ),
    plant(
        "F76",
        "atoma.contracts.replica:ClientIdentity.may_have_sent",
        " or mid <= self.sent_mid",
        "",
        "a write is taken back that the hub may have already",
        f"{OUTBOX}::test_what_was_sent_is_the_hubs_to_decide",
    ),
    plant(
        "F76",
        "atoma.sync.unsent:_Waiting.with_dependents",
        "if lsn in reached or rows & touched:",
        "if lsn in reached:",
        "what builds on a held write is sent without it",
        f"{OUTBOX}::test_a_held_write_stays_while_others_go_and_comes_behind_them",
    ),
    plant(
        "F76",
        "atoma.sync.unsent:_close_ranks",
        "rewritten.append(chain.append_again(mutation, body))",
        "rewritten.append(mutation)",
        "what stands behind a discarded write keeps its old number, and the hub refuses all of it",
        f"{OUTBOX}::test_a_discarded_write_never_was",
    ),
    plant(
        "F76",
        "atoma.sync.unsent:Edited.stage",
        "tx.rows.check_unique(store, id)",
        "pass",
        "an edit gives a row the unique value of another one",
        f"{OUTBOX}::test_an_edit_is_checked_like_a_write",
    ),
    plant(
        "F76",
        "atoma.sync.supervisor:Supervisor._wake_lanes",
        "self.poke()",
        "self._replica.push_wake.poke()",
        "a retry wakes nobody while the hub is away",
        f"{OUTBOX}::test_a_retry_sends_at_once_what_would_wait_for_its_next_attempt",
    ),
    plant(
        "F76",
        "atoma.sync.supervisor:Supervisor.hear",
        "position.hear(commit)",
        "position.is_stale = True",
        "the status says for a while what held before the write",
        f"{STATUS}::test_a_write_is_in_the_status_when_it_returns",
    ),
    plant(
        "F76",
        "atoma.contracts.replica:ClientIdentity.once_sent",
        "if self.may_have_sent(mid) and not (self.sent_mid == SENT_UNKNOWN and mid == last):",
        "if mid <= self.sent_mid:",
        "of what an earlier version has sent all but the first request may be taken back",
        f"{OUTBOX}::test_what_an_earlier_version_may_have_sent_stays_the_hubs_to_decide_until_all_of_it_was_sent",
    ),
    plant(
        "F77",
        "atoma.sync.writebacks:ReplicationPart.stage",
        "if tx.scopes.term() != change.term:",
        "if False:",
        "a program that slept through the end of its reign moves the cursor",
        f"{LEAD}::test_a_transaction_of_an_earlier_reign_changes_nothing",
    ),
    plant(
        "F77",
        "atoma_stores.sqlite._companions:Companions.beat",
        " or leader in self._silent(beats, now, LEASE_S)",
        "",
        "nobody takes the lanes over from a program that was killed or stopped",
        f"{LEAD}::test_another_process_takes_the_lanes_over",
    ),
    plant(
        "F40",
        "atoma_stores.live.dispatch:LocalLiveQueries.advance",
        "if self._lacking:",
        "if False:",
        "a reader is told of a commit while other results of the same database lack it",
        "tests/unit/reactive/test_live_rounds.py::test_a_reader_is_not_told_before_what_others_lack_was_read",
    ),
    plant(
        "F99",
        "atoma_stores.live.operators.function:FunctionOperator.collect",
        "if told == self._value:",
        "if False:",
        "an equal value of a function is told again",
        f"{FUNCTIONS}::test_a_function_is_followed_by_what_it_has_read",
    ),
    plant(
        "F99",
        "atoma_stores.live.operators.function:FunctionOperator.concerns",
        "if self._stale or not settled:",
        "if True:",
        "a function is carried out for every change of a store that it reads",
        f"{FUNCTIONS}::test_a_key_that_it_has_read_is_what_concerns_it",
    ),
    plant(
        "F99",
        "atoma_stores.live.operators.function:FunctionOperator._note",
        "self._read.setdefault(store, []).append(operator)",
        "self._read[store] = [operator]",
        "of two reads of one store the first is not followed",
        f"{FUNCTIONS}::test_a_function_is_followed_by_what_it_has_read",
    ),
    plant(
        "F110",
        "atoma_stores.sqlite.prebuilt:own_identity",
        "if identity.client_id == NOBODY:",
        "if told is None:",
        "every copy of a shipped file is the same client",
        f"{PREBUILT}::test_each_copy_is_somebody_of_its_own",
    ),
    plant(
        "F110",
        "atoma_stores.sqlite.prebuilt:_strip",
        'connection.execute(f"DELETE FROM {table}")',
        "pass",
        "what the builder did is in everybody's file",
        f"{PREBUILT}::test_nothing_of_the_builder_is_in_the_file",
    ),
    plant(
        "F110",
        "atoma_stores.sqlite.prebuilt:_strip",
        'NOBODY, 1, 1, b"", 0, identity.hub_id, "",',
        'NOBODY, 1, 1, b"", 0, b"", "",',
        "a shipped file is taken to a hub that it was not made for",
        f"{PREBUILT}::test_a_copy_belongs_to_the_hub_it_was_made_for_and_then_to_its_first_user",
    ),
)
