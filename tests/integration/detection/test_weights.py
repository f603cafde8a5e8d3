"""Weights that aren't there: Ultralytics says which names are those of releases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES

from yolo_backend.detection.naming import RELEASES
from yolo_backend.detection.weights import WeightsError, find_weights


def failure(name: str, model_root: Path) -> str:
    with pytest.raises(WeightsError) as raised:
        find_weights(name, model_root, may_download=True)
    assert str(raised.value).isprintable()
    return str(raised.value)


@pytest.mark.parametrize("name", ["mine.pt", "mine.onnx", "yolo99n.pt"])
def test_a_missing_file_says_where_it_should_be(tmp_path: Path, name: str) -> None:
    message = failure(name, tmp_path / "models")
    assert name in message
    assert str(tmp_path / "models") in message
    assert "put the file there" in message
    assert not (tmp_path / "models").exists()


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("no_way_out")
def test_a_release_that_cannot_be_downloaded_says_so(tmp_path: Path) -> None:
    message = failure("yolo11n.pt", tmp_path)
    assert "yolo11n.pt" in message
    assert str(tmp_path) in message
    assert "download" in message
    assert "put the file there" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["yolov11n.pt", "yolo8n.pt", "yolov8n.onnx", "yolov5s.pt"])
def test_a_release_by_almost_its_name(tmp_path: Path, name: str) -> None:
    assert "did you mean yolo" in failure(name, tmp_path)


def test_every_release_that_is_served_is_one_of_ultralytics() -> None:
    """Those that it has beside are of other kinds, or seldom meant; by their very name they are downloaded, too."""
    assert RELEASES <= GITHUB_ASSETS_NAMES
    others = r"-(sem|depth|reid|grayscale|world|worldv2|objv1|distill|p6)\b"
    families = r"^(sam|mobile|rtdetr|yolo_nas|yoloe|FastSAM|calibration)"
    rest = GITHUB_ASSETS_NAMES - RELEASES
    assert [name for name in rest if not re.search(f"{others}|{families}", name)] == []


@pytest.mark.parametrize("name", ["sam_b.pt", "rtdetr-l.pt", "yolo_nas_s.pt", "yolo26n-sem.pt", "yolo26n-depth.pt"])
@pytest.mark.usefixtures("no_way_out")
def test_a_release_of_a_kind_that_is_not_served_is_not_downloaded(tmp_path: Path, name: str) -> None:
    assert failure(name, tmp_path) == (
        f"Weights {name} of Ultralytics are of a kind that isn't served: name a YOLO for detection, segmentation, "
        "pose, OBB or classification, such as yolo26n.pt"
    )
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_downloaded_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "yolo11n.pt").symlink_to(tmp_path / "elsewhere.pt")
    assert "Weights yolo11n.pt are a link to a file that isn't there" in failure("yolo11n.pt", tmp_path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.pt").mkdir()
    assert "x.pt" in failure("x.pt", tmp_path)
