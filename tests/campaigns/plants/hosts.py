"""Ways to fail around the client and the hub: other loops, sites and programs, PostgreSQL, two versions at once: F45, F63, F78, F104, F108–F109, F120."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants.plant import Plant, plant

AIO = "tests/unit/bindings/test_aio.py"
BLOCKING = "tests/unit/bindings/test_blocking.py"
TK = "tests/unit/bindings/test_tk.py"
SERVED = "tests/scenarios/web/test_served.py"
SNAPSHOTS = "tests/unit/testing/test_migration_snapshots.py"
POSTGRES = "tests/unit/hub/test_postgres.py"
SITES = "tests/unit/transports/http/test_other_sites.py"
LEFT = "tests/scenarios/test_left_writes.py"
STEPS = "tests/scenarios/migrations/test_on_postgresql.py"

PLANTS: Final[tuple[Plant, ...]] = (
    plant(
        "F45",
        "atoma.bindings.aio.host:Wait.until_told",
        "if not firmly:",
        "if firmly:",
        "a cancelled task leaves its call under way",
        f"{AIO}::test_cancelling_a_task_cancels_the_call_and_waits_for_its_end",
    ),
    plant(
        "F45",
        "atoma.bindings.asgi.live:LiveApp.__call__",
        "if not may_ask(scope, self._sites):",
        "if False:",
        "a page of another site follows what the user may read",
        f"{SERVED}::test_a_page_of_another_site_is_refused",
    ),
    plant(
        "F45",
        "atoma.bindings.asgi.live:as_json",
        "type(change).__name__.lower()",
        "type(change).__name__",
        "a page does not know what it is told",
        f"{SERVED}::test_a_live_query_as_events_and_as_socket",
    ),
    plant(
        "F45",
        "atoma.bindings.viewport:Viewport._edited",
        "self.top = shifted(self.top, (edit,))",
        "pass",
        "what is shown moves when others write above it",
        f"{TK}::test_the_cursor_stays_on_its_row_and_what_is_shown_does_not_move",
    ),
    plant(
        "F45",
        "atoma.bindings.tk:_Post.__init__",
        "_kept.add(self._root.tk)",
        "pass",
        "an interpreter of Tk that is freed by the client's thread ends the program",
        f"{TK}::test_a_window_that_is_gone_is_not_freed_by_another_thread",
    ),
    plant(
        "F63",
        "atoma_transports.serving.sites:Sites.names",
        'fields.get("origin", "") in self._origins',
        "bool(self._origins)",
        "where one site may call, every site may",
        f"{SITES}::test_no_other_site_is",
    ),
    plant(
        "F63",
        "atoma_transports.serving.sites:Sites.admits",
        'return same_site(fields) and fields.get("sec-fetch-site", "none") in OWN_PAGES',
        "return True",
        "a page of any site calls the hub",
        f"{SITES}::test_no_other_site_is",
    ),
    plant(
        "F63",
        "atoma_transports.serving.server",
        "if (names or trusted_proxies or sites) and",
        "if (names or trusted_proxies) and",
        "a page of another site has the rights of this machine's programs",
        f"{SITES}::test_a_hub_that_lets_in_its_machine_names_no_other_site",
    ),
    plant(
        "F63",
        "atoma_transports.protocol.json_mapping:_pair",
        'always(reference("Int64"))',
        'always({"type": "integer"})',
        "the description says of whole numbers what is not sent",
        "tests/unit/transports/http/test_openapi.py::test_every_message_is_what_it_says",
    ),
    plant(
        "F104",
        "atoma_stores.postgres.intake_ddl",
        "IF there IS DISTINCT FROM here THEN",
        "IF false THEN",
        "another write under a key that was used is lost in silence",
        f"{LEFT}::test_a_key_is_for_one_write_however_often_it_is_tried",
    ),
    plant(
        "F104",
        "atoma_stores.postgres.intake_ddl",
        "'sql:' || session_user)",
        "'sql:somebody')",
        "the hub does not know which program has written",
        f"{LEFT}::test_a_program_may_do_what_the_rules_say_of_its_role_and_nothing_else",
    ),
    plant(
        "F104",
        "atoma.hub.intake:Intake._write",
        "context, write.key)",
        "context, self._core.environment.ids())",
        "a hub that ends before it has kept the answer decides the write again",
        f"{LEFT}::test_a_hub_that_ends_between_the_decision_and_the_answer_decides_once",
    ),
    plant(
        "F104",
        "atoma.hub.intake:Intake._once",
        "scopes.setdefault(write.scope, []).append(write)",
        "scopes.setdefault(write.scope, []).insert(0, write)",
        "the writes of one session are decided in another order",
        f"{LEFT}::test_the_writes_of_a_session_are_decided_in_their_order",
    ),
    plant(
        "F78",
        "atoma_stores.sql.spelling",
        "'LAST' if descending else 'FIRST'",
        "'FIRST' if descending else 'LAST'",
        "PostgreSQL puts what is missing where it likes",
        "tests/properties/test_postgresql_queries.py::test_rows_are_those_of_the_reference_in_their_order",
    ),
    plant(
        "F108",
        "atoma_stores.postgres.lanes:_is_worth_another",
        "isinstance(error, ConnectionLost) or ",
        "",
        "a write is lost to its caller with the connection",
        f"{POSTGRES}::test_backends_that_are_killed_all_the_time_cost_nobody_anything",
    ),
    plant(
        "F108",
        "atoma_stores.postgres.lanes:_Attempt._check",
        "raise _Outdated(newer)",
        "return",
        "an older process writes rows without the columns that a newer one has added",
        f"{POSTGRES}::test_an_older_process_reads_on_and_writes_no_store_that_has_grown",
    ),
    plant(
        "F108",
        "atoma_stores.sql.hub.state:State._row",
        "if not found:",
        "if found is not None:",
        "who appends to what somebody else has appended to meanwhile overwrites it",
        "tests/scenarios/kill/test_equal_hubs.py::test_three_hubs_of_which_some_are_killed_lose_double_skip_and_reorder_nothing",
    ),
    plant(
        "F108",
        "atoma_stores.postgres.hub_store:PostgreSQLHubStore.open_hub_database",
        "await connection.trip([JOIN])",
        "pass",
        "steps convert what a process of before goes on reading",
        f"{STEPS}::test_steps_wait_for_no_process_of_before_and_say_what_to_do",
    ),
    plant(
        "F108",
        "atoma_stores.postgres.hub_store:PostgreSQLHubStore.open_hub_database",
        "await read(connection, check_known(schema.version))",
        "pass",
        "a process of before comes back and reads what has been converted as its own",
        f"{STEPS}::test_a_process_of_before_that_had_lost_its_connections_touches_nothing_any_more",
    ),
    plant(
        "F104",
        "atoma_stores.postgres.migrating:migrate",
        "yield from _convert_left(conversion)",
        "pass",
        "what other programs have left is decided in fields of another version",
        f"{STEPS}::test_what_other_programs_have_left_is_decided_in_todays_terms",
    ),
    plant(
        "F109",
        "atoma.testing.migrations:_check_same",
        "assert declared == kept, (",
        "assert declared or kept, (",
        "a field of a released version is changed in silence",
        f"{SNAPSHOTS}::test_a_released_version_does_not_change",
    ),
    plant(
        "F109",
        "atoma.hub.versions:_conflict",
        "image = past.downgrade(store.unpack(as_image(conflict.current)))",
        "image = store.unpack(as_image(conflict.current))",
        "an older device is told a conflict in fields that it does not have",
        "tests/scenarios/migrations/test_side_by_side.py::test_a_conflict_comes_in_the_words_of_the_device",
    ),
    plant(
        "F120",
        "atoma.bindings.blocking.host:refuse_trio",
        "if trio.lowlevel.in_trio_run():",
        "if False:",
        "blocking code stops a Trio loop",
        f"{BLOCKING}::test_a_trio_loop_is_not_stopped",
    ),
    plant(
        "F120",
        "atoma.runtime.flows:Core.writes",
        "self.guard.check()",
        "pass",
        "a write from another thread does not say where the client lives",
        "tests/unit/client/test_loop_guards.py::test_from_another_thread_each_door_says_where_the_client_lives",
    ),
)
