"""MessagePack and JSON written by hand, so that things can be written that no encoder would write."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Spelled:
    """A node that has its own bytes in each encoding."""

    msgpack: bytes
    json: bytes


@dataclass(frozen=True)
class Pairs:
    """A map in which a key may come twice."""

    items: tuple[tuple[object, object], ...]


Node: TypeAlias = object
"""None, bool, int, float, str, bytes, list, dict, or one of the above."""


def write_msgpack(node: Node) -> bytes:
    """``node`` as MessagePack; integers beyond 64 bits are cut."""
    match node:
        case Spelled():
            return node.msgpack
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if node else b"\xc2"
        case int():
            if node >= 0:
                return bytes([node]) if node < 128 else b"\xcf" + (node % 2**64).to_bytes(8, "big")
            return b"\xd3" + (node % 2**64).to_bytes(8, "big")
        case float():
            return b"\xcb" + struct.pack(">d", node)
        case str():
            data = node.encode("utf-8", "surrogatepass")
            return b"\xdb" + len(data).to_bytes(4, "big") + data
        case bytes():
            return b"\xc6" + len(node).to_bytes(4, "big") + node
        case list() | tuple():
            return b"\xdd" + len(node).to_bytes(4, "big") + b"".join(map(write_msgpack, node))
        case dict() | Pairs():
            pairs = list(_pairs(node))
            body = b"".join(write_msgpack(part) for pair in pairs for part in pair)
            return b"\xdf" + len(pairs).to_bytes(4, "big") + body
        case _:
            raise TypeError(f"cannot write a {type(node).__name__}")


def write_json(node: Node) -> bytes:
    """``node`` as JSON; bytes as base64url."""
    match node:
        case Spelled():
            return node.json
        case bytes():
            return b'"' + base64.urlsafe_b64encode(node).rstrip(b"=") + b'"'
        case float() if not math.isfinite(node):
            return json.dumps(node).encode()
        case list() | tuple():
            return b"[" + b",".join(map(write_json, node)) + b"]"
        case dict() | Pairs():
            return (
                b"{" + b",".join(write_json(str(key)) + b":" + write_json(value) for key, value in _pairs(node)) + b"}"
            )
        case _:
            return json.dumps(node).encode()


def _pairs(node: dict[object, object] | Pairs) -> Iterable[tuple[object, object]]:
    return node.items if isinstance(node, Pairs) else node.items()


def nested(depth: int) -> Spelled:
    """A list in a list in a list."""
    return Spelled(b"\x91" * depth + b"\xc0", b"[" * depth + b"]" * depth)


def varint(number: int) -> bytes:
    """``number`` as protobuf writes it."""
    data = b""
    while True:
        number, low = number >> 7, number & 0x7F
        if not number:
            return data + bytes([low])
        data += bytes([low | 0x80])


def protobuf_field(number: int, wire: int, value: bytes | int) -> bytes:
    """One field: ``wire`` 0 a varint, 2 bytes with their length, otherwise the bytes as they are."""
    head = varint(number << 3 | wire)
    if isinstance(value, int):
        return head + varint(value % 2**64)
    return head + (varint(len(value)) if wire == 2 else b"") + value


def protobuf_fields(data: bytes) -> list[tuple[int, int, bytes | int]] | None:
    """The fields of a message; None when it is none."""
    found: list[tuple[int, int, bytes | int]] = []
    place = 0

    def number() -> int | None:
        nonlocal place
        value = shift = 0
        while place < len(data) and shift < 70:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value
        return None

    while place < len(data):
        head = number()
        if head is None or not head >> 3:
            return None
        wire = head & 7
        size = {1: 8, 5: 4}.get(wire)
        if wire == 0:
            value = number()
            if value is None:
                return None
            found.append((head >> 3, 0, value))
            continue
        if wire == 2:
            size = number()
        if size is None or place + size > len(data):
            return None
        found.append((head >> 3, wire, data[place : place + size]))
        place += size
    return found
