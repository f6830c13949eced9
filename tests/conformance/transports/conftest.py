"""Every transport that comes with Atoma, as the site of a test."""

from __future__ import annotations

import pytest

from atoma.testing.conformance import TransportSite
from tests.conformance.sites import SITES


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.virtual_time] if site.virtual else []) for name, site in SITES.items()
    ]
)
def site(request: pytest.FixtureRequest) -> TransportSite:
    """The transport under test."""
    return SITES[request.param]
