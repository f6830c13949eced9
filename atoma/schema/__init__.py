"""Declared stores: models, columns, the one codec table, ids."""

from __future__ import annotations

from atoma.schema.decimals import Scale
from atoma.schema.fields import Field
from atoma.schema.ids import IdSource, ids_in_use, new_id
from atoma.schema.indexes import Index
from atoma.schema.merging import ConflictRule, Excluding, FieldRule, Including, Increment
from atoma.schema.migrations import Convert, Drop, MigrationStep, MigrationSteps, Rename, Split, Sql
from atoma.schema.relations import Many, One, Variants, belongs_to, has_many, has_one, variants
from atoma.schema.schema import Schema
from atoma.schema.shapes import Bring, ScopePart, Shape, param
from atoma.schema.spec import Alias, StoreSpec
from atoma.schema.wire import Wire

__all__ = [
    "Alias", "Bring", "ConflictRule", "Convert", "Drop", "Excluding", "Field", "FieldRule", "IdSource", "Including", "Increment", "Index", "Many", "MigrationStep", "MigrationSteps", "One", "Rename", "Scale", "Schema", "ScopePart",
    "Shape", "Split", "Sql",
    "StoreSpec", "Variants", "Wire", "belongs_to", "has_many", "has_one", "ids_in_use", "new_id", "param", "variants",
]  # fmt: skip
