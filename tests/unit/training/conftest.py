"""What the unit tests of training share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.http_server import StartServer
from tests.harness.snapshots import Take, snapshots


@pytest.fixture
def take(serve: StartServer, tmp_path: Path) -> Iterator[Take]:
    """Takes a snapshot of tasks by the product's own loader."""
    with snapshots(serve, tmp_path) as take:
        yield take
