"""Of which kind weights are that serve a project: a training goes on whatever is wrong with them."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.harness.shapes import shapes_weights
from yolo_backend.detection.checkpoints import write_checkpoint
from yolo_backend.detection.models import load_checkpoint
from yolo_backend.detection.record import TrainedRecord
from yolo_backend.training import stages
from yolo_backend.training.kinds import kind_of_file, own_kind
from yolo_backend.training.networks import read_base
from yolo_backend.training.records import Options
from yolo_backend.training.registry import WEIGHTS, ProjectModels

KEY = "7-00c0ffee"


@pytest.fixture
def models(tmp_path: Path) -> ProjectModels:
    models = ProjectModels(KEY, tmp_path)
    models.folder.mkdir(parents=True)
    return models


@pytest.mark.parametrize("kind", ["segment", "pose", "obb", "classify"])
def test_a_file_says_its_kind(kind: str) -> None:
    assert kind_of_file(shapes_weights(kind)) == kind == load_checkpoint(shapes_weights(kind)).task


def test_what_says_no_kind_is_of_none(bccd_weights: Path, tmp_path: Path) -> None:
    assert kind_of_file(bccd_weights) == "detect"
    (tmp_path / "text.pt").write_text("weights")
    shutil.copyfile(bccd_weights, tmp_path / "export.onnx")
    for name in ("text.pt", "export.onnx", "gone.pt"):
        assert kind_of_file(tmp_path / name) is None


def test_without_weights_of_its_own_a_project_has_no_kind(models: ProjectModels) -> None:
    assert own_kind(models) is None


def test_fused_weights_that_were_published_by_hand_have_a_kind(models: ProjectModels) -> None:
    yolo = load_checkpoint(shapes_weights("segment"))
    yolo.model.fuse(verbose=False)
    yolo.save(models.file)
    assert own_kind(models) == "segment"


@pytest.mark.parametrize(("run", "project"), [("3", KEY), ("mine", KEY), ("mine", "7")])
def test_weights_of_a_run_that_is_not_there_have_a_kind(models: ProjectModels, run: str, project: str) -> None:
    write_checkpoint(shapes_weights("pose"), models.file, TrainedRecord({"bar": 0.5}, run, project))
    assert own_kind(models) == "pose"


def test_a_record_and_then_a_run_are_asked_before_the_network(models: ProjectModels, tmp_path: Path) -> None:
    run = models.begin_run(Options("bccd.pt", 1)).run
    file = models.folder_of(run) / WEIGHTS
    write_checkpoint(shapes_weights("pose"), file, TrainedRecord({"bar": 0.5}, run, KEY, "segment"))
    models.promote(run)
    assert own_kind(models) == "segment"


def test_a_file_that_is_no_weights_has_no_kind(models: ProjectModels) -> None:
    models.file.write_bytes(b"half")
    assert own_kind(models) is None


def test_a_model_of_another_kind_is_not_even_loaded(
    models: ProjectModels, bccd_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("it may take minutes to export")

    monkeypatch.setattr(stages, "Engine", SimpleNamespace(as_set=load))
    run: Any = SimpleNamespace(options=Options("bccd.pt", 1), settings=None, project=None, models=models, diary=None)
    found = stages._Stages(run)._found(shapes_weights("segment"), cast("Any", None), read_base(bccd_weights))
    assert found is None
