"""What compaction may forget, and what it must not."""

from __future__ import annotations

from atoma.contracts.mutations import Op
from atoma.contracts.sync import PushRequest
from tests.unit.hub.homes import Home
from tests.unit.hub.kit import Client, card, hub_on


async def test_a_rejection_is_kept_for_what_builds_on_it_however_old_it_is(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        owner, client = Client.of(hub, "o"), Client.of(hub, "a")
        await owner.do(Op("create", "cards", "1", card("theirs")))
        refused = await client.do(Op("create", "cards", "1", card("mine")))
        assert refused.error is not None and refused.error.code == "ALREADY_EXISTS"
        await client.service.push(PushRequest(client.client_id, 1, (), client.digests[1], 1))  # it is confirmed
        await hub.compact(keep=0, keep_days=-1)  # as if a day had passed and nothing were kept
        # written offline before the refusal came, and sent after a long time
        late = await client.do(Op("patch", "cards", "1", {"title": "mine again"}, after_mid=1))
        assert late.error is not None and late.error.code == "DEPENDENCY_REJECTED"
        assert (await client.query())["1"]["title"] == "theirs"
