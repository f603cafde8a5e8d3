"""Weights that aren't there: Ultralytics says which names are those of releases."""

from __future__ import annotations

from pathlib import Path

import pytest

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


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.pt").mkdir()
    assert "x.pt" in failure("x.pt", tmp_path)
