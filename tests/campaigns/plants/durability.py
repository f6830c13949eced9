"""Ways to lose in a power cut what was promised: F70."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants.plant import Plant

CUTS: Final = "tests/power/test_power_cuts.py"
FULL: Final = (f"{CUTS}::test_full_keeps_every_promise",)
NORMAL: Final = (f"{CUTS}::test_normal_loses_only_a_tail_and_nothing_that_was_told",)
FOREIGN: Final = "tests/unit/stores/test_foreign_logs.py"
RESTORED: Final = "tests/unit/hub/test_restored_files.py"
LOCK: Final = ("tests/power/test_hub_lock.py", RESTORED)

PLANTS: Final[tuple[Plant, ...]] = (
    Plant(
        "F70",
        "atoma_stores.sqlite.engine:SQLiteLocalDatabase.commit",
        "durability = self.durability_of([entry.store for entry in request.entries], request.options.durability)",
        'durability: Durability = "normal"',
        why="a write that is acknowledged as full was not synced",
        tests=FULL,
    ),
    Plant(
        "F70",
        "atoma_stores.sqlite.hub_store:SQLiteHubDatabase.run",
        'transact(body, durability="full"',
        'transact(body, durability="normal"',
        why="the hub answers before its group is synced",
        tests=FULL,
    ),
    Plant(
        "F70",
        "atoma_stores.sqlite.hub_store:SQLiteHubDatabase._write",
        'durability="full"',
        'durability="normal"',
        why="a new epoch is told before it is synced",
        tests=FULL,
    ),
    Plant(
        "F70",
        "atoma_stores.sqlite._writer:Writer._begin",
        "SYNCHRONOUS_FULL if full else SYNCHRONOUS_NORMAL",
        "SYNCHRONOUS_NORMAL",
        why="no commit is synced, on neither side",
        tests=FULL,
    ),
    Plant(
        "F70",
        "atoma_stores.sqlite._writer:Writer._commit",
        "if full and (self._unsynced or others != self._others):",
        "if False:",
        why="a full write that finds its row as it should be acknowledges what was never synced",
        tests=("tests/scenarios/test_durability.py::test_full_goes_for_what_was_there_before",),
    ),
    Plant(
        "F70",
        "atoma_stores.sqlite._readers:Checkpointer.run",
        "self._connection = self._open()",
        'self._connection = self._open()\n                self._connection.pragma("synchronous", 0)',
        why="checkpoints sync nothing",
        tests=FULL,
    ),
    Plant(
        "F70",
        "atoma_stores.sqlite.database:Database._close_writer",
        "with contextlib.suppress(apsw.Error):",
        'connection.pragma("synchronous", 0)\n            with contextlib.suppress(apsw.Error):',
        why="the checkpoint at closing syncs nothing",
        tests=FULL,
    ),
    Plant(
        "F70",
        "atoma.sync.push:PushLane.drain",
        "await self._replica.database.flush()",
        "pass",
        why="a mutation is sent before the disk has it, and its number is given out again",
        tests=NORMAL,
    ),
    Plant(
        "F70",
        "atoma.sync.session:_open",
        "await replica.database.flush()",
        "pass",
        why="the hub is told of a state that the disk does not have",
        tests=("tests/scenarios/test_durability.py::test_nothing_is_told_before_it_is_on_the_disk",),
    ),
    Plant(
        "F70",
        "atoma.sync.pull:PullLane._commit",
        'None if settles else "normal"',
        '"normal"',
        why="a page that settles this device's writes is not synced",
        tests=FULL,
    ),
    Plant(
        "F70",
        "atoma.sync.push:PushLane._take",
        "verdicts=verdicts)",
        'verdicts=verdicts, durability="normal")',
        why="a refusal that the user was told of is not synced",
        tests=FULL,
    ),
    Plant(
        "F70",
        "atoma_stores.sqlite.main_files:MainFile.look",
        "self._sync()",
        "pass",
        why="what somebody's checkpoint has not synced is written down as being there",
        tests=LOCK,
    ),
    Plant(
        "F70",
        "atoma_stores.sqlite.hub_witness:HubWitness.note",
        "self._written_s = now",
        "self._written_s = now\n            alone = self.main.alone()\n            "
        "self.main.checkpointed = self.main.checkpointed if alone is None else alone.count",
        why="the lock file runs ahead of a checkpoint, and the hub's log is put aside after a power cut",
        tests=LOCK,
    ),
    Plant(
        "F70",
        "atoma_stores.sqlite.hub_witness:HubWitness.is_another",
        "self._beside.epoch not in ended",
        "True",
        why="a hub that was killed after a new epoch takes its own file for a restored one",
        tests=LOCK,
    ),
    Plant(
        "F119",
        "atoma_stores.sqlite.hub_witness:HubWitness.set_foreign_log_aside",
        "alone = self.main.alone()",
        "alone = None",
        why="the log of another file is replayed over a backup that was copied into its place",
        tests=(f"{RESTORED}::test_the_log_of_another_file_is_never_replayed",),
    ),
    Plant(
        "F119",
        "atoma_stores.sqlite.main_files:MainFile.is_before",
        "alone.logless or ",
        "",
        why="a log is replayed over a backup whose pages lie elsewhere, where no counter tells that it is another file",
        tests=(f"{RESTORED}::test_the_log_of_another_file_is_known_although_no_counter_tells",),
    ),
    Plant(
        "F119",
        "atoma_stores.sqlite.main_files:check_log",
        "if before.count > moves or (after is not None and main.is_before(after)):",
        "if False:",
        why="SQLite replays the log that a killed program has left over an older copy of a device's file",
        tests=(f"{FOREIGN}::test_an_older_copy_under_the_log_of_a_killed_program_is_refused_with_both_ways_out",),
    ),
    Plant(
        "F70",
        "atoma_stores.sqlite.main_files:MainFile.look",
        "self.checkpointed = alone.count",
        "self.checkpointed = alone.count + 9",
        why="a device takes its own log for another file's after a power cut",
        tests=FULL,
    ),
)
