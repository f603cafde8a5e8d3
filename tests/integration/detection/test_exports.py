"""Exports: made once, found again, never half a file; and why there is none is told in one line."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from yolo_backend import child_processes
from yolo_backend.detection import exports
from yolo_backend.detection.exports import ExportError, ExportOptions, Exports
from yolo_backend.detection.weights import file_fingerprint

REPOSITORY = Path(exports.__file__).parent.parent.parent
WEIGHTS = b"weights " * 1000
OPTIONS = ExportOptions(hashlib.sha256(WEIGHTS).hexdigest(), "onnx", "cpu", 300)
COPY = 'echo once >> "$(dirname "$0")/log"; cat "$3" > "$4"'  # of the weights, for $3 and $4 are weights and export
OTHER_WEIGHTS = b"others " * 1000
Exporter = Callable[[str], None]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "cells.pt"
    path.write_bytes(WEIGHTS)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "exports"


def script(path: Path, command: str) -> str:
    """A program that takes the place of Python, and is quicker; the exporter's arguments follow on `-m` and a name."""
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exporter:
    """Sets what runs as the exporter."""

    def set_command(command: str) -> None:
        executable = script(tmp_path / "exporter", command)
        monkeypatch.setattr(child_processes, "sys", SimpleNamespace(executable=executable))

    set_command(COPY)
    return set_command


def times_made(weights: Path) -> int:
    log = weights.with_name("log")
    return len(log.read_text().splitlines()) if log.exists() else 0


def exported(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.onnx"))


def assert_nothing_is_left(folder: Path) -> None:
    """Neither half an export, nor a lock that is held."""
    assert [path for path in folder.iterdir() if path.suffix != ".lock"] == []
    for lock in folder.glob("*.lock"):
        with FileLock(lock, timeout=0):
            pass


# Made once


@pytest.mark.usefixtures("exporter")
def test_an_export_is_handed_over_to_weights_of_the_same_network(folder: Path, weights: Path) -> None:
    """A trained model is exported to be judged, and then has a record in its file."""
    exports = Exports(folder)
    others = replace(OPTIONS, fingerprint=hashlib.sha256(OTHER_WEIGHTS).hexdigest())
    exports.hand_over(OPTIONS, others)  # there is none
    content = exports.make(weights, OPTIONS).read_bytes()
    exports.hand_over(OPTIONS, others)
    found = exports.find(others)
    assert found
    assert found.read_bytes() == content
    assert exports.find(OPTIONS) is None
    assert times_made(weights) == 1


@pytest.mark.usefixtures("exporter")
def test_an_export_is_made_once_and_found_again(folder: Path, weights: Path) -> None:
    first = Exports(folder)
    assert first.find(OPTIONS) is None
    path = first.make(weights, OPTIONS)
    assert path.read_bytes() == weights.read_bytes()
    assert first.find(OPTIONS) == Exports(folder).find(OPTIONS) == path
    assert Exports(folder).make(weights, OPTIONS) == path
    assert times_made(weights) == 1
    assert exported(folder) == [path]


@pytest.mark.usefixtures("exporter")
def test_the_name_says_what_it_is_of_and_what_it_holds(folder: Path, weights: Path) -> None:
    path = Exports(folder).make(weights, OPTIONS)
    assert path.name == f"cells-{OPTIONS.key}-{file_fingerprint(weights)[:16]}.onnx"
    assert list(folder.glob("making-*")) == []


@pytest.mark.usefixtures("exporter")
def test_an_export_in_a_folder_that_is_only_to_be_read_is_found(
    folder: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Exports(folder).make(weights, OPTIONS)

    def touch(path: Path) -> None:
        raise PermissionError(f"{path} is another user's")

    monkeypatch.setattr(Path, "touch", touch)  # root may write anywhere
    assert Exports(folder).find(OPTIONS) == path


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4000] ^= 1
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    os.truncate(path, 4000)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [_flip_a_bit, _truncate, _empty])
@pytest.mark.usefixtures("exporter")
def test_a_broken_export_is_made_anew(
    folder: Path, weights: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = Exports(folder).make(weights, OPTIONS)
    spoil(path)
    assert Exports(folder).find(OPTIONS) is None
    assert exported(folder) == []
    assert caplog.messages == [f"The export {path.name} is broken: it is made anew"]
    assert Exports(folder).make(weights, OPTIONS) == path
    assert path.read_bytes() == weights.read_bytes()


@pytest.mark.usefixtures("exporter")
def test_of_a_broken_and_a_whole_export_the_whole_one_is_found(folder: Path, weights: Path) -> None:
    path = Exports(folder).make(weights, OPTIONS)
    for name in ("cells-{}-0000000000000000.onnx", "other-{}-zzzzzzzzzzzzzzzz.onnx"):
        (folder / name.format(OPTIONS.key)).write_bytes(b"half")
    assert Exports(folder).make(weights, OPTIONS) == path
    assert times_made(weights) == 1


OTHER: list[dict[str, Any]] = [
    {"fingerprint": hashlib.sha256(OTHER_WEIGHTS).hexdigest()},
    {"max_detections": 1000},
    {"device": "mps"},
]


@pytest.mark.parametrize("other", OTHER, ids=str)
@pytest.mark.usefixtures("exporter")
def test_another_export_is_another_file(folder: Path, weights: Path, other: dict[str, Any]) -> None:
    path = Exports(folder).make(weights, OPTIONS)
    assert Exports(folder).find(replace(OPTIONS, **other)) is None
    if "fingerprint" in other:
        weights.write_bytes(OTHER_WEIGHTS)
    second = Exports(folder).make(weights, replace(OPTIONS, **other))
    assert second != path
    assert Exports(folder).find(OPTIONS) == path
    assert times_made(weights) == 2


@pytest.mark.parametrize("package", ["ultralytics-opencv-headless", "torch", "onnx", "onnxslim"])
@pytest.mark.usefixtures("exporter")
def test_another_version_of_what_makes_it_is_another_export(
    folder: Path, weights: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Exports(folder).make(weights, OPTIONS)
    monkeypatch.setattr(exports, "version", lambda name: "99.9" if name == package else version(name))
    assert Exports(folder).find(OPTIONS) is None
    Exports(folder).make(weights, OPTIONS)
    assert times_made(weights) == 2


@pytest.mark.usefixtures("exporter")
def test_another_recipe_is_another_export(folder: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Exports(folder).make(weights, OPTIONS)
    monkeypatch.setattr(exports, "_RECIPE", 0)
    assert Exports(folder).find(OPTIONS) is None


def test_many_threads_make_it_once(folder: Path, weights: Path, exporter: Exporter) -> None:
    exporter(f"sleep 0.2; {COPY}")
    with ThreadPoolExecutor(8) as threads:
        paths = list(threads.map(lambda _: Exports(folder).make(weights, OPTIONS), range(8)))
    assert set(paths) == set(exported(folder))
    assert times_made(weights) == len(set(paths)) == 1


IN_A_PROCESS = """
import sys
from pathlib import Path
from yolo_backend.detection.exports import ExportOptions, Exports
from yolo_backend.detection.weights import file_fingerprint
sys.executable, folder, weights = sys.argv[1:]
print("here", flush=True)
print(Exports(Path(folder)).make(Path(weights), ExportOptions(file_fingerprint(Path(weights)), "onnx", "cpu", 300)))
"""


def test_two_processes_make_it_once(folder: Path, weights: Path, tmp_path: Path) -> None:
    executable = script(tmp_path / "exporter", f'while [ ! -e "{tmp_path}/go" ]; do sleep 0.05; done; {COPY}')
    command = [sys.executable, "-c", IN_A_PROCESS, executable, str(folder), str(weights)]
    with ExitStack() as running:
        processes = [
            running.enter_context(
                subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            for _ in range(2)
        ]
        assert [process.stdout.readline() for process in processes if process.stdout] == ["here\n"] * 2
        (tmp_path / "go").touch()
        answers = [process.communicate(timeout=20) for process in processes]
    (path,) = exported(folder)
    assert answers == [(f"{path}\n", "")] * 2
    assert times_made(weights) == 1


# What can't be made


@pytest.mark.usefixtures("exporter")
def test_weights_that_were_replaced_meanwhile_are_not_exported_in_the_name_of_others(
    folder: Path, weights: Path
) -> None:
    weights.write_bytes(OTHER_WEIGHTS)
    assert reason(folder, weights) == "the weights were replaced by others meanwhile"
    assert times_made(weights) == 0
    assert_nothing_is_left(folder)


def reason(folder: Path, weights: Path) -> str:
    with pytest.raises(ExportError) as raised:
        Exports(folder).make(weights, OPTIONS)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("exit 3", "exporting failed: exit status 3"),
        ("echo why >&2; exit 1", "exporting failed: why"),
        ('echo first >&2; echo "the cause" >&2; exit 1', "exporting failed: the cause"),
        ('echo half > "$4"; echo "no space" >&2; exit 1', "exporting failed: no space"),
        ("exit 0", "exporting failed: exit status 0"),
        ("kill -9 $$", "exporting failed: exit status -9"),
        ("head -c 5000 /dev/zero | tr '\\0' x >&2; exit 1", "exporting failed: " + 300 * "x"),
    ],
)
def test_an_exporter_that_fails_leaves_nothing_and_says_why(
    folder: Path, weights: Path, exporter: Exporter, command: str, expected: str
) -> None:
    exporter(command)
    assert reason(folder, weights) == expected
    assert_nothing_is_left(folder)
    exporter(COPY)
    assert Exports(folder).make(weights, OPTIONS).read_bytes() == weights.read_bytes()


def test_an_exporter_that_hangs_is_ended(
    folder: Path, weights: Path, exporter: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "_TIMEOUT_S", 0.3)
    exporter(f'echo half > "$4"; echo $$ > "{tmp_path}/pid"; exec sleep 60')
    assert reason(folder, weights) == "exporting took longer than 0.3 s"
    assert_nothing_is_left(folder)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.usefixtures("exporter")
def test_a_lock_that_nobody_gives_back_is_told(folder: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_TIMEOUT_S", 0.1)
    folder.mkdir(parents=True)
    with FileLock(folder / f"{OPTIONS.key}.lock"):
        assert str(folder) in reason(folder, weights)
    assert times_made(weights) == 0


@pytest.mark.parametrize("in_its_place", ["data", "data/exports"])
@pytest.mark.usefixtures("exporter")
def test_a_folder_that_cannot_be_had_is_told(folder: Path, weights: Path, tmp_path: Path, in_its_place: str) -> None:
    place = tmp_path / in_its_place
    place.parent.mkdir(exist_ok=True)
    place.write_text("a file")
    message = reason(folder, weights)
    assert "MODEL_DIR" in message
    assert str(folder) in message
    assert place.read_text() == "a file"


def test_the_real_exporter_says_in_one_line_what_is_wrong_with_weights(folder: Path, weights: Path) -> None:
    message = reason(folder, weights)
    assert message.startswith("exporting failed: ")
    assert "Error: " in message
    assert_nothing_is_left(folder)


# Old ones


@pytest.mark.usefixtures("exporter")
def test_of_many_exports_those_used_last_are_kept(folder: Path, weights: Path) -> None:
    made = [Exports(folder).make(weights, replace(OPTIONS, max_detections=number)) for number in range(20)]
    for age_s, path in enumerate(reversed(made), start=1):  # the first is the oldest
        used_at = time.time() - 1000 * age_s
        os.utime(path, (used_at, used_at))
    (folder / "notes.txt").write_text("not ours")
    assert Exports(folder).find(replace(OPTIONS, max_detections=0)) == made[0]
    newer = [Exports(folder).make(weights, replace(OPTIONS, max_detections=number)) for number in (100, 101)]
    assert set(exported(folder)) == {made[0], *made[3:], *newer}
    assert (folder / "notes.txt").exists()
