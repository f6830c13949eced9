"""Every suite of stores, runtime and sync runs some of its tests with every choice of thread and time forced."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import FORCED, OPPOSITES, ways_of

Sources = dict[Path, ast.Module]

SUITES = (
    "tests/unit/stores",
    "tests/unit/runtime",
    "tests/unit/sync",
    "tests/scenarios/sync",
    "tests/conformance/engines",
)
SHARE_MIN = 0.3
WITHOUT_A_DATABASE = {
    "tests/unit/runtime/test_flows.py": "scripted ports",
    "tests/unit/runtime/test_over_ports.py": "scripted ports",
    "tests/unit/sync/test_bells.py": "events and status values",
    "tests/unit/sync/test_failures.py": "a table of codes",
    "tests/unit/sync/test_over_own_ports.py": "ports of its own",
    "tests/unit/sync/test_pages.py": "a function of a page",
    "tests/unit/sync/test_plugin.py": "constructors",
    "tests/unit/sync/test_position.py": "a scripted file",
    "tests/unit/sync/test_rebase.py": "a function of images",
    "tests/unit/sync/test_sorting.py": "a function of an outbox",
}
ABOUT_THE_CHOICE = {
    "tests/unit/stores/test_paths.py": "forces the paths itself",
    "tests/conformance/engines/test_broken_engines.py": "engines that are broken on purpose, in memory",
}
HELD_BY_OTHERS = {
    "tests/scenarios/sync/test_conditions.py": "what a device says of each answer; test_ways_out.py takes the ways with what it does then",
    "tests/scenarios/sync/test_failing_disks.py": "one disk failure at each I/O of a story; test_ways_out.py takes the ways with disks that fail",
    "tests/scenarios/sync/test_restored_server.py": "a database server is restored; test_restores.py takes the ways with a hub's file",
}


def find_tests(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node


def is_marked(test: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(decorator) == "pytest.mark.paths" for decorator in test.decorator_list)


def modules(suite: Sources) -> Sources:
    return {
        path: tree
        for path, tree in suite.items()
        if str(path.parent) in SUITES and path.name.startswith("test_") and str(path) not in WITHOUT_A_DATABASE
    }


def without_a_mark(suite: Sources) -> list[str]:
    found = (str(path) for path, tree in modules(suite).items() if not any(map(is_marked, find_tests(tree))))
    return [path for path in found if path not in {**ABOUT_THE_CHOICE, **HELD_BY_OTHERS}]


def test_every_suite_has_tests_that_take_every_path(suite: Sources) -> None:
    assert without_a_mark(suite) == []


def test_about_a_third_of_the_tests_take_every_path(suite: Sources) -> None:
    tests = [test for tree in modules(suite).values() for test in find_tests(tree)]
    assert sum(map(is_marked, tests)) >= SHARE_MIN * len(tests)


def test_what_is_left_out_opens_no_database(suite: Sources) -> None:
    """Nor is a module listed that is not there any more."""
    for path in WITHOUT_A_DATABASE:
        imported = {
            node.module for node in ast.walk(suite[Path(path)]) if isinstance(node, ast.ImportFrom) and node.module
        }
        opened = {name for name in imported if name.startswith(("atoma_stores", "tests.unit.stores"))}
        assert opened <= {"atoma_stores.changes"}, path  # what a database tells, without one
    assert {*ABOUT_THE_CHOICE, *HELD_BY_OTHERS} <= {str(path) for path in suite}


@pytest.mark.parametrize(
    ("source", "found"), [("async def test_a(): ...", 1), ("@pytest.mark.paths\ndef test_a(): ...", 0)]
)
def test_a_suite_without_a_mark_is_seen(source: str, found: int) -> None:
    assert len(without_a_mark({Path("tests/unit/stores/test_new.py"): ast.parse(source)})) == found


@pytest.mark.parametrize("folder", ["tests/unit/stores", "tests/unit/runtime", "tests/scenarios/sync"])
def test_a_large_suite_takes_every_way(suite: Sources, folder: str) -> None:
    tests = [test for path, tree in modules(suite).items() if str(path.parent) == folder for test in find_tests(tree)]
    taken = {way for test in tests if is_marked(test) for way in ways_of(test.name, 0, 1)}
    assert taken == set(FORCED)


@pytest.mark.parametrize("test", ["test_a", "test_b", "test_c", "test_d"])
@pytest.mark.parametrize("sets", range(1, 10))
def test_a_test_meets_every_choice_however_many_sets_of_parameters_it_has(test: str, sets: int) -> None:
    taken = [ways_of(test, place, sets) for place in range(sets)]
    assert all(taken), "each set in some way"
    every = [way for ways in taken for way in ways]
    assert len(every) == max(sets, 2), "and no more than that"
    assert {way.paths.reads for way in every} == {"loop", "pool"}
    assert {way.paths.writes for way in every} == {"loop", "thread"}
    assert {way.late for way in every} == {False, True}


def test_in_the_ways_of_all_tests_every_combination_of_choices_meets() -> None:
    assert len(set(FORCED)) == len(FORCED) == 2 * 2 * 2
    for one, other in OPPOSITES:
        assert one.paths.reads != other.paths.reads
        assert one.paths.writes != other.paths.writes
        assert one.late != other.late
