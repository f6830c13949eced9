"""What the checkers know about mutations and verdicts, read from the files and decoded without the product's code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
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
    edits: tuple[tuple[str, str, int], ...] = ()

    @property
    def said(self) -> tuple[object, ...]:
        """What it does, by whatever number it builds on another one."""
        return self.kind, self.key, self.values, self.defaults, self.cas, self.edits

    @property
    def counts(self) -> bool:
        """Whether it adds to a number, so that done twice it makes another one of it."""
        return any(kind == "inc" for _, kind, _ in self.edits)

    def over(self, image: Image) -> Image:
        """A row that is there, with what it changes."""
        after: dict[str, Any] = {**image, **self.values}
        for column, kind, operand in self.edits:
            if kind != "inc":
                raise ValueError(f"unknown edit {kind!r}")
            after[column] = (after[column] or 0) + operand
        return after


Name: TypeAlias = tuple[bytes, int, bytes]
"""What a mutation is called: its client, its number, the digest after it. Copies of a file share the first two."""


@dataclass(frozen=True, slots=True)
class Offered:
    """The place in a lost history at which an offered row was like that; ``last`` says that all of them have come.

    What nothing proves does not tell its place: then ``hash`` is what the checkers know of it.
    """

    epoch: bytes
    seq: int
    hash: bytes
    last: bool
    proven: bool = True

    @property
    def told(self) -> Offered:
        """As its bytes tell it."""
        return self if self.proven else replace(self, hash=b"")


@dataclass(frozen=True, slots=True)
class Written:
    """A mutation as it lies in an outbox.

    Attributes:
        client: Client id.
        mid: Its number.
        scope: Its scope.
        epoch: Epoch of ``base_seq``.
        base_seq: What it says that the user had seen.
        seen: What they had seen: the hash of the log at the cursor in the commit that wrote it first.
        digest: Digest chain after it.
        ops: Its operations.
        origin: What it was called before, None when this is its first name.
        doubtful: Whether it may have been decided long ago.
        offered: For a row of a lost history.
        brought: Whether somebody brings back with it what was kept; without a proof that is a write like any other.
    """

    client: bytes
    mid: int
    scope: str
    epoch: bytes
    base_seq: int
    seen: bytes
    digest: bytes
    ops: tuple[Operation, ...]
    origin: Name | None = None
    doubtful: bool = False
    offered: Offered | None = None
    brought: bool = False

    @property
    def keys(self) -> frozenset[Key]:
        """The rows it touches."""
        return frozenset(op.key for op in self.ops)

    @property
    def name(self) -> Name:
        """What it is called at the hub."""
        return (self.client, self.mid, self.digest)

    @property
    def first_name(self) -> Name:
        """What it was called first, for ever."""
        return self.origin or self.name

    def known_by(self, before: Written) -> Written:
        """This, which was ``before`` until now, with what its bytes do not tell."""
        return replace(self, seen=before.seen, offered=before.offered, brought=before.brought)


@dataclass(frozen=True, slots=True)
class Decided:
    """A verdict as the hub keeps it; ``hash`` is the log's at ``seq``."""

    status: str
    scope: str
    seq: int
    digest: bytes
    code: str = ""
    hash: bytes = b""

    @property
    def rejected(self) -> bool:
        """Whether nothing of the mutation was taken."""
        return self.status == "rejected"


def read_body(client: bytes, digest: bytes, body: bytes, seen: bytes) -> Written:
    """The mutation in the bytes of an outbox."""
    decoded: dict[str, Any] = msgspec.msgpack.decode(body)
    origin: list[Any] | None = decoded.get("origin")
    offered: list[Any] | None = decoded.get("recovers")
    return Written(
        client,
        decoded["mid"],
        decoded["scope"],
        decoded.get("base_epoch", b""),
        decoded["base_seq"],
        seen,
        digest,
        tuple(
            Operation(
                op["kind"],
                (op["store"], op["id"]),
                op.get("values", {}),
                op.get("defaults", {}),
                op.get("after_mid", 0),
                op.get("cas", False),
                tuple((column, kind, operand) for column, kind, operand in op.get("edits", ())),
            )
            for op in decoded["ops"]
        ),
        None if origin is None else (origin[0], origin[1], origin[2]),
        decoded.get("doubtful", False),
        None
        if offered is None
        else Offered(offered[0], offered[1], offered[2], len(offered) > 4 and offered[4], bool(offered[3])),
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
            image = None if image is None else op.over(image)
        elif op.kind == "upsert":
            image = {**op.defaults, **op.values} if image is None else op.over(image)
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
