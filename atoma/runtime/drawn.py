"""New rows whose ids the hub draws: which writes they may stand in, and what they are called once it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from atoma.contracts.execution import Confirm, WriteItemResult, WriteRequest
from atoma.contracts.mutations import Op
from atoma.errors import PolicyNotAllowed, ValidationError
from atoma.runtime.registry import PolicyNames

AT_THE_HUB = "direct-remote"
"""The policy under which such rows are made when neither the call nor the store names one that writes there alone."""


def check_strict(entries: Sequence[Op], confirm: Confirm) -> None:
    """Refuse to make a row without an id for a caller who does not wait for it.

    Raises:
        ValidationError: ``confirm`` is not strict.
    """
    store = next((entry.store for entry in entries if entry.awaits_id), "")
    if store and confirm != "strict":
        raise ValidationError(
            f"store {store!r}: the hub draws the ids of new rows, so an insert waits for its answer: say "
            'confirm="strict", or declare StoreSpec(…, confirm="strict")',
            store=store,
            field="id",
        )


def policy_of(names: PolicyNames, store: str, asked: str | None, is_remote: Callable[[str], bool]) -> str:
    """The policy for a write with rows of ``store`` without ids.

    Raises:
        PolicyNotAllowed: The one that was asked for writes on this device as well.
        UnknownPolicy: Nobody registered it.
    """
    name = names.resolve(store, asked)
    if is_remote(name):
        return name
    if asked is None:
        return names.resolve(store, AT_THE_HUB)
    why = f"the hub draws the ids of new rows, and this policy writes on this device as well; name none, or {AT_THE_HUB!r}"
    raise PolicyNotAllowed(name, store, why)


def named(request: WriteRequest, items: Sequence[WriteItemResult]) -> WriteRequest:
    """``request``, which was answered by ``items``, with the ids that the hub has drawn."""
    if all(entry.id for entry in request.entries):
        return request
    pairs = zip(request.entries, items, strict=True)
    return replace(request, entries=tuple([op if op.id else replace(op, id=item.id) for op, item in pairs]))
