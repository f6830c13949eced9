"""Every value of every type comes back from every format of file as it was."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, get_args

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import given, settings

from atoma import Schema, open_client
from atoma.runtime.table_files import FileFormat
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from tests.paths import memory
from tests.properties.test_types_compare import TYPES, spec_of

FORMATS = get_args(FileFormat)


async def there_and_back(name: str, values: list[Any]) -> None:
    spec = spec_of(name, optional=True)
    rows = [spec.model(str(number), value) for number, value in enumerate(values)]
    with tempfile.TemporaryDirectory() as folder:
        async with open_client(Schema(spec), plugins=[LocalExecution(SQLiteEngine(memory()))]) as client:
            store = client.store(spec)
            (await store.insert_many(rows)).raise_for_errors()
            before = (await store.query()).items
            for format in FORMATS:
                file = Path(folder) / f"rows.{format}"
                assert await store.export(file) == len(rows)
                await store.delete_many([row.id for row in rows])
                report = await store.import_(file)
                assert (report.written, report.first) == (len(rows), ()), format
                after = (await store.query()).items
                assert list(map(repr, after)) == list(map(repr, before)), format


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=2, deadline=None)
@given(data=st.data())
def test_every_value_comes_back_as_it_was(name: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | TYPES[name].values, min_size=3, max_size=20))
    trio.run(there_and_back, name, values)
