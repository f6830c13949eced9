"""Values of writes that other programs leave: how deep they may be does not go by the version of Python."""

from __future__ import annotations

import pytest

from atoma.errors import ValidationError
from atoma.schema.left_values import NESTED_MAX, values_from_json


@pytest.mark.parametrize("innermost", ["", "1", '{"a": 1}'], ids=["nothing", "a number", "an object"])
def test_values_are_nested_up_to_the_bound_and_no_deeper(innermost: str) -> None:
    def nested(depth: int) -> str:
        lists = depth - 1 - innermost.startswith("{")
        return f'{{"title": {"[" * lists}{innermost}{"]" * lists}}}'

    assert values_from_json(nested(NESTED_MAX), {}).keys() == {"title"}
    with pytest.raises(ValidationError, match=f"nested more than {NESTED_MAX} deep"):
        values_from_json(nested(NESTED_MAX + 1), {})
