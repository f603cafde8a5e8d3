"""Files of labels as tests write them, and what is read of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from yolo_backend.registering.label_files import read_labels
from yolo_backend.registering.objects import FileObject, ObjectsRead

SIZE_WH = (200, 100)


def write(folder: Path, files: dict[str, Any]) -> Path:
    """Write files of text, or of JSON, into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return folder


def read(path: Path, image: str = "a.jpg", size_wh: tuple[int, int] = SIZE_WH, orientation: int = 1) -> ObjectsRead:
    """What the labels at this path say of an image."""
    labels = read_labels(path)
    of_image = labels.of([Path(image)])[Path(image)].objects(size_wh, orientation)
    return ObjectsRead(of_image.found, [*labels.odd, *of_image.odd])


def only(path: Path, image: str = "a.jpg", size_wh: tuple[int, int] = SIZE_WH, orientation: int = 1) -> FileObject:
    """The only object of an image, where nothing is odd."""
    of_image = read(path, image, size_wh, orientation)
    assert of_image.odd == []
    (thing,) = of_image.found
    return thing
