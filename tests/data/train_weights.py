"""Train the tests' weights anew: `python -m tests.data.train_weights FOLDER`, with BCCD in YOLO's layout in FOLDER.

Literal expectations of the tests, such as a `model_version`, are of the weights that are there.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from ultralytics import YOLO

from yolo_backend.demo.train import narrow_architecture
from yolo_backend.detection.checkpoints import write_checkpoint

WEIGHTS = Path(__file__).parent / "weights" / "bccd.pt"


def main() -> None:
    """Train on FOLDER's train split, a quarter of an hour on two cores, and put the best weights into this folder."""
    data = Path(sys.argv[1]).resolve() / "data.yaml"
    with tempfile.TemporaryDirectory() as folder:
        model = YOLO(narrow_architecture(Path(folder), class_count=3))
        model.train(
            data=str(data), epochs=80, imgsz=320, batch=16, device="cpu", project=folder, name="run", seed=0,
            optimizer="AdamW", lr0=0.004, cos_lr=True, flipud=0.5, close_mosaic=15, cache="ram", workers=0, plots=False,
        )  # fmt: skip
        write_checkpoint(Path(model.trainer.best), WEIGHTS)


if __name__ == "__main__":
    main()
