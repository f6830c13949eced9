"""What the hub reads, each in one snapshot: pages of the log, scans of a scope, histories, direct queries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import cast

from atoma.contracts.query import BoundQuery, Call, Expr, Param, Plan, Store
from atoma.contracts.sync import Place
from atoma.contracts.values import RowImage, RowKey, Scalar, StoredRow
from atoma.contracts.versions import PLAIN, Versions
from atoma.errors import StoreCorrupt
from atoma.ports.hub import Lineage, LoggedChange, LogPage, ScanPage, ScopeState
from atoma.ports.hub_queries import Fence, Fences, QueryPage
from atoma.query.ordering import BY_ID, ID
from atoma.query.plans import ids_of
from atoma.query.seek import page_of
from atoma.schema.kinds import INT64_MAX
from atoma.schema.schema import Schema
from atoma.schema.spec import StoreSpec
from atoma_stores.sql.answers import KEYS, ChildReader, cells, prepare
from atoma_stores.sql.dialect import Dialect
from atoma_stores.sql.fence import KEY_COLUMNS
from atoma_stores.sql.hub.epochs import ENDED, ENDS, read_ended, read_ends, versions_of, word_of
from atoma_stores.sql.hub.rows import StoreSql, read_image, read_outcome
from atoma_stores.sql.scripts import Execute, Row, Script, Value

OUTCOMES_MAX = 1_000


class ReadQueries:
    """The queries, for one dialect and schema."""

    def __init__(self, dialect: Dialect, schema: Schema, stores: Mapping[str, StoreSql]) -> None:
        self.dialect, self.schema, self.stores = dialect, schema, stores
        lookup, render = dialect.lookup, dialect.render
        scope = "s.scope, s.head, s.head_hash, s.floor, s.boots, s.floor_hash"
        self.epoch = render("SELECT i.epoch FROM {info} i")
        self.scopes = lookup(
            {"scope": "TEXT"}, f"SELECT {scope} FROM {{keys}} {{join}} {{scope}} s ON s.scope=k.scope ORDER BY k.n"
        )
        self.all_scopes = render(f"SELECT {scope} FROM {{scope}} s ORDER BY s.scope")
        self.hashes = lookup(
            {"scope": "TEXT", "seq": "INTEGER"},
            "SELECT t.scope, t.seq, t.hash FROM {keys} {join} {tx} t ON t.scope=k.scope AND t.seq=k.seq",
        )
        # a transaction has at least one change, so a page has no more transactions than changes
        logged = (
            "FROM {tx} t {join} {change} c ON c.scope=t.scope AND c.seq=t.seq "
            "WHERE t.scope={p1} AND t.seq>{p2} AND t.seq<={p3} ORDER BY t.seq, c.idx"
        )
        self.log = render(f"SELECT t.seq, t.hash, t.n, t.bytes, c.idx, c.store, c.id, c.post, NULL {logged}")
        self.log_with_pre = render(f"SELECT t.seq, t.hash, t.n, t.bytes, c.idx, c.store, c.id, c.post, c.pre {logged}")
        # a mutation that could not be read has no scope: its outcome is in every scope's page
        self.outcomes = render(
            "SELECT o.mid, o.status, o.scope, o.seq, o.detail FROM {outcome} o WHERE o.client=(SELECT c.number FROM {client} c "
            "WHERE c.client_id={p1} AND c.principal={p2}) AND o.mid>{p3} AND o.scope IN ({p4}, '') ORDER BY o.mid "
            f"LIMIT {OUTCOMES_MAX}"
        )
        self.ends = lookup(
            {"scope": "TEXT", "epoch": "BLOB"},
            "SELECT k.n, coalesce(d.head, 0) FROM {keys} {join} {epoch} e ON e.epoch=k.epoch "
            "LEFT JOIN {epoch_end} d ON d.epoch=e.number AND d.scope=k.scope",
        )
        self.ended = render(ENDED)
        self.ends_of_all = lookup({"scope": "TEXT"}, ENDS)
        self.any_ended = render("SELECT e.number FROM {epoch} e LIMIT 1")
        self.unfinished = render(
            "WITH RECURSIVE logged(scope) AS (SELECT min(t.scope) FROM {tx} t UNION ALL SELECT (SELECT min(t.scope) FROM {tx} t "
            "WHERE t.scope>logged.scope) FROM logged WHERE logged.scope IS NOT NULL) SELECT l.scope FROM logged l "
            "LEFT JOIN {scope} s ON s.scope=l.scope WHERE l.scope IS NOT NULL "
            "AND (SELECT max(t.seq) FROM {tx} t WHERE t.scope=l.scope)>coalesce(s.head, 0)"
        )


class _Bounds:
    """The bounds of how much of a result is read: the first part of it always, then what fits.

    Args:
        count: Most rows.
        bytes_max: Most bytes of them together.
        crossing: Whether the row that crosses that is the last one, and not the first one too many.

    Attributes:
        full: Whether there was more.
        size: Bytes so far.
    """

    def __init__(self, count: int, bytes_max: int, *, crossing: bool = False) -> None:
        self._count, self._bytes_max, self._crossing = count, bytes_max, crossing
        self._counted = self.size = 0
        self._begun = self.full = False

    def passed(self, size: int, count: int = 1) -> bool:
        """Whether what comes next, ``count`` rows of ``size`` bytes, is too many."""
        before, self.size = self.size, self.size + size
        self._counted += count
        many = before >= self._bytes_max if self._crossing else self.size > self._bytes_max
        self.full = self._begun and (many or self._counted > self._count)
        self._begun = True
        return self.full


def _logged(queries: ReadQueries, store: str, post: bytes) -> RowImage:
    known = queries.stores.get(store)  # the log of a store that is not declared any more is still there
    return read_image(post) if known is None else known.unpack(post)


def read_page(
    queries: ReadQueries,
    scope: str,
    start: int,
    *,
    max_bytes: int,
    max_changes: int,
    client: tuple[bytes, str],
    outcomes_after: int,
    before: Collection[str] = (),
) -> Script[LogPage]:
    """The log of ``scope`` after ``start``, cut between transactions, with the client's outcomes."""
    changes, verdicts = _Bounds(max_changes, max_bytes), _Bounds(OUTCOMES_MAX, max_bytes)

    def is_next_page(row: Row) -> bool:
        count, size, index = cast("tuple[int, int, int]", row[2:5])
        return index == 0 and changes.passed(size, count)

    def is_enough(row: Row) -> bool:
        return verdicts.passed(len(cast("bytes | None", row[4]) or b""))

    epochs, scopes, hashes, log, outcomes = yield [
        Execute(queries.epoch),
        queries.scopes.of([(scope,)]),
        queries.hashes.of([(scope, start)]),
        Execute(
            queries.log_with_pre if before else queries.log,
            (scope, start, min(start + max_changes, INT64_MAX)),
            enough=is_next_page,
        ),
        Execute(queries.outcomes, (*client, outcomes_after, scope), enough=is_enough),
    ]
    epoch, states = _epoch(epochs), _states(scopes)
    state = _state(states, scope)
    start_hash = _Hashes(states, hashes).at(state, start)
    if start_hash is None:
        return LogPage(epoch, state, None, start, b"")
    end, end_hash = (cast("int", log[-1][0]), cast("bytes", log[-1][1])) if log else (start, start_hash)
    told = [read_outcome(*cast("tuple[int, str, str, int, bytes | None]", row)) for row in outcomes]
    return LogPage(epoch, state, start_hash, end, end_hash, _changes(queries, log, before), tuple(told))


def _changes(queries: ReadQueries, log: Sequence[Row], before: Collection[str]) -> tuple[LoggedChange, ...]:
    """The changes in ``log``; of a row of a store in ``before`` the first one with its image before."""
    found: list[LoggedChange] = []
    met: set[RowKey] = set()
    rows = cast("Sequence[tuple[int, bytes, int, int, int, str, str, bytes | None, bytes | None]]", log)
    for seq, _, _, _, _, store, id, post, pre in rows:
        if store in before and (store, id) not in met:
            met.add((store, id))
        else:
            pre = None
        images = [None if packed is None else _logged(queries, store, packed) for packed in (post, pre)]
        found.append(LoggedChange(seq, store, id, *images))
    return tuple(found)


def read_lineages(queries: ReadQueries, places: Sequence[Place]) -> Script[list[Lineage]]:
    """The scope of each place beside it."""
    marks = {(place.scope, mark.seq) for place in places for mark in place.marks if mark.seq}
    epochs, scopes, hashes, ends, words = yield [
        Execute(queries.epoch),
        queries.scopes.of([(scope,) for scope in sorted({place.scope for place in places})]),
        queries.hashes.of(sorted(marks)),
        queries.ends.of([(place.scope, place.cursor.epoch) for place in places]),
        Execute(queries.ended),
    ]
    epoch, states = _epoch(epochs), _states(scopes)
    known, ended = _Hashes(states, hashes), dict(cast("Sequence[tuple[int, int]]", ends))
    said = read_ended(words)
    unknown = [
        place.scope for at, place in enumerate(places) if at not in ended and place.cursor.epoch not in (b"", epoch)
    ]
    began: dict[str, int] = {}
    if said and unknown:
        (ends,) = yield [queries.ends.of([(scope, said[-1].epoch) for scope in unknown])]
        began = {unknown[at]: head for at, head in cast("Sequence[tuple[int, int]]", ends)}
    found: list[Lineage] = []
    for at, place in enumerate(places):
        state = _state(states, place.scope)
        end = ended.get(at)
        if place.cursor.epoch == epoch:
            # a place beyond the head of its own epoch: the hub has lost something, and nobody knows from where on
            end = state.head if place.cursor.seq <= state.head else None
        told = ((mark.seq, known.at(state, mark.seq)) for mark in place.marks if mark.seq)
        kept = {seq: hash_ for seq, hash_ in told if hash_ is not None}
        beginning = began.get(place.scope, INT64_MAX)
        found.append(Lineage(state, end, kept, beginning, *word_of(said, epoch, place.cursor.epoch)))
    return found


def read_scopes(queries: ReadQueries, names: Sequence[str] | None) -> Script[list[ScopeState]]:
    """States of the named scopes, fresh ones for those never written; of all known scopes for None."""
    if names is None:
        (rows,) = yield [Execute(queries.all_scopes)]
        return [state for state, _ in _states(rows).values()]
    (rows,) = yield [queries.scopes.of([(name,) for name in dict.fromkeys(names)])]
    known = _states(rows)
    return [_state(known, name) for name in names]


def read_scan(
    queries: ReadQueries,
    scope: str,
    after: RowKey | None,
    *,
    max_bytes: int,
    max_rows: int,
    conditions: Mapping[str, Expr],
) -> Script[ScanPage]:
    """Rows of ``scope`` behind ``after``, in (store, id) order; of the stores in ``conditions`` those that fulfil theirs.

    Others are not read: a page is not made of what somebody may not see, and what it costs is what a query of it would.
    """
    bounds = _Bounds(max_rows, max_bytes, crossing=True)

    def is_enough(row: Row) -> bool:
        return bounds.passed(len(cast("str", row[0])) + _size(row[2:]))

    epochs, scopes = yield [Execute(queries.epoch), queries.scopes.of([(scope,)])]
    found: list[tuple[str, str, int, RowImage]] = []
    for name in sorted(queries.stores):
        if not queries.schema.store(name).replicate or (after is not None and name < after[0]):
            continue
        behind = after[1] if after is not None and name == after[0] else ""
        store = queries.stores[name]
        limit = max_rows - len(found)
        fenced = name in conditions
        if fenced:
            scan = _fenced_scan(queries, name, Fence((scope,), conditions[name]), behind, limit)
        else:
            scan = Execute(store.scan, (scope, behind, limit + 1))
        (rows,) = yield [replace(scan, enough=is_enough)]
        for row in rows:
            key = (row[0], row[KEY_COLUMNS.index("_seq")]) if fenced else row[:2]
            id, seq = cast("tuple[str, int]", key)
            found.append((name, id, seq, store.image(row[KEYS if fenced else 2 :])))
        if bounds.full:
            break
    states = _states(scopes)
    state = _state(states, scope)
    return ScanPage(_epoch(epochs), state, tuple(found), (found[-1][0], found[-1][1]) if bounds.full else None)


_BEHIND = Call("gt", (*ID, Param(0, "text")))


def _fenced_scan(queries: ReadQueries, store: str, fence: Fence, behind: str, limit: int) -> Execute:
    """What a store's ``scan`` asks, of the rows within ``fence`` alone; a row beyond the limit as well."""
    plan = Plan(Store(store), where=_BEHIND, order=BY_ID, limit=limit)
    statement = prepare(plan, queries.schema.store, {store: fence}, queries.dialect).statement
    return Execute(statement.sql, statement.bindings((behind,)))


def read_located(queries: ReadQueries, store: str, ids: Sequence[str]) -> Script[dict[str, list[str]]]:
    """Scopes that hold a row with each id."""
    held: dict[str, list[str]] = {id: [] for id in ids}
    if store in queries.stores:
        (rows,) = yield [queries.stores[store].locate.of([(id,) for id in held])]
        for id, scope in cast("Sequence[tuple[str, str]]", rows):
            held[id].append(scope)
    return held


def read_unfinished(queries: ReadQueries) -> Script[list[str]]:
    """Scopes whose log goes beyond their head; one look into the log for each scope."""
    (rows,) = yield [Execute(queries.unfinished)]
    return [cast("str", scope) for (scope,) in rows]


def read_query(
    queries: ReadQueries, query: BoundQuery, fences: Fences, *, max_bytes: int, max_rows: int
) -> Script[QueryPage]:
    """Answer ``query`` from the rows within ``fences``.

    Args:
        queries: The queries.
        query: The query, checked and in normal form.
        fences: What may be seen of each store that it reads.
        max_bytes: Most bytes of values.
        max_rows: Most rows, and most children of them, too; a row beyond the limit that only says that there is more does
            not count.
    """
    plan, stores, dialect = query.plan, queries.schema.store, queries.dialect
    by_id = ids_of(query) is not None
    prepared = prepare(plan, stores, fences, dialect, by_id=by_id)
    bounds = _Bounds(max_rows if plan.limit is None else min(plan.limit, max_rows) + 1, max_bytes)
    statement = prepared.statement
    enough = _enough(bounds, keys=KEYS if plan.whole_rows else 0)
    asked = Execute(statement.sql, statement.bindings(query.params), enough=enough)
    found, *told = yield [asked, Execute(queries.epoch), Execute(queries.any_ended)]
    if bounds.full:
        return QueryPage(complete=False)
    raws, more = page_of(plan, found)
    rows = _Rows(queries, *told)
    whole = statement.whole
    made: Sequence[StoredRow | Row] = raws
    if whole is not None:
        if plan.joins:
            return QueryPage((), (yield from rows.joined(whole, raws)), more)
        if isinstance(whole[0], int):
            return QueryPage((), tuple([raw[1:] for raw in raws]), more)
        made = stored = yield from rows.of(whole[0], raws)
        if not plan.include:
            return QueryPage(tuple(stored), (), more)
    elif not plan.include:
        return QueryPage((), tuple(raws), more)
    below = _Bounds(max_rows, max(1, max_bytes - bounds.size))

    def ask(sql: str, values: Sequence[Value]) -> Execute:
        return Execute(sql, values, enough=_enough(below))

    tuples = yield from ChildReader(dialect, query.params, rows.of, ask).added(prepared, made)
    count, size = _extent(tuple(tuples), {})
    fits = not below.full and count <= len(made) + max_rows and size <= max_bytes
    return QueryPage((), tuple(tuples), more) if fits else QueryPage(complete=False)


def _enough(bounds: _Bounds, *, keys: int = 0) -> Callable[[Row], bool]:
    """Tells when ``bounds`` are passed; of the first so many columns of a row only the id counts, as in a page."""
    return lambda row: bounds.passed(_size(row) if not keys else _size(row[:1]) + _size(row[keys:]))


def _extent(value: object, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many rows travel with a row and its children, and bytes of them; children that several rows share with each."""
    if isinstance(value, StoredRow):
        return 1, len(value.id) + _size(list(value.image.values()))
    if not isinstance(value, tuple):
        return 0, 0
    children = cast("tuple[object, ...]", value)
    if children and not any(isinstance(each, (StoredRow, tuple)) for each in children):
        return 1, _size(cast("tuple[Scalar, ...]", children))  # the columns of a child
    found = known.get(id(children))  # all of them live as long as the answer
    if found is None:
        parts = [_extent(each, known) for each in children]
        found = known[id(children)] = sum(rows for rows, _ in parts), sum(size for _, size in parts)
    return found


class _Rows:
    """A maker of rows, whose versions are sequences, of what the database gives.

    Args:
        queries: The queries.
        epochs: The epoch now.
        any_ended: Nothing while none has ended.
    """

    def __init__(self, queries: ReadQueries, epochs: Sequence[Row], any_ended: Sequence[Row]) -> None:
        self._queries = queries
        self._epoch = _epoch(epochs)
        self._any_ended = bool(any_ended)
        self._versions: dict[str, Versions] = {}

    def of(self, store: StoreSpec[object], raws: Sequence[Row]) -> Script[list[StoredRow]]:
        """Rows of ``store``."""
        fresh = list(dict.fromkeys(cast("str", raw[3]) for raw in raws) if self._any_ended else ())
        asked = [scope for scope in fresh if scope not in self._versions]
        if asked:
            (found,) = yield [self._queries.ends_of_all.of([(scope,) for scope in asked])]
            self._versions.update(dict.fromkeys(asked, PLAIN))
            self._versions |= {scope: versions_of(self._epoch, ends) for scope, ends in read_ends(found).items()}
        return [self._row(store, raw) for raw in raws]

    def joined(
        self, parts: Sequence[StoreSpec[object] | int], raws: Sequence[Row]
    ) -> Script[tuple[tuple[object, ...], ...]]:
        """Rows of several sources that stand one behind the other."""
        columns: list[Sequence[object]] = []
        split = [tuple(cells(parts, raw)) for raw in raws]
        for at, part in enumerate(parts):
            if isinstance(part, int):
                columns.append([row[at] for row in split])
                continue
            present = [cell for row in split if (cell := row[at]) is not None]
            made = iter((yield from self.of(part, present)))
            columns.append([None if row[at] is None else next(made) for row in split])
        return tuple(zip(*columns, strict=True)) if raws else ()

    def _row(self, store: StoreSpec[object], raw: Row) -> StoredRow:
        id, _, seq, scope, *values = cast("tuple[str, int, int, str, *tuple[Scalar, ...]]", raw)
        version = self._versions.get(scope, PLAIN).told(seq)
        return StoredRow(id, version, version, scope, dict(zip(store.value_columns, values, strict=True)))


class _Hashes:
    """Lineage hashes as the log has them."""

    def __init__(self, states: Mapping[str, tuple[ScopeState, bytes]], rows: Sequence[Row]) -> None:
        self._states = states
        self._logged = {(scope, seq): hash_ for scope, seq, hash_ in cast("Sequence[tuple[str, int, bytes]]", rows)}

    def at(self, state: ScopeState, seq: int) -> bytes | None:
        """The hash at ``seq``, None when the log does not reach there."""
        if seq == state.head:
            return state.head_hash
        if seq < state.floor or seq > state.head:
            return None
        return self._states[state.scope][1] if seq == state.floor else self._logged.get((state.scope, seq))


def _states(rows: Sequence[Row]) -> dict[str, tuple[ScopeState, bytes]]:
    """Each scope with the hash at its floor."""
    found = cast("Sequence[tuple[str, int, bytes, int, bytes | None, bytes]]", rows)
    return {
        scope: (ScopeState(scope, head, hash_, floor, boots or b""), of_floor)
        for scope, head, hash_, floor, boots, of_floor in found
    }


def _state(states: Mapping[str, tuple[ScopeState, bytes]], scope: str) -> ScopeState:
    """The state of ``scope``; a fresh one when it was never written."""
    return states[scope][0] if scope in states else ScopeState(scope)


def _epoch(rows: Sequence[Row]) -> bytes:
    if not rows:
        raise StoreCorrupt("the hub's own description is missing; restore a copy")
    return cast("bytes", rows[0][0])


def _size(values: Sequence[Scalar]) -> int:
    return sum(len(value) if isinstance(value, (str, bytes)) else 9 for value in values)
