"""Ways to mislead whoever looks after files and tests: the command line, the simulator, encryption: F90, F93, F95, and F117."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants.plant import Plant, plant

CLI = "tests/scenarios/cli/test_files.py"
SIMULATOR = "tests/unit/testing/test_simulator.py"
ENCRYPTED = "tests/scenarios/encryption/test_own_environment.py::test_files_are_encrypted_as_promised"

PLANTS: Final[tuple[Plant, ...]] = (
    plant(
        "F90",
        "atoma.cli.screen:_visible",
        'unicodedata.category(letter)[0] == "C" or ',
        "",
        "a value controls the terminal that it is printed on",
        f"{CLI}::test_a_file_is_asked_while_its_program_writes",
    ),
    plant(
        "F90",
        "atoma.cli.files:ask",
        "limit + 1 if limit else None",
        "limit or None",
        "an answer is cut, and nobody is told",
        f"{CLI}::test_a_file_is_asked_while_its_program_writes",
    ),
    plant(
        "F90",
        "atoma_stores.sqlite.files:check_file",
        "problems += _wrong_in_outbox(connection, schema)",
        "pass",
        "a file is called sound whose outbox cannot be read",
        f"{CLI}::test_what_waits_is_checked_too",
    ),
    plant(
        "F90",
        "atoma.cli.doctor:_redacted",
        '"scopes": list(found.scopes.values()),',
        '"scopes": found.scopes,',
        "what is sent to somebody who helps has the names of scopes in it",
        f"{CLI}::test_the_doctor_says_what_is_wrong_and_keeps_secrets",
    ),
    plant(
        "F90",
        "atoma.cli.transfer:_import",
        "Exit.FOUND if found.rejected else Exit.DONE",
        "Exit.DONE",
        "a script does not notice that lines were refused",
        f"{CLI}::test_rows_leave_a_file_and_reach_the_hub_from_another",
    ),
    plant(
        "F117",
        "atoma.cli.assistants:_describe",
        ' and "_atoma_" not in sql',
        "",
        "an assistant is told of tables that are not its user's",
        "tests/scenarios/cli/test_assistants.py",
    ),
    plant(
        "F93",
        "atoma.testing.simulator:_Run._in_the_middle",
        "range(self.dice.randrange(STEPS_INTO))",
        "range(0)",
        "no crash comes in the middle of an action",
        f"{SIMULATOR}::test_half_a_booking_is_found_and_told",
    ),
    plant(
        "F93",
        "atoma.testing.simulator:_Run._own_dice",
        "random.Random(self.dice.getrandbits(64))",
        "random.Random()",
        "a seed that has failed fails otherwise, or not at all, when it is tried again",
        f"{SIMULATOR}::test_half_a_booking_is_found_and_told",
    ),
    plant(
        "F93",
        "atoma.testing.simulator:_Run._judge",
        "crashed = scope is not None and scope.cancel_called and isinstance(error, ClosedError)",
        "crashed = scope is not None",
        "what an action raises is not said to be its failure",
        f"{SIMULATOR}::test_an_error_of_an_action_is_a_failure_and_a_crash_is_none",
    ),
    plant(
        "F95",
        "atoma_stores.sqlite.connections:open_connection",
        'connection.pragma("temp_store", 2)',
        "pass",
        "what is sorted is written to a file that nobody encrypts",
        ENCRYPTED,
    ),
    plant(
        "F95",
        "atoma_stores.sqlite.rekeying:_spoil",
        "if os.fstat(inode).st_nlink == 0:",
        "if False:",
        "who waits for a file that gets another key writes to one that is gone",
        ENCRYPTED,
    ),
    plant(
        "F95",
        "atoma_stores.sqlite.encryption:FileKey.__repr__",
        'return "FileKey(…)"',
        'return f"FileKey({self._secret!r})"',
        "a log shows the key",
        ENCRYPTED,
    ),
)
