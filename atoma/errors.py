"""The tree of every error that Atoma raises on purpose.

    AtomaError
    ├─ ConfigurationError     the program is configured incorrectly: fix the code
    │  ├─ SchemaError         a store declaration cannot be used
    │  ├─ SchemaMismatch      this side and the hub read a field differently
    │  ├─ PluginError         a plugin is malformed, or two plugins claim one name
    │  ├─ UnknownStore        no store of that name
    │  ├─ UnknownPolicy       no policy of that name
    │  ├─ PolicyNotAllowed    the policy exists, but this store may not use it
    │  ├─ WrongLoop           called from a different event loop or thread
    │  ├─ NotEntered          a context manager was used without ``async with``
    │  └─ TopologyError       the start-up check failed: every fault, each with its remedy
    ├─ QueryError             the query does not fit the schema
    ├─ WriteError             the data or its version was refused
    │  ├─ ValidationError     a field has a wrong type or value
    │  ├─ ConflictError       the row exists already, or has changed since it was read
    │  ├─ NotFoundError       the row to change does not exist
    │  ├─ WriteRejected       the authority rejected the write; the reason is attached
    │  └─ ScopeNotSubscribed  the row belongs to a scope that this client does not sync
    ├─ ExecutionError         the kernel gave up
    │  ├─ NodeTimeout         a budget inside the policy ran out
    │  ├─ CircuitOpen         a breaker refuses calls for now
    │  ├─ Overloaded          a bounded queue is full
    │  ├─ FallbackExhausted   every alternative failed; the attempts are attached
    │  ├─ WriteUnknown        the outcome of a write is not known yet; its key is attached
    │  └─ NotResolvable       no node that can be asked decides about the write with this key
    ├─ TransportError         the connection failed: a retry may work
    │  ├─ ConnectFailed       no connection could be made
    │  ├─ ChannelBroken       the connection was lost with calls in flight
    │  ├─ ProtocolError       the other side broke the protocol
    │  └─ AuthenticationError the token was missing, wrong or expired
    │     └─ TokenExpired     the token is no longer valid: a new one helps
    ├─ RemoteError            the other side answered with an error
    ├─ StoreError             the engine failed
    │  ├─ StoreBusy           another program holds the file
    │  ├─ StoreCorrupt        the file is damaged or is not an Atoma file
    │  ├─ ForeignLog          the log beside the file is another file's
    │  ├─ DiskFull            no space is left; nothing was written
    │  ├─ WrongKey            the key is not the file's, or is missing
    │  ├─ MigrationError      the file cannot be migrated to the code's schema
    │  └─ ClosedError         the client, hub or engine is closed
    └─ SyncError              replication failed
       ├─ OutboxFull          too many unsent writes; nothing was written
       ├─ ClientForked        this file is a copy or an older state of another client
       └─ Resync              the cursor is no longer valid: a snapshot is needed

Each error has a stable ``code``, says whether a retry can help (``retryable``) and carries its facts as attributes. The
table in ``atoma.codes`` says what each code means and what helps. Cancellation is never one of these errors: it remains
Trio's own ``Cancelled``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from atoma.codes import CODES, Help, Problem, row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "AtomaError", "AuthenticationError", "ChannelBroken", "CircuitOpen", "ClientForked", "ClosedError",
    "ConfigurationError", "ConflictError", "ConnectFailed", "DiskFull", "ExecutionError", "FallbackExhausted",
    "ForeignLog", "MigrationError", "NodeTimeout", "NotEntered", "NotFoundError", "NotResolvable", "OutboxFull", "Overloaded",
    "PluginError", "PolicyNotAllowed", "Problem", "ProtocolError", "QueryError", "RemoteError", "Resync",
    "SchemaError", "SchemaMismatch", "ScopeNotSubscribed", "StoreBusy", "StoreCorrupt", "StoreError", "SyncError",
    "TokenExpired", "TopologyError", "TransportError", "UnknownPolicy", "UnknownStore", "ValidationError", "WriteError",
    "WriteRejected", "WriteUnknown", "WrongKey", "WrongLoop", "is_retryable", "what_helps",
]  # fmt: skip


class AtomaError(Exception):
    """The base class of every error that Atoma raises on purpose.

    Attributes:
        code: Stable upper-case identifier, the same on every transport.
        retryable: Whether the same call may succeed later without a change; taken from the table of codes if it has the code.
    """

    code: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = CODES["INTERNAL"].retryable

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.code in CODES:
            cls.retryable = CODES[cls.code].retryable


class ConfigurationError(AtomaError):
    """The program is configured incorrectly: no retry helps, the code has to change."""

    code = "CONFIGURATION"


class SchemaError(ConfigurationError):
    """A store declaration cannot be used: an unsupported type, a reserved name, two fields for one column."""

    code = "SCHEMA"


class SchemaMismatch(ConfigurationError):
    """The two sides declare a field differently and would misread each other's values; nothing was exchanged.

    Attributes:
        store: The store.
        field: The field.
        here: Its type on this side.
        there: Its type at the hub.
    """

    code = "SCHEMA_MISMATCH"

    def __init__(self, store: str, field: str, here: str, there: str) -> None:
        super().__init__(
            f"store {store!r}: field {field!r} is {here} here and {there} at the hub, so each side would misread the other's "
            "values; nothing was exchanged. Declare it alike on both sides, or add a field under a new name"
        )
        self.store, self.field, self.here, self.there = store, field, here, there


class PluginError(ConfigurationError):
    """A plugin is malformed, lacks something it needs, or claims a name that is taken."""

    code = "PLUGIN"


class WrongLoop(ConfigurationError):
    """An object was called from a different event loop or thread than its own; nothing was done."""

    code = "WRONG_LOOP"


class NotEntered(ConfigurationError, AttributeError):
    """A context manager's object was used before ``async with`` entered it; nothing was done."""

    code = "NOT_ENTERED"


class UnknownStore(ConfigurationError):
    """The schema declares no store of that name; ``store`` is the name that was asked for."""

    code = "UNKNOWN_STORE"

    def __init__(self, store: str, known: Sequence[str] = ()) -> None:
        super().__init__(f"no store named {store!r}; the schema declares: {', '.join(known) or 'none'}")
        self.store = store


class UnknownPolicy(ConfigurationError):
    """No policy of that name is registered, or one of its nodes is missing; ``policy`` is the name that was asked for."""

    code = "UNKNOWN_POLICY"

    def __init__(self, policy: str, reason: str) -> None:
        super().__init__(f"policy {policy!r} cannot be used: {reason}")
        self.policy = policy


class PolicyNotAllowed(ConfigurationError):
    """The policy exists but would break a guarantee of this store (a synced store needs the outbox).

    Attributes:
        policy: The policy's name.
        store: The store's name.
    """

    code = "POLICY_NOT_ALLOWED"

    def __init__(self, policy: str, store: str, reason: str) -> None:
        super().__init__(f"policy {policy!r} may not be used on store {store!r}: {reason}")
        self.policy = policy
        self.store = store


class TopologyError(ConfigurationError):
    """The start-up check failed; nothing was started.

    Attributes:
        problems: Every fault that was found, each with its remedy.
    """

    code = "TOPOLOGY"

    def __init__(self, problems: Sequence[Problem]) -> None:
        lines = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(problems, 1))
        super().__init__(f"the client cannot start; problems: {len(problems)}\n{lines}")
        self.problems = tuple(problems)


class QueryError(AtomaError):
    """The query does not fit the schema: an unknown field or operator, or a value of the wrong type.

    Attributes:
        path: The place in the query, from outside in: ``where › and[1] › gt``; ``""`` for the query as a whole.
        hint: What to write instead; ``""`` if the message says it.
    """

    code = "QUERY"

    def __init__(self, message: str = "", *, path: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.path, self.hint = path, hint

    def within(self, place: str) -> None:
        """Put ``place`` in front of the path."""
        self.path = f"{place} › {self.path}" if self.path else place

    def __str__(self) -> str:
        told = f"{self.path}: {super().__str__()}" if self.path else super().__str__()
        return f"{told}; {self.hint}" if self.hint else told


class WriteError(AtomaError):
    """The data or its version was refused; nothing of the refused item was written."""

    code = "WRITE"


class ValidationError(WriteError):
    """A field has a wrong type or value.

    Attributes:
        store: The store's name.
        field: The field at fault; ``""`` when it is the whole row.
        value: The value that was given.
    """

    code = "INVALID"

    def __init__(self, message: str, *, store: str = "", field: str = "", value: object = None) -> None:
        super().__init__(message)
        self.store = store
        self.field = field
        self.value = value


class ConflictError(WriteError):
    """The row exists already, or has changed since it was read.

    Attributes:
        store: The store's name.
        id: The row's id.
        current: The row as it is now (column name → stored value), if it is known and readable.
        current_version: The row's local version, if known.
    """

    code = "CONFLICT"

    def __init__(
        self,
        message: str,
        *,
        store: str = "",
        id: str = "",
        current: Mapping[str, object] | None = None,
        current_version: int | None = None,
    ) -> None:
        super().__init__(message)
        self.store = store
        self.id = id
        self.current = current
        self.current_version = current_version


class NotFoundError(WriteError):
    """The row to change does not exist.

    Attributes:
        store: The store's name.
        id: The row's id.
    """

    code = "NOT_FOUND"

    def __init__(self, store: str, id: str) -> None:
        super().__init__(f"store {store!r} has no row with id {id!r}")
        self.store = store
        self.id = id


class WriteRejected(WriteError):
    """The authority rejected the write; its local effect is undone, and the inbox holds base, mine and theirs.

    Attributes:
        reason: Stable code of the rejection (``CONFLICT``, ``DENIED``, ``INVALID`` …).
        store: The store's name.
        id: The row's id.
    """

    code = "REJECTED"

    def __init__(self, message: str, *, reason: str, store: str = "", id: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.store = store
        self.id = id


class ScopeNotSubscribed(WriteError):
    """The row belongs to a scope that this client does not sync; nothing was written.

    Attributes:
        scope: The row's scope.
    """

    code = "SCOPE_NOT_SUBSCRIBED"

    def __init__(self, scope: str, subscribed: Sequence[str]) -> None:
        known = ", ".join(subscribed) or "none"
        super().__init__(
            f"scope {scope!r} is not among the synced scopes ({known}); add it to Sync(scopes=…), or sync it while it is in "
            "use: client.sync.scope(…)"
        )
        self.scope = scope


class ExecutionError(AtomaError):
    """The kernel could not carry out the request."""

    code = "EXECUTION"


class NodeTimeout(ExecutionError):
    """A budget inside the policy ran out.

    Attributes:
        node: The node that was running.
        seconds: Its budget, in seconds.
    """

    code = "TIMEOUT"

    def __init__(self, node: str, seconds: float) -> None:
        super().__init__(f"{node} did not finish within its budget of {seconds:g} s")
        self.node = node
        self.seconds = seconds


class CircuitOpen(ExecutionError):
    """A circuit breaker refuses calls for now; nothing was sent.

    Attributes:
        node: The node behind the breaker.
        retry_after_s: Seconds until the breaker admits the next probe.
    """

    code = "CIRCUIT_OPEN"

    def __init__(self, node: str, retry_after_s: float) -> None:
        super().__init__(f"the circuit breaker of {node!r} is open; next probe in {retry_after_s:.3g} s")
        self.node = node
        self.retry_after_s = retry_after_s


class Overloaded(ExecutionError):
    """A bounded queue is full; nothing was sent.

    Attributes:
        what: The queue.
        limit: The number of entries it holds.
    """

    code = "OVERLOADED"

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"{what} is full (limit {limit}); try again later")
        self.what = what
        self.limit = limit


class FallbackExhausted(ExecutionError):
    """Every alternative failed.

    Attributes:
        attempts: The error of each alternative, in the order in which they were tried.
    """

    code = "FALLBACK_EXHAUSTED"

    def __init__(self, attempts: Sequence[BaseException]) -> None:
        tried = "; ".join(f"{type(error).__name__}: {error}" for error in attempts)
        super().__init__(f"every alternative failed: {tried}")
        self.attempts = tuple(attempts)


class WriteUnknown(ExecutionError):
    """The write may or may not have been applied: the answer was lost. Resolve its key before writing again.

    ``await client.resolve(error)`` reports the outcome, or makes sure that the write is never applied; if the write is in
    this device's outbox, it waits until the hub has decided. The key is a string that may be kept: it can be resolved
    after a restart and, unless the write is in an outbox, on another device of the same user.

    Attributes:
        idem: The idempotency key of the write.
        nodes: Nodes that may have passed the write on and can be asked; None when it is not known which.
    """

    code = "UNKNOWN_OUTCOME"

    def __init__(self, idem: str, cause: str, *, nodes: Sequence[str] | None = None) -> None:
        super().__init__(f"the outcome of write {idem} is unknown ({cause}); resolve its key before repeating it")
        self.idem = idem
        self.nodes = None if nodes is None else tuple(nodes)


class NotResolvable(ExecutionError):
    """No node was asked about the write: this device itself decides about it, or it is not known who does.

    Attributes:
        idem: The idempotency key of the write.
    """

    code = "NOT_RESOLVABLE"

    def __init__(self, idem: str, reason: str) -> None:
        super().__init__(f"write {idem} cannot be resolved: {reason}")
        self.idem = idem


class TransportError(AtomaError):
    """The connection failed; the same call may work later.

    Attributes:
        maybe_sent: Whether the other side may have seen the request. Only when this is False is it safe to repeat a write
            elsewhere.
    """

    code = "UNAVAILABLE"

    def __init__(self, message: str, *, maybe_sent: bool = True) -> None:
        super().__init__(message)
        self.maybe_sent = maybe_sent


class ConnectFailed(TransportError):
    """No connection could be made; nothing was sent."""

    code = "CONNECT_FAILED"

    def __init__(self, message: str) -> None:
        super().__init__(message, maybe_sent=False)


class ChannelBroken(TransportError):
    """The connection was lost; the outcome of calls in flight is unknown."""

    code = "CHANNEL_BROKEN"


class ProtocolError(TransportError):
    """The other side broke the protocol: a malformed, oversized or truncated frame, an unknown method or version."""

    code = "MALFORMED"


class AuthenticationError(TransportError):
    """The token was missing, wrong or expired; nothing was done."""

    code = "UNAUTHENTICATED"

    def __init__(self, message: str) -> None:
        super().__init__(message, maybe_sent=False)


class TokenExpired(AuthenticationError):
    """The token is no longer valid: a new one helps."""

    code = "AUTH_EXPIRED"


class RemoteError(AtomaError):
    """The other side answered with an error.

    Attributes:
        remote_code: Stable code that the other side gave.
        remote_retryable: Whether the other side says that a retry may work; taken from the table of codes if it does not say.
        retry_after_s: Seconds to wait before a retry; 0 when not stated.
        info: Further facts, by name.
    """

    code = "REMOTE"

    def __init__(
        self,
        message: str,
        *,
        remote_code: str,
        remote_retryable: bool | None = None,
        retry_after_s: float = 0.0,
        info: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{remote_code}: {message}")
        self.remote_code = remote_code
        self.remote_retryable = row(remote_code).retryable if remote_retryable is None else remote_retryable
        self.retry_after_s = retry_after_s
        self.info = dict(info or {})


class StoreError(AtomaError):
    """The storage engine failed; the transaction was rolled back."""

    code = "STORE"


class StoreBusy(StoreError):
    """Another program or connection holds the file."""

    code = "BUSY"


class StoreCorrupt(StoreError):
    """The file is damaged, or is not of the expected kind."""

    code = "CORRUPT"


class ForeignLog(StoreError):
    """The log beside the file belongs to another state of it; nothing was read or written."""

    code = "FOREIGN_LOG"


class WrongKey(StoreError):
    """The given key is not the file's, the file needs a key, or a key was given for a plain file; nothing was read or written."""

    code = "WRONG_KEY"


class DiskFull(StoreError):
    """No space is left on the device; nothing was written."""

    code = "DISK_FULL"


class MigrationError(StoreError):
    """The file cannot be migrated to the code's schema without a migration step that somebody has to write."""

    code = "MIGRATION"


class ClosedError(StoreError):
    """The client, hub, engine or subscription is closed."""

    code = "CLOSED"


class SyncError(AtomaError):
    """Replication failed."""

    code = "SYNC"


class OutboxFull(SyncError):
    """Too many unsent writes; nothing was written.

    Attributes:
        limit: The limit that was reached, in entries.
    """

    code = "OUTBOX_FULL"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the outbox is full: it holds {limit} unsent writes, its limit; nothing was written")
        self.limit = limit


class ClientForked(SyncError):
    """The hub knows a different history for this client: the file was restored or copied."""

    code = "CLIENT_FORKED"


class Resync(SyncError):
    """The cursor is no longer valid at the hub; a snapshot is needed.

    Attributes:
        reason: The hub's code (``CURSOR_TOO_OLD``, ``EPOCH_CHANGED``, ``LINEAGE_MISMATCH`` …).
    """

    code = "RESYNC"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the hub does not recognise the cursor ({reason}); a snapshot is needed")
        self.reason = reason


def is_retryable(error: BaseException) -> bool:
    """Return whether repeating the same call may help."""
    if isinstance(error, RemoteError):
        return error.remote_retryable
    return isinstance(error, AtomaError) and error.retryable


def what_helps(error: AtomaError) -> Help:
    """Return what helps against ``error``, in a word; :data:`atoma.codes.HELP` describes each word."""
    code = error.remote_code if isinstance(error, RemoteError) else error.code
    return "retry" if code not in CODES and is_retryable(error) else row(code).help
