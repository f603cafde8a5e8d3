"""kill -9 in the midst of everything: what serves is one whole model, what is told is true, the next run ends well."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager

import pytest
import requests

from tests.fakes.labelled_label_studio import CREATED_AT, PROJECT
from tests.harness.stack import ROOT, BackendServer, backend_server, pick_port
from tests.harness.stopping_child import EXPORTER, POINTS, PUBLISHED, Stop, function_at
from tests.harness.training_house import (
    ALWAYS_PROMOTED,
    COMES_S,
    House,
    are_over,
    check,
    check_nothing_half_written,
    serve_something,
)
from tests.harness.waiting import wait_for
from yolo_backend.detection.engine import Engine
from yolo_backend.training.asked import AskedTrainings
from yolo_backend.training.lock import TrainingLock
from yolo_backend.training.records import Run
from yolo_backend.training.registry import LOG, Registry
from yolo_backend.training.run import CUT_OFF

pytestmark = [pytest.mark.alone, pytest.mark.timeout(1800)]

_ENDS_S = 10.0
TRAINING_PROOF = [pytest.mark.proof, pytest.mark.training_proof]
_ALL = [point for point in POINTS if point != EXPORTER]  # in torch nothing is exported
_MORE = ["an image is half-written", "the candidate is half-written", "it is half-published", PUBLISHED[0]]
# Nothing that serves knows its labels before a first run is promoted: only the candidate looks at the images.
_LOOKS = {"what serves looks at the images", "the candidate looks at the images"}
_OF_SERVER = [point for point in _ALL if point not in {*_LOOKS, *PUBLISHED}]
_STEPS = [
    pytest.param(_MORE, id="here and there", marks=pytest.mark.proof),
    pytest.param(_ALL, id="everywhere", marks=TRAINING_PROOF),
]
_STEPS_OF_SERVER = [
    pytest.param(
        ["the dataset is half-written", "it is half-published", PUBLISHED[0]],
        id="here and there",
        marks=pytest.mark.proof,
    ),
    pytest.param([*_OF_SERVER, *PUBLISHED[:1]], id="everywhere", marks=TRAINING_PROOF),
]


def test_the_product_has_every_point() -> None:
    """The longest tests alone come by some of them: a function that was moved would be found out late."""
    assert all(callable(function_at(point)[-1]) for point in POINTS.values())


@pytest.mark.parametrize("points", _STEPS)
def test_a_training_that_is_killed_costs_no_model(
    house: House, stop: Stop, monkeypatch: pytest.MonkeyPatch, points: Sequence[str]
) -> None:
    """Each run is killed at another point, so each goes past the points where earlier ones were."""
    serve_something(house)
    served = ["1"]
    for point in points:
        run = kill_at(point, house, stop, monkeypatch)
        if point in PUBLISHED:
            served.append(run.run)
        check(house.models, served, is_settled=False)
        assert (point, run.state) == (point, "ended" if point in PUBLISHED else "failed")
        assert bool(run.result and run.result.promoted) == (point in PUBLISHED)
    run = house.start(ALWAYS_PROMOTED).wait()
    assert run.state == "ended", run.failure
    check(house.models, [*served, run.run])
    check_nothing_half_written(house.models)


@pytest.mark.proof
@pytest.mark.training_proof
def test_a_training_that_is_killed_while_it_exports_costs_no_model(
    house: House, stop: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the engine is the one that serves by default."""
    house.settings = house.settings.model_copy(update={"engine": "auto"})
    for _ in range(2):
        run = kill_at(EXPORTER, house, stop, monkeypatch)
        assert run.state == "failed"
        check(house.models, [])
    run = house.start(ALWAYS_PROMOTED).wait()
    assert run.state == "ended", run.failure
    check(house.models, [run.run])
    log = (house.models.folder_of(run.run) / LOG).read_text()
    assert log.count("exporting to onnx, once") == 1, "to be judged, and not again to serve"
    exports = [path.name for path in (house.settings.model_dir / "exports").glob("*.onnx")]
    assert len(exports) == 1
    Engine.as_set(house.models.file, house.settings)
    assert [path.name for path in (house.settings.model_dir / "exports").glob("*.onnx")] == exports


def kill_at(point: str, house: House, stop: Stop, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run of a training that was killed there, as it is told of."""
    with monkeypatch.context() as patched:
        for name, value in stop.environment(point).items():
            patched.setenv(name, value)
        training = house.start(ALWAYS_PROMOTED)
    if earlier := house.models.runs()[1:]:
        assert all(run.is_over for run in earlier)
        check_nothing_half_written(house.models)
    wait_for(lambda: stop.has_come or training.process.poll() is not None, COMES_S)
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
            wait_for_stop(house, stop, number)
            assert stop.has_come, (point, house.models.runs()[0])
            run, *earlier = house.models.runs()
            assert not run.is_over
            assert all(each.is_over for each in earlier)
            check_nothing_half_written(house.models)
            if point in PUBLISHED:
                served.append(run.run)
            else:
                check(house.models, served)
            os.killpg(server.process.pid, signal.SIGKILL)
        wait_for(lambda: TrainingLock(house.settings.model_dir).holder() is None, _ENDS_S)
        check(house.models, served, is_settled=False)
    with started(house, {}, len(points) + 1) as server:
        wait_for(lambda: are_over(house.models), COMES_S)
        press_start_training(server)
        wait_for(lambda: AskedTrainings(house.settings.model_dir).waiting() == [], COMES_S)
        wait_for(lambda: are_over(house.models), COMES_S)
    runs = house.models.runs()
    begun, killed = runs[: -len(points)], runs[-len(points) :]
    # What was asked for when the server before was killed begins by itself: the button joins it, or comes after it.
    assert len(begun) in (1, 2)
    for run in begun:
        assert (run.state, run.failure) == ("ended", None)
    for run in killed:
        assert (run.state, run.failure) == (("ended", None) if run.run in served else ("failed", CUT_OFF))
    check(house.models, served)
    check_nothing_half_written(house.models)


def wait_for_stop(house: House, stop: Stop, runs: int) -> None:
    """Until the last of so many runs has stopped, or has ended without."""

    def has_come_or_ended() -> bool:
        projects = Registry(house.settings.model_dir).projects()
        return stop.has_come or any(len(models.runs()) == runs and are_over(models) for models in projects)

    wait_for(has_come_or_ended, COMES_S)


def started(house: House, stop: dict[str, str], number: int) -> AbstractContextManager[BackendServer]:
    """A server that trains three CPU seconds, and whose trainings stop where they are told to."""
    environment = (
        house.environment
        | stop
        | {"PYTHONPATH": str(ROOT), "TRAINING": "on", "TRAIN_MINUTES": "0.05", "MODEL_IMAGE_SIZE": "160"}
    )
    entry = ("-c", "from tests.harness import stopping_child; stopping_child.serve()", "serve")
    return backend_server(pick_port(0), environment, house.settings.model_dir / f"server-{number}.log", entry)


def press_start_training(server: BackendServer) -> None:
    """As Label Studio does."""
    project = {"id": PROJECT, "created_at": CREATED_AT}
    answer = requests.post(f"{server.url}/webhook", json={"action": "START_TRAINING", "project": project}, timeout=10)
    assert answer.ok, answer.text
