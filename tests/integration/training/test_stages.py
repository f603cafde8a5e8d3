"""What a run does between its stages: whole runs, in this process, of which most end before anything is fitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from tests.fakes.labelled_label_studio import CREATED_AT, PROJECT, LabelStudio
from tests.harness.http_server import StartServer
from tests.harness.training_house import ALWAYS_PROMOTED, OPTIONS, House
from yolo_backend.protocol import project_key, sent_project
from yolo_backend.training import stages
from yolo_backend.training.errors import TrainingError
from yolo_backend.training.registry import REPORT, ProjectModels, Registry


class HalfOfNothing(LabelStudio):
    """The first ten scenes are labelled; in the others, people drew nothing."""

    def regions(self, number: int) -> list[dict[str, Any]]:
        return super().regions(number) if number <= 10 else []


def models_of(house: House) -> ProjectModels:
    """Those of the project, before its first run, too."""
    key = project_key(str(house.settings.label_studio_url), sent_project(PROJECT, CREATED_AT))
    assert key
    return Registry(house.settings.model_dir).project(key)


@pytest.fixture
def _unfitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: Any) -> None:
        raise AssertionError("it costs the whole budget")

    monkeypatch.setattr(stages, "fit", fit)


@pytest.mark.usefixtures("_unfitted")
def test_a_field_that_no_task_has_is_gone_with_its_run(house: House) -> None:
    mistyped = house.train_here(replace(OPTIONS, group_by="patinet"))
    assert str(mistyped.failure).startswith('No labelled task has a field "patinet" in its data')
    assert "it costs the whole budget" in str(house.train_here(OPTIONS).failure), "the next one begins to fit"


@pytest.mark.usefixtures("_unfitted")
def test_a_run_with_no_box_to_train_on_ends_before_it_fits(
    serve: StartServer, bccd_weights: Path, tmp_path: Path
) -> None:
    studio = HalfOfNothing(scenes=20)
    house = House(serve, bccd_weights, tmp_path, studio)
    models = models_of(house)
    models.folder.mkdir(parents=True)
    models.add_to_split({blake3(studio.picture(number)).hexdigest(): "val" for number in range(1, 11)})
    run = house.train_here(OPTIONS)
    assert str(run.failure).startswith("No image that could be trained on has a box, because all")


def test_the_report_says_what_became_of_the_model(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate lets a first model pass that can't be judged."""

    def fail(_: Any) -> None:
        raise TrainingError("The model can't be exported")

    aside = house.train_here(replace(ALWAYS_PROMOTED, promote="never"))
    assert (aside.state, aside.verdict) == ("ended", "aside")
    monkeypatch.setattr(stages._Stages, "_check_export", fail)
    failed = house.train_here(ALWAYS_PROMOTED)
    assert (failed.state, failed.failure, house.models.promoted()) == ("failed", "The model can't be exported", None)
    reports = [(house.models.folder_of(run.run) / REPORT).read_text(encoding="utf-8") for run in (aside, failed)]
    assert ["Promoted" in report for report in reports] == [False, False]
    assert "<strong>Kept aside</strong> <bdi>It is not promoted, because of --promote never." in reports[0]
    assert "<strong>Failed</strong> <bdi>The model can&#39;t be exported.</bdi>" in reports[1]
