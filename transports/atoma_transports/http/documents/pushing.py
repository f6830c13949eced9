"""Documents that come in: each is compared with the row as the hub has it, and written if that is what its writer saw.

The comparison is by what the row holds, so that it does not matter how often the same change comes: done once, the row is as
the document wants it, and nothing is left to do. The write names the version that was compared, and the hub decides.
"""

from __future__ import annotations

from collections.abc import Sequence

from atoma.contracts.execution import WriteOptions, WriteRequest
from atoma.contracts.mutations import Op
from atoma.contracts.values import ErrorInfo, RowImage, StoredRow
from atoma.errors import ProtocolError, ValidationError
from atoma.ports import Environment
from atoma.schema.hiding import softly
from atoma_transports.calls.errors import info_of
from atoma_transports.http.documents.messages import Document, PushedDocument, PushedDocuments, RefusedDocument
from atoma_transports.http.documents.reading import DocumentStore
from atoma_transports.http.documents.rows import (
    differing,
    document_of,
    gone,
    is_as_told,
    is_deleted,
    known,
    left_out,
    stated,
)

TRIES = 3
"""How often a change is compared anew because the row has moved between the comparison and the write."""


class _Conflict(Exception):
    """The row is not as the client believes."""


async def push_documents(
    rows: DocumentStore, pushed: Sequence[PushedDocument], environment: Environment
) -> PushedDocuments:
    """Take what can be taken of ``pushed``, each for itself.

    Raises:
        ProtocolError: A document has no id, or two changes have the same.
        RemoteError: The scope may not be read, or a transient code: then some may be taken; the same may be pushed again.
    """
    waiting: dict[str, PushedDocument] = {each.id: each for each in pushed}
    if len(waiting) < len(pushed):
        raise ProtocolError("a push has one change of each document")
    answer = _Answer(rows)
    errors: dict[str, ErrorInfo] = {}
    for _ in range(TRIES):
        before, answer.current = answer.current, await rows.by_id(list(waiting))
        for id, error in errors.items():
            if before.get(id) == answer.current.get(id):  # the row has not moved: it would be refused again
                answer.refuse(id, error)
                del waiting[id]
        ops = [op for op in [_decided(answer, each, environment) for each in waiting.values()] if op is not None]
        errors = await _written(answer, ops, environment)
        waiting = {id: waiting[id] for id in errors}
        if not waiting:
            break
    for id in waiting:
        answer.refuse(id, errors[id])
    return PushedDocuments(tuple(answer.conflicts.values()), tuple(answer.refused))


class _Answer:
    """The answer to a push, as far as it is known.

    Attributes:
        current: The rows as they were read last.
        conflicts: The hub's state of documents that were not taken.
        refused: Those that never will be.
    """

    def __init__(self, rows: DocumentStore) -> None:
        self.rows = rows
        self.current: dict[str, StoredRow] = {}
        self.conflicts: dict[str, Document] = {}
        self.refused: list[RefusedDocument] = []

    def conflict(self, id: str) -> None:
        """Answer with the hub's state."""
        row = self.current.get(id)
        self.conflicts[id] = gone(id) if row is None else document_of(self.rows.spec, id, row.image)

    def refuse(self, id: str, error: ErrorInfo) -> None:
        """Answer with the hub's state, and with why it stays."""
        self.conflict(id)
        self.refused.append(RefusedDocument(id, error))


def _decided(answer: _Answer, pushed: PushedDocument, environment: Environment) -> Op | None:
    """What is to be written; None for what is answered, or is there already."""
    try:
        return _op(answer.rows, pushed, answer.current.get(pushed.id), environment)
    except _Conflict:
        answer.conflict(pushed.id)
    except ValidationError as error:
        answer.refuse(pushed.id, info_of(error))
    return None


def _op(rows: DocumentStore, pushed: PushedDocument, row: StoredRow | None, environment: Environment) -> Op | None:
    """What makes ``row`` what a change wants; None when it is that.

    Raises:
        _Conflict: It is not what the change assumes.
        ValidationError: The document is none of this store.
    """
    spec, new, assumed = rows.spec, pushed.new_document_state, pushed.assumed_master_state
    if is_deleted(new):
        if row is None:
            return None
        _check_assumed(rows, assumed, row.image)
        op = Op("delete", spec.name, pushed.id, scope=rows.scope, base_version=row.version)
        return softly(op) if spec.soft_delete else op
    says = stated(spec, new)
    stamps = spec.sets.stamped(None, spec.fields, environment.wall_ms())
    if row is None:
        _check_assumed(rows, assumed, None)
        return Op("replace", spec.name, pushed.id, {**says, **stamps}, scope=rows.scope, base_version=0)
    if is_as_told(spec, row.image, says):
        return None
    _check_assumed(rows, assumed, row.image)
    changes = differing(spec, row.image, {**left_out(spec, says), **says})
    if spec.sets.updated_at is not None:
        changes[spec.sets.updated_at] = stamps[spec.sets.updated_at]
    return Op("patch", spec.name, pushed.id, changes, scope=rows.scope, base_version=row.version)


def _check_assumed(rows: DocumentStore, assumed: Document | None, image: RowImage | None) -> None:
    """See that a row is what a client believes.

    Raises:
        _Conflict: It is not.
    """
    if assumed is None or is_deleted(assumed):
        if image is not None:
            raise _Conflict
        return
    try:
        says = known(rows.spec, assumed)
    except ValidationError:  # what no row can be
        raise _Conflict from None
    if image is None or not is_as_told(rows.spec, image, says):
        raise _Conflict


async def _written(answer: _Answer, ops: Sequence[Op], environment: Environment) -> dict[str, ErrorInfo]:
    """Write each of ``ops`` for itself; those that were refused, with why."""
    if not ops:
        return {}
    request = WriteRequest(tuple(ops), WriteOptions(), answer.rows.context, environment.ids())
    result = await answer.rows.service.write(request)
    return {op.id: item.error for op, item in zip(ops, result.items, strict=True) if item.error is not None}
