"""A disk that is full in the midst of a run: one line says what to do, what serves stays, the next run ends well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.harness.http_server import StartServer
from tests.harness.small_disk import fill, make_room, small_disk
from tests.harness.stopping_child import EXPORTER, POINTS, PUBLISHED, Stop
from tests.harness.training_house import (
    ALWAYS_PROMOTED,
    COMES_S,
    House,
    check,
    check_nothing_half_written,
    serve_something,
)
from tests.harness.waiting import wait_for
from yolo_backend.training.launch import TrainingStartError
from yolo_backend.training.records import Run

pytestmark = [pytest.mark.alone, pytest.mark.small_disk, pytest.mark.timeout(1800)]

_AFTER_PUBLISHING = ["it is half-published", *PUBLISHED]  # the rest of it takes no room
TRAINING_PROOF = [pytest.mark.proof, pytest.mark.training_proof]
# In torch nothing is exported; and the sides are written by an earlier run, which went on until it needed room.
_ALL = [point for point in POINTS if point not in {EXPORTER, "the sides are half-written"}]
_STEPS = [
    pytest.param(["it fits", "the export is checked"], id="before and after fitting", marks=pytest.mark.proof),
    pytest.param(_ALL, id="everywhere", marks=TRAINING_PROOF),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "model-dir", 64) as folder:
        yield folder


@pytest.fixture
def house(serve: StartServer, bccd_weights: Path, disk: Path) -> Iterator[House]:
    house = House(serve, bccd_weights, disk)
    yield house
    for training in house.started:
        training.cancel()


def test_a_run_that_can_not_begin_leaves_nothing_behind(house: House, disk: Path) -> None:
    serve_something(house)
    fill(disk)
    with pytest.raises(TrainingStartError, match=r"The disk is full.*: make room in MODEL_DIR, and train again"):
        house.start()
    assert [run.run for run in house.models.runs()] == ["1"]
    check(house.models, ["1"])


@pytest.mark.parametrize("points", _STEPS)
def test_a_full_disk_costs_no_model(
    house: House, disk: Path, stop: Stop, monkeypatch: pytest.MonkeyPatch, points: Sequence[str]
) -> None:
    serve_something(house)
    served = ["1"]
    for point in points:
        run = fill_at(point, house, disk, stop, monkeypatch)
        if point in _AFTER_PUBLISHING:
            assert (point, run.state, run.failure) == (point, "ended", None)
            served.append(run.run)
        else:
            assert (point, run.state) == (point, "failed")
            assert "make room" in str(run.failure) or "have room" in str(run.failure), run.failure
            assert "\n" not in str(run.failure)
        assert house.models.run(run.run) == run
        check(house.models, served, is_settled=False)
        check_nothing_half_written(house.models)
        make_room(disk)
    run = house.start(ALWAYS_PROMOTED).wait()
    assert run.state == "ended", run.failure
    check(house.models, [*served, run.run])


@pytest.mark.proof
@pytest.mark.training_proof
def test_a_disk_that_is_full_while_it_exports_costs_no_model(
    house: House, disk: Path, stop: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.settings = house.settings.model_copy(update={"engine": "auto"})
    run = fill_at(EXPORTER, house, disk, stop, monkeypatch)
    assert run.state == "failed"
    assert "make room" in str(run.failure), run.failure
    check(house.models, [])
    assert not list((disk / "exports").glob("making-*"))


def fill_at(point: str, house: House, disk: Path, stop: Stop, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run of a training for which the disk was full from there on, as it ended."""
    with monkeypatch.context() as patched:
        for name, value in stop.environment(point).items():
            patched.setenv(name, value)
        training = house.start(ALWAYS_PROMOTED)
    wait_for(lambda: stop.has_come or training.process.poll() is not None, COMES_S)
    assert stop.has_come, (point, training.wait())
    fill(disk)
    stop.let_go()
    return training.wait()
