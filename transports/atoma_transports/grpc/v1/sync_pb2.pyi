from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HelloRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("principal", "message_bytes", "calls", "expires_in_ms", "queries")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_MS_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    principal: str
    message_bytes: int
    calls: int
    expires_in_ms: int
    queries: Understood
    def __init__(self, principal: _Optional[str] = ..., message_bytes: _Optional[int] = ..., calls: _Optional[int] = ..., expires_in_ms: _Optional[int] = ..., queries: _Optional[_Union[Understood, _Mapping]] = ...) -> None: ...

class Understood(_message.Message):
    __slots__ = ("plan", "functions", "bounds", "forms", "edits")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONS_FIELD_NUMBER: _ClassVar[int]
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    FORMS_FIELD_NUMBER: _ClassVar[int]
    EDITS_FIELD_NUMBER: _ClassVar[int]
    plan: _containers.RepeatedScalarFieldContainer[int]
    functions: _containers.RepeatedScalarFieldContainer[str]
    bounds: bytes
    forms: bytes
    edits: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, plan: _Optional[_Iterable[int]] = ..., functions: _Optional[_Iterable[str]] = ..., bounds: _Optional[bytes] = ..., forms: _Optional[bytes] = ..., edits: _Optional[_Iterable[str]] = ...) -> None: ...

class ErrorInfo(_message.Message):
    __slots__ = ("code", "message", "retryable", "retry_after_ms", "info")
    class InfoEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    retryable: bool
    retry_after_ms: int
    info: _containers.ScalarMap[str, str]
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., retryable: bool = ..., retry_after_ms: _Optional[int] = ..., info: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Cursor(_message.Message):
    __slots__ = ("epoch", "seq", "hash", "view")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    epoch: bytes
    seq: int
    hash: bytes
    view: bytes
    def __init__(self, epoch: _Optional[bytes] = ..., seq: _Optional[int] = ..., hash: _Optional[bytes] = ..., view: _Optional[bytes] = ...) -> None: ...

class Mutation(_message.Message):
    __slots__ = ("mid", "body", "digest")
    MID_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    mid: int
    body: bytes
    digest: bytes
    def __init__(self, mid: _Optional[int] = ..., body: _Optional[bytes] = ..., digest: _Optional[bytes] = ...) -> None: ...

class Conflict(_message.Message):
    __slots__ = ("store", "id", "fields", "dropped", "rule", "current", "current_seq")
    STORE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    CURRENT_SEQ_FIELD_NUMBER: _ClassVar[int]
    store: str
    id: str
    fields: _containers.RepeatedScalarFieldContainer[str]
    dropped: _containers.RepeatedScalarFieldContainer[str]
    rule: str
    current: bytes
    current_seq: int
    def __init__(self, store: _Optional[str] = ..., id: _Optional[str] = ..., fields: _Optional[_Iterable[str]] = ..., dropped: _Optional[_Iterable[str]] = ..., rule: _Optional[str] = ..., current: _Optional[bytes] = ..., current_seq: _Optional[int] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("mid", "status", "scope", "seq", "duplicate", "error", "conflicts")
    MID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CONFLICTS_FIELD_NUMBER: _ClassVar[int]
    mid: int
    status: str
    scope: str
    seq: int
    duplicate: bool
    error: ErrorInfo
    conflicts: _containers.RepeatedCompositeFieldContainer[Conflict]
    def __init__(self, mid: _Optional[int] = ..., status: _Optional[str] = ..., scope: _Optional[str] = ..., seq: _Optional[int] = ..., duplicate: bool = ..., error: _Optional[_Union[ErrorInfo, _Mapping]] = ..., conflicts: _Optional[_Iterable[_Union[Conflict, _Mapping]]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("frame_bytes", "mutation_bytes", "mutation_ops", "push_mutations", "push_bytes", "page_bytes", "page_changes", "scopes", "id_bytes")
    FRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    MUTATION_BYTES_FIELD_NUMBER: _ClassVar[int]
    MUTATION_OPS_FIELD_NUMBER: _ClassVar[int]
    PUSH_MUTATIONS_FIELD_NUMBER: _ClassVar[int]
    PUSH_BYTES_FIELD_NUMBER: _ClassVar[int]
    PAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PAGE_CHANGES_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    ID_BYTES_FIELD_NUMBER: _ClassVar[int]
    frame_bytes: int
    mutation_bytes: int
    mutation_ops: int
    push_mutations: int
    push_bytes: int
    page_bytes: int
    page_changes: int
    scopes: int
    id_bytes: int
    def __init__(self, frame_bytes: _Optional[int] = ..., mutation_bytes: _Optional[int] = ..., mutation_ops: _Optional[int] = ..., push_mutations: _Optional[int] = ..., push_bytes: _Optional[int] = ..., page_bytes: _Optional[int] = ..., page_changes: _Optional[int] = ..., scopes: _Optional[int] = ..., id_bytes: _Optional[int] = ...) -> None: ...

class OpenRequest(_message.Message):
    __slots__ = ("client_id", "incarnation", "schema_version", "schema_hash", "scopes", "confirmed_mid", "tail_mid", "hub_id", "proto_min", "proto_max", "places", "asked", "shapes")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_MID_FIELD_NUMBER: _ClassVar[int]
    TAIL_MID_FIELD_NUMBER: _ClassVar[int]
    HUB_ID_FIELD_NUMBER: _ClassVar[int]
    PROTO_MIN_FIELD_NUMBER: _ClassVar[int]
    PROTO_MAX_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    client_id: bytes
    incarnation: int
    schema_version: int
    schema_hash: bytes
    scopes: _containers.RepeatedScalarFieldContainer[str]
    confirmed_mid: int
    tail_mid: int
    hub_id: bytes
    proto_min: int
    proto_max: int
    places: _containers.RepeatedCompositeFieldContainer[Place]
    asked: _containers.RepeatedScalarFieldContainer[int]
    shapes: _containers.RepeatedCompositeFieldContainer[ScopeShapes]
    def __init__(self, client_id: _Optional[bytes] = ..., incarnation: _Optional[int] = ..., schema_version: _Optional[int] = ..., schema_hash: _Optional[bytes] = ..., scopes: _Optional[_Iterable[str]] = ..., confirmed_mid: _Optional[int] = ..., tail_mid: _Optional[int] = ..., hub_id: _Optional[bytes] = ..., proto_min: _Optional[int] = ..., proto_max: _Optional[int] = ..., places: _Optional[_Iterable[_Union[Place, _Mapping]]] = ..., asked: _Optional[_Iterable[int]] = ..., shapes: _Optional[_Iterable[_Union[ScopeShapes, _Mapping]]] = ...) -> None: ...

class ScopeShapes(_message.Message):
    __slots__ = ("scope", "shapes")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    scope: str
    shapes: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, scope: _Optional[str] = ..., shapes: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ShapeRefusal(_message.Message):
    __slots__ = ("shape", "error")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    shape: bytes
    error: ErrorInfo
    def __init__(self, shape: _Optional[bytes] = ..., error: _Optional[_Union[ErrorInfo, _Mapping]] = ...) -> None: ...

class Mark(_message.Message):
    __slots__ = ("seq", "hash")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    seq: int
    hash: bytes
    def __init__(self, seq: _Optional[int] = ..., hash: _Optional[bytes] = ...) -> None: ...

class Place(_message.Message):
    __slots__ = ("scope", "cursor", "trail", "proof")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    TRAIL_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    scope: str
    cursor: Cursor
    trail: _containers.RepeatedCompositeFieldContainer[Mark]
    proof: bytes
    def __init__(self, scope: _Optional[str] = ..., cursor: _Optional[_Union[Cursor, _Mapping]] = ..., trail: _Optional[_Iterable[_Union[Mark, _Mapping]]] = ..., proof: _Optional[bytes] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("digest", "outcome")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    outcome: Outcome
    def __init__(self, digest: _Optional[bytes] = ..., outcome: _Optional[_Union[Outcome, _Mapping]] = ...) -> None: ...

class ScopeStatus(_message.Message):
    __slots__ = ("scope", "head", "floor", "error", "fork", "writable", "devices", "deletes", "unproven", "refused")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FORK_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    DELETES_FIELD_NUMBER: _ClassVar[int]
    UNPROVEN_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    scope: str
    head: int
    floor: int
    error: ErrorInfo
    fork: int
    writable: bool
    devices: str
    deletes: bool
    unproven: bool
    refused: _containers.RepeatedCompositeFieldContainer[ShapeRefusal]
    def __init__(self, scope: _Optional[str] = ..., head: _Optional[int] = ..., floor: _Optional[int] = ..., error: _Optional[_Union[ErrorInfo, _Mapping]] = ..., fork: _Optional[int] = ..., writable: bool = ..., devices: _Optional[str] = ..., deletes: bool = ..., unproven: bool = ..., refused: _Optional[_Iterable[_Union[ShapeRefusal, _Mapping]]] = ...) -> None: ...

class EpochWord(_message.Message):
    __slots__ = ("epoch", "devices", "deletes", "unproven")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    DELETES_FIELD_NUMBER: _ClassVar[int]
    UNPROVEN_FIELD_NUMBER: _ClassVar[int]
    epoch: bytes
    devices: str
    deletes: bool
    unproven: bool
    def __init__(self, epoch: _Optional[bytes] = ..., devices: _Optional[str] = ..., deletes: bool = ..., unproven: bool = ...) -> None: ...

class OpenReply(_message.Message):
    __slots__ = ("hub_id", "epoch", "principal", "last_mid", "last_digest", "scopes", "limits", "hub_time_ms", "proto", "known", "verdicts", "words", "forms", "schema_version")
    HUB_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    LAST_MID_FIELD_NUMBER: _ClassVar[int]
    LAST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    HUB_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    PROTO_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    FORMS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    hub_id: bytes
    epoch: bytes
    principal: str
    last_mid: int
    last_digest: bytes
    scopes: _containers.RepeatedCompositeFieldContainer[ScopeStatus]
    limits: Limits
    hub_time_ms: int
    proto: int
    known: bool
    verdicts: _containers.RepeatedCompositeFieldContainer[Verdict]
    words: _containers.RepeatedCompositeFieldContainer[EpochWord]
    forms: bytes
    schema_version: int
    def __init__(self, hub_id: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., principal: _Optional[str] = ..., last_mid: _Optional[int] = ..., last_digest: _Optional[bytes] = ..., scopes: _Optional[_Iterable[_Union[ScopeStatus, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., hub_time_ms: _Optional[int] = ..., proto: _Optional[int] = ..., known: bool = ..., verdicts: _Optional[_Iterable[_Union[Verdict, _Mapping]]] = ..., words: _Optional[_Iterable[_Union[EpochWord, _Mapping]]] = ..., forms: _Optional[bytes] = ..., schema_version: _Optional[int] = ...) -> None: ...

class PushRequest(_message.Message):
    __slots__ = ("client_id", "incarnation", "mutations", "prev_digest", "confirmed_mid", "schema_version")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    MUTATIONS_FIELD_NUMBER: _ClassVar[int]
    PREV_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_MID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    client_id: bytes
    incarnation: int
    mutations: _containers.RepeatedCompositeFieldContainer[Mutation]
    prev_digest: bytes
    confirmed_mid: int
    schema_version: int
    def __init__(self, client_id: _Optional[bytes] = ..., incarnation: _Optional[int] = ..., mutations: _Optional[_Iterable[_Union[Mutation, _Mapping]]] = ..., prev_digest: _Optional[bytes] = ..., confirmed_mid: _Optional[int] = ..., schema_version: _Optional[int] = ...) -> None: ...

class PushReply(_message.Message):
    __slots__ = ("outcomes", "last_mid", "error")
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    LAST_MID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    last_mid: int
    error: ErrorInfo
    def __init__(self, outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., last_mid: _Optional[int] = ..., error: _Optional[_Union[ErrorInfo, _Mapping]] = ...) -> None: ...

class StoreChanges(_message.Message):
    __slots__ = ("store", "schema_version", "columns", "rows", "deletes")
    STORE_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DELETES_FIELD_NUMBER: _ClassVar[int]
    store: str
    schema_version: int
    columns: _containers.RepeatedScalarFieldContainer[str]
    rows: bytes
    deletes: bytes
    def __init__(self, store: _Optional[str] = ..., schema_version: _Optional[int] = ..., columns: _Optional[_Iterable[str]] = ..., rows: _Optional[bytes] = ..., deletes: _Optional[bytes] = ...) -> None: ...

class PullRequest(_message.Message):
    __slots__ = ("scope", "cursor", "client_id", "outcomes_after_mid", "max_bytes", "max_changes", "schema_version", "shapes")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_AFTER_MID_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHANGES_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    scope: str
    cursor: Cursor
    client_id: bytes
    outcomes_after_mid: int
    max_bytes: int
    max_changes: int
    schema_version: int
    shapes: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, scope: _Optional[str] = ..., cursor: _Optional[_Union[Cursor, _Mapping]] = ..., client_id: _Optional[bytes] = ..., outcomes_after_mid: _Optional[int] = ..., max_bytes: _Optional[int] = ..., max_changes: _Optional[int] = ..., schema_version: _Optional[int] = ..., shapes: _Optional[_Iterable[bytes]] = ...) -> None: ...

class PullReply(_message.Message):
    __slots__ = ("scope", "start", "end", "stores", "more", "head", "outcomes", "proof")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    STORES_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    scope: str
    start: Cursor
    end: Cursor
    stores: _containers.RepeatedCompositeFieldContainer[StoreChanges]
    more: bool
    head: int
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    proof: bytes
    def __init__(self, scope: _Optional[str] = ..., start: _Optional[_Union[Cursor, _Mapping]] = ..., end: _Optional[_Union[Cursor, _Mapping]] = ..., stores: _Optional[_Iterable[_Union[StoreChanges, _Mapping]]] = ..., more: bool = ..., head: _Optional[int] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., proof: _Optional[bytes] = ...) -> None: ...

class SnapshotRequest(_message.Message):
    __slots__ = ("scope", "client_id", "token", "max_bytes", "max_rows", "schema_version", "shapes")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    scope: str
    client_id: bytes
    token: bytes
    max_bytes: int
    max_rows: int
    schema_version: int
    shapes: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, scope: _Optional[str] = ..., client_id: _Optional[bytes] = ..., token: _Optional[bytes] = ..., max_bytes: _Optional[int] = ..., max_rows: _Optional[int] = ..., schema_version: _Optional[int] = ..., shapes: _Optional[_Iterable[bytes]] = ...) -> None: ...

class SnapshotReply(_message.Message):
    __slots__ = ("scope", "start", "stores", "token", "done")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STORES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    scope: str
    start: Cursor
    stores: _containers.RepeatedCompositeFieldContainer[StoreChanges]
    token: bytes
    done: bool
    def __init__(self, scope: _Optional[str] = ..., start: _Optional[_Union[Cursor, _Mapping]] = ..., stores: _Optional[_Iterable[_Union[StoreChanges, _Mapping]]] = ..., token: _Optional[bytes] = ..., done: bool = ...) -> None: ...

class NotifyRequest(_message.Message):
    __slots__ = ("scopes",)
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    scopes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, scopes: _Optional[_Iterable[str]] = ...) -> None: ...

class Hint(_message.Message):
    __slots__ = ("scope", "head")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    scope: str
    head: int
    def __init__(self, scope: _Optional[str] = ..., head: _Optional[int] = ...) -> None: ...

class PresenceRequest(_message.Message):
    __slots__ = ("scope", "session", "number", "state")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    scope: str
    session: bytes
    number: int
    state: str
    def __init__(self, scope: _Optional[str] = ..., session: _Optional[bytes] = ..., number: _Optional[int] = ..., state: _Optional[str] = ...) -> None: ...

class Present(_message.Message):
    __slots__ = ("session", "subject", "state")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    session: str
    subject: str
    state: str
    def __init__(self, session: _Optional[str] = ..., subject: _Optional[str] = ..., state: _Optional[str] = ...) -> None: ...

class PresenceChange(_message.Message):
    __slots__ = ("here", "gone", "whole")
    HERE_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    here: _containers.RepeatedCompositeFieldContainer[Present]
    gone: _containers.RepeatedScalarFieldContainer[str]
    whole: bool
    def __init__(self, here: _Optional[_Iterable[_Union[Present, _Mapping]]] = ..., gone: _Optional[_Iterable[str]] = ..., whole: bool = ...) -> None: ...

class AppearRequest(_message.Message):
    __slots__ = ("scope", "session", "number", "state")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    scope: str
    session: bytes
    number: int
    state: str
    def __init__(self, scope: _Optional[str] = ..., session: _Optional[bytes] = ..., number: _Optional[int] = ..., state: _Optional[str] = ...) -> None: ...

class AppearReply(_message.Message):
    __slots__ = ("known",)
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    known: bool
    def __init__(self, known: bool = ...) -> None: ...

class RemoteOp(_message.Message):
    __slots__ = ("index", "name", "store", "id", "scope", "values", "base_version", "replace", "defaults", "query", "op")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    OP_FIELD_NUMBER: _ClassVar[int]
    index: int
    name: str
    store: str
    id: str
    scope: str
    values: bytes
    base_version: int
    replace: bool
    defaults: bytes
    query: bytes
    op: bytes
    def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ..., store: _Optional[str] = ..., id: _Optional[str] = ..., scope: _Optional[str] = ..., values: _Optional[bytes] = ..., base_version: _Optional[int] = ..., replace: bool = ..., defaults: _Optional[bytes] = ..., query: _Optional[bytes] = ..., op: _Optional[bytes] = ...) -> None: ...

class Rows(_message.Message):
    __slots__ = ("columns", "rows")
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedScalarFieldContainer[str]
    rows: bytes
    def __init__(self, columns: _Optional[_Iterable[str]] = ..., rows: _Optional[bytes] = ...) -> None: ...

class RemoteOpResult(_message.Message):
    __slots__ = ("index", "id", "ok", "changed", "version", "row", "error", "found", "cursor", "tuples", "columns")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    TUPLES_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    index: int
    id: str
    ok: bool
    changed: bool
    version: int
    row: bytes
    error: ErrorInfo
    found: Rows
    cursor: str
    tuples: bytes
    columns: bytes
    def __init__(self, index: _Optional[int] = ..., id: _Optional[str] = ..., ok: bool = ..., changed: bool = ..., version: _Optional[int] = ..., row: _Optional[bytes] = ..., error: _Optional[_Union[ErrorInfo, _Mapping]] = ..., found: _Optional[_Union[Rows, _Mapping]] = ..., cursor: _Optional[str] = ..., tuples: _Optional[bytes] = ..., columns: _Optional[bytes] = ...) -> None: ...

class QueryCall(_message.Message):
    __slots__ = ("ops", "trace_id")
    OPS_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    ops: _containers.RepeatedCompositeFieldContainer[RemoteOp]
    trace_id: str
    def __init__(self, ops: _Optional[_Iterable[_Union[RemoteOp, _Mapping]]] = ..., trace_id: _Optional[str] = ...) -> None: ...

class WriteOptions(_message.Message):
    __slots__ = ("confirm", "atomic", "durability", "reads")
    CONFIRM_FIELD_NUMBER: _ClassVar[int]
    ATOMIC_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    confirm: str
    atomic: bool
    durability: str
    reads: bytes
    def __init__(self, confirm: _Optional[str] = ..., atomic: bool = ..., durability: _Optional[str] = ..., reads: _Optional[bytes] = ...) -> None: ...

class WriteCall(_message.Message):
    __slots__ = ("ops", "idem", "options", "trace_id")
    OPS_FIELD_NUMBER: _ClassVar[int]
    IDEM_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    ops: _containers.RepeatedCompositeFieldContainer[RemoteOp]
    idem: str
    options: WriteOptions
    trace_id: str
    def __init__(self, ops: _Optional[_Iterable[_Union[RemoteOp, _Mapping]]] = ..., idem: _Optional[str] = ..., options: _Optional[_Union[WriteOptions, _Mapping]] = ..., trace_id: _Optional[str] = ...) -> None: ...

class OpsReply(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RemoteOpResult]
    def __init__(self, results: _Optional[_Iterable[_Union[RemoteOpResult, _Mapping]]] = ...) -> None: ...

class ResolveCall(_message.Message):
    __slots__ = ("idem", "trace_id")
    IDEM_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    idem: str
    trace_id: str
    def __init__(self, idem: _Optional[str] = ..., trace_id: _Optional[str] = ...) -> None: ...

class ResolveReply(_message.Message):
    __slots__ = ("abandoned", "results")
    ABANDONED_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    abandoned: bool
    results: _containers.RepeatedCompositeFieldContainer[RemoteOpResult]
    def __init__(self, abandoned: bool = ..., results: _Optional[_Iterable[_Union[RemoteOpResult, _Mapping]]] = ...) -> None: ...
