"""Declared stores: models, columns, the one codec table, ids."""

from __future__ import annotations

from atoma.schema.decimals import Scale
from atoma.schema.fields import Field
from atoma.schema.ids import IdSource, ids_in_use, new_id
from atoma.schema.indexes import Index
from atoma.schema.migrations import Convert, Drop, Rename, Split, Sql, Step, Steps
from atoma.schema.spec import ConflictRule, Schema, StoreSpec

__all__ = [
    "ConflictRule", "Convert", "Drop", "Field", "IdSource", "Index", "Rename", "Scale", "Schema", "Split", "Sql", "Step", "Steps",
    "StoreSpec", "ids_in_use", "new_id",
]  # fmt: skip
