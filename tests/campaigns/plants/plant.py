"""A planted violation: a place by its qualified name, a small pattern in it, and what stands there instead."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.campaigns.workbench import ROOT

FOLDERS = {"atoma": "", "atoma_stores": "stores/", "atoma_transports": "transports/"}


@dataclass(frozen=True, slots=True)
class Plant:
    """One way to break a promise.

    Attributes:
        row: The promise, as ``A08``.
        where: ``module:Class.function``, or ``module`` for a whole module.
        old: Text that stands exactly once in the place.
        new: What stands there instead.
        why: What a user would see of it, in a few words.
        tests: The tests that have to notice it; the ones named in the row when empty.
    """

    row: str
    where: str
    old: str
    new: str
    why: str
    tests: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """A name that stays the same as long as the plant does."""
        return hashlib.sha256("\0".join((self.row, self.where, self.old, self.new)).encode()).hexdigest()[:12]

    @property
    def module(self) -> str:
        """The path of the module, relative to the checkout."""
        name = self.where.partition(":")[0]
        base = FOLDERS[name.partition(".")[0]] + name.replace(".", "/")
        package = f"{base}/__init__.py"
        return package if (ROOT / package).exists() else f"{base}.py"

    def source(self, root: Path = ROOT) -> str:
        """The module with the violation in it.

        Raises:
            LookupError: The place or the pattern is no longer there, or stands there more than once.
        """
        path = root / self.module
        if not path.exists():
            raise LookupError(f"{self.row}: there is no module {self.where.partition(':')[0]}")
        text = path.read_text(encoding="utf-8")
        start, end = _span(text, self.where.partition(":")[2], self)
        count = text.count(self.old, start, end)
        if count != 1:
            raise LookupError(f"{self.row}: {self.old!r} stands {count} times in {self.where}")
        at = text.index(self.old, start)
        return text[:at] + self.new + text[at + len(self.old) :]


def plant(row: str, where: str, old: str, new: str, why: str, *tests: str) -> Plant:
    """A plant in one line of arguments, with the tests that have to notice it behind them."""
    return Plant(row, where, old, new, why, tests)


def plants(*, row: str = "") -> list[Plant]:
    """Every plant of the table, or those of one row."""
    from tests.campaigns.plants.table import TABLE

    return [plant for plant in TABLE if row in ("", plant.row)]


def unplanted(rows: Mapping[str, str], table: Sequence[Plant], excused: Mapping[str, str]) -> list[str]:
    """The rows that have neither a plant nor a reason why not."""
    planted = {plant.row for plant in table}
    return [row for row in rows if row not in planted and row not in excused]


def _span(text: str, name: str, plant: Plant) -> tuple[int, int]:
    """Where the function or class ``name`` begins and ends in ``text``."""
    if not name:
        return 0, len(text)
    nodes: list[ast.stmt] = ast.parse(text).body
    found: ast.stmt | None = None
    for part in name.split("."):
        named = [node for node in _statements(nodes) if getattr(node, "name", None) == part]
        if not named:
            raise LookupError(f"{plant.row}: {plant.where} has no {part}")
        found = named[-1]
        nodes = getattr(found, "body", [])
    assert found is not None
    lines = text.splitlines(keepends=True)
    decorators: list[ast.expr] = getattr(found, "decorator_list", [])
    first = min([found.lineno, *(decorator.lineno for decorator in decorators)])
    return sum(map(len, lines[: first - 1])), sum(map(len, lines[: found.end_lineno]))


def _statements(nodes: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body, those inside ``if`` and ``try`` included."""
    for node in nodes:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _statements([child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)])
