"""Images of one label each in the layout that Ultralytics' classifiers read: a folder for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from yolo_backend.training.dataset import describe, link_file, writing_into
from yolo_backend.training.labelled import LabelledImage


def write_class_folders(
    folder: Path, train: Sequence[LabelledImage], val: Sequence[LabelledImage], classes: Sequence[str]
) -> Path:
    """Write both sides into a new folder; returns its data.yaml. Images without a label of `classes`, or with several,
    are left out.

    The folders have numbers, because a label may have any characters, and files are in the order of the images.
    Raises DatasetError.
    """
    names = folder_names(classes)
    with writing_into(folder):
        for side, images in (("train", train), ("val", val)):
            (folder / side).mkdir(parents=True)
            for number, image in enumerate(images):
                labels = {box.label for box in image.boxes}.intersection(classes)
                if len(labels) == 1:
                    of_class = folder / side / names[classes.index(labels.pop())]
                    of_class.mkdir(exist_ok=True)
                    # By number, because a task may have several images, and tasks may have the same one.
                    link_file(image.file, of_class / f"{number:06d}-{image.task_id}{image.file.suffix}")
        return describe(folder, "train", "val", classes, {})


def folder_names(classes: Sequence[str]) -> Mapping[int, str]:
    """By the classes' numbers: what their folders are called."""
    return {number: f"class {number:06d}" for number in range(len(classes))}
