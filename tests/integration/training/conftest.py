"""What is trained in tests: scenes of nuts, bolts and washers, small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import stopping_child
from tests.harness.http_server import StartServer
from tests.harness.stopping_child import Stop
from tests.harness.training_house import House
from yolo_backend.demo.train import write_dataset
from yolo_backend.training import launch
from yolo_backend.training.networks import Base, read_base


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data.yaml of 32 scenes to train on and 12 to validate with."""
    return write_dataset(tmp_path_factory.mktemp("scenes"), {"train": 32, "val": 12})


@pytest.fixture(scope="session")
def few_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data.yaml of 6 and 3, for what is over after a few steps."""
    return write_dataset(tmp_path_factory.mktemp("few-scenes"), {"train": 6, "val": 3})


@pytest.fixture(scope="session")
def cells(bccd_weights: Path) -> Base:
    """Weights that find blood cells, and know nothing of nuts."""
    return read_base(bccd_weights)


@pytest.fixture
def house(serve: StartServer, bccd_weights: Path, tmp_path: Path) -> Iterator[House]:
    house = House(serve, bccd_weights, tmp_path)
    yield house
    for training in house.started:
        training.cancel()


@pytest.fixture
def stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stop:
    """Trainings that this process starts are such as stop where they are told to."""
    monkeypatch.setattr(launch, "CHILD", stopping_child.CHILD)
    return Stop(tmp_path / "stop")
