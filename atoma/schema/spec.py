"""Declaring stores: a model's type hints become a STRICT table with real columns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Generic, TypeAlias, TypeVar, cast, get_args

import msgspec

from atoma.contracts.checks import is_a
from atoma.contracts.execution import Confirm, Durability
from atoma.contracts.mutations import Edit
from atoma.contracts.query import Col
from atoma.contracts.values import HIDDEN, RowImage, Scalar, StoredRow, is_gone
from atoma.errors import QueryError, SchemaError, ValidationError
from atoma.schema.expressions import Expression, checked_text
from atoma.schema.fields import Field
from atoma.schema.hiding import SoftDelete, hidden_field, purged_after
from atoma.schema.hooks import AfterSave, BeforeSave, Hooks, WritebackHook
from atoma.schema.indexes import Index, checked_indexes
from atoma.schema.instances import MakeInstance, imager, maker, reader, rows_reader
from atoma.schema.kinds import is_storable
from atoma.schema.merging import CONFLICT_RULES, ConflictRule, FieldRule, merging_of, split_edits, with_states
from atoma.schema.models import NAME, checked_search, fields_of
from atoma.schema.picking import picked
from atoma.schema.searches import matching, ranking
from atoma.schema.sets import SetBy, set_fields
from atoma.schema.wire import Wire, at_a_hub, with_wires

T = TypeVar("T")
V = TypeVar("V")

_NO_WIRES: Mapping[str, Wire[Any]] = MappingProxyType({})
_NO_RULES: Mapping[str, FieldRule] = MappingProxyType({})
ID_BYTES = SCOPE_BYTES = 200
CONFIRMS: tuple[Confirm, ...] = get_args(Confirm)
DURABILITIES: tuple[Durability, ...] = get_args(Durability)
DEFAULT_SCOPE = "main"


def is_scope(name: str) -> bool:
    """Whether a scope can have this name."""
    return 0 < len(name) <= SCOPE_BYTES and is_storable(name) and len(name.encode()) <= SCOPE_BYTES


class StoreSpec(Generic[T]):
    """One store: a name, a model, where its rows belong and how conflicts on them are decided.

    Args:
        name: Table name; letters, digits and underscores, beginning with a letter.
        model: Dataclass, ``msgspec.Struct`` or attrs class with an ``id: str`` field.
        scope: The field whose value is the row's scope, or a fixed scope name; default ``"main"``.
        indexes: Secondary indexes.
        search: Text fields for which a device keeps an index of words; see :meth:`matches`.
        conflict: What the hub does when two devices have changed the same row: ``lww`` takes the write that arrives
            last, ``server_wins`` keeps the hub's value, ``client_wins`` takes the client's (reviving a deleted row),
            ``manual`` refuses the write and leaves both values to a person, and ``lww_hlc`` takes the write that is
            latest by the devices' clocks.
        merge: Fields, by name, that have their own rule: one of those, or ``counter``, ``set``, ``max``, ``min``,
            ``text``, which never conflict, or ``custom``, a function of the hub (``open_hub(conflicts=…)``). See
            :mod:`atoma.schema.merging`.
        durability: Default durability of writes; None means ``full`` if the store is synced, else ``normal``.
        policy: Policy for this store; None takes the client's.
        replicate: Whether its rows may go to devices by sync. If not, the store can be read and written only at the
            hub, by queries and direct writes; this is for stores that are too large for devices, or of no use to
            them.
        confirm: When a write returns if the call does not say: ``optimistic`` at the local commit, ``strict`` when
            the authority has answered.
        before_save: Changes a row that is about to be written, or refuses it by raising; see :mod:`atoma.schema.hooks`.
        after_save: Called with each written row, once it is committed.
        writeback: Changes or drops rows that a remote read brings into the cache of a store that does not sync.
        wire: Fields, by name, that are sent encoded and that a hub cannot read; see :mod:`atoma.schema.wire`.
        created_at: The datetime field with the time when a row was created; the store fills it in.
        updated_at: The datetime field with the time when a row was last changed; the store fills it in.
        by: Whose clock these times come from: that of the writing ``device``, or the ``hub``'s.
        hub_fields: Fields that a hub sets through its functions (``open_hub(hub_fields=…)``), None until then. With
            ``id`` among them, the hub also assigns the ids of new rows: see :meth:`atoma.Store.insert`.
        soft_delete: Whether ``delete`` only hides a row, so that ``restore`` can bring it back; a ``timedelta`` also
            says after how long a compacting hub purges it. See :mod:`atoma.schema.hiding`.

    Raises:
        SchemaError: The declaration cannot be stored.

    Attributes:
        declared: The model's fields by name, in declaration order.
        columns: Their names, the id among them.
        value_columns: Names of the columns, without the id.
        unique: The unique indexes.
        booleans: Columns whose 0 and 1 stand for false and true.
        read: Makes the model instance of a row, as :meth:`decode` does of an id and an image.
        read_rows: Makes those of the rows of an answer.
        hooks: The hooks.
        merging: The rules by which fields merge.
        sets: The fields that nobody writes.
        prepares_new: Whether something is done to a new row before it is written.
        is_prepared: Whether something is done to any row before it is written.
        soft_delete: Whether ``delete`` hides rows.
        purge_after: How long a row stays hidden until a hub that compacts purges it; None for ever.
    """

    __slots__ = (
        "_decoders",
        "_encoders",
        "_images",
        "_make",
        "_packed",
        "_read",
        "booleans",
        "columns",
        "confirm",
        "conflict",
        "declared",
        "durability",
        "fields",
        "fixed_scope",
        "hooks",
        "indexes",
        "is_prepared",
        "merging",
        "model",
        "name",
        "policy",
        "prepares_new",
        "purge_after",
        "read",
        "read_rows",
        "replicate",
        "scope_field",
        "search",
        "sets",
        "soft_delete",
        "unique",
        "value_columns",
    )

    def __init__(
        self,
        name: str,
        model: type[T],
        *,
        scope: str = DEFAULT_SCOPE,
        indexes: tuple[Index, ...] | list[Index] = (),
        search: tuple[str, ...] | list[str] = (),
        conflict: ConflictRule = "lww",
        merge: Mapping[str, FieldRule] = _NO_RULES,
        durability: Durability | None = None,
        policy: str | None = None,
        confirm: Confirm = "optimistic",
        replicate: bool = True,
        before_save: BeforeSave[T] | None = None,
        after_save: AfterSave[T] | None = None,
        writeback: WritebackHook[T] | None = None,
        wire: Mapping[str, Wire[Any]] = _NO_WIRES,
        created_at: str | None = None,
        updated_at: str | None = None,
        by: SetBy = "device",
        hub_fields: Sequence[str] = (),
        soft_delete: SoftDelete = False,
    ) -> None:
        _check_words(name, conflict, confirm, durability, scope, replicate)
        self.name = name
        self.model = model
        self.confirm: Confirm = confirm
        self.conflict: ConflictRule = conflict
        self.durability: Durability | None = durability
        self.policy = policy
        self.replicate = replicate
        self.hooks: Hooks[T] = Hooks(name, before_save, after_save, writeback)
        self.fields = fields_of(name, model, scope)
        self.scope_field = scope if scope in self.fields else None
        self.fixed_scope = scope if self.scope_field is None else ""
        self.indexes = checked_indexes(name, self.fields, indexes)
        self.unique = tuple(index for index in self.indexes if index.unique)
        self.search = checked_search(name, self.fields, search)
        fixed = frozenset(("id", scope))
        self.fields = with_wires(name, self.fields, wire, fixed=fixed, search=self.search, indexes=self.indexes)
        self.sets = set_fields(name, self.fields, created_at, updated_at, by, hub_fields, fixed=fixed)
        self.merging = merging_of(name, self.fields, conflict, merge, unwritten=fixed | self.sets.names)
        self.fields = with_states(name, self.fields, self.merging)
        self.purge_after = purged_after(name, soft_delete)
        self.soft_delete = bool(soft_delete)
        if self.soft_delete:
            self.fields = {**self.fields, HIDDEN: hidden_field(name)}
        self.prepares_new = before_save is not None or bool(self.sets.names)
        self.is_prepared = self.prepares_new or self.soft_delete
        self._take_fields()

    def _take_fields(self) -> None:
        """Set up what is made of the fields."""
        fields = self.fields
        self.declared = {name: field for name, field in fields.items() if name != HIDDEN}
        self.columns = tuple(self.declared)
        self._encoders = [(key, field.encode) for key, field in self.declared.items() if key != "id"]
        self._decoders = [(key, field.decode) for key, field in self.declared.items() if field.decode is not None]
        self.value_columns = tuple(name for name in fields if name != "id")
        self.booleans = frozenset(name for name, field in fields.items() if field.boolean)
        self._packed = [(key, field.packed) for key, field in fields.items() if field.packed and key != "id"]
        written = tuple([name for name, _ in self._encoders])
        self._images = imager([*written, HIDDEN] if self.soft_delete else written)
        decoders = dict(self._decoders)
        self._make: MakeInstance[T] = maker(self.model, written, decoders)
        self.read: Callable[[StoredRow], T] = reader(self.model, written, decoders, self._make, self._with_defaults)
        self.read_rows = rows_reader(self.model, self.value_columns, decoders, self.read)
        self._read: Callable[[T], tuple[object, ...]] = attrgetter("id", *written)

    def __repr__(self) -> str:
        return f"StoreSpec({self.name!r}, {self.model.__name__})"

    @property
    def deleted_at(self) -> Expression[datetime | None]:
        """The time when a row was deleted softly, by the hub's clock once the hub has it; None for other rows.

        Use it in queries that include such rows: ``select(CARDS,
        include_deleted=True).where(CARDS.deleted_at.not_null())``.

        Raises:
            QueryError: The store has no soft deletion.
        """
        if not self.soft_delete:
            raise QueryError(f"store {self.name!r} deletes for good: declare StoreSpec(…, soft_delete=True)")
        return Expression(Col(0, HIDDEN), self.name)

    def col(self, pick: Callable[[T], V]) -> Expression[V]:
        """Pick a field, with its type, for use in queries: ``CARDS.col(lambda card: card.title)``.

        Raises:
            QueryError: The picked value is not a field of the model.
        """
        return picked(self.name, self.columns, self.name, pick)

    def named(self, name: str) -> Alias[T]:
        """Give this store another name, so that one query can read it twice: ``boss = USERS.named("boss")``.

        Raises:
            QueryError: The name is not a valid name, or is the store's own.
        """
        if not is_a(name, str) or not NAME.fullmatch(name) or name == self.name:
            raise QueryError(
                f"another name for {self.name!r}: letters, digits and _, begin with a letter; not {name!r}"
            )
        return Alias(self, name)

    def matches(self, text: str) -> Expression[bool]:
        """Return whether the fields in ``search`` together satisfy the search ``text``.

        ``text`` consists of words, ``"phrases"``, prefixes (``ber*``), words that may be misspelled (``berr~``),
        words that must not occur (``-bear``) and alternatives (``tea OR coffee``). A field and a colon before any of
        them, ``title:tea``, searches that field alone. Case and accents are ignored.

        Raises:
            QueryError: The store declares no ``search``.
        """
        return matching(self.name, self._sought, checked_text("matches()", text))

    def rank(self, text: str) -> Expression[float]:
        """Return how well a row fits the search ``text``: higher if its words occur more often.

        Raises:
            QueryError: The store declares no ``search``.
        """
        return ranking(self.name, self._sought, checked_text("rank()", text))

    @property
    def _sought(self) -> tuple[str, ...]:
        if not self.search:
            raise QueryError(f"store {self.name!r} is not searched: declare StoreSpec(…, search=[…])")
        return self.search

    def check_id(self, id: object, *, new: bool = False) -> str:
        """``id`` if it can be a primary key here, else :class:`ValidationError`; a ``new`` one meets its constraints."""
        field = self.fields["id"]
        stored = field.literal(id)
        assert isinstance(stored, str)
        if not stored or len(stored.encode()) > ID_BYTES or "\x00" in stored:
            raise ValidationError(
                f"{self.name}.id must be 1 to {ID_BYTES} bytes of text without NUL",
                store=self.name,
                field="id",
                value=id,
            )
        if new:
            field.encode(id)
        return stored

    def encode(self, item: T) -> tuple[str, RowImage]:
        """Id and image (without the id) of a model instance; the id may be ``""`` where the hub draws it.

        Raises:
            ValidationError: A field has a wrong type or value.
        """
        if not isinstance(item, self.model):
            raise ValidationError(
                f"store {self.name!r} holds {self.model.__name__}, got {type(item).__name__}",
                store=self.name,
                value=item,
            )
        id = self._new_id(getattr(item, "id"))  # noqa: B009 - T is not known to have one
        image = {name: encode(getattr(item, name)) for name, encode in self._encoders}
        return id, self.unhidden(image)

    def _new_id(self, id: object) -> str:
        return "" if self.sets.ids and id == "" else self.check_id(id, new=True)

    def unhidden(self, image: RowImage) -> RowImage:
        """``image``, or a part of one, of a row that is not deleted softly."""
        return {**image, HIDDEN: None} if self.soft_delete else image

    def encode_many(self, items: Sequence[T]) -> tuple[Sequence[str], Sequence[RowImage]]:
        """:meth:`encode` of every item, the ids and the images, column by column: several times faster than one by one.

        Raises:
            ValidationError: Some item cannot be stored; :meth:`encode` tells which, and why.
        """
        if not self._encoders or set(map(type, items)) != {self.model}:
            ids, images = zip(*map(self.encode, items), strict=True) if items else ((), ())
            return ids, images
        ids, *columns = zip(*map(self._read, items), strict=True)
        encoded = [
            self.fields[name].encode_column(column) for (name, _), column in zip(self._encoders, columns, strict=True)
        ]
        if self.soft_delete:
            encoded.append((None,) * len(ids))
        return self._check_ids(ids), self._images(zip(*encoded, strict=True))

    def _check_ids(self, ids: Sequence[object]) -> Sequence[str]:
        plain = self.fields["id"].plain
        if plain is not None and plain(ids):
            texts = cast("Sequence[str]", ids)  # ASCII, so that characters are bytes
            if all(texts) and len(max(texts, key=len)) <= ID_BYTES:
                return texts
        return [self._new_id(id) for id in ids]

    def encode_changes(self, changes: Mapping[str, object]) -> RowImage:
        """A patch by field name.

        Raises:
            ValidationError: Unknown field, the id or the scope field, a wrong type or value.
        """
        patch: RowImage = {}
        for name, value in changes.items():
            field = self.fields.get(name)
            if field is None or name == HIDDEN:
                known = ", ".join([name for name in self.columns if name != "id"])
                message = f"store {self.name!r} has no field {name!r}; it has: {known}"
                raise ValidationError(message, store=self.name, field=name, value=value)
            if name in self.sets.names or name in self.merging.states:
                message = f"{self.name}.{name} is set by the store itself, at each write that changes a row"
                raise ValidationError(message, store=self.name, field=name, value=value)
            if name in ("id", self.scope_field):
                message = f"{self.name}.{name} never changes; delete the row and insert it anew"
                raise ValidationError(message, store=self.name, field=name, value=value)
            patch[name] = field.encode(value)
        return patch

    def encode_update(self, changes: Mapping[str, object]) -> tuple[RowImage, tuple[Edit, ...]]:
        """A patch by field name, and what it does to values that are there.

        Raises:
            ValidationError: As in :meth:`encode_changes`; or a field does not merge like that.
        """
        if not self.merging.edited:
            return self.encode_changes(changes), ()
        plain, edits = split_edits(self.name, self.fields, self.merging, changes)
        return self.encode_changes(plain), edits

    def changes_to(self, id: str, image: Mapping[str, object], item: T) -> dict[str, object]:
        """The fields of ``item`` that are to be written over ``image``, by name.

        What an older rule let in and nobody has touched is none of them.

        Raises:
            ValidationError: It is another row, or a changed field has a wrong type or value.
        """
        if not isinstance(item, self.model):
            message = f"a function that changes a row must return a {self.model.__name__}, not {type(item).__name__}"
            raise ValidationError(message, store=self.name, value=item)
        given: object = getattr(item, "id")  # noqa: B009 - T is not known to have one
        if given != id:
            raise ValidationError(f"{self.name}.id never changes", store=self.name, field="id", value=given)
        changes: dict[str, object] = {}
        before: T | None = None
        for name, encode in self._encoders:
            if name in self.sets.names or name in self.merging.states:
                continue
            value = getattr(item, name)
            try:
                changed = encode(value) != image[name]
            except ValidationError:
                if before is None:
                    before = self.decode(id, image)
                if value != getattr(before, name):
                    raise
                changed = False
            if changed:
                changes[name] = value
        return changes

    def canonical(self, name: str, value: Scalar, *, literal: bool = False) -> Scalar:
        """The one stored form of ``value`` for a field, as this program would store it itself.

        Args:
            name: The field.
            value: What somebody else says is its stored form; text may be written in several ways.
            literal: It is asked for, not written, so that constraints are not held against it.

        Raises:
            ValidationError: The field cannot hold it, or it may not be written.
        """
        field = self.fields[name]
        encode = field.literal if literal else field.encode
        if field.packed is not None and field.type != "text" and not field.wired:  # a text may have quotes of its own
            value = field.packed.unpack(value)
        try:
            if field.decode is None and (stored := encode(value)) is value:
                return stored  # the common case: it is its own canonical form
            stored = encode(value if field.decode is None else field.decode(value))
        except (ValueError, TypeError, ArithmeticError, msgspec.MsgspecError, RecursionError) as error:
            why = f": {error}"
            raise self._no_form(field, value, why) from None
        # text may be written in several ways (JSON, time zones); numbers and bytes may not
        if isinstance(stored, str):
            fits = isinstance(value, str)
        else:
            fits = stored == value and isinstance(value, bytes) == isinstance(stored, bytes)
        if not fits:
            raise self._no_form(field, value, "")
        return stored

    def _no_form(self, field: Field, value: object, why: str) -> ValidationError:
        message = f"{self.name}.{field.name} is not of type {field.type_name}{why}"
        return ValidationError(message, store=self.name, field=field.name, value=value)

    def decode(self, id: str, image: Mapping[str, object]) -> T:
        """The model instance of an image (with or without the id in it).

        Columns that the image lacks take the model's defaults.
        """
        try:
            return self._make(id, image)
        except KeyError:
            return self._with_defaults(id, image)

    def _with_defaults(self, id: str, image: Mapping[str, object]) -> T:
        """:meth:`decode` where a column was added, and nobody has written it yet."""
        values = {name: image[name] for name in self.columns if name in image}
        for name, decode in self._decoders:
            if name in values:
                values[name] = decode(values[name])
        return cast("Callable[..., T]", self.model)(**{**values, "id": id})

    def seen(self, id: str, image: RowImage | None) -> T | None:
        """The model instance of an image as everybody sees it: None of a row that is not there, or was deleted softly."""
        return None if image is None or is_gone(image) else self.decode(id, image)

    def is_same(self, one: RowImage | None, other: RowImage | None) -> bool:
        """Whether two images are equal but for what nobody writes."""
        if one == other:
            return True
        if one is None or other is None or not (self.sets.names or self.soft_delete):
            return False
        return not any(self.differ(name, one[name], other[name]) for name in self.value_columns)

    def differ(self, name: str, one: Scalar, other: Scalar) -> bool:
        """Whether two values of a column make two rows of it: not what nobody writes, nor when exactly a row was deleted."""
        if name == HIDDEN:
            return (one is None) is not (other is None)
        return one != other and name not in self.sets.names

    @property
    def wired(self) -> bool:
        """Whether a field travels encoded: only a device has such a store as it is, and it goes to a hub by sync alone."""
        return any(field.wired for field in self.fields.values())

    def at_hub(self) -> StoreSpec[T]:
        """The store as a hub has it; itself where the two are one."""
        if not self.wired:
            return self
        there = copy.copy(self)
        there.fields = {name: at_a_hub(self.name, of) if of.wired else of for name, of in self.fields.items()}
        there._take_fields()
        return there

    @property
    def packs(self) -> bool:
        """Whether anything is packed otherwise than it is stored."""
        return bool(self._packed)

    def pack(self, image: RowImage) -> RowImage:
        """``image``, or a part of one, as it is sent and kept as bytes; see :mod:`atoma.schema.packed`."""
        if not self._packed:
            return image
        packed = {**image}
        for name, form in self._packed:
            if name in packed:
                packed[name] = form.pack(packed[name])
        return packed

    def unpack(self, image: RowImage) -> RowImage:
        """What :meth:`pack` made, or a program of before, as columns hold it; ``image`` itself where the two are one."""
        if not self._packed:
            return image
        unpacked = {**image}
        for name, form in self._packed:
            if name in unpacked:
                unpacked[name] = form.unpack(unpacked[name])
        return unpacked

    @property
    def forms(self) -> dict[str, str]:
        """The form of each column but the id: what has to be known of it to read its values."""
        return {name: field.form for name, field in self.fields.items() if name != "id"}

    @property
    def readable(self) -> str:
        """The name of the view that shows other tools the decimals of this store; ``""`` where columns do."""
        return f"{self.name}_readable" if any(field.places is not None for field in self.fields.values()) else ""

    def with_booleans(self, image: Mapping[str, Scalar]) -> RowImage:
        """``image`` as it is shown to whoever knows its fields by name: with true and false where that is meant."""
        return {
            name: bool(value) if name in self.booleans and value is not None else value for name, value in image.items()
        }

    def scope_of(self, image: Mapping[str, Scalar]) -> str:
        """The scope that a full image belongs to."""
        if self.scope_field is None:
            return self.fixed_scope
        scope = image[self.scope_field]
        assert isinstance(scope, str)
        return scope

    def scopes_of(self, images: Iterable[Mapping[str, Scalar]]) -> Iterable[str]:
        """:meth:`scope_of` each of ``images``; where that is one scope, without an end."""
        return repeat(self.fixed_scope) if self.scope_field is None else map(self.scope_of, images)

    def signature(self) -> str:
        """Text that is equal for equal declarations; part of the schema hash."""
        columns = ", ".join(f"{f.name} {f.form}{'?' if f.nullable else ''}" for f in self.fields.values())
        scope = f"field {self.scope_field}" if self.scope_field else f"fixed {self.fixed_scope}"
        merge = f" merge {self.merging.signature}" if self.merging.rules else ""
        return f"{self.name}({columns}) scope {scope} conflict {self.conflict}{merge}"


AnyStore: TypeAlias = StoreSpec[object]
"""A store whose model does not matter."""


@dataclass(frozen=True, slots=True, eq=False)
class Alias(Generic[T]):
    """A store under another name, see :meth:`StoreSpec.named`.

    Attributes:
        spec: The store.
        name: The name.
    """

    spec: StoreSpec[T]
    name: str

    def col(self, pick: Callable[[T], V]) -> Expression[V]:
        """A field of it, see :meth:`StoreSpec.col`."""
        return picked(self.spec.name, self.spec.columns, self.name, pick)


def _check_words(name: str, conflict: str, confirm: str, durability: str | None, scope: str, replicate: bool) -> None:
    if not is_a(name, str) or not NAME.fullmatch(name) or name.lower().startswith(("sqlite_", "atoma_")):
        raise SchemaError(f"store name {name!r}: use letters, digits and _, begin with a letter (at most 63)")
    if conflict not in CONFLICT_RULES:
        raise SchemaError(f"store {name!r}: conflict must be one of {', '.join(CONFLICT_RULES)}, not {conflict!r}")
    if confirm not in CONFIRMS:
        raise SchemaError(f"store {name!r}: confirm must be optimistic or strict, not {confirm!r}")
    if durability is not None and durability not in DURABILITIES:
        raise SchemaError(f"store {name!r}: durability must be normal or full, not {durability!r}")
    if not is_a(scope, str) or not is_scope(scope):
        raise SchemaError(
            f"store {name!r}: scope is the name of a field or of a scope (1 to {SCOPE_BYTES} bytes), not {scope!r}"
        )
    if not is_a(replicate, bool):
        raise SchemaError(f"store {name!r}: replicate is True or False, not {replicate!r}")
