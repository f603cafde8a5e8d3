"""Weights of projects: on a shelf of their own, under names that no labeling config can say."""

from __future__ import annotations

from pathlib import Path

import pytest

from yolo_backend.detection.trained import Shelves, publish_trained, trained_file, trained_name, withdraw_trained
from yolo_backend.detection.weights import WeightsError, WeightsFolder
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.labeling_config import parse_labeling_config

KEY = "7-00c0ffee"
NAME = "trained/7-00c0ffee/project-7.pt"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("yolo_backend.detection.weights.content_problem", lambda path: None)
    path = tmp_path / "best.pt"
    path.write_text("best")
    return path


@pytest.fixture
def shelves(tmp_path: Path) -> Shelves:
    (tmp_path / "models").mkdir()
    return Shelves(WeightsFolder(tmp_path / "models"), tmp_path / "data")


def test_a_published_file_is_found_and_a_withdrawn_one_is_not(weights: Path, shelves: Shelves) -> None:
    assert trained_name(KEY) == NAME
    problem = shelves.missing(NAME)
    assert problem
    assert "There are no trained weights project-7.pt in" in problem
    with pytest.raises(WeightsError, match="is this the MODEL_DIR of the backend that trained them"):
        shelves.find(NAME)
    publish_trained(weights, KEY, shelves.model_dir)
    assert shelves.missing(NAME) is None
    assert shelves.find(NAME) == trained_file(KEY, shelves.model_dir) == shelves.model_dir / NAME
    assert shelves.find(NAME).read_text() == "best"
    assert [path.name for path in (shelves.model_dir / "trained" / KEY).iterdir()] == ["project-7.pt"]
    withdraw_trained(KEY, shelves.model_dir)
    withdraw_trained(KEY, shelves.model_dir)
    assert shelves.missing(NAME) is not None


def test_what_is_no_weights_is_not_published(tmp_path: Path, shelves: Shelves) -> None:
    export = tmp_path / "best.onnx"
    export.write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"best\.onnx can't be published as project-7\.pt: their endings differ"):
        publish_trained(export, KEY, shelves.model_dir)
    with pytest.raises(WeightsError, match="There is no file"):
        publish_trained(tmp_path / "none.pt", KEY, shelves.model_dir)
    text = tmp_path / "text.pt"
    text.write_text("half")
    with pytest.raises(WeightsError, match=r"text\.pt is a text"):
        publish_trained(text, KEY, shelves.model_dir)
    assert not shelves.model_dir.exists()


def test_a_folder_that_cannot_be_written_to_is_told_by_its_setting(weights: Path, shelves: Shelves) -> None:
    shelves.model_dir.write_text("a file")
    with pytest.raises(
        WeightsError, match=r"can't be published as project-7\.pt .* write into MODEL_DIR, and have room"
    ):
        publish_trained(weights, KEY, shelves.model_dir)


def test_other_names_are_those_of_model_root(weights: Path, shelves: Shelves) -> None:
    root = shelves.folder.root
    (root / "best.pt").write_text("best")
    assert shelves.find("best.pt") == root / "best.pt"
    assert shelves.missing("best.pt") is None
    assert "are not in MODEL_ROOT" in (shelves.missing("other.pt") or "")


@pytest.mark.parametrize(
    "name",
    [
        "trained/7-00c0ffee/project-8.pt",
        "trained/7-00c0ffee/../8-00c0ffee/project-8.pt",
        "trained/7-00c0ffee/weights.pt",
        "trained/7-00c0ffee/runs/1/weights.pt",
        "../trained/7-00c0ffee/project-7.pt",
        "trained/7-00c0ffee/project-7.onnx",
        "project-7.pt",
        NAME + "\n",
        "/" + NAME,
    ],
)
def test_only_what_serves_a_project_is_on_its_shelf(weights: Path, shelves: Shelves, name: str) -> None:
    publish_trained(weights, KEY, shelves.model_dir)
    publish_trained(weights, "8-00c0ffee", shelves.model_dir)
    assert shelves.missing(name) is not None
    with pytest.raises(WeightsError):
        shelves.find(name)


@pytest.mark.parametrize(
    "path", [NAME, f"./{NAME}", "trained/../" + NAME, NAME.replace("/", "\\"), NAME.replace("/", "%2F")]
)
def test_a_labeling_config_cannot_name_the_weights_of_a_project(path: str) -> None:
    config = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image" '
        f'model_path="{path}"><Label value="x"/></RectangleLabels></View>'
    )
    with pytest.raises(LabelingConfigError, match="model_path should be the bare name of a file in MODEL_ROOT"):
        parse_labeling_config(config)
