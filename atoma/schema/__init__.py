"""Declared stores: models, columns, the one codec table, ids."""

from __future__ import annotations

from atoma.schema.decimals import Scale
from atoma.schema.fields import Field
from atoma.schema.ids import IdSource, ids_in_use, new_id
from atoma.schema.indexes import Index
from atoma.schema.migrations import Convert, Drop, Rename, Split, Sql, Step, Steps
from atoma.schema.relations import Many, One, Variants, belongs_to, has_many, has_one, variants
from atoma.schema.spec import Alias, ConflictRule, Schema, StoreSpec

__all__ = [
    "Alias", "ConflictRule", "Convert", "Drop", "Field", "IdSource", "Index", "Many", "One", "Rename", "Scale", "Schema", "Split", "Sql", "Step", "Steps",
    "StoreSpec", "Variants", "belongs_to", "has_many", "has_one", "ids_in_use", "new_id", "variants",
]  # fmt: skip
