"""A device's history as data: commits, what each changed, and the groups that can be undone."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace

from atoma.contracts.values import RowImage, Scalar
from atoma.errors import ValidationError

HistoryTurn: TypeAlias = Literal["do", "undo", "redo"]
"""The role of a unit in its group: a part of it, its undo, or its redo."""

S = TypeVar("S", "_Head", "_Line")

FORMAT = 1


class UndoMark(msgspec.Struct, frozen=True):
    """A mark that makes a unit part of a group that can be undone.

    Attributes:
        group: Key of the group, drawn when it was opened.
        stack: Where the group lies.
        label: The label for users.
        turn: ``undo`` and ``redo`` replace what the group did by what the unit does.
    """

    group: str
    stack: str
    label: str
    turn: HistoryTurn = "do"


class PastCommit(msgspec.Struct, frozen=True):
    """A commit that is remembered.

    Attributes:
        commit: Its number.
        at_ms: When it was made, by this device's clock, in milliseconds since 1970.
        rows: How many visible rows it changed.
        key: Key of the call that wrote it; ``""`` for a change from elsewhere, such as a page of the hub.
        group: The group that it belongs to now, ``""`` for none.
    """

    commit: int
    at_ms: int
    rows: int
    key: str
    group: str


class RowChange(msgspec.Struct, frozen=True):
    """The change of one row by a commit.

    Attributes:
        store: Store name.
        id: Row id.
        scope: Scope of the row.
        before: The visible row before it, None when there was none.
        after: The visible row after it, None when it is gone.
        refused: Why the authority refused it since, ``""`` while it has not.
    """

    store: str
    id: str
    scope: str
    before: RowImage | None
    after: RowImage | None
    refused: str = ""


class Changeset(msgspec.Struct, frozen=True):
    """The changes of the visible rows by one or several consecutive commits, as data that can be sent, inverted and applied.

    Attributes:
        commit: Number of the commit, on the device that made it.
        at_ms: When it was made, in milliseconds since 1970.
        schema_version: Version of the schema in whose terms the rows are.
        changes: Each row once, in the order of store and id.
    """

    commit: int
    at_ms: int
    schema_version: int
    changes: tuple[RowChange, ...]

    def inverted(self) -> Changeset:
        """Return the changeset that undoes this one: applied, it restores the rows as they were before."""
        back = tuple(replace(each, before=each.after, after=each.before) for each in self.changes)
        return replace(self, changes=back)

    def only(self, wanted: Callable[[RowChange], bool]) -> Changeset:
        """Return a changeset with only the changes that are ``wanted``."""
        return replace(self, changes=tuple(filter(wanted, self.changes)))

    def to_ndjson(self) -> str:
        """Return the changeset as lines of JSON: a header, then a line per row; for files, bug reports, other programs."""
        head = {"atoma": "changeset", "format": FORMAT, "schema_version": self.schema_version}
        lines: list[object] = [{**head, "commit": self.commit, "at_ms": self.at_ms}]
        for each in self.changes:
            row: dict[str, object] = {"store": each.store, "id": each.id, "scope": each.scope}
            row |= {"before": _told(each.before), "after": _told(each.after)}
            lines.append(row | ({"refused": each.refused} if each.refused else {}))
        return "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)

    @staticmethod
    def from_ndjson(text: str) -> Changeset:
        """Return the changeset from the text that :meth:`to_ndjson` returned.

        Raises:
            ValidationError: ``text`` is not a changeset; the message names the line.
        """
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if not lines:
            raise ValidationError("a changeset begins with a header line; this text is empty")
        head = _read(_Head, *lines[0])
        if head.atoma != "changeset" or head.format != FORMAT:
            raise ValidationError(f"line 1: this is not a changeset of format {FORMAT}")
        return Changeset(head.commit, head.at_ms, head.schema_version, tuple(_changes(lines[1:])))


class _Head(msgspec.Struct):
    atoma: str
    format: int
    schema_version: int
    commit: int
    at_ms: int


class _Line(msgspec.Struct):
    store: str
    id: str
    scope: str
    before: dict[str, object] | None
    after: dict[str, object] | None
    refused: str = ""


def _changes(lines: list[tuple[int, str]]) -> Iterator[RowChange]:
    for number, text in lines:
        line = _read(_Line, number, text)
        before, after = _understood(line.before, number), _understood(line.after, number)
        yield RowChange(line.store, line.id, line.scope, before, after, line.refused)


def _read(kind: type[S], number: int, line: str) -> S:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ValidationError(f"line {number} is not a line of a changeset: {error}") from None


def _told(image: RowImage | None) -> dict[str, object] | None:
    return None if image is None else {name: _told_value(value) for name, value in image.items()}


def _told_value(value: Scalar) -> object:
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    return value


def _understood(told: dict[str, object] | None, number: int) -> RowImage | None:
    return None if told is None else {name: _value(value, name, number) for name, value in told.items()}


def _value(told: object, name: str, number: int) -> Scalar:
    if told is None or isinstance(told, (bool, int, float, str)):
        return told
    try:
        match told:
            case {"$bytes": str(text)}:
                return base64.b64decode(text, validate=True)
            case {"$float": str(text)}:
                return float(text)
            case _:
                pass
    except ValueError:
        pass
    raise ValidationError(f"line {number}: {name} has a value that no column can hold", field=name, value=told)


class UndoStep(msgspec.Struct, frozen=True):
    """A group of writes on an undo stack, as the file has it.

    Attributes:
        key: Its key.
        label: The label for users.
        at_ms: When its first write was made, in milliseconds since 1970.
        undone: Whether it has been undone, so that it can be redone.
    """

    key: str
    label: str
    at_ms: int
    undone: bool


class TurnedOver(msgspec.Struct, frozen=True):
    """The newest step of an undo stack, with the changes to take back for undo or redo, newest commit first.

    Attributes:
        step: The step.
        commits: The changes of its commits.
    """

    step: UndoStep
    commits: tuple[Changeset, ...]
