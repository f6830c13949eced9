"""What every channel does: the same calls, the same results, the same errors, whatever carries the bytes."""

from __future__ import annotations

import pytest

from atoma.testing.conformance import TRANSPORT_CHECKS, NotChecked, TransportSite, check_promise
from atoma.testing.conformance.transports import frames

FRAMES_ONLY = set(frames.CHECKS)


@pytest.mark.parametrize("check", TRANSPORT_CHECKS)
async def test_a_transport_keeps_its_promises(site: TransportSite, check: str) -> None:
    try:
        await check_promise(site, TRANSPORT_CHECKS[check])
    except NotChecked:
        assert check in FRAMES_ONLY, "every transport that comes with Atoma has a road to be disturbed"
        assert site.name in ("grpc", "http"), "a transport of frames is checked frame by frame"
