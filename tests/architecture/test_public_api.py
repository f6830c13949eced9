"""What applications import: said once, documented, precisely typed, with short names."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import atoma as atoma_root

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("atoma", "stores/atoma_stores", "transports/atoma_transports")
WORDS_MAX = 3
ERASED = re.compile(
    r"\b(StoreSpec|Wire)\[Any\]"
)  # of some model or value: a schema holds unlike ones, and the type has no other word for it
OLD = re.compile(r"deprecated|legacy|compat", re.IGNORECASE)
IMPORT_TRIOS_MAX = 2.5  # it is about 1.7; this catches an import that costs another half of it


def public_modules() -> Iterator[str]:
    """Every module that says what it exports, without a leading underscore anywhere in its name."""
    for folder in PACKAGES:
        source_root = (ROOT / folder).parent
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(source_root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if "\n__all__ = " in file.read_text(encoding="utf-8") and "._" not in name:
                yield name


def words(name: str) -> list[str]:
    return re.findall(
        r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+",
        name.replace("SQLite", "Sqlite").replace("PostgreSQL", "Postgresql").replace("_", " "),
    )


def is_documentable(value: object) -> bool:
    return inspect.isclass(value) or inspect.isroutine(value)


def annotated_any(value: object) -> list[str]:
    """The parameters and results of a function, or of a class's public methods, that are typed `Any`."""
    if inspect.isclass(value):
        methods = [m for name, m in vars(value).items() if not name.startswith("_") or name == "__init__"]
        return [found for method in methods if inspect.isfunction(method) for found in annotated_any(method)]
    if not inspect.isfunction(value):
        return []
    hints = {name: ERASED.sub("StoreSpec", str(hint)) for name, hint in value.__annotations__.items()}
    return [f"{value.__qualname__}({name}: {hint})" for name, hint in hints.items() if re.search(r"\bAny\b", hint)]


def repeated_names(module: ModuleType) -> list[str]:
    """Names that stand for one object twice, or stand twice in `__all__`."""
    names = list(module.__all__)
    seen: dict[int, str] = {}
    repeated = [name for name in set(names) if names.count(name) > 1]
    for name in sorted(set(names)):
        value = getattr(module, name)
        if is_documentable(value):
            if id(value) in seen:
                repeated.append(f"{seen[id(value)]} = {name}")
            seen[id(value)] = name
    return repeated


MODULES = list(public_modules())


def test_the_root_package_says_what_is_public() -> None:
    assert "atoma" in MODULES


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_exists_once_and_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    missing = [public for public in module.__all__ if not hasattr(module, public)]
    assert missing == []
    assert repeated_names(module) == []
    values = {public: getattr(module, public) for public in module.__all__}
    assert [public for public, value in values.items() if is_documentable(value) and not inspect.getdoc(value)] == []
    assert [public for public in values if public.startswith("_") and not public.startswith("__")] == []


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_short_and_current(name: str) -> None:
    module = importlib.import_module(name)
    assert [public for public in module.__all__ if len(words(public)) > WORDS_MAX] == []
    assert [public for public in module.__all__ if OLD.search(public)] == []
    if name.startswith("atoma.runtime"):
        assert [public for public in module.__all__ if public.startswith("Runtime") and public != "Runtime"] == []


@pytest.mark.parametrize("name", MODULES)
def test_public_signatures_say_more_than_any(name: str) -> None:
    module = importlib.import_module(name)
    assert [found for public in module.__all__ for found in annotated_any(getattr(module, public))] == []


def fresh(code: str, **variables: str) -> list[str]:
    """The words that ``code`` prints in a process of its own."""
    environment = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    return done.stdout.split()


def packages(modules: Iterable[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_importing_atoma_loads_what_opens_a_client_and_no_other_library() -> None:
    loaded = "import sys; import {}; print(*sys.modules)"
    atoma, trio = (fresh(loaded.format(name)) for name in ("atoma", "trio"))
    foreign = packages(atoma) - packages(trio) - sys.stdlib_module_names - {"atoma"}
    assert foreign <= {"msgspec", "typing_extensions"}, "what `import atoma` loads, every program waits for"
    assert packages(atoma).isdisjoint({"asyncio", "difflib", "html", "sqlite3"})
    assert [name for name in atoma if re.match(r"atoma\.(sync|hub|testing|bindings|kernel\.drawing)\b", name)] == []


@pytest.mark.parametrize("name", sorted(atoma_root._LOADED_WHEN_USED))
def test_a_name_that_is_loaded_when_used_is_among_the_names(name: str) -> None:
    assert name in atoma_root.__all__
    assert name in dir(atoma_root)
    assert fresh(f"from atoma import {name}; print({name}.__name__)") == [name]


@pytest.mark.xdist_group("machine")
def test_importing_atoma_is_quick(tmp_path: Path) -> None:
    """Measured against ``import trio`` in turns, so that a busy machine says the same; with bytecode, as users have it."""
    compiled = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    fresh("import atoma", **compiled)
    clock = "import time; t = time.process_time(); import {}; print(time.process_time() - t)"
    spent: dict[str, list[float]] = {"trio": [], "atoma": []}
    for _ in range(5):
        for name, times in spent.items():
            times.append(float(fresh(clock.format(name), **compiled)[0]))
    assert min(spent["atoma"]) < IMPORT_TRIOS_MAX * min(spent["trio"])


class Planted:
    """A documented class with a vague method."""

    def take(self, value: Any) -> list[Any]:
        """Takes anything."""
        return [value]


def test_the_rules_see_a_planted_violation() -> None:
    module = ModuleType("planted")
    vars(module).update(A=Planted, B=Planted, __all__=["A", "B", "B"])
    assert sorted(repeated_names(module)) == ["A = B", "B"]
    assert annotated_any(Planted) == ["Planted.take(value: Any)", "Planted.take(return: list[Any])"]
    assert words("GetAllMergePolicy") == ["Get", "All", "Merge", "Policy"]
    assert OLD.search("LegacyStore")
