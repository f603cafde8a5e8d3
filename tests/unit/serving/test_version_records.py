"""What a `model_version` is, written down."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.labels.control import Label
from yolo_backend.labels.controls.rectangles import RectangleControl
from yolo_backend.labels.label_map import LabelMap
from yolo_backend.labels.plans import UNTRAINED, ProjectPlan, ServedControl
from yolo_backend.serving import version_records
from yolo_backend.serving.version_records import VersionRecords
from yolo_backend.settings import load_settings


def plan(version: str) -> ProjectPlan:
    control = RectangleControl("label", "image", "$image", False, (Label("car", ("car",)),))
    weights = WeightsInfo("a.pt", "detect", {0: "car"}, "f" * 64, (640, 640))
    label_map = LabelMap({0: "car"}, {0: 0.3}, (), ())
    return ProjectPlan((ServedControl(control, weights, "a.pt", label_map, 0.25),), version)


@pytest.fixture
def records(tmp_path: Path) -> VersionRecords:
    return VersionRecords(load_settings(model_dir=tmp_path))


def test_a_version_is_known_to_others_of_the_same_folder(records: VersionRecords, tmp_path: Path) -> None:
    records.note(plan("a-0123abcd"))
    found = VersionRecords(load_settings(model_dir=tmp_path)).find("a-0123abcd")
    assert found is not None
    (control,) = found.controls
    assert (control.weights, control.fingerprint, control.image_size) == ("a.pt", "f" * 64, (640, 640))
    assert control.thresholds == {"car": 0.3}
    assert records.find("b-0123abcd") is None


def test_its_date_is_that_of_the_first_time(records: VersionRecords, tmp_path: Path) -> None:
    records.note(plan("a-0123abcd"))
    first = records.find("a-0123abcd")
    VersionRecords(load_settings(model_dir=tmp_path)).note(plan("a-0123abcd"))
    assert records.find("a-0123abcd") == first


def test_names_that_are_no_file_names(records: VersionRecords) -> None:
    odd = "../../" + "é/" * 300 + "-0123abcd"
    records.note(plan(odd))
    found = records.find(odd)
    assert found is not None
    assert found.model_version == odd
    assert records.find(odd.replace("é", "è")) is None  # another one with the same file name


def test_what_serves_nothing_is_no_version(records: VersionRecords, tmp_path: Path) -> None:
    records.note(ProjectPlan((), UNTRAINED))
    assert not (tmp_path / "versions").exists()


def test_a_folder_that_cannot_be_written_to_changes_nothing(records: VersionRecords, tmp_path: Path) -> None:
    (tmp_path / "versions").write_text("a file")
    records.note(plan("a-0123abcd"))
    assert records.find("a-0123abcd") is None


def test_the_oldest_go(records: VersionRecords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version_records, "_MOST", 2)
    for number in range(3):
        records.note(plan(f"a-{number}123abcd"))
        newest = tmp_path / "versions" / f"a-{number}123abcd.json"
        os.utime(newest, (1000 + number, 1000 + number))
    records.note(plan("a-9123abcd"))
    assert sorted(path.stem for path in (tmp_path / "versions").iterdir()) == ["a-2123abcd", "a-9123abcd"]
