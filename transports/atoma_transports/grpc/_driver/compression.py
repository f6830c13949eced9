"""Header compression that remembers: the headers of one call are those of the next, and cost nothing a second time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, cast

from hpack import Decoder, Encoder, HeaderTuple
from hpack.exceptions import HPACKDecodingError, OversizedHeaderListError
from hpack.struct import NeverIndexedHeaderTuple
from hpack.table import HeaderTable

TABLE_BYTES = 4096
"""Memory for the headers that both sides remember, whatever the peer offers."""

logging.getLogger("hpack").setLevel(logging.INFO)
"""At DEBUG it writes every header down, tokens included, as soon as an application sets the root logger to that."""

_BLOCKS = 64
_BLOCK_BYTES = 1024
"""Blocks of this size or less are remembered, and cannot hold too many fields to be unpacked."""
_INTEGER_BYTES_MAX = 6

HeaderField = tuple[str, str] | tuple[bytes, bytes]


def passing(name: str, value: str) -> tuple[str, str]:
    """A header that differs from call to call: it is sent as it is, and pushes nothing out of the memory."""
    return cast("tuple[str, str]", NeverIndexedHeaderTuple(name, value))


def _newest(table: HeaderTable) -> object:
    return table.dynamic_entries[0] if table.dynamic_entries else None


class RememberingEncoder(Encoder):
    """An encoder that gives a known list of headers the block that it had before.

    That block stays right for as long as the table of headers does not change.
    """

    def __init__(self) -> None:
        super().__init__()
        self._blocks: dict[tuple[HeaderField, ...], bytes] = {}

    @property
    def header_table_size(self) -> int:
        """Bytes that the table of headers may take."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        value = min(value, TABLE_BYTES)
        if value != self.header_table.maxsize:
            self._blocks.clear()
            self.header_table.maxsize = value
            lowest = min([value, *self.table_size_changes])
            self.table_size_changes = [value] if lowest == value else [lowest, value]  # hpack would send them all

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        """The block for ``headers``; those at the end that are ``passing`` are written out."""
        lasting: Sequence[HeaderField] = headers
        count = len(lasting)
        while count and isinstance(lasting[count - 1], NeverIndexedHeaderTuple):
            count -= 1
        if count == len(lasting):
            return self._lasting(tuple(lasting), huffman)
        written = [self._lasting(tuple(lasting[:count]), huffman)]
        for name, value in lasting[count:]:
            written.append(self.add((_bytes(name), _bytes(value)), True, False))
        return b"".join(written)

    def _lasting(self, key: tuple[HeaderField, ...], huffman: bool) -> bytes:
        resized = self.header_table.resized
        block = None if resized else self._blocks.get(key)
        if block is None:
            before = _newest(self.header_table)
            block = super().encode(key, huffman)
            if resized or _newest(self.header_table) is not before or len(self._blocks) >= _BLOCKS:
                self._blocks.clear()
            else:
                self._blocks[key] = block
        return block


class RememberingDecoder(Decoder):
    """A decoder that knows the headers of a block that it had before, as long as the table has not changed.

    Args:
        max_header_list_size: Bytes of a list of headers, as HTTP/2 counts them.
        max_fields: Fields of a block, which are counted before any of them is unpacked.
    """

    def __init__(self, max_header_list_size: int, max_fields: int) -> None:
        super().__init__(max_header_list_size)
        self._max_fields = max_fields
        self._blocks: dict[bytes, Iterable[HeaderTuple]] = {}

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        """The headers in ``data``.

        Raises:
            OversizedHeaderListError: There is too much in it.
            HPACKDecodingError: It is malformed.
        """
        if len(data) > _BLOCK_BYTES:
            self._blocks.clear()
            check_fields(data, self._max_fields)
            return super().decode(data, raw)
        data = bytes(data)
        headers = self._blocks.get(data)
        if headers is None:
            size, before = self.header_table.maxsize, _newest(self.header_table)
            headers = super().decode(data, raw)
            changed = self.header_table.maxsize != size or _newest(self.header_table) is not before
            if changed or len(self._blocks) >= _BLOCKS:
                self._blocks.clear()
            else:
                self._blocks[data] = headers
        return headers


def check_fields(block: bytes, most: int) -> None:
    """See that ``block`` has no more than ``most`` fields and notes, without unpacking it; the rest is for the decoder.

    A note that says nothing takes one byte, an index that stands for a field too, and unpacking either microseconds.

    Raises:
        OversizedHeaderListError: It has more.
        HPACKDecodingError: It has a number that is longer than any that is of use.
    """
    at, end, seen = 0, len(block), 0
    while at < end:
        seen += 1
        if seen > most:
            raise OversizedHeaderListError(f"more than {most} header fields")
        first = block[at]
        if first & 0x80:
            _, at = _integer(block, at, 7)
        elif first & 0xE0 == 0x20:
            _, at = _integer(block, at, 5)
        else:
            index, at = _integer(block, at, 6 if first & 0x40 else 4)
            for _ in range(1 if index else 2):
                size, at = _integer(block, at, 7)
                at += size


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """The number at ``at``, in the last ``bits`` of its first byte and what follows, and where it ends."""
    mask = (1 << bits) - 1
    value = block[at] & mask if at < len(block) else 0
    at += 1
    if value < mask:
        return value, at
    for place in range(_INTEGER_BYTES_MAX):
        byte = block[at] if at < len(block) else 0
        at += 1
        value += (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at
    raise HPACKDecodingError("a number without an end")


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
