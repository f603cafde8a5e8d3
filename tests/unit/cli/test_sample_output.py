"""What `sample` prints for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.harness.studio_client import BCCD_CONFIG
from yolo_backend.cli import sample_output
from yolo_backend.cli.sample_output import Delivered, SampleOutput
from yolo_backend.label_studio.projects import Project
from yolo_backend.label_studio.studio import Studio
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.plans import UNTRAINED
from yolo_backend.registering.finding import FileOrAddress
from yolo_backend.sampling.choosing import Choice, Sample
from yolo_backend.sampling.pool import Pool, PoolImage
from yolo_backend.sampling.scoring import Scored, Scoring

URL = "http://127.0.0.1:1"
(CONTROL,) = parse_labeling_config(BCCD_CONFIG).controls
UPLOAD = "/data/upload/15/2d793d91-BloodImage_00350.jpg"
LONG = f"photographs/of a microscope/{'very ' * 5}deep/IMG_0003.jpg"


def told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *images: PoolImage,
    registered: dict[FileOrAddress, int] | None = None,
    version: str = "cells-0123abcd",
) -> str:
    """What is printed of these chosen images, at 80 columns."""
    nothing: Any = {"result": [], "score": 0.0, "model_version": version}
    chosen = [Scored(image, 1.0, nothing, nothing, is_predicted=version != UNTRAINED) for image in images]
    pool = Pool(images, len(images), CONTROL, is_new=registered is not None)
    project = Project(Studio(URL, "0" * 40), 15, "Cells", BCCD_CONFIG)
    output = SampleOutput(
        project, version, Choice(2), Scoring("entropy", "sum", 0.1, 0.5), pool, Sample(chosen, [1.0], []),
        Delivered(registered or {}),
    )  # fmt: skip
    monkeypatch.setattr(sample_output, "out", Console(width=80))
    output.print()
    return capsys.readouterr().out


def test_a_task_is_known_by_its_files_name_and_a_file_by_its_whole_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task: Any = {"id": 7, "data": {"image": UPLOAD}}
    printed = told(monkeypatch, capsys, PoolImage(UPLOAD, task), PoolImage(LONG, Path(LONG)))

    assert "/data/upload/" not in printed
    cells = [line.split("│")[3].strip() for line in printed.splitlines() if line.startswith("│")]
    assert cells[0] == "BloodImage_00350.jpg"
    assert "".join(cells[1:]).replace(" ", "") == LONG.replace(" ", "")
    assert "…" not in printed


def test_images_that_nothing_predicts_are_registered_without_predictions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = PoolImage("a.jpg", Path("a.jpg"))
    registered: dict[FileOrAddress, int] = {Path("a.jpg"): 9}

    predicted = told(monkeypatch, capsys, image, registered=registered)
    unseen = told(monkeypatch, capsys, image, registered=registered, version=UNTRAINED)

    assert "Registered: 1, with predictions as cells-0123abcd" in predicted
    for printed in (predicted, unseen):  # with the task that the image has now
        (row,) = [line for line in printed.splitlines() if "a.jpg" in line]
        assert [cell.strip() for cell in row.split("│")[1:4]] == ["1", "9", "a.jpg"]
    assert "Registered: 1, without predictions" in unseen
