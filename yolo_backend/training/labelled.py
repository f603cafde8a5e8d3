"""What people labelled, as the trainer reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Point = tuple[float, float]
Origin = Literal["manual", "prediction", "prediction-changed"]
"""How a region came about: drawn, a prediction that was kept, or one that was changed."""


@dataclass(frozen=True)
class LabelledBox:
    """A box with its label, in pixels of the upright image.

    `box_xywhr` is what was drawn: center, size, clockwise radians. `box_xyxy` is its upright hull, clipped to the
    image. What was drawn as a polygon or a mask has `outlines`: closed lines, of which one within another is a hole.
    `points` are its key points by their numbers; None for those that weren't drawn.
    """

    label: str
    box_xyxy: tuple[float, float, float, float]
    box_xywhr: tuple[float, float, float, float, float]
    origin: Origin = "manual"
    outlines: tuple[tuple[tuple[float, float], ...], ...] = ()
    points: tuple[Point | None, ...] = ()


@dataclass(frozen=True)
class LabelledImage:
    """An image of a task whose work was submitted; without boxes it is an image of nothing.

    `is_jpeg` is about the task's own file: DECODE=fast decodes nothing but JPEGs smaller.
    `digest` is that of the image's bytes, in hex; `look` is a perceptual hash of 64 bits. `file` holds the upright
    pixels. `page` is the index in a `valueList`. `group` is the value of the data field whose images stay together.
    `labels` are those that can be drawn on it; None if all can. An `<Image>` may have controls of its own.
    """

    task_id: int
    annotation_id: int
    address: str
    digest: str
    look: int
    file: Path
    size_wh: tuple[int, int]
    boxes: tuple[LabelledBox, ...]
    page: int | None = None
    is_jpeg: bool = True
    group: str | None = None
    labels: frozenset[str] | None = None

    @property
    def is_drawn_without_help(self) -> bool:
        """Returns True if no box of it was a prediction."""
        return all(box.origin == "manual" for box in self.boxes)


@dataclass(frozen=True)
class Snapshot:
    """All submitted work of a project at one moment.

    `labels` are the labeling config's, in its order. `remarks` are sentences for the person: what was left out, and
    why.
    """

    images: tuple[LabelledImage, ...]
    labels: tuple[str, ...]
    remarks: tuple[str, ...] = field(default=())
