"""What a training is told, and by which way."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from yolo_backend.settings import load_settings
from yolo_backend.training import launch
from yolo_backend.training.launch import (
    CancelError,
    Order,
    _secrets,
    _told_settings,
    settings_of,
)
from yolo_backend.training.lock import TrainingLock
from yolo_backend.training.records import Options
from yolo_backend.training.registry import Registry

KEY = "7-00c0ffee"
TOKEN = "0123456789abcdef0123456789abcdef01234567"


def test_the_child_has_the_settings_of_its_parent_and_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where the command line said something else than the environment does."""
    settings = load_settings(
        label_studio_url="http://here:8080",
        label_studio_api_key=TOKEN,
        model_root=tmp_path,
        allowed_image_hosts=frozenset({"a.example", "b.example"}),
        basic_auth_user="me",
        basic_auth_pass="pass word",
        device="cpu",
    )
    order = Order(7, Options("demo", 1), _told_settings(settings), cores=(0, 1))
    line = msgspec.json.encode(order)
    assert TOKEN.encode() not in line
    assert b"pass word" not in line
    for variable, value in _secrets(settings).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("LABEL_STUDIO_HOST", "http://elsewhere:8080")
    monkeypatch.setenv("MODEL_NAME", "other.pt")
    told = settings_of(msgspec.json.decode(line, type=Order))
    assert told == settings
    assert told.label_studio_api_key
    assert told.label_studio_api_key.get_secret_value() == TOKEN


def test_a_secret_that_isn_t_set_is_none_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    for variable, value in _secrets(settings).items():
        monkeypatch.setenv(variable, value)
    assert settings_of(Order(7, Options("demo", 1), _told_settings(settings))).label_studio_api_key is None


@contextmanager
def under_way(model_dir: Path, is_cancelled: Callable[[], bool]) -> Iterator[None]:
    """A training that holds the lock until it is cancelled."""
    lock, is_told = TrainingLock(model_dir), threading.Event()

    def hold() -> None:
        with lock.held(KEY) as tell:
            tell("3")
            is_told.set()
            while not is_cancelled():
                time.sleep(0.02)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    assert is_told.wait(10)
    yield
    thread.join(10)
    assert not thread.is_alive()


def test_a_training_of_another_user_is_cancelled_by_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    folder = Registry(tmp_path).project(KEY).folder_of("3")
    folder.mkdir(parents=True)
    monkeypatch.setattr(launch, "_is_child", lambda _: True)
    monkeypatch.setattr(os, "kill", refuse)
    with under_way(tmp_path, (folder / launch.CANCEL).exists):
        assert launch.cancel_running(tmp_path, lambda _: True).run == "3"


def test_a_training_that_ends_in_this_moment_is_cancelled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    has_ended = threading.Event()

    def find_nobody(*_: int) -> None:
        has_ended.set()
        raise ProcessLookupError(errno.ESRCH, "No such process")

    monkeypatch.setattr(launch, "_is_child", lambda _: True)
    monkeypatch.setattr(os, "kill", find_nobody)
    with under_way(tmp_path, has_ended.is_set):
        assert launch.cancel_running(tmp_path, lambda _: True).run == "3"


def test_in_the_folder_of_another_user_it_is_said_who_can_cancel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(_: TrainingLock) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(TrainingLock, "holder", refuse)
    with pytest.raises(CancelError, match="another user's: cancel as the user who started them"):
        launch.cancel_running(tmp_path, lambda _: True)
