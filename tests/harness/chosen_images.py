"""Images of which people chose what they are."""

from __future__ import annotations

from pathlib import Path

from yolo_backend.training.labelled import LabelledBox, LabelledImage, Origin

SIZE_WH = (64, 48)
WHOLE = (0.0, 0.0, 64.0, 48.0)


def image(number: int, *labels: str, origin: Origin = "manual", file: Path = Path("none.jpg")) -> LabelledImage:
    boxes = tuple(LabelledBox(label, WHOLE, (32.0, 24.0, 64.0, 48.0, 0.0), origin) for label in labels)
    return LabelledImage(number, number, "a.jpg", f"digest {number}", number, file, SIZE_WH, boxes)
