"""Folders by class: each image of one label in that of its class, whatever the label is called."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.harness.chosen_images import image
from yolo_backend.training.class_folders import folder_names, write_class_folders
from yolo_backend.training.dataset import DatasetError
from yolo_backend.training.labelled import LabelledImage

CLASSES = ("A / B", "../up", "", "車", "class 000000")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "0123.png"
    path.write_bytes(b"an image")
    return path


def of(file: Path, number: int, *labels: str) -> LabelledImage:
    return image(number, *labels, file=file)


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_each_image_is_in_the_folder_of_its_class(tmp_path: Path, file: Path) -> None:
    train = [of(file, 7, "車"), of(file, 7, "../up"), of(file, 8, "A / B"), of(file, 9, "class 000000")]
    data = write_class_folders(tmp_path / "data", train, [of(file, 10, "A / B")], CLASSES)
    assert files_in(tmp_path / "data") == [
        "data.yaml",
        "train/class 000000/000002-8.png",
        "train/class 000001/000001-7.png",
        "train/class 000003/000000-7.png",
        "train/class 000004/000003-9.png",
        "val/class 000000/000000-10.png",
    ]
    said = yaml.safe_load(data.read_text(encoding="utf-8"))
    assert said["names"] == dict(enumerate(CLASSES))
    assert (said["train"], said["val"]) == ("train", "val")
    assert list(folder_names(CLASSES)) == list(range(len(CLASSES)))


def test_images_of_several_labels_and_of_none_that_is_learnt_are_left_out(tmp_path: Path, file: Path) -> None:
    images = [of(file, 1, "車", "../up"), of(file, 2, "gone"), of(file, 3), of(file, 4, "車", "gone")]
    write_class_folders(tmp_path / "data", images, images[:2], CLASSES)
    assert files_in(tmp_path / "data") == ["data.yaml", "train/class 000003/000003-4.png"]


def test_a_folder_that_takes_no_files_is_told_in_a_sentence(tmp_path: Path, file: Path) -> None:
    with pytest.raises(DatasetError, match=r"can't be put into .*0123\.png.* make room there"):
        write_class_folders(file, [of(file, 1, "車")], [], CLASSES)
