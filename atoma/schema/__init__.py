"""Declared stores: models, columns, the one codec table, ids."""

from __future__ import annotations

from atoma.schema.decimals import Scale
from atoma.schema.fields import Field
from atoma.schema.ids import IdSource, ids_in_use, new_id
from atoma.schema.spec import ConflictRule, Index, Schema, StoreSpec

__all__ = ["ConflictRule", "Field", "IdSource", "Index", "Scale", "Schema", "StoreSpec", "ids_in_use", "new_id"]
