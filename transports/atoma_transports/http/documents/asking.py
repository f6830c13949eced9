"""What a request for documents is about: ``/v1/docs/{store}/pull|push|stream?scope=…``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast
from urllib.parse import parse_qsl

from atoma.contracts.execution import OperationContext
from atoma.errors import RemoteError
from atoma.ports import DeclaresStores, ServiceHost, SyncService
from atoma_transports.http.answers import refused
from atoma_transports.http.documents.reading import DocumentStore

DocumentAct: TypeAlias = Literal["pull", "push", "stream"]
VERBS: Mapping[str, tuple[str, ...]] = {"pull": ("POST",), "push": ("POST",), "stream": ("GET",)}
TEMPLATE = "docs/{{store}}/{}"
"""The name of a path in descriptions, with a place for the store."""


@dataclass(frozen=True, slots=True)
class DocumentPath:
    """A path under ``/v1/docs/``.

    Attributes:
        store: Name of the store, whether there is one or not.
        act: What is to be done.
    """

    store: str
    act: DocumentAct


def document_path(name: str) -> DocumentPath | None:
    """What ``name``, a path behind ``/v1/``, says about documents; None when it is another one."""
    first, _, rest = name.partition("/")
    store, _, act = rest.partition("/")
    if first != "docs" or not store or act not in VERBS:
        return None
    return DocumentPath(store, cast("DocumentAct", act))


def rows_asked(path: DocumentPath, query: str, host: ServiceHost, service: SyncService, trace_id: str) -> DocumentStore:
    """The rows that a request is about, for whoever ``service`` is for.

    Raises:
        Refused: There is no such store, or the scope is not the one that is needed.
        RemoteError: ``PERMISSION_DENIED``: rows of the store go to nobody by sync.
    """
    if not isinstance(host, DeclaresStores):
        raise refused(404, "this server does not say what its stores hold")
    spec = host.schema.stores.get(path.store)
    if spec is None:
        raise refused(404, f"this hub has no store {path.store[:80]!r}")
    if not spec.replicate:
        message = (
            f"the rows of store {spec.name!r} do not replicate: ask for them by queries, write them by direct writes"
        )
        raise RemoteError(message, remote_code="PERMISSION_DENIED")
    given = parse_qsl(query, keep_blank_values=True)
    scopes = [value for name, value in given if name == "scope"]
    if len(scopes) < len(given) or len(scopes) > 1:
        raise refused(400, f"name one scope and nothing else: /v1/docs/{spec.name}/{path.act}?scope=…")
    if spec.scope_field is None:
        if scopes not in ([], [spec.fixed_scope]):
            raise refused(400, f"the rows of store {spec.name!r} are in scope {spec.fixed_scope!r}")
        return DocumentStore(service, host.schema, spec, spec.fixed_scope, OperationContext(trace_id))
    if not scopes:
        raise refused(400, f"name the scope: /v1/docs/{spec.name}/{path.act}?scope=…")
    return DocumentStore(service, host.schema, spec, scopes[0], OperationContext(trace_id))
