"""Trained files with their record: torch, Ultralytics and our engine read them as any other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ultralytics import YOLO

from yolo_backend.detection import checkpoints as checkpoints_module
from yolo_backend.detection.checkpoints import write_checkpoint
from yolo_backend.detection.contents import content_problem
from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.detection.engine import Engine
from yolo_backend.detection.record import TrainedRecord, read_record
from yolo_backend.detection.weights import file_fingerprint

RECORD = TrainedRecord({"RBC": 0.5, "WBC": 0.125, "Platelets": 0.25}, run="3", project="7-00c0ffee")


@pytest.fixture
def trained(bccd_weights: Path, tmp_path: Path) -> Path:
    path = tmp_path / "weights.pt"
    write_checkpoint(bccd_weights, path, RECORD)
    return path


def test_torch_reads_it_as_before(bccd_weights: Path, trained: Path) -> None:
    before, after = (torch.load(path, map_location="cpu", weights_only=False) for path in (bccd_weights, trained))
    assert after.keys() == before.keys() - {"git"}
    states = before["model"].state_dict(), after["model"].state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    mapped = torch.load(trained, map_location="cpu", weights_only=False, mmap=True)
    assert all(torch.equal(tensor, states[0][name]) for name, tensor in mapped["model"].state_dict().items())


def test_ultralytics_predicts_the_same_with_it(
    bccd_weights: Path, trained: Path, bccd_images: list[NDArray[np.uint8]]
) -> None:
    image = np.ascontiguousarray(bccd_images[0][..., ::-1])
    before, after = (
        YOLO(path).predict(image, verbose=False, save=False)[0].boxes.data.cpu().numpy()
        for path in (bccd_weights, trained)
    )
    assert len(before) > 5
    np.testing.assert_array_equal(before, after)


def test_it_can_be_saved_anew_by_ultralytics_without_the_record(trained: Path, tmp_path: Path) -> None:
    YOLO(trained).save(tmp_path / "again.pt")
    assert read_record(tmp_path / "again.pt") is None


def test_what_a_file_is_by_its_bytes_stays(trained: Path) -> None:
    assert content_problem(trained) is None
    assert read_record(trained) == RECORD


def test_the_same_is_written_twice(bccd_weights: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write_checkpoint(bccd_weights, tmp_path / "other" / trained.name, RECORD)
    assert file_fingerprint(tmp_path / "other" / trained.name) == file_fingerprint(trained)


def test_it_tells_nothing_of_the_machine_that_trained_it(bccd_weights: Path, tmp_path: Path) -> None:
    checkpoint: dict[str, Any] = torch.load(bccd_weights, map_location="cpu", weights_only=False)
    model = checkpoint["model"]
    model.args = {**dict(model.args), "project": "/home/me/secret/runs"}
    model.yaml["yaml_file"] = "/home/me/secret/yolo.yaml"
    checkpoint |= {"git": {"root": "/home/me/secret"}, "train_args": {"data": "/home/me/secret/data.yaml", "epochs": 3}}
    torch.save(checkpoint, tmp_path / "best.pt")
    written = tmp_path / "written.pt"
    write_checkpoint(tmp_path / "best.pt", written)
    assert b"secret" in (tmp_path / "best.pt").read_bytes()
    assert b"secret" not in written.read_bytes()
    notes = torch.load(written, map_location="cpu", weights_only=False)
    assert notes["train_args"] == {"data": "data.yaml", "epochs": 3}
    assert notes["model"].args["project"] == "runs"
    assert read_record(written) is None


def test_it_is_written_whole_or_not_at_all(bccd_weights: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = trained.read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(checkpoints_module, "add_record", full)
    with pytest.raises(OSError, match="no space"):
        write_checkpoint(bccd_weights, trained, TrainedRecord({}, "4", "7-00c0ffee"))
    assert trained.read_bytes() == before
    assert list(trained.parent.iterdir()) == [trained]


def test_thresholds_are_the_same_in_torch_and_in_an_export(trained: Path, tmp_path: Path) -> None:
    in_torch = Engine(trained, device="cpu", engine="torch", image_size=96)
    told: list[WeightsInfo] = []
    exported = Engine(trained, device="cpu", engine="onnx", export_folder=tmp_path, image_size=96, tell=told.append)
    kept = Engine(trained, device="cpu", engine="onnx", export_folder=tmp_path, image_size=96)
    assert [each.runtime.engine for each in (in_torch, exported, kept)] == ["torch", "onnx", "onnx"]
    infos = [in_torch.info, *told, exported.info, kept.info]
    assert [dict(info.thresholds) for info in infos] == [dict(RECORD.thresholds)] * 4


def test_an_export_of_a_file_that_was_replaced_keeps_its_own_thresholds(
    bccd_weights: Path, trained: Path, tmp_path: Path
) -> None:
    fingerprint = file_fingerprint(trained)
    Engine(trained, device="cpu", engine="onnx", export_folder=tmp_path, image_size=96)
    shutil.copy(bccd_weights, trained)
    again = Engine(
        trained,
        device="cpu",
        engine="onnx",
        export_folder=tmp_path,
        image_size=96,
        fingerprint=fingerprint,
        thresholds=RECORD.thresholds,
    )
    assert (again.info.fingerprint, dict(again.info.thresholds)) == (fingerprint, dict(RECORD.thresholds))
