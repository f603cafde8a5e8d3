"""Record anew what two detectors find in BCCD: `python -m tests.data.record_findings FOLDER WEIGHTS`.

FOLDER is BCCD in YOLO's layout, WEIGHTS a YOLO11n that was trained on its train split. The other is the tests' own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.train_weights import WEIGHTS
from tests.harness.findings import LABELS, RECORDED, TRUTH, pack
from yolo_backend.detection.engine import Engine
from yolo_backend.settings import load_settings
from yolo_backend.training.finding import find_boxes
from yolo_backend.training.found import FoundBoxes
from yolo_backend.training.labelled import LabelledImage


def main() -> None:
    """Search the photographs of the validation split, and write boxes, scores and labels of both, and what is drawn."""
    data, weights = Path(sys.argv[1]), Path(sys.argv[2])
    files = sorted((data / "images" / "val").glob("*.jpg"))
    settings = load_settings(engine="torch", device="cpu")
    images, drawn = [], []
    for number, file in enumerate(files):
        size_wh = Image.open(file).size
        images.append(LabelledImage(number, number, file.name, file.stem, 0, file, size_wh, ()))
        rows = np.loadtxt(data / "labels" / "val" / f"{file.stem}.txt", ndmin=2).reshape(-1, 5)
        center, half = rows[:, 1:3] * size_wh, rows[:, 3:5] * size_wh / 2
        labels = tuple(LABELS[int(number)] for number in rows[:, 0])
        drawn.append(FoundBoxes(np.concatenate([center - half, center + half], axis=1), np.ones(len(rows)), labels))
    recorded = pack(TRUTH, drawn)
    recorded["sizes_wh"] = np.array([image.size_wh for image in images], np.uint16)
    recorded["names"] = np.array([image.digest for image in images])
    for path in (weights, WEIGHTS):
        engine = Engine.as_set(path, settings)
        labels_of_class = {number: (name,) for number, name in engine.info.class_names.items()}
        recorded |= pack(path.stem, find_boxes(engine, images, labels_of_class, max_megapixels=10).images)
    np.savez_compressed(RECORDED, **recorded)  # type: ignore[arg-type]
    print(f"{RECORDED}: {RECORDED.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
