"""What imports cannot show: the composition root does not decide, and the runtime does not judge versions of the hub."""

from __future__ import annotations

import ast
import copy
from collections.abc import Container, Iterator
from pathlib import Path

import pytest

from atoma.kernel.policy import ready_policies

Sources = dict[Path, ast.Module]

POLICIES = {policy.name for policy in ready_policies(())}
PARTS = {"direct", "direct-", "local", "remote", "queue"}
ALLOWED = {"__future__", "atoma", "collections", "contextlib", "dataclasses", "functools", "trio", "typing"}
ALLOWED |= {"reactivex"}  # the type of what observe() gives, which the checkers alone look at
HUB_POSITIONS = {"seq", "base_seq", "cursor_seq"}
VERSIONS = {"version", "base_version"}
HANDED_ON = {"ConfirmedRow", "get"}
"""What the runtime may give a position of the hub to: a row that is told on, and a table as what it answers otherwise."""
WEIGHING = {"min", "max", "sorted", "sort", "bisect", "lt", "le", "gt", "ge", "eq", "ne"}
CHECKED = {"register_policy"}
"""Functions of the composition root that look at a policy: the one that refuses what is none."""


def below(product: Sources, folder: str) -> Sources:
    return {path: tree for path, tree in product.items() if path.is_relative_to(folder)}


def mentions(node: ast.AST, names: Container[str]) -> bool:
    """Whether something of one of these names is used, by whatever spelling: also as a text, and as what a pattern asks for."""
    for part in ast.walk(node):
        match part:
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.Constant(value=str(name)) if name in names:
                return True
            case ast.MatchClass(kwd_attrs=asked) if any(name in names for name in asked):
                return True
    return False


class WithoutNone(ast.NodeTransformer):
    """Takes away the question whether a thing was given at all, which tells nothing of it."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        match node:
            case ast.Compare(left=ast.Name(), ops=[ast.Is() | ast.IsNot()], comparators=[ast.Constant(value=None)]):
                return ast.copy_location(ast.Constant(value=True), node)
        return self.generic_visit(node)


def comparisons(tree: ast.AST) -> Iterator[tuple[int, ast.AST]]:
    """Comparisons, matches and orders, with their lines."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare():
                yield node.lineno, node
            case ast.Match(subject=asked, cases=cases):
                yield node.lineno, asked
                yield from ((node.lineno, case.pattern) for case in cases)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in WEIGHING:
                yield node.lineno, node


def decisions(tree: ast.AST) -> Iterator[tuple[int, ast.AST]]:
    """What a program goes by: comparisons, conditions, look-ups, and questions of what something is."""
    yield from comparisons(tree)
    for node in ast.walk(tree):
        match node:
            case ast.If(test=asked) | ast.IfExp(test=asked) | ast.While(test=asked) | ast.Assert(test=asked):
                yield asked.lineno, asked
            case ast.BoolOp():
                yield node.lineno, node
            case ast.Subscript(slice=asked, ctx=ast.Load()):
                yield node.lineno, asked
            case ast.comprehension(ifs=conditions):
                yield from ((condition.lineno, condition) for condition in conditions)
            case ast.Call(func=ast.Name(id="isinstance" | "issubclass" | "getattr" | "hasattr" | "type")):
                yield node.lineno, node
            case ast.Call(func=ast.Attribute(value=said, attr="startswith" | "endswith")):
                yield node.lineno, said
            case ast.Call(func=ast.Attribute(attr="get" | "pop"), args=[asked, *_]):
                yield node.lineno, asked


def bound_from(tree: ast.AST, names: set[str]) -> set[str]:
    """``names``, and those that are bound to something of them, and to something of those; what is made with them is not."""
    bindings: list[tuple[ast.expr, ast.expr]] = []
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=value):
                bindings += [(target, value) for target in targets]
            case ast.NamedExpr(target=target, value=value) | ast.AnnAssign(target=target, value=ast.expr() as value):
                bindings.append((target, value))
            case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                bindings.append((target, value))
    bindings = [(target, value) for target, value in bindings if not makes(value)]
    while True:
        bound = {name for target, value in bindings if mentions(value, names) for name in bare(target)}
        if bound <= names:
            return names
        names = names | bound


def bare(target: ast.expr) -> Iterator[str]:
    """The names that a target binds, and not those of objects of which it sets something."""
    match target:
        case ast.Name(id=name):
            yield name
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            for part in parts:
                yield from bare(part)


def makes(value: ast.expr) -> bool:
    """Whether it is something new, in which what is mentioned is one thing of several: it is awaited, gathered, or named to it."""
    return any(isinstance(part, ast.comprehension | ast.keyword | ast.Await) for part in ast.walk(value))


def parts(tree: ast.Module) -> Iterator[ast.AST]:
    """The functions of a module, one by one, and what is outside of them; copies without the questions for None."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    loose = ast.Module([node for node in tree.body if not isinstance(node, (*kinds, ast.ClassDef))], [])
    for part in (loose, *(node for node in ast.walk(tree) if isinstance(node, kinds))):
        yield WithoutNone().visit(copy.deepcopy(part))


def branches_on_policies(tree: ast.Module) -> list[int]:
    """Lines that go by which policy it is: by its name, its parts, its kind, or something that was taken from it before."""
    lines: set[int] = set()
    for part in parts(tree):
        if getattr(part, "name", "") not in CHECKED:
            names = bound_from(part, {"policy"}) | POLICIES
            lines |= {line for line, asked in decisions(part) if mentions(asked, names)}
    return sorted(lines)


def weighs_versions(tree: ast.Module) -> list[int]:
    """Lines that compare the version of a row; that of a schema is another thing."""
    lines: set[int] = set()
    for part in parts(tree):
        for node in ast.walk(part):
            if (
                isinstance(node, ast.Attribute)
                and node.attr == "version"
                and ast.unparse(node.value).endswith("schema")
            ):
                node.attr = "schema_version"
        names = bound_from(part, VERSIONS)
        lines |= {line for line, asked in comparisons(part) if mentions(asked, names)}
    return sorted(lines)


def uses_hub_positions(tree: ast.Module) -> list[int]:
    """Lines that do more with a sequence number of the hub than to hand it on: what it says is sync's business."""
    handed_on = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in HANDED_ON
        for argument in node.args
        for part in (argument, argument.operand if isinstance(argument, ast.UnaryOp) else argument)
    }
    found: set[int] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.Constant(value=str(name)) if name in HUB_POSITIONS:
                found |= set() if id(node) in handed_on else {node.lineno}
            case ast.MatchClass(kwd_attrs=asked) if HUB_POSITIONS & set(asked):
                found.add(node.lineno)
    return sorted(found)


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
    """Nor anything else than to hand it on, and no version of a row either."""
    for judged in (uses_hub_positions, weighs_versions):
        found = {str(path): judged(tree) for path, tree in below(product, "atoma/runtime").items()}
        assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "planted",
    [
        'if policy == "sync-queue": go()',
        'match policy:\n    case "direct-local": go()',
        'x in ("hybrid",)',
        "if policy == DEFAULT: go()",
        "match policy:\n    case Policy(write=None): go()",
        "if isinstance(policy.query, Fallback): go()",
        'getattr(policy, "write")',
        "go = ways[policy.name]",
        "go = ways.get(policy.name, stay)",
        'if policy.name.startswith("sync"): go()',
        "name = policy.name\nif name == wanted: go()",
        "if (write := policy.write) is None: go()",
        "def open(policy):\n    kind, _ = policy.name, 1\n    return 1 if kind else 2",
        "for step in policy.query.steps:\n    if step.id == wanted: go()",
        "[step for step in steps if policy.write]",
        "if policy.write is None: go()",
    ],
)
def test_a_planted_branch_on_a_policy_is_seen(planted: str) -> None:
    assert branches_on_policies(ast.parse(planted)) != []


@pytest.mark.parametrize(
    "harmless", ["if policy is None: go()", "open(policy)", "kernel = Kernel(default=policy)\nif kernel.listens: go()"]
)
def test_a_policy_that_is_handed_on_is_no_branch(harmless: str) -> None:
    assert branches_on_policies(ast.parse(harmless)) == []


@pytest.mark.parametrize(
    "planted",
    [
        "if mutation.base_seq < 3: go()",
        "newest = max(rows, key=lambda row: row.seq)",
        "seq = row.seq\nif seq < other: go()",
        'if getattr(row, "seq") < other: go()',
        'rows.sort(key=attrgetter("base_seq"))',
        "match row:\n    case StoredRow(seq=0): go()",
        'ahead = row.fields["cursor_seq"]',
        "if newer(row.seq, here): go()",
        "difference = row.seq - here",
    ],
)
def test_a_planted_use_of_a_position_is_seen(planted: str) -> None:
    assert uses_hub_positions(ast.parse(planted)) != []


@pytest.mark.parametrize("harmless", ["told = ConfirmedRow(row.seq, 1)", "versions.get(row.id, -row.seq)"])
def test_a_position_that_is_handed_on_is_no_use(harmless: str) -> None:
    assert uses_hub_positions(ast.parse(harmless)) == []


@pytest.mark.parametrize(
    "planted",
    [
        "if row.version < here.version: go()",
        "match op:\n    case Op(base_version=3): go()",
        "known = row.version\nif known == 3: go()",
        "newest = max(row.version, here)",
        "rows.sort(key=lambda row: row.version)",
        'if getattr(row, "version") > 3: go()',
    ],
)
def test_a_planted_comparison_of_versions_is_seen(planted: str) -> None:
    assert weighs_versions(ast.parse(planted)) != []


@pytest.mark.parametrize(
    "harmless",
    ["if changes.schema_version > self._schema.version: pass", "if base_version is None: go()", "tell(row.version)"],
)
def test_a_version_that_is_handed_on_is_no_comparison(harmless: str) -> None:
    assert weighs_versions(ast.parse(harmless)) == []
