"""Ways to lose, to keep, or to tell wrongly, what comes and goes with a scope: F75 and F112."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants.plant import Plant, plant

SCOPES = "tests/scenarios/sync/test_scopes.py"
TROUBLE = "tests/scenarios/sync/test_scopes_in_trouble.py"
QUERIES = "tests/scenarios/sync/test_queries_that_bring_scopes.py"

PLANTS: Final[tuple[Plant, ...]] = (
    plant(
        "F75",
        "atoma.sync.lanes:Lanes._follow_scopes",
        "self._hints.set()",
        "pass",
        "news of a scope that was brought along comes with a poll a minute later",
        f"{SCOPES}::test_a_scope_is_here_for_as_long_as_somebody_uses_it_and_follows_what_others_write",
    ),
    plant(
        "F75",
        "atoma.sync.notify:NotifyLane._listen",
        "if scope in known and scope not in refused",
        "",
        "a scope that is refused ends the session of all others",
        f"{TROUBLE}::test_one_that_is_refused_stops_alone_and_who_asks_is_told",
    ),
    plant(
        "F75",
        "atoma.sync.keeping:ScopeKeeper._bring",
        "if refused:",
        "if False:",
        "a scope that was refused once is never asked for again",
        f"{TROUBLE}::test_one_that_is_refused_stops_alone_and_who_asks_is_told",
    ),
    plant(
        "F75",
        "atoma.sync.using:why_it_stays",
        "if known is not None and known.programs:",
        "if False:",
        "a scope is dropped that another program uses",
        f"{TROUBLE}::test_a_follower_brings_its_scope_to_the_program_that_leads",
    ),
    plant(
        "F75",
        "atoma.sync.using:why_it_stays",
        "if tx.outbox.waits_in(scope) or tx.base.shadowed(scope):",
        "if False:",
        "a scope is dropped in which writes wait",
        f"{SCOPES}::test_what_is_used_or_waits_is_not_dropped",
    ),
    plant(
        "F75",
        "atoma.sync.using:why_it_stays",
        "if any(entry.scope == scope for entry in open_entries(tx)):",
        "if False:",
        "a scope is dropped of which something lies in the inbox",
        f"{TROUBLE}::test_what_nobody_has_decided_keeps_a_scope_and_history_lets_go_of_it",
    ),
    plant(
        "F75",
        "atoma_stores.sqlite._scopes:Scopes.remove",
        "self._state.recorder.leave(table.name, scope)",
        "pass",
        "rows of a scope that was dropped are read in the past",
        f"{TROUBLE}::test_what_nobody_has_decided_keeps_a_scope_and_history_lets_go_of_it",
    ),
    plant(
        "F75",
        "atoma_stores.sqlite._scopes:Scopes.remove",
        'self._connection.execute("DELETE FROM _atoma_sub WHERE scope=?", (scope,))',
        "pass",
        "a scope that was dropped and comes again lacks the rows that it had",
        f"{SCOPES}::test_a_scope_is_dropped_with_its_rows_and_nothing_else_is_touched",
    ),
    plant(
        "F75",
        "atoma_stores.sqlite._scopes:Scopes.remove",
        'self._connection.execute("DELETE FROM _atoma_use WHERE scope=?", (scope,))',
        "pass",
        "a scope that was dropped is fetched again",
        f"{SCOPES}::test_a_scope_is_dropped_with_its_rows_and_nothing_else_is_touched",
    ),
    plant(
        "F75",
        "atoma.sync.outbox:OutboxNode.enqueue",
        "and not tx.scopes.is_brought(scope)",
        "and False",
        "a write of a scope that was dropped waits in the outbox, and its row is on no list",
        f"{SCOPES}::test_a_scope_is_dropped_with_its_rows_and_nothing_else_is_touched",
    ),
    plant(
        "F112",
        "atoma.sync.keeping:ScopeKeeper._drop",
        "replicated.leaving.add(drop.scope)",
        "pass",
        "a batch that lacks the rows of a dropped scope calls itself complete",
        f"{TROUBLE}::test_a_batch_that_lacks_rows_never_calls_itself_complete",
    ),
    plant(
        "F112",
        "atoma.sync.keeping:ScopeKeeper._unused",
        "not each.programs and not self._held[each.scope]",
        "True",
        "making room ends at a scope that is used",
        f"{SCOPES}::test_the_longest_unused_go_first_and_so_many_stay",
    ),
    plant(
        "F112",
        "atoma.sync.keeping:ScopeKeeper._unused",
        "key=lambda each: (each.used_ms, each.scope)",
        "key=lambda each: each.scope",
        "the scope goes first that comes first in the alphabet",
        f"{SCOPES}::test_the_longest_unused_go_first_and_so_many_stay",
    ),
    plant(
        "F112",
        "atoma.sync.keeping:ScopeKeeper._aged",
        "each.used_ms + self._idle.seconds * 1000 <= now_ms",
        "False",
        "a scope that nobody has used for a year stays",
        f"{SCOPES}::test_a_scope_ages_out_by_its_last_use",
    ),
    plant(
        "F112",
        "atoma.sync.keeping:ScopeKeeper._due_s",
        "return again_s",
        "return math.inf",
        "what a program has used that was killed stays for ever",
        f"{TROUBLE}::test_what_a_program_used_that_was_killed_ages_out",
    ),
    plant(
        "F112",
        "atoma.sync.keeping:ScopeKeeper.hold_for",
        "if scopes is None:",
        "if False:",
        "a query that may look at any scope brings none and says nothing",
        f"{QUERIES}::test_what_cannot_be_brought_is_said",
    ),
    plant(
        "F112",
        "atoma.runtime.live:live",
        "async with core.brought(query, bring):",
        "async with core.brought(query, False):",
        "a live query brings nothing along",
        f"{QUERIES}::test_a_live_query_brings_its_scope_and_tells_how_far_it_is",
    ),
    plant(
        "F112",
        "atoma.sync.keeping:ScopeKeeper._make_room",
        "await self._drop(drop)",
        "pass",
        "scopes that nobody uses keep others out",
        f"{SCOPES}::test_as_many_are_used_as_a_hub_takes_and_idle_ones_make_room",
    ),
    plant(
        "F112",
        "atoma.sync.keeping:ScopeKeeper._make_room",
        "if len(free) < beyond:",
        "if False:",
        "a query that is refused for want of room has dropped scopes all the same",
        f"{SCOPES}::test_nothing_goes_where_there_is_no_room_for_all",
    ),
)
"""What each plant breaks, and the test that sees it."""
