"""The commands' names, what the help says of them, and what becomes of errors."""

from __future__ import annotations

import errno
import importlib
import inspect
from pathlib import Path

import pytest
import requests

from tests.harness.command import run_command
from yolo_backend import __version__
from yolo_backend.cli import tasks as tasks_module
from yolo_backend.cli.app import COMMANDS
from yolo_backend.errors import UserError


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_says_of_each_command_what_it_says_of_itself(name: str) -> None:
    function = getattr(importlib.import_module(f"yolo_backend.cli.{name}"), name)
    assert (inspect.getdoc(function) or "").splitlines()[0] == COMMANDS[name]


def test_help_lists_all_commands(tmp_path: Path) -> None:
    done = run_command("--help", environment={}, cwd=tmp_path)
    assert done.returncode == 0
    shown = " ".join(done.stdout.split())
    assert "Usage: yolo-backend [OPTIONS] COMMAND" in shown
    for name in COMMANDS:
        assert f" {name} " in shown


def test_the_version(tmp_path: Path) -> None:
    done = run_command("--version", environment={}, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"yolo-backend {__version__}\n")


def test_a_mistyped_command_is_told_with_the_one_meant(tmp_path: Path) -> None:
    done = run_command("sampel", environment={}, cwd=tmp_path)
    assert done.returncode == 2
    assert "No such command 'sampel'. Did you mean 'sample'?" in done.stderr


def test_a_commands_own_help_names_the_command(tmp_path: Path) -> None:
    done = run_command("sample", "--help", environment={}, cwd=tmp_path)
    assert done.returncode == 0
    assert "Usage: yolo-backend sample [OPTIONS] [sources]..." in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("The weights x.pt are broken: put others there"), "The weights x.pt are broken: put others there"),
        (requests.ReadTimeout("http://studio/?token=secret"), "Label Studio doesn't answer in time"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "A file couldn't be written: No space left on device: make room, or give the right to it, and run the "
            "command again",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/models"),
            "/models can't be used: Permission denied: make room, or give the right to it, and run the command again",
        ),
    ],
)
def test_an_error_for_a_person_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, line: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(tasks_module, "read_settings", fail)
    done = run_command("tasks", "-p", "1", environment={}, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{line}\n")


@pytest.mark.parametrize("error", [OSError("disk"), RuntimeError("a bug")])
def test_a_bug_is_not_taken_for_a_persons_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(tasks_module, "read_settings", fail)
    with pytest.raises(type(error), match=str(error)):
        run_command("tasks", "-p", "1", environment={}, cwd=tmp_path)
