"""What commands tell the page."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import msgspec
import pytest

from yolo_backend.serving import command_work
from yolo_backend.serving.command_work import CommandWork, telling_the_page, work_of_commands


def wait_for_work(folder: Path, done: int) -> CommandWork:
    ends_at = time.monotonic() + 10
    while time.monotonic() < ends_at:
        for work in work_of_commands(folder):
            if work.done == done:
                return work
        time.sleep(0.01)
    raise AssertionError("nothing was told")


def test_it_is_told_while_it_goes_on_and_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_work, "_TELL_EACH_S", 0.02)
    done = 3
    with telling_the_page(tmp_path, "prelabel", "7", lambda: (done, 10)):
        first = wait_for_work(tmp_path, 3)
        done = 8
        later = wait_for_work(tmp_path, 8)
    assert (first.command, first.project, first.total) == ("prelabel", "7", 10)
    assert later.began_at == first.began_at <= later.at
    assert work_of_commands(tmp_path) == []
    assert not any(thread.name == "tell the page" for thread in threading.enumerate())


def test_one_that_was_killed_is_not_shown_for_long_and_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "commands"
    folder.mkdir()
    now = time.time()
    for name, at in (("alive", now - 5), ("killed", now - 40), ("old", now - 100_000)):
        (folder / f"{name}.json").write_bytes(msgspec.json.encode(CommandWork("sample", "7", now - 200_000, at)))
    (folder / "odd.json").write_text("{")
    assert [work.at for work in work_of_commands(tmp_path)] == [now - 5]
    assert sorted(path.name for path in folder.iterdir()) == ["alive.json", "killed.json", "odd.json"]


def test_a_folder_that_cannot_be_written_to_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "commands").write_text("a file")
    with telling_the_page(tmp_path, "prelabel", "7", lambda: (0, None)):
        pass
    assert work_of_commands(tmp_path) == []
