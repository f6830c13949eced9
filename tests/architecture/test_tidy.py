"""The shape of the code itself: sizes, names, clocks, prints."""

from __future__ import annotations

import ast
import re
import statistics
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

Sources = dict[Path, ast.Module]
Function = ast.FunctionDef | ast.AsyncFunctionDef

MODULE_LINES_MAX = 600
MODULE_LINES_MEDIAN_MAX = 250
FUNCTION_LINES_MAX = 70
VAGUE = {"Manager", "Helper", "Helpers", "Util", "Utils", "Impl"}
CONFIRMED_BASE = {"BaseRow"}  # the base of the overlay is a word of the field; a base class is not
DOORS = {Path("atoma/ports/environment.py"), Path("atoma/schema/ids.py")}  # to clocks, ids and randomness
HOSTS = {
    Path(f"atoma/bindings/{name}.py") for name in ("aio/host", "blocking/host", "asgi/hub", "asgi/live")
}  # to another loop, to a thread's clock
SPEAKING = ("atoma/cli/", "atoma/demo/")  # what prints


def module_lines(path: Path, root: Path) -> int:
    return len((root / path).read_text(encoding="utf-8").splitlines())


def words(name: str) -> list[str]:
    """The words of a Python name: `WriteItemResult` and `write_item_result` have three."""
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name.replace("_", " "))


def declared_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


def long_functions(tree: ast.Module) -> list[str]:
    functions = (node for node in ast.walk(tree) if isinstance(node, Function))
    sizes = ((node.name, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions)
    return [f"{name}: {size} lines" for name, size in sizes if size > FUNCTION_LINES_MAX]


def vague_names(tree: ast.Module) -> list[str]:
    return [name for name in declared_names(tree) if is_vague(name)]


def is_vague(name: str) -> bool:
    """Whether a name says only that something exists: `StoreManager`, `path_utils`, `BaseNode`."""
    parts = [word.capitalize() for word in words(name)]
    is_class = name.lstrip("_")[:1].isupper()
    base_class = is_class and "Base" in (parts[0], parts[-1]) and name not in CONFIRMED_BASE
    return base_class or bool(VAGUE & set(parts))


def prints(tree: ast.Module) -> list[int]:
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def imported_names(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for: `from random import random as r` gives {"r": "random.random"}."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value, names)
        return f"{owner}.{node.attr}" if owner else None
    return None


def banned_uses(tree: ast.Module, banned: set[str]) -> list[str]:
    """Uses of banned names, and `random.Random()` without a seed, which is the same thing in a class."""
    names = imported_names(tree)
    found = [f"import of {name}" for name in sorted(set(names.values()) & banned)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (name := dotted(node, names)) in banned:
            found.append(f"line {node.lineno}: {name}")
        if isinstance(node, ast.Call) and not node.args and dotted(node.func, names) == "random.Random":
            found.append(f"line {node.lineno}: random.Random without a seed")
    return found


@pytest.fixture(scope="session")
def banned(root: Path) -> set[str]:
    """The names that the linter bans, so that there is one list."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    table = project["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    return set(table)


def test_no_module_is_too_long(product: Sources, root: Path) -> None:
    sizes = {str(path): module_lines(path, root) for path in product}
    assert {path: size for path, size in sizes.items() if size > MODULE_LINES_MAX} == {}


def test_the_median_module_is_small(product: Sources, root: Path) -> None:
    sizes = [module_lines(path, root) for path in product if path.name != "__init__.py"]
    assert statistics.median(sizes) <= MODULE_LINES_MEDIAN_MAX


def test_no_function_is_too_long(product: Sources) -> None:
    found = {str(path): long_functions(tree) for path, tree in product.items()}
    assert {path: names for path, names in found.items() if names} == {}


def test_names_say_what_things_are(product: Sources) -> None:
    found = {str(path): vague_names(tree) for path, tree in product.items()}
    assert {path: names for path, names in found.items() if names} == {}
    assert [str(path) for path in product if is_vague(path.stem) or path.stem in {"base", "common", "misc"}] == []


def test_only_the_terminal_apps_print(product: Sources) -> None:
    found = {str(path): prints(tree) for path, tree in product.items() if not str(path).startswith(SPEAKING)}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_clocks_ids_and_randomness_come_from_the_environment(product: Sources, banned: set[str]) -> None:
    found = {str(path): banned_uses(tree, banned) for path, tree in product.items() if path not in DOORS | HOSTS}
    assert {path: uses for path, uses in found.items() if uses} == {}


def test_every_module_has_a_docstring_and_postponed_annotations(product: Sources) -> None:
    silent = [str(path) for path, tree in product.items() if tree.body and not ast.get_docstring(tree)]
    assert silent == []
    eager = [str(path) for path, tree in product.items() if imported_names(tree) and not postpones(tree)]
    assert eager == []


def postpones(tree: ast.Module) -> bool:
    future = (node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__")
    plain_reexport = all(isinstance(node, ast.Import | ast.ImportFrom | ast.Expr | ast.Assign) for node in tree.body)
    return plain_reexport or any(alias.name == "annotations" for node in future for alias in node.names)


FOREIGN = re.compile(r"(?<![\w.])/(?:work|root|home)/|\bseed\s§")  # paths of one machine, sources a reader has not got
SPOKEN = (".py", ".md", ".toml", ".yml", ".html", ".js", ".css")


def foreign_words(text: str) -> list[str]:
    return FOREIGN.findall(text)


def test_the_project_speaks_of_itself_alone(root: Path) -> None:
    folders = ("atoma", "stores", "transports", "tests", "docs", "benchmarks", "examples")
    files = [file for folder in folders for file in (root / folder).rglob("*") if file.suffix in SPOKEN]
    files += [file for file in root.iterdir() if file.suffix in SPOKEN]
    found = {str(file.relative_to(root)): foreign_words(file.read_text(encoding="utf-8")) for file in files}
    assert {path: words for path, words in found.items() if words} == {}


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("import time\nnow = time.time()", ["line 2: time.time"]),
        ("import time as t\nnow = t.monotonic()", ["line 2: time.monotonic"]),
        ("from time import perf_counter as clock", ["import of time.perf_counter"]),
        ("from datetime import datetime\nnow = datetime.now()", ["line 2: datetime.datetime.now"]),
        ("import random\ndice = random.Random()", ["line 2: random.Random without a seed"]),
        ("import random\ndice = random.Random(7)", []),
        ("import uuid\nkey = uuid.uuid4()", ["line 2: uuid.uuid4"]),
        ("import asyncio", ["import of asyncio"]),
    ],
)
def test_the_clock_rule_sees_a_planted_use(planted: str, found: list[str], banned: set[str]) -> None:
    assert banned_uses(ast.parse(planted), banned) == found


def test_the_other_rules_see_a_planted_violation() -> None:
    long = "def long():\n" + "    pass\n" * FUNCTION_LINES_MAX
    assert long_functions(ast.parse(long)) == [f"long: {FUNCTION_LINES_MAX + 1} lines"]
    assert vague_names(ast.parse("class StoreManager: ...\ndef path_utils(): ...\nclass NodeBase: ...")) == [
        "StoreManager",
        "path_utils",
        "NodeBase",
    ]
    assert vague_names(ast.parse("class Database: ...\ndef read_base(): ...\nclass BaseRow: ...")) == []
    assert prints(ast.parse("print('x')")) == [1]
    assert foreign_words("see /work" + "/notes") == ["/work" + "/"]
    assert words("HTTPWriteItem_result") == ["HTTP", "Write", "Item", "result"]
