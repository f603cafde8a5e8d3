"""One training at a time, and who has the lock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from yolo_backend.training import lock as lock_module
from yolo_backend.training.lock import UNKNOWN, Holder, TrainingBusyError, TrainingLock, was_cut_off
from yolo_backend.training.records import Run

KEY = "7-00c0ffee"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "_LOOKED_AT_FOR_S", 0.05)


def test_who_holds_it_is_told_until_it_is_free(tmp_path: Path) -> None:
    lock = TrainingLock(tmp_path)
    assert lock.holder() is None, "nobody has trained yet"
    with lock.held(KEY) as tell:
        holder = TrainingLock(tmp_path).holder()
        assert holder
        assert (holder.project, holder.run, holder.pid) == (KEY, "", os.getpid())
        tell("3")
        assert str(TrainingLock(tmp_path).holder()).startswith(f"run 3 of project 7, process {os.getpid()}, since 20")
    assert lock.holder() is None


def test_a_second_training_is_refused_and_told_who_trains(tmp_path: Path) -> None:
    with TrainingLock(tmp_path).held(KEY) as tell:
        tell("3")
        told = r"already \(run 3 of project 7, process \d+, since .*\): wait for its end"
        with pytest.raises(TrainingBusyError, match=told), TrainingLock(tmp_path).held("8-00c0ffee"):
            raise AssertionError("two train")
        assert TrainingLock(tmp_path).holder() != UNKNOWN, "the first is left as it was"
    with TrainingLock(tmp_path).held("8-00c0ffee"):
        pass


def test_a_training_that_fails_frees_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), TrainingLock(tmp_path).held(KEY):
        raise ZeroDivisionError
    assert TrainingLock(tmp_path).holder() is None
    assert not (tmp_path / "trained" / "holder.json").exists(), "the next holder would be taken for it for a moment"


@pytest.mark.parametrize("content", ["", '{"project": ', "[]"])
def test_a_holder_that_has_not_said_who_it_is_holds_it_all_the_same(tmp_path: Path, content: str) -> None:
    with TrainingLock(tmp_path).held(KEY):
        (tmp_path / "trained" / "holder.json").write_text(content)
        assert TrainingLock(tmp_path).holder() == UNKNOWN
        with pytest.raises(TrainingBusyError, match=r"already \(another training\)"), TrainingLock(tmp_path).held(KEY):
            pass


@pytest.mark.parametrize(
    ("holder", "cut_off"),
    [
        (None, True),
        (Holder(KEY, "2"), True),
        (Holder("8-00c0ffee", "3"), True),
        (Holder("8-00c0ffee"), True),
        (Holder(KEY, "3"), False),
        (Holder(KEY), False),
        (UNKNOWN, False),
    ],
)
def test_a_run_that_nobody_works_on_was_cut_off(holder: Holder | None, cut_off: bool) -> None:
    assert was_cut_off(Run("3", KEY, "fitting", 1.0), holder) is cut_off
    assert not was_cut_off(Run("3", KEY, "ended", 1.0), holder)
