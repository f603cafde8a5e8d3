"""`fit` behind the webhook: whose is called, what became of it, and what is told of that."""

from __future__ import annotations

import functools
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from yolo_backend.base import LabelStudioMLBase
from yolo_backend.errors import UserError
from yolo_backend.fitting import START_TRAINING, FitRunner, Training, placeholder, trains, why_ignored

WAIT_S = 10


class Base(LabelStudioMLBase):
    """As YoloBackend is one."""

    def predict(self, tasks: list[Any], context: dict[str, Any] | None = None, **kwargs: Any) -> Any: ...

    @placeholder
    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None:
        raise AssertionError("it isn't called")


class Inherits(Base):
    pass


class Overrides(Base):
    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None:
        pass


class OfMixin(Overrides, Inherits):
    pass


class Mixin:
    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None:
        pass


class WithMixin(Mixin, Base):
    pass


class MixinTooLate(Base, Mixin):
    pass


class Again(Overrides):
    fit = Base.fit


class NotCallable(Overrides):
    fit = None  # type: ignore[assignment]


class Calls(Base):
    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None:
        super().fit(event, data, **kwargs)


class Wraps(Base):
    pass


def _wrapping(self: Base, event: str, data: dict[str, Any], **kwargs: Any) -> None: ...


Wraps.fit = functools.wraps(Base.fit)(_wrapping)  # type: ignore[method-assign]


class Plain:
    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None:
        pass


class Static:
    @staticmethod
    def fit(event: str, data: dict[str, Any], **kwargs: Any) -> None:
        pass


class Assigned(Base):
    pass


Assigned.fit = lambda self, event, data, **kwargs: None  # type: ignore[method-assign]


class OfLabelStudioMl:
    """Whose base class has a `fit` that does nothing, too."""

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None: ...


OfLabelStudioMl.__module__ = "label_studio_ml.model"


class InheritsTheirs(OfLabelStudioMl):
    pass


class OverridesTheirs(OfLabelStudioMl):
    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None: ...


@pytest.mark.parametrize(
    "backend_class",
    [
        Overrides,
        OfMixin,
        WithMixin,
        Calls,
        Wraps,
        Plain,
        Static,
        Assigned,
        OverridesTheirs,
        lambda **kwargs: Inherits(),
    ],
)
def test_a_class_with_a_fit_of_its_own_trains(backend_class: Any) -> None:
    assert trains(backend_class)


@pytest.mark.parametrize(
    "backend_class", [Base, Inherits, MixinTooLate, Again, NotCallable, LabelStudioMLBase, object, InheritsTheirs]
)
def test_a_class_that_inherits_one_that_does_nothing_does_not(backend_class: Any) -> None:
    assert not trains(backend_class)


# What is told


class Trainer:
    """Does what the event's `run` does."""

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id, self.label_config = project_id, label_config

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> Any:
        return data["run"]()


def told_when(runner: FitRunner, *states: str) -> list[Training]:
    ends_at = time.monotonic() + WAIT_S
    while [each.state for each in runner.told()] != list(states):
        assert time.monotonic() < ends_at, runner.told()
        time.sleep(0.01)
    return runner.told()


def start(runner: FitRunner, run: Callable[[], Any], project: Any = 7, event: str = START_TRAINING) -> None:
    runner.start(event, {"project": {"id": project}, "run": run})


def raises(error: BaseException) -> Callable[[], NoReturn]:
    def run() -> NoReturn:
        raise error

    return run


def test_a_training_is_told_from_its_click_to_its_end() -> None:
    runner = FitRunner(lambda: Trainer)
    gates = [threading.Event(), threading.Event()]
    before = time.time()
    start(runner, lambda: gates[0].wait(WAIT_S))
    [running] = told_when(runner, "running")
    assert (running.project, running.event, running.reason, running.ended_at) == ("7", START_TRAINING, None, None)
    assert before <= running.asked_at <= time.time()
    start(runner, lambda: gates[1].wait(WAIT_S))  # a second click while one runs waits for it
    told_when(runner, "waiting")
    gates[0].set()
    told_when(runner, "running")
    gates[1].set()
    [done] = told_when(runner, "done")
    assert done.ended_at
    assert done.asked_at <= done.ended_at <= time.time()


class _SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no annotations\nof this project"), "RuntimeError: no annotations"),
        (ValueError(), "ValueError"),
        (KeyError("label"), "KeyError: 'label'"),
        (MemoryError(), "MemoryError"),
        (_SpeechlessError(), "_SpeechlessError"),
        (UserError("Weights x.pt can't be loaded"), "Weights x.pt can't be loaded"),
        (SystemExit(2), "it ended by sys.exit(2)"),
        (SystemExit("no GPU"), "it ended by sys.exit('no GPU')"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (
            RuntimeError("401 for url: http://me:secret@host:8080/api/tasks?token=secret was answered"),
            "RuntimeError: 401 for url: http://host:8080/api/tasks?... was answered",
        ),
        (RuntimeError("Token 0123456789abcdef0123456789abcdef01234567 refused"), "RuntimeError: Token ... refused"),
        (RuntimeError("in 0123456789abcdef0123456789abcdef01234567"), "RuntimeError: in ..."),
        (RuntimeError("Bearer eyJhbGciOi.eyJ0b2tlbi.c2ln-bmF0 is old"), "RuntimeError: Bearer ... is old"),
        (RuntimeError("password=hunter2 is wrong"), "RuntimeError: password=... is wrong"),
        (
            RuntimeError({"password": "hunter2", "token": "abc", "user": "me"}),
            "RuntimeError: {'password': '...', 'token': '...', 'user': 'me'}",
        ),
        (RuntimeError('{"api_key": "abc123"}'), 'RuntimeError: {"api_key": "..."}'),
        (RuntimeError("aws_secret_access_key = AKIA123"), "RuntimeError: aws_secret_access_key = ..."),
        (UserError("password: hunter2 of the bucket"), "password: ... of the bucket"),
        (RuntimeError("\nmissing"), "RuntimeError: missing"),
        (RuntimeError("x" * 1000), "RuntimeError: " + "x" * 183 + "..."),
    ],
)
def test_what_went_wrong_is_told_in_a_line_without_secrets(error: BaseException, reason: str) -> None:
    runner = FitRunner(lambda: Trainer)
    start(runner, raises(error))
    [failed] = told_when(runner, "failed")
    assert failed.reason == reason
    assert failed.ended_at


@pytest.mark.parametrize("code", [0, None])
def test_a_script_that_ends_well_by_exit_has_ended_well(code: int | None) -> None:
    runner = FitRunner(lambda: Trainer)
    start(runner, lambda: sys.exit(code))
    told_when(runner, "done")


@pytest.mark.parametrize("error", [SystemExit(2), SystemExit(0), KeyboardInterrupt(), _SpeechlessError()])
def test_however_one_ends_the_next_is_run(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    runner = FitRunner(lambda: Trainer)
    ran = threading.Event()
    start(runner, raises(error))
    start(runner, ran.set)
    assert ran.wait(WAIT_S)
    told_when(runner, "done")


def test_each_project_is_told_of_and_the_newest_first() -> None:
    runner = FitRunner(lambda: Trainer)
    for project in (7, 8, 9):
        start(runner, lambda: None, project)
        time.sleep(0.01)
    assert [training.project for training in told_when(runner, "done", "done", "done")] == ["9", "8", "7"]


def test_of_other_events_only_a_failure_is_told_until_the_next_goes_well() -> None:
    runner = FitRunner(lambda: Trainer)
    start(runner, lambda: None, event="ANNOTATION_CREATED")
    start(runner, raises(ValueError("no labels")), event="ANNOTATION_UPDATED")
    [failed] = told_when(runner, "failed")
    assert (failed.event, failed.reason) == ("ANNOTATION_UPDATED", "ValueError: no labels")
    start(runner, lambda: None)
    told_when(runner, "done", "failed")
    start(runner, lambda: None, event="ANNOTATION_UPDATED")
    assert told_when(runner, "done")[0].event == START_TRAINING


def test_what_comes_when_too_many_wait_is_dropped_and_told(caplog: pytest.LogCaptureFixture) -> None:
    runner = FitRunner(lambda: Trainer)
    gate = threading.Event()
    start(runner, lambda: gate.wait(WAIT_S), event="ANNOTATION_CREATED")
    for _ in range(101):
        start(runner, lambda: None, event="ANNOTATION_CREATED")
    start(runner, lambda: None)
    [first, _] = told_when(runner, "dropped", "dropped")
    assert (first.event, first.reason) == (START_TRAINING, "fit is 100 events behind")
    gate.set()


def test_a_class_that_turns_out_not_to_train_is_told_when_it_is_there(caplog: pytest.LogCaptureFixture) -> None:
    is_imported = threading.Event()

    def load() -> Any:
        assert is_imported.wait(WAIT_S)
        return Inherits

    runner = FitRunner(load)
    start(runner, lambda: None)
    told_when(runner, "running")
    is_imported.set()
    [ignored] = told_when(runner, "ignored")
    assert ignored.reason == why_ignored("Inherits")
    assert "fit failed" not in caplog.text


def test_a_class_that_can_not_be_imported_is_told() -> None:
    def load() -> NoReturn:
        raise UserError("The class Mine can't be imported (NameError): see the backend's log")

    runner = FitRunner(load)
    start(runner, lambda: None)
    [failed] = told_when(runner, "failed")
    assert failed.reason == "The class Mine can't be imported (NameError): see the backend's log"


def test_what_is_ignored_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    runner = FitRunner(lambda: Inherits)
    with caplog.at_level(logging.DEBUG, logger="yolo_backend.fitting"):
        for project in range(3):
            for event in ("ANNOTATION_CREATED", START_TRAINING, "TASKS_CREATED"):
                runner.ignore(event, {"project": {"id": project}}, why_ignored("Inherits"))
    reason = (
        "Nothing is trained: the class Inherits doesn't train. Override its fit, see docs/extending.md, and restart "
        "the backend"
    )
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("DEBUG", f"Project 0: ANNOTATION_CREATED is ignored: {reason}"),
        ("WARNING", f"Project 0: START_TRAINING is ignored: {reason}"),
    ]
    assert [(each.project, each.event, each.state) for each in runner.told()] == [
        (str(project), START_TRAINING, "ignored") for project in (2, 1, 0)
    ]


@pytest.mark.parametrize("project", [None, 5, "5", [], {}, {"id": None}, {"id": "x" * 10_000}, {"id": [1]}])
def test_a_project_of_any_shape_is_told(project: Any) -> None:
    runner = FitRunner(lambda: Trainer)
    runner.start("E" * 10_000, {"project": project, "run": raises(ValueError("x"))})
    [failed] = told_when(runner, "failed")
    assert len(failed.project) <= 60
    assert failed.event == "E" * 60


def test_of_thousands_of_projects_the_last_are_told() -> None:
    runner = FitRunner(lambda: Inherits)
    for project in range(500):
        runner.ignore(START_TRAINING, {"project": project}, "why")
    assert {each.project for each in runner.told()} == {str(project) for project in range(450, 500)}


def test_what_a_person_reads_names_the_remedy_before_it_is_cut() -> None:
    assert len(why_ignored("A" * 5000)) < 240
