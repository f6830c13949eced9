"""What imports cannot show: the composition root does not decide, and the runtime does not judge versions of the hub."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from atoma.kernel.policy import ready_policies

Sources = dict[Path, ast.Module]

POLICIES = {policy.name for policy in ready_policies(())}
PARTS = {"direct", "direct-", "local", "remote", "queue"}
ALLOWED = {"__future__", "atoma", "collections", "contextlib", "dataclasses", "functools", "trio", "typing"}
ALLOWED |= {"reactivex"}  # the type of what observe() gives, which the checkers alone look at
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


def texts(tree: ast.Module) -> list[str]:
    """The strings of a module that are not docstrings."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    strings = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docs)
    return [node.value for node in strings if isinstance(node.value, str)]


def test_the_composition_root_knows_no_policy_by_name(product: Sources) -> None:
    """Neither to compare with, nor to look up, nor to begin with: its default is the kernel's."""
    said = {str(path): texts(tree) for path, tree in below(product, "atoma/client").items()}
    found = {path: [text for text in lines if text in POLICIES or text in PARTS] for path, lines in said.items()}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_the_composition_root_composes_and_does_nothing_itself(product: Sources) -> None:
    """One kernel and one runtime are made, here alone; nothing here touches a network, a file or a thread."""
    made = {
        (str(path), node.func.id)
        for path, tree in product.items()
        if not path.is_relative_to("atoma/testing")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("ExecutionKernel", "Runtime")
    }
    assert made == {("atoma/client/client.py", "ExecutionKernel"), ("atoma/client/client.py", "Runtime")}
    client = below(product, "atoma/client")
    foreign = {
        (str(path), name)
        for path, tree in client.items()
        for node in ast.walk(tree)
        for name in imported(node)
        if name.partition(".")[0] not in ALLOWED
    }
    assert foreign == set()
    reaching = {
        (str(path), node.attr)
        for path, tree in client.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith(("open_tcp", "open_ssl", "serve_", "to_thread", "run_sync"))
    }
    assert reaching == set()
    assert sum(len(ast.unparse(tree).splitlines()) for tree in client.values()) < 900


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


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
