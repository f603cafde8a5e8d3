"""A picture of each predicted task, with its boxes drawn."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import requests
from PIL import Image as Picture

from yolo_backend.addresses import file_name_in
from yolo_backend.cores import usable_cores
from yolo_backend.errors import UserError
from yolo_backend.failures import Failure
from yolo_backend.images.errors import ImageError
from yolo_backend.label_studio.errors import StudioError, explain
from yolo_backend.labels.drawing import LabelColors, draw_contact_sheet, draw_regions
from yolo_backend.parallel import in_parallel
from yolo_backend.protocol import Prediction
from yolo_backend.serving.project_predictor import ImagesOf, TaskOutcome
from yolo_backend.serving.task import TaskImage

_MAX_NAME = 80
_QUALITY = 90


class PictureError(UserError):
    """Pictures can't be written; the message says why."""


def with_pictures(
    outcomes: Iterator[TaskOutcome],
    folder: Path,
    images_of: ImagesOf,
    labels: Sequence[str],
    remark: Callable[[str], None],
) -> Iterator[TaskOutcome]:
    """The same outcomes, each after its picture is written: `<task id>-<name>.jpg`.

    A task of several images gets a sheet of them. `remark` is told what can't be drawn. Raises PictureError.
    """
    colors = LabelColors()
    for label in labels:
        colors[label]

    def draw(pair: TaskOutcome) -> None:
        task, outcome = pair
        if isinstance(outcome, Failure):
            return
        try:
            images = images_of(task)
        except (ImageError, StudioError, requests.Timeout) as error:
            remark(f"Task {task['id']} is not drawn: {error if isinstance(error, ImageError) else explain(error)}")
            return
        path = folder / f"{task['id']}-{_name_of(images[0].address)}.jpg"
        try:
            _write(images, outcome, colors, path)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise PictureError(
                f"{path} can't be written: {why}: make room there, or name another folder with --out"
            ) from None

    for pair, _ in in_parallel(draw, outcomes, usable_cores(), "picture"):
        yield pair


def _write(images: Sequence[TaskImage], prediction: Prediction, colors: LabelColors, path: Path) -> None:
    items = [
        (
            _name_of(image.address),
            Picture.fromarray(image.pixels),
            [one for one in prediction["result"] if image.shows(one)],
        )
        for image in images
    ]
    if len(items) == 1:
        _, picture, regions = items[0]
        draw_regions(picture, regions, colors=colors).save(path, quality=_QUALITY)
    else:
        draw_contact_sheet(items, path, colors)


def _name_of(address: str) -> str:
    """A name, without its ending, for the picture of the image at this address."""
    return re.sub(r"[^\w.-]+", "_", PurePosixPath(file_name_in(address)).stem)[:_MAX_NAME] or "image"
