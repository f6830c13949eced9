"""What the checkers know about mutations and verdicts, read from the files and decoded without the product's code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

Image: TypeAlias = Mapping[str, object]
Key: TypeAlias = tuple[str, str]
"""Store name and row id."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a mutation, as the client wrote it."""

    kind: str
    key: Key
    values: Image
    defaults: Image
    after_mid: int
    cas: bool


@dataclass(frozen=True, slots=True)
class Written:
    """A mutation as it was committed at a client.

    Attributes:
        client: Client id.
        mid: Its number.
        scope: Its scope.
        base_seq: Cursor of that scope in the commit that wrote it: what the user had seen.
        digest: Digest chain after it.
        ops: Its operations.
    """

    client: bytes
    mid: int
    scope: str
    base_seq: int
    digest: bytes
    ops: tuple[Operation, ...]

    @property
    def keys(self) -> frozenset[Key]:
        """The rows it touches."""
        return frozenset(op.key for op in self.ops)


@dataclass(frozen=True, slots=True)
class Decided:
    """A verdict as the hub keeps it."""

    status: str
    scope: str
    seq: int
    digest: bytes
    code: str = ""

    @property
    def rejected(self) -> bool:
        """Whether nothing of the mutation was taken."""
        return self.status == "rejected"


def operations(body: bytes) -> tuple[Operation, ...]:
    """The operations in the bytes of a mutation."""
    decoded: dict[str, Any] = msgspec.msgpack.decode(body)
    return tuple(
        Operation(
            op["kind"],
            (op["store"], op["id"]),
            op.get("values", {}),
            op.get("defaults", {}),
            op.get("after_mid", 0),
            op.get("cas", False),
        )
        for op in decoded["ops"]
    )


def image_of(packed: bytes | None) -> Image | None:
    """A row image as the files keep it."""
    if packed is None:
        return None
    image: dict[str, object] = msgspec.msgpack.decode(packed)
    return image


def code_of(detail: bytes | None) -> str:
    """The error code in the details of a kept outcome."""
    if detail is None:
        return ""
    decoded: list[Any] = msgspec.msgpack.decode(detail)
    error = decoded[0]
    return "" if error is None else str(error["code"])


def replayed(image: Image | None, ops: Iterable[Operation], key: Key) -> Image | None:
    """``image`` with the operations on ``key`` carried out in order, as a user sees their own pending writes."""
    for op in ops:
        if op.key != key:
            continue
        if op.kind == "delete":
            image = None
        elif op.kind in ("create", "replace"):
            image = dict(op.values)
        elif op.kind == "patch":
            image = None if image is None else {**image, **op.values}
        elif op.kind == "upsert":
            image = {**(op.defaults if image is None else image), **op.values}
        else:
            raise ValueError(f"unknown operation {op.kind!r}")
    return image


def difference(found: Mapping[Key, Image], wanted: Mapping[Key, Image]) -> str:
    """The first few rows in which two states differ."""
    keys = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    shown = [f"{store}/{id} is {_show(found, (store, id))}, not {_show(wanted, (store, id))}" for store, id in keys[:3]]
    return "; ".join(shown) + (f"; and {len(keys) - 3} more" if len(keys) > 3 else "")


def _show(state: Mapping[Key, Image], key: Key) -> str:
    return str(dict(state[key])) if key in state else "absent"
