"""Labels as other programs keep them in files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

LabelledBox = tuple[str, tuple[float, float, float, float]]
"""A class, and a box xyxy in pixels."""


def yolo_boxes(file: Path, size_wh: tuple[int, int], names: Sequence[str]) -> list[LabelledBox]:
    """The boxes of a YOLO text file."""
    width, height = size_wh
    boxes: list[LabelledBox] = []
    for line in file.read_text().splitlines():
        number, x, y, box_width, box_height = map(float, line.split())
        left, top = (x - box_width / 2) * width, (y - box_height / 2) * height
        boxes.append((names[int(number)], (left, top, left + box_width * width, top + box_height * height)))
    return boxes


def voc_of(file_name: str, size_wh: tuple[int, int], boxes: Sequence[LabelledBox]) -> str:
    """Pascal VOC's XML of an image, with whole pixels, as labelImg writes it."""
    objects = "".join(
        f"<object><name>{escape(label)}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
        "<bndbox>"
        + "".join(
            f"<{name}>{round(value)}</{name}>"
            for name, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        + "</bndbox></object>"
        for label, box in boxes
    )
    return (
        f"<annotation><folder>photos</folder><filename>{escape(file_name)}</filename>"
        f"<size><width>{size_wh[0]}</width><height>{size_wh[1]}</height><depth>3</depth></size>"
        f"<segmented>0</segmented>{objects}</annotation>"
    )
