"""Ways to break repair: F119, with the faults that the model of the design was tried with."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants.plant import Plant

SCENARIOS = "tests/scenarios/sync"
REPAIR, OFFERS = f"{SCENARIOS}/test_repair.py", f"{SCENARIOS}/test_offers.py"
AGAIN, SEVERAL = f"{SCENARIOS}/test_repeated_repairs.py", f"{SCENARIOS}/test_several_hubs.py"
SMALL = f"{SCENARIOS}/test_small_messages.py"
LOST, ADOPTION = f"{SCENARIOS}/test_lost_histories.py", f"{SCENARIOS}/test_adoption.py"

PLANTS: Final[tuple[Plant, ...]] = (
    Plant(
        "F119",
        "atoma_stores.sql.hub.upkeep:raise_floors",
        "WHERE e.ended_ms>=k.before",
        "WHERE e.ended_ms<0 AND e.ended_ms>=k.before",
        why="the floor rises over the end of an epoch that devices still offer from",
        tests=(f"{REPAIR}::test_what_was_written_since_the_restore_is_never_overwritten",),
    ),
    Plant(
        "F119",
        "atoma.sync.repair.diagnosis:diagnose",
        "missing = tx.outbox.first_missing(last)",
        "missing = None",
        why="a hub that has lost verdicts and nothing that could be offered is not found out",
        tests=(f"{REPAIR}::test_a_restore_that_cost_a_device_nothing_but_its_verdicts",),
    ),
    Plant(
        "F119",
        "atoma.sync.repair.diagnosis:diagnose",
        "missing = tx.outbox.first_missing(last)",
        "missing = None if following is not None else last + 1",
        why="only the next number is looked for: what was accepted behind a refusal that the hub has lost waits until "
        "something else goes wrong",
        tests=(f"{AGAIN}::test_what_was_accepted_behind_a_refusal_is_sent_again_by_a_device_that_writes_nothing_more",),
    ),
    Plant(
        "F119",
        "atoma.sync.requests:PageRequests._fitting",
        "if not self._bytes.shrink(error):",
        "if True:",
        why="a repair asks for pages of one size, and begins again for ever where that is too large",
        tests=(f"{SMALL}::test_a_repair_gets_through_with_small_pages",),
    ),
    Plant(
        "F119",
        "atoma.sync.repair.procedure:look_up",
        "if not size.shrink(error, len(some)):",
        "if True:",
        why="a repair asks for as many verdicts at once as a hub takes, whatever is on the way",
        tests=(f"{SMALL}::test_a_repair_asks_for_as_many_verdicts_as_get_through",),
    ),
    Plant(
        "F119",
        "atoma.sync.requests:opened",
        "if not size.shrink(error, len(some)):",
        "if True:",
        why="a device of many scopes asks for all of them at once, whatever is on the way",
        tests=(f"{SMALL}::test_a_repair_gets_through_with_small_pages",),
    ),
    Plant(
        "F119",
        "atoma.sync.push:_from",
        "if not found and",
        "if tx.outbox.queued(limit=1, max_bytes=1) and not found and",
        why="a lane with nothing queued sleeps through a number that it can never send",
        tests=(
            "tests/unit/sync/test_over_own_ports.py::"
            "test_the_push_lane_does_not_wait_for_a_number_that_has_left_the_outbox",
        ),
    ),
    Plant(
        "F119",
        "atoma_stores.sql.hub.state:State._named",
        "if renamed:",
        "if False:",
        why="a mutation that comes under a new name is not looked up under its first one: copies of a file double it",
        tests=(f"{REPAIR}::test_a_write_that_was_numbered_anew_is_known_under_its_first_name",),
    ),
    Plant(
        "F119",
        "atoma.sync.repair.rebirth:capped",
        "base_seq=min(body.base_seq, fork.seq), base_epoch",
        "base_seq=body.base_seq, base_epoch",
        why="what was seen of a lost history counts in the new one: a pending write overwrites what it has not seen",
        tests=(f"{LOST}::test_a_base_of_a_lost_history_does_not_hide_what_was_written_since",),
    ),
    Plant(
        "F119",
        "atoma.hub.conflicts:decide_doubtful",
        "if joins(op) or not (counts(op) or others.any or others.forgotten):",
        "if True:",
        why="a write that may have been decided is decided again, over what came after it",
        tests=(f"{REPAIR}::test_what_a_restored_file_had_pending_is_never_decided_twice",),
    ),
    Plant(
        "F119",
        "atoma.hub.conflicts:decide_doubtful",
        " and not nowhere_to_go",
        "",
        why="a change of a row that is gone is told as done, and nothing of it is kept",
        tests=(f"{REPAIR}::test_a_forgotten_device_keeps_what_it_changed_on_a_row_that_is_gone",),
    ),
    Plant(
        "F119",
        "atoma.hub.recovery:_take_row",
        "if written and not in_texts and not work.is_same(key, image):",
        "if False:",
        why="an offer overwrites what was written since the restore",
        tests=(f"{REPAIR}::test_what_was_written_since_the_restore_is_never_overwritten",),
    ),
    Plant(
        "F119",
        "atoma.hub.recovery:_take_row",
        "superseded = trace is not None and trace.position > offer.position",
        "superseded = trace is not None",
        why="the first device to come back is believed, not the one that has seen most",
        tests=(f"{REPAIR}::test_the_device_that_has_seen_most_wins_in_any_order",),
    ),
    Plant(
        "F119",
        "atoma.hub.pushing:PushDecision.decide",
        'outcome.error is not None and outcome.error.code != "DENIED"',
        "outcome.error is not None",
        why="somebody who may not write in a scope has a row come back there that others have deleted",
        tests=("tests/unit/hub/test_epochs.py::test_an_offer_of_somebody_who_may_not_write_decides_nothing",),
    ),
    Plant(
        "F119",
        "atoma.hub.recovery:_is_told",
        "(trace is None or trace.refused < facts.recovered_until)",
        "True",
        why="a row whose best offer is refused is nowhere, for older ones are passed over",
        tests=(
            "tests/scenarios/sync/test_refused_offers.py::test_the_best_offer_that_is_not_refused_is_taken_in_any_order",
        ),
    ),
    Plant(
        "F119",
        "atoma.sync.repair.ordering:units",
        "if not givers:",
        "if True:",
        why="rows that have exchanged unique values are offered one by one, and never fit",
        tests=(
            "tests/scenarios/sync/test_repair_wide.py::test_rows_that_have_exchanged_unique_values_come_back_together",
        ),
    ),
    Plant(
        "F119",
        "atoma.sync.repair.offers:Offers.add",
        "if beyond.recovers.proof and not beyond.part:",
        "if False:",
        why="nobody says that everything was brought: rows that came and went rise again",
        tests=(f"{OFFERS}::test_the_best_witness_is_believed_whoever_comes_first",),
    ),
    Plant(
        "F119",
        "atoma.hub.recovery:_counts_late",
        "return still_there and not facts.deletes",
        "return False",
        why="while a deletion is held back, who comes first decides what the row is",
        tests=(f"{OFFERS}::test_deletions_that_are_held_back_leave_the_row_as_it_was_last_seen",),
    ),
    Plant(
        "F119",
        "atoma.hub.recovery:withdrawn",
        "facts.deletes or not trace.survivor",
        "True",
        why="a deletion that nobody has allowed is carried out",
        tests=(f"{OFFERS}::test_deletions_that_are_held_back_leave_the_row_as_it_was_last_seen",),
    ),
    Plant(
        "F119",
        "atoma.hub.recovery:check_offer",
        "if not unproven and not hmac",
        "if False and not hmac",
        why="the liar is believed: a position that the hub never had decides who wins",
        tests=("tests/unit/hub/test_epochs.py::test_a_position_that_was_never_reached_decides_nothing",),
    ),
    Plant(
        "F119",
        "atoma.hub.recovery:_take_row",
        "if trace is not None or facts.recovered_until:",
        "if False:",
        why="of two rows that nothing proves, the second overwrites the first in silence",
        tests=(f"{OFFERS}::test_what_is_proved_counts_more_than_what_is_not",),
    ),
    Plant(
        "F119",
        "atoma.hub.lineage:fork",
        "return min(common, end) if contradicted else end",
        "return min(common, end)",
        why="the fork is only known from the trail: what is offered is too much, and meets what was written since",
        tests=("tests/unit/hub/test_epochs.py", f"{SCENARIOS}/test_restores.py"),
    ),
    Plant(
        "F119",
        "atoma.hub.lineage:fork",
        "return min(common, lineage.began)",
        "return common",
        why="a row that was brought back to its old place counts as one that the restored hub had kept",
        tests=(f"{SCENARIOS}/test_untold.py",),
    ),
    Plant(
        "F119",
        "atoma.sync.session:_take_over",
        "(parted.moved | parted.placeless) - parted.forks.keys()",
        "parted.moved - parted.forks.keys()",
        why="an ack of a lost history is taken for a verdict, and the refused write is nowhere",
        tests=(f"{SCENARIOS}/test_untold.py",),
    ),
    Plant(
        "F119",
        "atoma.sync.session:open_sync_session",
        "    if opening.verdicts:",
        "    if False:",
        why="verdicts that the opening told are left for a page that a forgotten client never gets",
        tests=(f"{SCENARIOS}/test_untold.py",),
    ),
    Plant(
        "F119",
        "atoma.sync.repair.rebirth:_Numbering.add",
        "        if self._other_hub:  # it has lost nothing\n            body = replace(body, recovers=None)\n",
        "",
        why="an offer to the old hub goes to the new one, which takes it for a lie",
        tests=(f"{ADOPTION}::test_an_offer_that_waits_is_no_offer_to_another_hub",),
    ),
    Plant(
        "F119",
        "atoma.sync.repair.rebirth:_Numbering._have_all_come",
        " and (self._missing is None or mid < self._missing)",
        "",
        why="a device says that it has brought everything, although the hub has lost how it took or refused a part of it",
        tests=(
            f"{AGAIN}::test_that_all_has_been_offered_is_not_said_when_the_hub_has_lost_a_part_of_it_again",
            f"{AGAIN}::test_that_all_has_been_offered_is_not_said_when_an_offer_was_refused_in_a_history_that_is_gone",
        ),
    ),
    Plant(
        "F119",
        "atoma.sync.repair.diagnosis:made_too_often",
        "len(recent) >= REPEATED_MAX",
        "len(recent) >= 9 * REPEATED_MAX",
        why="two hubs under one address let a file be repaired again and again",
        tests=(
            f"{SCENARIOS}/test_repair_told.py::"
            "test_repairs_in_vain_are_counted_in_the_file_and_the_reason_says_what_may_be_wrong",
        ),
    ),
    Plant(
        "F119",
        "atoma.hub.conflicts:decide",
        "if store.is_same(made, current):",
        "if False:",
        why="a creation that another device has brought back after a restore comes to the inbox of who made it",
        tests=(
            f"{SCENARIOS}/test_packed_values.py::test_a_creation_that_somebody_else_has_brought_back_is_in_no_inbox",
        ),
    ),
    Plant(
        "F119",
        "atoma.sync.session:open_sync_session",
        "if parted.mended or opening.fault.cause",
        "if opening.fault.cause",
        why="a file whose repair waits takes the snapshot of a restored hub, and offers nothing of what that has lost",
        tests=(
            f"{SCENARIOS}/test_repair_told.py::"
            "test_a_file_that_waits_for_its_repair_does_not_follow_a_hub_that_has_lost_what_it_holds",
        ),
    ),
    Plant(
        "F119",
        "atoma.sync.session:_waiting",
        "return found.repeated if made_too_often(made, found.cause, now_ms) else None",
        "return None",
        why="a device between two hubs repairs itself back and forth for ever",
        tests=(f"{SEVERAL}::test_a_device_between_two_hubs_stays_with_the_one_whose_history_it_has",),
    ),
    Plant(
        "F119",
        "atoma.sync.supervisor:Supervisor._moved",
        "if len(self._moved_at) < MOVED_MAX or now - self._moved_at[0] >= REPEATED_S:",
        "if True:",
        why="two hubs that answer in turn are asked as fast as they answer, and nobody is told of them",
        tests=(
            f"{SEVERAL}::test_requests_that_are_spread_over_two_hubs_lose_nothing_and_say_why_they_wait",
            f"{SEVERAL}::test_a_history_that_moves_again_and_again_has_a_code_and_a_way_out",
        ),
    ),
    Plant(
        "F119",
        "atoma_stores.sql.hub.state:State._is_apart",
        "return not offer.witness",
        "return False and not offer.witness",
        why="of two histories that bear one epoch's name the one with the larger position wins, and nobody hears of it",
        tests=(f"{SCENARIOS}/test_untold_restores.py",),
    ),
    Plant(
        "F119",
        "atoma_stores.postgres.lineage:differs",
        "return now != kept or boot != [(_boot(started),)]",
        "return now != kept",
        why="a server that went back with its timeline is taken for the one that ran before",
        tests=(f"{SCENARIOS}/test_restored_server.py",),
    ),
    Plant(
        "F119",
        "atoma.hub.lineage:fork",
        "end = min(cursor.seq, lineage.ended, parted(witness, lineage.scope.boots))",
        "end = min(cursor.seq, lineage.ended)",
        why="what a device has of one history is taken for what another one of the same epoch had there, and rows of both are gone",
        tests=(f"{SCENARIOS}/test_untold_restores.py",),
    ),
)
