"""`train`: what it says of a run that ended, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.harness.command import exit_code
from tests.harness.http_server import StartServer, reply
from yolo_backend.cli.common import FAILED, UNUSABLE
from yolo_backend.cli.train import _tell
from yolo_backend.training.records import Comparison, ImageCounts, LabelScore, Progress, Result, Run
from yolo_backend.training.things import BOXES

IMAGES = ImageCounts(24, 8)


def told(result: Result, capsys: pytest.CaptureFixture[str]) -> list[str]:
    _tell(result, BOXES)
    return capsys.readouterr().out.splitlines()


def test_labels_that_were_refused_are_not_told_as_a_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(Result("4", False, "the labels of 5 of 8 validation images changed", None, IMAGES), capsys) == [
        "Run 4 trained nothing. The labels of 5 of 8 validation images changed",
        "24 images to train on, 8 to validate with",
    ]


@pytest.mark.parametrize(("promoted", "serves"), [(True, "serves"), (False, "does not serve")])
def test_a_model_is_told_with_what_it_was_made_of(
    promoted: bool, serves: str, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {"newt": LabelScore(12, 0.5, 0.75, 0.25)}
    result = Result("4", promoted, "It is better", None, IMAGES, labels, Comparison(candidate=0.5))
    assert told(result, capsys)[:3] == [
        f"Run 4 {serves}. It is better",
        "24 images trained on, 8 validated",
        "mAP50 0.500",
    ]


PROJECT = {"id": 7, "title": "Newts", "label_config": "<View/>", "created_at": "2023-11-14T22:13:20Z"}
RUN = Run("3", "7-3f9a1c2e", "failed", 1.0, failure="it failed: do this")


class Ended:
    """A training that has ended so."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def wait(self, told: Callable[[Run], None]) -> Run:
        told(self._run)
        return self._run


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (RUN, UNUSABLE),
        (replace(RUN, progress=Progress("collecting", 1.0)), UNUSABLE),
        (replace(RUN, progress=Progress("fitting", 1.0)), FAILED),
        (replace(RUN, state="cancelled", progress=Progress("fitting", 1.0)), UNUSABLE),
    ],
)
def test_the_exit_code_says_whether_it_could_begin(
    environment: pytest.MonkeyPatch,
    serve: StartServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    run: Run,
    code: int,
) -> None:
    environment.setenv("LABEL_STUDIO_URL", serve(reply(json.dumps(PROJECT).encode())).url)
    begun: list[Any] = []

    def start(project: int, *_: Any, **__: Any) -> Ended:
        begun.append(project)
        return Ended(run)

    monkeypatch.setattr("yolo_backend.cli.train.start", start)

    assert exit_code("train", "-p", "7", "--json") == code

    printed = capsys.readouterr()
    assert (begun, printed.out) == ([7], "")
    assert "it failed: do this" in printed.err
