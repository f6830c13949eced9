"""Answers at a hub are those over the rows that their caller may see, whatever plan asks and whatever else is there.

Every plan is asked twice, at a hub with rows that the caller may not see and at one without, and the answers are compared
byte for byte; both are compared with what the plan means over the allowed rows. Each way in which a fence could be
forgotten is planted once, and noticed by the same plans that pass without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from atoma.contracts.query import Derived, Exists, Lit, Store
from atoma.hub import pulling
from atoma.hub.rules import PrincipalView
from atoma.ports.hub_queries import Fence
from atoma_stores.sql import answers, include, select
from atoma_stores.sql.fence import FencedTables
from atoma_stores.sql.hub import reads
from atoma_stores.sql.scripts import Execute
from tests.leaks.worlds import Leak, Seen, campaign, follow

WORLDS, PLANS = 8, 60
"""What every run of the tests asks; :func:`test_ten_thousand_plans_show_nothing_foreign` asks more."""


def check_that_something_was_shown(seen: Seen, least: float = 0.5) -> None:
    assert seen.share("not empty", "answered") > least, seen.counts
    assert seen.share("fenced", "compared") > least, seen.counts
    assert seen.counts["not made"] < seen.counts["asked"], seen.counts
    assert 0 < seen.counts["PERMISSION_DENIED"] < 0.2 * seen.counts["asked"], seen.counts
    assert set(seen.counts) <= {
        "asked",
        "answered",
        "not empty",
        "fenced",
        "compared",
        "not made",
        "PERMISSION_DENIED",
    }, seen.counts


async def test_what_a_hub_answers_is_over_the_rows_that_may_be_seen() -> None:
    check_that_something_was_shown(await campaign(0, WORLDS, PLANS))


async def test_what_goes_to_devices_is_what_may_be_seen() -> None:
    seen = await follow(0, 2 * WORLDS)
    assert seen.share("not empty", "followed") > 0.4, seen.counts
    assert 0 < seen.share("refused", "followed") < 0.5, seen.counts


def in_pages(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pulling, "_seen", lambda last, *_: last)


def in_snapshots(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reads, "_fenced_scan", _everything)


def _everything(queries: reads.ReadQueries, store: str, fence: Fence, behind: str, limit: int) -> Execute:
    return FENCED_SCAN(queries, store, Fence(fence.scopes), behind, limit)


FENCED_SCAN = reads._fenced_scan  # pyright: ignore[reportPrivateUsage]


def for_who_asks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PrincipalView, "_condition", lambda view, store: Lit("bool", True))


@pytest.mark.parametrize("plant", [in_pages, in_snapshots, for_who_asks], ids=lambda plant: plant.__name__)
async def test_a_rule_that_is_forgotten_on_the_way_to_devices_is_noticed(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(Leak):
        await follow(0, WORLDS)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(20))
async def test_ten_thousand_plans_show_nothing_foreign(part: int) -> None:
    seen = await campaign(1_000 + 5 * part, 5, 125)
    assert seen.counts["asked"] >= 500, seen.counts
    check_that_something_was_shown(seen, least=0.4)
    assert (await follow(1_000 + 5 * part, 5)).counts["not empty"]


class Unfenced:
    """Reads tables as they are while it is inside a part of a plan.

    Args:
        patch: Puts a fault in place.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._inside = 0
        read = FencedTables.read

        def read_table(tables: FencedTables, store: Any) -> str:
            return f'main."{store.name}"' if self._inside else read(tables, store)

        patch.setattr(FencedTables, "read", read_table)

    def within(self, where: object, name: str, part: Callable[..., bool] = lambda *_: True) -> None:
        """Forget the fence while ``where.name`` runs with arguments that are the part."""
        function: Callable[..., Any] = getattr(where, name)

        def forgetful(*args: Any, **more: Any) -> Any:
            inside = part(*args)
            self._inside += inside
            try:
                return function(*args, **more)
            finally:
                self._inside -= inside

        self._patch.setattr(where, name, forgetful)


def at_the_root(patch: pytest.MonkeyPatch) -> None:
    at_sources(patch, lambda plan: [plan.source])


def at_a_join(patch: pytest.MonkeyPatch) -> None:
    at_sources(patch, lambda plan: [join.source for join in plan.joins])


def at_sources(patch: pytest.MonkeyPatch, chosen: Callable[[Any], list[Any]]) -> None:
    forgotten: list[Any] = []
    body = select.Compiler.body

    def remembered(compiler: Any, plan: Any, *args: Any, **more: Any) -> Any:
        forgotten.extend(chosen(plan))
        return body(compiler, plan, *args, **more)

    patch.setattr(select.Compiler, "body", remembered)
    Unfenced(patch).within(
        select.Compiler,
        "_source",
        lambda _, source: isinstance(source, Store) and any(source is each for each in forgotten),
    )


def at_a_derived_table(patch: pytest.MonkeyPatch) -> None:
    Unfenced(patch).within(select.Compiler, "_source", lambda _, source: isinstance(source, Derived))


def at_exists(patch: pytest.MonkeyPatch) -> None:
    found: Callable[..., bool] = lambda _, expr, *__: isinstance(expr, Exists) and expr.query.columns is None  # noqa: E731
    Unfenced(patch).within(select.Compiler, "_text", found)


def at_in_a_subquery(patch: pytest.MonkeyPatch) -> None:
    found: Callable[..., bool] = lambda _, expr, *__: isinstance(expr, Exists) and expr.query.columns is not None  # noqa: E731
    Unfenced(patch).within(select.Compiler, "_text", found)


def at_a_scalar(patch: pytest.MonkeyPatch) -> None:
    Unfenced(patch).within(select.Compiler, "_text", lambda _, expr, *__: type(expr).__name__ == "Scalar")


def at_an_include(patch: pytest.MonkeyPatch) -> None:
    Unfenced(patch).within(answers, "compile_branch")


def at_the_store_between(patch: pytest.MonkeyPatch) -> None:
    Unfenced(patch).within(include, "_belongs")


def without_the_rules_about_rows(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PrincipalView, "condition", lambda *_: None)


def without_the_scope_of_a_join(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(select, "_same_scope", lambda *_: [])


def without_the_scope_of_an_include(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(include.IncludedRelation, "scoped", lambda *_: False)


def without_the_scope_in_the_order(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(select, "is_grouped", lambda _: True)


FORGOTTEN = [
    at_the_root,
    at_a_join,
    at_a_derived_table,
    at_exists,
    at_in_a_subquery,
    at_a_scalar,
    at_an_include,
    at_the_store_between,
    without_the_rules_about_rows,
    without_the_scope_of_a_join,
    without_the_scope_of_an_include,
    without_the_scope_in_the_order,
]


@pytest.mark.parametrize("plant", FORGOTTEN, ids=lambda plant: plant.__name__)
async def test_a_fence_that_is_forgotten_is_noticed(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(Leak):
        await campaign(0, WORLDS, PLANS)
