"""The checker of histories finds what cannot have happened, and nothing in what can."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.scenarios.kill.histories import Transaction, Verdict, faults_of


def wrote(
    name: str, began: float, ended: float, at: str, before: Sequence[str], verdict: Verdict = "written"
) -> Transaction:
    return Transaction(name, began, ended, {at: before}, {at: name}, verdict)


def read(name: str, began: float, ended: float, **reads: Sequence[str]) -> Transaction:
    return Transaction(name, began, ended, reads)


A, B = wrote("a", 0, 2, "x", []), wrote("b", 1, 3, "x", ["a"])
Y = wrote("y", 0, 5, "y", [])
WRONG = {
    "lost": ([A, B], {"x": ["a"]}, "b was written, and is lost"),
    "doubled": ([A, B], {"x": ["a", "b", "b"]}, "b is there twice"),
    "of nobody": ([A], {"x": ["a", "z"]}, "nobody has appended z"),
    "refused and there": (
        [A, wrote("b", 1, 3, "x", ["a"], "refused")],
        {"x": ["a", "b"]},
        "b was refused, and is there",
    ),
    "reordered": ([A, B, read("r", 4, 5, x=["b", "a"])], {"x": ["a", "b"]}, "which was never so"),
    "skipped": ([A, B, read("r", 4, 5, x=["b"])], {"x": ["a", "b"]}, "which was never so"),
    "a lost update": ([A, wrote("b", 1, 3, "x", [])], {"x": ["a", "b"]}, "a circle: a → b"),
    "read too late": ([A, read("r", 3, 4, x=[])], {"x": ["a"]}, "a circle: a → r"),
    "read, and then not": (
        [A, read("r", 0.5, 1, x=["a"]), read("s", 1.5, 1.8, x=[])],
        {"x": ["a"]},
        "a circle: a → r → s",
    ),
    "two readers who see two orders": (
        [wrote("a", 0, 9, "x", []), Y, read("r", 0, 9, x=["a"], y=[]), read("s", 0, 9, x=[], y=["y"])],
        {"x": ["a"], "y": ["y"]},
        "a circle: a → r → s → y",
    ),
    "a skewed write": (
        [
            Transaction("a", 0, 9, {"x": [], "y": []}, {"x": "a"}, "written"),
            Transaction("b", 0, 9, {"x": [], "y": []}, {"y": "b"}, "written"),
        ],
        {"x": ["a"], "y": ["b"]},
        "a circle: a → b",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_have_happened_is_found(name: str) -> None:
    history, last, words = WRONG[name]
    found = faults_of(history, last)
    assert any(words in each for each in found), found


def test_nothing_is_found_in_what_can_have_happened() -> None:
    refused = wrote("c", 2, 4, "x", ["a"], "refused")
    history = [A, B, Y, refused, read("r", 0, 9, x=["a"], y=["y"]), read("s", 3.5, 9, x=["a", "b"], y=["y"])]
    assert faults_of(history, {"x": ["a", "b"], "y": ["y"]}) == []
