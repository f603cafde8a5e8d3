"""What is written of a run while it runs, and by whom last."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from yolo_backend.training.diary import Diary
from yolo_backend.training.lock import was_cut_off
from yolo_backend.training.records import ImageCounts, Options, Result, Run
from yolo_backend.training.registry import ProjectModels, Registry
from yolo_backend.training.run import end_cut_off

KEY = "7-0123abcd"


@pytest.fixture
def models(tmp_path: Path) -> ProjectModels:
    return Registry(tmp_path).project(KEY)


@pytest.fixture
def diary(models: ProjectModels) -> Diary:
    return Diary(models, models.begin_run(Options("demo", 1)))


def read(models: ProjectModels) -> Run:
    return models.run("1")


def test_progress_is_read_by_others(diary: Diary, models: ProjectModels) -> None:
    diary.progress("fitting", epoch=3, epochs=12, score=0.5, seconds_left=40)
    diary.remark("Look here", "And here")
    diary.remark()
    run = read(models)
    assert (run.state, run.remarks) == ("fitting", ("Look here", "And here"))
    assert run.progress
    assert (run.progress.epoch, run.progress.epochs, run.progress.score) == (3, 12, 0.5)


def test_nothing_is_written_after_the_end(diary: Diary, models: ProjectModels) -> None:
    diary.cancel(1)
    diary.progress("judging")
    diary.end("failed", failure="too late")
    run = read(models)
    assert run.state == "cancelled"
    assert run.ended_at
    assert run.failure == "It was cancelled, and what serves is as before"


@pytest.mark.parametrize("end", [lambda diary: diary.cancel(1), lambda diary: diary.fail("no memory")])
def test_what_serves_already_was_neither_cancelled_nor_did_it_fail(
    diary: Diary, models: ProjectModels, monkeypatch: pytest.MonkeyPatch, end: Callable[[Diary], None]
) -> None:
    diary.change(result=Result("1", False, "it is better", None, ImageCounts(30, 10)))
    monkeypatch.setattr(ProjectModels, "promoted", lambda self: "1")
    end(diary)
    run = read(models)
    assert (run.state, run.verdict, run.failure) == ("ended", "promote", None)
    assert run.result
    assert run.result.promoted


def test_who_ended_by_itself_was_not_cancelled(diary: Diary, models: ProjectModels) -> None:
    diary.end("failed", failure="No labels")
    diary.cancel(1)
    assert read(models).failure == "No labels"


def test_cancelling_doesn_t_wait_for_a_disk_that_hangs(diary: Diary) -> None:
    held = threading.Event()
    release = threading.Event()

    def hang() -> None:
        with diary._lock:
            held.set()
            release.wait(10)

    thread = threading.Thread(target=hang)
    thread.start()
    held.wait(10)
    diary.cancel(0.05)  # returns
    release.set()
    thread.join()


def test_a_run_that_was_cut_off_is_seen_and_ended(diary: Diary, models: ProjectModels) -> None:
    diary.progress("fitting")
    (models.folder_of("1") / "work").mkdir()
    assert was_cut_off(read(models), None)
    end_cut_off(models)
    run = read(models)
    assert run.state == "failed"
    assert "cut off" in str(run.failure)
    assert not (models.folder_of("1") / "work").exists()
