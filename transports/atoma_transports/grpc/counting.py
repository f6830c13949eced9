"""How much there is in a message of Protocol Buffers, before it is taken apart.

Each message within it becomes a value of Python's, which takes a hundred times as long as reading its bytes; and fields of
bytes may hold MessagePack.
"""

from __future__ import annotations

from collections.abc import Container, Generator

from google.protobuf.descriptor import Descriptor

from atoma.contracts.survey import Survey
from atoma_transports.calls.requests import check_survey, too_much

MESSAGES_MAX = 8_000
"""Messages within one request; about 12 ms."""
UNCOUNTED_BYTES = 16 * 1024
"""A request of this size or less cannot hold too many, as each takes two bytes at least."""
TURN_FIELDS = 4_000

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Fields(dict[int, "_Fields | bool"]):
    """The fields of a message, by number: a message, MessagePack (true), or neither (false).

    Found out when it is needed, since a message may hold others of its own kind.
    """

    def __init__(self, descriptor: Descriptor, packed: Container[str]) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._packed = packed

    def __missing__(self, number: int) -> _Fields | bool:
        field = self._descriptor.fields_by_number.get(number)
        inner = None if field is None else field.message_type
        if inner is not None:
            self[number] = _fields(inner, self._packed)
        else:
            self[number] = field is not None and field.full_name in self._packed
        return self[number]


_known: dict[str, _Fields] = {}


def _fields(descriptor: Descriptor, packed: Container[str]) -> _Fields:
    found = _known.get(descriptor.full_name)
    if found is None:
        found = _known[descriptor.full_name] = _Fields(descriptor, packed)
    return found


def count_contents(data: bytes, descriptor: Descriptor, packed: Container[str]) -> Generator[None]:
    """See, in steps, that ``data`` holds no more than one request may; what is malformed is passed over.

    Args:
        data: The message.
        descriptor: What it is.
        packed: Full names of the fields that hold MessagePack.

    Raises:
        RemoteError: ``TOO_LARGE``: it does.
    """
    survey = Survey()
    found = seen = 0
    left = [(0, len(data), _fields(descriptor, packed))]
    while left:
        at, end, fields = left.pop()
        found += 1
        while at < end:
            seen += 1
            if seen % TURN_FIELDS == 0:
                yield
            tag, at = _number(data, at)
            kind = tag & 7
            if kind == _BYTES:
                size, at = _number(data, at)
                within = fields[tag >> 3]
                if within is True:
                    yield from survey.turns(data[at : min(at + size, end)])
                    check_survey(survey)
                elif within is not False:
                    if found + len(left) >= MESSAGES_MAX:
                        raise too_much(f"at most {MESSAGES_MAX:,} messages")
                    left.append((at, min(at + size, end), within))
                at += size
            elif kind == _VARINT:
                _, at = _number(data, at)
            elif kind == _FIXED64:
                at += 8
            elif kind == _FIXED32:
                at += 4
            else:
                break  # groups, or nonsense: for the decoder to refuse


def _number(data: bytes, at: int) -> tuple[int, int]:
    """The varint at ``at``, and where it ends."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, at
