"""Declaring stores: a model's type hints become a STRICT table with real columns."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast, get_args, get_type_hints

import msgspec

from atoma.contracts.checks import is_a
from atoma.contracts.execution import Confirm, Durability
from atoma.contracts.query import AS_WRITTEN, Call, Col, Lit
from atoma.contracts.values import RowImage, Scalar, StoredRow
from atoma.errors import QueryError, SchemaError, UnknownStore, ValidationError
from atoma.schema.expressions import Expression, checked_text, unknown_field
from atoma.schema.fields import Field, field_of, is_text
from atoma.schema.indexes import Index
from atoma.schema.kinds import is_storable
from atoma.schema.migrations import Past, Steps, pasts_of

T = TypeVar("T")
V = TypeVar("V")

ConflictRule: TypeAlias = Literal["lww", "server_wins", "client_wins", "manual"]
_RULES: tuple[ConflictRule, ...] = get_args(ConflictRule)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
ID_BYTES = SCOPE_BYTES = 200
CONFIRMS: tuple[Confirm, ...] = get_args(Confirm)
DURABILITIES: tuple[Durability, ...] = get_args(Durability)
DEFAULT_SCOPE = "main"


def is_scope(name: str) -> bool:
    """Whether a scope can have this name."""
    return 0 < len(name) <= SCOPE_BYTES and is_storable(name) and len(name.encode()) <= SCOPE_BYTES


def _hints(name: str, model: type[Any]) -> dict[str, tuple[object, object]]:
    """Declared fields of a dataclass, msgspec Struct or attrs class, in order: their types with and without constraints."""
    if is_a(model, object):
        raise SchemaError(f"store {name!r}: the model is a class, not an object of {type(model).__name__}")
    if dataclasses.is_dataclass(model):
        names = [item.name for item in dataclasses.fields(model) if item.init]
    elif issubclass(model, msgspec.Struct):
        names = list(model.__struct_fields__)
    elif hasattr(model, "__attrs_attrs__"):
        names = [item.name for item in model.__attrs_attrs__]
    else:
        raise SchemaError(f"store {name!r}: {model.__name__} is no dataclass, msgspec.Struct or attrs class")
    try:
        hints, bare = get_type_hints(model, include_extras=True), get_type_hints(model)
    except NameError as error:
        raise SchemaError(f"store {name!r}: a type hint of {model.__name__} cannot be resolved: {error}") from None
    return {field: (hints[field], bare[field]) for field in names}


class StoreSpec(Generic[T]):
    """One store: a name, a model, where its rows belong and how conflicts on them are decided.

    Args:
        name: Table name; letters, digits and underscores, beginning with a letter.
        model: Dataclass, ``msgspec.Struct`` or attrs class with an ``id: str`` field.
        scope: The field whose value is the row's scope, or a fixed scope name; default ``"main"``.
        indexes: Secondary indexes.
        search: Fields of text of which a device keeps an index of words; see :meth:`matches`.
        conflict: What the hub does when two devices changed one row: ``lww`` takes what arrives last, ``server_wins``
            keeps what is there, ``client_wins`` takes the client's (reviving a deleted row), ``manual`` refuses and
            leaves both to a person.
        durability: Default durability of writes; None means ``full`` when the store is synced, else ``normal``.
        policy: Policy for this store; None takes the client's.
        replicate: Whether its rows may go to devices by sync. A store that does not is asked and written at the hub only, by
            queries and direct writes; a store whose rows have rules of their own has to be one (``open_hub(row_rules=…)``).
        confirm: When a write returns that does not say so itself: ``optimistic`` at the local commit, ``strict`` when
            the authority has answered.

    Raises:
        SchemaError: The declaration cannot be stored.

    Attributes:
        value_columns: Column names in declaration order, without the id.
        unique: The unique indexes.
        booleans: Columns whose 0 and 1 stand for false and true.
    """

    __slots__ = (
        "_decoders",
        "_encoders",
        "_packed",
        "_read",
        "_value_names",
        "booleans",
        "confirm",
        "conflict",
        "durability",
        "fields",
        "fixed_scope",
        "indexes",
        "model",
        "name",
        "policy",
        "replicate",
        "scope_field",
        "search",
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
        durability: Durability | None = None,
        policy: str | None = None,
        confirm: Confirm = "optimistic",
        replicate: bool = True,
    ) -> None:
        if not is_a(name, str) or not _NAME.fullmatch(name) or name.lower().startswith(("sqlite_", "atoma_")):
            raise SchemaError(f"store name {name!r}: use letters, digits and _, begin with a letter (at most 63)")
        if conflict not in _RULES:
            raise SchemaError(f"store {name!r}: conflict must be one of {', '.join(_RULES)}, not {conflict!r}")
        if confirm not in CONFIRMS:
            raise SchemaError(f"store {name!r}: confirm must be optimistic or strict, not {confirm!r}")
        if durability is not None and durability not in DURABILITIES:
            raise SchemaError(f"store {name!r}: durability must be normal or full, not {durability!r}")
        if not is_a(scope, str) or not is_scope(scope):
            raise SchemaError(
                f"store {name!r}: scope is the name of a field or of a scope (1 to {SCOPE_BYTES} bytes), not {scope!r}"
            )
        if not (is_a(indexes, tuple) or is_a(indexes, list)) or not all(is_a(index, Index) for index in indexes):
            raise SchemaError(f"store {name!r}: indexes is a list of Index(…)")
        self.name = name
        self.model = model
        self.confirm: Confirm = confirm
        self.conflict: ConflictRule = conflict
        self.durability: Durability | None = durability
        self.policy = policy
        if not is_a(replicate, bool):
            raise SchemaError(f"store {name!r}: replicate is True or False, not {replicate!r}")
        self.replicate = replicate
        hints = _hints(name, model)
        if "id" not in hints or not is_text(hints["id"][1]):
            raise SchemaError(f"store {name!r}: {model.__name__} needs a field `id: str`")
        self.fields: dict[str, Field] = {}
        lowered: set[str] = set()
        for field_name, (hint, bare) in hints.items():
            if not _NAME.fullmatch(field_name) or field_name.lower() in lowered:
                raise SchemaError(f"store {name!r}: field name {field_name!r} cannot be a column")
            lowered.add(field_name.lower())
            self.fields[field_name] = field_of(name, field_name, hint, bare)
        self.scope_field = scope if scope in self.fields else None
        self.fixed_scope = scope if self.scope_field is None else ""
        if self.scope_field is not None and not is_text(hints[scope][1]):
            raise SchemaError(f"store {name!r}: the scope field {scope!r} must be a str")
        self.indexes = tuple(indexes)
        for index in self.indexes:
            for field_name in index.fields:
                if field_name not in self.fields:
                    raise SchemaError(f"store {name!r}: index on unknown field {field_name!r}")
                if why := self.fields[field_name].comparisons.equality:
                    raise SchemaError(f"store {name!r}: an index on {field_name!r} finds nothing: {why}")
        self.unique = tuple(index for index in self.indexes if index.unique)
        self.search = tuple(search) if is_a(search, tuple) or is_a(search, list) else (str(search),)
        for field_name in self.search:
            if field_name not in self.fields or self.fields[field_name].type != "text" or field_name == "id":
                raise SchemaError(f"store {name!r}: search= lists fields of text, and {field_name!r} is none")
        self._encoders = [(key, field.encode) for key, field in self.fields.items() if key != "id"]
        self._decoders = [(key, field.decode) for key, field in self.fields.items() if field.decode is not None]
        self.value_columns = tuple(name for name in self.fields if name != "id")
        self.booleans = frozenset(name for name, field in self.fields.items() if field.boolean)
        self._packed = [(key, field.packed) for key, field in self.fields.items() if field.packed and key != "id"]
        self._value_names = dict.fromkeys(self.value_columns).keys()
        self._read: Callable[[T], tuple[object, ...]] = attrgetter("id", *self.value_columns)

    def __repr__(self) -> str:
        return f"StoreSpec({self.name!r}, {self.model.__name__})"

    @property
    def columns(self) -> tuple[str, ...]:
        """Column names in declaration order, the id among them."""
        return tuple(self.fields)

    def col(self, pick: Callable[[T], V]) -> Expression[V]:
        """A field as something to ask for, with its type: ``CARDS.col(lambda card: card.title)``.

        Raises:
            QueryError: What is picked is no field of the model.
        """
        return _picked(self, self.name, pick)

    def named(self, name: str) -> Alias[T]:
        """This store under another name, so that one query can read it twice: ``boss = USERS.named("boss")``.

        Raises:
            QueryError: The name is none, or the store's own.
        """
        if not is_a(name, str) or not _NAME.fullmatch(name) or name == self.name:
            raise QueryError(
                f"another name for {self.name!r}: letters, digits and _, begin with a letter; not {name!r}"
            )
        return Alias(self, name)

    def matches(self, text: str) -> Expression[bool]:
        """Whether the fields in ``search`` together have what ``text`` asks for.

        ``text`` has words, ``"phrases"``, beginnings (``ber*``), words that must not be there (``-bear``) and alternatives
        (``tea OR coffee``). Case and accents do not count.

        Raises:
            QueryError: The store declares no ``search``.
        """
        return self._searched("matches", text)

    def rank(self, text: str) -> Expression[float]:
        """How well a row fits the search ``text``: the more often its words stand in it, the more.

        Raises:
            QueryError: The store declares no ``search``.
        """
        return self._searched("rank", text)

    def _searched(self, fn: str, text: str) -> Expression[Any]:
        if not self.search:
            raise QueryError(f"store {self.name!r} is not searched: declare StoreSpec(…, search=[…])")
        columns = [Col(0, name) for name in self.search]
        return Expression(Call(fn, (Lit(AS_WRITTEN, checked_text(f"{fn}()", text)), *columns)), self.name)

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
        """Id and image (without the id) of a model instance.

        Raises:
            ValidationError: A field has a wrong type or value.
        """
        if not isinstance(item, self.model):
            raise ValidationError(
                f"store {self.name!r} holds {self.model.__name__}, got {type(item).__name__}",
                store=self.name,
                value=item,
            )
        id = self.check_id(getattr(item, "id"), new=True)  # noqa: B009 - T is not known to have one
        return id, {name: encode(getattr(item, name)) for name, encode in self._encoders}

    def encode_many(self, items: Sequence[T]) -> list[tuple[str, RowImage]]:
        """:meth:`encode` of every item, column by column: several times faster than one by one.

        Raises:
            ValidationError: Some item cannot be stored; :meth:`encode` tells which, and why.
        """
        if len(self.fields) < 2 or set(map(type, items)) != {self.model}:
            return [self.encode(item) for item in items]
        ids, *columns = zip(*map(self._read, items), strict=True)
        names = self.value_columns
        encoded = [self.fields[name].encode_column(column) for name, column in zip(names, columns, strict=True)]
        images = [dict(zip(names, values, strict=True)) for values in zip(*encoded, strict=True)]
        return list(zip(self._check_ids(ids), images, strict=True))

    def _check_ids(self, ids: Sequence[object]) -> Sequence[str]:
        plain = self.fields["id"].plain
        if plain is not None and plain(ids):
            texts = cast("Sequence[str]", ids)  # ASCII, so that characters are bytes
            if all(texts) and len(max(texts, key=len)) <= ID_BYTES:
                return texts
        return [self.check_id(id, new=True) for id in ids]

    def encode_changes(self, changes: Mapping[str, object]) -> RowImage:
        """A patch by field name.

        Raises:
            ValidationError: Unknown field, the id or the scope field, a wrong type or value.
        """
        patch: RowImage = {}
        for name, value in changes.items():
            field = self.fields.get(name)
            if field is None:
                known = ", ".join(self.value_columns)
                message = f"store {self.name!r} has no field {name!r}; it has: {known}"
                raise ValidationError(message, store=self.name, field=name, value=value)
            if name in ("id", self.scope_field):
                message = f"{self.name}.{name} never changes; delete the row and insert it anew"
                raise ValidationError(message, store=self.name, field=name, value=value)
            patch[name] = field.encode(value)
        return patch

    def changes_to(self, id: str, image: Mapping[str, object], item: T) -> dict[str, object]:
        """The fields of ``item`` that are to be written over ``image``, by name.

        What an older rule let in and nobody has touched is none of them.

        Raises:
            ValidationError: It is another row, or a changed field has a wrong type or value.
        """
        if not isinstance(item, self.model):
            message = f"the function given to update() must return a {self.model.__name__}, not {type(item).__name__}"
            raise ValidationError(message, store=self.name, value=item)
        given: object = getattr(item, "id")  # noqa: B009 - T is not known to have one
        if given != id:
            raise ValidationError(f"{self.name}.id never changes", store=self.name, field="id", value=given)
        changes: dict[str, object] = {}
        before: T | None = None
        for name, encode in self._encoders:
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
        if field.packed is not None and field.type != "text":  # a text may have quotes of its own
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
        message = f"{self.name}.{field.name} is no {field.type_name}{why}"
        return ValidationError(message, store=self.name, field=field.name, value=value)

    def decode(self, id: str, image: Mapping[str, object]) -> T:
        """The model instance of an image (with or without the id in it).

        Columns that the image lacks take the model's defaults.
        """
        if image.keys() == self._value_names:
            values: dict[str, object] = {**image, "id": id}
        else:
            values = {name: image[name] for name in self.fields if name in image}
            values["id"] = id
        for name, decode in self._decoders:
            if name in values and decode is not None:
                values[name] = decode(values[name])
        return cast("T", cast("Any", self.model)(**values))

    def read(self, row: StoredRow) -> T:
        """The model instance of a row."""
        return self.decode(row.id, row.image)

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

    def signature(self) -> str:
        """Text that is equal for equal declarations; part of the schema hash."""
        columns = ", ".join(f"{f.name} {f.form}{'?' if f.nullable else ''}" for f in self.fields.values())
        scope = f"field {self.scope_field}" if self.scope_field else f"fixed {self.fixed_scope}"
        return f"{self.name}({columns}) scope {scope} conflict {self.conflict}"


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
        return _picked(self.spec, self.name, pick)


def _picked(spec: StoreSpec[T], source: str, pick: Callable[[T], V]) -> Expression[V]:
    picked: object = pick(cast("T", _Fields(spec, source)))
    if not isinstance(picked, Expression):
        raise QueryError(f"pick a field of {spec.name!r}, as in col(lambda row: row.id), not {picked!r}")
    return cast("Expression[V]", picked)


class _Fields:
    """Stands for a row while a field is picked."""

    def __init__(self, spec: StoreSpec[Any], source: str) -> None:
        self._spec = spec
        self._source = source

    def __getattr__(self, name: str) -> Expression[object]:
        spec = self._spec
        if name not in spec.fields:
            raise unknown_field(spec.name, name, spec.columns)
        return Expression(Col(0, name), self._source)


_NO_STEPS: Steps = MappingProxyType({})


class Schema:
    """All stores of an application, with a version.

    Args:
        stores: The stores; names must differ.
        version: Raised by the application when it changes a store.
        steps: For each version whose stores do not explain themselves, what leads to it from the one before; see
            :mod:`atoma.schema.migrations`.

    Attributes:
        packs: Whether any store packs anything otherwise than it is stored.
        made_up: Whether it was read from a file, whose columns and their forms it takes as they are.
        forms: The forms of each store's columns; of a schema that was read from a file, as far as that tells them.

    Raises:
        SchemaError: Something is no store, two stores share a name, the version is no positive number, or a step cannot
            have led to the stores.
    """

    __slots__ = ("_pasts", "forms", "made_up", "packs", "steps", "stores", "version")

    def __init__(self, *stores: StoreSpec[Any], version: int = 1, steps: Steps = _NO_STEPS) -> None:
        if not is_a(version, int) or version < 1:
            raise SchemaError(f"schema version must be 1 or more, not {version!r}")
        self.version = version
        self.made_up = False
        self.stores: dict[str, StoreSpec[Any]] = {}
        for store in stores:
            if not is_a(store, StoreSpec):
                raise SchemaError(f"Schema() takes stores, Schema(StoreSpec(…), …), not {store!r}")
            if store.name.lower() in {name.lower() for name in self.stores}:
                raise SchemaError(f"two stores are named {store.name!r}")
            self.stores[store.name] = store
        if not self.stores:
            raise SchemaError("a schema needs at least one store")
        self.packs = any(store.packs for store in stores)
        self.forms = {store.name: store.forms for store in stores}
        self.steps = steps
        self._pasts = pasts_of(self.stores, version, steps)
        names = {name.lower() for name in self.stores}
        for store in stores:
            if store.readable.lower() in names:
                raise SchemaError(
                    f"store {store.name!r} has decimals with a scale, so that {store.readable!r} is the view that shows them: "
                    "rename the other store"
                )

    def store(self, name: str) -> StoreSpec[Any]:
        """The store of that name.

        Raises:
            UnknownStore: It is not declared.
        """
        found = self.stores.get(name)
        if found is None:
            raise UnknownStore(name, tuple(self.stores))
        return found

    def past(self, version: int) -> Mapping[str, Past]:
        """The stores as ``version`` had them, by name: only those that steps have changed since; 0 is today's version."""
        later = [to for to in self._pasts if to > (version or self.version)]
        return self._pasts[min(later)] if later else {}

    def forms_at(self, version: int) -> dict[str, dict[str, str]]:
        """The forms of each store's columns as ``version`` had them."""
        return self.forms | {name: past.forms for name, past in self.past(version).items()}

    @property
    def hash(self) -> bytes:
        """16 bytes that are equal for equal declarations."""
        text = "\n".join(sorted(store.signature() for store in self.stores.values()))
        return hashlib.sha256(text.encode()).digest()[:16]
