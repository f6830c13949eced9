"""What every channel does: the same calls, the same results, the same errors, whatever carries the bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from atoma.testing.conformance import TRANSPORT_CHECKS, NotChecked, SocketSite, TransportSite, check_promise
from atoma.testing.conformance.transports import frames
from tests.conformance.sites import SITES

FRAMES_ONLY = set(frames.CHECKS)
OVER_SOCKETS = {name: site for name, site in SITES.items() if isinstance(site, SocketSite)}
LOOPBACK_S = 0.02
"""Real seconds of silence after which nothing is under way on this machine any more, so that the clock may jump."""


@pytest.mark.parametrize("check", TRANSPORT_CHECKS)
async def test_a_transport_keeps_its_promises(site: TransportSite, check: str) -> None:
    try:
        await check_promise(site, TRANSPORT_CHECKS[check])
    except NotChecked:
        assert check in FRAMES_ONLY, "every transport that comes with Atoma has a road to be disturbed"
        assert site.name in ("grpc", "http"), "a transport of frames is checked frame by frame"


@pytest.mark.parametrize("name", OVER_SOCKETS)
def test_over_sockets_too_every_single_await_may_be_cancelled(name: str) -> None:
    site = replace(OVER_SOCKETS[name], virtual=True)
    clock = trio.testing.MockClock(autojump_threshold=LOOPBACK_S)
    trio.run(check_promise, site, TRANSPORT_CHECKS["a_call_may_be_cancelled_at_every_await"], clock=clock)
