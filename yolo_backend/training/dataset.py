"""A snapshot in the layout that Ultralytics reads: images and label files side by side, and a data.yaml."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from yolo_backend.errors import UserError
from yolo_backend.labels.places import clip_to_image, corners_of_box
from yolo_backend.training.drawn_outlines import one_line_through
from yolo_backend.training.kinds import Kind
from yolo_backend.training.labelled import LabelledBox, LabelledImage

_DIGITS = 6  # a fiftieth of a pixel in the largest images; what differs by less is the same box drawn twice

_SEEN, _NOT_DRAWN = "2", "0"  # as COCO has it


class DatasetError(UserError):
    """The folder of a run can't be written; the message says why."""


def write_dataset(
    folder: Path,
    train: Sequence[LabelledImage],
    val: Sequence[LabelledImage],
    classes: Sequence[str],
    *,
    kind: Kind,
    points: int = 0,
) -> Path:
    """Write both sides into a new folder; returns its data.yaml. Boxes of other labels than `classes` are left out.

    By the `kind` of weights a box has the corners of its visible part (obb), one line through its outlines (segment),
    or its upright hull, with so many key `points` beside it (pose). Files are in the order of the images. data.yaml
    says of which files to train on not all classes can be drawn, and which ones can. Raises DatasetError.
    """
    drawable: dict[str, list[int]] = {}
    with writing_into(folder):
        for side, images in (("train", train), ("val", val)):
            for part in ("images", "labels"):
                (folder / part / side).mkdir(parents=True)
            for number, image in enumerate(images):
                # By number, because a task may have several images, and tasks may have the same one.
                name = f"{number:06d}-{image.task_id}"
                link_file(image.file, folder / "images" / side / f"{name}{image.file.suffix}")
                if image.labels is not None and side == "train":
                    drawable[name] = [number for number, label in enumerate(classes) if label in image.labels]
                rows: dict[tuple[int, tuple[str, ...]], str] = {}
                for box in image.boxes:
                    if box.label in classes:
                        class_id, numbers = classes.index(box.label), _numbers(box, image.size_wh, kind, points)
                        # Of those with one upright hull Ultralytics takes one, with a warning.
                        hull = tuple(f(numbers[axis::2]) for axis in (0, 1) for f in (min, max))
                        same = hull if kind == "obb" else tuple(numbers)
                        rows.setdefault((class_id, same), f"{class_id} {' '.join(numbers)}\n")
                (folder / "labels" / side / f"{name}.txt").write_text("".join(rows.values()), encoding="ascii")
        more = {
            **({"kpt_shape": [points, 3]} if kind == "pose" else {}),
            **({"drawable": drawable} if drawable else {}),
        }
        return describe(folder, "images/train", "images/val", classes, more)


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Raises DatasetError where the folder can't be written."""
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"The images to train on can't be put into {folder} ({error.strerror}): make room there, or let the "
            "server's user write there"
        ) from None


def describe(folder: Path, train: str, val: str, classes: Sequence[str], more: Mapping[str, Any]) -> Path:
    """Write the data.yaml of a folder whose sides lie in these of its folders; returns it. Raises OSError."""
    path = folder / "data.yaml"
    content = {"path": str(folder.resolve()), "train": train, "val": val, "names": dict(enumerate(classes)), **more}
    path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def _numbers(box: LabelledBox, size_wh: tuple[int, int], kind: Kind, points: int) -> list[str]:
    """A box's numbers, as a share of the image: corners, or center and size and perhaps key points.

    Of a point, x, y and whether it can be seen; 0 for one that nobody drew.
    """
    width, height = size_wh
    if kind in {"obb", "segment"}:
        corners = (
            one_line_through(box.outlines)
            if kind == "segment"
            else clip_to_image(corners_of_box(box.box_xywhr), size_wh)
        )
        numbers = [number for x, y in corners for number in (x / width, y / height)]
    else:
        left, top, right, bottom = box.box_xyxy
        center_x, center_y = (left + right) / 2, (top + bottom) / 2
        numbers = [center_x / width, center_y / height, (right - left) / width, (bottom - top) / height]
    shares = [f"{min(1.0, max(0.0, number)):.{_DIGITS}f}" for number in numbers]
    if kind == "pose":
        for point in (*box.points, *[None] * points)[:points]:
            x, y = point or (0.0, 0.0)
            shares += [f"{x / width:.{_DIGITS}f}", f"{y / height:.{_DIGITS}f}", _SEEN if point else _NOT_DRAWN]
    return shares


def link_file(file: Path, link: Path) -> None:
    """The same file under another name; a copy, where the disk has no links."""
    for make in (os.link, os.symlink):
        with suppress(OSError):
            make(file.resolve(), link)
            return
    shutil.copyfile(file, link)
