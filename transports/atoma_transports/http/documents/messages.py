"""What is said about documents: plain JSON, with the names that clients of such protocols use."""

from __future__ import annotations

from collections.abc import Generator
from typing import Annotated, TypeAlias, TypeVar

import msgspec

from atoma.contracts.values import ErrorInfo
from atoma.errors import ProtocolError
from atoma_transports.http.envelope import BASE64_GROWTH, check_separators
from atoma_transports.protocol.json_text import parse_json

DELETED = "_deleted"
_SHAPE = {"required": ["id"], "properties": {"id": {"type": "string"}, DELETED: {"type": "boolean"}}}
Document: TypeAlias = Annotated[dict[str, object], msgspec.Meta(extra_json_schema=_SHAPE)]
"""A row by its fields, with ``id`` and ``_deleted``; fields that are missing are left out."""
LIMIT = 100
LIMIT_MAX = 5_000

T = TypeVar("T", bound=msgspec.Struct)


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a client is; ``at`` is opaque. It is an object, because clients merge checkpoints as objects."""

    at: str


class PullDocuments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/docs/{store}/pull``.

    Attributes:
        checkpoint: Where to go on; None begins.
        limit: How many documents are wanted: at least so many come if there are so many and they fit.
        have: Ids of documents that the client has: those of which the hub has no row come as deleted. For a client that has to
            begin anew, and cannot know what was deleted meanwhile.
    """

    checkpoint: Checkpoint | None = None
    limit: int = LIMIT
    have: tuple[str, ...] = ()


class PushedDocument(msgspec.Struct, frozen=True, rename="camel"):
    """One change.

    Attributes:
        new_document_state: The document as the client wants it, with ``_deleted``.
        assumed_master_state: The document as the client believes the hub to have it; None where it believes that there is none.
    """

    new_document_state: Document
    assumed_master_state: Document | None = None

    @property
    def id(self) -> str:
        """The id of the document.

        Raises:
            ProtocolError: It has none, or two.
        """
        ids = [state.get("id") for state in (self.new_document_state, self.assumed_master_state) if state is not None]
        if not isinstance(ids[0], str) or ids[-1] != ids[0]:
            raise ProtocolError("newDocumentState and assumedMasterState have one id, a text")
        return ids[0]


class PushDocuments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/docs/{store}/push``."""

    rows: tuple[PushedDocument, ...]


class Documents(msgspec.Struct, frozen=True):
    """The answer to a pull, and an event of a stream.

    Attributes:
        documents: The last state of each.
        checkpoint: Where to go on, once they are stored.
        more: Whether there are more now.
    """

    documents: tuple[Document, ...]
    checkpoint: Checkpoint
    more: bool = False


class Resync(msgspec.Struct, frozen=True):
    """An event of a stream: pull from your checkpoint, since something may have passed you by."""


class RefusedDocument(msgspec.Struct, frozen=True):
    """A change that the hub will never take, whoever has changed what."""

    id: str
    error: ErrorInfo


class PushedDocuments(msgspec.Struct, frozen=True):
    """The answer to a push; what is not in it was taken.

    Attributes:
        conflicts: The hub's state of each document whose change was not taken, because it was not as assumed or is refused.
        refused: Those of them that are refused, and why.
    """

    conflicts: tuple[Document, ...] = ()
    refused: tuple[RefusedDocument, ...] = ()


def to_json(message: msgspec.Struct) -> bytes:
    """``message`` as JSON: nothing in it needs another form than its own."""
    return msgspec.json.encode(message)


class PlainJson:
    """Requests in plain JSON, read as strictly as others are, and without a form of their own for any value."""

    growth = BASE64_GROWTH

    def decode(self, data: bytes, kind: type[T]) -> T:
        """See :class:`atoma_transports.calls.requests.WireFormat`."""
        return _as(parse_json(data), kind)

    def decode_in_steps(self, data: bytes, kind: type[T]) -> Generator[None, None, T]:
        """See :class:`atoma_transports.calls.requests.WireFormat`."""
        check_separators(data)
        value = parse_json(data)
        yield
        return _as(value, kind)


PLAIN_JSON = PlainJson()


def _as(value: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"malformed {kind.__name__}: {error}") from None
