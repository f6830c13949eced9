"""One thing wrong with a valid message: what the fuzzing of decoders and of sessions is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import cast

import msgspec
from hypothesis import strategies as st

from atoma_transports.grpc.convert import pack
from atoma_transports.protocol.json_mapping import to_json
from tests.fuzz.spelling import (
    Node,
    Pairs,
    Spelled,
    nested,
    protobuf_field,
    protobuf_fields,
    varint,
    write_json,
    write_msgpack,
)

GIANT = 64 * 1024

TWISTS: dict[str, Node] = {
    "nothing": None,
    "truth": True,
    "negative": -1,
    "beyond 63 bits": 2**63,
    "all 64 bits": 2**64 - 1,
    "least": -(2**63),
    "beyond a frame's id": 2**53 + 1,
    "beyond a double": Spelled(b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00", b"1e999"),
    "fraction": 0.5,
    "not a number": math.nan,
    "infinite": -math.inf,
    "empty text": "",
    "other text": "nonsense' OR 1=1 --",
    "NUL": "\0",
    "giant text": "x" * GIANT,
    "bytes": b"\xff\x00",
    "giant bytes": b"\xff" * GIANT,
    "empty list": [],
    "long list": [None] * 5000,
    "empty map": {},
    "strange map": {"surprise": 1, "node": "call"},
    "map with a number as key": Spelled(b"\x81\x01\x02", b"{1:2}"),
    "nested": nested(40),
    "deeply nested": nested(3000),
    "very deeply nested": nested(20_000),
    "not UTF-8": Spelled(b"\xa2\xff\xfe", b'"\xff\xfe"'),
    "half a surrogate pair": Spelled(b"\xa3\xed\xa0\x80", b'"\\ud800"'),
    "text that is too long for what follows": Spelled(b"\xdb\xff\xff\xff\xff", b'"'),
    "list that is too long for what follows": Spelled(b"\xdd\xff\xff\xff\xff", b"["),
    "map that is too long for what follows": Spelled(b"\xdf\xff\xff\xff\xff", b"{"),
    "bytes that are too long for what follows": Spelled(b"\xc6\xff\xff\xff\xff", b'"\\'),
    "extension": Spelled(b"\xc7\x04\x01abcd", b"Infinity"),
    "timestamp": Spelled(b"\xd7\xff" + b"\xff" * 8, b"-Infinity"),
    "unused byte": Spelled(b"\xc1", b"NaN"),
    "thousands of digits": Spelled(b"\xcf" + b"\xff" * 8, b"9" * 6000),
    "small exponent": Spelled(b"\xca\x00\x00\x00\x01", b"1e-400"),
    "number with a zero in front": Spelled(b"\xd0\x80", b"007"),
    "comment": Spelled(b"\xd9\x00", b"/* */1"),
    "tagged integer": {"$i": "9" * 30},
    "tagged float": {"$f": "nan"},
    "tagged bytes": {"$x": "A"},
}
"""What one field is replaced by."""


def plain(message: msgspec.Struct) -> Node:
    """``message`` as what MessagePack writes."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message))


def every_twist(tree: Node) -> Iterator[Node]:
    """``tree`` with each of its nodes replaced by each of :data:`TWISTS`, one at a time."""
    for path in _places(tree, ()):
        for twist in TWISTS.values():
            yield _replaced(tree, path, twist)


def every_protobuf_twist(data: bytes) -> Iterator[bytes]:
    """The protobuf message ``data`` with each of its fields replaced by each of :data:`FIELD_TWISTS`."""
    fields = protobuf_fields(data) or []
    for index, (number, wire, value) in enumerate(fields):
        before = b"".join(protobuf_field(*field) for field in fields[:index])
        after = b"".join(protobuf_field(*field) for field in fields[index + 1 :])
        for twist in FIELD_TWISTS:
            yield before + twist(number) + after
        if wire == 2 and isinstance(value, bytes):
            for inner in every_protobuf_twist(value):
                yield before + protobuf_field(number, 2, inner) + after


@st.composite
def twisted(draw: st.DrawFn, tree: Node) -> Node:
    """``tree`` with exactly one node that is wrong, missing, doubled or strange."""
    places = list(_places(tree, ()))
    path = draw(st.sampled_from(places))
    container = _at(tree, path)
    ways = ["twist", "twist", "twist"]
    if isinstance(container, dict):
        ways += ["surprise", "lose", "double"] if container else ["surprise"]
    if isinstance(container, list):
        ways += ["more", "lose"] if container else ["more"]
    way = draw(st.sampled_from(ways))
    if way == "twist":
        return _replaced(tree, path, TWISTS[draw(st.sampled_from(sorted(TWISTS)))])
    changed: Node
    if isinstance(container, dict):
        if way == "surprise":
            changed = {**container, "surprise": 1}
        else:
            key = draw(st.sampled_from(sorted(container, key=str)))
            if way == "lose":
                changed = {name: value for name, value in container.items() if name != key}
            else:
                changed = Pairs((*container.items(), (key, container[key])))
    else:
        items = cast("list[Node]", container)
        changed = [*items, *(items[:1] or [0])] if way == "more" else items[1:]
    return _replaced(tree, path, changed)


def _places(tree: Node, path: tuple[object, ...]) -> list[tuple[object, ...]]:
    found = [path]
    if isinstance(tree, dict):
        found += [place for key, value in tree.items() for place in _places(value, (*path, key))]
    elif isinstance(tree, list):
        found += [place for index, value in enumerate(tree) for place in _places(value, (*path, index))]
    return found


def _at(tree: Node, path: tuple[object, ...]) -> Node:
    for step in path:
        tree = tree[step]  # type: ignore[index]
    return tree


def _replaced(tree: Node, path: tuple[object, ...], node: Node) -> Node:
    if not path:
        return node
    step, *rest = path
    if isinstance(tree, dict):
        return {**tree, step: _replaced(tree[step], tuple(rest), node)}
    items = list(cast("list[Node]", tree))
    items[cast("int", step)] = _replaced(items[cast("int", step)], tuple(rest), node)
    return items


def twisted_msgpack(message: msgspec.Struct) -> st.SearchStrategy[bytes]:
    """``message`` in MessagePack with one thing wrong."""
    return st.one_of(twisted(plain(message)).map(write_msgpack), damaged(msgspec.msgpack.encode(message)))


def twisted_json(message: msgspec.Struct) -> st.SearchStrategy[bytes]:
    """``message`` in JSON with one thing wrong."""
    tree = to_json(message)
    return st.one_of(twisted(tree).map(write_json), damaged(write_json(tree)))


def twisted_protobuf(message: msgspec.Struct) -> st.SearchStrategy[bytes]:
    """``message`` in protobuf with one thing wrong."""
    data = pack(message)
    return st.one_of(_twisted_fields(data), damaged(data))


@st.composite
def _twisted_fields(draw: st.DrawFn, data: bytes, depth: int = 0) -> bytes:
    fields = protobuf_fields(data) or []
    if not fields:
        return data + draw(st.sampled_from(STRANGE_FIELDS))
    index = draw(st.integers(0, len(fields) - 1))
    number, wire, value = fields[index]
    if isinstance(value, bytes) and wire == 2 and depth < 6 and protobuf_fields(value) and draw(st.booleans()):
        new = protobuf_field(number, 2, draw(_twisted_fields(value, depth + 1)))
    else:
        new = draw(st.sampled_from([twist(number) for twist in FIELD_TWISTS]))
    before = b"".join(protobuf_field(*field) for field in fields[:index])
    after = b"".join(protobuf_field(*field) for field in fields[index + 1 :])
    return before + new + after


def _within_one_another(number: int, depth: int) -> bytes:
    """Messages in messages, which none of ours are so deep."""
    data = b""
    for _ in range(depth):
        data = protobuf_field(1, 2, protobuf_field(7, 2, data))
    return protobuf_field(number, 2, data)


FIELD_TWISTS: tuple[Callable[[int], bytes], ...] = (
    lambda number: b"",
    lambda number: protobuf_field(number, 0, 2**64 - 1),
    lambda number: protobuf_field(number, 0, 2**63),
    lambda number: protobuf_field(number, 2, b"\xff\xfe"),
    lambda number: protobuf_field(number, 2, b"\xed\xa0\x80"),
    lambda number: protobuf_field(number, 2, b"x" * GIANT),
    lambda number: varint(number << 3 | 2) + varint(2**32 - 1) + b"short",
    lambda number: varint(number << 3 | 2) + varint(2**63) + b"short",
    lambda number: varint(number << 3) + b"\xff" * 11,
    lambda number: varint(number << 3 | 3),
    lambda number: varint(number << 3 | 4),
    lambda number: varint(number << 3 | 7) + b"1",
    lambda number: varint(number << 3 | 1) + b"12345678",
    lambda number: varint(number << 3 | 3) * 200,
    lambda number: protobuf_field(number, 2, write_msgpack(nested(3000))),
    lambda number: protobuf_field(number, 2, write_msgpack(nested(20_000))),
    lambda number: protobuf_field(number, 2, b"\xdd\xff\xff\xff\xff"),
    lambda number: protobuf_field(number, 2, write_msgpack({"a": [1]})),
    lambda number: _within_one_another(number, 30),
    lambda number: _within_one_another(number, 400),
)
STRANGE_FIELDS = (protobuf_field(999, 2, b"x"), varint(0), protobuf_field(536_870_911, 0, 1), b"\xff" * 12)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` cut short, with bytes changed, doubled, or with something after it."""
    way = draw(st.sampled_from(["cut", "flip", "flip", "double", "append", "insert"]))
    if way == "cut" and data:
        return data[: draw(st.integers(0, len(data) - 1))]
    if way == "flip" and data:
        changed = bytearray(data)
        for _ in range(draw(st.integers(1, 3))):
            changed[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        return bytes(changed)
    if way == "double":
        return data + data
    place = draw(st.integers(0, len(data))) if way == "insert" else len(data)
    return data[:place] + draw(st.binary(min_size=1, max_size=6)) + data[place:]
