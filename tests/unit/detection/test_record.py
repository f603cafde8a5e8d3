"""The record inside a trained file: thresholds that one fingerprint covers, read without torch."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from yolo_backend.detection.record import RECORD, TrainedRecord, add_record, read_record
from yolo_backend.detection.weights import WeightsError, read_weights_file

THRESHOLDS = {"newt": 0.5, "crested newt": 0.125}


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("best/data.pkl", b"weights")
        for name, content in members.items():
            file.writestr(f"best/{name.replace('_json', '.json')}", content)
    return path


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pt")
    record = TrainedRecord(THRESHOLDS, "3", "7-00c0ffee")
    add_record(path, record)
    assert read_record(path) == record
    assert zipfile.ZipFile(path).namelist() == ["best/data.pkl", f"best/{RECORD}"]
    file = read_weights_file("a.pt", path)
    assert dict(file.thresholds) == THRESHOLDS


def test_the_same_weights_and_thresholds_make_the_same_file_and_others_another(tmp_path: Path) -> None:
    fingerprints = set()
    for number, threshold in enumerate((0.5, 0.5, 0.25)):
        path = archive(tmp_path / f"{number}.pt")
        add_record(path, TrainedRecord({"newt": threshold}, "3", "7-00c0ffee"))
        fingerprints.add(read_weights_file("a.pt", path).fingerprint)
    assert len(fingerprints) == 2


def test_other_weights_have_none(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("weights")
    (tmp_path / "a.onnx").write_bytes(archive(tmp_path / "b.pt", yolo_backend_json=b"{}").read_bytes())
    for path in (tmp_path / "text.pt", tmp_path / "a.onnx", archive(tmp_path / "a.pt")):
        assert read_record(path) is None
        assert read_weights_file("a.pt", path).thresholds == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"thresholds": {"newt": 1.5}, "run": "3", "project": "7"}',
        b'{"thresholds": {"newt": -0.1}, "run": "3", "project": "7"}',
        b'{"thresholds": {"newt": "high"}, "run": "3", "project": "7"}',
        b'{"thresholds": {"newt": NaN}, "run": "3", "project": "7"}',
        b'{"run": "3", "project": "7"}',
        b" " * 5_000_000,
    ],
)
def test_a_record_that_cannot_be_read_is_not_passed_over(tmp_path: Path, content: bytes) -> None:
    path = archive(tmp_path / "a.pt", yolo_backend_json=content)
    with pytest.raises(ValueError, match=r"."):
        read_record(path)
    with pytest.raises(
        WeightsError, match=r"^Weights a\.pt hold a yolo_backend\.json that can't be read \(.+\): promote"
    ):
        read_weights_file("a.pt", path)


def test_a_damaged_record_is_not_passed_over(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pt", yolo_backend_json=b'{"thresholds": {"newt": 0.5}, "run": "3", "project": "7"}')
    path.write_bytes(path.read_bytes().replace(b"0.5}", b"0.9}"))
    with pytest.raises(ValueError, match="CRC"):
        read_record(path)
