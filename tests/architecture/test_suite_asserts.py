"""A test that cannot fail is not a test: every test function asserts something, itself or through what it calls."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

Sources = dict[Path, ast.Module]
Function = ast.FunctionDef | ast.AsyncFunctionDef

JUDGING = ("assert_", "check_", "expect_", "verify_")  # functions of a kit that assert for their caller
RAISING = {"raises", "warns", "fail", "RaisesGroup"}


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def called_names(function: ast.AST) -> set[str]:
    """The last part of the name of everything called, or passed to be called (`start_soon(check_it)`)."""
    names: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            for expression in (node.func, *node.args):
                if isinstance(expression, ast.Name):
                    names.add(expression.id)
                elif isinstance(expression, ast.Attribute):
                    names.add(expression.attr)
    return names


def judges(function: Function, known: dict[str, Function], seen: frozenset[str] = frozenset()) -> bool:
    """Whether the function asserts, or calls something that does."""
    if any(isinstance(node, ast.Assert) for node in ast.walk(function)):
        return True
    called = called_names(function)
    if called & RAISING or any(name.lstrip("_").startswith(JUDGING) for name in called):
        return True
    nested = (name for name in called & known.keys() if name not in seen)
    return any(judges(known[name], known, seen | {function.name, name}) for name in nested)


def toothless(tree: ast.Module) -> list[str]:
    known = {function.name: function for function in functions(tree)}
    tests = (function for function in known.values() if function.name.startswith("test_"))
    return [test.name for test in tests if not judges(test, known)]


def test_every_test_asserts_something(suite: Sources) -> None:
    found = {str(path): toothless(tree) for path, tree in suite.items() if path.name.startswith("test_")}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("def test_it(): assert 1", []),
        ("def test_it(): run()", ["test_it"]),
        ("async def test_it():\n    with pytest.raises(ValueError): run()", []),
        ("def same(): assert 1\ndef test_it(): same()", []),
        ("def a(): b()\ndef b(): a()\ndef test_it(): a()", ["test_it"]),
        ("def test_it(): check_channel(make)", []),
    ],
)
def test_the_rule_sees_a_planted_test_without_an_assertion(planted: str, found: list[str]) -> None:
    assert toothless(ast.parse(planted)) == found
