"""The surroundings of a command that nobody else is there for."""

from __future__ import annotations

import pytest


@pytest.fixture
def environment(clean_environment: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An empty current folder, and a Label Studio that isn't there."""
    clean_environment.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:1")
    clean_environment.setenv("LABEL_STUDIO_API_KEY", "0" * 40)
    return clean_environment
