"""The harness of mutation testing: what is drawn, what is remembered, and what a survivor is."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.campaigns.mutants.catalogue import Mutant, sample
from tests.campaigns.mutants.covering import ELSEWHERE, Covering, of_importers
from tests.campaigns.mutants.equivalent import EQUIVALENT
from tests.campaigns.mutants.results import Results, interval
from tests.campaigns.workbench import ROOT, Verdict


def mutant(number: int, module: str = "a.py") -> Mutant:
    return Mutant(module, "f", "AddNot", number, line=number, key=f"{module}-{number}")


POPULATION = [mutant(n, module) for module, size in (("a.py", 60), ("b.py", 39), ("c.py", 1)) for n in range(size)]


def test_a_sample_is_drawn_from_every_module_in_proportion_and_by_its_seed() -> None:
    drawn = sample(POPULATION, 20, seed=3)
    assert Counter(m.module for m in drawn) == {"a.py": 12, "b.py": 7, "c.py": 1}
    assert drawn == sample(POPULATION, 20, seed=3)
    assert drawn != sample(POPULATION, 20, seed=4)
    assert len(set(drawn)) == 20


def test_a_sample_of_more_than_there_is_is_everything() -> None:
    assert sorted(sample(POPULATION, 1_000, seed=1), key=lambda m: m.key) == sorted(POPULATION, key=lambda m: m.key)


def test_a_run_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    results.keep(mutant(1), "first", Verdict("killed", "t::x", 1.0))
    results.keep(mutant(2), "first", Verdict("survived"))
    again = Results(tmp_path / "results.jsonl")
    three = [mutant(1), mutant(2), mutant(3)]
    assert again.due(three, "first") == [mutant(3)]
    assert again.due(three, "second") == [mutant(2), mutant(3)], "what lived meets the tests that came since"
    again.keep(mutant(2), "second", Verdict("killed"))
    assert again.due(three, "second") == [mutant(3)]


def test_the_report_names_every_survivor_and_the_share_with_its_interval(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    for number, outcome in enumerate(("killed", "timeout", "killed", "survived")):
        results.keep(mutant(number), "c", Verdict(outcome))  # type: ignore[arg-type]
    report = results.report([mutant(n) for n in range(4)])
    assert "survived  a.py-3 a.py:3 f AddNot" in report
    assert "3 of 4 killed: 75.0% (95 % interval 30.1% to 95.4%)" in report


@pytest.mark.parametrize(
    ("hits", "tries", "low", "high"), [(0, 0, 0.0, 1.0), (10, 10, 0.722, 1.0), (90, 100, 0.826, 0.945)]
)
def test_the_interval_is_wilsons(hits: int, tries: int, low: float, high: float) -> None:
    assert interval(hits, tries) == pytest.approx((low, high), abs=0.001)


def test_the_tests_of_a_line_come_cheap_files_first_and_a_line_that_none_runs_takes_those_of_its_function() -> None:
    covering = Covering(
        {"a.py": {4: ["slow.py::x", "fast.py::y"], 5: ["slow.py::x"]}},
        {"slow.py::x": 9.0, "fast.py::y": 0.1},
    )
    assert covering.tests_for(mutant(4), range(3, 8)) == ["fast.py::y", "slow.py::x"]
    assert covering.tests_for(mutant(6), range(5, 8)) == ["slow.py::x"]
    assert covering.tests_for(mutant(9), range(9, 10)) == ["fast.py::y", "slow.py::x"], "else those of its module"
    assert covering.tests_for(mutant(1, "b.py"), range(1, 2)) == []
    for module, elsewhere in ELSEWHERE.items():
        assert covering.tests_for(mutant(1, module), range(1, 2)) == list(elsewhere), "in a process of its own"
        assert (ROOT / module).exists() and all((ROOT / test.partition("::")[0]).exists() for test in elsewhere)
    assert covering.within(["fast.py::y", "slow.py::x"], 5.0) == ["fast.py::y"]
    assert covering.within(["slow.py::x"], 5.0) == ["slow.py::x"], "at least one"


def test_a_module_that_runs_only_while_it_is_imported_has_the_tests_of_those_that_import_it(tmp_path: Path) -> None:
    sources = {"pkg/tables.py": "A = 1\n", "pkg/a.py": "from pkg import tables\n", "pkg/b.py": "import pkg.c\n"}
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    by_line = {"pkg/tables.py": {1: list[str]()}, "pkg/a.py": {1: ["t::x"], 2: ["t::y"]}, "pkg/b.py": {1: ["t::z"]}}
    assert of_importers(tmp_path, by_line) == {"pkg/tables.py": {1: ["t::x", "t::y"]}}


def test_a_budget_is_shared_by_the_suites_and_a_test_has_one_case_before_any_has_two() -> None:
    unit = [f"tests/unit/sync/test_a.py::x[{n}]" for n in range(9)] + ["tests/unit/sync/test_b.py::y"]
    story, seed = "tests/scenarios/sync/test_c.py::z", "tests/simulation/test_seeds.py::s"
    costs = dict.fromkeys(unit, 1.0) | {"tests/unit/sync/test_b.py::y": 2.0, story: 3.0, seed: 4.0}
    covering, tests = Covering({}, costs), [*unit, story, seed]
    assert covering.within(tests, 12.0) == [*unit[:3], unit[9], story, seed]
    assert covering.within(tests, 7.5) == [*unit[:2], unit[9], story], "what does not fit makes room for what does"
    assert covering.within(tests, 7.5, first={unit[8]}) == [unit[8], unit[0], unit[9], story], (
        "what has noticed others runs first"
    )
    assert covering.within(tests, 100.0) == tests


def test_tests_whose_names_speak_of_the_place_come_first() -> None:
    tests = ["t/test_a.py::test_pushes_back_off", "t/test_a.py::test_rows", "t/test_recovery.py::test_volatile_rows_go"]
    covering = Covering({}, dict.fromkeys(tests, 1.0))
    assert covering.alike(tests, "store/_recovery.py roll_back_volatile volatile = tx.volatile()") == [
        tests[2],
        tests[0],
    ]
    assert covering.alike(tests, "PushLane._push", most=1) == [tests[0]]
    assert covering.alike(tests, "Bell.ring") == []


def test_a_few_tests_run_every_line_the_rare_ones_first() -> None:
    lines = {1: ["a", "b", "c", "d"], 2: ["a", "b"], 3: ["c"], 4: ["b", "c"], 5: ["x"]}
    covering = Covering({"m.py": lines}, {"a": 1.0, "b": 2.0, "c": 9.0, "d": 0.1, "x": 0.1})
    assert covering.every_line("m.py", ["a", "b", "c", "d"]) == ["c", "a"], "x does not run the line of the mutant"
    assert covering.every_line("other.py", ["a"]) == []


def test_who_noticed_a_mutant_of_a_module_is_remembered(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    results.keep(mutant(1), "c", Verdict("killed", "t::x", 1.0))
    results.keep(mutant(1, "b.py"), "c", Verdict("killed", "t::y", 1.0))
    for known in (results, Results(tmp_path / "results.jsonl")):
        assert "t::x" in known.killers("a.py")
        assert "t::y" not in known.killers("a.py")


def test_places_that_do_not_run_are_left_alone_and_a_deleted_statement_is_a_pass(tmp_path: Path) -> None:
    pytest.importorskip("cosmic_ray", reason="the operators come with the group `soak`")
    from tests.campaigns.mutants.catalogue import mutants_of, mutated

    source = "MOST = 64 * 1024\nLOOK_S = 0.5\ndef f(a: int | None = 1) -> bool:\n    g(a)\n    return a == 2\n"
    (tmp_path / "m.py").write_text(source)
    found = {m.operator: m for m in mutants_of("m.py", tmp_path)}
    assert "ReplaceBinaryOperator_BitOr_BitAnd" not in found, "an annotation"
    assert "ReplaceBinaryOperator_Mul_FloorDiv" not in found, "a bound, spelt as a product"
    assert found["NumberReplacer"].function == "f", "a free choice"
    assert mutated(found["DeleteStatement"], tmp_path) == source.replace("g(a)", "pass")
    assert mutated(found["ReplaceComparisonOperator_Eq_NotEq"], tmp_path) == source.replace("==", "!=")
    assert {m.function for m in found.values()} == {"f"}


def test_what_is_called_equivalent_is_a_mutant_and_a_free_choice_a_constant() -> None:
    pytest.importorskip("cosmic_ray", reason="the operators come with the group `soak`")
    from tests.campaigns.mutants.catalogue import FREE_CHOICES, modules, mutants_of

    code = "\n".join((ROOT / module).read_text(encoding="utf-8") for module in modules())
    unknown = [
        name for names in FREE_CHOICES.values() for name in names if not re.search(rf"^{name}\b.* = ", code, re.M)
    ]
    assert not unknown, "these free choices are no constants of what is tried"
    gone = {module: keys.keys() - {found.key for found in mutants_of(module)} for module, keys in EQUIVALENT.items()}
    assert not any(gone.values()), f"their functions have changed, and with them the keys: {gone}"
