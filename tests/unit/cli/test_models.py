"""`models`: what was trained for a project, told, promoted and taken back."""

from __future__ import annotations

import json
import pickle
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.harness.command import exit_code
from tests.harness.http_server import StartServer, reply
from yolo_backend.cli.common import UNUSABLE
from yolo_backend.detection.record import TrainedRecord, add_record
from yolo_backend.protocol import project_key
from yolo_backend.training.lock import TrainingLock
from yolo_backend.training.records import Comparison, ImageCounts, Options, Result, Run
from yolo_backend.training.registry import ProjectModels, Registry

run = partial(exit_code, "models", "-p", "7")
PROJECT = {"id": 7, "title": "Newts", "label_config": "<View/>", "created_at": "2023-11-14T22:13:20Z"}


@pytest.fixture
def models(environment: pytest.MonkeyPatch, serve: StartServer, monkeypatch: pytest.MonkeyPatch) -> ProjectModels:
    """What was trained for the project; its weights needn't be any."""
    monkeypatch.setattr("yolo_backend.detection.weights.content_problem", lambda path: None)
    server = serve(reply(json.dumps(PROJECT).encode(), Content_Type="application/json"))
    environment.setenv("LABEL_STUDIO_URL", server.url)
    environment.setenv("MODEL_NAME", "demo")
    environment.setenv("COLUMNS", "200")
    key = project_key(server.url, "7.1700000000")
    assert key
    return Registry(Path("data")).project(key)


def train(models: ProjectModels, **ended: Any) -> Run:
    """A run with weights."""
    begun = models.begin_run(Options("demo", 1))
    with zipfile.ZipFile(models.folder_of(begun.run) / "weights.pt", "w") as archive:
        archive.writestr("weights/data.pkl", pickle.dumps(begun.run))
    add_record(models.folder_of(begun.run) / "weights.pt", TrainedRecord({}, begun.run, models.key))
    done = replace(begun, **ended)
    models.write(done)
    return done


def judged(run: str, reason: str, *, current: float | None, candidate: float | None, promoted: bool = False) -> Result:
    return Result(run, promoted, reason, None, ImageCounts(40, 10), map50=Comparison(current, candidate))


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_before_any_training_it_says_so(models: ProjectModels, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Newts is served by no trained model, but demo: nothing was trained for it in data, as ")
    assert printed.count("\n") == 1
    assert run("--json") == 0
    assert told(capsys) == {"project": 7, "folder": str(models.folder), "serves": None, "runs": []}
    assert not models.model_dir.exists(), "to look changes nothing"


def test_runs_are_listed_with_scores_and_reasons(models: ProjectModels, capsys: pytest.CaptureFixture[str]) -> None:
    first = judged("1", "the first one", current=None, candidate=0.25, promoted=True)
    train(models, state="ended", verdict="promote", result=first)
    worse = judged("2", "it is [worse]", current=0.25, candidate=0.125)
    train(models, state="ended", verdict="refuse", result=worse)
    train(models, state="failed", failure="the disk is full: make room")
    train(models, state="fitting")
    models.promote("1")
    with TrainingLock(models.model_dir).held(models.key) as tell:
        tell("5")
        train(models, state="fitting")
        assert run() == 0
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]
        assert run("--json") == 0
    assert lines[0] == "run began images mAP50 verdict reason"
    assert lines[2].startswith("5 20")
    assert lines[2].endswith(" fitting")
    assert lines[3].endswith(" cut off")
    assert lines[4].endswith(" failed the disk is full: make room")
    assert lines[5].endswith(" 40 + 10 0.250 → 0.125 refused it is [worse]")
    assert lines[6].endswith(" 40 + 10 0.250 serves the first one")
    assert lines[7] == "Newts is served by run 1"
    listed = told(capsys)
    assert (listed["serves"], [each["run"] for each in listed["runs"]]) == ("1", ["5", "4", "3", "2", "1"])
    assert [each["serves"] for each in listed["runs"]] == [False, False, False, False, True]
    assert [each["cut_off"] for each in listed["runs"]] == [False, True, False, False, False]
    assert listed["runs"][3]["result"]["map50"] == {
        "current": 0.25, "candidate": 0.125, "difference": None, "interval": None,
    }  # fmt: skip


def test_of_runs_of_several_kinds_each_says_its_own(models: ProjectModels, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in (None, "obb"):  # both have boxes
        train(models, state="ended", verdict="refuse", kind=kind, result=judged("1", "", current=None, candidate=0.25))
    assert run() == 0
    assert "kind" not in capsys.readouterr().out
    train(models, state="ended", verdict="aside", kind="pose", result=judged("3", "", current=None, candidate=0.5))
    train(models, state="failed", failure="no room")
    assert run() == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0][:3] == ["run", "kind", "began"]
    assert [line[1] for line in lines[3:6]] == ["pose", "obb", "detect"]
    assert lines[2][1].startswith("20"), "which it wasn't known of yet"


def test_a_run_is_promoted_and_taken_back(models: ProjectModels, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        train(models, state="ended", verdict="aside")
    assert run("--promote", "1") == 0
    printed = capsys.readouterr().out
    assert printed.startswith(
        "Run 1 serves Newts from now on. A running server names the new model_version within seconds"
    )
    assert run("--promote", "2", "--json") == 0
    assert told(capsys)["serves"] == models.promoted() == "2"
    assert run("--roll-back") == 0
    assert capsys.readouterr().out.startswith("Run 1 serves Newts again. ")
    assert run("--roll-back") == 0
    assert capsys.readouterr().out.startswith("demo serves Newts again. ")
    assert models.promoted() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--promote", "3"], "This project has no run 3: train one first"),
        (["--roll-back"], "No trained model serves this project: there is nothing to roll back"),
        (["--roll-back", "--promote", "3"], "choose one of --promote and --roll-back"),
    ],
)
def test_what_cannot_be_done_is_told(
    models: ProjectModels, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert run(*options) == UNUSABLE
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_another_project_of_that_number_has_other_models(
    models: ProjectModels, environment: pytest.MonkeyPatch, serve: StartServer, capsys: pytest.CaptureFixture[str]
) -> None:
    train(models, state="ended")
    later = serve(reply(json.dumps(PROJECT | {"created_at": "2023-11-14T22:13:21Z"}).encode()))
    environment.setenv("LABEL_STUDIO_URL", later.url)
    assert run("--json") == 0
    assert told(capsys)["runs"] == []
