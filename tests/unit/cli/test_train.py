"""`train`: what its exit code says of a training that failed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.harness.command import exit_code
from tests.harness.http_server import StartServer, reply
from yolo_backend.cli.common import FAILED, UNUSABLE
from yolo_backend.training.records import Progress, Run

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
