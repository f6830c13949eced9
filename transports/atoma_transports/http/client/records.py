"""The records in which the replies of a batch and the items of a stream come."""

from __future__ import annotations

from atoma.contracts.codec import decode
from atoma.contracts.values import ErrorInfo
from atoma.errors import ChannelBroken, ProtocolError
from atoma_transports.http.client.requests import Reply

RECORD_HEAD = 5
RECORD_SLACK = 4096
"""What a record may hold beyond the largest message: the id of its call."""
KINDS = frozenset(b"iezp")


class RecordReader:
    """Takes the body of a reply apart: one byte of kind, four of length, the payload.

    Args:
        reply: The reply that is read.
        size_max: Largest message.
    """

    def __init__(self, reply: Reply, size_max: int) -> None:
        self._reply = reply
        self._size_max = size_max + RECORD_SLACK
        self._data = bytearray()

    async def next(self) -> bytes | None:
        """The payload of the next item; None at the end.

        Raises:
            ChannelBroken: The body broke off.
            ProtocolError: It is none of records, or a record is too large.
            RecordsEnded: The other side says what went wrong, in place of the rest.
        """
        while True:
            await self._fill(RECORD_HEAD)
            kind, size = self._data[0], int.from_bytes(self._data[1:RECORD_HEAD], "big")
            if kind not in KINDS or size > self._size_max:
                raise ProtocolError("the reply is not made of records, or one is too large")
            await self._fill(RECORD_HEAD + size)
            payload = bytes(memoryview(self._data)[RECORD_HEAD : RECORD_HEAD + size])
            del self._data[: RECORD_HEAD + size]
            if kind == ord("i"):
                return payload
            if kind == ord("e"):
                raise RecordsEnded(decode(payload, ErrorInfo))
            if kind == ord("z"):
                return None

    async def finish(self) -> None:
        """Read to the end of the body, so that the connection can be used again."""
        while data := await self._reply.receive():
            self._data += data
            if len(self._data) > RECORD_SLACK:
                raise ProtocolError("bytes after the last record")

    async def _fill(self, size: int) -> None:
        while len(self._data) < size:
            data = await self._reply.receive()
            if not data:
                raise ChannelBroken("the reply was cut short; the outcome of the call is unknown")
            self._data += data


class RecordsEnded(Exception):
    """A record of kind ``e``: the error that ended a stream or a batch."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(info.code)
        self.info = info
