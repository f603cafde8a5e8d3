"""kill -9 in the midst of everything: what serves is one whole model, what is told is true, the next run ends well."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import requests
import torch

from tests.fakes.labelled_label_studio import CREATED_AT, LABELS, PROJECT
from tests.harness import stopping_child
from tests.harness.stack import BackendServer, backend_server, pick_port
from tests.harness.stopping_child import POINTS, Stop
from tests.harness.training_house import House, wait_for
from yolo_backend.detection.models import load_checkpoint
from yolo_backend.detection.record import TrainedRecord, add_record
from yolo_backend.detection.weights import file_fingerprint
from yolo_backend.protocol import project_key, sent_project
from yolo_backend.training import launch
from yolo_backend.training.asked import AskedTrainings
from yolo_backend.training.lock import TrainingLock
from yolo_backend.training.records import Options, Run
from yolo_backend.training.registry import WEIGHTS, ProjectModels, Registry
from yolo_backend.training.run import CUT_OFF

pytestmark = [pytest.mark.alone, pytest.mark.timeout(1800)]

_ENDS_S = 10.0
_COMES_S = 600.0  # on a machine that is busy with something else, a training comes last
_OPTIONS = Options("bccd.pt", minutes=0.05, image_size=160, promote="always")
_EXPORTER = "the exporter runs"
_ALL = [point for point in POINTS if point != _EXPORTER]  # in torch nothing is exported
_PUBLISHED = list(POINTS)[list(POINTS).index("it is published, which is half-noted") :]
_QUICK = ["an image is half-written", "the candidate is half-written", "it is half-published", _PUBLISHED[0]]
# Nothing that serves knows its labels before a first run is promoted.
_OF_SERVER = [point for point in _ALL if point not in {"what serves looks at the images", *_PUBLISHED}]
_STEPS = [
    pytest.param(_QUICK, id="where files are half-written"),
    pytest.param(_ALL, id="everywhere", marks=pytest.mark.proof),
]
_STEPS_OF_SERVER = [
    pytest.param(["the dataset is half-written", "it is half-published", _PUBLISHED[0]], id="here and there"),
    pytest.param([*_OF_SERVER, *_PUBLISHED[:1]], id="everywhere", marks=pytest.mark.proof),
]


@pytest.fixture
def stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stop:
    """Trainings that this process starts are such as stop where they are told to."""
    monkeypatch.setattr(launch, "CHILD", stopping_child.CHILD)
    return Stop(tmp_path / "stop")


def serve_something(house: House) -> None:
    """A model of a first run, as if it had been trained: that takes less time."""
    key = project_key(str(house.settings.label_studio_url), sent_project(PROJECT, CREATED_AT))
    assert key
    models = Registry(house.settings.model_dir).project(key)
    run = models.begin_run(_OPTIONS)
    yolo = load_checkpoint(house.settings.model_root / house.settings.model_name)
    yolo.model.names = dict(enumerate(LABELS))
    path = models.folder_of(run.run) / WEIGHTS
    torch.save({"model": yolo.model.half(), "train_args": {}}, path)
    add_record(path, TrainedRecord(dict.fromkeys(LABELS, 0.5), run.run, models.key))
    models.write(replace(run, state="ended", verdict="promote"))
    models.promote(run.run)


def are_over(models: ProjectModels) -> bool:
    return all(run.is_over for run in models.runs())


def check(models: ProjectModels, served: Sequence[str]) -> None:
    """The last of these runs serves, whole, and nothing else is told to have served."""
    told = [each.run for each in models.promotions()]
    assert told in (list(served), list(served[:-1])), "which may not be noted yet"
    assert models.promoted() == (served[-1] if served else None)
    if served:
        weights = models.weights_of(served[-1])
        assert weights
        assert file_fingerprint(models.file) == file_fingerprint(weights)
        assert set(load_checkpoint(models.file).names.values()) == set(LABELS)


def check_nothing_half_written(models: ProjectModels) -> None:
    """No run that is over has files that nobody finished."""
    over = [models.folder_of(run.run) for run in models.runs() if run.is_over]
    left = [path for folder in over for path in folder.iterdir() if path.name.startswith(".") or path.name == "work"]
    assert left == []


@pytest.mark.parametrize("points", _STEPS)
def test_a_training_that_is_killed_costs_no_model(
    house: House, stop: Stop, monkeypatch: pytest.MonkeyPatch, points: Sequence[str]
) -> None:
    """Each run is killed at another point, so each goes past the points where earlier ones were."""
    serve_something(house)
    served = ["1"]
    for point in points:
        run = kill_at(point, house, stop, monkeypatch)
        if point in _PUBLISHED:
            served.append(run.run)
        check(house.models, served)
        assert (point, run.state) == (point, "ended" if point in _PUBLISHED else "failed")
        assert bool(run.result and run.result.promoted) == (point in _PUBLISHED)
    run = house.start(_OPTIONS).wait()
    assert run.state == "ended", run.failure
    check(house.models, [*served, run.run])
    assert [each.run for each in house.models.promotions()] == [*served, run.run]
    check_nothing_half_written(house.models)


@pytest.mark.proof
def test_a_training_that_is_killed_while_it_exports_costs_no_model(
    house: House, stop: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the engine is the one that serves by default."""
    house.settings = house.settings.model_copy(update={"engine": "auto"})
    for _ in range(2):
        run = kill_at(_EXPORTER, house, stop, monkeypatch)
        assert run.state == "failed"
        check(house.models, [])
    run = house.start(_OPTIONS).wait()
    assert run.state == "ended", run.failure
    check(house.models, [run.run])


def kill_at(point: str, house: House, stop: Stop, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run of a training that was killed there, as it is told of."""
    with monkeypatch.context() as patched:
        for name, value in stop.environment(point).items():
            patched.setenv(name, value)
        training = house.start(_OPTIONS)
    if earlier := house.models.runs()[1:]:
        assert all(run.is_over for run in earlier)
        check_nothing_half_written(house.models)
    wait_for(lambda: stop.has_come or training.process.poll() is not None, _COMES_S)
    assert stop.has_come, (point, training.wait())
    training.process.kill()
    run = training.wait()
    assert house.models.run(run.run) == run
    return run


@pytest.mark.parametrize("points", _STEPS_OF_SERVER)
def test_a_server_that_is_killed_costs_no_model(house: House, stop: Stop, points: Sequence[str]) -> None:
    """Its training ends with it. The next server tells the truth of it, and trains again."""
    served: list[str] = []
    for number, point in enumerate(points, 1):
        with started(house, stop.environment(point), number) as server:
            press_start_training(server)
            wait_for(lambda: stop.has_come, _COMES_S)
            check(house.models, served)
            before = house.models.runs()
            assert [run.is_over for run in before] == [False] + [True] * (len(before) - 1)
            check_nothing_half_written(house.models)
            os.killpg(server.process.pid, signal.SIGKILL)
        wait_for(lambda: TrainingLock(house.settings.model_dir).holder() is None, _ENDS_S)
        if point in _PUBLISHED:
            served.append(before[0].run)
        check(house.models, served)
    with started(house, {}, len(points) + 1) as server:
        wait_for(lambda: are_over(house.models), _COMES_S)
        press_start_training(server)
        wait_for(lambda: AskedTrainings(house.settings.model_dir).waiting() == [], _COMES_S)
        wait_for(lambda: are_over(house.models), _COMES_S)
    last, *killed = house.models.runs()
    assert last.state == "ended", last.failure
    for run in killed:
        assert (run.state, run.failure) == (("ended", None) if run.run in served else ("failed", CUT_OFF))
    check(house.models, served or [last.run])
    check_nothing_half_written(house.models)


def started(house: House, stop: dict[str, str], number: int) -> AbstractContextManager[BackendServer]:
    """A server that trains three CPU seconds, and whose trainings stop where they are told to."""
    environment = house.environment | stop | {"TRAINING": "on", "TRAIN_MINUTES": "0.05", "MODEL_IMAGE_SIZE": "160"}
    entry = ("-c", "from tests.harness import stopping_child; stopping_child.serve()", "serve")
    return backend_server(pick_port(0), environment, house.settings.model_dir / f"server-{number}.log", entry)


def press_start_training(server: BackendServer) -> None:
    """As Label Studio does."""
    project = {"id": PROJECT, "created_at": CREATED_AT}
    answer = requests.post(f"{server.url}/webhook", json={"action": "START_TRAINING", "project": project}, timeout=10)
    assert answer.ok, answer.text
