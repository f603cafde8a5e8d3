"""What only the proofs have: the larger data, and the tables that they write into docs/."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the larger data, `TEST_DATA_DIR`: BCCD as a whole in `data/bccd`, `weights/bccd-yolo11n.pt`."""
    folder = os.environ.get("TEST_DATA_DIR")
    if not folder or not (Path(folder) / "data" / "bccd" / "images").is_dir():
        pytest.skip("TEST_DATA_DIR names no folder with data/bccd and weights (docs/developing.md)")
    return Path(folder).resolve()
