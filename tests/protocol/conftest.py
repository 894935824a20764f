"""Loads the Hypothesis profile before any test module asks for settings, and makes sites."""

import pytest

from tests.protocol.client import Client, Site
from tests.wire import profiles

__all__ = ["profiles"]


@pytest.fixture
def site() -> Site:
    """A broker with nobody connected."""
    return Site()


@pytest.fixture
def client(site: Site) -> Client:
    """An open connection to `site`, with channel 1."""
    return site.connect()
