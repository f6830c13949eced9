"""What imports cannot show: the composition root does not decide, and the runtime does not judge versions of the hub."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

Sources = dict[Path, ast.Module]

POLICIES = {"direct-local", "direct-remote", "direct-http", "local-first", "remote-first", "sync-queue", "hybrid"}
HUB_POSITIONS = {"seq", "base_seq", "cursor_seq"}


def below(product: Sources, folder: str) -> Sources:
    return {path: tree for path, tree in product.items() if path.is_relative_to(folder)}


def branches_on_policies(tree: ast.Module) -> list[int]:
    """Lines that compare something with the name of a policy, or match on it."""
    tests = (node for node in ast.walk(tree) if isinstance(node, ast.Compare | ast.MatchValue))
    return [
        test.lineno
        for test in tests
        if any(isinstance(part, ast.Constant) and part.value in POLICIES for part in ast.walk(test))
    ]


def compares_hub_positions(tree: ast.Module) -> list[int]:
    """Lines that compare sequence numbers of the hub, which is sync's business."""
    tests = (node for node in ast.walk(tree) if isinstance(node, ast.Compare))
    return [
        test.lineno
        for test in tests
        if any(isinstance(part, ast.Attribute) and part.attr in HUB_POSITIONS for part in ast.walk(test))
        or any(isinstance(part, ast.Name) and part.id in HUB_POSITIONS for part in ast.walk(test))
    ]


def test_the_composition_root_does_not_branch_on_policies(product: Sources) -> None:
    found = {str(path): branches_on_policies(tree) for path, tree in below(product, "atoma/client").items()}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_the_registry_of_policies_executes_nothing(product: Sources) -> None:
    tree = product[Path("atoma/runtime/registry.py")]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]


def test_the_runtime_compares_no_position_of_the_hub(product: Sources) -> None:
    found = {str(path): compares_hub_positions(tree) for path, tree in below(product, "atoma/runtime").items()}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "planted", ['if policy == "sync-queue": go()', 'match policy:\n    case "direct-local": go()', 'x in ("hybrid",)']
)
def test_a_planted_branch_on_a_policy_is_seen(planted: str) -> None:
    assert branches_on_policies(ast.parse(planted)) != []


def test_a_planted_comparison_of_positions_is_seen() -> None:
    assert compares_hub_positions(ast.parse("if mutation.base_seq < 3: go()")) == [1]
