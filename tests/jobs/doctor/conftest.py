"""A doctor that no cluster is named to."""

import pytest


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No cluster is named from outside."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
