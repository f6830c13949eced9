"""One word, one meaning: a class with a word of the glossary in its name means what the glossary says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

Sources = dict[Path, ast.Module]

GLOSSARY = Path("docs/reference/glossary.md")
HOMES = {
    "step": (
        "atoma/contracts/execution.py",
        "atoma/contracts/events.py",
        "atoma/kernel/",
        "atoma/inspector/",
        "atoma/telemetry/",
    ),
    "session": ("atoma/ports/sessions.py",),
    "frame": ("transports/atoma_transports/frames/", "atoma/testing/"),
    "batch": ("stores/atoma_stores/sql/", "atoma/contracts/events.py", "transports/atoma_transports/http/"),
}
"""Where the word means by itself what the glossary says; elsewhere a word before it says what else is meant."""
DEFINED = {
    "step": "atoma/contracts/execution.py",
    "session": "atoma/ports/sessions.py",
    "frame": "transports/atoma_transports/frames/envelope.py",
    "batch": "stores/atoma_stores/sql/scripts.py",
}
"""The module whose class has nothing but the word for its name."""


def named(tree: ast.Module) -> Iterator[str]:
    """The classes and the type aliases of a module."""
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias")):
                yield name
            case _:
                pass


def words(name: str) -> list[str]:
    """The words of a class's name, in the singular: `MigrationSteps` has `migration` and `step`."""
    found: list[str] = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)
    singular = {f"{word}{'es' if word.endswith('ch') else 's'}": word for word in HOMES}
    return [singular.get(word.lower(), word.lower()) for word in found]


def misused(sources: Sources, glossary: str) -> Iterator[str]:
    """What is named with a word that means something else there."""
    for path, tree in sources.items():
        for name in named(tree):
            parts = words(name)
            for at, word in enumerate(parts):
                if word not in HOMES:
                    continue
                if parts == [word] and path.as_posix() != DEFINED[word]:
                    yield f"{path}: {name} is another one than the {word} of {DEFINED[word]}"
                elif not path.as_posix().startswith(HOMES[word]) and (
                    at == 0 or f"{parts[at - 1]} {word}" not in glossary
                ):
                    yield f"{path}: {name} is not what {GLOSSARY} calls a {word}"


def test_a_word_of_the_glossary_has_one_meaning(product: Sources, root: Path) -> None:
    glossary = (root / GLOSSARY).read_text(encoding="utf-8").lower()
    assert [word for word in HOMES if not re.search(rf"^\*\*(.*, )?{word}(, .*)?\*\*$", glossary, re.MULTILINE)] == []
    assert [*misused(product, glossary)] == []


def test_the_class_that_has_the_word_for_its_name_is_there(product: Sources) -> None:
    found = {(word, path.as_posix()) for path, tree in product.items() for name in named(tree) for word in words(name)}
    assert set(DEFINED.items()) - found == set()


def test_a_second_meaning_is_seen() -> None:
    planted = {
        Path("atoma/kernel/types.py"): ast.parse("class Frame: ..."),
        Path("atoma/sync/session.py"): ast.parse("class SyncSession: ...\nclass RetrySession: ..."),
        Path("atoma/hub/pushing.py"): ast.parse("class PushStep: ..."),
        Path("stores/atoma_stores/sql/scripts.py"): ast.parse("Batch: TypeAlias = tuple[str, ...]"),
        Path("transports/atoma_transports/http/envelope.py"): ast.parse("class Batch: ...\nclass BatchCall: ..."),
    }
    assert [line.partition(" is ")[0] for line in misused(planted, "a sync session")] == [
        "atoma/kernel/types.py: Frame",
        "atoma/sync/session.py: RetrySession",
        "atoma/hub/pushing.py: PushStep",
        "transports/atoma_transports/http/envelope.py: Batch",
    ]
