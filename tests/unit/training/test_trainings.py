"""What Start Training begins: one training at a time, and never two for a flood of clicks."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from yolo_backend.label_studio.studios import Studios
from yolo_backend.protocol import project_key, project_of_event
from yolo_backend.settings import Settings, load_settings
from yolo_backend.training import trainings as trainings_module
from yolo_backend.training.asked import AskedTrainings
from yolo_backend.training.launch import TrainingStartError
from yolo_backend.training.lock import TrainingLock
from yolo_backend.training.records import ImageCounts, Options, Result, Run
from yolo_backend.training.registry import ProjectModels, Registry
from yolo_backend.training.run import CUT_OFF
from yolo_backend.training.trainings import TrainingAskError, Trainings, trainings_of

STUDIO = "http://label-studio:8080"
SEVEN = "7.1699000000"
KEY = project_key(STUDIO, SEVEN) or ""


def until(holds: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


class Begun:
    """A training that is under way until the test ends it; it holds the lock, as its process would."""

    def __init__(self, project: int, options: Options, settings: Settings) -> None:
        self.project, self.settings = project, settings
        self.models = Registry(settings.model_dir).project(project_key(STUDIO, f"{project}.1699000000") or "")
        self.begun = self.models.begin_run(options)
        self.may_end = threading.Event()
        self.is_held = threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(TrainingLock(settings.model_dir),), daemon=True)
        self._thread.start()
        assert self.is_held.wait(10)

    def run(self) -> Run:
        return self.begun

    def wait(self) -> Run:
        self._thread.join()
        result = Result(self.begun.run, True, "it is better", "project-7-1a2b3c4d", ImageCounts(30, 10))
        ended = replace(self.begun, state="ended", ended_at=time.time(), result=result)
        self.models.write(ended)
        return ended

    def _hold(self, lock: TrainingLock) -> None:
        with lock.held(self.models.key) as told:
            told(self.begun.run)
            self.is_held.set()
            self.may_end.wait(60)


class Starter:
    """Begins trainings, or refuses to."""

    def __init__(self) -> None:
        self.trainings: list[Begun] = []
        self.refusal: str | None = None

    def has_begun(self, count: int) -> bool:
        return len(self.trainings) == count

    def __call__(self, project: int, options: Options, settings: Settings) -> Begun:
        if self.refusal:
            raise TrainingStartError(self.refusal)
        training = Begun(project, options, settings)
        self.trainings.append(training)
        return training


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        model_dir=tmp_path, label_studio_url=STUDIO, label_studio_api_key="a" * 40, training="on", train_minutes=3
    )


@pytest.fixture
def starter() -> Starter:
    return Starter()


@pytest.fixture
def trainings(settings: Settings, starter: Starter) -> Trainings:
    return Trainings(settings, Studios(settings), start=starter)  # type: ignore[arg-type]  # a stand-in for a process


def test_a_flood_of_clicks_is_one_training_and_one_after(trainings: Trainings, starter: Starter) -> None:
    trainings.ask(SEVEN)
    until(lambda: len(starter.trainings) == 1)
    for _ in range(50):
        trainings.ask(SEVEN)
    time.sleep(0.2)
    assert len(starter.trainings) == 1, "one at a time"

    starter.trainings[0].may_end.set()
    until(lambda: len(starter.trainings) == 2)
    starter.trainings[1].may_end.set()
    until(lambda: TrainingLock(starter.trainings[0].settings.model_dir).holder() is None)
    time.sleep(0.2)

    assert len(starter.trainings) == 2


@pytest.mark.long
def test_projects_wait_for_each_other_in_the_order_of_their_clicks(trainings: Trainings, starter: Starter) -> None:
    trainings.ask(SEVEN)
    until(lambda: len(starter.trainings) == 1)
    trainings.ask("9.1699000000")
    trainings.ask("8.1699000000")
    for number in range(3):
        until(partial(starter.has_begun, number + 1))
        starter.trainings[number].may_end.set()

    assert [training.project for training in starter.trainings] == [7, 9, 8]


def test_a_training_is_of_the_label_studio_that_asks(trainings: Trainings, starter: Starter) -> None:
    trainings.ask(SEVEN)
    until(lambda: len(starter.trainings) == 1)
    starter.trainings[0].may_end.set()

    told = starter.trainings[0].settings
    assert told.label_studio_url == STUDIO
    assert told.label_studio_api_key is not None
    assert told.label_studio_api_key.get_secret_value() == "a" * 40
    options = starter.trainings[0].begun.options
    assert options is not None
    assert options.minutes == 3


def test_what_can_not_begin_is_told_until_somebody_asks_anew(
    trainings: Trainings, starter: Starter, settings: Settings
) -> None:
    starter.refusal = "Label at least 10 images first"
    trainings.ask(SEVEN)
    asked = AskedTrainings(settings.model_dir)
    until(lambda: (told := asked.of_project(KEY)) is not None and told.refused == starter.refusal)
    assert asked.waiting() == []

    starter.refusal = None
    trainings.ask(SEVEN)
    until(lambda: len(starter.trainings) == 1)
    starter.trainings[0].may_end.set()
    until(lambda: asked.of_project(KEY) is None)


def test_on_a_full_disk_it_is_not_tried_all_the_time(
    trainings: Trainings,
    starter: Starter,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where that it can't begin can't be written down either; each look starts a process."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trainings_module, "_LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(AskedTrainings, "refuse", refuse)
    starter.refusal = "The disk is full: make room in MODEL_DIR, and train again"
    AskedTrainings(settings.model_dir).ask(KEY, SEVEN)  # before the disk was full
    trainings.begin()
    until(lambda: "No space left on device" in caplog.text)
    time.sleep(0.3)
    assert [(record.getMessage(), record.exc_info) for record in caplog.records if record.levelname == "ERROR"] == [
        (f"Project 7: the training can't begin: {starter.refusal}", None),
        ("MODEL_DIR can't be used ([Errno 28] No space left on device): the trainings that were asked for wait", None),
    ]
    starter.refusal = None
    trainings.ask(SEVEN)  # a click is tried at once
    until(lambda: len(starter.trainings) == 1)
    starter.trainings[0].may_end.set()


def test_when_there_is_room_again_what_waits_begins(
    trainings: Trainings, starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        starter.refusal = None
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trainings_module, "_LOOK_AFTER_FAULT_S", 0.02)
    monkeypatch.setattr(AskedTrainings, "refuse", refuse)
    starter.refusal = "The disk is full: make room in MODEL_DIR, and train again"
    trainings.ask(SEVEN)
    until(lambda: len(starter.trainings) == 1)
    starter.trainings[0].may_end.set()


def test_while_another_process_trains_it_waits(trainings: Trainings, starter: Starter, settings: Settings) -> None:
    with TrainingLock(settings.model_dir).held("8-00000000"):
        trainings.ask(SEVEN)
        time.sleep(0.3)
        assert starter.trainings == []
        assert [asked.key for asked in AskedTrainings(settings.model_dir).waiting()] == [KEY]
    trainings.ask(SEVEN)
    until(lambda: len(starter.trainings) == 1)
    starter.trainings[0].may_end.set()


def test_what_waits_is_trained_after_a_restart(trainings: Trainings, starter: Starter, settings: Settings) -> None:
    AskedTrainings(settings.model_dir).ask(KEY, SEVEN)
    trainings.begin()
    until(lambda: len(starter.trainings) == 1)
    starter.trainings[0].may_end.set()


@pytest.mark.parametrize(("times", "is_begun"), [(1, True), (2, False), (3, False)])
def test_what_was_cut_off_is_begun_anew_but_not_for_ever(
    trainings: Trainings, starter: Starter, settings: Settings, times: int, *, is_begun: bool
) -> None:
    models = Registry(settings.model_dir).project(KEY)
    for number in range(times):
        run = models.begin_run(Options(base=settings.model_name, minutes=3, by_button=True))
        if number < times - 1:  # as the next one notes when it begins
            models.write(replace(run, state="failed", failure=CUT_OFF))
    trainings.begin()
    if is_begun:
        until(lambda: len(starter.trainings) == 1)
        starter.trainings[0].may_end.set()
    else:
        time.sleep(0.3)
        assert starter.trainings == []


def test_what_is_told_of_a_run_that_was_cut_off_is_set_right_at_the_start(
    trainings: Trainings, settings: Settings
) -> None:
    """Whether it is begun anew or not; this one was a person's at the command line."""
    models = Registry(settings.model_dir).project(KEY)
    models.begin_run(Options(base=settings.model_name, minutes=3, promote="never"))
    trainings.begin()
    until(lambda: models.run("1").is_over)
    assert (models.run("1").state, models.run("1").failure) == ("failed", CUT_OFF)


@pytest.mark.long
def test_whoever_asks_while_others_are_trained_asks_for_one_training(trainings: Trainings, starter: Starter) -> None:
    trainings.ask(SEVEN)
    until(lambda: len(starter.trainings) == 1)
    trainings.ask("8.1699000000")
    starter.trainings[0].may_end.set()
    until(lambda: len(starter.trainings) == 2)
    trainings.ask("9.1699000000")
    trainings.ask(SEVEN)
    trainings.ask("9.1699000000")  # as nothing is to be seen of it in Label Studio
    for number in (1, 2, 3):
        until(partial(starter.has_begun, number + 1))
        starter.trainings[number].may_end.set()
    time.sleep(0.3)
    assert [training.project for training in starter.trainings] == [7, 8, 7, 9]


@pytest.mark.parametrize(
    ("minutes", "by_button", "is_begun"), [(3, True, True), (30, True, True), (3, False, False), (30, False, False)]
)
def test_only_what_a_server_was_asked_for_is_begun_anew(
    trainings: Trainings, starter: Starter, settings: Settings, minutes: float, *, by_button: bool, is_begun: bool
) -> None:
    """Also with other TRAIN_MINUTES than it had; a person's run at the command line isn't, whatever its options."""
    models = Registry(settings.model_dir).project(KEY)
    models.begin_run(Options(base=settings.model_name, minutes=minutes, by_button=by_button))
    trainings.begin()
    until(lambda: models.run("1").is_over)
    if is_begun:
        until(lambda: len(starter.trainings) == 1)
        starter.trainings[0].may_end.set()
        assert starter.trainings[0].begun.options == Options(base=settings.model_name, minutes=3, by_button=True)
    else:
        time.sleep(0.3)
        assert starter.trainings == []
        assert AskedTrainings(settings.model_dir).waiting() == []


def test_a_run_whose_model_serves_is_not_begun_anew(
    trainings: Trainings, starter: Starter, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Registry(settings.model_dir).project(KEY)
    models.begin_run(Options(base=settings.model_name, minutes=3, by_button=True))
    monkeypatch.setattr(ProjectModels, "promoted", lambda self: "1")
    trainings.begin()
    time.sleep(0.3)
    assert starter.trainings == []


@pytest.mark.long
def test_what_was_cut_off_waits_for_a_label_studio_that_introduces_itself(tmp_path: Path, starter: Starter) -> None:
    settings = load_settings(model_dir=tmp_path, training="on", train_minutes=3)
    Registry(tmp_path).project(KEY).begin_run(Options(base=settings.model_name, minutes=3, by_button=True))
    studios = Studios(settings)
    trainings = Trainings(settings, studios, start=starter)  # type: ignore[arg-type]
    trainings.begin()
    until(lambda: bool(AskedTrainings(tmp_path).waiting()))
    studios.introduce(SEVEN, STUDIO, "b" * 40)
    until(lambda: len(starter.trainings) == 1)
    starter.trainings[0].may_end.set()


def test_made_up_projects_fill_no_folder_for_ever(trainings: Trainings, settings: Settings) -> None:
    asked = AskedTrainings(settings.model_dir)
    for number in range(100):
        asked.ask(f"{number}-0123abcd", f"{number}.1699000000")
    with pytest.raises(TrainingAskError, match="100 projects wait for theirs already"):
        trainings.ask(SEVEN)


def test_a_folder_that_is_only_to_be_read_costs_no_page(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    Registry(settings.model_dir).project(KEY).begin_run(Options(base="demo", minutes=1))

    def refuse(self: TrainingLock) -> None:
        raise PermissionError("lock")

    monkeypatch.setattr(TrainingLock, "holder", refuse)
    assert [each.project_id for each in trainings_of(settings.model_dir)] == ["7"]


def test_what_ended_is_not_begun_anew(trainings: Trainings, starter: Starter, settings: Settings) -> None:
    models = Registry(settings.model_dir).project(KEY)
    run = models.begin_run(Options(base="demo", minutes=1))
    models.write(replace(run, state="failed", failure="the disk is full"))
    trainings.begin()
    time.sleep(0.3)
    assert starter.trainings == []


def test_without_a_label_studio_it_is_said_what_to_do(tmp_path: Path, starter: Starter) -> None:
    settings = load_settings(model_dir=tmp_path, training="on")
    nobody = Trainings(settings, Studios(settings), start=starter)  # type: ignore[arg-type]
    with pytest.raises(TrainingAskError, match="it isn't known which Label Studio asks: set LABEL_STUDIO_URL"):
        nobody.ask(SEVEN)


def test_a_folder_that_can_not_be_written_is_said(settings: Settings, starter: Starter) -> None:
    (settings.model_dir / "trained").write_text("in the way")
    trainings = Trainings(settings, Studios(settings), start=starter)  # type: ignore[arg-type]
    with pytest.raises(TrainingAskError, match="MODEL_DIR can't be written to"):
        trainings.ask(SEVEN)


def test_what_was_trained_is_listed_by_project_the_last_first(settings: Settings) -> None:
    registry = Registry(settings.model_dir)
    for key in ("3-00000000", KEY):
        registry.project(key).begin_run(Options(base="demo", minutes=1))
    with TrainingLock(settings.model_dir).held(KEY) as told:
        told("1")
        found = trainings_of(settings.model_dir)
    assert [(each.project_id, each.running is not None, each.promoted) for each in found] == [
        ("7", True, None),
        ("3", False, None),
    ]
    assert trainings_of(settings.model_dir / "nothing") == []


def test_a_broken_file_of_a_click_is_no_click(settings: Settings) -> None:
    asked = AskedTrainings(settings.model_dir)
    asked.ask(KEY, SEVEN)
    (settings.model_dir / "trained" / KEY / "asked.json").write_text('{"key": "7-')
    assert asked.waiting() == []
    assert asked.of_project(KEY) is None


@pytest.mark.parametrize(
    ("data", "project"),
    [
        ({"project": {"id": 7, "created_at": "2023-11-03T08:26:40.123456Z"}}, SEVEN),
        ({"project": {"id": 7}}, "7"),
        ({"project": {"id": 7, "created_at": "yesterday"}}, "7"),
        ({"project": 7}, "7"),
        ({"project": None}, ""),
        ({}, ""),
    ],
)
def test_a_webhook_says_which_project_it_is(data: dict[str, object], project: str) -> None:
    assert project_of_event(data) == project
